"""Command line: `python -m regrpo_jax.main --config=configs/NAME.py --workdir=DIR [--config.rl.eta=0.05 ...]`.

Trains and evaluates a tool-using policy as the config's stages say. Starting again with the same --workdir goes on
where the last start stopped.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from regrpo_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A Python file with get_config(); see configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: metrics, checkpoints, adapter. Made if missing.")


def main(arguments: list[str]) -> None:
    """Runs the stages of `--config`."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}; overrides are written --config.rl.eta=0.05")
    config, workdir = _CONFIG.value, _WORKDIR.value
    if config is None or workdir is None:
        flag = "config" if config is None else "workdir"
        raise UserError(f"--{flag} is missing; try: python -m regrpo_jax.main --help")
    from regrpo_jax.pipeline import run  # jax is imported only once the flags are known to be good

    run(config, Path(workdir))


def run_from_command_line() -> None:
    """`main`, with a person's mistakes told in one line instead of a traceback."""
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _parse_flags(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        raise UserError(f"{error}; try --help") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"an override does not fit the config: {_first_line(error)}") from error
    except FileNotFoundError as error:
        raise UserError(f"--config: no such file: {error.filename or error}") from error
    except SyntaxError as error:
        raise UserError(f"--config: {error.filename}, line {error.lineno}: {error.msg}") from error


def _first_line(error: Exception) -> str:
    text = str(error.args[0]) if error.args else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


if __name__ == "__main__":
    run_from_command_line()
