"""Compact families whose failure is seen, not told: a place enlarged, a chart drawn, two places side by side.

The first action succeeds, and its observation is the name of a picture. That it does not show what is wanted stands in
the pixels alone, and so does the answer, a colour. Neither depends on anything that is told.
"""

from __future__ import annotations

import io
from random import Random

from PIL import Image

from regrpo_jax.records.picture_words import picture_words
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.draft import Ask, Draft
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair.words import STEMS
from regrpo_jax.suites.toolrepair_tools.compact_pictures import COLOURS, REGIONS
from regrpo_jax.suites.toolrepair_tools.compact_sheets import (
    BLOT,
    CROSSED,
    STRUCK,
    WHITE_INK,
    BarSheet,
    TinyCard,
    charted,
    draw_sheet,
    magnified,
    paired,
    random_paper,
)
from regrpo_jax.suites.toolrepair_tools.compact_visual_tools import SHEET_FILE, bars_file, bars_name
from regrpo_jax.suites.toolrepair_tools.quoting import q

_DRIFT = ErrorType.GROUNDING_DRIFT
_LEVELS = range(8, 43, 6)  # heights of bars that differ enough to be seen


def _words(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return picture_words(stream.getvalue())


def _opened(sheet: bytes) -> Image.Image:
    return Image.open(io.BytesIO(sheet))


def _card(rng: Random, region: str, colour: str, mark: str = "") -> TinyCard:
    return TinyCard(region, colour, rng.randint(1, 9), rng.randint(1, 9), mark)


def zoom(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: the first place is blank, or its card is crossed out; held out: blotted, or struck through.

    Difficulty 1: one card beside. 2: cards of other colours at places that are not named. 3: also a card that is void,
    which is what the first place shows where there is a surprise.
    """
    tool = "loupe" if ask.held_out else "zoom"
    colour, void = rng.choice(list(COLOURS)), (STRUCK if ask.held_out else CROSSED) if ask.difficulty > 2 else ""
    while True:
        first, second, *others = places = rng.sample(list(REGIONS), 4)
        cards, paper = _zoom_cards(rng, ask, places, colour, void), random_paper(rng)
        names = (f"{first}/{second}", str(paper), *(card.name for card in cards))
        if ask.fits(names):
            break
    sheet = draw_sheet(cards, paper, rng)
    repair = hasty = None
    if ask.surprise:
        fact = f"the card at {q(first)} is void" if void else f"no card at {q(first)}"
        evidence = _words(magnified(_opened(sheet), first))
        repair = Repair(_DRIFT, evidence, (fact,), f"use {q(second)}", call(tool, second))
        hasty = Repair(_DRIFT, evidence, (), f"use {q(others[0])}", call(tool, others[0]))
    kind = f"{void}_card" if void else "blotted_place" if ask.held_out else "blank_place"
    plan = Plan((Attempt("look closer.", call(tool, first), repair, hasty),), colour)
    rule = " A marked card is void." if void else ""
    instruction = f"Which colour is the card? It is at {q(first)}, else at {q(second)}.{rule} Use {q(tool)}."
    kind = kind if ask.surprise else ""
    return Draft(instruction, {SHEET_FILE: sheet}, plan, names, kind, (SHEET_FILE,), visual=True)


def _zoom_cards(rng: Random, ask: Ask, places: list[str], colour: str, void: str) -> list[TinyCard]:
    """The card that is meant, what lies at the other place that is told, and what lies elsewhere."""
    first, second, *others = places
    wrong, *rest = rng.sample([name for name in COLOURS if name != colour], 3)
    cards = [_card(rng, second if ask.surprise else first, colour)]
    if void or not ask.surprise:
        cards.append(_card(rng, first if ask.surprise else second, wrong, void))
    elif ask.held_out:
        cards.append(_card(rng, first, "", BLOT))
    if ask.difficulty > 1:
        cards += [_card(rng, place, hue) for place, hue in zip(others, rest, strict=True)]
    return cards


def _bars(rng: Random, asked: str, answer: str, count: int, paper: int) -> BarSheet:
    """Bars of which that of the answer is the tallest, or the lowest."""
    heights = sorted(rng.sample(_LEVELS, count), reverse=asked == "tallest")
    colours = [answer, *rng.sample([name for name in COLOURS if name != answer], count - 1)]
    bars = list(zip(colours, heights, strict=True))
    rng.shuffle(bars)
    return BarSheet(tuple(bars), paper)


def plot(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: the first chart has no bars, or all of one height; held out: its bars have no colours.

    Difficulty 1: two bars. 2: four. 3: the tallest or the lowest of four, and bars of one height where there is a
    surprise.
    """
    tool = "graph" if ask.held_out else "chart"
    first, second = rng.sample(STEMS, 2)
    count = 2 if ask.difficulty == 1 else 4
    asked = rng.choice(("tallest", "lowest")) if ask.difficulty > 2 else "tallest"
    answer, other = rng.sample(list(COLOURS), 2)
    paper = random_paper(rng)
    right = _bars(rng, asked, answer, count, paper)
    wrong = _bars(rng, asked, other, count, paper)
    kind = ""
    if ask.surprise:
        kind = "uncoloured_chart" if ask.held_out else "flat_chart" if ask.difficulty > 2 else "empty_chart"
        wrong, fact = _failed_chart(wrong, kind)
    repair = None
    if ask.surprise:
        evidence = _words(charted(wrong))
        while evidence in _words(charted(right)):  # the order of the colours may be that of the bars of one height
            right = _bars(rng, asked, answer, count, paper)
        repair = Repair(_DRIFT, evidence, (f"{fact} in {q(first)}",), f"use {q(second)}", call(tool, second))
    plan = Plan((Attempt("draw it.", call(tool, first), repair),), answer)
    notes = {first: wrong, second: right} if ask.surprise else {first: right, second: wrong}
    files = {bars_name(note): bars_file(bars) for note, bars in notes.items()}
    instruction = f"Which colour is the {asked} bar of {q(first)}, else of {q(second)}? Use {q(tool)}."
    names = tuple(f"{note}/{bars.name}" for note, bars in notes.items())
    return Draft(instruction, {}, plan, names, kind, behind=files, visual=True)


def _failed_chart(bars: BarSheet, kind: str) -> tuple[BarSheet, str]:
    """A chart that shows no answer, and what it shows instead."""
    if kind == "uncoloured_chart":
        return BarSheet(bars.bars, bars.paper, WHITE_INK), "no colours"
    if kind == "empty_chart":
        return BarSheet((), bars.paper), "no bars"
    return BarSheet(tuple((colour, _LEVELS[3]) for colour, _ in bars.bars), bars.paper), "no difference"


def compare(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: one of the first two places is blank, or they share nothing; held out: one is blotted.

    Difficulty 1: a card at each place. 2, 3: two, of which one colour is shared. 3: two places that share no colour
    where there is a surprise.
    """
    tool = "match" if ask.held_out else "pair"
    places = rng.sample(list(REGIONS), 4)
    answer = rng.choice(list(COLOURS))
    kind = ""
    if ask.surprise:
        kind = "blotted_half" if ask.held_out else "unlike_halves" if ask.difficulty > 2 else "blank_half"
    while True:
        cards, paper = _pairs_of_cards(rng, places, answer, ask.difficulty, kind), random_paper(rng)
        names = ("/".join(places), str(paper), *(card.name for card in cards))
        if not ask.fits(names):
            continue
        sheet = draw_sheet(cards, paper, rng)
        opened = _opened(sheet)
        shown = [_words(paired(opened, *places[at : at + 2])) for at in (0, 2)] if kind else []
        if not kind or shown[0] not in shown[1]:
            break
    repair = None
    quoted = [f"{q(places[at])} and {q(places[at + 1])}" for at in (0, 2)]
    if ask.surprise:
        fact = f"nothing shared by {quoted[0]}"
        repair = Repair(_DRIFT, shown[0], (fact,), f"use {quoted[1]}", call(tool, *places[2:]))
    plan = Plan((Attempt("look at both.", call(tool, *places[:2]), repair),), answer)
    instruction = f"Which colour do {quoted[0]} share, else {quoted[1]}? Use {q(tool)}."
    return Draft(instruction, {SHEET_FILE: sheet}, plan, names, kind, (SHEET_FILE,), visual=True)


def _pairs_of_cards(rng: Random, places: list[str], answer: str, difficulty: int, kind: str) -> list[TinyCard]:
    """Cards of two pairs of places; the pair that shares the answer is the second where there is a kind of surprise."""
    other = rng.choice([name for name in COLOURS if name != answer])
    colours = _sharing(rng, answer, difficulty) + _sharing(rng, other, difficulty)
    if kind:
        colours = _sharing(rng, other, difficulty) + colours[:2]
        if kind == "unlike_halves":
            mixed = rng.sample(list(COLOURS), 4)
            colours[:2] = mixed[:2], mixed[2:]
        else:
            colours[0], colours[1] = rng.sample(list(COLOURS), len(colours[0])), []
    cards = [
        TinyCard(place, colour, rng.randint(1, 2), rng.randint(1, 2) + 7 * row)
        for place, chosen in zip(places, colours, strict=True)
        for row, colour in enumerate(chosen)
    ]
    return [*cards, TinyCard(places[1], "", 0, 0, BLOT)] if kind == "blotted_half" else cards


def _sharing(rng: Random, colour: str, difficulty: int) -> list[list[str]]:
    """The colours of two places that have this one in common and no other."""
    if difficulty == 1:
        return [[colour], [colour]]
    more = rng.sample([name for name in COLOURS if name != colour], 2)
    found = [[colour, one] for one in more]
    for chosen in found:
        rng.shuffle(chosen)
    return found
