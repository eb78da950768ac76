"""A run that is given more updates later ends where one ends that had them from the beginning, records included."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from regrpo_jax.data import loader
from regrpo_jax.main import main
from regrpo_jax.models.safetensors_files import read_tensors, tensor_shapes
from tests.compact_records import FEW, MANY, CorpusPaths

TINY = Path(__file__).resolve().parents[1] / "tiny_config.py"
# A schedule that knows how many updates there will be would differ by that alone.
CONSTANT = {"warmup_steps": 0, "final_learning_rate_share": 1.0}
HALF = {
    "model.dtype": "bfloat16",
    "model.param_dtype": "bfloat16",
    "optimizer.trainable": "full",
    "export_weights": True,
}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """(folder, stage, updates, overrides) -> the ids of the records of each batch of groups that it trained on."""
    visited: list[list[str]] = []
    collate = loader.collate_groups

    def remembering(groups: Any, *args: Any, **options: Any) -> Any:
        visited.append([group.record_id for group in groups])
        return collate(groups, *args, **options)

    monkeypatch.setattr(loader, "collate_groups", remembering)

    def run(folder: str, stage: str, updates: int, overrides: dict[str, Any]) -> list[list[str]]:
        visited.clear()
        fields = {"log_every": 1, "checkpoint.every": 1, f"{stage}.steps": updates}
        fields |= {f"optimizer.{name}": value for name, value in CONSTANT.items()} | overrides
        arguments = [f"--config={TINY}", f"--workdir={tmp_path / folder}", f"--config.stages={stage}"]
        main([*arguments, *(f"--config.{field}={value}" for field, value in fields.items())])
        return list(visited)

    return run


def checkpoint(workdir: Path, stage: str, step: int) -> dict[str, np.ndarray]:
    arrays = ocp.StandardCheckpointer().restore(workdir.absolute() / "checkpoints" / stage / str(step) / "state")
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(arrays)}


@pytest.mark.parametrize(
    ("stage", "records", "overrides"),
    [
        ("rl", MANY, {}),  # more records than are visited
        ("rl", FEW, {}),  # so few that the longer run comes to some of them again
        ("rl", MANY, {"data.curriculum": "success-paced"}),
        ("preference", MANY, {"preference.pairs_per_batch": 2}),
        ("sft", FEW, HALF),
    ],
    ids=("rl", "rl twice", "rl paced", "preference", "sft in bfloat16"),
)
def test_three_updates_and_three_more_are_six(
    start: Callable[..., list[list[str]]], tmp_path: Path, stage: str, records: CorpusPaths, overrides: dict[str, Any]
) -> None:
    overrides = overrides | {"data.rot": records.rot_train, "data.clean": records.clean_train}
    whole = start("whole", stage, 6, overrides)
    first, rest = start("parts", stage, 3, overrides), start("parts", stage, 6, overrides)
    assert first + rest == whole
    if stage != "sft":
        assert [len(batch) for batch in whole] == [2] * 6
    expected, arrays = (checkpoint(tmp_path / folder, stage, 6) for folder in ("whole", "parts"))
    assert arrays.keys() == expected.keys() and any("trainable" in name for name in arrays)
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    if stage == "sft":
        _check_types(arrays, tmp_path / "parts" / "model" / "model.safetensors")


def _check_types(arrays: dict[str, np.ndarray], exported: Path) -> None:
    """Trained in float32, moments included, and written as the config says."""
    counts = ("step", "count")
    assert {str(x.dtype) for name, x in arrays.items() if not any(word in name for word in counts)} == {"float32"}
    tensors = dict(read_tensors(exported, list(tensor_shapes(exported))))
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"bfloat16"}
