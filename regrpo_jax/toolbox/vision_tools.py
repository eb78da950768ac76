"""Tools that look at an image: text, places, counts, faces, segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regrpo_jax.toolbox.boxes import REGION_WORDS, Box, parse_box, parse_region
from regrpo_jax.toolbox.failures import EmptyResult
from regrpo_jax.toolbox.locating import CAN_FIND, KINDS, Found, Search, locate
from regrpo_jax.toolbox.pictures import open_image, pixels, save_image
from regrpo_jax.toolbox.recognition import cascade, find_faces, read_text, warm_text_engine
from regrpo_jax.toolbox.signatures import CheckedTool

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

IMAGE = {"type": "string", "description": "name of the image file"}
REGION = {
    "type": ["string", "array"],
    "description": f"part of the image to look at: {REGION_WORDS}",
    "nullable": True,
}


def _part(image: Image, region: Any) -> tuple[Image, Box]:
    """The region of the image and its box; the whole image for None."""
    box = Box(0, 0, *image.size) if region is None else parse_region(region, image.size)
    return image.crop(box), box


def _where(name: str, image: Image, box: Box) -> str:
    return f'"{name}"' if box.area == image.width * image.height else f'the region {box.text()} of "{name}"'


def _search(description: str, name: str, region: Any) -> Search:
    """What is found of a description, in coordinates of the whole image; EmptyResult when nothing is."""
    image = open_image(name)
    part, box = _part(image, region)
    search = locate(part, description)
    if not search.found:
        text = f'No object found: no "{description}" in {_where(name, image, box)}.'
        raise EmptyResult(text if search.understood else f"{text} This tool can find {CAN_FIND}.")
    return Search([Found(hit.box.shifted(box.left, box.top), hit.score) for hit in search.found], True)


class Ocr(CheckedTool):
    name = "ocr"
    description = "Reads the printed text of an image, one line each as `(x1, y1, x2, y2) text`."
    inputs = {"image": IMAGE, "region": REGION}
    output_type = "string"

    def warm_up(self) -> None:
        warm_text_engine()

    def forward(self, image: str, region: Any = None) -> str:
        picture = open_image(image)
        part, box = _part(picture, region)
        lines = read_text(part)
        if not lines:
            raise EmptyResult(f"No text found in {_where(image, picture, box)}.")
        return "\n".join(f"{line.box.shifted(box.left, box.top).text()} {line.text}" for line in lines)


class ObjectLocation(CheckedTool):
    name = "objectlocation"
    description = f"Boxes [x1, y1, x2, y2] of all things in an image that fit a description: {KINDS}."
    inputs = {
        "object": {"type": "string", "description": 'what to find, such as "red circle", "face" or "\'EXIT\'"'},
        "image_path": IMAGE,
        "region": REGION,
    }
    output_type = "array"

    def forward(self, object: str, image_path: str, region: Any = None) -> list[list[int]]:
        return [list(hit.box) for hit in _search(object, image_path, region).found]


class TextToBbox(CheckedTool):
    name = "text_to_bbox"
    description = f"Places in an image that fit a description, as `(x1, y1, x2, y2), score N`: {KINDS}."
    inputs = {
        "image": IMAGE,
        "text": {"type": "string", "description": "what to find"},
        "top1": {"type": "boolean", "description": "only the best one", "nullable": True},
    }
    output_type = "string"

    def forward(self, image: str, text: str, top1: bool | None = True) -> str:
        found = _search(text, image, None).found
        return "\n".join(f"{hit.box.text()}, score {hit.score}" for hit in (found[:1] if top1 else found))


class CountObjects(CheckedTool):
    name = "count_objects"
    description = f"How many things in an image fit a description: {KINDS}."
    inputs = {
        "image": IMAGE,
        "text": {"type": "string", "description": "what to count"},
        "region": REGION,
    }
    output_type = "integer"

    def forward(self, image: str, text: str, region: Any = None) -> int:
        picture = open_image(image)
        part, _ = _part(picture, region)
        search = locate(part, text)
        if not search.understood:
            raise EmptyResult(f'No object found: "{text}" cannot be counted. This tool can find {CAN_FIND}.')
        return len(search.found)


class FaceDetection(CheckedTool):
    name = "facedetection"
    description = "Boxes [x1, y1, x2, y2] of upright, frontal human faces, from left to right."
    inputs = {"image_path": IMAGE, "region": REGION}
    output_type = "array"

    def warm_up(self) -> None:
        cascade("face")

    def forward(self, image_path: str, region: Any = None) -> list[list[int]]:
        image = open_image(image_path)
        part, box = _part(image, region)
        faces = find_faces(part)
        if not faces:
            raise EmptyResult(f"No face found in {_where(image_path, image, box)}.")
        return [list(face.shifted(box.left, box.top)) for face in faces]


class Segmentation(CheckedTool):
    name = "segmentation"
    description = (
        "Cuts an image into segments and returns the name of a new image: with boxes, what stands out in each box "
        "(the rest is darkened); without, the whole image in areas of their mean colour."
    )
    inputs = {
        "image_path": IMAGE,
        "prompt": {
            "type": ["array", "string"],
            "description": "a box [x1, y1, x2, y2] or a list of boxes",
            "nullable": True,
        },
    }
    output_type = "string"

    def forward(self, image_path: str, prompt: Any = None) -> str:
        import numpy
        from PIL import Image

        image = open_image(image_path)
        if prompt is None:
            painted = _areas(image)
        else:
            nested = isinstance(prompt, list | tuple) and len(prompt) > 0 and isinstance(prompt[0], list | tuple)
            boxes = [parse_box(box, image.size) for box in (prompt if nested else [prompt])]
            mask = numpy.maximum.reduce([_standing_out(image, box) for box in boxes])
            if not mask.any():
                raise EmptyResult(f'No object found: nothing stands out in the boxes of "{image_path}".')
            painted = pixels(image).copy()
            painted[mask == 0] //= 4
        return save_image(Image.fromarray(painted), self.name)


_SEGMENTED_SIDE = 640  # pixels; grabCut and felzenszwalb take seconds beyond


def _standing_out(image: Image, box: Box) -> numpy.ndarray:
    """grabCut's foreground of a box, `uint8 [height, width]` of 0 and 1."""
    import cv2
    import numpy

    scale = min(1.0, _SEGMENTED_SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    left, top = (int(edge * scale) for edge in (box.left, box.top))
    right, bottom = min(small.width, round(box.right * scale)), min(small.height, round(box.bottom * scale))
    inside = (max(1, left), max(1, top), min(small.width - 1, right), min(small.height - 1, bottom))
    rectangle = (inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1])
    mask = numpy.zeros((small.height, small.width), numpy.uint8)
    if min(rectangle[2:]) < 3:
        return numpy.zeros((image.height, image.width), numpy.uint8)
    cv2.setRNGSeed(0)
    cv2.grabCut(
        pixels(small)[:, :, ::-1].copy(), mask, rectangle, numpy.zeros((1, 65)), numpy.zeros((1, 65)), 4,
        cv2.GC_INIT_WITH_RECT,
    )  # fmt: skip
    chosen = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(numpy.uint8)
    return cv2.resize(chosen, image.size, interpolation=cv2.INTER_NEAREST)


def _areas(image: Image) -> numpy.ndarray:
    """felzenszwalb's areas, each painted with its mean colour, `uint8 [height, width, 3]`."""
    import numpy
    from skimage.segmentation import felzenszwalb

    small = image.copy()
    small.thumbnail((_SEGMENTED_SIDE, _SEGMENTED_SIDE))
    values = pixels(small)
    areas = felzenszwalb(values, scale=200, sigma=0.8, min_size=max(20, values.shape[0] * values.shape[1] // 500))
    flat, colors = areas.ravel(), values.reshape(-1, 3)
    counts = numpy.bincount(flat)
    means = numpy.stack([numpy.bincount(flat, colors[:, channel]) / counts for channel in range(3)], axis=1)
    return means.round().astype(numpy.uint8)[areas]
