"""Checkpoints of one stage: written in the background, the last few kept, and never half written (orbax).

What is on a disk may still break, and a disk may be full. A checkpoint that cannot be read, or whose numbers are not
those that were written, gives way to the one before it; one that cannot be written is tried again when the next is due.
Each time one sentence says so.
"""

import contextlib
import gc
import io
import json
import logging
import os
import shutil
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from regrpo_jax.errors import UserError, system_error
from regrpo_jax.hosts.agreement import all_hold, meet, told_by_first
from regrpo_jax.hosts.role import role
from regrpo_jax.training.digest import digest_of
from regrpo_jax.training.state import TrainState

_PARTIAL = "*.orbax-checkpoint-tmp"


class StageCheckpoints:
    """The folder `checkpoints/<stage>` of a run: train state and the position of the data iterator.

    Attributes:
      trouble: why the last checkpoint that was due is not there; "" if it is.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what orbax raises is told here, in a sentence
        self._folder, self._keep = folder.absolute(), keep
        self.trouble = ""
        self._manager = self._open()

    def latest_step(self) -> int | None:
        """Last checkpoint that is complete, or is being written; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, position: dict[str, Any]) -> None:
        """Starts writing a checkpoint; the arrays are copied out first, so the state may be donated afterwards.

        Waits for the one before it. If one of them cannot be written, a warning says so and nothing is raised.
        """
        step = int(state.step)
        self.finish()
        if step == self.latest_step():
            return
        data = {"position": position, "digest": _digest(state, position)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data))
        try:
            self._manager.save(step, args=items)
        except Exception as error:  # of orbax, of tensorstore, or of the file system
            self._not_written(step, error)
        else:
            self.trouble = ""

    def finish(self) -> int:
        """Waits for a write under way; the updates that are on disk. A warning says what went wrong."""
        step = self.latest_step()
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # likewise, from the thread that writes
            self._not_written(step, error)
        return self.latest_step() or 0

    def check_complete(self, step: int) -> None:
        """Raises UserError unless the checkpoint at the end of a stage is on disk; waits for it."""
        if self.finish() < step:
            raise UserError(
                f"{self._folder}: {self.trouble}, and with it the stage's last updates are not kept "
                f"({_last_good(self.latest_step())}); free some space there and start again with the same --workdir"
            )

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that can be read, placed as `like` is; None if there is no checkpoint at all.

        Newer ones are moved aside, so that their steps can be written again.

        Args:
          like: of arrays, or of `jax.ShapeDtypeStruct`s with shardings, which take no memory.
        Raises:
          UserError: its arrays do not fit this configuration, or no checkpoint can be read.
        """
        unreadable: dict[int, str] = {}
        steps = told_by_first(f"steps of {self._folder}", json.dumps(sorted(self._manager.all_steps(), reverse=True)))
        for step in json.loads(steps):
            found = self._read_if_whole(step, like)
            if not isinstance(found, str):
                self._set_aside(unreadable, step)
                return found
            unreadable[step] = found
        if unreadable:
            reasons = "; ".join(f"step {step}: {reason}" for step, reason in unreadable.items())
            raise UserError(
                f"{self._folder}: no checkpoint there can be read ({reasons}); put one back from a copy, remove this "
                "folder to train the stage from its beginning, or use another --workdir"
            )
        return None

    def close(self) -> None:
        """Waits for writes under way."""
        self.finish()
        self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        """Removes what a process left that ended while it wrote."""
        for partial in self._folder.glob(_PARTIAL) if role().writes else ():
            shutil.rmtree(partial, ignore_errors=True)
        meet(f"checkpoints in {self._folder}")
        options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, create=True, enable_async_checkpointing=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        return ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def _read_if_whole(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]] | str:
        """A checkpoint, or why it cannot be read."""
        heard, found = io.StringIO(), None
        with contextlib.redirect_stderr(heard):
            try:
                found = self._read(step, like)
            except UserError:
                raise
            except Exception as error:  # whatever a library makes of a file that is cut short
                reason = _reason(error)
            if found is None:
                gc.collect()  # reads that end after the first has failed tell their tracebacks now, and unheard
        if found is None:
            return reason
        print(heard.getvalue(), end="", file=sys.stderr, flush=True)
        return found

    def _read(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        differences = self._differences(step, like)
        if differences:
            raise UserError(
                f"{self._folder}: the checkpoint at step {step} does not fit this configuration "
                f"({'; '.join(differences[:3])}); use the configuration it was written with, or another --workdir"
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        restored = self._restored(step, items)
        state, data = restored["state"], restored["data"]
        if "after" in data:  # of a version that took no digests
            return state, data
        position = data.get("position")
        if data.get("digest") != _digest(state, position):
            raise ValueError("its numbers are not those that were written")
        return state, position

    def _restored(self, step: int, items: Any) -> Any:
        """As orbax reads it. What one process cannot read none uses, for the digest is computed by all together."""
        error: Exception | None = None
        try:
            restored = self._manager.restore(step, args=items)
        except Exception as raised:
            error = raised
        if not all_hold(f"step {step} of {self._folder}", error is None):
            raise error or ValueError("another process cannot read it")
        return restored

    def _differences(self, step: int, like: TrainState) -> list[str]:
        """What is stored otherwise than in `like`; orbax would cast or cut an array, or fail in the middle of it."""
        metadata = self._manager.item_metadata(step)["state"]
        if metadata is None:
            raise FileNotFoundError("the description of its arrays is missing")
        stored = {array.name: _described(array) for array in jax.tree.leaves(metadata.tree)}
        wanted = {".".join(path): _described(array) for path, array in ocp.tree.to_flat_dict(like).items()}
        return [
            f"{name} is {stored.get(name, 'missing')} there, {wanted.get(name, 'unknown')} here"
            for name in sorted(stored.keys() | wanted.keys(), key=lambda name: (not name.startswith("trainable"), name))
            if stored.get(name) != wanted.get(name)
        ]

    def _set_aside(self, unreadable: dict[int, str], used: int) -> None:
        """Only once an older one was read: else nothing here is touched, whatever the reason."""
        for step, reason in unreadable.items():
            aside = self._folder / f"unreadable-{step}"
            if role().writes:
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(self._folder / str(step), aside)
            print(
                f"{self._folder}: the checkpoint at step {step} cannot be read ({reason}); the one at step {used} is "
                f"used, and the other lies in {aside.name}, which may be removed",
                flush=True,
            )
        if unreadable:
            meet(f"set aside in {self._folder}")
            self._manager.reload()

    def _not_written(self, step: int | None, error: Exception) -> None:
        """A warning; but where several write, those that could do not know of it, and none may go on alone."""
        if role().alone:
            self._warn(step, error)
            return
        raise UserError(
            f"{self._folder}: the checkpoint at step {step} cannot be written ({_reason(error)}); see that there is "
            "space, and start again with the same --workdir to go on with the last good one"
        ) from error

    def _warn(self, step: int | None, error: Exception) -> None:
        """Begins anew with what is on disk: orbax raises a failure again whenever it is asked for something else."""
        with contextlib.suppress(Exception):
            self._manager.close()
        self._manager = self._open()
        self.trouble = f"the checkpoint at step {step} cannot be written ({_reason(error)})"
        last = self.latest_step()
        print(
            f"warning: {self._folder}: {self.trouble}; {_last_good(last)}, and the next is tried when it is due",
            file=sys.stderr,
            flush=True,
        )


def _last_good(step: int | None) -> str:
    return "there is none yet" if step is None else f"the last good one is at step {step}"


def _described(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _digest(state: TrainState, position: Any) -> str:
    read_back = json.loads(json.dumps(position))  # whose keys are texts
    words = json.dumps(read_back, sort_keys=True).encode()
    return f"{digest_of(state)}-{zlib.crc32(words):08x}"


def _reason(error: BaseException) -> str:
    """What is behind an error, in a few words."""
    while error.__cause__ is not None:
        error = error.__cause__
    if number := system_error(error):
        return os.strerror(number)
    words = " ".join(str(error).split())
    if isinstance(error, json.JSONDecodeError):
        return f"a file of its description is cut short or damaged: {words}"
    return textwrap.shorten(words or type(error).__name__, 160, placeholder=" ..")
