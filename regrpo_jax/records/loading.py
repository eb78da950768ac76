"""Records out of files, read so that a person who gives a bad one learns what to mend and never sees a traceback.

A bad record is skipped with a warning by default, because one bad record in ten thousand should not cost a
night, or is fatal where asked. What makes one bad is said by `read_rot` and `read_clean`, here and in an audit alike.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from regrpo_jax.errors import UserError
from regrpo_jax.records.conversation import CONVERSATION_KEYS, identity_text, parse_trajectory
from regrpo_jax.records.images import NO_ROOTS
from regrpo_jax.records.path_roots import PathRoots
from regrpo_jax.records.picture_forms import is_data_url
from regrpo_jax.records.reasons import RecordError, kind_of, printable, rule_of
from regrpo_jax.records.record_files import read_file, shown
from regrpo_jax.records.rot import rot_from_dict
from regrpo_jax.records.rot_rules import encoding_reasons
from regrpo_jax.records.types import Rejection, RotRecord, Trajectory, Turn

_log = logging.getLogger(__name__)
OnBadRecord = Literal["skip", "fatal"]
Record = TypeVar("Record", RotRecord, Trajectory)
_REASONS_SHOWN = 3
_NO_FILE = "image_missing: there is no file "
_SHARD = re.compile(r"-[0-9]+-of-([0-9]+)")


def shard_paths(path: str | Path) -> list[Path]:
    """The files that a path with "*" in its last part matches, in order; the path itself when it has none.

    Raises UserError when nothing matches, or a shard `..-00000-of-00002..` lacks one of its kin.
    """
    pattern = Path(path)
    if "*" not in pattern.name:
        return [pattern]
    found = sorted(pattern.parent.glob(pattern.name))
    if not found:
        raise UserError(f"{shown(path)}: no file matches; check the path")
    counts = {int(match[1]) for file in found if (match := _SHARD.search(file.name))}
    if counts and counts != {len(found)}:
        expected = " or ".join(map(str, sorted(counts)))
        raise UserError(f"{shown(path)}: {len(found)} shards match but there must be {expected}; copy all of them")
    return found


def read_records(path: str | Path, *, salvage: bool = False) -> list[dict[str, Any]]:
    """The raw records of a file, or of all the files that a "*" in its name matches, in the order of their names.

    Raises UserError, see `shard_paths` and `record_files.read_file`, which says what `salvage` keeps.
    """
    return [record for file in shard_paths(path) for record in read_file(file, salvage=salvage)]


def folder_of(path: str | Path) -> Path:
    """The folder that image paths of a file's records are relative to."""
    return Path(path).absolute().parent


def read_rot(obj: Mapping[str, Any], base_dir: Path, roots: PathRoots = NO_ROOTS) -> RotRecord:
    """A raw RoT record as it is trained on. Raises RecordError: it breaks a rule, or a picture of it is missing."""
    return _with_its_images(rot_from_dict(obj, base_dir, roots))


def read_clean(obj: Mapping[str, Any], base_dir: Path, roots: PathRoots = NO_ROOTS) -> Trajectory:
    """A raw trajectory fit for imitation: an id, a scalar answer, turns that say something after a user's.

    Raises RecordError, with every reason that was found.
    """
    reasons = list(encoding_reasons(obj))
    if not identity_text(obj.get("id")):
        reasons.append("schema_keys: the record has no `id` (a text or a whole number)")
    if isinstance(obj.get("answer"), dict | list):
        reasons.append(f"schema_types: `answer` must be a string or a number, not {kind_of(obj['answer'])}")
    if not any(key in obj for key in CONVERSATION_KEYS):
        keys = printable(", ".join(map(str, obj)) or "none")
        reasons.append(f"schema_keys: the record has no `conversations`; its keys: {keys}")
    if reasons:
        raise RecordError(tuple(reasons))
    trajectory = parse_trajectory(obj, base_dir, roots)
    reasons = list(_imitation_reasons(trajectory.conversation))
    if reasons:
        raise RecordError(tuple(reasons))
    return _with_its_images(trajectory)


def _imitation_reasons(conversation: tuple[Turn, ...]) -> Iterator[str]:
    roles = [turn.role for turn in conversation]
    if "assistant" not in roles:
        yield "no_assistant_turn: the conversation has no assistant turn, so there is nothing to learn from"
    elif "user" not in roles[: roles.index("assistant")]:
        yield "role_order: no user turn gives the task before the first assistant turn"
    elif not any(turn.trained for turn in conversation if turn.role == "assistant"):
        yield "no_assistant_turn: no assistant turn is to be trained"
    for index, turn in enumerate(conversation):
        if turn.role == "assistant" and turn.trained and not says_something(turn.content):
            yield f"empty_turn: turn {index} says nothing; a policy would learn to end its turn at once"


def says_something(text: str) -> bool:
    """Whether there is anything to see: no blanks, nothing of zero width."""
    return any(character.isprintable() and not character.isspace() for character in text)


def _with_its_images(record: Record) -> Record:
    """The record. Raises RecordError for every picture of it that is not there."""
    paths = [image.path for image in record.images if not is_data_url(image.path)]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise RecordError(tuple(f"{_NO_FILE}{printable(path, 300)}" for path in missing))
    return record


def _load(
    path: str | Path,
    read: Callable[[Mapping[str, Any], Path, PathRoots], Record],
    on_bad_record: OnBadRecord,
    rejections: list[Rejection] | None,
    salvage: bool,
    roots: PathRoots,
) -> list[Record]:
    if on_bad_record not in ("skip", "fatal"):
        raise UserError(f'on_bad_record must be "skip" or "fatal", not {on_bad_record!r}')
    objects = read_records(path, salvage=salvage)
    base_dir = folder_of(path)
    records: list[Record] = []
    refused: list[Rejection] = []
    for position, obj in enumerate(objects):
        try:
            records.append(read(obj, base_dir, roots))
        except RecordError as error:
            refused.append(Rejection(shown(path), position, printable(obj.get("id", "")), error.reasons))
            if on_bad_record == "fatal" or not _lacks_files_alone(refused[-1]):
                _report(refused[-1], on_bad_record)
    missing = told_missing(refused, len(objects))
    if rejections is not None:
        rejections.extend(refused)
    if not records:
        told = f"\n  {missing}" if missing else ""
        raise UserError(f"{shown(path)}: none of its {len(objects)} records can be used{_summary(refused)}{told}")
    if missing:
        _log.warning("%s: %s", shown(path), missing)
    return records


def _lacks_files_alone(rejection: Rejection) -> bool:
    return {rule_of(reason) for reason in rejection.reasons} == {rule_of(_NO_FILE)}


def told_missing(refused: Iterable[Rejection], records: int) -> str:
    """One sentence on all records that are left out because pictures of theirs are not here; "" for none.

    Args:
      records: how many the file has.
    """
    lacking = [rejection for rejection in refused if _lacks_files_alone(rejection)]
    if not lacking:
        return ""
    names = (reason.removeprefix(_NO_FILE) for rejection in lacking for reason in rejection.reasons)
    return (
        f"{len(lacking)} of {records} records are left out, as pictures of theirs are not here: "
        f'{first_named(list(dict.fromkeys(names)))}; say where they lie with config.data.path_roots, "old=new"'
    )


def first_named(names: Sequence[str], most: int = _REASONS_SHOWN) -> str:
    """The first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
    path: str | Path,
    *,
    on_bad_record: OnBadRecord = "skip",
    rejections: list[Rejection] | None = None,
    salvage: bool = False,
    roots: PathRoots = NO_ROOTS,
) -> list[RotRecord]:
    """The usable Reflection-of-Thought records of a file, in order.

    Image paths are relative to the file's folder, under other `roots`. A record that breaks a rule of `validate_rot`
    is skipped with one warning and appended to `rejections`, and so are those that name an image that does not exist,
    with one warning for all of them; with "fatal" the first one raises UserError. No usable record at all is a
    UserError as well.
    """
    return _load(path, read_rot, on_bad_record, rejections, salvage, roots)


def load_clean(
    path: str | Path,
    *,
    on_bad_record: OnBadRecord = "skip",
    rejections: list[Rejection] | None = None,
    salvage: bool = False,
    roots: PathRoots = NO_ROOTS,
) -> list[Trajectory]:
    """The usable clean trajectories of a file, in order; bad records are treated as in `load_rot`."""
    return _load(path, read_clean, on_bad_record, rejections, salvage, roots)
