"""Arguments of calls with the paths of a record's files as the dataset writes them.

GTA's loader makes a recorded argument absolute where the file exists on its machine, and tells the policy absolute
paths; so a file of predictions speaks of a folder that is elsewhere, or not there at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrpo_jax.suites.gta.record_types import GtaRecord


def relative_arguments(arguments: Any, record: GtaRecord) -> Any:
    """The arguments with absolute paths of the record's files, and of what its tools made, made relative."""
    if not isinstance(arguments, Mapping):
        return arguments
    paths = [file.path for file in record.files]
    paths += [turn.result.content for turn in record.dialog if turn.result is not None and turn.result.type == "image"]
    return {key: _relative(value, paths) for key, value in arguments.items()}


def _relative(value: Any, paths: list[str]) -> Any:
    if not isinstance(value, str):
        return value
    plain = value.replace("\\", "/")
    return next((path for path in paths if plain.endswith("/" + path.lstrip("/"))), value)
