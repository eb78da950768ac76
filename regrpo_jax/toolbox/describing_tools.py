"""Tools that describe an image by what can be measured; no model looks at it, and they say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regrpo_jax.toolbox.boxes import REGION_WORDS, parse_region
from regrpo_jax.toolbox.failures import EmptyResult
from regrpo_jax.toolbox.pictures import open_image
from regrpo_jax.toolbox.recognition import find_faces, read_text
from regrpo_jax.toolbox.shapes import Thing, color_shares, find_things
from regrpo_jax.toolbox.signatures import CheckedTool
from regrpo_jax.toolbox.vision_tools import IMAGE

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_TEXT = 300  # characters of printed text that are quoted
ATTRIBUTES = {
    "color": "color colour hue main dominant",
    "size": "size width height wide tall large big dimensions pixels",
    "text": "text word words written reads says label title number letter",
    "shape": "shape form geometric",
    "faces": "face faces",
    "brightness": "bright brightness dark light",
}


def _colors(image: Image) -> str:
    shares = [(name, round(100 * share)) for name, share in color_shares(image).items()]
    return "colours: " + ", ".join(f"{name} {share} %" for name, share in shares[:4] if share)


def _text(image: Image) -> str:
    lines = read_text(image)
    words = " / ".join(line.text for line in lines)
    cut = " ..." if len(words) > _MOST_TEXT else ""
    return f'text: "{words[:_MOST_TEXT]}{cut}"' if lines else "text: none found"


def _shapes(image: Image) -> str:
    things = [thing for thing in find_things(image) if thing.shape != "other"]
    return "shapes: " + (", ".join(_phrase(thing) for thing in things[:8]) if things else "none found")


def _phrase(thing: Thing) -> str:
    return f"{thing.color} {thing.shape} at {thing.box.text()}"


def _faces(image: Image) -> str:
    faces = find_faces(image)
    return "faces: " + (", ".join(face.text() for face in faces) if faces else "none found")


def _brightness(image: Image) -> str:
    levels = image.convert("L").histogram()
    return f"brightness: {round(sum(level * count for level, count in enumerate(levels)) / sum(levels) / 2.55)} %"


def _size(image: Image) -> str:
    return f"size: {image.width} x {image.height} pixels"


_MEASURES = {
    "size": _size,
    "brightness": _brightness,
    "color": _colors,
    "shape": _shapes,
    "faces": _faces,
    "text": _text,
}


class ImageDescription(CheckedTool):
    name = "image_description"
    description = (
        "What can be measured of an image: its size, brightness, colours, geometric shapes, faces and printed text. "
        "No model looks at it; ask visualizer for what it shows."
    )
    inputs = {"image": IMAGE}
    output_type = "string"

    def forward(self, image: str) -> str:
        picture = open_image(image)
        lines = [measure(picture) for measure in _MEASURES.values()]
        return "\n".join([f'Measured of "{image}" (no model has looked at it):', *lines])


class DescribeRegion(CheckedTool):
    name = "describe_region"
    description = (
        f"An attribute of a part of an image that can be measured: {', '.join(ATTRIBUTES)}. "
        "No model looks at it; ask visualizer for others."
    )
    inputs = {
        "image": IMAGE,
        "bbox": {"type": ["string", "array"], "description": f"the part: {REGION_WORDS}"},
        "attribute": {"type": "string", "description": f"one of {', '.join(ATTRIBUTES)}"},
    }
    output_type = "string"

    def forward(self, image: str, bbox: Any, attribute: str) -> str:
        picture = open_image(image)
        box = parse_region(bbox, picture.size)
        asked = set(attribute.lower().replace("?", " ").replace(",", " ").split())
        kinds = [kind for kind, words in ATTRIBUTES.items() if asked & set(words.split())]
        if not kinds:
            raise EmptyResult(
                f'No result found: "{attribute}" cannot be measured. Attributes are {", ".join(ATTRIBUTES)}; '
                "visualizer answers questions."
            )
        part = picture.crop(box)
        return "; ".join(_MEASURES[kind](part) for kind in kinds)
