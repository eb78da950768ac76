"""The policy of a run with all that it learns from: made once, when the first stage needs it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from regrpo_jax.data.corpus import Corpus
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.rollouts.players import Player
from regrpo_jax.training.loop import RunContext, RunFolder


@dataclasses.dataclass
class Served:
    """A policy of which only the server is known that it plays on; it can be measured, and not trained.

    Attributes:
      context: configuration, folder, metrics.
      player: plays its episodes.
      variables, reader: none.
    """

    context: RunFolder
    player: Player
    variables: dict[str, Any] = dataclasses.field(default_factory=dict)
    reader: None = None


@dataclasses.dataclass
class Learner:
    """What stages of the device wing share.

    Attributes:
      context: configuration, folder, policy functions, devices, metrics.
      corpus: the records of `config.data`, as far as a stage needs them.
      reader: turns conversations into the policy's tokens.
      player: plays the policy's episodes.
      variables: the policy as it stands; a stage that trains puts another in its place.
      replaced: weights outside the adapter that came with it in full, and are exported with it.
    """

    context: RunContext
    corpus: Corpus
    reader: ConversationReader
    player: Player
    variables: dict[str, Any]
    replaced: list[str]

    @property
    def workdir(self) -> Path:
        """The run's folder."""
        return self.context.workdir
