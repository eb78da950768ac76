"""A tool by GTA's name, with GTA's arguments and words: the tool itself where it is here, else what was recorded.

Every answer that comes from a recording is printed as such, so that it stands in the observation and in what the host
hears of the call, while the value stays what a tool would have returned. A recorded picture has no pixels left, so that
another one stands in for it, and its file is called `recorded_...`.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from smolagents.tools import Tool

from regrpo_jax.suites.gta.call_keys import Pictures, call_key, known_file, picture_stem
from regrpo_jax.suites.gta.record_types import IMAGE, ToolDescription, ToolResult
from regrpo_jax.suites.gta.recordings import DUMMY, RECORDINGS_FILE, Recordings
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import NOT_RECORDED, NotRecorded, ToolError, Unavailable
from regrpo_jax.toolbox.files import quoted, workspace_files
from regrpo_jax.toolbox.pictures import open_image, save_image
from regrpo_jax.toolbox.returned_pictures import names_for_pictures, pictures_for_names
from regrpo_jax.toolbox.signatures import CheckedTool, signature_of

if TYPE_CHECKING:
    from PIL.Image import Image

RECORDED = "recorded"  # how names of pictures that stand in for recorded ones begin
MARK = "[recorded: {name} was not run; this is what it answered when GTA's dialog was recorded]"
_NO_PIXELS = "[recorded: the picture itself was not kept; {what} stands in for it]"
_TYPES = {"text": "string", IMAGE: "string", "int": "integer", "float": "number", "bool": "boolean"}
_STAND_IN_SIDE = 1024  # pixels
_MOST_SHOWN = 200  # characters of a call that no recording answers


class GtaEpisode:
    """What the tools of one episode share: its recordings, and the pictures that they made, the last one last."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}  # name of the file -> tool
        self._recordings: Recordings | None = None

    @property
    def recordings(self) -> Recordings:
        """Read when they are first needed, in the process of the episode's tools."""
        if self._recordings is None:
            self._recordings = Recordings(behind.read(RECORDINGS_FILE) or b"")
        return self._recordings

    def pictures(self) -> Pictures:
        """What a call may name now; GTA's name for made pictures is the last one."""
        made = {picture_stem(name): tool for name, tool in self.made.items()}
        last = next(reversed(self.made.values()), None)
        return Pictures(self.recordings.files, made | ({DUMMY: last} if last else {}))


class GtaTool(CheckedTool):
    """See above.

    real: the tool that is asked, None where there is none. replays: whether recordings answer in its place, where it is
    missing or a picture of the record is. always: and even where it is there.
    """

    name = "gta_tool"
    description = "A tool of GTA."
    inputs: dict[str, Any] = {}
    output_type = "any"
    skip_forward_signature_validation = True

    def __init__(
        self, described: ToolDescription, real: Tool | None, episode: GtaEpisode, *, replays: bool, always: bool = False
    ) -> None:
        self.described, self.episode = described, episode
        self.real: Callable[..., Any] | None = real
        self.replays, self.always = replays, always
        self.remote = bool(getattr(real, "remote", False))
        self.name = described.name
        self.gives_picture = any(output.type == IMAGE for output in described.outputs)
        returns = " Returns the name of the new image." if self.gives_picture else ""
        self.description = f"{described.description.strip() or described.name}{returns}"
        self.inputs = _inputs(described, getattr(real, "inputs", {}))
        kind = described.outputs[0].type if described.outputs else "text"
        self.output_type = str(getattr(real, "output_type", "")) or _TYPES.get(kind, "any")
        if self.output_type == "image":
            self.output_type = "string"  # of the file; `names_for_pictures` has done its work by then
        super().__init__()

    def warm_up(self) -> None:
        if callable(warm_up := getattr(self.real, "warm_up", None)):
            warm_up()

    def run_on_host(self, workspace: Any, /, *arguments: Any, **keywords: Any) -> Any:
        """The tool itself, on the host; see `sandbox.remote_calls`."""
        run: Callable[..., Any] | None = getattr(self.real, "run_on_host", None)
        if run is not None:
            return run(workspace, *arguments, **keywords)
        if self.real is None:
            raise Unavailable(f"{self.name} is not here.")
        return self.real(*arguments, **keywords)

    def not_ready(self) -> str:
        """As `RemoteTool.not_ready`, of the tool itself."""
        told = getattr(self.real, "not_ready", None)
        return told() if callable(told) else ""

    def asking(self, host: Callable[..., Any]) -> GtaTool:
        """The same tool in the process of an episode's tools, where the tool itself is asked through the host."""
        other = copy.copy(self)
        other.real, other.remote = host, False
        return other

    def forward(self, /, *arguments: Any, **keywords: Any) -> Any:
        given = dict(zip(self.inputs, arguments, strict=False)) | keywords
        recorded = self.replays and (self.always or self.real is None or self._names_a_missing_picture(given))
        result = self._recorded(given) if recorded else self._asked(given)
        if self.gives_picture and isinstance(result, str):
            self.episode.made.pop(result, None)
            self.episode.made[result] = self.name
        return result

    def _images(self) -> list[str]:
        return [parameter.name for parameter in self.described.inputs if parameter.type == IMAGE]

    def _given_images(self, given: Mapping[str, Any]) -> list[str]:
        """The pictures that are named, but for what a tool made."""
        named = [str(given[name]) for name in self._images() if name in given]
        return [name for name in named if picture_stem(name) != DUMMY]

    def _names_a_missing_picture(self, given: Mapping[str, Any]) -> bool:
        """Whether a picture is asked for whose file is not here under any name."""
        known = [known_file(name, self.episode.recordings.files) or name for name in self._given_images(given)]
        return not all(map(os.path.exists, known))

    def _asked(self, given: Mapping[str, Any]) -> Any:
        if self.real is None:
            raise Unavailable(f"{self.name} is not available here, and no recording answers in its place.")
        keywords = {name: self._last_made(value) if name in self._images() else value for name, value in given.items()}
        _, keywords = pictures_for_names(self.real, (), keywords)
        return names_for_pictures(self.real(**keywords), self.name)

    def _last_made(self, name: Any) -> Any:
        """The picture that is meant by GTA's name for whatever a tool made."""
        if picture_stem(name) != DUMMY or os.path.exists(str(name)):
            return name
        last = next(reversed(self.episode.made), None)
        if last is None:
            raise ToolError(f'{self.name}: "{name}" is what a tool makes, and none has made a picture yet.')
        return last

    def _check_pictures(self, given: Mapping[str, Any]) -> None:
        """ToolError for a picture that is neither the record's nor here, as the tool itself would say."""
        here = {*workspace_files(), *self.episode.recordings.files}
        for name in self._given_images(given):
            if not os.path.exists(name) and not known_file(name, self.episode.recordings.files):
                raise ToolError(f'File not found: "{name[:_MOST_SHOWN]}". Files here: {quoted(sorted(here))}.')

    def _recorded(self, given: Mapping[str, Any]) -> Any:
        result = self.episode.recordings.answer(call_key(self.described, given, self.episode.pictures()))
        if result is None:
            self._check_pictures(given)
            shown = ", ".join(f"{name}={value!r}" for name, value in given.items())[:_MOST_SHOWN]
            raise NotRecorded(
                f"{self.name} has no answer to {shown}: the tool is not here and {NOT_RECORDED}, which this call was "
                f"not. Usage: {signature_of(self)}"
            )
        print(MARK.format(name=self.name))
        if result.type == IMAGE:
            return self._stand_in(given)
        return _value(result, self.output_type)

    def _stand_in(self, given: Mapping[str, Any]) -> str:
        """The name of a new picture: what the tool was given, unchanged, else a grey one."""
        name = next((str(self._last_made(given[name])) for name in self._images() if name in given), None)
        here = name is not None and name in workspace_files()
        picture = open_image(name) if here and name is not None else _grey()
        print(_NO_PIXELS.format(what=f'"{name}", unchanged,' if here else "a grey one"))
        return save_image(picture, f"{RECORDED}_{self.name}")


def _inputs(described: ToolDescription, real: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as smolagents has them, with GTA's names and words, and the types of the tool itself."""
    found: dict[str, Any] = {}
    for parameter in described.inputs:
        kind = _TYPES.get(parameter.type, "any")
        own = real.get(parameter.name, {}).get("type", kind)
        text = parameter.description or ("name of the image file" if parameter.type == IMAGE else "")
        found[parameter.name] = {"type": kind if own == "image" else own, "description": text}
        if parameter.optional:
            found[parameter.name] |= {"nullable": True, "default": parameter.default}
    return found


def _value(result: ToolResult, kind: str) -> Any:
    """What was recorded, as the tool itself would return it: a number where it returns one."""
    for read in {"integer": (int,), "number": (int, float)}.get(kind, ()):
        with contextlib.suppress(ValueError):
            return read(result.content)
    return result.content


def _grey() -> Image:
    from PIL import Image

    return Image.new("RGB", (_STAND_IN_SIDE, _STAND_IN_SIDE), (128, 128, 128))
