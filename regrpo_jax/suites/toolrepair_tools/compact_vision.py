"""The small tools of the compact profile that look at the picture of the task: real crops, real pixels."""

from __future__ import annotations

from typing import Any

from PIL import Image

from regrpo_jax.suites.toolrepair_tools.compact_pictures import (
    COLOURS,
    REGIONS,
    SHAPES,
    card_in,
    count_shapes,
    opened,
    quadrant,
)
from regrpo_jax.suites.toolrepair_tools.compact_tools import pairs_of, text_input
from regrpo_jax.suites.toolrepair_tools.quoting import listed, q
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.signatures import CheckedTool

PICTURE = "card.png"
USAGE = "usage.csv"  # the order of count's arguments, where it differs
PAINTS = "paints.csv"  # colour, what tally calls it


def known(word: str, words: Any, kind: str) -> str:
    """The word. ToolError that lists the words when it is none of them."""
    if word not in words:
        raise ToolError(f"Unknown {kind} {q(word)}. {listed(map(q, words))}")
    return word


def picture() -> Image.Image:
    """The picture of the task. ToolError when it has none."""
    try:
        return opened(PICTURE)
    except FileNotFoundError:
        raise ToolError("NotFound. no picture.") from None


class PictureTool(CheckedTool):
    """A tool that opens the picture."""

    def warm_up(self) -> None:
        Image.preinit()  # else every forked episode imports the readers of image formats anew


class Crop(PictureTool):
    name = "crop"
    description = f"Cuts a region ({', '.join(REGIONS)}) out of the picture and reads its card's code."
    inputs = {"region": text_input("the region")}
    output_type = "string"

    def forward(self, region: str) -> str:
        part = quadrant(picture(), known(region, REGIONS, "region"))
        found = card_in(part)
        if found is None:
            raise EmptyResult(f"Empty. nothing at {q(region)}.")
        if found[1] is None:
            raise EmptyResult(f"Shut. no code at {q(region)}.")
        return f"code {q(found[1])}"


class Peek(Crop):
    name = "peek"


class Spot(PictureTool):
    name = "spot"
    description = f"Finds the card of a colour ({', '.join(COLOURS)}) in the picture and reads its code."
    inputs = {"colour": text_input("the colour")}
    output_type = "string"

    def forward(self, colour: str) -> str:
        found = card_in(picture(), known(colour, COLOURS, "colour"))
        if found is None:
            raise EmptyResult(f"Empty. no {q(colour)} card.")
        if found[1] is None:
            raise EmptyResult(f"Plain. no code on {q(colour)}.")
        return f"code {q(found[1])}"


class Dab(Spot):
    name = "dab"


class Count(PictureTool):
    name = "count"
    description = "Counts the shapes of a colour in the picture."
    inputs = {"colour": text_input("the colour"), "more": text_input("see its usage", nullable=True)}
    output_type = "string"

    def forward(self, colour: str, more: str | None = None) -> str:
        usage = pairs_of(USAGE)
        if not usage:
            kind, shape = colour, None
        elif more is None or colour not in SHAPES:
            wanted = ", then ".join(q(word) for word in usage[0])
            raise ToolError(f"Usage. {q(self.name)} wants {wanted}.")
        else:
            kind, shape = more, colour
        return f"number {q(count_shapes(picture(), known(kind, COLOURS, 'colour'), shape))}"


class Tally(PictureTool):
    name = "tally"
    description = "Tallies the shapes of a colour in the picture."
    inputs = {"colour": text_input("the colour")}
    output_type = "string"

    def forward(self, colour: str) -> str:
        paints = {paint: name for name, paint in pairs_of(PAINTS)}
        if paints and colour not in paints:
            raise ToolError("Renamed. " + listed(f"{q(name)} is {q(paint)}" for paint, name in paints.items()))
        return f"number {q(count_shapes(picture(), paints.get(colour) or known(colour, COLOURS, 'colour')))}"
