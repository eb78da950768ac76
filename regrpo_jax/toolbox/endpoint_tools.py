"""Tools that a person's own models stand behind: a detector, a segmenter, a captioner, each an endpoint of one address.

Where one is configured, it takes the place of the tools of these names that know colours and shapes alone. They run on
the host; docs/tools.md has what is sent and answered.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from regrpo_jax.toolbox.boxes import REGION_WORDS, Box, parse_region
from regrpo_jax.toolbox.describing_tools import DescribeRegion, ImageDescription
from regrpo_jax.toolbox.endpoint_replies import Detected, caption_of, detected_of, masks_of
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.host_files import Workspace, kept, sent_picture
from regrpo_jax.toolbox.remote_tools import RemoteTool, asked
from regrpo_jax.toolbox.signatures import signature_of
from regrpo_jax.toolbox.vision_tools import IMAGE, CountObjects, ObjectLocation, TextToBbox

if TYPE_CHECKING:
    from PIL.Image import Image

_BY_WORDS = "by a detector that understands words"


class _Detector(RemoteTool):
    purpose = "detector"
    setting = "detect"

    def found(self, workspace: Workspace, name: str, text: str, region: Any) -> list[tuple[Box, Detected]]:
        """What the detector finds, surest first, with boxes in pixels of the whole picture."""
        endpoint = self.configured()
        if not text.strip():
            raise ToolError(f"{self.name}: the description is empty; say what is to be found.")
        sent = sent_picture(workspace, name, region, endpoint.longest_side)
        body = {"image": sent.url, "text": text}
        found = asked(self.name, endpoint, "", body, lambda reply: detected_of(reply, sent.size))
        return [(sent.in_picture(each.edges), each) for each in found]

    def some(self, workspace: Workspace, name: str, text: str, region: Any) -> list[tuple[Box, Detected]]:
        """The same; EmptyResult where nothing is found."""
        found = self.found(workspace, name, text, region)
        if not found:
            place = f'"{name}"' if region is None else f'the region {region} of "{name}"'
            raise EmptyResult(f'No object found: no "{text}" in {place}.')
        return found


class DetectedLocation(_Detector):
    name = "objectlocation"
    description = f"Boxes [x1, y1, x2, y2] of all things in an image that fit a description, {_BY_WORDS}."
    inputs = ObjectLocation.inputs
    output_type = "array"

    def answer(self, workspace: Workspace, /, **arguments: Any) -> list[list[int]]:
        found = self.some(workspace, arguments["image_path"], arguments["object"], arguments.get("region"))
        return [list(box) for box, _ in found]


class DetectedBbox(_Detector):
    name = "text_to_bbox"
    description = f"Places in an image that fit a description, as `(x1, y1, x2, y2), score N`, {_BY_WORDS}."
    inputs: dict[str, Any] = TextToBbox.inputs | {
        "top1": {"type": "boolean", "description": "only the best one", "nullable": True, "default": True}
    }
    output_type = "string"

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        found = self.some(workspace, arguments["image"], arguments["text"], None)
        told = len({each.label for _, each in found}) > 1  # of one kind they go without saying
        lines = [
            f"{box.text()}, score {round(100 * each.score)}{f', {each.label}' if told and each.label else ''}"
            for box, each in found
        ]
        return "\n".join(lines[:1] if arguments.get("top1", True) else lines)


class DetectedCount(_Detector):
    name = "count_objects"
    description = f"How many things in an image fit a description, {_BY_WORDS}."
    inputs = CountObjects.inputs
    output_type = "integer"

    def answer(self, workspace: Workspace, /, **arguments: Any) -> int:
        return len(self.found(workspace, arguments["image"], arguments["text"], arguments.get("region")))


class Segment(RemoteTool):
    name = "segment"
    description = (
        "Finds the outline of what a text or a box names in an image, by a segmentation model, and returns the name of "
        "a new image: the thing in white on black, or with cut_out the thing itself on white."
    )
    inputs = {
        "image": IMAGE,
        "text": {"type": "string", "description": "what to find", "nullable": True},
        "bbox": {"type": ["string", "array"], "description": f"or where it is: {REGION_WORDS}", "nullable": True},
        "cut_out": {"type": "boolean", "description": "cut it out", "nullable": True, "default": False},
    }
    output_type = "string"
    purpose = "segmentation model"
    setting = "segment"

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        endpoint = self.configured()
        text, bbox = arguments.get("text"), arguments.get("bbox")
        if (text is None) == (bbox is None) or (text is not None and not text.strip()):
            raise ToolError(f"{self.name}: give either a text or a bbox. Usage: {signature_of(self)}")
        sent = sent_picture(workspace, arguments["image"], None, endpoint.longest_side)
        body: dict[str, Any] = {"image": sent.url}
        body |= {"text": text} if bbox is None else {"box": sent.as_sent(parse_region(bbox, sent.picture.size))}
        masks = asked(self.name, endpoint, "", body, lambda reply: masks_of(reply, sent.size))
        mask = _united(masks, sent.picture)
        if mask is None:
            what = f'"{text}"' if bbox is None else f"the box {bbox}"
            raise EmptyResult(f'No object found: nothing is outlined for {what} in "{arguments["image"]}".')
        return kept(workspace, self.name, _cut_out(sent.picture, mask) if arguments.get("cut_out") else mask)


def _united(masks: list[Image], picture: Image) -> Image | None:
    """All masks as one of the picture's size; None where nothing is white."""
    from PIL import Image, ImageChops

    if not masks:
        return None
    mask = functools.reduce(ImageChops.lighter, masks).resize(picture.size, Image.Resampling.NEAREST)
    return mask if mask.getbbox() else None


def _cut_out(picture: Image, mask: Image) -> Image:
    """What the mask shows, white around it, no larger than it is."""
    from PIL import Image

    return Image.composite(picture, Image.new("RGB", picture.size, "white"), mask).crop(mask.getbbox())


class _Captioner(RemoteTool):
    output_type = "string"
    purpose = "captioning model"
    setting = "caption"

    def caption(self, workspace: Workspace, name: str, bbox: Any = None, **more: str) -> str:
        """What the model says of the picture, or of a box of it. EmptyResult where it says nothing."""
        endpoint = self.configured()
        sent = sent_picture(workspace, name, None, endpoint.longest_side)
        body: dict[str, Any] = {"image": sent.url, **more}
        if bbox is not None:
            body["box"] = sent.as_sent(parse_region(bbox, sent.picture.size))
        text = asked(self.name, endpoint, "", body, caption_of)
        if not text:
            raise EmptyResult(f'No result found: the captioning model says nothing of "{name}".')
        return text


class CaptionedImage(_Captioner):
    name = "image_description"
    description = "What an image shows, in words, by a captioning model."
    inputs = ImageDescription.inputs

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        return self.caption(workspace, arguments["image"])


class CaptionedRegion(_Captioner):
    name = "describe_region"
    description = "An attribute of a part of an image, in words, by a captioning model."
    inputs = DescribeRegion.inputs | {
        "attribute": {"type": "string", "description": "what to tell of it, such as color"}
    }

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        return self.caption(workspace, arguments["image"], arguments["bbox"], attribute=arguments["attribute"])
