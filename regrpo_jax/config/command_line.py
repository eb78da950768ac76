"""What a person typed, read without importing jax: `--config=FILE --workdir=DIR --config.section.field=VALUE ..`.

absl and ml-collections read it; this file turns what they raise into one line that names the flag and what was meant.
"""

import ast
import contextlib
import difflib
import re
import runpy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from regrpo_jax.config.base_config import base_config
from regrpo_jax.errors import UserError

_ITEM = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|((?:"[^"]*"|'[^']*'|[^,])*))\s*(?:,|$)""")
HINT = "try: python -m regrpo_jax.main --help"


def parse_command_line(arguments: Sequence[str]) -> tuple[ConfigDict, Path]:
    """The locked configuration, overrides applied, and the run's folder.

    Raises:
      UserError: an unknown flag or field, a value of the wrong type, a config file that cannot be used.
    """
    program = "regrpo_jax.main"
    files, overrides = flags.FlagValues(), flags.FlagValues()  # of this call alone, so that it may be made again
    path = flags.DEFINE_string("config", None, "", flag_values=files)
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=files)
    _check_names(arguments)
    try:
        others = files([program, *arguments], known_only=True)
        for flag in (path, workdir):
            if not flag.value:
                raise UserError(f"--{flag.name} is missing; {HINT}")
        config = load_config(Path(str(path.value)))
        others = _with_lists(others, field_values(config))
        config_flags.DEFINE_config_dict("config", config, flag_values=overrides, lock_config=True, sys_argv=others)
        rest = overrides(others)[1:]
    except flags.Error as error:
        raise UserError(f"{error}; {HINT}") from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; overrides are written --config.objective.eta=0.05")
    return config, Path(str(workdir.value))


def load_config(path: Path) -> ConfigDict:
    """The result of `get_config()` in a Python file.

    Raises:
      UserError: the file cannot be read or run, or returns something else.
    """
    try:
        path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise UserError(f"--config={path}: cannot be read ({reason}); configs/ holds some to start from") from error
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except SyntaxError as error:
        raise UserError(f"--config={error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever the person's own code ends in
        raise UserError(_error_in_config(path, error)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={path}: get_config() must return a ConfigDict, not {type(config).__name__}")
    return config


def field_values(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """All fields, flat: {"objective.eta": 0.1, ..}."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            values |= field_values(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def _check_names(arguments: Sequence[str]) -> None:
    """Raises UserError for an unknown flag or field: every config has the fields of `base_config`, and no others."""
    fields = [f"config.{field}" for field in field_values(base_config())]
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("--") or name in ("config", "workdir", *fields):
            continue
        namesakes = [field for field in fields if field.split(".")[-1] == name.split(".")[-1]]
        namesakes.sort(key=lambda field: -difflib.SequenceMatcher(None, field, name).ratio())
        near = namesakes[:3] or difflib.get_close_matches(name, ["config", "workdir", *fields], n=1)
        meant = f"; did you mean {' or '.join(f'--{flag}' for flag in near)}?" if near else ""
        what = "the config has no such field" if name.startswith("config.") else "unknown flag"
        raise UserError(f"--{name}: {what}{meant}")


def _with_lists(arguments: Sequence[str], fields: Mapping[str, Any]) -> list[str]:
    """The arguments, with the value of every field that holds a list written as Python writes one."""
    written = list(arguments)
    for place, argument in enumerate(arguments):
        flag, equals, text = argument.partition("=")
        held = fields.get(flag.lstrip("-").removeprefix("config."))
        if not flag.startswith("-") or not isinstance(held, tuple | list):
            continue
        if equals:
            written[place] = f"{flag}={_list_of(flag, text, held)!r}"
        elif place + 1 < len(arguments):
            written[place + 1] = repr(_list_of(flag, arguments[place + 1], held))
    return written


def _list_of(flag: str, text: str, held: tuple[Any, ...] | list[Any]) -> tuple[Any, ...] | list[Any]:
    """What `text` lists, of the kind that the field holds (texts where it holds nothing). UserError.

    Items are parted by commas; quotes keep one that has commas, brackets around all are allowed.
    """
    kind = type(held[0]) if held else str
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        literal = ast.literal_eval(text.strip())
        if kind is str and isinstance(literal, tuple | list) and all(isinstance(item, str) for item in literal):
            return type(held)(literal)
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("()", "[]"):
        inner = inner[1:-1]
    items = [(match[1] or match[2] or match[3] or "").strip() for match in _ITEM.finditer(inner)]
    quoted = [match[1] is not None or match[2] is not None for match in _ITEM.finditer(inner)]
    kept = [item for item, in_quotes in zip(items, quoted, strict=True) if item or in_quotes]
    if kind not in (int, float):
        return type(held)(kept)
    try:
        return type(held)(kind(item) for item in kept)
    except ValueError as error:
        raise UserError(f"{flag}={text}: list numbers, parted by commas, such as {flag}=1,2") from error


def _error_in_config(path: Path, error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f", line {frames[-1].lineno}" if frames else ""
    if isinstance(error, KeyError) and error.args == ("get_config",):
        return f"--config={path}: the file defines no get_config(); see configs/ for the form"
    # ml_collections lists every field of the section between what is wrong and what was meant.
    text = re.sub(r" Other fields present: .*(?=Did you mean)", " ", str(error).replace("\\n", " "), flags=re.DOTALL)
    return f"--config={path}{place}: {type(error).__name__}: {' '.join(text.split())}"
