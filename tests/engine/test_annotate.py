"""The rule-based teacher: what it quotes, what it plans, and that its records pass the gates after real failures."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.engine.annotate import STYLES, AnnotationRefused, annotate
from regrpo_jax.engine.cases import ArgumentShape, CleanStep, Failure, NearMiss, Situation, ToolShape
from regrpo_jax.engine.execute import Refused, play_failure
from regrpo_jax.engine.gates import gate_reasons
from regrpo_jax.engine.suite_source import own_failures, situation_of
from regrpo_jax.engine.writing import rot_record
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records import ErrorType, Observation, Status, telling_span
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import LOADERS, families, make_task, plan_of
from regrpo_jax.suites.toolrepair.plan import Repair
from regrpo_jax.suites.toolrepair.suite import ToolRepair
from regrpo_jax.suites.toolrepair_tools.compact_toolset import TRAINING_TOOLS

TASK = make_task("moved", "train", 1, surprises=0.0)
TOOLS = {name: ToolShape(name, "", (ArgumentShape("name", "string"),)) for name in ("read", "pick", "sheet", "count")}
EAGLE = 'Error at `read("eagle")`: NotFound. "Milan" is "Max", "Delhi" is "Leo". "Ann" at "bridge", "Leo" at "tiger".'


def failure_of(
    failed: str,
    corrected: str,
    text: str,
    error_type: ErrorType = ErrorType.ARG_INVALID,
    hint: Repair | None = None,
    repaired: str = 'total "79"',
) -> Failure:
    steps = (CleanStep("open it.", corrected), CleanStep("done.", 'final_answer("79")'))
    situation = Situation("oracle", "t", TASK, "Call one tool.", "Task: x", steps, 0, TOOLS)
    observations = (Observation(Status.TOOL_ERROR, text), Observation(Status.OK, repaired), Observation(Status.OK, ""))
    return Failure(situation, NearMiss(error_type, "rule", "open it.", failed, hint), observations, True)


HINT = Repair(ErrorType.ARG_INVALID, '"Delhi" is "Leo"', ('"Leo" at "tiger"',), 'use "tiger"', 'read("tiger")')
USAGE = 'Error at `read(3)`: read: "name" must be str, not int. Usage: read(name: str) -> str'
UNKNOWN = "Error at `reed(\"oak\")`: InterpreterError: 'reed' is not among the allowed tools\nTools: pick, read."
# failed, corrected, observation, (evidence, plan)
SHORT = [
    ('read("eagle")', 'read("tiger")', EAGLE, ('"Leo" at "tiger"', 'use "tiger"')),
    ('read("elm")', 'pick("elm")', 'Error at `x`: Unavailable. "elm" is "csv".', ('"elm" is "csv"', 'call "pick"')),
    ('count("red")', 'count("a", "red")', '"count" wants "a", then b', ('"count" wants "a", then b', 'add "a"')),
    ('count("a", "b")', 'count("a")', 'too much: "b" as well', ('too much: "b" as well', 'drop "b"')),
    ('sheet("a")["x"]', 'sheet("a")["y"]', 'LookupError: no "x". "x" in "y".', ('"x" in "y"', 'use "y"')),
    ("read(3)", 'read("oak")', USAGE, ('read: "name" must be str, not int', 'use "oak"')),
    ('reed("oak")', 'read("oak")', UNKNOWN, ("InterpreterError: 'reed' is not among the allowed tools", 'call "read"')),
    ('"79"', 'final_answer("79")', "79", ("79", 'answer "79"')),
    ('read("oak"', 'read("oak")', "Error: SyntaxError: not closed", ("SyntaxError: not closed", "mend the code")),
    ('read("oak")', 'read("elm")', "[]", ("[]", 'use "elm"')),
]  # fmt: skip


@pytest.mark.parametrize(("failed", "corrected", "text", "expected"), SHORT)
def test_short_reflections(failed: str, corrected: str, text: str, expected: tuple[str, str]) -> None:
    reflection = annotate(failure_of(failed, corrected, text), random.Random(0), style="short")
    assert (reflection.evidence, reflection.fix_plan) == expected


def test_what_the_source_knows_is_used_and_half_of_it_is_long() -> None:
    failure = failure_of('read("eagle")', 'read("tiger")', EAGLE, hint=HINT)
    found = [annotate(failure, random.Random(seed), style="short") for seed in range(200)]
    assert {reflection.evidence for reflection in found} == {HINT.evidence}
    plans = [reflection.fix_plan for reflection in found]
    assert set(plans) == {'use "tiger"', '"Leo" at "tiger", use "tiger"'}
    assert 70 < plans.count('use "tiger"') < 130


def test_sentences_vary_and_name_the_values() -> None:
    failure = failure_of('read("eagle")', 'read("tiger")', EAGLE, hint=HINT)
    found = [annotate(failure, random.Random(seed), style="sentences") for seed in range(100)]
    assert len({reflection.evidence for reflection in found}) >= 8
    assert len({reflection.fix_plan for reflection in found}) >= 5
    assert all(HINT.evidence in reflection.evidence for reflection in found)
    assert all('"tiger"' in reflection.fix_plan and "read(" not in reflection.fix_plan for reflection in found)


@pytest.mark.parametrize("text", ["", " \n", 'Error at `read("eagle")`:', "Error: ", "Error at `x`: \n"])
@pytest.mark.parametrize("style", STYLES)
def test_where_nothing_is_told_nothing_is_made_up(text: str, style: str) -> None:
    with pytest.raises(AnnotationRefused, match="^no_telling_span: "):
        annotate(failure_of('read("eagle")', 'read("tiger")', text), random.Random(0), style=style)


def test_evidence_that_is_too_short_is_quoted_with_its_clause() -> None:
    text = "Error at `int(note(3))`: ValueError: invalid literal for int() with base 10: '25 box'"
    hint = Repair(ErrorType.CODE_ERROR, "25 box", (), 'take "25"', "x")
    failure = failure_of("int(note(3))", "int(note(3)[0])", text, ErrorType.CODE_ERROR, hint)
    reflection = annotate(failure, random.Random(0), style="short")
    assert "25 box" in reflection.evidence and reflection.evidence in text and reflection.fix_plan == 'take "25"'


def test_what_the_repaired_observation_says_as_well_tells_nothing() -> None:
    text = 'page 3 of "eagle". nothing was found there.'
    failure = failure_of('read("eagle")', 'read("tiger")', text, repaired='page 3 of "eagle". total "79".')
    assert annotate(failure, random.Random(0), style="short").evidence == "nothing was found there"


def test_long_observations_are_quoted_in_part() -> None:
    text = f"{'word ' * 200}the note is tiger {'word ' * 200}"
    for style, most in (("short", 14), ("sentences", 60)):
        evidence = annotate(failure_of('read("eagle")', 'read("tiger")', text), random.Random(0), style=style).evidence
        assert "is tiger" in evidence and len(evidence.split()) <= most


def test_long_values_are_not_written_into_the_plan() -> None:
    failure = failure_of('read("eagle")', f'read("{"long " * 40}")', 'NotFound. no "eagle".')
    assert annotate(failure, random.Random(0), style="short").fix_plan == "mend the code"


def test_another_style_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(UserError, match="choose one of short, sentences"):
        annotate(failure_of("a", "b", "c"), random.Random(0), style="verse")


WORDS = st.lists(
    st.sampled_from(['"tiger"', '"eagle"', "is", "at", ",", ".", "\n", "NotFound", "3", "[]", "Tools: read"])
)
ANY_TEXT = WORDS.map(" ".join) | st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@given(ANY_TEXT, st.sampled_from(SHORT), st.sampled_from(ErrorType), st.sampled_from(STYLES), st.integers())
def test_evidence_is_of_the_observation_and_all_follows_from_the_seed(
    text: str, case: tuple[str, str, str, tuple[str, str]], error_type: ErrorType, style: str, seed: int
) -> None:
    failure = failure_of(case[0], case[1], text, error_type)
    try:
        reflection = annotate(failure, random.Random(seed), style=style)
    except AnnotationRefused as refusal:
        assert str(refusal).startswith("no_telling_span: ")
        return
    assert telling_span(reflection.evidence, text)
    assert reflection.evidence in text or style == "sentences"
    assert reflection.error_type == error_type and reflection.fix_plan.strip()
    assert case[1] not in reflection.fix_plan
    assert annotate(failure, random.Random(seed), style=style) == reflection


@pytest.fixture(scope="module")
def compact() -> Iterator[Environment]:
    with Environment.start(SandboxSettings(workers=1, spares=0), loader=LOADERS["compact"]) as environment:
        yield environment


def _near_misses(task: Task, situation: Situation) -> list[tuple[int, NearMiss]]:
    """The suite's own surprises, and some of those that rules make, at the first step and at the last."""
    code, last = situation.step.code, len(situation.steps) - 1
    tool = code.partition("(")[0]
    other = code.replace(tool, "fetch" if tool != "fetch" else "scan", 1)
    own = [(at, miss) for at, attempt in enumerate(plan_of(task).attempts) for miss in own_failures(attempt)]
    return [
        *own,
        (0, NearMiss(ErrorType.CODE_ERROR, "rule", "go on.", code[:-1])),
        (0, NearMiss(ErrorType.CODE_ERROR, "rule", "go on.", f"re{code}")),
        (0, NearMiss(ErrorType.ARG_INVALID, "rule", "go on.", f"{tool}(3)")),
        (0, NearMiss(ErrorType.TOOL_MISMATCH, "rule", "go on.", other)),
        (last, NearMiss(ErrorType.NON_COMMIT, "rule", "go on.", json.dumps(plan_of(task).answer))),
    ]  # fmt: skip


@pytest.mark.parametrize("family", families("compact"))
def test_records_of_real_failures_pass_the_gates(compact: Environment, family: str) -> None:
    task = replace(make_task(family, "train", 3, 2, surprises=1.0), tools=tuple(sorted(TRAINING_TOOLS)))
    situation = situation_of(task, ToolRepair().tools, brief=True)
    played = []
    for at, miss in _near_misses(task, situation):
        try:
            played.append(play_failure(compact, replace(situation, index=at), miss))
        except Refused as refusal:
            assert miss.proposer == "rule", refusal
    assert len(played) >= 5
    for failure in played:
        for style in STYLES:
            reflection = annotate(failure, random.Random(1), style=style)
            record = rot_record(
                failure, reflection, number=1, annotator="rules", loader=LOADERS["compact"], seed=task.seed
            )
            assert gate_reasons(record) == (), (failure.near_miss, reflection)
