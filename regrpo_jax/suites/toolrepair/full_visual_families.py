"""Full families whose failure is seen, not told: small print cut out, a chart drawn, two parts side by side.

As in `compact_visual_families`, the first action succeeds, and only its picture shows that it missed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from PIL import Image

from regrpo_jax.records.picture_words import picture_words
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.draft import Ask, Draft
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair.words import CITIES, TEAMS
from regrpo_jax.suites.toolrepair_tools.full_sheets import (
    BLOT,
    CROSSED,
    HEIGHT,
    INKS,
    PART,
    STRUCK,
    WIDTH,
    Print,
    draw_chart,
    draw_prints,
    enlarged,
    side_by_side,
)
from regrpo_jax.suites.toolrepair_tools.full_visual_tools import register_file
from regrpo_jax.suites.toolrepair_tools.quoting import q

SHEET = "survey.png"
_DRIFT = ErrorType.GROUNDING_DRIFT
_SLOT = 300  # pixels of the squares of a sheet that have one part each
_INKS = [name for name in INKS if name != "black"]
_HEIGHTS = range(60, 261, 25)  # of bars


def _words(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return picture_words(stream.getvalue())


def _numbers(rng: Random, count: int) -> list[str]:
    """Different numbers, above all that can stand in a box."""
    return [str(number) for number in rng.sample(range(3000, 9900), count)]


def _places(rng: Random, count: int) -> list[tuple[int, int]]:
    """Left upper corners of parts that do not touch."""
    columns, rows = WIDTH // _SLOT, HEIGHT // _SLOT
    slots = rng.sample(range(columns * rows), count)
    room = _SLOT - PART[0], _SLOT - PART[1]
    return [
        (slot % columns * _SLOT + rng.randrange(room[0]), slot // columns * _SLOT + rng.randrange(room[1]))
        for slot in slots
    ]


def _part(sheet: Image.Image, one: Print) -> Image.Image:
    return sheet.crop((one.left, one.top, one.left + PART[0], one.top + PART[1])).convert("RGB")


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def zoom(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: nothing is printed in the first part, or it is crossed out; held out: blotted, or struck through.

    Difficulty 1: one number beside. 2: others lie about. 3: also one that is void, which is what the first part shows
    where there is a surprise.
    """
    tool = "magnify" if ask.held_out else "cut_out"
    void = (STRUCK if ask.held_out else CROSSED) if ask.difficulty > 2 else ""
    mark = void or (BLOT if ask.held_out and ask.surprise else "")
    others = 4 if ask.difficulty > 1 else 0
    while True:
        number, wrong, *rest = _numbers(rng, 2 + others)
        places = _places(rng, 2 + others)
        right, missed = Print(*places[0], (number,)), Print(*places[1], (wrong,), mark=mark)
        if ask.surprise and not mark:
            missed = Print(*places[1], ())
        prints = [right, missed, *(Print(*place, (text,)) for place, text in zip(places[2:], rest, strict=True))]
        names = tuple(one.name for one in prints)
        if ask.fits(names):
            break
    first, second = (missed, right) if ask.surprise else (right, missed)
    sheet = draw_prints(prints)
    repair = None
    if ask.surprise:
        part = _part(_opened(sheet), first)
        evidence = _words(enlarged(part) if ask.held_out else part)
        fact = "the number there is void" if void else "no number can be read there"
        repair = Repair(_DRIFT, evidence, (fact,), f"look at {second.box}", call(tool, SHEET, second.box))
    kind = f"{void}_number" if void else "blotted_part" if ask.held_out else "blank_part"
    rule = " A number that is crossed out or struck through is void." if void else ""
    instruction = (
        f"Which number is printed in the part {first.box} of {q(SHEET)}? If it shows none, take the part {second.box}."
        f"{rule} Use {tool}."
    )
    plan = Plan((Attempt("I look at that part closely.", call(tool, SHEET, first.box), repair),), number)
    kind = kind if ask.surprise else ""
    return Draft(instruction, {SHEET: sheet}, plan, names, kind, (SHEET,), answer_kind="number", visual=True)


def _rows(rng: Random, asked: str, count: int) -> list[tuple[str, int]]:
    """Bars, the one that is asked for first."""
    heights = sorted(rng.sample(_HEIGHTS, count), reverse=asked == "highest")
    return list(zip(rng.sample(CITIES, count), heights, strict=True))


def plot(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: the first register's chart has no bars; held out: it is a draft, whose bars have no names.

    Difficulty 1: the highest of three bars. 2: of five. 3: the highest or the lowest of six.
    """
    tool = "plot_register" if ask.held_out else "draw_chart"
    first, second = (f"{team}.csv" for team in rng.sample(TEAMS, 2))
    asked = rng.choice(("highest", "lowest")) if ask.difficulty > 2 else "highest"
    count = (3, 5, 6)[ask.difficulty - 1]
    kind = ""
    if ask.surprise:
        kind = "unlabelled_chart" if ask.held_out else "no_bars"
    while True:
        right, other = _rows(rng, asked, count), _rows(rng, asked, count)
        answer = right[0][0]
        shown = [] if kind == "no_bars" else other
        names = (first, second, *(f"{city}/{height}" for city, height in (*right, *shown)))
        if other[0][0] != answer and ask.fits(names):
            break
    other = rng.sample(shown, len(shown))
    rng.shuffle(right)
    repair = None
    if ask.surprise:
        evidence = _words(draw_chart(other, labelled=not ask.held_out))
        fact = "its bars have no names" if ask.held_out else "it has no bars"
        repair = Repair(_DRIFT, evidence, (fact,), f"draw {second}", call(tool, second))
    rows = {first: other, second: right} if ask.surprise else {first: right, second: other}
    files = {name: register_file(rows[name], draft=name == first and kind == "unlabelled_chart") for name in rows}
    instruction = (
        f"Which city has the {asked} bar in the chart of the register {q(first)}? If it does not show that, take "
        f"{q(second)}. Use {tool}."
    )
    plan = Plan((Attempt("I draw the chart.", call(tool, first), repair),), answer)
    return Draft(instruction, {}, plan, names, kind, behind=files, visual=True)


def compare(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: one of the first two parts is blank, or they share nothing; held out: one is blotted.

    Difficulty: as many numbers in each part, of which the two parts share one. 3: two parts that share none where there
    is a surprise.
    """
    tool = "collate" if ask.held_out else "side_by_side"
    kind = ""
    if ask.surprise:
        kind = "blotted_side" if ask.held_out else "unlike_sides" if ask.difficulty > 2 else "blank_side"
    while True:
        answer, prints = _pairs_of_prints(rng, ask.difficulty, kind)
        names = tuple(one.name for one in prints)
        if ask.fits(names):
            break
    sheet = draw_prints(prints)
    repair = None
    boxes = [one.box for one in prints]
    if ask.surprise:
        opened = _opened(sheet)
        evidence = _words(side_by_side([_part(opened, one) for one in prints[:2]]))
        code = call(tool, SHEET, *boxes[2:])
        repair = Repair(_DRIFT, evidence, ("they share nothing",), f"look at {boxes[2]} and {boxes[3]}", code)
    instruction = (
        f"Which number is printed in both parts {boxes[0]} and {boxes[1]} of {q(SHEET)}? If they share none, take the "
        f"parts {boxes[2]} and {boxes[3]}. Use {tool}."
    )
    plan = Plan((Attempt("I look at both.", call(tool, SHEET, *boxes[:2]), repair),), answer)
    return Draft(instruction, {SHEET: sheet}, plan, names, kind, (SHEET,), answer_kind="number", visual=True)


def _pairs_of_prints(rng: Random, count: int, kind: str) -> tuple[str, list[Print]]:
    """The number that two parts share and four parts: these two first, or last where there is a kind of surprise."""
    inks, places = rng.sample(_INKS, 4), _places(rng, 4)
    pool = _numbers(rng, 4 * count + 1)
    answer, other = pool.pop(), pool.pop()
    columns = _columns(rng, answer, pool, count) + _columns(rng, other, pool, count)
    if kind:
        columns = columns[2:] + columns[:2]
    if kind == "unlike_sides":
        columns[1] = tuple(pool.pop() if line == other else line for line in columns[1])
    elif kind:
        columns[1] = ()
    prints = [Print(*place, column, ink) for place, column, ink in zip(places, columns, inks, strict=True)]
    if kind == "blotted_side":
        prints[1] = replace(prints[1], mark=BLOT)
    return answer, prints


def _columns(rng: Random, shared: str, pool: list[str], count: int) -> list[tuple[str, ...]]:
    """The numbers of two parts that have one in common; takes the others from the pool."""
    found: list[Sequence[str]] = [[shared, *(pool.pop() for _ in range(count - 1))] for _ in range(2)]
    return [tuple(rng.sample(column, count)) for column in found]
