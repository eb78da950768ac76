"""Tools that make an image from an image; each writes `<tool>_<n>.png` and returns that name."""

from __future__ import annotations

import re
from typing import Any

from regrpo_jax.toolbox.boxes import REGION_WORDS, parse_box, parse_region
from regrpo_jax.toolbox.editing import CAN_EDIT, edit_image
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.pictures import open_image, save_image
from regrpo_jax.toolbox.signatures import CheckedTool
from regrpo_jax.toolbox.vision_tools import IMAGE

_MOST_CHARACTERS = 500  # of a text that is drawn
_PLACES = {"l": 0.0, "m": 0.5, "r": 1.0, "t": 0.0, "b": 1.0}


class Crop(CheckedTool):
    name = "crop"
    description = "Cuts a part out of an image and returns the name of the new image."
    inputs = {
        "image": IMAGE,
        "region": {"type": ["string", "array"], "description": f"the part: {REGION_WORDS}"},
    }
    output_type = "string"

    def forward(self, image: str, region: Any) -> str:
        picture = open_image(image)
        return save_image(picture.crop(parse_region(region, picture.size)), self.name)


class ImageEdit(CheckedTool):
    name = "image_edit"
    description = f"Edits an image and returns the name of the new image. It can {CAN_EDIT}."
    inputs = {
        "prompt": {"type": "string", "description": "what to do"},
        "image_path": IMAGE,
    }
    output_type = "string"

    def forward(self, prompt: str, image_path: str) -> str:
        return save_image(edit_image(open_image(image_path), prompt), self.name)


class ImageStylization(CheckedTool):
    name = "image_stylization"
    description = f"Edits an image and returns the name of the new image. It can {CAN_EDIT}; no model paints."
    inputs = {"image": IMAGE, "instruction": {"type": "string", "description": "what to do"}}
    output_type = "string"

    def forward(self, image: str, instruction: str) -> str:
        return save_image(edit_image(open_image(image), instruction), self.name)


class DrawBox(CheckedTool):
    name = "draw_box"
    description = "Draws a red box on an image, with a text above it, and returns the name of the new image."
    inputs = {
        "image": IMAGE,
        "bbox": {"type": ["string", "array"], "description": "box (x1, y1, x2, y2) in pixels"},
        "annotation": {"type": "string", "description": "text above the box", "nullable": True},
    }
    output_type = "string"

    def forward(self, image: str, bbox: Any, annotation: str | None = None) -> str:
        from PIL import ImageDraw, ImageFont

        picture = open_image(image)
        box = parse_box(bbox, picture.size)
        draw = ImageDraw.Draw(picture)
        thickness = max(1, min(picture.size) // 150)
        draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), outline="red", width=thickness)
        if annotation:
            size = max(10, min(picture.size) // 20)
            above = max(0, box.top - size - 2)
            font = ImageFont.load_default(size)
            draw.text((box.left, above), annotation[:_MOST_CHARACTERS], fill="red", font=font)
        return save_image(picture, self.name)


class AddText(CheckedTool):
    name = "add_text"
    description = "Writes a text on an image and returns the name of the new image."
    inputs = {
        "image": IMAGE,
        "text": {"type": "string", "description": "the text"},
        "position": {
            "type": ["string", "array"],
            "description": "(x, y) in pixels, or two letters: l, m or r and t, m or b, such as lt or mb",
        },
        "color": {"type": "string", "description": "name or #rrggbb", "nullable": True},
    }
    output_type = "string"

    def forward(self, image: str, text: str, position: Any, color: str | None = "red") -> str:
        from PIL import ImageColor, ImageDraw, ImageFont

        picture = open_image(image)
        try:
            fill = ImageColor.getrgb(color or "red")
        except ValueError as error:
            raise ToolError(f'Unknown color "{color}"; write a name such as red, or #rrggbb.') from error
        if not text.strip():
            raise ToolError("The text is empty.")
        draw = ImageDraw.Draw(picture)
        font = ImageFont.load_default(max(12, min(picture.size) // 12))
        left, top, right, bottom = draw.textbbox((0, 0), text[:_MOST_CHARACTERS], font=font)
        place = _place(position, picture.size, (int(right - left), int(bottom - top)))
        draw.text((place[0] - left, place[1] - top), text[:_MOST_CHARACTERS], fill=fill, font=font)
        return save_image(picture, self.name)


def _place(position: Any, size: tuple[int, int], text_size: tuple[int, int]) -> tuple[int, int]:
    """Where the text's top left corner goes."""
    width, height = size
    letters = position.strip().lower() if isinstance(position, str) else ""
    if len(letters) == 2 and letters[0] in "lmr" and letters[1] in "tmb":
        across, down = letters[0], letters[1]
    elif len(letters) == 2 and letters[1] in "lmr" and letters[0] in "tmb":
        down, across = letters[0], letters[1]
    else:
        numbers = re.findall(r"-?\d+(?:\.\d+)?", str(position))
        if len(numbers) != 2:
            raise ToolError(f'"{position}" is no position: write (x, y) in pixels, or letters such as lt, mm, rb.')
        x, y = (round(float(number[:12])) for number in numbers)
        if not (0 <= x < width and 0 <= y < height):
            raise ToolError(f"({x}, {y}) is outside the image, which has {width} x {height} pixels.")
        return x, y
    margin = min(size) // 50
    room = width - text_size[0] - 2 * margin, height - text_size[1] - 2 * margin
    return margin + round(room[0] * _PLACES[across]), margin + round(room[1] * _PLACES[down])
