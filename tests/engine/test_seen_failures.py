"""Records of failures that no status tells: what they hold, what is refused, what another play finds."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.agent.shown_pictures import NO_PICTURES, PictureLimits
from regrpo_jax.engine.annotate import annotate
from regrpo_jax.engine.cases import NearMiss, Situation
from regrpo_jax.engine.execute import Refused, play_failure, play_shown
from regrpo_jax.engine.gates import gate_reasons
from regrpo_jax.engine.replay import replay_record
from regrpo_jax.engine.shards import copy_pictures, write_images
from regrpo_jax.engine.showing import Showing
from regrpo_jax.engine.suite_source import own_failures, situation_of
from regrpo_jax.engine.tool_shapes import shapes_of
from regrpo_jax.engine.writing import clean_record, rot_record
from regrpo_jax.environments.environment import Environment
from regrpo_jax.errors import UserError
from regrpo_jax.records.rot_rules import validate_rot
from regrpo_jax.records.types import ErrorType, Status
from regrpo_jax.suites.toolrepair import LOADERS, make_task, plan_of
from regrpo_jax.suites.toolrepair.suite import ToolRepair

SEEN = ("zoom", "plot", "compare")


@pytest.fixture
def showing(tmp_path: Path) -> Showing:
    return Showing(PictureLimits(), tmp_path / "pictures")


def situation(family: str, seed: int = 0) -> tuple[Situation, NearMiss]:
    task = make_task(family, "train", seed, 1, surprises=1.0)
    (miss,) = own_failures(plan_of(task).attempts[0])
    return situation_of(task, ToolRepair().tools, brief=True), miss


def record_of(environment: Environment, family: str, showing: Showing, seed: int = 0) -> dict[str, Any]:
    at, miss = situation(family, seed)
    failure = play_failure(environment, at, miss, showing)
    told = annotate(failure, random.Random(seed), style="short")
    return rot_record(failure, told, number=seed, annotator="rules", loader=LOADERS["compact"], seed=at.task.seed)


@pytest.mark.parametrize("family", SEEN)
def test_a_record_holds_the_pictures_that_its_steps_made(
    compact_environment: Environment, family: str, showing: Showing, tmp_path: Path
) -> None:
    record = record_of(compact_environment, family, showing)
    assert gate_reasons(record) == ()
    meta, execution = record["rot_meta"], record["execution"]
    assert execution["steps"][execution["failed_step"]]["status"] == Status.OK
    assert execution["seen"].endswith(meta["reflection"]["evidence"])
    assert meta["reflection"]["evidence"] not in meta["failed_observation"]
    made = [placeholder for placeholder, name in record["image"].items() if len(Path(name).stem) == 64]
    text = "\n".join(turn["content"] for turn in record["conversations"] if turn["role"] == "user")
    assert len(made) == 2 and all(text.count(placeholder) == 1 for placeholder in made)
    write_images(tmp_path / "corpus", [situation(family)[0].task])
    copy_pictures(showing.folder, tmp_path / "corpus", [record])
    assert all((tmp_path / "corpus" / name).exists() for name in record["image"].values())
    for path in showing.folder.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="a picture of a record is gone"):
        copy_pictures(showing.folder, tmp_path / "elsewhere", [record])


def test_evidence_that_no_pixel_bears_out_is_refused(compact_environment: Environment, showing: Showing) -> None:
    record = record_of(compact_environment, "zoom", showing)
    for evidence in ("only black", "zoom_topleft.png: <image_01>", "the card is not here"):
        wrong = json.loads(json.dumps(record))
        for holder in (wrong["rot_meta"]["reflection"],):
            holder["evidence"] = evidence
        text = wrong["conversations"][4]["content"]
        wrong["conversations"][4]["content"] = text.replace(
            f"Evidence: {record['rot_meta']['reflection']['evidence']}", f"Evidence: {evidence}"
        )
        assert any(reason.startswith("evidence") for reason in gate_reasons(wrong)), evidence
    unseen = json.loads(json.dumps(record))
    del unseen["execution"]["seen"]
    assert any(reason.startswith(("failed_status", "evidence")) for reason in validate_rot(unseen))


def test_a_picture_that_is_no_other_is_no_failure(compact_environment: Environment, showing: Showing) -> None:
    at, _ = situation("zoom")
    for kind in (ErrorType.GROUNDING_DRIFT, ErrorType.NON_COMMIT):
        with pytest.raises(Refused, match="near_miss_succeeds"):
            play_failure(compact_environment, at, NearMiss(kind, "test", "look.", at.step.code), showing)
    at, miss = situation("zoom")
    with pytest.raises(Refused, match="near_miss_is_silent"):  # nothing is shown, so nothing can be seen
        play_failure(compact_environment, at, miss, replace(showing, limits=NO_PICTURES))


@pytest.mark.parametrize("family", SEEN)
def test_another_play_finds_the_same_pictures_or_says_so(
    compact_environment: Environment, family: str, showing: Showing
) -> None:
    record, at = record_of(compact_environment, family, showing), situation(family)[0]
    known = ({at.task.id: at.task}, shapes_of(ToolRepair().tools.loaded), showing.limits)
    assert replay_record(compact_environment, record, *known) == ()
    other = json.loads(json.dumps(record))
    other["execution"]["seen"] = "zoom_topleft.png: only white"
    (reason,) = replay_record(compact_environment, other, *known)
    assert reason.startswith("replay_seen")
    other = json.loads(json.dumps(record))
    made = [placeholder for placeholder, name in record["image"].items() if len(Path(name).stem) == 64]
    other["image"][made[0]] = f"images/{'0' * 64}.png"
    (reason,) = replay_record(compact_environment, other, *known)
    assert reason.startswith("replay_pictures")


def test_a_clean_trajectory_shows_what_it_looked_at(compact_environment: Environment, showing: Showing) -> None:
    at, _ = situation("zoom", seed=3)
    shown = play_shown(compact_environment, at, showing)
    record = clean_record(at, shown.observations, shown.images, number=0, recorded=shown.recorded)
    assert "recorded_steps" not in record
    assert list(record["image"]) == ["<image_00>", "<image_01>"]
    assert record["conversations"][3]["content"].endswith(": <image_01>")
