"""Updates repeated from the rollouts of another run: no episode is played, no environment is needed.

Update n gets the very groups that update n of that run had, in order, so that its batch is the same bit for bit; from
the same policy the same update follows. With other settings the policy parts from the one that played, and
`action/ratio` tells how far: log-probs are those of the policy that sampled, as in every update.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grain

from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.online_batches import with_images
from regrpo_jax.data.rollout_buffer import StoredRollouts
from regrpo_jax.errors import UserError

_FEW_AHEAD = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)  # updates; each may hold many images


def stored_updates(played: Path, numbers: range) -> StoredRollouts:
    """The rollouts of a run that has all of these updates.

    Args:
      played: workdir of the run that played them.
      numbers: updates, counted from 1.
    Raises:
      UserError: that run wrote no rollouts, or not all of these updates.
    """
    stored = StoredRollouts(played / "rollouts")
    missing = [number for number in numbers if number not in stored.updates]
    if missing:
        raise UserError(
            f"{played / 'rollouts'}: update {missing[0]} is not there, but config.online.steps asks for {numbers[-1]}; "
            f"set it to what the run has ({len(stored.updates)})"
        )
    return stored


def stored_groups(played: Path, reader: ConversationReader, numbers: range) -> Iterator[list[RolloutGroup]]:
    """The groups of each of these updates, read ahead by grain, with their images packed again.

    Args:
      played, numbers: as in `stored_updates`.
    Raises:
      UserError: as `stored_updates`; while reading, an image is missing or not what was seen.
    """
    stored = stored_updates(played, numbers)

    def groups(number: int) -> list[RolloutGroup]:
        found = stored.update(number)
        if reader.vision is None and any(group.image_files for group in found):
            raise UserError(f"{played}: its policy saw images; replay it with a policy that does, config.model.images")
        return [with_images(group, reader.settings, reader.vision) for group in found]

    return iter(grain.MapDataset.source(numbers).map(groups).to_iter_dataset(_FEW_AHEAD))


def check_same_tokens(played: Path, workdir: Path) -> None:
    """Token ids mean the same only under the same tokenizer; UserError where the two runs' differ."""
    if _tokenizer(played) != _tokenizer(workdir):
        raise UserError(
            f"config.online.replay={str(played)!r}: that run had another tokenizer than {workdir}; replay it with its "
            "own config.model, config.data and config.seed"
        )


def _tokenizer(workdir: Path) -> str:
    """What tells a run's tokenizer: its own one, or the directory that it was read from."""
    own = workdir / "tokenizer" / "tokenizer.json"
    if own.exists():
        return own.read_text()
    try:
        return json.loads((workdir / "config.json").read_text())["config"]["model"]["path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{workdir}: cannot be read as a run (config.json or tokenizer/ is missing)") from error
