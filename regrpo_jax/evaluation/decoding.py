"""Assistant turns from the policy, for many conversations at once."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from regrpo_jax.agent.policy import EpisodePrompt, Policy, PolicyError, SampledTurn, Session, WriteRequest
from regrpo_jax.records import split_reflection
from regrpo_jax.records.fences import code_range
from regrpo_jax.records.reflection import reflection_ranges
from regrpo_jax.records.types import ImageReference, Turn

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TurnRequest:
    """A conversation that waits for an assistant turn, and the words that the turn must start with."""

    record_id: str
    turns: tuple[Turn, ...]
    images: tuple[ImageReference, ...]
    opening: str


@dataclasses.dataclass(frozen=True)
class GeneratedTurn:
    """A turn that the policy wrote.

    Attributes:
      text: the turn, opening included.
      reflection_tokens: number of tokens of its reflection block, the opening's included.
      code_logprobs: log-probs of the sampled tokens of its code (of the whole action where there is none).  # [token]
      finished: whether it ended within the budget.
    """

    text: str
    reflection_tokens: int
    code_logprobs: tuple[float, ...]
    finished: bool


NOTHING = GeneratedTurn("", 0, (), False)


@dataclasses.dataclass(frozen=True)
class TurnWriter:
    """The policy as a writer of assistant turns.

    Attributes:
      policy: what plays episodes; each conversation is a session of its own with one turn.
      batch: conversations at once.
      max_new_tokens: sampled in one turn, at most.
      seed: of the sampling.
    """

    policy: Policy
    batch: int
    max_new_tokens: int
    seed: int

    def write(self, requests: Sequence[TurnRequest]) -> list[GeneratedTurn]:
        """One turn per request: an empty, unfinished one where the conversation so far cannot be a prompt.

        A record is known to fit, but what the policy itself said before may fill the context or spell a control token.
        """
        turns = [NOTHING] * len(requests)
        for first in range(0, len(requests), self.batch):
            batch = {number: requests[number] for number in range(len(requests))[first : first + self.batch]}
            session = self._started(batch)
            if session is None:
                continue
            asked = [
                WriteRequest((group, 0), request.opening, self.max_new_tokens)
                for group, request in enumerate(batch.values())
            ]
            for number, turn in zip(batch, session.write(asked), strict=True):
                turns[number] = generated_turn(turn)
        return turns

    def _started(self, batch: dict[int, TurnRequest]) -> Session | None:
        """A session of those that can be prompts; the others are taken out of `batch`."""
        try:
            return self._session(batch)
        except PolicyError:
            for number, request in list(batch.items()):
                try:
                    self._session({number: request})
                except PolicyError as error:
                    _log.warning("a conversation ends early: record %s: %s", request.record_id, error)
                    del batch[number]
        return self._session(batch) if batch else None

    def _session(self, batch: dict[int, TurnRequest]) -> Session:
        prompts = [EpisodePrompt(request.turns, request.images, number) for number, request in batch.items()]
        return self.policy.start(prompts, branches=1, seed=self.seed)


def generated_turn(turn: SampledTurn) -> GeneratedTurn:
    """What evaluation asks of a turn that was sampled."""
    reflection, action = split_reflection(turn.text)
    start, end = code_range(action)
    start, end = (start, end) if start < end else (0, len(action))
    ends = np.append(turn.starts[1:], len(turn.text))[: len(turn.starts)]  # [token]
    in_code = (ends > len(reflection) + start) & (turn.starts < len(reflection) + end)
    in_reflection = np.zeros(len(turn.starts), bool)
    for begin, stop in reflection_ranges(turn.text):
        in_reflection |= (turn.starts >= begin) & (ends <= stop) & (turn.starts < stop)
    return GeneratedTurn(
        turn.text,
        len(turn.opening) + int(np.sum(in_reflection)) if reflection else 0,
        tuple(float(value) for value in turn.logprobs[in_code]),
        turn.finished,
    )
