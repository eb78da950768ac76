"""Episodes over an engine whose model says the same at each step, without an environment: two tools, then an answer."""

from __future__ import annotations

from typing import Any

from regrpo_jax.agent.loop import EpisodeLoop, Move, Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import EpisodePrompt, WriteRequest
from regrpo_jax.agent.remote_engine import EngineSettings
from regrpo_jax.agent.remote_policy import RemotePolicy
from regrpo_jax.agent.rollout import Rollout, check_rollout
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.records.types import Status, Turn
from regrpo_jax.rollouts.engine_tokens import EngineTokens
from tests.agent.chat_server import Engine
from tests.rollouts.templates import renderer

TURNS = 3  # of an episode
ACTION = ' open it.\n\nCode:\n```py\nread("a.txt")\n```'
TOKENS = EngineTokens(ConversationReader(renderer("chatml"), None, None))
LOOP = LoopSettings(turn_tokens=100, episode_tokens=600)
_MODEL = Engine(renderer("chatml"), lambda messages, opening: ACTION if opening else f"Thought:{ACTION}")


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """A whole good reply, as vLLM gives it."""
    reply = _MODEL.complete(body)
    reply["choices"][0]["index"] = 0
    told = reply["choices"][0]["logprobs"]["content"]
    return reply | {"model": body["model"], "usage": {"prompt_tokens": 9, "completion_tokens": len(told)}}


def prompts(count: int) -> list[EpisodePrompt]:
    return [EpisodePrompt((Turn("system", "s"), Turn("user", f"Task {n}")), (), n) for n in range(count)]


def task_of(body: dict[str, Any]) -> int:
    """Whose episode a request is of."""
    return int(body["messages"][1]["content"].removeprefix("Task "))


def policy_at(address: str, *, room: int | None = None, **changes: Any) -> RemotePolicy:
    return RemotePolicy(EngineSettings(address, "base", **({"first_wait": 0.001} | changes)), TOKENS, room=room)


def play(policy: RemotePolicy, count: int, turns: int = TURNS) -> list[Rollout]:
    """An episode of each task, as `collect_groups` plays them."""
    session = policy.start(prompts(count), 1, seed=3)
    loops = {(group, 0): EpisodeLoop(LOOP) for group in range(count)}
    last = Played(Status.OK, "17", "answered", True)
    for step in range(turns):
        live = [branch for branch, loop in loops.items() if not loop.done]
        written = session.write(
            [WriteRequest(branch, loops[branch].opening(), loops[branch].budget) for branch in live]
        )
        for branch, turn in zip(live, written, strict=True):
            if loops[branch].write_down(turn) is Move.PLAY:
                loops[branch].observed(last if step == turns - 1 else Played(Status.OK, f"see {step}"))
        live = [branch for branch in live if not loops[branch].done]
        for branch, heard in zip(live, session.observe([(b, loops[b].user_turn()) for b in live]), strict=True):
            loops[branch].heard(heard)
    session.finish(list(loops))
    found = [
        loop.rollout(task_id=f"task {group}", group=group, branch=0, policy_version=0, seed=3)
        for (group, _), loop in loops.items()
    ]
    for rollout in found:
        check_rollout(rollout)
    return found
