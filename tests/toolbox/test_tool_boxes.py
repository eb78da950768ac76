"""Boxes and region words: what is read, what is cut to the image, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.toolbox.boxes import COLUMNS, ROWS, Box, parse_box, parse_region
from regrpo_jax.toolbox.failures import ToolError

SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
FORMS = ("({}, {}, {}, {})", "[{}, {}, {}, {}]", "{}, {}, {}, {}", "{} {} {} {}", "[({},{},{},{})]")


@st.composite
def boxes_inside(draw: st.DrawFn) -> tuple[Box, tuple[int, int]]:
    width, height = draw(SIZES)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Box(left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))), (width, height)


@given(boxes_inside(), st.sampled_from(FORMS))
def test_a_box_is_read_back_from_every_form(case: tuple[Box, tuple[int, int]], form: str) -> None:
    box, size = case
    assert parse_box(list(box), size) == parse_box([list(box)], size) == parse_box(form.format(*box), size) == box
    assert parse_box(box.text(), size) == box
    assert parse_region(box.text(), size) == box


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=4, max_size=4), SIZES)
def test_any_four_numbers_give_a_box_inside_the_image_or_a_tool_error(
    numbers: list[float], size: tuple[int, int]
) -> None:
    try:
        box = parse_box(numbers, size)
    except ToolError:
        return
    assert 0 <= box.left < box.right <= size[0]
    assert 0 <= box.top < box.bottom <= size[1]


@given(st.one_of(st.text(max_size=60), st.none(), st.integers(), st.lists(st.text(max_size=3), max_size=6)), SIZES)
def test_anything_else_is_a_region_inside_the_image_or_a_tool_error(value: object, size: tuple[int, int]) -> None:
    try:
        box = parse_region(value, size)
    except ToolError:
        return
    assert 0 <= box.left < box.right <= size[0]
    assert 0 <= box.top < box.bottom <= size[1]


@given(st.sampled_from(sorted(ROWS)), st.sampled_from(sorted(COLUMNS)), st.sampled_from(["{} {}", "{}-{}", "{}{}"]))
def test_a_row_and_a_column_name_a_quarter(row: str, column: str, form: str) -> None:
    for wording in (form, f"the {form} corner of the image"):
        box = parse_region(wording.format(row, column), (100, 60))
        assert box == Box(50 * COLUMNS[column], 30 * ROWS[row], 50 * (COLUMNS[column] + 1), 30 * (ROWS[row] + 1))


@pytest.mark.parametrize(
    ("words", "box"),
    [
        ("left", Box(0, 0, 50, 60)),
        ("Bottom half", Box(0, 30, 100, 60)),
        ("center", Box(25, 15, 75, 45)),
        ("middle left", Box(0, 15, 50, 45)),
        ("whole image", Box(0, 0, 100, 60)),
    ],
)
def test_halves_and_the_middle(words: str, box: Box) -> None:
    assert parse_region(words, (100, 60)) == box


@pytest.mark.parametrize("words", ["", "nowhere", "left right", "top bottom", "the image"])
def test_an_unknown_region_is_told_with_the_known_ones(words: str) -> None:
    with pytest.raises(ToolError, match="Unknown region .* top left, top right, bottom left"):
        parse_region(words, (100, 60))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((200, 0, 300, 10), r"outside the image, which has 100 x 60 pixels"),
        ((10, 10, 10, 20), r"empty: x1 must be less than x2"),
        ((1, 2, 3), r"no box: write \(x1, y1, x2, y2\) in pixels of 100 x 60"),
        ("12", r"no box"),
        ((True, 0, 1, 1), r"no box"),
    ],
)
def test_a_wrong_box_is_told_with_the_size_of_the_image(value: object, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        parse_box(value, (100, 60))
