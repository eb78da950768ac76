"""What shows a run beside `metrics.jsonl`: told the same, one run over there, and no reason for training to end.

W&B, MLflow and Trackio are tried where they are installed, each in its local mode; none is needed for the tests.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.errors import UserError
from regrpo_jax.run.boards import EXTRAS, check_boards, open_boards
from regrpo_jax.training.metrics import MetricsWriter


class Remembering:
    """A board that keeps what it is told, until it fails."""

    run_id = ""

    def __init__(self, fails_at: int = -1) -> None:
        self.told: list[tuple[str, int, dict[str, float]]] = []
        self.fails_at, self.closed = fails_at, 0

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise ConnectionError("the server\nis gone")
        self.told.append((stage, step, dict(values)))

    def close(self) -> None:
        self.closed += 1


def write_run(workdir: Path, *log_to: str, first: int = 1) -> str:
    """Three lines of a stage and one of a measurement; what a board calls the run."""
    config = base_config()
    config.log_to = log_to
    check_boards(config)
    workdir.mkdir(exist_ok=True)
    writer = MetricsWriter(workdir, open_boards(config, workdir))
    for step in range(first, first + 3):
        writer.write("sft", step, {"loss": 1 / step, "loss/policy": 2.0})
    writer.write("recovery", first, {"success": 0.5})
    writer.close()
    names = json.loads((workdir / "boards.json").read_text()) if (workdir / "boards.json").exists() else {}
    return names.get(log_to[-1], "")


def test_boards_are_told_every_line_and_closed(tmp_path: Path) -> None:
    boards = Remembering(), Remembering()
    writer = MetricsWriter(tmp_path, boards)
    writer.write("sft", 1, {"loss": 2.5})
    writer.close()
    for board in boards:
        assert board.told == [("sft", 1, {"loss": 2.5})] and board.closed == 1


def test_a_board_that_fails_is_told_no_more_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other = Remembering(fails_at=2), Remembering()
    writer = MetricsWriter(tmp_path, (failing, other))
    for step in (1, 2, 3):
        writer.write("sft", step, {})
    writer.close()
    assert [step for _, step, _ in failing.told] == [1] and failing.closed == 1
    assert [step for _, step, _ in other.told] == [1, 2, 3]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1 and "Remembering" in warnings[0] and "the server is gone" in warnings[0]


def test_tensorboard_gets_the_names_and_nothing_else_is_written_down(tmp_path: Path) -> None:
    assert write_run(tmp_path, "tensorboard") == ""
    written = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"sft/loss/policy" in written and b"recovery/success" in written
    assert not (tmp_path / "boards.json").exists()


def test_without_boards_there_is_no_folder(tmp_path: Path) -> None:
    write_run(tmp_path, "tensorboard")
    config = base_config()
    config.log_to = ()
    assert open_boards(config, tmp_path / "other") == [] and not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", EXTRAS)
def test_a_library_that_is_missing_is_told_with_its_extra(kind: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(kind):
        pytest.skip(f"{kind} is installed")
    with pytest.raises(UserError, match=rf"lists '{kind}:shop'.*not installed: pip install 'regrpo_jax\[{kind}\]'"):
        write_run(tmp_path, "tensorboard", f"{kind}:shop")
    assert not (tmp_path / "tensorboard").exists()


def test_wandb_goes_on_with_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    name = write_run(tmp_path / "a-run", "wandb:shop")
    assert name and write_run(tmp_path / "a-run", "wandb:shop", first=3) == name
    folders = sorted((tmp_path / "a-run" / "wandb").glob(f"offline-run-*-{name}"))
    assert 1 <= len(folders) <= 2  # two starts within a second share theirs
    written = b"".join(path.read_bytes() for folder in folders for path in folder.glob("*.wandb"))
    assert all(word in written for word in (b"sft/loss/policy", b"sft/step", b"recovery/success", b"optimizer"))
    assert wandb.run is None


def test_mlflow_goes_on_with_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = f"mlflow:file:{tmp_path / 'runs'}"
    name = write_run(tmp_path / "a-run", place)
    assert write_run(tmp_path / "a-run", place, first=3) == name
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (name, "a-run", "FINISHED")
    assert run.data.params["seed"] == "0" and run.data.metrics["sft/loss.policy"] == 2
    history = mlflow.MlflowClient().get_metric_history(name, "sft/loss")
    assert sorted((one.step, one.value) for one in history) == [(step, 1 / step) for step in (1, 2, 3, 3, 4, 5)]
    with pytest.raises(UserError, match=f"cannot be opened with the run {name} that .*boards.json names"):
        mlflow.MlflowClient().delete_run(name)
        write_run(tmp_path / "a-run", place)


def test_trackio_goes_on_with_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    name = write_run(tmp_path / "a-run", "trackio:shop")
    assert name.startswith("a-run-") and write_run(tmp_path / "a-run", "trackio:shop", first=3) == name
    assert SQLiteStorage.get_runs("shop") == [name]
    lines = SQLiteStorage.get_logs("shop", name)
    assert sorted(line["step"] for line in lines if "sft/loss" in line) == [1, 2, 3, 3, 4, 5]
