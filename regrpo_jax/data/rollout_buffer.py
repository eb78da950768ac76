"""Rollouts on disk: appended as they finish, so that a kill loses none, and read again to repeat an update.

A folder holds one file of lines per writing process and the images that the rollouts saw, each stored once under its
SHA-256. A line is a checksum and a JSON object of one of three kinds:

    group     a state of a task: the prefix of its rollouts, and how many of them are planned
    rollout   one episode that was played from it
    update    which groups an update learnt from, in order

A group is found by the round it was collected in and its number in that round. A run that resumes collects a round
again: with a group that is begun anew, the rollouts that it had and the updates that learnt from it are forgotten, so
that those of two policies are never mixed. A kill can only cut off the last line; it is dropped when the file is opened
to go on. Nothing here knows of devices.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from regrpo_jax.agent.rollout import Rollout, RolloutGroup
from regrpo_jax.data.stored_images import store_image, stored_image
from regrpo_jax.errors import UserError

FORMAT, VERSION = "regrpo_jax rollouts", 1
HEADER = {"kind": "header", "format": FORMAT, "version": VERSION}


class GroupKey(NamedTuple):
    """Where a group was collected: the number of the round, and `RolloutGroup.group` within it."""

    round: int
    group: int


class _Place(NamedTuple):
    """Where a line is."""

    path: Path
    start: int
    end: int


class RolloutBuffer:
    """The writing end; safe to use from several threads, and the only writer of its file."""

    def __init__(self, folder: Path, *, writer: int = 0) -> None:
        """Opens a folder to go on with it, or makes it.

        Args:
          writer: number of the writing process; each has a file of its own.
        Raises:
          UserError: another process writes to the file, it is damaged or of another version, or cannot be written.
        """
        self.folder = folder
        self._path = folder / f"rollouts-{writer:04d}.jsonl"
        self._lock = threading.Lock()
        try:
            (folder / "images").mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written ({error.strerror})") from error
        try:
            self._begin()
        except BaseException:
            os.close(self._file)
            raise

    def add_group(self, round_number: int, group: RolloutGroup, *, planned: int) -> None:
        """Writes down a state, without the rollouts that it may have already, and keeps its images.

        Args:
          planned: rollouts that make the group complete.
        Raises:
          UserError: an image cannot be read, or the disk is full.
        """
        told = dataclasses.replace(group, rollouts=()).to_json()
        told["image_files"] = [
            [image.placeholder, store_image(Path(image.path), self.folder / "images")] for image in group.image_files
        ]
        self._append({"kind": "group", "round": round_number, "planned": planned, "value": told})

    def add_rollout(self, round_number: int, rollout: Rollout) -> None:
        """Writes down an episode that has finished and keeps its pictures; then no kill of the process loses it.

        Raises:
          UserError: a picture cannot be read, or the disk is full.
        """
        told = rollout.to_json()
        kept = {path: store_image(Path(path), self.folder / "images") for path in rollout.shown_paths}
        self._append({"kind": "rollout", "round": round_number, "value": _with_paths(told, kept.__getitem__)})

    def add_update(self, update: int, groups: Sequence[GroupKey]) -> None:
        """Writes down what update number `update` learns from; what came before is on the disk when this returns."""
        self._append({"kind": "update", "update": update, "groups": [list(key) for key in groups]})
        os.fsync(self._file)

    def close(self) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def __enter__(self) -> RolloutBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{self._path}: another process writes to it; use another folder") from error
        whole = sum(place.end - place.start for place, _ in _lines(self._path))
        os.ftruncate(self._file, whole)
        if not whole:
            self._append(HEADER)

    def _append(self, told: Mapping[str, Any]) -> None:
        line = _line(told)
        with self._lock:
            before = os.fstat(self._file).st_size
            rest = memoryview(line)
            try:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except OSError as error:
                os.ftruncate(self._file, before)  # half a line in the middle would damage the file
                raise UserError(f"{self._path}: cannot be written ({error.strerror}); nothing was lost") from error


class UnwrittenBuffer(RolloutBuffer):
    """Of the processes of a run beside the first, which writes what all of them played."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def close(self) -> None:
        """Nothing was opened."""

    def _append(self, told: Mapping[str, Any]) -> None:
        """Nothing."""

    def add_update(self, update: int, groups: Sequence[GroupKey]) -> None:
        """Nothing."""


class StoredRollouts(Sequence[RolloutGroup]):
    """The reading end: complete groups, in the order in which they were begun; a random access source for grain.

    It holds places, not rollouts, and sees what was there when it was made. `images` of its groups is None; see
    `online_batches.with_images`.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UserError: there is no such buffer, or it is damaged or of another version."""
        self.folder = folder
        self._groups: dict[GroupKey, tuple[_Place, int]] = {}
        self._rollouts: dict[GroupKey, dict[int, _Place]] = {}
        self.updates: dict[int, tuple[GroupKey, ...]] = {}
        paths = sorted(folder.glob("rollouts-*.jsonl"))
        if not paths:
            raise UserError(f"{folder}: no rollouts are stored here")
        for path in paths:
            for place, told in _lines(path):
                self._enter(place, told)
        self.keys = tuple(
            key for key, (_, planned) in self._groups.items() if len(self._rollouts.get(key, {})) >= planned
        )

    @property
    def unfinished(self) -> tuple[GroupKey, ...]:
        """Groups that lack rollouts."""
        complete = set(self.keys)
        return tuple(key for key in self._groups if key not in complete)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.group(key) for key in self.keys[index]]
        return self.group(self.keys[index])

    def group(self, key: GroupKey) -> RolloutGroup:
        """A group with the rollouts that are stored of it, in the order of their branches.

        Raises:
          KeyError: there is no such group.
          UserError: an image is missing or was changed.
        """
        told = dict(_read(self._groups[key][0])["value"])

        def path_of(name: str) -> str:
            return str(stored_image(name, self.folder / "images"))

        told["image_files"] = [(placeholder, path_of(name)) for placeholder, name in told["image_files"]]
        places = sorted(self._rollouts.get(key, {}).items())
        told["rollouts"] = [_with_paths(_read(place)["value"], path_of) for _, place in places]
        return RolloutGroup.from_json(told)

    def update(self, number: int) -> list[RolloutGroup]:
        """The groups that update `number` learnt from. Raises KeyError for an update that was not written down."""
        return [self.group(key) for key in self.updates[number]]

    def _enter(self, place: _Place, told: Mapping[str, Any]) -> None:
        if told["kind"] == "group":
            key = GroupKey(told["round"], told["value"]["group"])
            if key in self._groups:  # begun anew: nothing that was told of it holds any more
                self._rollouts.pop(key, None)
                self.updates = {number: keys for number, keys in self.updates.items() if key not in keys}
            self._groups[key] = (place, told["planned"])
        elif told["kind"] == "rollout":
            value = told["value"]
            self._rollouts.setdefault(GroupKey(told["round"], value["group"]), {})[value["branch"]] = place
        elif told["kind"] == "update":
            self.updates[told["update"]] = tuple(GroupKey(*key) for key in told["groups"])


def _with_paths(rollout: Mapping[str, Any], path_of: Callable[[str], str]) -> dict[str, Any]:
    """A rollout as `Rollout.to_json` gives it, its pictures at other paths."""

    def moved(images: Sequence[Sequence[str]]) -> list[list[str]]:
        return [[placeholder, path_of(path)] for placeholder, path in images]

    turns = [turn | {"images": moved(turn["images"])} if turn.get("images") else turn for turn in rollout["turns"]]
    return {**rollout, "turns": turns, "image_files": moved(rollout.get("image_files", []))}


def _line(told: Mapping[str, Any]) -> bytes:
    body = json.dumps(told, ensure_ascii=False, allow_nan=False).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _told(line: bytes) -> dict[str, Any] | None:
    """The object of a line, None when it is not as it was written."""
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    told: dict[str, Any] = json.loads(body)
    return told


def _read(place: _Place) -> dict[str, Any]:
    with place.path.open("rb") as stream:
        stream.seek(place.start)
        told = _told(stream.read(place.end - place.start - 1))
    if told is None:
        raise UserError(f"{place.path}: changed since it was opened; make sure that one process at a time writes to it")
    return told


def _lines(path: Path) -> list[tuple[_Place, dict[str, Any]]]:
    """The whole lines of a file and where they are, without what a kill cut off at its end.

    Raises:
      UserError: a line before the last is damaged, or the file is of another format or version.
    """
    data = path.read_bytes()
    found: list[tuple[_Place, dict[str, Any]]] = []
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        told = _told(data[start : end - 1])
        if told is None and end < len(data):
            raise UserError(f"{path}: the line at byte {start} is damaged; restore the file, or use another folder")
        if told is None:
            break
        if not found and told != HEADER:
            raise UserError(f"{path}: not {FORMAT}, version {VERSION}; use another folder")
        found.append((_Place(path, start, end), told))
        start = end
    return found
