"""Messages between processes: a bounded JSON header and a bounded block of bytes.

Both sides are told before how much the other may send, so neither can make the other allocate more than that nor make
it run anything: a header is JSON, and what is read from it is checked field by field where it is used. Whatever breaks
these rules is a `ProtocolError`, and whoever did it is killed.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SIZES = struct.Struct("!II")
_PIECE = 2**18  # bytes that are read at once
_MOST_DESCRIPTORS = 4
_ENCODER = json.JSONEncoder(separators=(",", ":"))
HEADER_BYTES = 2**20
Header = dict[str, Any]
Message = tuple[Header, bytes]


class ProtocolError(Exception):
    """The other side sent what is no message, or more than it may."""


class Closed(Exception):
    """The other side is gone."""


class Late(Exception):
    """The deadline passed first."""


@dataclass(frozen=True)
class Bounds:
    """The most bytes of one message, in either direction for the header, to be received for the block."""

    header: int = HEADER_BYTES
    blob: int = 2**20


def encode(header: Header, blob: bytes = b"", most: int = HEADER_BYTES) -> bytes:
    """One message. Lone surrogates travel escaped, so any str can be sent. ProtocolError when it is too long."""
    text = _ENCODER.encode(header).encode("ascii")
    if len(text) > most:
        raise ProtocolError(f"a header of {len(text)} bytes, at most {most} may be sent")
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


def _closed(error: OSError) -> Exception:
    """What an error of a socket means; one without a number is a signal handler's, and none of ours."""
    return error if error.errno is None else Closed()


class Channel:
    """One end of a stream socket. Deadlines are times of `time.monotonic()`; None waits for ever.

    What has arrived is kept until it is a whole message, so a reader that is interrupted (by a deadline, or by an
    exception of a signal handler) goes on where it was. descriptors: whether file descriptors come along.
    """

    def __init__(self, end: socket.socket, bounds: Bounds, *, descriptors: bool = False) -> None:
        end.setblocking(False)
        self.socket = end
        self.bounds = bounds
        self._descriptors = descriptors
        self._arrived = bytearray()

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

    def send(
        self, header: Header, blob: bytes = b"", *, deadline: float | None = None, fds: Sequence[int] = ()
    ) -> None:
        """Send one message, and with it some file descriptors. Closed, Late, ProtocolError when it is too long."""
        data = memoryview(encode(header, blob, self.bounds.header))
        while data:
            try:
                if fds:
                    sent, fds = socket.send_fds(self.socket, [data], list(fds)), ()
                else:
                    sent = self.socket.send(data)
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
                continue
            except OSError as error:
                raise _closed(error) from error
            data = data[sent:]

    def _take(self) -> Message | None:
        """The first message of what has arrived, if it is there as a whole. ProtocolError."""
        if len(self._arrived) < _SIZES.size:
            return None
        header_size, blob_size = _SIZES.unpack_from(self._arrived)
        if header_size > self.bounds.header or blob_size > self.bounds.blob:
            raise ProtocolError(f"a message of {header_size} + {blob_size} bytes")
        middle = _SIZES.size + header_size
        end = middle + blob_size
        if len(self._arrived) < end:
            return None
        header, blob = bytes(self._arrived[_SIZES.size : middle]), bytes(self._arrived[middle:end])
        del self._arrived[:end]
        return decode_header(header), blob

    def _read(self, fds: list[int] | None) -> bool:
        """Add what has arrived; False when nothing has. Closed."""
        try:
            if self._descriptors:
                piece, received, _, _ = socket.recv_fds(self.socket, _PIECE, _MOST_DESCRIPTORS)
                if fds is not None:
                    fds += received
            else:
                piece = self.socket.recv(_PIECE)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _closed(error) from error
        if not piece:
            raise Closed
        self._arrived += piece
        return True

    def receive(self, deadline: float | None = None, fds: list[int] | None = None) -> Message:
        """The next message; file descriptors that came with it are added to `fds`. Closed, Late, ProtocolError."""
        while (message := self._take()) is None:
            if not self._read(fds):
                self._wait(select.POLLIN, deadline)
        return message

    def receive_now(self) -> Message | None:
        """The next message if all of it has arrived. Closed, ProtocolError."""
        while (message := self._take()) is None:
            if not self._read(None):
                return None
        return message
