"""Arguments on their way from an action to the tools: plain data, pictures, arrays and tables, and nothing that runs.

The process of the action is not trusted, so what it sends is never unpickled: a value is written as JSON, whose lists
start with the name of what they hold, beside a block of bytes for what is long or binary. Values of a subclass arrive
as the plain type (an OrderedDict as a dict). What has no such form is refused by the name of its type.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import math
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

_DEEPEST = 64
_LONG = 2**12  # characters of a text that goes among the bytes
_BITS = 4096  # of an int that is written in digits
_DTYPE = re.compile(r"[<>|=]?[biufcSUmM]\d*(\[\w+\])?\Z")
_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"))
_BUILTIN: tuple[Any, ...] = (bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset)
_COLLECTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


class Unsupported(Exception):
    """A value that cannot be passed on; the words name its type."""


class Wrong(Exception):
    """What arrived is no value that `Writer` wrote."""


class Served:
    """Stands in an action for an object that stays with the tools; `handle` says for which."""

    __slots__ = ("_handle", "_operate")

    def __init__(self, handle: int, operate: Callable[..., Any]) -> None:
        self._handle, self._operate = handle, operate


class Writer:
    """Turns values into JSON and collects their bytes. Unsupported."""

    def __init__(self) -> None:
        self.blob = bytearray()

    def _bytes(self, data: bytes | bytearray | memoryview) -> list[int]:
        start = len(self.blob)
        self.blob += data
        return [start, len(self.blob) - start]

    def write(self, value: Any, depth: int = _DEEPEST) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is str:
            return value if len(value) <= _LONG else ["str", *self._bytes(value.encode("utf-8", "surrogatepass"))]
        if kind is int:
            return value if value.bit_length() <= _BITS else ["int", hex(value)]
        if depth <= 0:
            raise Unsupported(f"{kind.__name__} that is nested more than {_DEEPEST} deep")
        if kind in (list, tuple, set, frozenset):
            return [kind.__name__, *(self.write(item, depth - 1) for item in value)]
        if kind is dict:
            return ["dict", *([self.write(key, depth - 1), self.write(item, depth - 1)] for key, item in value.items())]
        if kind in (bytes, bytearray):
            return [kind.__name__, *self._bytes(value)]
        return self._special(value, depth)

    def _special(self, value: Any, depth: int) -> Any:
        if isinstance(value, Served):
            return ["served", value._handle]
        for write in (_written_number, _written_time, self._picture, self._array, self._table):
            written = write(value)
            if written is not None:
                return written
        for plain in _BUILTIN:
            if isinstance(value, plain):
                return self.write(str.__str__(value) if plain is str else plain(value), depth - 1)
        raise Unsupported(type(value).__name__)

    def _picture(self, value: Any) -> Any:
        module = sys.modules.get("PIL.Image")
        if module is None or not isinstance(value, module.Image):
            return None
        if value.mode not in _MODES:
            raise Unsupported(f"image of mode {value.mode}")
        palette = value.getpalette("RGB") if value.mode == "P" else None
        return ["image", value.mode, *value.size, *self._bytes(value.tobytes()), palette]

    def _array(self, value: Any) -> Any:
        module = sys.modules.get("numpy")
        if module is None or not isinstance(value, module.ndarray | module.generic):
            return None
        array = module.asarray(value)
        if not _DTYPE.match(array.dtype.str):
            raise Unsupported(f"array of {array.dtype}")
        name = "array" if isinstance(value, module.ndarray) else "scalar"
        return [name, array.dtype.str, list(array.shape), *self._bytes(array.tobytes())]

    def _table(self, value: Any) -> Any:
        module = sys.modules.get("pandas")
        if module is None or not isinstance(value, module.DataFrame):
            return None
        columns = []
        for place in range(value.shape[1]):
            column = value.iloc[:, place]
            columns.append(self.write(column.tolist() if column.dtype.kind not in "biuf" else column.to_numpy()))
        return ["table", self.write(list(value.columns)), self.write(list(value.index)), columns]


def _written_number(value: Any) -> Any:
    match value:
        case complex():
            return ["complex", value.real, value.imag]
        case decimal.Decimal():
            return ["Decimal", str(value)]
        case fractions.Fraction():
            return ["Fraction", hex(value.numerator), hex(value.denominator)]
        case range():
            return ["range", hex(value.start), hex(value.stop), hex(value.step)]
    return None


def _written_time(value: Any) -> Any:
    match value:
        case datetime.datetime():
            return ["datetime", value.isoformat()]
        case datetime.date():
            return ["date", value.isoformat()]
        case datetime.time():
            return ["time", value.isoformat()]
        case datetime.timedelta():
            return ["timedelta", value.days, value.seconds, value.microseconds]
        case pathlib.PurePath():
            return ["path", str(value)]
    return None


class Reader:
    """Turns back what a `Writer` wrote. Wrong for anything else; nothing that is sent is run."""

    def __init__(self, blob: bytes, served: Callable[[int], Any]) -> None:
        self.blob, self.served = blob, served

    def read(self, written: Any) -> Any:
        """The value. Wrong."""
        try:
            return self._read(written)
        except Wrong:
            raise
        except Exception as error:  # what is made from wrong parts refuses them in its own words
            raise Wrong(f"{type(error).__name__}: {error}") from error

    def _read(self, written: Any) -> Any:
        if not isinstance(written, list):
            if isinstance(written, dict):
                raise Wrong("an object where a value belongs")
            return written
        kind, *parts = written
        if kind in _COLLECTIONS:
            return _COLLECTIONS[kind]([self._read(part) for part in parts])
        if kind == "dict":
            return {self._read(key): self._read(item) for key, item in parts}
        return self._other(kind, parts)

    def _bytes(self, start: int, size: int) -> bytes:
        if type(start) is not int or type(size) is not int or not 0 <= start <= start + size <= len(self.blob):
            raise Wrong("bytes that were not sent")
        return self.blob[start : start + size]

    def _other(self, kind: str, parts: list[Any]) -> Any:
        match kind:
            case "str":
                return self._bytes(*parts).decode("utf-8", "surrogatepass")
            case "bytes":
                return self._bytes(*parts)
            case "bytearray":
                return bytearray(self._bytes(*parts))
            case "served":
                return self.served(int(parts[0]))
            case "image":
                return self._picture(*parts)
            case "array" | "scalar":
                return self._array(kind, *parts)
            case "table":
                return self._table(*parts)
        return _read_number_or_time(kind, parts)

    def _picture(self, mode: str, width: int, height: int, start: int, size: int, palette: list[int] | None) -> Any:
        from PIL import Image

        if mode not in _MODES:
            raise Wrong("an image of no known mode")
        image = Image.frombytes(mode, (int(width), int(height)), self._bytes(start, size))
        if palette is not None:
            image.putpalette(palette)
        return image

    def _array(self, kind: str, dtype: str, shape: list[int], start: int, size: int) -> Any:
        import numpy as np

        if not _DTYPE.match(dtype):
            raise Wrong("an array of no known type")
        data, item = self._bytes(start, size), np.dtype(dtype).itemsize
        if not item or math.prod(shape) * item != len(data):
            array = np.zeros(shape, dtype)  # of a type without a size, such as empty texts
            if array.nbytes:
                raise Wrong("an array of another size")
        else:
            array = np.frombuffer(data, dtype).reshape(shape).copy()
        return array if kind == "array" else array[()]

    def _table(self, columns: Any, index: Any, values: list[Any]) -> Any:
        import pandas as pd

        table = pd.DataFrame(dict(enumerate(map(self._read, values))), index=self._read(index))
        table.columns = self._read(columns)
        return table


def _read_number_or_time(kind: str, parts: list[Any]) -> Any:
    match kind:
        case "int":
            return int(parts[0], 16)
        case "complex":
            return complex(*parts)
        case "Decimal":
            return decimal.Decimal(parts[0])
        case "Fraction":
            return fractions.Fraction(*(int(part, 16) for part in parts))
        case "range":
            return range(*(int(part, 16) for part in parts))
        case "datetime" | "date" | "time":
            return getattr(datetime, kind).fromisoformat(parts[0])
        case "timedelta":
            return datetime.timedelta(*parts)
        case "path":
            return pathlib.Path(parts[0])
    raise Wrong("a value of no known kind")
