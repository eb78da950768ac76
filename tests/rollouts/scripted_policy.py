"""A policy that says what it is told to, in tokens; everything around it is real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from regrpo_jax.agent.policy import Branch, EpisodePrompt, Heard, Prefix, SampledTurn, WriteRequest
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.records.types import Turn
from regrpo_jax.rollouts.token_text import TokenText

Script = Callable[[Branch, str, int], str]  # (branch, opening, number of the turn) -> the text after the opening


@dataclass
class ScriptedSession:
    """emitted: what the policy really sampled, token by token, of each branch."""

    renderer: ChatRenderer
    script: Script
    prefixes: list[Prefix]
    random: np.random.Generator
    canonical: bool = False
    emitted: dict[Branch, list[tuple[int, float]]] = field(default_factory=dict)
    written: dict[Branch, int] = field(default_factory=dict)
    finished: set[Branch] = field(default_factory=set)

    def write(self, requests: Sequence[WriteRequest]) -> list[SampledTurn]:
        return [self._turn(request) for request in requests]

    def observe(self, observations: Sequence[tuple[Branch, str]]) -> list[Heard | None]:
        return [Heard(*self.renderer.continuation(Turn("user", told.text))) for _, told in observations]

    def finish(self, branches: Sequence[Branch]) -> None:
        assert not self.finished & set(branches)
        self.finished |= set(branches)

    def _ids(self, text: str) -> list[int]:
        return list(self.renderer.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _said(self, opening: str, text: str) -> list[int]:
        """The tokens after the opening, end of the turn included; canonical: those that the renderer gives the turn."""
        end = [self.renderer.end_of_turn_id]
        if not self.canonical:
            return self._ids(text) + end
        turn = (opening + text).strip()
        rendered = self.renderer.render((Turn("user", "a"), Turn("assistant", turn)))
        first, last = rendered.spans[-1]
        tokens, opened = rendered.tokens[first:last].tolist(), self._ids(opening)
        assert tokens[: len(opened)] == opened
        return tokens[len(opened) :] + end

    def _turn(self, request: WriteRequest) -> SampledTurn:
        number = self.written.get(request.branch, 0)
        self.written[request.branch] = number + 1
        opening = self._ids(request.opening)
        said = self._said(request.opening, self.script(request.branch, request.opening, number))
        finished = len(said) <= request.budget
        said = said[: request.budget]
        logprobs = -self.random.uniform(0.01, 5.0, len(said)).astype(np.float32)
        self.emitted.setdefault(request.branch, []).extend(zip(said, logprobs.tolist(), strict=True))
        words = said[:-1] if finished else said
        text, starts = TokenText(self.renderer.tokenizer).text_of([*opening, *words])
        starts = starts[len(opening) :]
        return SampledTurn(
            np.array(opening, np.int32),
            np.array(said, np.int32),
            logprobs,
            text,
            np.append(starts, len(text)).astype(np.int32) if finished else starts,
            finished,
        )


@dataclass
class ScriptedPolicy:
    """Sessions in which every branch follows the script."""

    renderer: ChatRenderer
    script: Script
    version: int = 3
    canonical: bool = False
    sessions: list[ScriptedSession] = field(default_factory=list)

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> ScriptedSession:
        prefixes = []
        for prompt in prompts:
            tokens = self.renderer.render_prompt(prompt.turns)
            order = np.arange(len(tokens), dtype=np.int32)
            prefixes.append(Prefix(tokens, np.repeat(order[:, None], 3, axis=1), None))
        chance = np.random.default_rng(seed)
        self.sessions.append(ScriptedSession(self.renderer, self.script, prefixes, chance, self.canonical))
        return self.sessions[-1]
