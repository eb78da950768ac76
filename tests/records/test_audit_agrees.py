"""An audit refuses what a training stage would refuse: it reads records as they are loaded and opens their pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.config.base_config import base_config
from regrpo_jax.errors import UserError
from regrpo_jax.records import audit, load_rot
from regrpo_jax.records.reasons import rule_of
from regrpo_jax.run.run import Run
from regrpo_jax.stages.audit import reasons_of, run
from tests.records.test_record_loading import JSON_VALUES, _paths, _replace

Make = Callable[[], dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (30, 30)).save(tmp_path / "good.png")
    Image.new("RGB", (900, 3)).save(tmp_path / "long.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize(
    ("picture", "rule"),
    [
        ("good.png", None),
        ("gone.png", "image_missing"),
        ("half.png", "image_unreadable"),
        ("text.png", "image_unreadable"),
        ("long.png", "image_unreadable"),
        ("data:image/png;base64,bm8gcGljdHVyZQ==", "image_unreadable"),
        ("https://example.com/a.png", "image_remote"),
    ],
)
def test_pictures(rot_record: Make, executed_record: Make, folder: Path, picture: str, rule: str | None) -> None:
    for record in (rot_record(), executed_record()):
        record["image"] = {"<image_00>": picture}
        record["conversations"][1]["content"] += " <image_00>"
        assert [rule_of(reason) for reason in reasons_of(record, folder)] == ([rule] if rule else [])


@settings(max_examples=60)
@given(data=st.data())
def test_a_random_value_anywhere_is_judged_alike(
    rot_record: Make, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    record = rot_record()
    _replace(record, data.draw(st.sampled_from(list(_paths(record)))), data.draw(JSON_VALUES))
    file = tmp_path_factory.getbasetemp() / "judged.json"
    file.write_text(json.dumps([record]), encoding="utf-8")
    try:
        loaded = len(load_rot(file))
    except UserError:
        loaded = 0
    assert (reasons_of(json.loads(file.read_text())[0], file.parent) == ()) == bool(loaded)


def audited(path: Path, **fields: Any) -> None:
    config = base_config()
    config.data.rot = str(path)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    run(Run(config, path.parent / "run"))


def test_the_stage_fails_where_a_picture_is_missing(rot_record: Make, folder: Path) -> None:
    path = folder / "rot.json"
    path.write_text(json.dumps([rot_record()]))
    audited(path)
    path.write_text(json.dumps([rot_record() | {"image": "gone.png"}]))
    with pytest.raises(UserError, match="1 hard checks fail"):
        audited(path)
    assert json.loads((folder / "run" / "audit.json").read_text())["report"]["broken_rules"] == {"image_missing": 1}


def test_nothing_to_audit_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rot.json"
    path.write_text("[]")
    with pytest.raises(UserError, match="holds no record, so that there is nothing to audit"):
        audited(path)


def test_a_cut_file_is_audited_as_far_as_it_is_loaded(
    rot_record: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rot.json"
    path.write_text(json.dumps([rot_record(), rot_record()])[:-20])
    with pytest.raises(UserError, match="salvage"):
        audited(path)
    with caplog.at_level(logging.WARNING):
        audited(path, data__salvage=True)
    assert "the 1 whole records before are kept" in caplog.text


def test_repeats_are_told_by_what_is_said_and_shown(rot_record: Make) -> None:
    def asks(task: str, name: object, picture: str) -> dict[str, Any]:
        record = rot_record() | {"id": name}
        parts = [{"type": "text", "text": task}, {"type": "image", "image": picture}]
        record["conversations"][1]["content"] = parts
        return record

    records = [asks("Read it.", 1, "a.png"), asks("Read this.", 2, "a.png"), asks("Read it.", 3, "b.png")]
    assert audit(records).hard_failures == 0
    report = audit([*records, asks("Read it.", 4, "a.png"), asks("Read that.", 1, "c.png")])
    assert (report.duplicate_contents, report.duplicate_ids, report.hard_failures) == (("4",), ("1",), 2)
