"""Groups of episodes over the real suite: what is played, judged and dropped, whoever the policy is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from regrpo_jax.agent.loop import Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import REFLECTION_OPENING, Branch
from regrpo_jax.agent.rollout import Opener, Rollout
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.reflection import render_reflection
from regrpo_jax.records.types import Observation, Status
from regrpo_jax.rollouts import collect
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.shared_play import Action, Node, SharedPlay
from regrpo_jax.rollouts.states import MIDDLE, NEAR_MISS, START, TaskState, middle_states, with_forced_failures
from regrpo_jax.sandbox.results import Tape
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import LOADERS, make_suite
from tests.rollouts.scripted_policy import ScriptedPolicy


def fields(rollout: Rollout) -> list:
    arrays = [array.tolist() for array in (rollout.tokens, rollout.labels, rollout.logprobs, rollout.steps)]
    return [*map(vars, rollout.turns), *arrays, rollout.step_success, rollout.outcome]


class Actors:
    """Branch 0 plays the oracle's script, 1 repeats what failed, 2 answers at once and wrongly, 3 writes no code."""

    def __init__(self, tasks: list[Task], skipped: int = 0) -> None:
        self.tasks, self.skipped = tasks, skipped

    def __call__(self, branch: Branch, opening: str, number: int) -> str:
        task = self.tasks[branch[0]]
        steps = task.oracle
        step = steps[min(number + self.skipped, len(steps) - 1)]
        if branch[1] == 0:
            block = "" if step.reflection is None else render_reflection(step.reflection)
            return (block + dataclasses.replace(step, reflection=None).turn()).removeprefix(opening)
        if branch[1] == 1:
            again = dataclasses.replace(steps[0], reflection=None).turn()
            if opening == REFLECTION_OPENING:
                return f" None\n- Evidence: nothing\n- FixPlan: go on\n{again}"
            return again.removeprefix(opening)
        if branch[1] == 2:
            return ' done.\n\nCode:\n```py\nfinal_answer("wrong")\n```'
        return " I do not know."


@pytest.fixture
def renderer(reader: ConversationReader) -> ChatRenderer:
    return ChatRenderer(reader.renderer.tokenizer)  # of a policy that does not see


@pytest.fixture(scope="module")
def blind(tasks: list[Task]) -> list[Task]:
    return [task for task in tasks if not task.images]


@pytest.fixture
def rules(settings: CollectSettings) -> CollectSettings:
    return dataclasses.replace(
        settings, branches=4, loop=LoopSettings(retries=1, max_steps=8, turn_tokens=400, episode_tokens=3000)
    )


def test_what_becomes_of_four_ways_to_act(
    environment: Environment, renderer: ChatRenderer, blind: list[Task], rules: CollectSettings
) -> None:
    groups, counts = collect_groups(environment, ScriptedPolicy(renderer, Actors(blind)), blind, rules, seed=1)
    assert counts.dropped == 0 and not counts.refused and counts.episodes == 4 * len(blind)
    assert counts.runs < counts.actions, "branches that do the same share an episode"
    surprises = 0
    for group, task in zip(groups, blind, strict=True):
        oracle, stubborn, hasty, mute = group.rollouts
        fails = [step.fails for step in task.oracle]
        assert oracle.success and all(oracle.step_success), [turn.observation for turn in oracle.turns]
        assert len(oracle.step_success) == fails.count(False)
        assert [status != Status.OK for status in oracle.statuses] == fails
        assert [turn.reflection == Opener.GATE for turn in oracle.turns] == [False, *fails[:-1]]
        assert all(turn.grounded and not turn.needless for turn in oracle.reflections)
        assert oracle.first_attempt_success == (not any(fails))
        assert oracle.tool_calls >= len(fails) - 1
        assert not hasty.success and hasty.outcome == "answered" and hasty.step_success == (False,)
        assert mute.statuses == (Status.INVALID_ACTION,) * 2 and mute.outcome == "failed_step"
        if fails[0]:
            surprises += 1
            assert stubborn.outcome == "failed_step" and stubborn.step_success == (False,)
            assert [turn.step for turn in stubborn.turns] == [0, 0] and stubborn.turns[1].reflection == Opener.GATE
        assert group.start == START and not group.forced and group.task_id == task.id
    assert surprises > 1


def test_a_right_action_that_is_done_again_is_no_step_of_the_task(
    environment: Environment, renderer: ChatRenderer, rules: CollectSettings
) -> None:
    tasks = [task for task in make_suite("train", 9, 8, surprises=0.0) if not task.images][:2]
    groups, _ = collect_groups(environment, ScriptedPolicy(renderer, Actors(tasks)), tasks, rules, seed=1)
    for group in groups:
        again = group.rollouts[1]
        assert again.outcome == "out_of_steps" and again.statuses == (Status.OK,) * 8
        assert again.step_success[0] and not any(again.step_success[2:])


def test_states_from_the_middle_and_after_near_misses(
    environment: Environment, renderer: ChatRenderer, blind: list[Task], rules: CollectSettings
) -> None:
    forced = with_forced_failures(blind, 1.0, seed=3)
    chosen = [state for state in forced if state.forced and len(state.before) == 1]
    assert len(chosen) > 1 and all(state.start == NEAR_MISS for state in chosen)
    assert not any(state.forced for state in with_forced_failures(blind, 0.0, seed=3))
    tasks = [state.task for state in chosen]
    groups, _ = collect_groups(environment, ScriptedPolicy(renderer, Actors(tasks, skipped=1)), chosen, rules, seed=1)
    for group, state in zip(groups, chosen, strict=True):
        assert group.forced and group.start == NEAR_MISS
        oracle = group.rollouts[0]
        assert oracle.success and all(oracle.step_success) and oracle.turns[0].reflection == Opener.GATE
        assert oracle.turns[0].grounded, "the failed observation stands in the prefix"
        text = renderer.tokenizer.decode(group.prefix)
        assert state.before[0].split("```py\n")[1].split("\n")[0] in text and "[OUTPUT OF STEP 0]" in text
        assert oracle.turns[0].step == 0 and oracle.first_attempt_success

    played, _ = collect_groups(environment, ScriptedPolicy(renderer, Actors(tasks)), tasks, rules, seed=1)
    states = middle_states(tasks[0], played[0].rollouts[0])
    assert [state.start for state in states][:2] == [NEAR_MISS, MIDDLE]
    again, counts = collect_groups(
        environment, ScriptedPolicy(renderer, Actors([tasks[0]], skipped=2)), [states[1]], rules, seed=1
    )
    assert again[0].rollouts[0].success and all(again[0].rollouts[0].step_success)
    assert again[0].start == MIDDLE and not counts.refused
    over = TaskState(tasks[0], tuple(step.turn() for step in tasks[0].oracle))
    with pytest.raises(UserError, match="over after the turns before"):
        collect_groups(environment, ScriptedPolicy(renderer, Actors(tasks)), [over], rules, seed=1)


def test_the_bare_arm_never_reflects(
    environment: Environment, renderer: ChatRenderer, blind: list[Task], rules: CollectSettings
) -> None:
    bare = dataclasses.replace(rules, loop=dataclasses.replace(rules.loop, gate="never"))

    def act(branch: Branch, opening: str, number: int) -> str:
        assert opening == "Thought:"
        steps = blind[branch[0]].oracle
        return dataclasses.replace(steps[number], reflection=None).turn().removeprefix(opening)

    groups, _ = collect_groups(environment, ScriptedPolicy(renderer, act), blind, bare, seed=1)
    for group in groups:
        for rollout in group.rollouts:
            assert rollout.success and not rollout.reflections and rollout.reflection_tokens() == 0


def test_the_same_whatever_the_number_of_workers(
    environment: Environment, renderer: ChatRenderer, blind: list[Task], rules: CollectSettings
) -> None:
    first, _ = collect_groups(environment, ScriptedPolicy(renderer, Actors(blind)), blind, rules, seed=5)
    with Environment.start(SandboxSettings(workers=1), loader=LOADERS["compact"]) as alone:
        second, _ = collect_groups(alone, ScriptedPolicy(renderer, Actors(blind)), blind, rules, seed=5)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.prefix, other.prefix)
        assert list(map(fields, one.rollouts)) == list(map(fields, other.rollouts))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Codes at which the sandbox fails, as often as each stands in the list."""
    codes: list[str] = []
    step = Episode._observed

    def observed(self: Episode, code: str, tape: Tape) -> tuple:
        if code in codes:
            codes.remove(code)
            result, observation = step(self, "", tape)
            broken = dataclasses.replace(result, status=Status.INFRA_ERROR, text="the sandbox failed: gone")
            return broken, Observation(Status.INFRA_ERROR, "the sandbox failed: gone")
        return step(self, code, tape)

    monkeypatch.setattr(Episode, "_observed", observed)
    yield codes


def test_trouble_of_ours_is_tried_again_and_then_drops_the_rollouts(
    environment: Environment, renderer: ChatRenderer, blind: list[Task], rules: CollectSettings, broken: list[str]
) -> None:
    task = blind[0]
    policy = ScriptedPolicy(renderer, Actors([task]))
    expected: dict = {}
    clean, _ = collect_groups(environment, policy, [task], rules, seed=1, expected=expected)
    broken += ['final_answer("wrong")']
    mended, counts = collect_groups(environment, policy, [task], rules, seed=1, expected=expected)
    assert list(map(fields, mended[0].rollouts)) == list(map(fields, clean[0].rollouts)) and counts.retried == 1
    broken += ['final_answer("wrong")'] * 4
    groups, counts = collect_groups(environment, policy, [task], rules, seed=1, expected=expected)
    lost = groups[0].rollouts[2]
    assert counts.dropped == 1 and lost.dropped and not lost.trained.any() and "gone" in lost.error
    assert [rollout.branch for rollout in groups[0].counted] == [0, 1, 3]
    assert not lost.success and lost.statuses == (Status.INFRA_ERROR,)


def test_an_oracle_that_cannot_be_played_refuses_the_task(
    environment: Environment, renderer: ChatRenderer, blind: list[Task], rules: CollectSettings, broken: list[str]
) -> None:
    policy = ScriptedPolicy(renderer, Actors(blind))
    whole, _ = collect_groups(environment, policy, blind, rules, seed=1)
    broken += [blind[0].oracle[0].code] * 4
    expected: dict = {}
    groups, counts = collect_groups(environment, policy, blind, rules, seed=1, expected=expected)
    assert blind[0].id not in expected and blind[0].id in counts.refused[0]
    assert [group.task_id for group in groups] == [task.id for task in blind[1:]]
    for group, as_ever in zip(groups, whole[1:], strict=True):
        for one, other in zip(group.rollouts, as_ever.rollouts, strict=True):
            assert [(turn.text, turn.status, turn.observation, turn.right) for turn in one.turns] == [
                (turn.text, turn.status, turn.observation, turn.right) for turn in other.turns
            ]
            assert (one.step_success, one.outcome) == (other.step_success, other.outcome)


class Clock:
    """Time that passes only when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("who", ["sampling", "actions"])
def test_the_clock_of_a_collection_counts_actions_and_stops_the_run(
    environment: Environment,
    renderer: ChatRenderer,
    blind: list[Task],
    rules: CollectSettings,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
) -> None:
    """A minute passes at each turn: in the policy, which may be compiling, or in the sandbox. Nothing is dropped."""
    clock, wait, script = Clock(), SharedPlay.wait, Actors(blind[:1])
    monkeypatch.setattr(collect, "time", clock)

    def slow(branch: Branch, opening: str, number: int) -> str:
        clock.now += 60.0 * (who == "sampling")
        return script(branch, opening, number)

    def waited(self: SharedPlay, nodes: Iterable[Node], patience: float | None = None) -> dict[Node, Played]:
        clock.now += 60.0 * (who == "actions")
        return wait(self, nodes, patience)

    monkeypatch.setattr(SharedPlay, "wait", waited)
    policy = ScriptedPolicy(renderer, slow)
    expected: dict = {}
    groups, counts = collect_groups(environment, policy, blind[:1], rules, seed=1, expected=expected)
    assert counts.dropped == 0 and len(groups[0].rollouts) == 4  # no limit is the default
    limited = dataclasses.replace(rules, seconds=30.0)
    if who == "sampling":
        assert collect_groups(environment, policy, blind[:1], limited, seed=1, expected=expected)[1].dropped == 0
    else:
        with pytest.raises(UserError, match=r"taken 60 seconds, \d of 4 episodes are not over.*collect_seconds=30"):
            collect_groups(environment, policy, blind[:1], limited, seed=1, expected=expected)


def test_where_a_repetition_differs_what_was_seen_stands_and_the_branch_goes_on(
    environment: Environment, blind: list[Task]
) -> None:
    task = blind[0]
    first, second = task.oracle[0].turn(), task.oracle[1].turn()
    with SharedPlay(environment, [task]) as play:
        begun = play.play([Action(0, (), first)])[0]
        one, other = play.play([Action(0, (first,), second), Action(0, (first,), "Thought: no code.")])
        assert one.status != Status.INFRA_ERROR and other.status == Status.INVALID_ACTION and play.runs == 3
        key = next(iter(play._played))
        play._played[key] = dataclasses.replace(begun, text="something else")
        found = play.play([Action(0, (first,), "Thought: x\n```py\n1\n```")])[0]
        assert (found.status, found.text) == (Status.OK, "1")
        assert [episode.differed for episode in play._episodes.values() if episode.differed] == [1]


def test_pictures_are_kept_once_under_their_digest(
    environment: Environment, tasks: list[Task], settings: CollectSettings, reader: ConversationReader
) -> None:
    seeing = [task for task in tasks if task.images][:1]
    policy = ScriptedPolicy(ChatRenderer(reader.renderer.tokenizer), Actors(seeing))
    policy.start = lambda prompts, branches, seed: pytest.fail(str(prompts[0].images))  # type: ignore[method-assign]
    with pytest.raises(pytest.fail.Exception, match=seeing[0].files[0].digest[:10]):
        collect_groups(environment, policy, seeing, settings, seed=1)
    files = list(Path(settings.image_folder).iterdir())
    assert {path.stem for path in files} == {file.digest for file in seeing[0].files if file.name in seeing[0].images}
