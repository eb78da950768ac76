"""An engine that misbehaves: an odd reply may cost its own episode, never the run, and no such sample trains."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import numpy as np
import pytest

from regrpo_jax.agent.policy import WriteRequest
from regrpo_jax.agent.remote_policy import RemotePolicy
from regrpo_jax.agent.rollout import Rollout
from regrpo_jax.errors import UserError
from tests.agent.odd_engine import HARMLESS, UNSCORED, WAYS, OddEngine, odd_serving
from tests.agent.scripted_episodes import LOOP, completion, play, policy_at, prompts, task_of

FULL = {"error": {"message": "This model's maximum context length is 2048 tokens. However, you requested 2100."}}


def well(rollout: Rollout) -> bool:
    return rollout.success and rollout.scored and not rollout.dropped and bool(rollout.trained.any())


def test_each_way_costs_its_own_episode_and_no_other() -> None:
    assert len(WAYS) >= 15
    count = 2 * len(WAYS)
    engine = OddEngine(completion, lambda number: WAYS[number // 2] if number < count and number % 2 else "")
    with odd_serving(engine) as address:
        rollouts = play(policy_at(address, retries=0), count)
    assert set(engine.told) == set(WAYS)
    spoilt = {task_of(body): way for way, body in engine.spoilt if way != HARMLESS}
    for task, rollout in enumerate(rollouts):
        way = spoilt.get(task)
        if way is None:
            assert well(rollout), rollout.error
        else:
            assert not rollout.trained.any(), way
            assert rollout.dropped == (way not in UNSCORED) == bool(rollout.error), way


def test_what_is_odd_now_and_then_is_asked_again_and_changes_nothing() -> None:
    rng, tasks = random.Random(5), 100
    ways = {number: rng.choice(WAYS) for number in range(0, 10_000, 20)}
    engine = OddEngine(completion, lambda number: ways.get(number, ""))
    with odd_serving(engine) as address:
        rollouts = play(policy_at(address), tasks)
        asked = engine.asked
        engine.odd = lambda number: ""
        clean = play(policy_at(address), tasks)
    assert asked >= 3 * tasks and sum(engine.told.values()) >= 15
    final = UNSCORED | {"words in tool_calls", "finish content_filter"}
    spoilt = {task_of(body) for way, body in engine.spoilt if way in final}
    for task, (rollout, pure) in enumerate(zip(rollouts, clean, strict=True)):
        if task in spoilt:
            assert not rollout.trained.any()
        else:
            assert well(rollout) and well(pure)
            np.testing.assert_array_equal(rollout.tokens, pure.tokens)
            np.testing.assert_array_equal(rollout.logprobs, pure.logprobs)


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("others", [0, 2])
def test_a_context_that_is_full_ends_the_episode_as_out_of_tokens(before: int, others: int) -> None:
    def write(body: dict[str, Any]) -> dict[str, Any]:
        done = (len(body["messages"]) - 2) // 2
        return dict(FULL) if done == before and task_of(body) == 0 else completion(body)

    engine = OddEngine(lambda body: _as_400(write(body)), lambda number: "")
    with odd_serving(engine) as address:
        first, *rest = play(policy_at(address), 1 + others)
    assert (first.outcome, first.truncated, first.dropped, len(first.turns)) == ("out_of_tokens", True, False, before)
    assert first.scored and bool(first.trained.any()) == (before > 0) and "maximum context length" in first.error
    assert all(map(well, rest)) and engine.asked == before + 1 + 3 * others, "it was asked once"


def _as_400(reply: dict[str, Any]) -> dict[str, Any]:
    """As a proxy wraps what the engine refuses."""
    return {"error": FULL["error"] | {"code": 400}} if "error" in reply else reply


@pytest.mark.parametrize("way", ["log-prob null", "JSON cut", "finish abort", "closed", "bad status line"])
def test_the_last_one_alive_is_lost_alone(way: str) -> None:
    engine = OddEngine(completion, lambda number: way if number > 1 else "")
    with odd_serving(engine) as address:
        (rollout,) = play(policy_at(address, retries=1), 1)
    assert rollout.dropped and rollout.outcome == "infra_error" and rollout.error and engine.asked == 4


def test_a_reply_that_does_not_come_is_asked_for_again() -> None:
    hangs = [True]

    def write(body: dict[str, Any]) -> dict[str, Any]:
        if hangs:
            hangs.clear()
            time.sleep(3)
        return completion(body)

    with odd_serving(OddEngine(write, lambda number: "")) as address:
        begun = time.monotonic()
        (rollout,) = play(policy_at(address, timeout=1.0, retries=20), 1)
    assert well(rollout) and time.monotonic() - begun >= 1


def test_an_engine_that_never_says_anything_sensible_is_told() -> None:
    engine = OddEngine(completion, lambda number: "log-prob nan")
    with odd_serving(engine) as address, pytest.raises(UserError, match="nothing at all.*log-prob nan"):
        play(policy_at(address, retries=0), 3)


def written(reply: dict[str, Any], **changes: Any) -> Any:
    """The turn that a session makes of a reply."""
    with odd_serving(OddEngine(lambda body: reply, lambda number: "")) as address:
        policy: RemotePolicy = policy_at(address, retries=0, **changes)
        (turn,) = policy.start(prompts(1), 1, seed=0).write([WriteRequest((0, 0), "", 100)])
    return turn


@pytest.mark.parametrize("words", ["a <|im_start|> b", "a <|im_end|>", "<|image_pad|>"])
def test_words_that_spell_a_token_of_the_template_are_no_turn(words: str) -> None:
    turn = written({"choices": [{"message": {"content": words}, "finish_reason": "stop"}]})
    spelt = [token for token in policy_tokens(words) if not policy_at("http://x/v1").tokens.may_say(token)]
    assert bool(turn.error) == bool(spelt) and len(turn.tokens) == (0 if spelt else len(policy_tokens(words)))


def policy_tokens(words: str) -> list[int]:
    return policy_at("http://x/v1").tokens.encode(words)


def test_a_turn_that_does_not_fit_into_a_branch_ends_the_episode() -> None:
    long = {"choices": [{"message": {"content": "word " * 200}, "finish_reason": "stop"}]}
    assert not written(long).no_room and written(long, room=50).no_room
    with odd_serving(OddEngine(completion, lambda number: "")) as address:
        (rollout,) = play(policy_at(address, room=80), 1)
        (whole,) = play(policy_at(address), 1)
    assert rollout.truncated and 0 < len(rollout.tokens) <= 80 < len(whole.tokens) and not rollout.dropped
    np.testing.assert_array_equal(rollout.tokens, whole.tokens[: len(rollout.tokens)])


def test_an_episode_without_a_turn_is_written_down_and_read_again() -> None:
    engine = OddEngine(lambda body: _as_400(dict(FULL)), lambda number: "")
    with odd_serving(engine) as address:
        (rollout,) = play(policy_at(address), 1)
    again = Rollout.from_json(json.loads(json.dumps(rollout.to_json())))
    assert again.turns == () and len(again.tokens) == 0 and again.error == rollout.error
    assert LOOP.turn_tokens > 0 and not again.success and again.step_success == ()
