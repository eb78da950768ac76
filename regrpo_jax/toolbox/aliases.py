"""Names that GTA's users know for tools that are ours; MAT's names are our own names.

The arguments are GTA's too, in name and order, so an alias is the same tool under another name.
"""

from __future__ import annotations

import copy

from smolagents.tools import Tool

GTA_NAMES: dict[str, str] = {
    "OCR": "ocr",
    "CountGivenObject": "count_objects",
    "ImageDescription": "image_description",
    "Calculator": "calculator",
    "GoogleSearch": "search",
    "RegionAttributeDescription": "describe_region",
    "TextToBbox": "text_to_bbox",
    "Plot": "plot",
    "MathOCR": "math_ocr",
    "Solver": "solver",
    "DrawBox": "draw_box",
    "TextToImage": "text_to_image",
    "AddText": "add_text",
    "ImageStylization": "image_stylization",
}


def renamed(tool: Tool, name: str) -> Tool:
    """The same tool under another name, which its messages then use."""
    other = copy.copy(tool)
    other.name = name
    return other
