"""The loop of a training stage: from its last checkpoint to its end, with lines and checkpoints on the way."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from regrpo_jax.data.loader import Batches
from regrpo_jax.errors import UserError
from regrpo_jax.models.logprobs import default_chunk
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sharding import place
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.metrics import MetricsWriter, StageProgress
from regrpo_jax.training.parallel import shard_batch
from regrpo_jax.training.state import TrainState, adapter_settings, initial_state, split_variables, trained_policy
from regrpo_jax.training.steps import Step

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What every stage needs.

    Attributes:
      config: the whole configuration.
      workdir: the run's folder.
      functions: the policy.
      mesh: the devices, see `parallel.device_mesh`.
      image_token_id: the id that stands for image features, -1 without images.
      writer: the run's metrics.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    functions: PolicyFunctions
    mesh: Mesh
    image_token_id: int
    writer: MetricsWriter

    @property
    def logprob_chunk(self) -> int:
        """Tokens that meet the vocabulary at once."""
        return self.config.model.logprob_chunk or default_chunk(self.functions.config.vocab_size)

    def key(self, purpose: int) -> jax.Array:
        """A random key of its own for each purpose, all from the one seed."""
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)

    def dropout_key(self, stage: str) -> jax.Array | None:
        """What the adapter's dropout in a stage is drawn from; None where nothing is dropped."""
        return self.key(3 if stage == "sft" else 4) if self.functions.config.lora_dropout else None


def train_stage(
    context: RunContext,
    name: str,
    stage: ml_collections.ConfigDict,
    variables: Tree,
    optimizer: optax.GradientTransformation,
    step: Step,
    make_batches: Callable[[], Batches],
    note: Callable[[dict[str, float], float], str],
    after: Mapping[str, int],
) -> Tree:
    """A stage from its last checkpoint, or its beginning, to its end; returns the policy's variables after it."""
    config = context.config
    trainable, frozen = split_variables(
        variables,
        stage.trainable,
        context.key(1 if name == "sft" else 2),
        context.functions.config,
        adapter_settings(config.lora),
    )
    state, frozen = place((initial_state(trainable, optimizer), frozen), context.mesh)
    with contextlib.closing(
        StageCheckpoints(context.workdir / "checkpoints" / name, keep=config.checkpoint.keep)
    ) as checkpoints:
        position = None
        if checkpoints.latest_step() is not None:
            state, position = checkpoints.restore(state)
            check_same_start(name, context.workdir, position["after"], after)
        if int(state.step) >= stage.steps:
            print(f"{name}: complete at step {int(state.step)}", flush=True)
            return trained_policy(state.trainable, frozen, context.functions.config)
        batches = make_batches()
        if position is not None:
            batches.set_state(position["batches"])
            print(f"{name}: resuming at step {int(state.step)} of {stage.steps}", flush=True)

        def save(state: TrainState) -> None:
            checkpoints.save(state, {"batches": batches.get_state(), "after": dict(after)})

        state = _update(context, name, stage, state, frozen, batches, step, note, save)
    return trained_policy(state.trainable, frozen, context.functions.config)


def _update(
    context: RunContext,
    name: str,
    stage: ml_collections.ConfigDict,
    state: TrainState,
    frozen: Tree,
    batches: Batches,
    step: Step,
    note: Callable[[dict[str, float], float], str],
    save: Callable[[TrainState], None],
) -> TrainState:
    """The updates that are left, with their lines and checkpoints."""
    config, done = context.config, int(state.step)
    context.writer.drop_after(name, done)
    since = _Interval()
    with StageProgress(name, stage.steps, done=done) as progress:
        for number in range(done + 1, stage.steps + 1):
            state, metrics = step(state, frozen, shard_batch(next(batches), context.mesh))
            since.add(metrics)
            shown = ""
            if number % config.log_every == 0 or number == stage.steps:
                values, seconds = since.flush()
                check_values(name, number, values)
                context.writer.write(name, number, values | {"seconds": seconds})
                shown = note(values, seconds)
            progress.advance(1, shown)
            if number % config.checkpoint.every == 0 or number == stage.steps:
                save(state)
    return state


def check_same_start(name: str, workdir: Path, earlier: Mapping[str, int], after: Mapping[str, int]) -> None:
    """A checkpoint goes on only from the policy that its stage began with."""
    if list(earlier.items()) != list(after.items()):
        then, now = (", ".join(f"{steps} of {stage}" for stage, steps in x.items()) or "none" for x in (earlier, after))
        raise UserError(
            f"{workdir / 'checkpoints' / name}: this {name} began after other updates ({then}) than config.stages and "
            f"their steps ask for now ({now}); use those, remove this folder to train {name} again, or use another "
            "--workdir"
        )


class _Interval:
    """Means of metrics since the last line, and the time they took; arrays are fetched only when a line is due."""

    def __init__(self) -> None:
        self._metrics: list[dict[str, Any]] = []
        self._last = time.monotonic()

    def add(self, metrics: dict[str, Any]) -> None:
        self._metrics.append(metrics)

    def flush(self) -> tuple[dict[str, float], float]:
        fetched = jax.device_get(self._metrics)
        self._metrics = []
        now = time.monotonic()
        seconds, self._last = max(now - self._last, 1e-9), now
        means = {name: float(np.mean([entry[name] for entry in fetched])) for name in fetched[0]}
        means["tokens_per_second"] = means.pop("tokens") * len(fetched) / seconds
        return means, seconds


def check_values(name: str, step: int, values: dict[str, float]) -> None:
    """Looks at the means of a line before the next checkpoint is written.

    Raises:
      UserError: a number is not finite, or a supervised stage trained on nothing.
    """
    broken = [key for key, value in values.items() if not np.isfinite(value)]
    if broken:
        raise UserError(
            f"{name} step {step}: {', '.join(broken)} is not finite; lower config.{name}.learning_rate. "
            "The last checkpoint is from before this step."
        )
    if name == "sft" and values["action/token_count"] + values["reflection/token_count"] == 0:
        raise UserError(f"sft step {step}: no token since the last line was trained on; look at the data and its masks")
    if name == "rl" and values.get("groups/dropped_share", 0.0) == 1.0:
        print(
            f"rl step {step}: every group since the last line had zero reward variance: nothing was learnt",
            flush=True,
        )
