"""Whole files load: ours, and the authors' own samples where these lie beside the repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.records import (
    Rejection,
    Status,
    audit,
    classify_observation_text,
    contrastive_candidates,
    load_clean,
    load_rot,
    parse_reflection,
    parse_trajectory,
    read_records,
    rot_to_dict,
)

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "regrpo_samples"
Make = Callable[[], dict[str, Any]]


@pytest.fixture
def ours(tmp_path: Path, rot_record: Make, clean_record: Make) -> dict[str, Path]:
    """Sample files of our own, by the prefix of the authors' names."""
    rot, clean = tmp_path / "rot.json", tmp_path / "clean.jsonl"
    rot.write_text(json.dumps([rot_record()]), encoding="utf-8")
    clean.write_text(json.dumps(clean_record()) + "\n", encoding="utf-8")
    return {"rot": rot, "mat": clean}


def _files(prefix: str) -> list[Path | str]:
    return [prefix, *sorted(SAMPLES.glob(f"{prefix}_*.json"))]


@pytest.mark.parametrize("file", _files("rot"), ids=str)
def test_recoveries_load_whole(file: Path | str, ours: dict[str, Path]) -> None:
    path = ours[file] if isinstance(file, str) else file
    rejections: list[Rejection] = []
    raw, records = read_records(path), load_rot(path, on_bad_record="fatal", rejections=rejections)
    assert len(records) == len(raw) > 0 and not rejections
    assert [rot_to_dict(record) for record in records] == raw
    report = audit(raw)
    assert (report.valid, dict(report.broken_rules), report.hard_failures) == (len(raw), {}, 0)


@pytest.mark.parametrize("file", _files("rot"), ids=str)
def test_recoveries_have_groups_and_steps(file: Path | str, ours: dict[str, Path]) -> None:
    path = ours[file] if isinstance(file, str) else file
    for record in load_rot(path):
        group = contrastive_candidates(record)
        assert [candidate.success for candidate in group] == [True, False, True, True, False]
        assert group[2].reflection + group[2].action == record.conversation[record.reflection_turn].content
        steps = parse_trajectory(record).steps
        assert [step.reflection for step in steps if step.reflection] == [record.reflection]
        assert steps[-1].tool_calls[-1].name == "final_answer"


@pytest.mark.parametrize("file", _files("mat"), ids=str)
def test_clean_trajectories_load_whole(file: Path | str, ours: dict[str, Path]) -> None:
    path = ours[file] if isinstance(file, str) else file
    trajectories = load_clean(path, on_bad_record="fatal")
    assert len(trajectories) == len(read_records(path)) > 0
    for trajectory in trajectories:
        assert trajectory.task.startswith("Task: ") and trajectory.answer
        assert all(parse_reflection(step.text) is None and step.tool_calls for step in trajectory.steps)
        texts = [step.observation.text for step in trajectory.steps if step.observation]
        assert texts and all(classify_observation_text(text) is Status.OK for text in texts)
