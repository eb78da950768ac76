"""Rotary positions against the words of the M-RoPE paper, token by token."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from regrpo_jax.data.positions import rotary_positions

# A conversation as lengths of text and (rows, columns) of images.
PARTS = st.lists(st.integers(1, 6) | st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=8)


def slow_positions(parts: list[int | tuple[int, int]]) -> list[tuple[int, int, int]]:
    """One token at a time: text advances all three axes by one, an image spans its rows and columns."""
    found = []
    current = 0
    for part in parts:
        if isinstance(part, int):
            for _ in range(part):
                found.append((current, current, current))
                current += 1
        else:
            rows, columns = part
            for row in range(rows):
                for column in range(columns):
                    found.append((current, current + row, current + column))
            current += max(rows, columns)
    return found


@given(parts=PARTS)
@example(parts=[])
@example(parts=[(2, 3), (1, 1), (4, 1), 2])
def test_positions_are_those_of_the_slow_loop(parts: list[int | tuple[int, int]]) -> None:
    lengths = [part if isinstance(part, int) else part[0] * part[1] for part in parts]
    is_image = np.repeat([not isinstance(part, int) for part in parts], lengths).astype(bool)
    grids = [part for part in parts if not isinstance(part, int)]
    positions = rotary_positions(is_image, grids)
    assert positions.dtype == np.int32 and positions.shape == (sum(lengths), 3)
    assert [tuple(row) for row in positions.tolist()] == slow_positions(parts)


def test_text_alone_counts() -> None:
    np.testing.assert_array_equal(rotary_positions(np.zeros(4, bool), []), [[i, i, i] for i in range(4)])
