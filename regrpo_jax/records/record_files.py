"""Files of records, as far as they are text and JSON: any encoding that says itself, compressed or not, whole or cut.

A file is a JSON array, one JSON object, or objects one after another (JSONL, on one line each or on several); the
content decides, not the name. What is in a file of another kind is said, because "invalid" helps nobody.
"""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.records.reasons import kind_of, printable

_log = logging.getLogger(__name__)
_READ = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\x00": lzma.decompress}
_NAMED = {
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"\x04\x22\x4d\x18": "lz4-compressed",
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
}
_REMEDY = ", or set config.data.salvage=True to keep the whole records before it"
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_RECORD_KEYS = frozenset({"conversations", "messages", "rot_meta"})


def shown(path: str | Path) -> str:
    """A path as a person is told it."""
    return printable(path, 500)


def read_file(path: Path, *, salvage: bool = False) -> list[dict[str, Any]]:
    """The records of one file, in order; [] for an empty array.

    salvage: of a file that breaks off, keep the records before the break and say how many they are.

    Raises UserError naming the file, for one that is missing, a directory, empty, compressed in a way that is not read,
    not text, invalid or truncated (with line and column), of another kind, or not a list of objects.
    """
    text = _text(path, salvage)
    values = _values(text, path, salvage)
    if values and text.lstrip()[0] not in "[{":
        raise UserError(
            f"{shown(path)}: holds {kind_of(values[0])}, not a list of objects; "
            "give a list of records or one record a line"
        )
    _check_kind(values, path)
    for position, value in enumerate(values):
        if not isinstance(value, dict):
            raise UserError(f"{shown(path)}: item {position} is {kind_of(value)}, but every record must be an object")
    return values


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{shown(path)}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{shown(path)}: this is a directory; give the JSON or JSONL file in it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(path)}: the file cannot be read ({printable(error)})") from None
    named = next((words for start, words in _NAMED.items() if raw.startswith(start)), None)
    if named:
        raise UserError(f"{shown(path)}: this is {named}; unpack it, or write its records as JSON or JSONL")
    for start, decompress in _READ.items():
        if raw.startswith(start):
            try:
                return decompress(raw)
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
                raise UserError(
                    f"{shown(path)}: the compressed file is damaged or cut off ({printable(error)}); copy it again"
                ) from None
    return raw


def _text(path: Path, salvage: bool) -> str:
    raw = _bytes(path)
    try:
        text = raw.decode(_encoding(raw))
    except UnicodeDecodeError as error:
        if "end of data" not in error.reason and "truncated" not in error.reason:
            raise UserError(f"{shown(path)}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
        if not salvage:
            raise UserError(
                f"{shown(path)}: breaks off in the middle of a character (byte {error.start}); copy it again{_REMEDY}"
            ) from None
        text = raw[: error.start].decode(_encoding(raw))
    if not text.strip():
        raise UserError(f"{shown(path)}: the file is empty; it must hold a JSON list of records or one record a line")
    return text


def _encoding(raw: bytes) -> str:
    found = json.detect_encoding(raw)  # of UTF-8, -16 and -32, which their first bytes tell apart
    return "utf-8-sig" if found == "utf-8" else found


def _values(text: str, path: Path, salvage: bool) -> list[Any]:
    values: list[Any] = []
    try:
        for value in _stream(text):
            values.append(value)
    except json.JSONDecodeError as error:
        end = json.JSONDecodeError(error.msg, text, min(error.pos, len(text.rstrip("\r\n"))))  # not the line below it
        place = f"at line {end.lineno}, column {end.colno}"
        if not (salvage and values):
            remedy = _REMEDY if values else ""
            raise UserError(
                f"{shown(path)}: invalid or truncated JSON {place}: {error.msg}; write the file again{remedy}"
            ) from None
        _log.warning("%s: breaks off %s; the %d whole records before are kept", shown(path), place, len(values))
    except (ValueError, RecursionError) as error:
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else printable(error)
        raise UserError(f"{shown(path)}: the JSON of item {len(values)} cannot be read: {cause}") from None
    return values


def _stream(text: str) -> Iterator[Any]:
    """The items of an array, else all values that stand one after another. Raises JSONDecodeError where it ends."""
    at = _after_space(text, 0)
    is_array = text[at] == "["
    at = _after_space(text, at + is_array)
    more = not (is_array and text[at : at + 1] == "]")
    while more:
        value, at = _DECODER.raw_decode(text, at)
        yield value
        at = _after_space(text, at)
        more = text[at : at + 1] == "," if is_array else at < len(text)
        at = _after_space(text, at + (is_array and more))
    if is_array and text[at : at + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    end = _after_space(text, at + is_array)
    if end < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it matches the empty text
    return found.end()


def _is_record(value: object) -> bool:
    return isinstance(value, dict) and not _RECORD_KEYS.isdisjoint(value)


def _check_kind(values: list[Any], path: Path) -> None:
    """Raises UserError where it is plain what the file holds instead of records, or where in it they are."""
    if any(_is_record(value) for value in values):
        return
    inside = list(values[0].values()) if len(values) == 1 and isinstance(values[0], dict) else []
    for held in (values, inside):
        if held and all(isinstance(one, dict) and "dialogs" in one for one in held):
            raise UserError(
                f"{shown(path)}: holds {len(held)} tasks in GTA's form (`dialogs`), which are played, not trained on; "
                "give a file of recorded conversations"
            )
    if inside and all(_is_record(one) for one in inside):
        raise UserError(f"{shown(path)}: is an object of {len(inside)} records by name; save its values as a list")
    for key, value in values[0].items() if inside else ():
        if isinstance(value, list) and any(_is_record(one) for one in value):
            raise UserError(
                f"{shown(path)}: its {len(value)} records are under the key {printable(key)!r}; save that list alone"
            )
