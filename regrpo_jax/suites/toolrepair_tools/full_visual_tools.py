"""Tools of the full profile whose results are pictures; they say no more than `compact_visual_tools` do.

`cut_out` does what the toolbox's `crop` does, but for the name of the picture, which is made of its box.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from PIL.Image import Image

from regrpo_jax.suites.toolrepair_tools.full_sheets import draw_chart, enlarged, side_by_side
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.boxes import REGION_WORDS, parse_region
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.files import quoted
from regrpo_jax.toolbox.pictures import open_image
from regrpo_jax.toolbox.signatures import CheckedTool
from regrpo_jax.toolbox.vision_tools import IMAGE

DRAFT = "draft"  # the header of a register whose chart has no names
_PART = {"type": ["string", "array"], "description": f"a part: {REGION_WORDS}"}
_REGISTER = {"type": "string", "description": "name of the register"}


def register_file(rows: Sequence[tuple[str, int]], *, draft: bool = False) -> bytes:
    """The register that a chart is drawn of; `draft`: its chart has no names."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([(DRAFT if draft else "name", "height"), *rows])
    return stream.getvalue().encode()


def _written(image: Image, *words: object) -> str:
    name = f"{'_'.join(map(str, words))}.png"
    image.save(name, format="PNG")
    return name


class CutOut(CheckedTool):
    name = "cut_out"
    description = "Cuts a part out of an image and returns the name of the new image."
    inputs = {"image": IMAGE, "region": _PART}
    output_type = "string"
    enlarges = False

    def forward(self, image: str, region: Any) -> str:
        picture = open_image(image)
        box = parse_region(region, picture.size)
        part = picture.crop(box)
        return _written(enlarged(part) if self.enlarges else part, self.name, *box)


class Magnify(CutOut):
    name = "magnify"
    description = "Enlarges a part of an image and returns the name of the new image."
    enlarges = True


class SideBySide(CheckedTool):
    name = "side_by_side"
    description = "Puts two parts of an image side by side and returns the name of the new image."
    inputs = {"image": IMAGE, "first": _PART, "second": _PART}
    output_type = "string"

    def forward(self, image: str, first: Any, second: Any) -> str:
        picture = open_image(image)
        boxes = [parse_region(region, picture.size) for region in (first, second)]
        words = (word for box in sorted(boxes) for word in box)
        return _written(side_by_side([picture.crop(box) for box in boxes]), self.name, *words)


class Collate(SideBySide):
    name = "collate"


class DrawChart(CheckedTool):
    name = "draw_chart"
    description = "Draws a register as bars and returns the name of the new image."
    inputs = {"register": _REGISTER}
    output_type = "string"

    def forward(self, register: str) -> str:
        content = behind.read(register)
        if content is None:
            known = [name for name in behind.names() if name.endswith(".csv")]
            raise ToolError(f'There is no register "{register}". Registers: {quoted(known) or "none"}.')
        header, *rows = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
        bars = [(name, int(height)) for name, height in rows]
        return _written(draw_chart(bars, labelled=header[0] != DRAFT), self.name, register.removesuffix(".csv"))


class PlotRegister(DrawChart):
    name = "plot_register"
