"""Results that tools gave elsewhere, given again for the very calls that they were recorded of.

A dialog or a trajectory of others holds what its tools returned. Where such a tool is not here (no endpoint, no corpus,
no detector), its recordings stand in for it: a file behind the tools (`toolbox.behind`), which only their process has,
so that no action can read in it. Nothing is guessed. A call is answered when tool and arguments are equal to a recorded
call's; any other call is the real tool's, and where there is none (`absent`), it fails, typed, with the words of the
real tool for what can be told without it: a wrong signature, a file that is not there. The host is told of each call
whether a recording answered it, so that what was recorded and what was run are never mixed up.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.behind import RECORDED_FILE
from regrpo_jax.toolbox.failures import ToolFailure, Unavailable
from regrpo_jax.toolbox.files import existing_file, next_name
from regrpo_jax.toolbox.returned_pictures import pictures_for_names
from regrpo_jax.toolbox.signatures import check_call

_FILE_ARGUMENT = re.compile(r"(?:^|_)(?:file|path|image|picture|photo|document|attachment)s?(?:$|_)", re.IGNORECASE)
_SHOWN = 200  # characters of the arguments of a call that is refused
AnyTool = Callable[..., Any]


@dataclass(frozen=True)
class Recording:
    """A call that was made elsewhere, and what came of it.

    arguments: by name ("0", "1", .. where nobody knows the names), plain data. result: plain data; of a call that
    failed, its words. picture: the name of a file behind the tools; the call writes it into the workspace under a name
    that counts up, and returns that name in the place of `result`.
    """

    tool: str
    arguments: Mapping[str, Any]
    result: Any = None
    status: Status = Status.OK
    picture: str = ""


def recorded_file(recordings: Iterable[Recording], absent: Iterable[str] = ()) -> bytes:
    """The content of `RECORDED_FILE`, to be given to a task as `TaskFile(RECORDED_FILE, content, behind=True)`.

    Args:
      absent: tools of which there is nothing here but their recordings.
    Raises:
      UserError: an argument or a result is no plain data.
    """
    told = [vars(one) | {"arguments": dict(one.arguments), "status": str(one.status)} for one in recordings]
    try:
        text = json.dumps({"recordings": told, "absent": sorted(set(absent))}, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"a recorded call holds what is no plain data: {error}") from error
    return text.encode("utf-8", "surrogatepass")


def installed_recordings() -> Recordings | None:
    """Those of the episode whose tools this process holds; None when it has none. UserError for a damaged file."""
    content = behind.read(RECORDED_FILE)
    if content is None:
        return None
    try:
        told = json.loads(content.decode("utf-8", "surrogatepass"))
        found = [Recording(**one | {"status": Status(one["status"])}) for one in told["recordings"]]
        return Recordings(found, told["absent"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{RECORDED_FILE} behind the tools is damaged: {type(error).__name__}: {error}") from error


def is_absent(tool: object) -> bool:
    """Whether a tool that was loaded has nothing to answer with: it asks a model elsewhere, or it has no corpus."""
    return bool(getattr(tool, "remote", False)) or getattr(tool, "corpus", None) == ""


def call_key(arguments: Mapping[str, Any]) -> str | None:
    """Equal for equal arguments; None for what is no plain data. 2 and 2.0 are equal, tuples and lists too.

    Arguments that are None are as if they had not been given.
    """
    try:
        plain = {name: _plain(value) for name, value in arguments.items() if value is not None}
        return json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    raise TypeError(type(value).__name__)


def named_arguments(tool: object, arguments: Iterable[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names that the tool declares, those that say its default left out."""
    names = list(getattr(tool, "inputs", None) or {})
    given = {names[at] if at < len(names) else str(at): value for at, value in enumerate(arguments)}
    defaults = _defaults(tool)
    return {name: value for name, value in (given | dict(keywords)).items() if not _is_default(defaults, name, value)}


def _defaults(tool: object) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(tool.forward).parameters  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        return {}


def _is_default(defaults: Mapping[str, inspect.Parameter], name: str, value: Any) -> bool:
    default = defaults[name].default if name in defaults else inspect.Parameter.empty
    return type(default) is type(value) and isinstance(value, str | int | float | bool) and default == value


class Recordings:
    """The recordings of an episode. Equal calls get them in their order, and then the last one again."""

    def __init__(self, recordings: Iterable[Recording], absent: Iterable[str] = ()) -> None:
        self.absent = frozenset(absent)
        self._found: dict[tuple[str, str], list[Recording]] = {}
        self._recordings = tuple(recordings)
        self._given: Counter[tuple[str, str]] = Counter()
        self._last: bool | None = None
        self.words = frozenset(text for one in self._recordings for text in _texts([one.arguments, one.result]))

    def over(self, tools: Mapping[str, AnyTool], loaded: Mapping[str, Any]) -> dict[str, AnyTool]:
        """The tools with the recorded ones over them; a recorded tool that nobody has loaded is there, too.

        Args:
          tools: as they are called in this process.
          loaded: the same as they were loaded, with what they declare.
        """
        for one in self._recordings:
            key = call_key(named_arguments(loaded.get(one.tool), (), one.arguments))
            if key is not None:
                self._found.setdefault((one.tool, key), []).append(one)
        names = dict.fromkeys([one.tool for one in self._recordings] + sorted(self.absent))
        return dict(tools) | {name: RecordedTool(name, self, tools.get(name), loaded.get(name)) for name in names}

    def answer(self, tool: str, arguments: Mapping[str, Any]) -> Recording | None:
        """The next recording of such a call; None when there is none."""
        key = call_key(arguments)
        found = self._found.get((tool, key), []) if key is not None else []
        if not found:
            self._last = None
            return None
        at = self._given[tool, str(key)]
        self._given[tool, str(key)] += 1
        self._last = True
        return found[min(at, len(found) - 1)]

    def refused(self) -> None:
        """The call that is being made has no recording, and no other tool either."""
        self._last = False

    def taken(self) -> bool | None:
        """Of the call that was made last: True where a recording answered it, False where none did and no tool could.

        None where it was the real tool's. Asked again, it is None.
        """
        last, self._last = self._last, None
        return last


class RecordedTool:
    """Takes the place of a tool that has recordings."""

    def __init__(self, name: str, recordings: Recordings, tool: AnyTool | None, loaded: object) -> None:
        self.name, self.recordings = name, recordings
        self.tool = None if name in recordings.absent else tool
        self.loaded = loaded
        self.description = getattr(loaded, "description", "")
        declared: Mapping[str, Any] = getattr(loaded, "inputs", None) or {}
        # Names of pictures stay names: a recording knows its pictures by them.
        self.inputs = {one: dict(told) | ({"type": "string"} if told.get("type") == "image" else {})
                       for one, told in declared.items()}  # fmt: skip

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        given = named_arguments(self.loaded, arguments, keywords)
        recording = self.recordings.answer(self.name, given)
        if recording is not None:
            return _again(recording)
        if self.tool is not None:
            return self.tool(*arguments, **keywords) if self.loaded is None else self._really(arguments, keywords)
        if isinstance(self.loaded, Tool):
            check_call(self.loaded, arguments, keywords)
        for name in _named_files(given, self.recordings.words):
            existing_file(name)
        self.recordings.refused()
        told = ", ".join(f"{name}={value!r}" for name, value in given.items())[:_SHOWN]
        raise Unavailable(f"{self.name} is not here, and nothing is recorded of it for {told or 'no arguments'}.")

    def _really(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        assert self.tool is not None
        opened, named = pictures_for_names(self.tool, arguments, keywords)
        return self.tool(*opened, **named)


def _again(recording: Recording) -> Any:
    """What the recorded call returned. Raises what it raised."""
    if recording.picture:
        content = behind.read(recording.picture)
        if content is None:
            raise Unavailable(f"the picture that {recording.tool} made is not here.")
        name = next_name(recording.tool, Path(recording.picture).suffix or ".png")
        Path(name).write_bytes(content)
        return name
    if recording.status != Status.OK:
        raise ToolFailure(recording.status, str(recording.result))
    return recording.result


def _named_files(given: Mapping[str, Any], known: frozenset[str]) -> Iterator[str]:
    """Files that the arguments name, but for those that recordings speak of, which need not be here."""
    for name, value in given.items():
        if _FILE_ARGUMENT.search(name):
            yield from (text for text in _texts(value) if text not in known)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in _texts(item))
