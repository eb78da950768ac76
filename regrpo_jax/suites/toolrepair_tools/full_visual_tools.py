"""Tools of the full profile whose results are pictures, beside the toolbox's own `crop`; see `compact_visual_tools`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from regrpo_jax.suites.toolrepair_tools.full_sheets import draw_chart, enlarged, side_by_side
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.boxes import REGION_WORDS, parse_region
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.files import quoted
from regrpo_jax.toolbox.pictures import open_image, save_image
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


class Magnify(CheckedTool):
    name = "magnify"
    description = "Enlarges a part of an image and returns the name of the new image."
    inputs = {"image": IMAGE, "region": _PART}
    output_type = "string"

    def forward(self, image: str, region: Any) -> str:
        picture = open_image(image)
        return save_image(enlarged(picture.crop(parse_region(region, picture.size))), self.name)


class SideBySide(CheckedTool):
    name = "side_by_side"
    description = "Puts two parts of an image side by side and returns the name of the new image."
    inputs = {"image": IMAGE, "first": _PART, "second": _PART}
    output_type = "string"

    def forward(self, image: str, first: Any, second: Any) -> str:
        picture = open_image(image)
        parts = [picture.crop(parse_region(region, picture.size)) for region in (first, second)]
        return save_image(side_by_side(parts), self.name)


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
        return save_image(draw_chart(bars, labelled=header[0] != DRAFT), self.name)


class PlotRegister(DrawChart):
    name = "plot_register"
