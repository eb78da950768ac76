"""Long text keeps its head and its tail, whole or in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.toolbox.observation import HeadAndTail, omission, truncate

ENCODABLE = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)


@given(ENCODABLE, st.integers(2, 200))
def test_truncate_keeps_both_ends_and_counts_the_rest(text: str, limit: int) -> None:
    cut = truncate(text, limit)
    if len(text) <= limit:
        assert cut == text
    else:
        head, tail = text[: limit - limit // 2], text[-(limit // 2) :]
        assert cut == head + omission(len(text) - limit) + tail


@given(st.lists(st.text(max_size=60), max_size=40), st.integers(2, 50))
def test_pieces_come_out_as_the_whole(pieces: list[str], limit: int) -> None:
    collected = HeadAndTail(limit)
    for piece in pieces:
        collected.write(piece)
    whole = "".join(piece.encode("utf-8", "replace").decode() for piece in pieces)
    assert collected.text() == truncate(whole, limit)
    assert collected.bytes == len(whole.encode())
    collected.text().encode()  # no lone surrogate is left


def test_what_is_held_is_bounded() -> None:
    collected = HeadAndTail(100)
    for _ in range(10_000):
        collected.write("x" * 1000)
    assert len(collected._head) + len(collected._rest) <= 600
    assert collected.characters == 10_000_000


def test_a_limit_has_two_ends() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        truncate("abc", 1)
