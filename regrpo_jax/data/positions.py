"""Rotary positions on the host: text counts on, an image spans its rows and columns (M-RoPE, arXiv 2409.12191)."""

from collections.abc import Sequence

import numpy as np


def rotary_positions(is_image: np.ndarray, grids: Sequence[tuple[int, int]]) -> np.ndarray:
    """(time, row, column) of every token.

    A text token advances all three by one. An image starting at p gives its token in row r and column c the
    position (p, p + r, p + c), and text goes on at p + max(rows, columns).

    Args:
      is_image: bool, which tokens stand for image features.  # [token]
      grids: rows and columns of tokens of each image, in order.
    Returns:
      int32.  # [token, 3]
    """
    positions = np.zeros((len(is_image), 3), np.int32)
    next_position, cursor = 0, 0
    remaining = list(grids)
    while cursor < len(is_image):
        if is_image[cursor]:
            rows, columns = remaining.pop(0)
            row, column = np.divmod(np.arange(rows * columns), columns)
            image = np.stack([np.zeros_like(row), row, column], axis=-1)
            positions[cursor : cursor + rows * columns] = next_position + image
            cursor += rows * columns
            next_position += max(rows, columns)
        else:
            text_end = cursor + int(np.argmax(np.append(is_image[cursor:], True)))
            length = text_end - cursor
            positions[cursor:text_end] = (next_position + np.arange(length))[:, None]
            cursor, next_position = text_end, next_position + length
    return positions
