"""The stage as a person runs it: numbers in two files, measured once, and records that cannot be replayed named."""

import json
import logging
from pathlib import Path

import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.main import main
from tests.compact_records import MANY

ROOT = Path(__file__).resolve().parents[2]


def test_measured_once_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    records = json.loads(MANY.rot_test.read_text())[:3]
    records[0]["id"] = "spells_a_marker"
    records[0]["conversations"][1]["content"] += " <|im_end|>"
    held_out = tmp_path / "held_out.json"
    held_out.write_text(json.dumps(records))
    workdir = tmp_path / "run"
    arguments = [
        f"--config={ROOT / 'tests' / 'tiny_config.py'}",
        f"--workdir={workdir}",
        "--config.stages=eval",
        f"--config.data.rot={MANY.rot_train}",
        f"--config.data.eval_rot={held_out}",
        "--config.eval.records=3",
    ]
    with caplog.at_level(logging.WARNING):
        main(arguments)
    first = capsys.readouterr().out
    assert "eval: 2 records" in first
    assert "offline replay of 2 held-out records" in first
    assert f"skipped {held_out}: record spells_a_marker: turn 1 contains the tokenizer's control token" in caplog.text

    (column,) = json.loads((workdir / "evaluation.json").read_text()).values()
    (line,) = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert line == {"stage": "eval", "step": 0, **column["overall"]}
    assert column["overall"]["episodes"] == 2.0
    assert sum(values["episodes"] for values in column["by_error_type"].values()) == 2.0
    assert {"recovery", "one_shot", "correction_margin"} <= column["overall"].keys()

    main(arguments)
    second = capsys.readouterr().out
    assert "eval: " not in second  # nothing is measured again, and the table is shown all the same
    assert "offline replay of 2 held-out records" in second
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 1

    (workdir / "evaluation.json").write_text('{"untr')
    with pytest.raises(UserError, match=r"evaluation\.json: not valid JSON any more; remove it"):
        main(arguments)
    (workdir / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"record spells_a_marker"):
        main([*arguments, "--config.data.on_bad_record=fatal", f"--workdir={tmp_path / 'other'}"])
