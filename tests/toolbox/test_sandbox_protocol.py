"""Messages: what is sent arrives, and nothing else is believed or waited for."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.journal import Journal
from regrpo_jax.sandbox.plain import TooLarge, plain, plain_or_text, whole
from regrpo_jax.sandbox.protocol import (
    HEADER_BYTES,
    Bounds,
    Channel,
    Closed,
    Late,
    ProtocolError,
    decode_header,
    encode,
)
from regrpo_jax.sandbox.results import ToolRun

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
Pair = tuple[Channel, Channel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        yield Channel(one, Bounds(blob=1000)), Channel(other, Bounds(blob=1000), descriptors=True), other


def soon() -> float:
    """For what does not come."""
    return time.monotonic() + 0.2


def later() -> float:
    """For what comes, on a machine that is busy."""
    return time.monotonic() + 60


@given(st.dictionaries(st.text(), JSON, max_size=5), st.binary(max_size=1000))
def test_messages_arrive_as_they_were_sent(header: dict[str, Any], blob: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        Channel(one, Bounds()).send(header, blob)
        assert Channel(other, Bounds()).receive(later()) == (header, blob)


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waited_for_until_the_deadline(garbage: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(garbage)
        one.shutdown(socket.SHUT_WR)
        channel = Channel(other, Bounds(header=200, blob=200))
        with pytest.raises((ProtocolError, Closed, Late)):
            for _ in range(100):
                channel.receive(soon())


def test_sizes_are_bounded_before_anything_is_allocated(pair: Pair) -> None:
    _, channel, _ = pair
    for sizes in ((HEADER_BYTES + 1, 0), (2, 1001), (2**32 - 1, 2**32 - 1)):
        pair[0].socket.send(struct.pack("!II", *sizes))
        with pytest.raises(ProtocolError, match="message of"):
            channel.receive(later())


@pytest.mark.parametrize("text", [b"[" * 10**6, b"1" * 10**5, b"[]", b"null", b"\xff", b"", b'{"a": 1' * 9])
def test_headers_that_are_none(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_header(text)


def test_deadlines_and_ends(pair: Pair) -> None:
    one, other, end = pair
    with pytest.raises(Late):
        other.receive(soon())
    with pytest.raises(Late):  # nobody reads: the other side's buffer fills
        for _ in range(10_000):
            one.send({}, b"x" * 10_000, deadline=soon())
    end.close()
    with pytest.raises(Closed):
        one.send({"a": 1}, deadline=later())


def test_a_reader_that_is_interrupted_loses_nothing(pair: Pair) -> None:
    one, other, _ = pair
    message = encode({"a": "x" * 3000}, b"blob")
    for piece in (message[:3], message[3:200], message[200:-1]):
        one.socket.send(piece)
        with pytest.raises(Late):
            other.receive(time.monotonic() + 0.01)
        assert other.receive_now() is None
    one.socket.send(message[-1:] + encode({"b": 1}))
    assert other.receive_now() == ({"a": "x" * 3000}, b"blob")
    assert other.receive_now() == ({"b": 1}, b"")
    assert other.receive_now() is None


def test_too_long_a_header_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="may be sent"):
        encode({"a": "x" * HEADER_BYTES})


def test_descriptors_go_along(pair: Pair) -> None:
    one, other, _ = pair
    reading, writing = os.pipe()
    one.send({"open": 1}, b"blob", fds=(writing,))
    os.close(writing)
    received: list[int] = []
    assert other.receive(soon(), received) == ({"open": 1}, b"blob")
    os.write(received[0], b"through")
    assert os.read(reading, 100) == b"through"
    os.close(received[0])
    os.close(reading)


END = {"done": "x", "raised": None, "size": 0, "images": []}
RAISED = st.fixed_dictionaries({}, optional={"call": JSON | st.integers(0, 3), "refused": JSON | st.booleans()})


@given(st.sampled_from(["raised", "size", "images"]), JSON | RAISED)
def test_ends_of_another_shape_are_refused(key: str, value: Any) -> None:
    journal = Journal()
    journal.hear({"call": 1, "name": "read", "asked": ""})
    journal.hear({"ended": 1, "status": "empty", "result": "", "failed": True})
    try:
        result = journal.result({**END, key: value}, b"\xff")
    except ProtocolError:
        return
    assert isinstance(result.status, Status) and type(result.size) is int and not result.killed
    assert result.status in (Status.EMPTY, Status.TOOL_ERROR, Status.INVALID_ACTION)


@given(
    st.dictionaries(st.sampled_from(["call", "name", "asked", "ended", "status", "result", "failed", "answer"]), JSON)
)
def test_calls_of_another_shape_are_refused(header: dict[str, Any]) -> None:
    journal = Journal()
    with contextlib.suppress(ProtocolError):
        journal.hear(header)
    assert isinstance(journal.working, str) and journal.result(END, b"").status is Status.OK


@pytest.mark.parametrize("status", list(Status))
def test_no_status_from_inside_is_an_infra_error(status: Status) -> None:
    journal = Journal()
    journal.hear({"call": 7, "name": "read", "asked": "1"})
    assert journal.working == "read"
    journal.hear({"ended": 7, "status": str(status), "result": "words", "failed": True})
    expected = Status.TOOL_ERROR if status == Status.INFRA_ERROR else status
    assert (journal.working, journal.runs) == ("", (ToolRun("read", expected, "1", "words"),))
    assert journal.result({**END, "raised": {"call": 7, "refused": True}}, b"").status == expected
    for number in (0, 6, 8, -1):  # of calls that never were: the exception is the action's own
        assert journal.result({**END, "raised": {"call": number, "refused": False}}, b"").status is Status.TOOL_ERROR


@given(JSON)
def test_plain_data_stays_as_it_is(value: Any) -> None:
    surrogates = "\\ud" in ascii(value)
    assert surrogates or plain(value) == value or any(len(repr(value)) > 2000 for _ in "x")


def test_other_values_become_plain() -> None:
    import numpy as np

    assert plain({"a": (1, {2}), 3: frozenset("ba")}) == {"a": [1, [2]], "3": ["a", "b"]}
    assert plain(np.float32(0.5)) == 0.5
    assert plain(np.arange(3)) == [0, 1, 2]
    assert plain(object()) == "<object object at 0x0>"
    assert plain(10**10_000) == "<int of 33220 bits>"
    endless: list[Any] = []
    endless.append(endless)
    assert isinstance(plain(endless), list)
    assert len(plain_or_text("x" * 10**6, 5000)) <= 5000


@pytest.mark.parametrize(
    "value",
    [
        ["x" * 40_000], list(range(20_000)), {"k" * 900: set(range(9))}, (1.5, None, True, 10**2000),
        "x" * 10**6, list(range(10**6)), {"k" * 1001: 1}, 10**10_000, [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]],
    ],
    ids=range(9),
)  # fmt: skip
def test_a_value_crosses_as_a_whole_or_not_at_all(value: Any) -> None:
    try:
        found = whole(value, 2**18)
    except TooLarge as error:
        assert "can be passed on" in str(error)
    else:
        assert found == json.loads(json.dumps(value, default=sorted))
