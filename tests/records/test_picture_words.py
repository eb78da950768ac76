"""Words for pixels: which colours fill a picture, from the largest part on."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from regrpo_jax.records.picture_words import GREY, LEAST_SHARE, PALETTE, picture_words


def words(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, format="PNG")
    return picture_words(stream.getvalue())


def striped(*parts: tuple[str, int], colours: dict[str, tuple[int, int, int]] | None = None) -> np.ndarray:
    """So many of 100 rows of each colour.  # [row, column, channel]"""
    known = (colours or PALETTE) | {GREY: (128, 128, 128)}
    rows = [np.full((count, 20, 3), known[name]) for name, count in parts]
    return np.concatenate(rows)


@pytest.mark.parametrize("name", [*PALETTE, GREY])
def test_every_colour_has_its_name(name: str) -> None:
    plain = striped((name, 100))
    assert words(plain) == f"only {name}"
    noise = np.random.default_rng(0).integers(-8, 9, plain.shape)
    assert words(np.clip(plain + noise, 0, 255)) == f"only {name}", "a little noise is nothing"


def test_colours_are_told_by_how_much_they_fill() -> None:
    assert words(striped(("red", 30), ("grey", 60), ("blue", 10))) == "grey, red, blue"
    assert words(striped(("red", 50), ("blue", 50))) == "blue, red", "equal parts by name"


def test_what_is_hardly_there_is_left_out() -> None:
    least = int(100 * LEAST_SHARE)
    assert words(striped(("grey", 100 - least), ("red", least))) == "grey, red"
    one = striped(("grey", 100))
    one[0, 0] = PALETTE["red"]  # one pixel of 2,000
    assert words(one) == "only grey"
    one[0, :11] = PALETTE["red"]  # 0.55 %: not worth a name, and grey is not all
    assert words(one) == "grey"


def test_at_most_four_names() -> None:
    many = striped(("red", 30), ("green", 25), ("blue", 20), ("yellow", 15), ("cyan", 10))
    assert words(many) == "red, green, blue, yellow"


def test_greys_are_black_and_white_only_at_the_ends() -> None:
    for level, name in ((0, "black"), (40, "black"), (41, "grey"), (224, "grey"), (225, "white"), (255, "white")):
        assert words(np.full((9, 9, 3), level)) == f"only {name}", level


def test_large_pictures_are_looked_at_in_little_time_and_give_the_same_words() -> None:
    small = striped(("red", 60), ("green", 40))
    assert words(small.repeat(10, axis=0).repeat(60, axis=1)) == words(small) == "red, green"


def test_the_same_pixels_in_another_file_have_the_same_words() -> None:
    found = set()
    for kind in ("PNG", "BMP", "TIFF", "GIF"):
        stream = io.BytesIO()
        Image.fromarray(striped(("red", 60), ("green", 40)).astype(np.uint8)).save(stream, format=kind)
        found.add(picture_words(stream.getvalue()))
    assert found == {"red, green"}
