"""The files of an episode, for tools on the host: pictures that are sent to a model, and what comes back."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from regrpo_jax.toolbox.boxes import Box, parse_region
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.files import quoted, workspace_files
from regrpo_jax.toolbox.pictures import FORMATS, MOST_PIXELS, as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image


class Workspace(Protocol):
    """The files of the episode that calls; the sandbox's session is one."""

    def read_file(self, name: str) -> bytes: ...

    def write_file(self, name: str, data: bytes) -> None: ...

    def files(self) -> Iterable[str]: ...


class CurrentDirectory:
    """The current directory as a workspace, for calls outside a sandbox."""

    def read_file(self, name: str) -> bytes:
        return Path(name).read_bytes()

    def write_file(self, name: str, data: bytes) -> None:
        Path(name).write_bytes(data)

    def files(self) -> list[str]:
        return workspace_files()


class SentPicture(NamedTuple):
    """A picture, or a part of one, as a model sees it.

    url: its data, in PNG. size: width and height of what is sent, in pixels. part: where in the picture it is.
    picture: all of it, in RGB.
    """

    url: str
    size: tuple[int, int]
    part: Box
    picture: Image

    def in_picture(self, edges: tuple[float, float, float, float]) -> Box:
        """x1, y1, x2, y2 in pixels of what was sent, as a box of the whole picture; it keeps a pixel at least."""
        across, down = (
            (self.part.right - self.part.left) / self.size[0],
            (self.part.bottom - self.part.top) / self.size[1],
        )
        left = min(self.part.right - 1, self.part.left + round(edges[0] * across))
        top = min(self.part.bottom - 1, self.part.top + round(edges[1] * down))
        right, bottom = self.part.left + round(edges[2] * across), self.part.top + round(edges[3] * down)
        return Box(left, top, max(left + 1, right), max(top + 1, bottom))

    def as_sent(self, box: Box) -> list[int]:
        """A box of the whole picture, all of which was sent, in pixels of what was sent."""
        across, down = self.size[0] / self.picture.width, self.size[1] / self.picture.height
        left, top = min(self.size[0] - 1, round(box.left * across)), min(self.size[1] - 1, round(box.top * down))
        return [left, top, max(left + 1, round(box.right * across)), max(top + 1, round(box.bottom * down))]


def opened(workspace: Workspace, name: str) -> Image:
    """The picture of that name, upright and in RGB. ToolError where there is none."""
    from PIL import Image

    try:
        data = workspace.read_file(name)
    except OSError as error:
        here = quoted(sorted(file for file in workspace.files() if not file.startswith(".")))
        raise ToolError(f'File not found: "{name}". Files here: {here}.') from error
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise ToolError(f'"{name}" has {image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are sent.')
        return as_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ToolError(f'"{name}" is no image that can be read.') from error


def sent_picture(workspace: Workspace, name: str, region: Any, longest_side: int) -> SentPicture:
    """The picture, or a region of it, shrunk to `longest_side` pixels. ToolError."""
    picture = opened(workspace, name)
    part = Box(0, 0, *picture.size) if region is None else parse_region(region, picture.size)
    sent = picture.crop(part)
    sent.thumbnail((longest_side, longest_side))
    url = "data:image/png;base64," + base64.b64encode(png_of(sent)).decode()
    return SentPicture(url, sent.size, part, picture)


def png_of(image: Image) -> bytes:
    """The picture as the content of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def kept(workspace: Workspace, tool: str, image: Image) -> str:
    """Write the picture into the workspace, under a name that counts up, and return that name. OSError."""
    name = free_name(workspace, tool, ".png")
    workspace.write_file(name, png_of(image))
    return name


def stored(workspace: Workspace, tool: str, data: bytes, sender: str) -> str:
    """The image that was sent, written into the workspace in RGB; its name. ToolError where it is none."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise ToolError(f"{tool}: {sender} sent {image.width} x {image.height} pixels.")
        seen = as_rgb(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ToolError(f"{tool}: {sender} sent something that is no image.") from error
    return kept(workspace, tool, seen)


def free_name(workspace: Workspace, tool: str, ending: str) -> str:
    """The first name that counts up and that no file has."""
    taken = set(workspace.files())
    number = 1
    while f"{tool}_{number}{ending}" in taken:
        number += 1
    return f"{tool}_{number}{ending}"
