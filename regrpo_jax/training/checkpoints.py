"""Checkpoints of one stage: written in the background, the last few kept, and never half written (orbax)."""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from regrpo_jax.errors import UserError
from regrpo_jax.training.state import TrainState


class StageCheckpoints:
    """The folder `checkpoints/<stage>` of a run: train state and the position of the data iterator."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        logging.getLogger("absl").setLevel(logging.WARNING)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self._folder = folder
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)

    def latest_step(self) -> int | None:
        """Last complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Starts writing a checkpoint; the arrays are copied out first, so the state may be donated afterwards."""
        step = int(state.step)
        if step == self.latest_step():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_state))
        self._manager.save(step, args=items)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The last checkpoint, placed as `like` is.

        Raises:
          UserError: its arrays do not fit this configuration.
        """
        differences = self._differences(like)
        if differences:
            raise UserError(
                f"{self._folder}: the checkpoint at step {self.latest_step()} does not fit this configuration "
                f"({'; '.join(differences[:3])}); use the configuration it was written with, or another --workdir"
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore())
        restored = self._manager.restore(self.latest_step(), args=items)
        return restored["state"], restored["data"]

    def _differences(self, like: TrainState) -> list[str]:
        """What is stored otherwise than in `like`; orbax would cast or cut an array, or fail in the middle of it."""
        metadata = self._manager.item_metadata(self.latest_step())["state"]
        stored = {array.name: _described(array) for array in jax.tree.leaves(metadata.tree)}
        wanted = {".".join(path): _described(array) for path, array in ocp.tree.to_flat_dict(like).items()}
        return [
            f"{name} is {stored.get(name, 'missing')} there, {wanted.get(name, 'unknown')} here"
            for name in sorted(stored.keys() | wanted.keys(), key=lambda name: (not name.startswith("trainable"), name))
            if stored.get(name) != wanted.get(name)
        ]

    def close(self) -> None:
        """Waits for writes under way."""
        self._manager.wait_until_finished()
        self._manager.close()


def _described(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"
