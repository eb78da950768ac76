"""What tools return, on its way into an action; and objects that stay with the tools while an action uses them.

Results come from the trusted side, so they are pickled. A class that says `served = ("__getitem__", "__len__")` is
never sent: the action gets a stand-in whose operations of these names run where the tools are, so that what such an
object knows is not in the action's memory. What cannot be pickled arrives as its text.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable
from typing import Any

from regrpo_jax.sandbox.capture import text_of, without_addresses
from regrpo_jax.sandbox.values import Served

_MOST_SERVED = 10_000
_MOST_CHARACTERS = 2**16
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
Operate = Callable[[int, str, tuple[Any, ...], dict[str, Any]], Any]


class ServedObjects:
    """The objects that stay with the tools, by their handles."""

    def __init__(self) -> None:
        self._objects: list[Any] = []

    def handle_of(self, value: Any) -> int:
        for handle, known in enumerate(self._objects):
            if known is value:
                return handle
        if len(self._objects) >= _MOST_SERVED:
            raise RuntimeError(f"more than {_MOST_SERVED:,} objects of tools are in use")
        self._objects.append(value)
        return len(self._objects) - 1

    def get(self, handle: int) -> Any:
        """IndexError for a handle that nothing was given."""
        if handle < 0:
            raise IndexError(handle)
        return self._objects[handle]

    def operation(self, handle: int, name: str) -> Callable[..., Any]:
        """An operation that the object's class serves. IndexError, LookupError."""
        value = self.get(handle)
        if name not in type(value).served:
            raise LookupError(name)
        return getattr(value, name)


class _Pickler(pickle.Pickler):
    dispatch_table = copyreg.dispatch_table | {view: lambda found: (list, (list(found),)) for view in _VIEWS}

    def __init__(self, stream: io.BytesIO, objects: ServedObjects) -> None:
        super().__init__(stream, protocol=5)
        self._objects = objects

    def persistent_id(self, value: Any) -> Any:
        served = getattr(type(value), "served", None)
        if not isinstance(served, tuple) or isinstance(value, type):
            return None
        return self._objects.handle_of(value), type(value).__name__, served


def pack(value: Any, objects: ServedObjects, most_bytes: int) -> bytes:
    """The value for `unpack`; its text where it has no other form. ValueError when it is too large."""
    stream = io.BytesIO()
    try:
        _Pickler(stream, objects).dump(value)
        data = stream.getvalue()
    except Exception:  # a class of its own may refuse in any way
        data = pickle.dumps(without_addresses(text_of(value))[:_MOST_CHARACTERS])
    if len(data) > most_bytes:
        raise ValueError(f"its result has {len(data):,} bytes; at most {most_bytes:,} can be given to an action")
    return data


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, operate: Operate) -> None:
        super().__init__(stream)
        self._operate = operate

    def persistent_load(self, known: Any) -> Any:
        handle, name, served = known
        return _stand_in(name, served)(handle, self._operate)


def unpack(data: bytes, operate: Operate) -> Any:
    """What was packed, in the action; `operate(handle, name, arguments, keywords)` runs what is served."""
    return _Unpickler(io.BytesIO(data), operate).load()


def _stand_in(name: str, served: tuple[str, ...]) -> type[Served]:
    def method(operation: str) -> Callable[..., Any]:
        def run(self: Served, *arguments: Any, **keywords: Any) -> Any:
            return self._operate(self._handle, operation, arguments, keywords)

        run.__name__ = operation
        return run

    body: dict[str, Any] = {operation: method(operation) for operation in served}
    return type(name, (Served,), {"__slots__": (), **body})
