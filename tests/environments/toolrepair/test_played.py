"""The suite in the sandbox: the oracle solves it, evidence stands in what the tools say, baselines fall behind."""

from collections.abc import Iterator

import pytest

from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeResult
from regrpo_jax.environments.recovery import FAILURES, metrics, statuses, summary, to_json
from regrpo_jax.environments.task import OracleStep, Task
from regrpo_jax.records.reflection import cites_observation, split_reflection
from regrpo_jax.records.rot_rules import validate_rot
from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import (
    BASELINES,
    LOADERS,
    evidence_span,
    families,
    make_suite,
    make_task,
    plan_of,
)


@pytest.fixture(scope="module")
def compact() -> Iterator[Environment]:
    with Environment.start(SandboxSettings(workers=2), loader=LOADERS["compact"]) as made:
        yield made


@pytest.fixture(scope="module")
def full() -> Iterator[Environment]:
    with Environment.start(SandboxSettings(workers=1, spares=0, wall_seconds=60), loader=LOADERS["full"]) as made:
        yield made


def check_oracle(results: list[EpisodeResult]) -> None:
    """Solved, failing where the script says so, with evidence in the failed observation and the answer in sight."""
    for result in results:
        task = result.task
        assert result.success, (task.id, result.outcome, result.error, result.steps[-1:])
        assert len(result.steps) == len(task.oracle)
        assert [status in FAILURES for status in statuses(result)] == [step.fails for step in task.oracle]
        repairs = [attempt.repair for attempt in plan_of(task).attempts if attempt.repair is not None]
        for number, step in enumerate(result.steps):
            if step.reflection is not None:
                told = result.steps[number - 1].observation
                assert told is not None and cites_observation(step.reflection.evidence, told.text)
                repair = next(repair for repair in repairs if repair.code == step.code)
                start, end = evidence_span(repair, told.text)
                assert told.text[start:end] == repair.evidence == step.reflection.evidence
        shown = " ".join(step.observation.text for step in result.steps[:-1] if step.observation is not None)
        assert str(task.checker.value) in shown


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_oracle_solves_compact(compact: Environment, split: str) -> None:
    check_oracle(run_episodes(compact, make_suite(split, 81, 1, "compact", surprises=0.8), BASELINES["oracle"]))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_oracle_solves_full(full: Environment, split: str) -> None:
    tasks = [make_task(family, split, 4, 2, "full", surprises=1) for family in families("full")]
    check_oracle(run_episodes(full, tasks, BASELINES["oracle"]))


def played(environment: Environment, task: Task, steps: list[tuple[str, str]]) -> EpisodeResult:
    turns = [OracleStep(thought, code).turn() for thought, code in steps]
    return run_episodes(environment, [task], lambda task, done: turns[min(len(done), len(turns) - 1)])[0]


def test_hasty_repairs_fail_and_direct_actions_work(compact: Environment) -> None:
    hasty = direct = 0
    for task in make_suite("train", 54, 2, "compact", surprises=1):
        before: list[tuple[str, str]] = []
        for attempt in plan_of(task).attempts:
            if attempt.hasty is not None:
                hasty += 1
                result = played(
                    compact, task, [*before, ("", attempt.code), ("", attempt.hasty.code), ("", "final_answer(0)")]
                )
                assert attempt.repair is not None and attempt.hasty.code != attempt.repair.code
                observation = result.steps[len(before) + 1].observation
                assert observation is not None
                # A wrong repair fails, or reads something else than the answer.
                assert observation.status in FAILURES or f'"{task.checker.value}"' not in observation.text
            if attempt.direct:
                direct += 1
                result = played(compact, task, [*before, ("", attempt.direct), ("", "final_answer(0)")])
                assert statuses(result)[len(before)] == Status.OK
            before.append(("", attempt.repair.code if attempt.repair else attempt.code))
    assert hasty > 15 and direct > 8


def test_baselines_fall_behind(compact: Environment) -> None:
    tasks = make_suite("test", 90, 6, "compact")
    told = {name: metrics(run_episodes(compact, tasks, policy)) for name, policy in BASELINES.items()}
    unsurprised = 1 - (told["oracle"]["surprises"] or 0)
    assert told["oracle"]["success"] == told["oracle"]["recovery"] == 1
    assert told["oracle"]["first_attempt_success"] == pytest.approx(unsurprised)
    assert unsurprised <= (told["never_repairs"]["success"] or 0) <= unsurprised + 0.06
    assert (told["never_repairs"]["recovery"] or 0) < 0.1
    assert (told["random"]["success"] or 0) < 0.05


def test_same_results_twice_and_with_other_numbers_of_workers(compact: Environment) -> None:
    tasks = make_suite("test", 27, 8, "compact")
    lines = []
    with Environment.start(SandboxSettings(workers=1, spares=0), loader=LOADERS["compact"]) as alone:
        for environment in (compact, compact, alone):
            results = run_episodes(environment, tasks, BASELINES["oracle"])
            lines.append([{**to_json(result), "seconds": None} for result in results])
            assert summary(results)["overall"]["success"] == 1
    assert lines[0] == lines[1] == lines[2]


def rot_record(result: EpisodeResult) -> dict[str, object]:
    """The played episode in the authors' schema, as the data engine writes it."""
    task, steps = result.task, result.steps
    number = next(number for number, step in enumerate(steps) if step.reflection is not None)
    reflection, failed, told = steps[number].reflection, steps[number - 1], steps[number - 1].observation
    assert reflection is not None and told is not None
    conversation = [{"role": "system", "content": "Solve the task."}, {"role": "user", "content": task.instruction}]
    for place, step in enumerate(steps):
        conversation.append({"role": "assistant", "content": step.text})
        if step.observation is not None and place < len(steps) - 1:
            text = f"[OUTPUT OF STEP {place}] -> Observation:\n{step.observation.text}"
            conversation.append({"role": "user", "content": text})
    fields = {"error_type": str(reflection.error_type), "evidence": reflection.evidence}
    return {
        "id": task.id,
        "image": {},
        "answer": str(task.checker.value),
        "conversations": conversation,
        "rot_meta": {
            "src_id": task.id,
            "step_index": number - 1,
            "error_type": str(reflection.error_type),
            "failed_action": failed.text,
            "failed_observation": told.text,
            "reflection": fields | {"fix_plan": reflection.fix_plan},
            "corrected_action": split_reflection(steps[number].text)[1],
            "final_answer": str(task.checker.value),
        },
    }


def test_played_repairs_make_records_fit_for_training(compact: Environment) -> None:
    tasks = [make_task(family, "train", 11, 2, "compact", surprises=1) for family in families("compact")]
    for result in run_episodes(compact, tasks, BASELINES["oracle"]):
        # The rule on ToolMismatch knows the usual tools by name and no others; test_suite.py looks at ours.
        reasons = [reason for reason in validate_rot(rot_record(result)) if not reason.startswith("tool_mismatch")]
        assert not reasons, (result.task.id, reasons)
