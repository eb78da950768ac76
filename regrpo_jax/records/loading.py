"""Files of records, read so that a person who gives a bad one learns what to mend and never sees a traceback.

A file is a JSON array, one JSON object, or one object a line (JSONL); the content decides, not the name; several
files are named by a pattern. A
bad record is skipped with a warning by default, because one bad record in ten thousand should not cost a
night, or is fatal where asked.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from regrpo_jax.errors import UserError
from regrpo_jax.records.conversation import parse_trajectory
from regrpo_jax.records.reasons import RecordError, kind_of, printable
from regrpo_jax.records.rot import rot_from_dict
from regrpo_jax.records.rot_rules import encoding_reasons
from regrpo_jax.records.types import ImageReference, Rejection, RotRecord, Trajectory

_log = logging.getLogger(__name__)
OnBadRecord = Literal["skip", "fatal"]
Record = TypeVar("Record", RotRecord, Trajectory)
_REASONS_SHOWN = 3
_SHARD = re.compile(r"-[0-9]+-of-([0-9]+)")


def _shown(path: str | Path) -> str:
    return printable(path, 500)


def _read_text(path: str | Path) -> str:
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{_shown(path)}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{_shown(path)}: this is a directory; give the JSON or JSONL file in it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{_shown(path)}: the file cannot be read ({printable(error)})") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{_shown(path)}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    if not text.strip():
        raise UserError(f"{_shown(path)}: the file is empty; it must hold a JSON list of records or one record a line")
    return text


def _broken_json(path: str | Path, line: int, column: int, message: str) -> UserError:
    return UserError(
        f"{_shown(path)}: invalid or truncated JSON at line {line}, column {column}: {message}; write the file again"
    )


def _decode(text: str, path: str | Path, first_line: int = 1) -> Any:
    """The JSON value of `text`. Raises JSONDecodeError (only for syntax) or UserError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else printable(error)
        raise UserError(f"{_shown(path)}: JSON that starts at line {first_line} cannot be read: {cause}") from None


def _read_lines(text: str, path: str | Path) -> list[Any]:
    values = []
    # Only "\n" ends a line: the other line breaks of Unicode may stand unescaped inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append(_decode(line, path, number))
            except json.JSONDecodeError as error:
                raise _broken_json(path, number, error.colno, error.msg) from None
    return values


def _read_values(text: str, path: str | Path) -> list[Any]:
    try:
        value = _decode(text, path)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _read_lines(text, path)
        raise _broken_json(path, error.lineno, error.colno, error.msg) from None
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise UserError(
            f"{_shown(path)}: holds {kind_of(value)}, not a list of objects; "
            "give a list of records or one record a line"
        )
    return value


def shard_paths(path: str | Path) -> list[Path]:
    """The files that a path with "*" in its last part matches, in order; the path itself when it has none.

    Raises UserError when nothing matches, or a shard `..-00000-of-00002..` lacks one of its kin.
    """
    pattern = Path(path)
    if "*" not in pattern.name:
        return [pattern]
    found = sorted(pattern.parent.glob(pattern.name))
    if not found:
        raise UserError(f"{_shown(path)}: no file matches; check the path")
    counts = {int(match[1]) for file in found if (match := _SHARD.search(file.name))}
    if counts and counts != {len(found)}:
        expected = " or ".join(map(str, sorted(counts)))
        raise UserError(f"{_shown(path)}: {len(found)} shards match but there must be {expected}; copy all of them")
    return found


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The raw records of a JSON array, a single JSON object or a JSONL file, in order; [] for an empty array.

    A "*" in the name reads all the files that match, in the order of their names (see `shard_paths`). Raises
    UserError naming the file, for one that is missing, a directory, empty, not UTF-8, invalid or truncated (with
    line and column), or not a list of objects.
    """
    return [record for file in shard_paths(path) for record in _read_file(file)]


def _read_file(path: Path) -> list[dict[str, Any]]:
    values = _read_values(_read_text(path), path)
    for position, value in enumerate(values):
        if not isinstance(value, dict):
            raise UserError(f"{_shown(path)}: item {position} is {kind_of(value)}, but every record must be an object")
    return values


def _image_reasons(images: tuple[ImageReference, ...]) -> tuple[str, ...]:
    missing = [image.path for image in images if not os.path.isfile(image.path)]
    return tuple(f"image_missing: there is no file {printable(path, 300)}" for path in missing)


def _rot_record(obj: dict[str, Any], base_dir: Path) -> RotRecord:
    return rot_from_dict(obj, base_dir)


def _clean_trajectory(obj: dict[str, Any], base_dir: Path) -> Trajectory:
    """A trajectory fit for imitation: an id, a scalar answer, an assistant turn after a user turn."""
    reasons = list(encoding_reasons(obj))
    if not isinstance(obj.get("id"), str) or not obj["id"].strip():
        reasons.append("schema_keys: the record has no `id` (a string)")
    if isinstance(obj.get("answer"), dict | list):
        reasons.append(f"schema_types: `answer` must be a string or a number, not {kind_of(obj['answer'])}")
    if "conversations" not in obj and "messages" not in obj:
        reasons.append("schema_keys: the record has no `conversations`")
    if reasons:
        raise RecordError(tuple(reasons))
    trajectory = parse_trajectory(obj, base_dir)
    roles = [turn.role for turn in trajectory.conversation]
    if "assistant" not in roles:
        raise RecordError(
            ("no_assistant_turn: the conversation has no assistant turn, so there is nothing to learn from",)
        )
    if "user" not in roles[: roles.index("assistant")]:
        raise RecordError(("role_order: no user turn gives the task before the first assistant turn",))
    return trajectory


def _load(
    path: str | Path,
    read: Callable[[dict[str, Any], Path], Record],
    on_bad_record: OnBadRecord,
    rejections: list[Rejection] | None,
) -> list[Record]:
    if on_bad_record not in ("skip", "fatal"):
        raise UserError(f'on_bad_record must be "skip" or "fatal", not {on_bad_record!r}')
    objects = read_records(path)
    base_dir = Path(path).absolute().parent
    records: list[Record] = []
    refused: list[Rejection] = []
    for position, obj in enumerate(objects):
        try:
            record = read(obj, base_dir)
            missing = _image_reasons(record.images)
            if missing:
                raise RecordError(missing)
            records.append(record)
        except RecordError as error:
            refused.append(Rejection(_shown(path), position, printable(obj.get("id", "")), error.reasons))
            _report(refused[-1], on_bad_record)
    if rejections is not None:
        rejections.extend(refused)
    if not records:
        raise UserError(f"{_shown(path)}: none of its {len(objects)} records can be used{_summary(refused)}")
    return records


def _report(rejection: Rejection, on_bad_record: OnBadRecord) -> None:
    place = f"{rejection.path}: record {rejection.position} (id {rejection.record_id!r})"
    reasons = printable("; ".join(rejection.reasons), 1000)
    if on_bad_record == "fatal":
        raise UserError(f'{place} cannot be used: {reasons}. Mend it, or set on_bad_record to "skip"')
    _log.warning("%s is skipped: %s", place, reasons)


def _summary(refused: list[Rejection]) -> str:
    shown = [
        f"record {item.position} (id {item.record_id!r}): {'; '.join(item.reasons)}"
        for item in refused[:_REASONS_SHOWN]
    ]
    return "".join(f"\n  {printable(line, 400)}" for line in shown)


def load_rot(
    path: str | Path, *, on_bad_record: OnBadRecord = "skip", rejections: list[Rejection] | None = None
) -> list[RotRecord]:
    """The usable Reflection-of-Thought records of a file, in order.

    Image paths are relative to the file's folder. A record that breaks a rule of `validate_rot`, or names an
    image that does not exist, is skipped with one warning and appended to `rejections`; with "fatal" the
    first one raises UserError. No usable record at all is a UserError as well.
    """
    return _load(path, _rot_record, on_bad_record, rejections)


def load_clean(
    path: str | Path, *, on_bad_record: OnBadRecord = "skip", rejections: list[Rejection] | None = None
) -> list[Trajectory]:
    """The usable clean trajectories of a file, in order; bad records are treated as in `load_rot`."""
    return _load(path, _clean_trajectory, on_bad_record, rejections)
