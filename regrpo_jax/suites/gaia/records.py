"""GAIA's own files: `metadata.jsonl` beside the attachments, or `metadata.parquet`, of one split or of both.

The data may not be given out again, so that a folder comes from whoever asked its authors. Looked for are the folder
itself and, below it, `2023/validation`, `validation`, `2023/test` and `test`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.records.opened_images import ImageError, open_image
from regrpo_jax.suites.gaia.scorer import UNSCORED
from regrpo_jax.suites.problems import Problem
from regrpo_jax.toolbox.document_tools import IMAGE_SUFFIXES

VALIDATION, TEST = "validation", "test"
LINES = "metadata.jsonl"
MALFORMED, DUPLICATE = "malformed record", "duplicate id"
MISSING_FILE, LARGE_FILE, NO_IMAGE = "missing attachment", "attachment that is too large", "image that cannot be opened"
PARQUET_EXTRA = "pip install 'regrpo_jax[parquet]'"
_MOST_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class GaiaRecord:
    """A question.

    level: 1, 2 or 3. answer: the right one, "?" where only the leaderboard knows it. file: the attachment, None for
    none; file_name: what the record calls it, "" for none, also where it is missing. shown: whether it is an image
    that can be opened. split: "validation" or "test".
    """

    id: str
    question: str
    level: int
    answer: str
    file_name: str
    file: Path | None
    shown: bool
    split: str

    @property
    def scored(self) -> bool:
        """Whether the right answer is known."""
        return self.answer != UNSCORED


@dataclass(frozen=True)
class GaiaData:
    """What a folder of GAIA holds, in the order of its files."""

    folder: Path
    records: tuple[GaiaRecord, ...]
    problems: tuple[Problem, ...]


def read_gaia(folder: Path) -> GaiaData:
    """All of a folder's questions. UserError where there is none of its files, or none that can be read."""
    found: dict[str, GaiaRecord] = {}
    problems: list[Problem] = []
    files = _metadata_files(folder)
    for path, split in files:
        for place, told in _told_records(path):
            try:
                record = _record(told, path.parent, folder, split)
            except ValueError as error:
                problems.append(Problem(MALFORMED, place, str(error)))
                continue
            if record.id in found:
                problems.append(Problem(DUPLICATE, place, f"{record.id}; the last one counts"))
            found[record.id], odd = _with_checked_file(record)
            problems += odd
    if not found:
        raise UserError(f"{', '.join(str(path) for path, _ in files)}: no question can be read; get the files anew")
    return GaiaData(folder, tuple(found.values()), tuple(problems))


def _metadata_files(folder: Path) -> list[tuple[Path, str]]:
    own = _in(folder)
    if own:
        return [(path, TEST if folder.name == TEST else VALIDATION) for path in own]
    found = []
    for split in (VALIDATION, TEST):
        own = _in(folder / "2023" / split) or _in(folder / split)
        found += [(path, split) for path in own]
    if not found:
        raise UserError(
            f"{folder}: has no {LINES} and no metadata.parquet, here or in 2023/validation; config.suite.path names "
            "the folder of GAIA's files"
        )
    return found


def _in(folder: Path) -> list[Path]:
    """The lines, else the one table of all levels, else those of each level."""
    for choice in ([folder / LINES], [folder / "metadata.parquet"], sorted(folder.glob("metadata.level*.parquet"))):
        if there := [path for path in choice if path.is_file()]:
            return there
    return []


def _told_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each record stands, and the record; a line that is no JSON is told as a text."""
    if path.suffix == ".parquet":
        yield from ((f"{path.name}, row {row}", told) for row, told in enumerate(_rows(path), 1))
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); get the file anew") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{path.name}, line {number}", json.loads(line)
            except (ValueError, RecursionError):
                yield f"{path.name}, line {number}", line


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: needs a library to be read: {PARQUET_EXTRA}, or bring {LINES}") from error
    try:
        return parquet.read_table(path).to_pylist()
    except Exception as error:  # the library has errors of its own
        raise UserError(f"{path}: is no parquet file ({type(error).__name__}: {error}); get it anew") from error


def _record(told: Any, beside: Path, root: Path, split: str) -> GaiaRecord:
    """ValueError naming the key."""
    if not isinstance(told, Mapping):
        raise ValueError(f"is no JSON object ({str(told)[:40]!r})")
    name = _text(told, "file_name", needed=False)
    return GaiaRecord(
        id=_text(told, "task_id"),
        question=_text(told, "Question"),
        level=_level(told.get("Level")),
        answer=_answer(told.get("Final answer")),
        file_name=name,
        file=_attachment(name, told.get("file_path"), beside, root),
        shown=False,
        split=split,
    )


def _with_checked_file(record: GaiaRecord) -> tuple[GaiaRecord, list[Problem]]:
    """Without an attachment that is too large; an image that opens is shown."""
    if record.file is None:
        return record, [Problem(MISSING_FILE, record.id, record.file_name)] if record.file_name else []
    if record.file.stat().st_size > _MOST_FILE_BYTES:
        size = f"{record.file_name} is larger than {_MOST_FILE_BYTES >> 20} MiB"
        return replace(record, file=None), [Problem(LARGE_FILE, record.id, size)]
    if record.file.suffix.lower() not in IMAGE_SUFFIXES:
        return record, []
    try:
        open_image(record.file)
    except ImageError as error:
        return record, [Problem(NO_IMAGE, record.id, str(error))]
    return replace(record, shown=True), []


def _text(told: Mapping[str, Any], key: str, *, needed: bool = True) -> str:
    value = told.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value.strip()):
        raise ValueError(f'"{key}" is {value!r}; it must be a text' if key in told else f'"{key}" is missing')
    return value


def _level(value: Any) -> int:
    """A number, or the text of one."""
    text = str(value).strip()
    if isinstance(value, bool) or text not in ("1", "2", "3"):
        raise ValueError(f'"Level" is {value!r}; it must be 1, 2 or 3')
    return int(text)


def _answer(value: Any) -> str:
    if value is None or value == "":
        return UNSCORED
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f'"Final answer" is {value!r}; it must be a text')
    return str(value)


def _attachment(name: str, path: Any, beside: Path, root: Path) -> Path | None:
    """Beside the metadata, or where `file_path` says, from the folder of all; never outside of it."""
    places = [beside / name, *([root / path] if isinstance(path, str) and path else [])] if name else []
    inside = [place for place in places if place.resolve().is_relative_to(root.resolve())]
    return next((place for place in inside if place.is_file()), None)
