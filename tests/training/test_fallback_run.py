"""A run whose last checkpoint breaks goes on from the one before it, which time asked for, and ends the same."""

import gc
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from regrpo_jax.main import main
from regrpo_jax.training.checkpoints import StageCheckpoints

TINY = Path(__file__).resolve().parents[1] / "tiny_config.py"


def start(workdir: Path, **fields: Any) -> None:
    fields = {"stages": "('sft',)", "checkpoint.every": 100, "checkpoint.minutes": 1e-6} | fields
    main([f"--config={TINY}", f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in fields.items())])


def arrays(workdir: Path) -> list[np.ndarray]:
    tree = ocp.StandardCheckpointer().restore(workdir / "checkpoints" / "sft" / "12" / "state")
    return [np.array(array) for array in jax.tree.leaves(tree)]  # copies: what jax holds is counted below


def lines(workdir: Path) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if "second" not in name and "memory" not in name} for line in told
    ]


def test_numbers_data_and_lines_are_those_of_the_undisturbed_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path)
    folder = tmp_path / "checkpoints" / "sft"
    assert sorted(int(path.name) for path in folder.iterdir()) == [10, 12]  # a line every two updates, and time is up
    expected, told = arrays(tmp_path), lines(tmp_path)
    largest = max(
        (path for path in (folder / "12" / "state").rglob("*") if path.is_file()), key=lambda x: x.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 3] ^= 1
    largest.write_bytes(content)
    capsys.readouterr()

    gc.collect()
    before, held = sum(array.nbytes for array in jax.live_arrays()), list[int]()  # of other tests, too
    restore = StageCheckpoints.restore

    def watched(self: StageCheckpoints, like: Any) -> Any:
        held.append(sum(array.nbytes for array in jax.live_arrays()))
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(like))
        return restore(self, like)

    monkeypatch.setattr(StageCheckpoints, "restore", watched)
    start(tmp_path)
    said = capsys.readouterr().out
    assert re.search(
        rf"^{folder}: the checkpoint at step 12 cannot be read \(.*\); the one at step 10 is used", said, re.M
    )
    assert "sft: resuming at step 10 of 12" in said
    for array, other in zip(arrays(tmp_path), expected, strict=True):
        assert array.tobytes() == other.tobytes()
    assert lines(tmp_path) == told
    state = sum(array.nbytes for array in expected)
    assert held[0] - before < 0.5 * state, "only the policy is there, no state to restore into"
