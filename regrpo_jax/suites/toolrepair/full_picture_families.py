"""Full families over a picture: a number under a card, a shape of another colour, how many shapes there are."""

from __future__ import annotations

from random import Random

from regrpo_jax.environments.faults import FaultKind
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.draft import Ask, Draft
from regrpo_jax.suites.toolrepair.full_document_families import Faults, fault, numbers
from regrpo_jax.suites.toolrepair.full_pictures import (
    COLOURS,
    OPPOSITE,
    REGIONS,
    SHAPES,
    Mark,
    draw_marks,
    draw_scene,
    text_box,
)
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair_tools.quoting import q

BOARD, SCENE = "board.png", "scene.png"


def _marks(rng: Random, count: int) -> list[Mark]:
    """Different shapes of different colours with different numbers, in different quarters."""
    regions, colours = rng.sample(list(REGIONS), count), rng.sample(list(COLOURS), count)
    shapes = [rng.choice(SHAPES) for _ in range(count)]
    return [Mark(*parts) for parts in zip(regions, colours, shapes, numbers(rng, count), strict=True)]


def _key(marks: list[Mark]) -> tuple[str, ...]:
    return tuple(f"{mark.region}/{mark.colour}/{mark.shape}" for mark in marks)


def region(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: nothing is where the instruction says. Held out: the picture is stored upside down.

    Difficulty: one, two or three marks; which one is meant is told by its colour, so the picture decides.
    """
    marks = _marks(rng, ask.difficulty)
    target = marks[0]
    free = [place for place in REGIONS if place not in {mark.region for mark in marks}]
    hint = target.region
    faults: Faults = ()
    repair = hasty = None
    direct = ""
    tool = "describe_region" if ask.held_out else "ocr"
    more = ("text",) if ask.held_out else ()
    drift = ErrorType.GROUNDING_DRIFT
    if ask.surprise and ask.held_out:
        stored = f"stored {OPPOSITE[hint]}"
        faults = (fault(FaultKind.WRONG_REGION, tool),)
        evidence = f"Ask for {q(stored)}"
        repair = Repair(
            drift, evidence, ("it is stored upside down",), f"look at {stored}", call(tool, BOARD, stored, *more)
        )
    elif ask.surprise:
        hint = rng.choice(free)
        fact = f"the {target.colour} {target.shape} is at the {target.region}"
        direct = call(tool, BOARD, target.region)
        repair = Repair(drift, "No text found in the region", (fact,), f"look at the {target.region}", direct)
        wrong = next((place for place in free if place != hint), marks[-1].region)
        if wrong != target.region:
            hasty = Repair(drift, repair.evidence, (), f"look at the {wrong}", call(tool, BOARD, wrong))
    attempt = Attempt(f"I look at the {hint}.", call(tool, BOARD, hint, *more), repair, hasty, direct)
    kind = ("upside_down" if ask.held_out else "empty_region") if ask.surprise else ""
    instruction = (
        f"Which number is printed below the {target.colour} {target.shape} in {q(BOARD)}? It should be at the {hint}; "
        f"use {tool}."
    )
    plan = Plan((attempt,), target.text)
    return Draft(instruction, {BOARD: draw_marks(marks)}, plan, _key(marks), kind, (BOARD,), faults, "number")


def colour(rng: Random, ask: Ask) -> Draft:
    """GroundingDrift: the shape has another colour than told. Held out: it is in another part of the picture.

    The shape is located, then the number below it is read. Difficulty: one, two or three shapes, all of another kind.
    """
    colours, regions = rng.sample(list(COLOURS), ask.difficulty + 1), rng.sample(list(REGIONS), ask.difficulty)
    shapes, texts = rng.sample(SHAPES, ask.difficulty), numbers(rng, ask.difficulty)
    marks = [Mark(*parts) for parts in zip(regions, colours[1:], shapes, texts, strict=True)]
    target, wrong = marks[0], colours[0]
    drift, repair, hasty, direct = ErrorType.GROUNDING_DRIFT, None, None, ""
    faults: Faults = ()
    what, hint = f"{target.colour} {target.shape}", f"It may be {wrong if ask.surprise else target.colour}"
    if ask.held_out:
        place = rng.choice([name for name in REGIONS if name != target.region]) if ask.surprise else target.region
        locate = call("objectlocation", what, BOARD, place)
        hint = f"It should be at the {place}"
        if ask.surprise:
            faults = (fault(FaultKind.WRONG_REGION, "objectlocation", argument="region", actual=target.region),)
            evidence, repaired = f"is at {q(target.region)}", call("objectlocation", what, BOARD, target.region)
            repair = Repair(drift, evidence, (), f"look at the {target.region}", repaired)
    else:
        locate = call("text_to_bbox", BOARD, f"{wrong} {target.shape}" if ask.surprise else what)
        if ask.surprise:
            evidence, direct = f"no {q(f'{wrong} {target.shape}')}", call("text_to_bbox", BOARD, what)
            repair = Repair(
                drift, evidence, (f"the {target.shape} is {target.colour}",), f"look for the {what}", direct
            )
            guess = next((name for name in COLOURS if name not in (wrong, target.colour)), wrong)
            hasty = Repair(drift, evidence, (), f"try {guess}", call("text_to_bbox", BOARD, f"{guess} {target.shape}"))
    box = str(text_box(target.region))
    attempts = (
        Attempt("I locate the shape.", locate, repair, hasty, direct),
        Attempt("I read what is below it.", call("ocr", BOARD, box)),
    )
    kind = ("misplaced" if ask.held_out else "wrong_colour") if ask.surprise else ""
    instruction = f"Which number is printed below the {target.shape} in {q(BOARD)}? {hint}."
    if ask.held_out:
        instruction += f" Locate the {what} with objectlocation, in that part of the picture, then use ocr below it."
    plan = Plan(attempts, target.text)
    return Draft(instruction, {BOARD: draw_marks(marks)}, plan, _key(marks), kind, (BOARD,), faults, "number")


def count(rng: Random, ask: Ask) -> Draft:
    """ArgInvalid: the arguments of the tool have new names. Held out: it garbles, and wants an encoding.

    Difficulty 1: the colour is told. 2, 3: it is the banner's; 3: with more decoys of the same colour.
    """
    main, other, banner = rng.sample(list(COLOURS), 3)
    banner = banner if ask.difficulty == 1 else main
    shape, decoy = rng.sample(SHAPES, 2)
    number, decoys = rng.randint(2, 5), ask.difficulty
    slots = rng.sample(range(12), number + 2 * decoys)
    shapes = [(shape, main, slot) for slot in slots[:number]]
    shapes += [(shape, other, slot) for slot in slots[number : number + decoys]]
    shapes += [(decoy, main if ask.difficulty > 2 else other, slot) for slot in slots[number + decoys :]]
    what, repair = f"{main} {shape}", None
    faults: Faults = ()
    code = f"len({call('objectlocation', what, SCENE)})" if ask.held_out else call("count_objects", SCENE, what)
    if ask.surprise and ask.held_out:
        faults = ({**fault(FaultKind.GARBLED_OUTPUT, "objectlocation", raises=True), "seed": rng.getrandbits(32)},)
        evidence = 'call again with encoding="utf-8"'
        good = f'len(objectlocation("{what}", "{SCENE}", encoding="utf-8"))'
        repair = Repair(ErrorType.ARG_INVALID, evidence, (), 'add encoding="utf-8"', good)
    elif ask.surprise:
        picture, words = rng.choice((("picture", "what"), ("source", "query"), ("file", "thing")))
        faults = (fault(FaultKind.SIGNATURE_CHANGED, "count_objects", renamed={"image": picture, "text": words}),)
        evidence = f"Usage: count_objects(*, {picture}: str, {words}: str"
        good = f'count_objects({picture}="{SCENE}", {words}="{what}")'
        repair = Repair(ErrorType.ARG_INVALID, evidence, (), f"name the arguments {picture} and {words}", good)
    # A red banner would be no shape of a kind that is asked for: it is a wide rectangle.
    told = f"{main} {shape}s" if ask.difficulty == 1 else f"{shape}s in the colour of the banner"
    kind = ("garbled_output" if ask.held_out else "signature_changed") if ask.surprise else ""
    tool = code.partition("(")[0] if not ask.held_out else "objectlocation"
    instruction = f"How many {told} are in {q(SCENE)}? Use {tool}."
    key = (banner, *(f"{kind}{hue}{slot}" for kind, hue, slot in shapes))
    plan = Plan((Attempt(f"I count the {what}s.", code, repair),), str(number))
    picture_file = {SCENE: draw_scene(shapes, banner)}
    return Draft(instruction, picture_file, plan, key, kind, (SCENE,), faults, "number")
