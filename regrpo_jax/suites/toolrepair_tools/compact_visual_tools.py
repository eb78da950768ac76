"""The small tools of the compact profile whose results are pictures: they say where the picture is and nothing more.

A blank place is no error to them. What went wrong can be seen, and only there. A picture is called after the arguments:
its name tells nothing else, and the same call is the same observation, however many were made before.
"""

from __future__ import annotations

import csv
import io

from PIL import Image

from regrpo_jax.suites.toolrepair_tools.compact_pictures import REGIONS, opened
from regrpo_jax.suites.toolrepair_tools.compact_sheets import BarSheet, charted, magnified, paired
from regrpo_jax.suites.toolrepair_tools.compact_tools import text_input
from regrpo_jax.suites.toolrepair_tools.compact_vision import PictureTool, known
from regrpo_jax.suites.toolrepair_tools.quoting import q
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import ToolError

SHEET_FILE = "sheet.png"
_PAPER, _INK = "paper", "ink"


def bars_file(sheet: BarSheet) -> bytes:
    """What lies behind the tools for a chart; `bars_of` reads it."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([(_PAPER, sheet.paper), (_INK, sheet.ink), *sheet.bars])
    return stream.getvalue().encode()


def bars_of(content: bytes) -> BarSheet:
    """What `bars_file` wrote."""
    (_, paper), (_, ink), *bars = csv.reader(io.StringIO(content.decode(), newline=""))
    return BarSheet(tuple((colour, int(height)) for colour, height in bars), int(paper), ink)


def bars_name(note: str) -> str:
    """The name of a note's file behind the tools."""
    return f"{note}.bars.csv"


def written(image: Image.Image, *words: str) -> str:
    """The name of the file, made of the words. It is not compressed: its size is the same whatever it shows."""
    name = f"{'_'.join(words)}.png"
    image.save(name, format="PNG", compress_level=0)
    return name


def _sheet() -> Image.Image:
    try:
        return opened(SHEET_FILE)
    except FileNotFoundError:
        raise ToolError("NotFound. no sheet.") from None


class Zoom(PictureTool):
    name = "zoom"
    description = f"Enlarges a region ({', '.join(REGIONS)}) of the sheet. Returns a picture."
    inputs = {"region": text_input("the region")}
    output_type = "string"

    def forward(self, region: str) -> str:
        known(region, REGIONS, "region")
        return written(magnified(_sheet(), region), self.name, region)


class Loupe(Zoom):
    name = "loupe"


class Pair(PictureTool):
    name = "pair"
    description = f"Shows two regions ({', '.join(REGIONS)}) of the sheet side by side. Returns a picture."
    inputs = {"first": text_input("the left region"), "second": text_input("the right region")}
    output_type = "string"

    def forward(self, first: str, second: str) -> str:
        regions = [known(region, REGIONS, "region") for region in (first, second)]
        return written(paired(_sheet(), *regions), self.name, *sorted(regions))


class Match(Pair):
    name = "match"


class Chart(PictureTool):
    name = "chart"
    description = "Draws the bars of a note. Returns a picture."
    inputs = {"note": text_input("name of the note")}
    output_type = "string"

    def forward(self, note: str) -> str:
        content = behind.read(bars_name(note))
        if content is None:
            raise ToolError(f"NotFound. no {q(note)}.")
        return written(charted(bars_of(content)), self.name, note)


class Graph(Chart):
    name = "graph"
