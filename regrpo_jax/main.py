"""Trains and evaluates a tool-using policy as the stages of a config say.

    python -m regrpo_jax.main --config=FILE --workdir=DIR [--config.FIELD=VALUE ..]

  --config         a Python file with get_config(); configs/ holds some to start from
  --workdir        folder of the run: metrics, checkpoints, adapter; made if missing
  --config.FIELD   overrides a field, such as --config.rl.eta=0.05; regrpo_jax/base_config.py tells of each

Starting again with the same --workdir goes on where the last start stopped.
"""

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.command_line import parse_command_line
from regrpo_jax.config_checks import HOST_STAGES, check_config, plays_tools
from regrpo_jax.corpus_files import with_corpus
from regrpo_jax.errors import UserError
from regrpo_jax.model_defaults import with_model_defaults
from regrpo_jax.toolbox.sandbox.isolation import check_isolation
from regrpo_jax.toolbox.sandbox.results import SandboxError


def main(arguments: Sequence[str]) -> None:
    """Runs the stages of `--config`.

    Args:
      arguments: what follows the program's name.
    Raises:
      UserError: for everything that a person can mend.
    """
    config, workdir = parse_command_line(arguments)
    check_config(config)
    if plays_tools(config):
        check_isolation(config.environment.allow_unisolated)  # a night's training must not end in this refusal
    if config.environment.suite:
        _host_stage("environment_run")(config, workdir)
        return
    config = with_model_defaults(config)  # for all stages, because they share the record of the run
    if "data" in config.stages:
        config = with_corpus(config, workdir)
        _host_stage("engine_run")(config, workdir)
    if "audit" in config.stages:
        _host_stage("audit_run")(config, workdir)
    if set(config.stages) - set(HOST_STAGES):
        from regrpo_jax.pipeline import run  # jax takes seconds to import, a mistake is told at once

        run(config, workdir)


def _host_stage(module: str) -> Callable[[ConfigDict, Path], None]:
    """The `run` of a stage that plays real tools and needs no jax.

    Raises:
      UserError: what the tools need is not installed.
    """
    try:
        return importlib.import_module(f"regrpo_jax.{module}").run
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing; real tools need: pip install 'regrpo_jax[tools]'") from error


def run_from_command_line() -> None:
    """`main`, with a person's mistakes told in one line instead of a traceback; exits with 2 after one."""
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        main(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SandboxError as error:
        print(f"error: {error}; start again with the same --workdir to go on", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; start again with the same --workdir to go on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run_from_command_line()
