"""Where else the numbers of a run are shown, as `config.log_to` lists it: TensorBoard, W&B, MLflow, Trackio.

`metrics.jsonl` is the record of a run; a board gets its lines when they are written, as `stage/name` over the steps of
the stage. workdir/boards.json keeps what a board calls the run, so that a second start goes on with it there. A library
is imported where it is asked for, and finds its address and its keys as it always does.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from regrpo_jax.config.command_line import field_values
from regrpo_jax.errors import UserError
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.training.metrics import Board

NAMES_FILE = "boards.json"
EXTRAS = ("wandb", "mlflow", "trackio")  # kinds whose library, of the same name, is an extra of ours


@dataclasses.dataclass(frozen=True)
class ShownRun:
    """A run, as a board is told of it.

    Attributes:
      workdir: the run's folder; its name is the run's.
      config: every field, flat, as on the command line.
      earlier: what the board called it at an earlier start, "" for a run that is new to it.
    """

    workdir: Path
    config: Mapping[str, Any]
    earlier: str

    @property
    def name(self) -> str:
        """What people read."""
        return self.workdir.resolve().name


class TensorBoard:
    """Event files in workdir/tensorboard."""

    run_id = ""

    def __init__(self, target: str, run: ShownRun) -> None:
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(run.workdir / "tensorboard"))

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._events.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        self._events.close()


class WeightsAndBiases:
    """A run of a W&B project. W&B's own step counts lines, so every stage brings its step as a metric."""

    def __init__(self, target: str, run: ShownRun) -> None:
        import wandb

        self.run_id = run.earlier or secrets.token_hex(4)
        self._run = wandb.init(
            project=target, id=self.run_id, name=run.name, config=dict(run.config), dir=str(run.workdir), resume="allow"
        )
        self._stages: set[str] = set()

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log(_named(stage, {"step": step, **values}))

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run on a tracking server. Parameters of MLflow cannot change: they are those of the first start.

    "/" leads into a folder there, and no metric may be a folder too; so `loss/policy` is `loss.policy` beside `loss`.
    """

    def __init__(self, target: str, run: ShownRun) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_tracking_uri(target)
        self.run_id = mlflow.start_run(run_id=run.earlier or None, run_name=run.name).info.run_id
        if not run.earlier:
            mlflow.log_params(dict(run.config))

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        named = {f"{stage}/{name.replace('/', '.')}": value for name, value in values.items()}
        self._mlflow.log_metrics(named, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class Trackio:
    """A run of a Trackio project. Trackio knows a run by its name, so the name is one that no other run has."""

    def __init__(self, target: str, run: ShownRun) -> None:
        import trackio

        self.run_id = run.earlier or f"{run.name}-{secrets.token_hex(4)}"
        self._run = trackio.init(target, name=self.run_id, config=dict(run.config), resume="allow")

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self._run.log(_named(stage, values), step=step)

    def close(self) -> None:
        self._run.finish()


_KINDS: dict[str, type[Any]] = {
    "tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow, "trackio": Trackio,
}  # fmt: skip


def check_boards(config: ConfigDict) -> None:
    """Raises UserError where the library of a board is missing, before a stage has cost time."""
    for place in config.log_to:
        kind = place.partition(":")[0]
        if kind in EXTRAS and importlib.util.find_spec(kind) is None:
            raise UserError(
                f"config.log_to lists {place!r}, and {kind} is not installed: pip install 'regrpo_jax[{kind}]'"
            )


def open_boards(config: ConfigDict, workdir: Path) -> list[Board]:
    """The boards of `config.log_to`, each with the run as it called it before.

    Raises:
      UserError: one cannot be opened: no key, no server, a run that is not there any more.
    """
    path = workdir / NAMES_FILE
    names: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    opened: list[Board] = []
    for place in config.log_to:
        kind, _, target = place.partition(":")
        run = ShownRun(workdir, field_values(config), names.get(place, ""))
        try:
            board = _KINDS[kind](target, run)
        except Exception as error:  # whatever a library of somebody else ends in
            for other in opened:
                other.close()
            known = f" with the run {run.earlier} that {path} names" if run.earlier else ""
            reason = " ".join(str(error).split())
            raise UserError(
                f"config.log_to: {place!r} cannot be opened{known}: {type(error).__name__}: {reason}"
            ) from error
        opened.append(board)
        if board.run_id:
            names[place] = board.run_id
            replace_text(path, json.dumps(names, indent=2) + "\n")
    return opened


def _named(stage: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{stage}/{name}": value for name, value in values.items()}
