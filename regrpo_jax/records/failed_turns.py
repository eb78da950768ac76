"""Which turns of a clean trajectory are no example to follow: what failed, and what was no action at all.

An agent that succeeds in the end may have failed on the way. Imitating those turns teaches to fail first, which is what
a Reflection-of-Thought record takes care not to do with its failed action.
"""

from __future__ import annotations

from regrpo_jax.records.types import Status, Trajectory


def failed_turns(trajectory: Trajectory) -> tuple[int, ...]:
    """Indices of the assistant turns whose observation is no success, or which have no code where others have.

    A conversation in which nobody writes code is no agent's; none of its turns counts.
    """
    turns = [index for index, turn in enumerate(trajectory.conversation) if turn.role == "assistant"]
    acting = any(step.code for step in trajectory.steps)
    return tuple(
        index
        for index, step in zip(turns, trajectory.steps, strict=False)
        if (acting and not step.code) or (step.observation is not None and step.observation.status is not Status.OK)
    )
