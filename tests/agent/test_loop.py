"""The machine of one episode: openings, the gate's modes and timings, retries, steps, budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from regrpo_jax.agent.loop import HELD_BACK, EpisodeLoop, Move, Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import ACTION_OPENING, NO_OPENING, REFLECTION_OPENING, Heard, SampledTurn
from regrpo_jax.agent.rollout import Opener, Rollout, check_rollout
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status

ACTION = ' go on.\n\nCode:\n```py\nread("a")\n```'
REPAIR = f' ArgInvalid\n- Evidence: "Milan" is "Max"\n- FixPlan: read("Max")\nThought:{ACTION}'
NEEDLESS = f"Reflection:\n- ErrorType: None\n- Evidence: all is well\n- FixPlan: go on\nThought:{ACTION}"
OWN_REPAIR = f"{REFLECTION_OPENING}{REPAIR}"
FAILED = Played(Status.TOOL_ERROR, 'NotFound. "Milan" is "Max".', tool_calls=1)
WRONG, RIGHT = Played(Status.OK, "wrong", tool_calls=1), Played(Status.OK, "17", tool_calls=1)
ANSWERED = Played(Status.OK, "17", "answered", success=True)
FINISH_SOON = 10_000


def spoken(opening: str, text: str, *, probability: float = 0.9, finished: bool = True) -> SampledTurn:
    """A turn of one token per character."""
    length = len(text) + finished
    starts = len(opening) + np.arange(length, dtype=np.int32)
    logprobs = np.full(length, math.log(probability), np.float32)
    return SampledTurn(np.arange(len(opening)), np.arange(length), logprobs, opening + text, starts, finished)


class ToldEpisode:
    """An episode that is told what is said and what comes of it; openings are looked up by what they are."""

    def __init__(self, expected: Sequence[str] | None = ("17", "17", "17"), **settings: object) -> None:
        limits = {"turn_tokens": FINISH_SOON, "episode_tokens": 10 * FINISH_SOON}
        self.loop = EpisodeLoop(LoopSettings(**(limits | settings)), expected)  # type: ignore[arg-type]
        self.openings: list[str] = []

    def say(self, text: str, played: Played | None = None, *, probability: float = 0.9, finished: bool = True) -> Move:
        self.openings.append(self.loop.opening())
        turn = spoken(self.openings[-1], text, probability=probability, finished=finished)
        move = self.loop.write_down(turn)
        if move is Move.PLAY:
            assert played is not None
            self.loop.observed(played)
        if not self.loop.done:
            self.loop.heard(Heard(np.array([7, 8]), np.array([False, True])))
        return move

    @property
    def rollout(self) -> Rollout:
        made = self.loop.rollout(task_id="t", group=0, branch=0, policy_version=0, seed=0)
        check_rollout(made)
        return made


def test_a_failure_opens_a_reflection_and_its_repair_belongs_to_the_same_step() -> None:
    episode = ToldEpisode()
    episode.say(ACTION, FAILED)
    episode.say(REPAIR, RIGHT)
    episode.say(ACTION, ANSWERED)
    assert episode.openings == [ACTION_OPENING, REFLECTION_OPENING, ACTION_OPENING]
    found = episode.rollout
    assert found.step_success == (True, True) and [turn.step for turn in found.turns] == [0, 0, 1]
    assert found.turns[1].reflection == Opener.GATE and found.turns[1].grounded and not found.turns[1].needless
    assert found.success and found.failed and not found.first_attempt_success and found.tool_calls == 2
    assert found.reflection_tokens() == found.turns[1].reflection_tokens == REPAIR.index("Thought")
    assert found.attempts() == [0, 1, 0] and [turn.went_right for turn in found.turns] == [False, True, True]
    assert [turn.gate.open for turn in found.turns if turn.gate] == [True, False, False]


def test_the_choice_is_free_after_what_went_well_and_a_step_has_one_block_at_most() -> None:
    episode = ToldEpisode()
    episode.say(ACTION, RIGHT)
    episode.say(NEEDLESS, RIGHT)
    episode.say("Thought:" + ACTION, RIGHT)
    # After a block the choice is not free, called for or not: else it would tell what only the oracle knows.
    assert episode.openings == [ACTION_OPENING, NO_OPENING, ACTION_OPENING]
    turns = episode.rollout.turns
    assert [turn.step for turn in turns] == [0, 1, 2]
    assert turns[1].needless and turns[1].reflection == Opener.POLICY and turns[1].error_type == "None"

    repaired = ToldEpisode()
    repaired.say(ACTION, FAILED)
    repaired.say(REPAIR, RIGHT)
    repaired.say(ACTION, RIGHT)
    assert repaired.openings[2:] == [ACTION_OPENING], "the step has had its block"

    twice = ToldEpisode(retries=3)
    twice.say(ACTION, FAILED)
    twice.say(REPAIR, FAILED)
    twice.say(ACTION, RIGHT)
    assert twice.openings == [ACTION_OPENING, REFLECTION_OPENING, ACTION_OPENING]
    gates = [turn.gate.reason for turn in twice.rollout.turns if turn.gate]
    assert gates == ["tool_error", "block_limit", "none"]


def test_a_wrong_result_that_the_policy_corrects_itself_is_the_same_step() -> None:
    episode = ToldEpisode()
    episode.say(ACTION, WRONG)
    episode.say(OWN_REPAIR, RIGHT)
    found = episode.rollout
    assert [turn.step for turn in found.turns] == [0, 0] and found.step_success == (True,)
    assert not found.turns[1].needless

    unnoticed = ToldEpisode()
    unnoticed.say(ACTION, WRONG)
    unnoticed.say("Thought:" + ACTION, RIGHT)
    assert unnoticed.rollout.step_success == (False, True)

    nobody_knows = ToldEpisode(expected=None)
    nobody_knows.say(ACTION, WRONG)
    nobody_knows.say(OWN_REPAIR, RIGHT)
    assert nobody_knows.rollout.step_success == (True, True) and nobody_knows.rollout.turns[1].needless


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_so_many_failed_attempts_of_a_step_are_allowed(retries: int) -> None:
    episode = ToldEpisode(retries=retries)
    attempts = 0
    while not episode.loop.done:
        episode.say(REPAIR if attempts == 1 else ACTION, FAILED)
        attempts += 1
    assert attempts == retries + 1 and episode.rollout.outcome == "failed_step"
    assert episode.rollout.step_success == (False,) and not episode.rollout.success


def test_modes_of_the_gate() -> None:
    def second_opening(gate: str, probability: float) -> str:
        episode = ToldEpisode(gate=gate)
        episode.say(ACTION, RIGHT, probability=0.9)
        episode.say("Thought:" + ACTION, RIGHT, probability=probability)
        return episode.loop.opening()

    assert second_opening("paper", 0.3) == REFLECTION_OPENING
    assert second_opening("paper", 0.95) == NO_OPENING
    assert second_opening("failure", 0.3) == NO_OPENING
    bare = ToldEpisode(gate="never", retries=2)
    bare.say(ACTION, RIGHT)
    bare.say(ACTION, FAILED)
    bare.say(ACTION, RIGHT, probability=0.1)
    assert bare.openings == [ACTION_OPENING] * 3 and not bare.rollout.reflections
    assert {turn.gate.reason for turn in bare.rollout.turns if turn.gate} == {"never"}


def test_a_gate_that_doubts_what_went_well_opens_a_needless_block() -> None:
    episode = ToldEpisode(gate="paper")
    episode.say(ACTION, RIGHT)
    episode.say("Thought:" + ACTION, RIGHT, probability=0.2)
    episode.say(f" None\n- Evidence: 17\n- FixPlan: go on\nThought:{ACTION}", ANSWERED)
    last = episode.rollout.turns[2]
    assert last.reflection == Opener.GATE and last.needless and last.step == 2


def test_before_it_runs_an_uncertain_action_is_held_back_once() -> None:
    episode = ToldEpisode(gate="paper", timing="pre")
    assert episode.say(ACTION, RIGHT, probability=0.1) is Move.PLAY, "nothing to compare the first with"
    episode.say("Thought:" + ACTION, RIGHT, probability=0.9)
    assert episode.say("Thought:" + ACTION, probability=0.2) is Move.HOLD_BACK
    assert HELD_BACK in episode.loop.user_turn().text
    assert episode.say(REPAIR, RIGHT, probability=0.2) is Move.PLAY, "a revised action runs"
    assert episode.openings == [ACTION_OPENING, NO_OPENING, NO_OPENING, REFLECTION_OPENING]
    found = episode.rollout
    assert [turn.step for turn in found.turns] == [0, 1, 2, 2] and found.step_success == (True, True, True)
    held = found.turns[2]
    assert held.held_back and held.status is None and held.gate is not None and held.gate.reason == "low_confidence"
    assert not found.turns[3].needless and len(found.statuses) == 3
    after = ToldEpisode(gate="paper", timing="pre")
    after.say(ACTION, RIGHT)
    after.say("Thought:" + ACTION, RIGHT, probability=0.95)
    assert after.loop.opening() == NO_OPENING, "what ran is not doubted afterwards"


def test_budgets_end_an_episode() -> None:
    unfinished = ToldEpisode()
    assert unfinished.say(ACTION, finished=False) is Move.END
    assert unfinished.rollout.truncated and unfinished.rollout.outcome == "out_of_tokens"
    assert unfinished.rollout.turns[0].status is None and unfinished.rollout.step_success == (False,)
    assert "unfinished" in unfinished.rollout.turns[0].problems

    steps = ToldEpisode(max_steps=2)
    steps.say(ACTION, RIGHT)
    steps.say("Thought:" + ACTION, RIGHT)
    assert steps.rollout.outcome == "out_of_steps" and not steps.rollout.truncated

    length = len(ACTION) + 1
    tokens = ToldEpisode(episode_tokens=length + 5, turn_tokens=length)
    assert tokens.loop.budget == length
    tokens.say(ACTION, RIGHT)
    assert tokens.loop.budget == 5
    tokens.loop.heard(None)
    assert tokens.loop.done and tokens.rollout.truncated


def test_trouble_of_ours_drops_the_episode_and_opens_nothing() -> None:
    episode = ToldEpisode()
    episode.say(ACTION, Played(Status.INFRA_ERROR, "gone", "infra_error", error="gone"))
    found = episode.rollout
    assert found.dropped and found.error == "gone" and not found.trained.any() and (found.labels >= 3).any()
    assert found.turns[0].gate is not None and not found.turns[0].gate.open


def test_earlier_turns_are_context() -> None:
    loop = EpisodeLoop(LoopSettings(turn_tokens=FINISH_SOON, episode_tokens=FINISH_SOON), ("16", "17"))
    loop.replayed("Thought:" + ACTION, Played(Status.OK, "16"))
    loop.replayed("Thought:" + ACTION, FAILED)
    assert loop.opening() == REFLECTION_OPENING
    loop.write_down(spoken(REFLECTION_OPENING, REPAIR))
    loop.observed(RIGHT)
    assert loop.user_turn().text.startswith("[OUTPUT OF STEP 2]")
    found = loop.rollout(task_id="t", group=0, branch=0, policy_version=0, seed=0)
    assert found.step_success == (True,) and found.turns[0].step == 0 and found.first_attempt_success is False
    assert found.turns[0].grounded and not found.failed


@pytest.mark.parametrize(
    "wrong",
    [{"gate": "always"}, {"timing": "now"}, {"retries": -1}, {"max_steps": 0}, {"gate": "never", "timing": "pre"}],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=r"agent\."):
        LoopSettings(**wrong)


def test_what_only_an_oracle_knows_changes_nothing_that_the_policy_meets() -> None:
    """The same turns and observations, with and without anybody who knows that a picture is another."""
    seen = Played(Status.OK, "look", tool_calls=1, made=(("a.png", "d1"),))
    for said in (
        [(ACTION, seen), (REPAIR, seen), ("Thought:" + ACTION, seen)],
        [(ACTION, seen), (REPAIR, seen), ("Thought:" + ACTION, FAILED)],
        [(ACTION, FAILED), (ACTION, seen), (ACTION, FAILED)],
    ):
        met = []
        for expected in (None, ["look\nd1"], ["look\nd2"], ["look\nd1", "look\nd2"]):
            loop = EpisodeLoop(LoopSettings(gate="failure", retries=1, turn_tokens=400, episode_tokens=4000), expected)
            found = []
            for text, played in said:
                found.append(loop.opening())
                loop.replayed(text, played)
                found.append((loop._gate.open, loop._gate.reason, loop._failures, loop._blocks))
            met.append(found)
        assert all(found == met[0] for found in met)


def test_each_message_of_the_user_has_the_whole_budget_of_actions() -> None:
    further = Played(Status.OK, "17\nTask: and now?", asked_again=True)
    episode = ToldEpisode(None, max_steps=2)
    for played in (RIGHT, further, RIGHT, further, RIGHT):
        assert episode.say(ACTION, played) is Move.PLAY and not episode.loop.done
    episode.say(ACTION, RIGHT)
    assert episode.loop.outcome == "out_of_steps" and len(episode.rollout.turns) == 6
    one_too_many = ToldEpisode(None, max_steps=2)
    one_too_many.say(ACTION, RIGHT)
    one_too_many.say(ACTION, RIGHT)
    assert one_too_many.loop.outcome == "out_of_steps"
