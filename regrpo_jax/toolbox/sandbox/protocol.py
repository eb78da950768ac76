"""Messages between the host and a worker: a bounded JSON header and a bounded block of bytes.

Both sides are told before how much the other may send, so a worker can neither make the host allocate more
than that nor make it run anything: a header is JSON, and what is read from it is checked by `pool.py` field by
field. Whatever breaks these rules is a `ProtocolError`, and the worker that did it is killed.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

_SIZES = struct.Struct("!II")
HEADER_BYTES = 2**20
Header = dict[str, Any]


class ProtocolError(Exception):
    """The other side sent what is no message, or more than it may."""


class Closed(Exception):
    """The other side is gone."""


class Late(Exception):
    """The deadline passed first."""


@dataclass(frozen=True)
class Bounds:
    """The most bytes that may be received in one message."""

    header: int = HEADER_BYTES
    blob: int = 2**20


def encode(header: Header, blob: bytes = b"") -> bytes:
    """One message. Lone surrogates travel escaped, so any str can be sent. ProtocolError when it is too long."""
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    if len(text) > HEADER_BYTES:
        raise ProtocolError(f"a header of {len(text)} bytes, at most {HEADER_BYTES} may be sent")
    return _SIZES.pack(len(text), len(blob)) + text + blob


def decode_header(text: bytes) -> Header:
    """ProtocolError for anything but a JSON object."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProtocolError(f"a header that is no JSON: {type(error).__name__}") from error
    if not isinstance(header, dict):
        raise ProtocolError("a header that is no JSON object")
    return header


class Channel:
    """One end of a stream socket. Deadlines are times of `time.monotonic()`; None waits for ever."""

    def __init__(self, end: socket.socket, bounds: Bounds) -> None:
        end.setblocking(False)
        self.socket = end
        self.bounds = bounds

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def _wait(self, events: int, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self.socket, events)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if poll.poll(None if left is None else left * 1000):
                return
            if left is not None and deadline is not None and time.monotonic() >= deadline:
                raise Late

    def send(self, header: Header, blob: bytes = b"", *, deadline: float | None = None, fd: int | None = None) -> None:
        """Send one message, and with it a file descriptor if one is given. Closed, Late."""
        data = memoryview(encode(header, blob))
        while data:
            try:
                if fd is None:
                    sent = self.socket.send(data)
                else:
                    sent, fd = socket.send_fds(self.socket, [data], [fd]), None
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
                continue
            except OSError as error:
                raise Closed from error
            data = data[sent:]

    def _receive_exactly(self, size: int, deadline: float | None, fds: list[int] | None = None) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                if fds is None:
                    piece = self.socket.recv(min(size - len(data), 2**20))
                else:
                    piece, received, _, _ = socket.recv_fds(self.socket, size - len(data), 1)
                    fds += received
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            except OSError as error:
                raise Closed from error
            if not piece:
                raise Closed
            data += piece
        return bytes(data)

    def receive(self, deadline: float | None = None, fds: list[int] | None = None) -> tuple[Header, bytes]:
        """The next message; file descriptors that came with it are added to `fds`. Closed, Late, ProtocolError."""
        header_size, blob_size = _SIZES.unpack(self._receive_exactly(_SIZES.size, deadline, fds))
        if header_size > self.bounds.header or blob_size > self.bounds.blob:
            raise ProtocolError(f"a message of {header_size} + {blob_size} bytes")
        header = decode_header(self._receive_exactly(header_size, deadline))
        return header, self._receive_exactly(blob_size, deadline)
