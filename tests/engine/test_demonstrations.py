"""Demonstrations: skills are shown right, decisions as often wrong as asked, and the real tools speak in between."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.agent.parse import parse_turn
from regrpo_jax.data.tokenizer import train_tokenizer
from regrpo_jax.engine import drills
from regrpo_jax.engine.demonstrations import (
    PROFILE,
    Habits,
    demonstrate,
    needless_reflection,
    record_of,
    script_of,
    value_in,
    write_demonstrations,
)
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.recovery import FAILURES
from regrpo_jax.records import load_clean
from regrpo_jax.records.actions import extract_code
from regrpo_jax.records.reflection import parse_reflection, split_reflection
from regrpo_jax.records.types import Observation, Status
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import LOADERS, families, make_suite, make_task, plan_of
from regrpo_jax.suites.toolrepair.words import CITIES, PEOPLE, STEMS, YEARS
from regrpo_jax.suites.toolrepair_tools.quoting import q

CAREFUL = Habits(careful=1.0, reflecting=1.0, long=1.0, needless=0.0, trusting=1.0)
seeds = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def environment():
    with Environment.start(SandboxSettings(workers=1), loader=LOADERS[PROFILE]) as started:
        yield started


def played(script, observations):
    """The turns of a script that is sent these observations."""
    turns = [next(script)]
    for seen in observations:
        try:
            turns.append(script.send(seen))
        except StopIteration:
            break
    return turns


def failing(seed: int, family: str = "moved"):
    return make_task(family, "train", seed, 2, surprises=1.0)


BAD, GOOD = Observation(Status.TOOL_ERROR, "Error: NotFound."), Observation(Status.OK, 'total "42"')


class TestScript:
    """What the agent says, given what comes back."""

    @given(seed=seeds)
    def test_the_answer_is_what_was_seen(self, seed: int) -> None:
        turns = played(script_of(plan_of(failing(seed)), Random(seed), Habits()), [BAD, GOOD])
        assert extract_code(turns[-1]) == 'final_answer("42")'

    @given(seed=seeds)
    def test_it_ends_when_the_repair_fails_as_well(self, seed: int) -> None:
        assert len(played(script_of(plan_of(failing(seed)), Random(seed), Habits()), [BAD, BAD, GOOD])) == 2

    @given(seed=seeds)
    def test_careful_means_the_plans_repair_and_hasty_the_other(self, seed: int) -> None:
        attempt = plan_of(failing(seed)).attempts[0]
        for careful in (0.0, 1.0):
            habits = Habits(careful=careful, reflecting=1.0, needless=0.0)
            retry = played(script_of(plan_of(failing(seed)), Random(seed), habits), [BAD])[1]
            repair = attempt.repair if careful else attempt.hasty or attempt.repair
            assert extract_code(retry) == repair.code
            assert parse_reflection(retry).evidence == repair.evidence

    @given(seed=seeds)
    def test_a_thought_says_what_a_reflection_says_and_decides_like_it(self, seed: int) -> None:
        """The control that may think: the same words and actions, in the thought of the retry; every retry has it."""
        plan = plan_of(failing(seed))
        block = played(script_of(plan, Random(seed), Habits(reflecting=1.0)), [BAD, GOOD])
        thinking = played(script_of(plan, Random(seed), Habits(reflecting=1.0, diagnosis="thought")), [BAD, GOOD])
        hardly = Habits(reflecting=0.0, diagnosis="thought")
        assert len(block) == len(thinking)
        for told, thought in zip(block, thinking, strict=True):
            assert extract_code(told) == extract_code(thought)
            assert parse_turn(thought).reflection_end == 0 and parse_turn(thought).problems == ()
            said = parse_turn(told)
            if said.reflects:
                opening = f"{said.error_type}: {said.evidence}, so {said.fix_plan}. "
                assert parse_turn(thought).thought == opening + said.thought
            else:
                assert thought == told
        assert "so" in parse_turn(played(script_of(plan, Random(seed), hardly), [BAD])[1]).thought

    @given(seed=seeds)
    def test_a_bare_retry_decides_like_a_reflected_one(self, seed: int) -> None:
        codes = []
        for reflecting in (0.0, 1.0):
            habits = Habits(reflecting=reflecting, needless=0.0)
            turns = played(script_of(plan_of(failing(seed)), Random(seed), habits), [BAD])
            codes.append(extract_code(turns[1]))
            assert turns[1].startswith("Reflection:") == bool(reflecting)
        assert codes[0] == codes[1]

    @given(seed=seeds)
    def test_long_reflections_write_the_facts_down(self, seed: int) -> None:
        plan = plan_of(failing(seed))
        retry = played(script_of(plan, Random(seed), CAREFUL), [BAD])[1]
        repair = plan.attempts[0].repair
        assert parse_reflection(retry) == repair.reflection(long=True)
        assert all(fact in parse_reflection(retry).fix_plan for fact in repair.facts)

    @given(seed=seeds)
    def test_hints_are_followed_or_seen_through(self, seed: int) -> None:
        plan = plan_of(failing(seed, "region"))
        first = {trust: next(script_of(plan, Random(seed), Habits(trusting=trust))) for trust in (0.0, 1.0)}
        assert extract_code(first[1.0]) == plan.attempts[0].code != extract_code(first[0.0])
        assert extract_code(first[0.0]) == plan.attempts[0].direct

    def test_shares_are_those_asked_for(self) -> None:
        careful = reflected = needless = tasks = 0
        for seed in range(1500):
            attempt = plan_of(task := failing(seed)).attempts[0]
            if attempt.hasty is None:
                continue
            turns = played(script_of(plan_of(task), Random(seed), Habits()), [BAD, GOOD])
            tasks += 1
            careful += extract_code(turns[1]) == attempt.repair.code
            reflected += turns[1].startswith("Reflection:")
            needless += turns[2].startswith(needless_reflection(GOOD.text))
        assert careful / tasks == pytest.approx(0.4, abs=0.06)
        assert reflected / tasks == pytest.approx(0.5, abs=0.06)
        assert needless / tasks == pytest.approx(0.1, abs=0.04)

    @given(text=st.text(st.characters(exclude_characters='"\n'), min_size=1))
    def test_the_value_of_an_observation(self, text: str) -> None:
        assert value_in(f'"old" by "Ann", total {q(text)}') == text and value_in(text) == text

    def test_a_needless_reflection_is_cut_off_and_is_no_reflection(self) -> None:
        block = needless_reflection('total "42"')
        assert split_reflection(block + "Thought: go on") == (block, "Thought: go on")
        assert parse_reflection(block) is None


class TestPlayed:
    """With the real tools in between."""

    @pytest.mark.parametrize("family", families(PROFILE))
    def test_careful_demonstrations_succeed(self, environment: Environment, family: str) -> None:
        for difficulty in (1, 2, 3):
            task = make_task(family, "train", 7, difficulty, surprises=1.0)
            shown = demonstrate(environment, task, Random(0), CAREFUL)
            assert extract_code(shown.turns[-1]) == f"final_answer({q(plan_of(task).answer)})"
            assert any(seen.status in FAILURES for seen in shown.observations)
            for turn, seen in zip(shown.turns[1:], shown.observations, strict=True):
                reflection = parse_reflection(turn)
                assert (reflection is not None) == (seen.status in FAILURES)
                assert reflection is None or reflection.evidence in seen.text

    def test_hasty_ones_fail_or_answer_wrongly(self, environment: Environment) -> None:
        hasty = Habits(careful=0.0, trusting=1.0)
        tasks = make_suite("train", 54, 3, PROFILE, surprises=1.0)
        wrong = [task for task in tasks if plan_of(task).attempts[-1].hasty is not None]
        assert len(wrong) > 10
        for task in wrong:
            shown = demonstrate(environment, task, Random(0), hasty)
            right = extract_code(shown.turns[-1]) == f"final_answer({q(plan_of(task).answer)})"
            assert not right, task.id

    def test_steps_count_all_actions(self, environment: Environment) -> None:
        shown = demonstrate(environment, failing(4), Random(0), CAREFUL)
        told = [turn["content"] for turn in record_of(shown, 0)["conversations"] if turn["role"] == "user"][1:]
        assert [text.split("]")[0] for text in told] == ["[OUTPUT OF STEP 0", "[OUTPUT OF STEP 1"]
        assert all(seen.text in text for seen, text in zip(shown.observations, told, strict=True))


class TestFiles:
    """What is written can be read and is the same each time."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("demonstrations")
        write_demonstrations(folder, 36, 5, drills=1.5, pictured=0.0, workers=2)
        return folder

    def test_they_are_clean_trajectories(self, folder: Path) -> None:
        records = load_clean(str(folder / "demonstrations-*.jsonl"), on_bad_record="fatal")
        episodes = [record for record in records if record.id.startswith("demonstration")]
        assert len(episodes) == 36 and 36 < len(records) - len(episodes) < 72
        assert all(record.conversation[-1].role == "assistant" for record in records)
        assert any(record.images for record in records)

    def test_one_worker_writes_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        (again,) = write_demonstrations(tmp_path, 36, 5, drills=1.5, pictured=0.0, workers=1)
        assert again.read_bytes() == (folder / again.name).read_bytes()
        assert {path.name for path in (tmp_path / "images").iterdir()} == {
            path.name for path in (folder / "images").iterdir()
        }

    def test_another_seed_gives_others(self, folder: Path, tmp_path: Path) -> None:
        (other,) = write_demonstrations(tmp_path, 36, 6, drills=1.5, pictured=0.0, workers=2)
        ours = {json.loads(line)["conversations"][1]["content"] for line in (folder / other.name).open()}
        theirs = {json.loads(line)["conversations"][1]["content"] for line in other.open()}
        assert len(ours & theirs) < 10

    def test_names_are_one_token_each_whatever_stands_around_them(self, folder: Path) -> None:
        records = load_clean(str(folder / "demonstrations-*.jsonl"))
        names = [q(word) for word in (*STEMS, *PEOPLE, *CITIES, *YEARS)]
        texts = [f"{turn.role}\n{turn.content}" for record in records for turn in record.conversation]
        tokenizer = train_tokenizer([*texts, *[" ".join(names)] * 20], vocab_size=1300)
        for name in names:
            (token,) = tokenizer(name, add_special_tokens=False)["input_ids"]
            for text in (f"read({name})", f"{name} is {name}.", f"for {name}, with", f"- FixPlan: use {name}\n"):
                assert tokenizer(text, add_special_tokens=False)["input_ids"].count(token) == text.count(name)


class TestDrills:
    """Short questions with one right answer."""

    @given(seed=seeds)
    def test_recall_tells_what_it_asks(self, seed: int) -> None:
        exercise = drills.recall(Random(seed))
        told, asked = exercise.question.split(" Recall ")
        pairs = [pair.strip(".") for pair in told.split(", ")]
        answers = [pair.strip(".") for pair in exercise.answer.split(", ")]
        assert set(answers) == set(pairs) and not exercise.pictured
        assert [answer.split(" ")[0] for answer in answers] == asked.strip(".").split(", ")

    @given(seed=seeds, family=st.sampled_from(("region", "colour")))
    def test_pictures_are_read_as_they_were_drawn(self, seed: int, family: str) -> None:
        task = make_task(family, "train", seed, seed % 3 + 1)
        drawn = dict(reversed(name.split("@")) for name in task.metadata["names"] if "@" in name)
        assert drills.cards_of(task) == drawn
        assert drills.caption(drawn).answer.count(" at ") == len(drawn)
        assert drills.find(drawn, Random(seed)).answer.count(" at ") == len(drawn)
        assert drills.look(drawn, Random(seed)).answer.count('"nothing"') == 4 - len(drawn)

    @pytest.mark.parametrize("family", ("count", "moved"))
    def test_other_tasks_have_no_cards(self, family: str) -> None:
        assert drills.cards_of(make_task(family, "train", 1)) == {}

    def test_explanations_lead_to_the_fix(self) -> None:
        task = failing(3)
        repair = plan_of(task).attempts[0].repair
        explained = drills.explain(task.instruction, BAD.text, repair)
        assert explained.answer == ", ".join((repair.evidence, *repair.facts, repair.fix)) + "."
        assert explained.answer.endswith(drills.tell(task.instruction, BAD.text, repair).answer)
        assert task.instruction in explained.question and BAD.text in explained.question
