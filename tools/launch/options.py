"""What all places have in common: options before `--`, the program's arguments behind it, refusals in a sentence."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SET_HERE = "--config.hosts."


class LaunchError(Exception):
    """A person's mistake: what is wrong, and what to do."""


@dataclass(frozen=True)
class Options:
    """values: of the options that were given, without dashes. flags: those without a value. program: its arguments."""

    values: Mapping[str, str]
    flags: frozenset[str]
    program: tuple[str, ...]

    def text(self, name: str, default: str | None = None, form: str = r"[\w.@:/~+-]+") -> str:
        """A value. LaunchError where there is none, or one that is not of the form."""
        value = self.values.get(name, default)
        if value is None:
            raise LaunchError(f"--{name} is missing; `python tools/launch --help` shows what each place wants")
        if value and not re.fullmatch(form, value):
            raise LaunchError(f"--{name}={value}: cannot be right; letters, digits and . _ - / are what it may have")
        return value

    def number(self, name: str, default: int | None = None, least: int = 1) -> int:
        """A whole number. LaunchError likewise."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise LaunchError(f"--{name} is missing; give a whole number from {least} on")
        if not re.fullmatch(r"\d{1,6}", value) or int(value) < least:
            raise LaunchError(f"--{name}={value}: give a whole number from {least} on")
        return int(value)


def read_options(arguments: Sequence[str], names: Sequence[str], flags: Sequence[str]) -> Options:
    """Parts what is the launcher's from what is the program's.

    Raises:
      LaunchError: an option is unknown, given twice or has no value; the program's arguments lack something.
    """
    if "--" not in arguments:
        raise LaunchError("the program's arguments are missing; write them behind --: -- --config=FILE --workdir=DIR")
    place = list(arguments).index("--")
    values: dict[str, str] = {}
    found: set[str] = set()
    for argument in arguments[:place]:
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument == f"--{name}" and name in flags:
            found.add(name)
        elif argument.startswith("--") and name in names and equals and name not in values:
            values[name] = value
        else:
            known = ", ".join([f"--{one}=.." for one in names] + [f"--{one}" for one in flags])
            raise LaunchError(f"{argument!r} is not understood, or given twice; the options are {known}")
    program = tuple(arguments[place + 1 :])
    for wanted in ("--config=", "--workdir="):
        if not any(argument.startswith(wanted) and argument != wanted for argument in program):
            raise LaunchError(
                f"{wanted.rstrip('=')} is missing behind --; the program needs --config=FILE --workdir=DIR"
            )
    for argument in program:
        if argument.startswith(SET_HERE) and not argument.startswith((f"{SET_HERE}wait", f"{SET_HERE}heartbeat")):
            raise LaunchError(f"{argument}: is set here; leave it out")
    return Options(values, frozenset(found), program)


def shared_workdir(program: Sequence[str]) -> str:
    """The run's folder, which all hosts must see under one path. LaunchError where they cannot."""
    workdir = next(argument.partition("=")[2] for argument in program if argument.startswith("--workdir="))
    if "://" in workdir:
        raise LaunchError(
            f"--workdir={workdir}: is an address; mount it as a folder on every host, with Cloud Storage FUSE or as "
            "Filestore, and name that folder"
        )
    if not workdir.startswith("/"):
        raise LaunchError(
            f"--workdir={workdir}: every host would take a folder of its own; name a folder that all of them share, "
            "from / on"
        )
    return workdir


def needed(program: str, where: str) -> str:
    """A program of this machine. LaunchError where it is not installed."""
    if shutil.which(program) is None:
        raise LaunchError(f"{program} is not installed here; {where}, or look at what would be run with --dry-run")
    return program
