"""The notebook for free TPUs, all of its cells, on the tiny preset: what a person would run, with smaller numbers."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "qwen2_vl_2b_tpu.ipynb"
SMALL = (
    "--config.suite.profile=compact", "--config.suite.families=moved,service", "--config.engine.records=12",
    "--config.engine.clean=6", "--config.model.hidden_size=32", "--config.model.num_layers=1",
    "--config.model.images=False", "--config.model.dtype=float32", "--config.model.param_dtype=float32",
    "--config.model.remat=none", "--config.data.prefix_buckets=512", "--config.data.branch_buckets=256",
    "--config.sft.steps=2", "--config.sft.batch_rows=4", "--config.sft.row_length=1024", "--config.sft.row_patches=0",
    "--config.optimizer.microbatches=1", "--config.log_every=1", "--config.online.steps=1", "--config.online.tasks=2",
    "--config.online.branches=2", "--config.recovery.tasks=2", "--config.recovery.episodes=1",
    "--config.agent.turn_tokens=16", "--config.agent.episode_tokens=32", "--config.environment.workers=2",
)  # fmt: skip


def with_parameters(notebook: Any, **values: Any) -> Any:
    """The notebook with other values of the fields in its cell "parameters"; each has to be there."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    lines = cell.source.splitlines()
    for name, value in values.items():
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{name} = ")]
        lines[place] = f"{name} = {value!r}"
    cell.source = "\n".join(lines)
    return notebook


def said(notebook: Any) -> str:
    outputs = (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    return "".join(output.get("text", "") for output in outputs)


@pytest.fixture
def notebook(tmp_path: Path) -> Any:
    return with_parameters(
        nbformat.read(NOTEBOOK, as_version=4),
        PROJECT=str(ROOT),
        INSTALL=False,
        ACCELERATOR="",
        MODEL="",
        TOPOLOGY="",
        PLANNED="sft",
        WORKDIR=str(tmp_path / "run"),
        OPTIONS=list(SMALL),
    )


def test_all_cells_run_on_the_tiny_preset_and_go_on(notebook: Any, tmp_path: Path) -> None:
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, resources=folder).execute()
    text = said(notebook)
    assert "actions run behind walls" in text
    assert "whether it fits cannot be told" in text and (tmp_path / "run-plan" / "plan.md").exists()
    assert len(json.loads((tmp_path / "run" / "recovery.json").read_text())) == 2
    assert "report written to" in text and (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_nothing_of_a_session_is_in_the_file() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_what_it_installs_is_there() -> None:
    """The cell that a test leaves out names a tool and extras of the project."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert {"tools", "tpu", "cuda"} <= set(setup["options.extras_require"])
    text = NOTEBOOK.read_text()
    assert "source tools/environment {extras}" in text and (ROOT / "tools" / "environment").exists()
    for name in re.findall(r"configs/\w+\.py|docs/\w+\.md", text):
        assert (ROOT / name).exists(), name
