"""What a person typed, read without importing jax: `--config=FILE --workdir=DIR --config.section.field=VALUE ..`.

Every mistake ends in one line that names the flag or the place in the config file, and the field that was meant.
"""

import difflib
import re
import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from regrpo_jax.base_config import base_config
from regrpo_jax.errors import UserError

HINT = "try: python -m regrpo_jax.main --help"
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
WANTED = {bool: "true or false", int: "a whole number", float: "a number", tuple: "values with commas between them"}


def parse_command_line(arguments: Sequence[str]) -> tuple[ConfigDict, Path]:
    """The configuration, overrides applied, and the run's folder.

    Raises:
      UserError: an unknown flag or field, a value of the wrong type, a config file that cannot be used.
    """
    given = read_flags(arguments)
    for flag in ("config", "workdir"):
        if not given.get(flag):
            raise UserError(f"--{flag} is missing; {HINT}")
    config = load_config(Path(given["config"]))
    for flag, text in given.items():
        if flag.startswith("config."):
            override(config, flag.removeprefix("config."), text)
    return config, Path(given["workdir"])


def read_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Flags and their texts, from `--flag=text` and `--flag text`; the last one of a name counts.

    Raises:
      UserError: something else was typed.
    """
    given: dict[str, str] = {}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if not argument.startswith("--"):
            raise UserError(f"unexpected argument {argument!r}; overrides are written --config.rl.eta=0.05")
        flag, equals, text = argument.removeprefix("--").partition("=")
        if flag not in ("config", "workdir") and not flag.startswith("config."):
            raise UserError(f"unknown flag --{flag}{_meant(_flags_like(flag))}; {HINT}")
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UserError(f"--{flag} has no value; write --{flag}=VALUE")
            text = waiting.pop(0)
        given[flag] = text
    return given


def load_config(path: Path) -> ConfigDict:
    """The locked result of `get_config()` in a Python file.

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
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"--config={error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever the person's own code ends in
        raise UserError(_error_in_config(path, error)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={path}: get_config() must return a ConfigDict, not {type(config).__name__}")
    return config.lock()


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field such as "rl.eta" from the text of a flag.

    Raises:
      UserError: there is no such field, or the text is of another type than its value.
    """
    *sections, name = field.split(".")
    here: Any = config
    for section in sections:
        here = here.get(section) if isinstance(here, ConfigDict) else None
    if not isinstance(here, ConfigDict) or name not in here:
        raise UserError(f"--config.{field}: the config has no field {field!r}{_meant(_fields_like(config, field))}")
    if isinstance(here[name], ConfigDict):
        raise UserError(f"--config.{field} is a section; set its fields, such as --config.{field}.{min(here[name])}")
    here[name] = _converted(here, name, field, text)


def field_values(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """All fields, flat: {"rl.eta": 0.1, ..}."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            values |= field_values(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def _converted(section: ConfigDict, name: str, field: str, text: str) -> Any:
    kind = section.get_type(name)
    if text.lower() == "none" and field_values(base_config()).get(field, "") is None:
        return None
    try:
        if kind is tuple:
            item = type(section[name][0]) if section[name] else str
            parts = [part.strip().strip("'\"") for part in text.strip("()[] ").split(",")]
            return tuple(item(part) for part in parts if part)
        return BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        example = f", such as {section[name]}" if section[name] is not None else ""
        raise UserError(f"--config.{field}={text}: {WANTED.get(kind, kind.__name__)} is needed{example}") from error


def _fields_like(config: ConfigDict, field: str) -> list[str]:
    """The sections that have a field given without one, else the field that is spelled nearly so."""
    fields = list(field_values(config))
    namesakes = [known for known in fields if known.split(".")[-1] == field.split(".")[-1]]
    near = difflib.get_close_matches(field, fields, n=1)
    return [f"--config.{known}" for known in (namesakes[:2] if "." not in field and namesakes else near)]


def _flags_like(flag: str) -> list[str]:
    known = ["config", "workdir", "help"]
    return [f"--{name}" for name in difflib.get_close_matches(flag, known, n=1)] or _fields_like(base_config(), flag)


def _meant(names: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _error_in_config(path: Path, error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f", line {frames[-1].lineno}" if frames else ""
    if isinstance(error, KeyError) and error.args == ("get_config",):
        return f"--config={path}: the file defines no get_config(); see configs/ for the form"
    # ml_collections lists every field of the section between what is wrong and what was meant.
    text = re.sub(r" Other fields present: .*(?=Did you mean)", " ", str(error).replace("\\n", " "), flags=re.DOTALL)
    return f"--config={path}{place}: {type(error).__name__}: {' '.join(text.split())}"
