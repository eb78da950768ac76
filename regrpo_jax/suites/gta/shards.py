"""Which files make up a run's predictions, and what each of them holds, before anything is known of records.

OpenCompass writes one file, or shards `name_0.json, name_1.json, ..` of which each numbers its entries from 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.suites.gta.cut_json import whole_members
from regrpo_jax.suites.json_text import parsed
from regrpo_jax.suites.problems import Problem

_NUMBERED = re.compile(r"(?P<root>.+)_(?P<number>\d+)")
DAMAGED, MISSING, DUPLICATE, UNKNOWN = "damaged file", "missing shard", "duplicate id", "prediction for an unknown id"


@dataclass(frozen=True)
class Shard:
    """What one file holds.

    entries: by its own number, in the order of numbers. sure: whether what stands before it in the run is all there,
    so that its numbers can be counted on from those of the files before.
    """

    path: Path
    entries: Mapping[int, Any]
    sure: bool


def shards_of(paths: Sequence[Path]) -> list[Path]:
    """The files that a person means by `paths`; shards of one run by number, which a shell's order is not.

    A folder is its JSON files. A file that is not there stands for its shards (`name.json` for `name_0.json, ..`), and
    the first shard alone for all that lie beside it.
    UserError for a path where nothing is.
    """
    found = [file for path in paths for file in _files(path)]
    if len(found) == 1 and (split := _numbered(found[0])) and split[1] == 0:
        return _beside(found[0], split[0])
    return sorted(found, key=_number) if _one_run(found) else found


def read_shards(paths: Sequence[Path]) -> tuple[list[Shard], list[Problem]]:
    """What the files hold, and what is odd: missing ones among them, too. UserError where none can be read."""
    shards, problems = [], []
    sharded, sure, expected = _one_run(paths), True, 0
    for path in paths:
        if sharded:
            gone = range(expected, _number(path))
            problems += [Problem(MISSING, path.with_stem(f"{_root(path)}_{number}").name) for number in gone]
            sure, expected = sure and not gone, _number(path) + 1
        entries, odd, complete = _entries(path)
        problems += odd
        if entries is not None:
            shards.append(Shard(path, entries, sure))
        sure = sure and complete
    if not shards:
        raise UserError(f"no predictions can be read: {'; '.join(map(str, problems))}")
    return shards, problems


def _one_run(paths: Sequence[Path]) -> bool:
    """Whether these are shards of one run, each once."""
    splits = [_numbered(path) for path in paths]
    roots = {(path.parent, split and split[0]) for path, split in zip(paths, splits, strict=True)}
    return len(paths) > 1 and None not in splits and len(roots) == 1 and len(set(splits)) == len(splits)


def _number(path: Path) -> int:
    split = _numbered(path)
    return split[1] if split else -1


def _root(path: Path) -> str:
    split = _numbered(path)
    return split[0] if split else path.stem


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.glob("*.json"), key=lambda one: (_root(one), _number(one)))
        if found:
            return found
    elif path.exists():
        return [path]
    else:
        found = _beside(path, path.stem)
        if found:
            return found
    raise UserError(f"{path}: no predictions are there; config.eval.score_only names files that GTA's evaluator reads")


def _beside(path: Path, root: str) -> list[Path]:
    """The shards with that root, by number."""
    found = [one for one in path.parent.glob(f"*{path.suffix}") if _numbered(one) and _root(one) == root]
    return sorted(found, key=_number)


def _numbered(path: Path) -> tuple[str, int] | None:
    found = _NUMBERED.fullmatch(path.stem)
    return (found["root"], int(found["number"])) if found else None


def _entries(path: Path) -> tuple[dict[int, Any] | None, list[Problem], bool]:
    """Entries by number, what is odd, and whether the file is whole; None where nothing can be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return None, [Problem(DAMAGED, path.name, f"cannot be read ({error.strerror})")], False
    problems, whole = [], True
    text = content.decode("utf-8-sig", "replace")
    twice: tuple[str, ...] = ()
    try:
        if "\ufffd" in text and b"\xef\xbf\xbd" not in content:
            problems.append(Problem(DAMAGED, path.name, "is no UTF-8; what is not is read as a question mark"))
        told, twice = parsed(text)
    except ValueError as error:
        told, whole = whole_members(text), False
        kept = f"{len(told)} entries before that are read" if told else "nothing of it is read"
        problems.append(Problem(DAMAGED, path.name, f"is no JSON ({error}); {kept}"))
    if not isinstance(told, Mapping) or not told:
        problems += [] if not whole else [Problem(DAMAGED, path.name, "holds no entries by number")]
        return None, problems, False
    entries = {}
    for key, value in told.items():
        if key.isascii() and key.isdigit() and len(key) < 10:
            entries[int(key)] = value
        else:
            problems.append(Problem(UNKNOWN, f"{path.name}: {key[:80]!r}", "entries are numbered"))
    problems += [
        Problem(DUPLICATE, f"{path.name}: {key}", "the last one counts") for key in twice if key.strip('"').isdigit()
    ]
    return dict(sorted(entries.items())), problems, whole
