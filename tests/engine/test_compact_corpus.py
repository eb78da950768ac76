"""The compact corpus is valid, honest (actions run again say the same), deterministic and cleanly split."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.engine import CorpusPaths, write_compact_corpus
from regrpo_jax.engine.compact_corpus import PlannedEpisode, open_workspace, plan_episodes, rot_record
from regrpo_jax.engine.compact_tasks import SHARED_WORDS, TRAIN_ONLY_WORDS, Words, write_workspace
from regrpo_jax.engine.compact_tools import execute_action
from regrpo_jax.errors import UserError
from regrpo_jax.records.observation_text import classify_observation_text
from regrpo_jax.records.rot import validate_rot
from regrpo_jax.records.types import ErrorType, Status

TRAIN_RECORDS, TEST_RECORDS, SEED = 400, 80, 3
FAILED_STATUSES = {
    ErrorType.ARG_INVALID: {Status.TOOL_ERROR},
    ErrorType.TOOL_MISMATCH: {Status.TOOL_ERROR, Status.EMPTY},
    ErrorType.INFO_INSUFFICIENT: {Status.TOOL_ERROR},
    ErrorType.GROUNDING_DRIFT: {Status.EMPTY},
    ErrorType.NON_COMMIT: {Status.INVALID_ACTION},
    ErrorType.CODE_ERROR: {Status.INVALID_ACTION},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusPaths:
    folder = tmp_path_factory.mktemp("corpus")
    return write_compact_corpus(folder, train_records=TRAIN_RECORDS, test_records=TEST_RECORDS, seed=SEED)


def records_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def plans(split: str, seed: int = SEED, images: bool = True) -> tuple[PlannedEpisode, ...]:
    records = TRAIN_RECORDS if split == "train" else TEST_RECORDS
    return plan_episodes(split, records=records, seed=seed, images=images)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_seed_fixes_every_byte(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "again", "other")]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        write_compact_corpus(folder, train_records=60, test_records=20, seed=seed)
    first, again, other = (files_below(folder) for folder in folders)
    assert first == again
    assert any(name.endswith(".png") for name in first)
    assert first["rot_train.json"] != other["rot_train.json"]
    assert set(first.values()).isdisjoint(other.values())


def test_the_counts_are_the_ones_asked_for(corpus: CorpusPaths) -> None:
    assert len(records_of(corpus.clean_train)) + len(records_of(corpus.rot_train)) == TRAIN_RECORDS
    assert len(records_of(corpus.clean_test)) + len(records_of(corpus.rot_test)) == TEST_RECORDS
    assert len(records_of(corpus.rot_train)) == 120


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_rot_record_is_valid(corpus: CorpusPaths, split: str) -> None:
    records = records_of(corpus.rot_train if split == "train" else corpus.rot_test)
    assert [reasons for record in records if (reasons := validate_rot(record))] == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_observation_comes_back_when_the_actions_run_again(
    corpus: CorpusPaths, split: str, tmp_path: Path
) -> None:
    folders = {episode.id: tmp_path / episode.id for episode in plans(split)}
    for episode in plans(split):
        folders[episode.id].mkdir()
        write_workspace(episode.task, folders[episode.id])
    paths = [corpus.clean_train, corpus.rot_train] if split == "train" else [corpus.clean_test, corpus.rot_test]
    checked = 0
    for record in [record for path in paths for record in records_of(path)]:
        folder = folders[record["rot_meta"]["src_id"] if "rot_meta" in record else record["id"]]
        turns = record["conversations"]
        for turn, following in itertools.pairwise(turns):
            if turn["role"] == "assistant":
                observation = execute_action(turn["content"], folder)
                assert following["content"].split(" -> Observation:\n")[1] == observation.text
                checked += 1
        assert execute_action(turns[-1]["content"], folder).text == record["answer"]
    assert checked >= len(folders)


@pytest.mark.parametrize("split", ["train", "test"])
def test_failures_fail_and_corrections_find_the_answer(split: str) -> None:
    for episode in plans(split):
        failure, call = episode.failure, episode.task.call
        if failure is None or call is None:
            continue
        with open_workspace(episode.task) as workspace:
            failed = execute_action(f"```py\n{failure.code}\n```", workspace)
            corrected = execute_action(f"```py\n{call.code}\n```", workspace)
        assert failed.status in FAILED_STATUSES[failure.error_type]
        # Written down, the typed status is gone: the text alone must still tell a failure from a result.
        assert (classify_observation_text(failed.text) is Status.OK) == (failed.status is Status.OK)
        assert classify_observation_text(corrected.text) is Status.OK
        assert failure.quote in failed.text
        assert f'"{episode.task.answer}"' not in failed.text
        assert corrected.status is Status.OK
        assert corrected.text.endswith(f'"{episode.task.answer}"')


def test_a_drifted_look_is_for_a_colour_that_is_not_there() -> None:
    drifted = [plan for plan in plans("train") if plan.failure and plan.failure.error_type is ErrorType.GROUNDING_DRIFT]
    assert len(drifted) >= 20
    for plan in drifted:
        assert plan.failure and plan.task.picture and plan.failure.quote == "No object found"
        assert all(f'"{card.colour}"' not in plan.failure.code for card in plan.task.picture.cards)


def test_error_types_have_about_equal_shares_and_two_are_rare(corpus: CorpusPaths) -> None:
    counts = Counter(record["rot_meta"]["error_type"] for record in records_of(corpus.rot_train))
    total = sum(counts.values())
    for error_type in ("ArgInvalid", "GroundingDrift", "ToolMismatch", "InfoInsufficient"):
        assert 0.18 <= counts[error_type] / total <= 0.27
    assert 0.04 <= (counts["NonCommit"] + counts["CodeError"]) / total <= 0.18
    assert counts["NonCommit"] >= 2 and counts["CodeError"] >= 2


def test_reflections_are_short_and_long_about_equally_often(corpus: CorpusPaths) -> None:
    reflections = [record["rot_meta"]["reflection"] for record in records_of(corpus.rot_train)]
    observations = [record["rot_meta"]["failed_observation"] for record in records_of(corpus.rot_train)]
    pairs = list(zip(reflections, observations, strict=True))
    whole = [reflection["evidence"] == observation for reflection, observation in pairs]
    assert 0.4 <= sum(whole) / len(whole) <= 0.6
    assert all(reflection["evidence"] in observation for reflection, observation in pairs)


def test_a_split_knows_nothing_of_the_other(corpus: CorpusPaths) -> None:
    ids = {path: {record["id"] for record in records_of(path)} for path in (corpus.clean_train, corpus.clean_test)}
    assert ids[corpus.clean_train].isdisjoint(ids[corpus.clean_test])
    assert len(ids[corpus.clean_train]) == len(records_of(corpus.clean_train))
    for other_seed in (SEED, SEED + 1):
        test_keys = {plan.task.key for plan in plans("test", other_seed)}
        assert {plan.task.key for plan in plans("train")}.isdisjoint(test_keys)


def _names_in(text: str, words: Words) -> bool:
    return any(f'"{name}' in text for group in (words.stems, words.people, words.cities, words.years) for name in group)


def test_a_third_of_the_train_tasks_share_no_name_with_test(corpus: CorpusPaths) -> None:
    texts = {
        plan.id: plan.task.prompt + json.dumps([plan.task.call and plan.task.call.code, plan.task.files])
        for plan in plans("train")
        if plan.task.family not in ("card", "seeing")
    }
    own = [name for name, text in texts.items() if _names_in(text, TRAIN_ONLY_WORDS)]
    assert 0.28 <= len(own) / len(texts) <= 0.39
    assert not any(_names_in(texts[name], SHARED_WORDS) for name in own)
    for path in (corpus.clean_test, corpus.rot_test):
        assert not any(
            _names_in(turn["content"], TRAIN_ONLY_WORDS) for r in records_of(path) for turn in r["conversations"]
        )


def test_every_rot_record_has_its_clean_record_and_picture(corpus: CorpusPaths) -> None:
    for clean_path, rot_path in (
        (corpus.clean_train, corpus.rot_train),
        (corpus.clean_test, corpus.rot_test),
    ):
        clean = {record["id"]: record for record in records_of(clean_path)}
        for record in records_of(rot_path):
            source = clean[record["rot_meta"]["src_id"]]
            assert (record["image"], record["answer"]) == (source["image"], source["answer"])
        for record in clean.values():
            opening = record["conversations"][1]["content"]
            if not record["image"]:
                assert opening.startswith("Task: ")
                continue
            assert opening.startswith("<image_00>\nTask: ")
            with Image.open(clean_path.parent / record["image"]["<image_00>"]) as image:
                assert image.size == (56, 56)


def test_seeing_drills_name_what_is_in_the_picture(corpus: CorpusPaths) -> None:
    drills = [plan for plan in plans("train") if plan.task.family == "seeing"]
    assert len(drills) == 3 * TRAIN_RECORDS // 10
    for plan in drills:
        assert plan.task.picture is not None
        (card,) = plan.task.picture.cards
        assert plan.task.answer == card.colour
    assert all(plan.task.family != "seeing" for plan in plans("test"))


def test_conversations_stay_short(corpus: CorpusPaths) -> None:
    for path in (corpus.clean_train, corpus.rot_train, corpus.clean_test, corpus.rot_test):
        assert max(sum(len(turn["content"]) for turn in r["conversations"]) for r in records_of(path)) <= 620


def test_without_images_there_is_no_picture(tmp_path: Path) -> None:
    paths = write_compact_corpus(tmp_path, train_records=30, test_records=6, seed=0, images=False)
    records = [record for path in vars(paths).values() for record in records_of(path)]
    assert len(records) == 36
    assert all(record["image"] == {} for record in records)
    assert not (tmp_path / "images").exists()


@settings(max_examples=30, deadline=None)
@given(
    records=st.integers(2, 60),
    seed=st.integers(-5, 10**9),
    images=st.booleans(),
    split=st.sampled_from(["train", "test"]),
)
def test_any_size_gives_exactly_its_records_of_both_kinds(records: int, seed: int, images: bool, split: str) -> None:
    episodes = plan_episodes(split, records=records, seed=seed, images=images)
    with_failure = sum(episode.failure is not None for episode in episodes)
    assert with_failure >= 1 and len(episodes) >= 1
    assert with_failure + len(episodes) == records


def test_a_drill_has_no_rot_record() -> None:
    drill = plans("train")[-1]
    with open_workspace(drill.task) as workspace, pytest.raises(ValueError, match=drill.id):
        rot_record(drill, workspace)


@pytest.mark.parametrize(("train", "test", "name"), [(1, 10, "train_records is 1"), (10, 0, "test_records is 0")])
def test_too_few_records_are_refused_by_name(tmp_path: Path, train: int, test: int, name: str) -> None:
    with pytest.raises(UserError, match=name):
        write_compact_corpus(tmp_path, train_records=train, test_records=test, seed=0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_text("a file where a folder should be", encoding="utf-8")
    with pytest.raises(UserError, match="can't be written to .*blocker.*Name a folder"):
        write_compact_corpus(blocker / "corpus", train_records=4, test_records=2, seed=0)
