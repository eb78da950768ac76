"""Compact families over a picture: where the card is, which colour it has, how many shapes there are.

The instruction carries a hint that is wrong where there is a surprise. The observation then says that the hint was
wrong, and the picture alone decides what is right.
"""

from __future__ import annotations

from random import Random

from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.draft import Ask, Draft, rows_file
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair.words import values
from regrpo_jax.suites.toolrepair_tools.compact_pictures import (
    BESIDE,
    COLOURS,
    REGIONS,
    draw_cards,
    draw_shapes,
    random_card,
)
from regrpo_jax.suites.toolrepair_tools.compact_vision import PAINTS, PICTURE, USAGE
from regrpo_jax.suites.toolrepair_tools.quoting import q

_HINTED = 0.6  # share of the tasks without a surprise whose instruction has a (true) hint


def region(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: the card is not where the instruction says; held out: a card without a code is there.

    Difficulty 1: two cards, one asked by its colour. 2: three cards. 3: the card beside that of the colour.
    """
    tool = "peek" if ask.held_out else "crop"
    beside = ask.difficulty > 2
    colours = rng.sample(list(COLOURS), 2 if ask.difficulty == 1 else 3)
    anchor = rng.choice(list(REGIONS))
    target = BESIDE[anchor] if beside else anchor
    places = [anchor, *([target] if beside else [])]
    places += rng.sample([place for place in REGIONS if place not in places], len(colours) - len(places))
    free = rng.choice([place for place in REGIONS if place not in places])
    hint = free if ask.surprise else target if rng.random() < _HINTED else ""
    shut = free if ask.held_out and ask.surprise else ""
    codes = dict(zip(places, values(rng, len(places)), strict=True))
    cards = [random_card(rng, place, colour, codes[place]) for place, colour in zip(places, colours, strict=True)]
    if shut:
        cards.append(random_card(rng, shut, next(name for name in COLOURS if name not in colours), None))
    repair = hasty = None
    if ask.surprise:
        drift = ErrorType.GROUNDING_DRIFT
        evidence = f"no code at {q(free)}" if shut else f"nothing at {q(free)}"
        facts = (f"{q(colours[0])} at {q(anchor)}",)
        repair = Repair(drift, evidence, facts, f"use {q(target)}", call(tool, target))
        wrong = BESIDE[free]
        if wrong != target:
            hasty = Repair(drift, evidence, (f"beside {q(free)}",), f"use {q(wrong)}", call(tool, wrong))
    attempt = Attempt("look there.", call(tool, hint or target), repair, hasty, direct=call(tool, target))
    asked = f"beside the {q(colours[0])} card" if beside else f"of the {q(colours[0])} card"
    where = f", at {q(hint)}" if hint else ""
    names = tuple(f"{card.colour}@{card.region}" for card in cards) + tuple(codes.values())
    kind = ("blocked_region" if ask.held_out else "wrong_region") if ask.surprise else ""
    picture = draw_cards(cards, rng.randint(0, 50))
    plan = Plan((attempt,), codes[target])
    instruction = f"Read the code {asked}{where}, with {q(tool)}."
    return Draft(instruction, {PICTURE: picture}, plan, names, kind, (PICTURE,))


def colour(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: the card has another colour than the hint; held out: a plain card has the hint's.

    Difficulty 1: one card. 2, 3: two cards side by side, the left or the right one is asked.
    """
    tool = "dab" if ask.held_out else "spot"
    right, wrong, second = rng.sample(list(COLOURS), 3)
    code, other = values(rng, 2)
    row = rng.choice(("top", "low"))
    side, far = rng.sample(("left", "right"), 2)
    cards = [random_card(rng, row + side, right, code)]
    if ask.difficulty > 1:
        cards.append(random_card(rng, row + far, second, other))
    if ask.held_out and ask.surprise:
        cards.append(random_card(rng, ("low" if row == "top" else "top") + far, wrong, None))
    hint = wrong if ask.surprise else right
    repair = None
    if ask.surprise:
        evidence = f"no code on {q(wrong)}" if ask.held_out else f"no {q(wrong)} card"
        facts = (f"the card is {q(right)}",)
        repair = Repair(ErrorType.GROUNDING_DRIFT, evidence, facts, f"use {q(right)}", call(tool, right))
    hasty = None
    if repair is not None:
        guess = next(name for name in COLOURS if name not in (right, wrong, *([second] if ask.difficulty > 1 else [])))
        hasty = Repair(ErrorType.GROUNDING_DRIFT, repair.evidence, (), f"use {q(guess)}", call(tool, guess))
    attempt = Attempt("look for it.", call(tool, hint), repair, hasty, direct=call(tool, right))
    asked = f"the {side} card with a code" if ask.difficulty > 1 else "the card with a code"
    names = tuple(f"{card.colour}@{card.region}" for card in cards) + (code,)
    kind = ("lookalike" if ask.held_out else "wrong_colour") if ask.surprise else ""
    instruction = f"Read {asked}, it may be {q(hint)}, with {q(tool)}."
    picture = draw_cards(cards, rng.randint(0, 50))
    return Draft(instruction, {PICTURE: picture}, Plan((attempt,), code), names, kind, (PICTURE,))


def count(rng: Random, ask: Ask) -> Draft:
    """ArgInvalid: count wants its arguments in another way; held out: tally calls colours by other names.

    Difficulty 1: the colour is told. 2, 3: it is the frame's. 3: shapes of other kinds and colours lie about.
    """
    tool = "tally" if ask.held_out else "count"
    hue, other, frame = rng.sample(list(COLOURS), 3)
    frame = frame if ask.difficulty == 1 else hue
    number, decoys = rng.randint(2, 5), rng.randint(1, 2) if ask.difficulty > 1 else 0
    slots = rng.sample(range(9), number + decoys)
    shapes = [("square", hue, slot) for slot in slots[:number]]
    shapes += [(rng.choice(("square", "circle")), other, slot) for slot in slots[number:]]
    picture = draw_shapes(frame, shapes, rng.randint(0, 50))
    files: dict[str, bytes] = {}
    repair = hasty = None
    invalid = ErrorType.ARG_INVALID
    if ask.surprise and ask.held_out:
        names = dict(zip(COLOURS, rng.sample(("crimson", "jade", "navy", "amber"), 4), strict=True))
        files[PAINTS] = rows_file(names.items())
        paint = names[hue]
        repair = Repair(invalid, f"{q(hue)} is {q(paint)}", (), f"use {q(paint)}", call(tool, paint))
    elif ask.surprise:
        files[USAGE] = rows_file([("shape", "colour")])
        evidence = f"{q(tool)} wants {q('shape')}, then {q('colour')}"
        fix = f"say {q('square')}, then {q(hue)}"
        repair = Repair(invalid, evidence, (), fix, call(tool, "square", hue))
        hasty = Repair(invalid, evidence, (), f"say {q(hue)} first", call(tool, hue, "square"))
    told = f"{q(hue)} squares" if ask.difficulty == 1 else "squares in the colour of the frame"
    attempt = Attempt("count them.", call(tool, hue), repair, hasty)
    kind = ("wrong_unit" if ask.held_out else "signature_changed") if ask.surprise else ""
    names_of_task = (frame, *(f"{shape}{hue}{slot}" for shape, hue, slot in shapes))
    plan = Plan((attempt,), str(number))
    instruction = f"How many {told}? Use {q(tool)}."
    return Draft(instruction, {PICTURE: picture}, plan, names_of_task, kind, (PICTURE,), behind=files)
