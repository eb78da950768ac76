"""The lines of a run: one object each, and none left of what a resumed run does again."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrpo_jax.training.metrics import MetricsWriter, StageProgress


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[MetricsWriter]:
    writer = MetricsWriter(tmp_path)
    yield writer
    writer.close()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_write_appends_one_object_a_line(writer: MetricsWriter, tmp_path: Path) -> None:
    writer.write("sft", 1, {"loss": 2.5})
    writer.write("rl", 1, {"reward": 0.25})
    assert lines(tmp_path) == [
        {"stage": "sft", "step": 1, "loss": 2.5},
        {"stage": "rl", "step": 1, "reward": 0.25},
    ]


def test_drop_after_forgets_later_lines_of_that_stage_only(writer: MetricsWriter, tmp_path: Path) -> None:
    for stage, step in (("eval", 0), ("sft", 2), ("sft", 4), ("rl", 9), ("sft", 6)):
        writer.write(stage, step, {})
    writer.drop_after("sft", 4)
    assert [(line["stage"], line["step"]) for line in lines(tmp_path)] == [
        ("eval", 0),
        ("sft", 2),
        ("sft", 4),
        ("rl", 9),
    ]


@pytest.mark.parametrize("cut", ['{"stage": "sft", "st', '{"stage": "sft", "step": 3', "", "3"])
def test_a_line_cut_short_by_a_crash_is_forgotten(tmp_path: Path, cut: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 2}\n' + cut)
    writer = MetricsWriter(tmp_path)
    writer.write("eval", 2, {"recovery": 0.5})
    writer.close()
    assert lines(tmp_path) == [{"stage": "sft", "step": 2}, {"stage": "eval", "step": 2, "recovery": 0.5}]


def test_drop_after_forgets_a_cut_line_too(writer: MetricsWriter, tmp_path: Path) -> None:
    writer.write("sft", 2, {})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "rl", "step": 1, "rew')
    writer.drop_after("sft", 5)
    assert lines(tmp_path) == [{"stage": "sft", "step": 2}]


def test_drop_after_without_a_file_makes_none(writer: MetricsWriter, tmp_path: Path) -> None:
    writer.drop_after("sft", 0)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_progress_into_a_file_tells_what_is_done_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress("sft", 4, done=2, seconds_between_lines=3600) as progress:
        progress.advance(1, "loss 2.000")
        assert capsys.readouterr().err == ""
        progress.advance(1, "loss 1.000")
    told = capsys.readouterr().err
    assert told.startswith("sft 4/4 ")
    assert "0 s left" in told and "loss 1.000" in told
