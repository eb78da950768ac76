"""The text of a file whose encoding nobody told: UTF-8, UTF-16, UTF-32, or Windows' western code page, or refused."""

from __future__ import annotations

import codecs
import re

from regrpo_jax.toolbox.failures import ToolError

_MARKS = (  # UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, "utf-8-sig"),
)  # fmt: skip
_LOOKED_AT = 2**16  # bytes, for what tells UTF-16 without a mark
_FOREIGN = re.compile(r"[^\x00-\x7f]{4,}")  # so many letters with marks in a row are another alphabet, garbled


def decoded(data: bytes, name: str) -> str:
    """The text of the file `name`. ToolError when it is no text, or its encoding is none of those that are read."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data, encoding, name)
    sample = data[:_LOOKED_AT]
    if b"\0" in sample:
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        if max(even, odd) < len(sample) // 5 or min(even, odd) > len(sample) // 50:
            raise ToolError(f'"{name}" is no text.')
        return _strict(data, "utf-16-le" if odd > even else "utf-16-be", name)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = _strict(data, "cp1252", name)
    if any(len(set(filter(str.isalpha, found))) > 1 for found in _FOREIGN.findall(text)):
        raise _unknown(name)
    return text


def _strict(data: bytes, encoding: str, name: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _unknown(name) from error
    if "\0" in text:
        raise ToolError(f'"{name}" is no text.')
    return text


def _unknown(name: str) -> ToolError:
    return ToolError(
        f'"{name}" is written in an encoding that is not known; UTF-8, UTF-16 and Windows\' western code page are read.'
    )
