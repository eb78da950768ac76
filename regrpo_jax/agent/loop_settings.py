"""The rules of an episode: when the gate opens, when an action is withdrawn, when all is over."""

from __future__ import annotations

from dataclasses import dataclass

from regrpo_jax.errors import UserError

GATES = ("paper", "failure", "never")
TIMINGS = ("post", "pre")


@dataclass(frozen=True)
class LoopSettings:
    """gate: "paper" (failures and low confidence), "failure", or "never" (a bare retry). timing: "post" reflects on
    what an action did; "pre" also withdraws an action of low confidence before it runs, for tools whose effects cannot
    be undone. retries: failed attempts of a step that are allowed. max_steps: actions that are run after each
    message of the user. turn_tokens, episode_tokens: that the policy may sample in a turn, and in all.
    """

    gate: str = "failure"
    timing: str = "post"
    retries: int = 1
    max_steps: int = 8
    turn_tokens: int = 96
    episode_tokens: int = 512

    def __post_init__(self) -> None:
        """UserError for a choice that does not exist or a limit that is not positive."""
        for name, choices in (("gate", GATES), ("timing", TIMINGS)):
            if getattr(self, name) not in choices:
                raise UserError(f"agent.{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        if self.retries < 0 or min(self.max_steps, self.turn_tokens, self.episode_tokens) < 1:
            raise UserError("agent.max_steps, turn_tokens and episode_tokens must be at least 1, retries at least 0")
        if self.timing == "pre" and self.gate == "never":
            raise UserError("agent.timing='pre' reflects on actions that were withdrawn; agent.gate is 'never'")
