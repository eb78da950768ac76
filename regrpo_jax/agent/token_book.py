"""The tokens of one episode as they come, each with what it is: nothing is tokenised again, nothing gets lost."""

from __future__ import annotations

import numpy as np

from regrpo_jax.agent.parse import ParsedTurn
from regrpo_jax.agent.policy import Heard, SampledTurn
from regrpo_jax.agent.rollout import Label


class TokenBook:
    """Grows by turns and by what is heard between them."""

    def __init__(self) -> None:
        self._tokens: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._logprobs: list[np.ndarray] = []
        self._steps: list[np.ndarray] = []
        self.length = 0

    def add_turn(self, turn: SampledTurn, labels: np.ndarray, step: int) -> tuple[int, int, int]:
        """Where its opening begins, its own tokens begin, and both end."""
        start = self.length
        self._add(turn.opening, np.full(len(turn.opening), Label.OPENING), np.zeros(len(turn.opening)), step)
        sampled_from = self.length
        self._add(turn.tokens, labels, turn.logprobs, step)
        return start, sampled_from, self.length

    def add_heard(self, heard: Heard, step: int) -> None:
        """Template and observation, which are never trained."""
        labels = np.where(heard.spoken, Label.OBSERVATION, Label.TEMPLATE)
        self._add(heard.tokens, labels, np.zeros(len(heard.tokens)), step)

    def arrays(self) -> dict[str, np.ndarray]:
        """tokens, labels, logprobs and steps as a rollout has them.  # [token]"""

        def joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
            return np.concatenate([np.zeros(0, kind), *parts]).astype(kind)

        return {
            "tokens": joined(self._tokens, np.int32),
            "labels": joined(self._labels, np.int8),
            "logprobs": joined(self._logprobs, np.float32),
            "steps": joined(self._steps, np.int16),
        }

    def _add(self, tokens: np.ndarray, labels: np.ndarray, logprobs: np.ndarray, step: int) -> None:
        self._tokens.append(tokens)
        self._labels.append(labels)
        self._logprobs.append(logprobs)
        self._steps.append(np.full(len(tokens), step))
        self.length += len(tokens)


def labels_of(parsed: ParsedTurn, starts: np.ndarray) -> np.ndarray:
    """What each sampled token is, by the part of the turn that it begins in.

    Args:
      starts: int, where in the text each token begins; the end of the turn at the text's end.  # [token]
    Returns:
      int8 `Label`.  # [token]
    """
    after_end = starts >= len(parsed.text)  # the end of the turn is an action, even where there is no other
    thought = np.where(starts < parsed.action_start, Label.THOUGHT, Label.ACTION)
    labels = thought
    for start, end in parsed.reflections:
        labels = np.where((starts >= start) & (starts < end), Label.REFLECTION, labels)
    return np.where(after_end, Label.ACTION, labels).astype(np.int8)


def code_logprobs(parsed: ParsedTurn, turn: SampledTurn) -> np.ndarray:
    """Log-probs of the sampled tokens of the code; of the whole action where there is none.  # [token]"""
    start, end = parsed.code_start, parsed.code_end
    if start == end:
        start, end = parsed.reflection_end, len(parsed.text) + 1
    ends = np.append(turn.starts[1:], len(parsed.text) + (1 if turn.finished else 0))
    return turn.logprobs[(ends > start) & (turn.starts < end)]
