"""The loop of a training stage: from its last checkpoint to its end, with lines and checkpoints on the way."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.data.loader import Batches
from regrpo_jax.errors import Preempted, UserError
from regrpo_jax.hosts.agreement import summed
from regrpo_jax.models.logprobs import default_chunk
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sharding import place
from regrpo_jax.training.agreed_stop import preemption_of
from regrpo_jax.training.batch_flops import ONE_PASS, Passes, trained_parts, update_flops
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.device_figures import device_figures
from regrpo_jax.training.metrics import MetricsWriter, StageProgress
from regrpo_jax.training.parallel import shard_batch
from regrpo_jax.training.save_times import SaveTimes
from regrpo_jax.training.state import (
    TrainState,
    abstract_state,
    adapter_settings,
    frozen_part,
    initial_state,
    split_variables,
    trained_policy,
)
from regrpo_jax.training.tracing import Tracing
from regrpo_jax.training.train_step import Step

Tree = dict[str, Any]
_KEPT = 2  # checkpoints of a stage
KEYS = {"sft": 1, "rl": 2, "preference": 2, "online": 5}
"""Of the random numbers that a stage's fresh adapter is made of."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """What every stage needs.

    Attributes:
      config: the whole configuration.
      workdir: the run's folder.
      writer: the run's metrics.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    writer: MetricsWriter


@dataclasses.dataclass(frozen=True)
class RunContext(RunFolder):
    """What every stage needs that computes.

    Attributes:
      functions: the policy.
      mesh: the devices, see `parallel.device_mesh`.
      image_token_id: the id that stands for image features, -1 without images.
    """

    functions: PolicyFunctions
    mesh: Mesh
    image_token_id: int

    @property
    def logprob_chunk(self) -> int:
        """Tokens that meet the vocabulary at once."""
        return default_chunk(self.functions.config.vocab_size)

    def key(self, purpose: int) -> jax.Array:
        """A random key of its own for each purpose, all from the one seed."""
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)

    def dropout_key(self, stage: str) -> jax.Array | None:
        """What the adapter's dropout in a stage is drawn from; None where nothing is dropped."""
        return self.key(3 if stage == "sft" else 4) if self.functions.config.lora_dropout else None


class Source(Protocol):
    """Where the updates of a stage get their batches. unhurried: a batch takes long, and may be broken off."""

    @property
    def unhurried(self) -> bool: ...

    def __call__(self, number: int, trainable: Tree) -> tuple[Any, dict[str, float]]:
        """The batch of update `number`, and metrics of how it came about.

        trainable: what is trained, as it is before that update.
        """

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint has to keep of it, plain JSON."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with what would have come next."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Batches of a loader, the same whatever the policy is."""

    batches: Batches
    unhurried = False

    def __call__(self, number: int, trainable: Tree) -> tuple[Any, dict[str, float]]:
        """The next one."""
        return next(self.batches), {}

    def get_state(self) -> dict[str, Any]:
        """The loader's."""
        return {"batches": self.batches.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """As the loader has it."""
        self.batches.set_state(state["batches"])


# (makes what is trained as it is before the stage, what is not trained, number of the first update) -> the step and its
# source, closed at the end; called only if there is something left to train
Parts = Callable[[Callable[[], Tree], Tree, int], AbstractContextManager[tuple[Step, Source]]]


def recorded(step: Step, make_batches: Callable[[], Batches]) -> Parts:
    """The parts of a stage that learns from records."""
    return lambda make_start, frozen, first: contextlib.nullcontext((step, Recorded(make_batches())))


def train_stage(
    context: RunContext,
    name: str,
    variables: Tree,
    optimizer: optax.GradientTransformation,
    parts: Parts,
    note: Callable[[dict[str, float]], str],
    after: Mapping[str, int],
    *,
    log_every: int | None = None,
    passes: Passes = ONE_PASS,
) -> Tree:
    """A stage from its last checkpoint, or its beginning, to its end; returns the policy's variables after it.

    Args:
      name: of the stage and of its section of the config.
      variables: the policy before it.
      note: metrics of a line -> what the progress bar says.
      after: the stages before this one, and their updates.
      log_every: updates between lines; None takes config.log_every.
      passes: over the batch of an update, for the count of operations.
    Raises:
      UserError: the checkpoint is of another run, none can be read or the last one written, or a number is not finite.
      Preempted: the process was told to end; the updates that were finished are in a checkpoint.
    """
    config, stage = context.config, stage_section(context.config, name)

    def make_start(variables: Tree) -> Tree:
        key, policy = context.key(KEYS[name]), context.functions.config
        return split_variables(variables, stage.trainable, key, policy, adapter_settings(config.lora))[0]

    def make_state(variables: Tree) -> TrainState:
        return initial_state(make_start(variables), optimizer)

    frozen = place(frozen_part(variables, stage.trainable), context.mesh)
    with contextlib.closing(StageCheckpoints(context.workdir / "checkpoints" / name, keep=_KEPT)) as checkpoints:
        kept = checkpoints.restore(abstract_state(make_state, variables, context.mesh))
        if kept is None:
            state, position = place(make_state(variables), context.mesh), None
        else:
            state, position = kept
            check_same_start(name, context.workdir, position["after"], after)
        done = int(state.step)
        if done >= stage.steps:
            print(f"{name}: complete at step {done}", flush=True)
            return trained_policy(state.trainable, frozen, context.functions.config)
        with parts(lambda: make_start(variables), frozen, done + 1) as (step, source):
            if position is not None:
                source.set_state(position)
                print(f"{name}: resuming at step {done} of {stage.steps}", flush=True)

            def save(state: TrainState) -> None:
                checkpoints.save(state, source.get_state() | {"after": dict(after)})

            try:
                state = _update(
                    context, name, state, frozen, source, step, note, save, log_every or config.log_every, passes
                )
            except Preempted:
                print(f"{name}: told to end; {checkpoints.finish()} of {stage.steps} updates are kept", flush=True)
                raise
        checkpoints.check_complete(stage.steps)
    return trained_policy(state.trainable, frozen, context.functions.config)


def _update(
    context: RunContext,
    name: str,
    state: TrainState,
    frozen: Tree,
    source: Source,
    step: Step,
    note: Callable[[dict[str, float]], str],
    save: Callable[[TrainState], None],
    log_every: int,
    passes: Passes,
) -> TrainState:
    """The updates that are left, with their lines and checkpoints."""
    config, last, done, learnt = context.config, context.config[name].steps, int(state.step), False
    context.writer.drop_after(name, done)
    since, trained = _Interval(context.mesh), trained_parts(state.trainable)
    tracing = Tracing(config.profile.updates, context.workdir / "profile" / name)
    times = SaveTimes(every=config.checkpoint.every, minutes=config.checkpoint.minutes, last=last)
    with StageProgress(name, last, done=done) as progress, preemption_of(name).listening() as preemption:
        try:
            for number in range(done + 1, last + 1):
                tracing.begin(number)
                preemption.begin(number, plays=source.unhurried)
                if source.unhurried:
                    batch, seen = source(number, state.trainable)
                preemption.agree()
                # The first update is compiled, which takes long, and what came before it is on disk already.
                with preemption.held() if number > done + 1 else contextlib.nullcontext():
                    if not source.unhurried:
                        batch, seen = source(number, state.trainable)
                    state, metrics = step(state, frozen, shard_batch(batch, context.mesh))
                    tracing.end(number, metrics)
                    since.add(metrics | seen, update_flops(batch, context.functions.config, trained, passes))
                    shown, has_line = "", number % log_every == 0 or number == last
                    if has_line:
                        values = since.flush()
                        check_values(name, number, values)
                        context.writer.write(name, number, values)
                        shown = note(values)
                    progress.advance(1, shown)
                    if times.is_due(number, has_line=has_line):
                        save(state)
                learnt = True
            preemption.begin(last + 1, plays=False)
            preemption.agree()
        except Preempted:
            with preemption.held():  # told again, it writes all the same
                if learnt:
                    save(state)
            raise
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

    def __init__(self, mesh: Mesh) -> None:
        self._devices = mesh.devices.flatten().tolist()
        self._metrics: list[dict[str, Any]] = []
        self._flops: list[dict[str, float]] = []
        self._last = time.monotonic()

    def add(self, metrics: dict[str, Any], flops: dict[str, float]) -> None:
        """metrics: of an update, the same in all processes. flops: of the rows that this process has of it."""
        self._metrics.append(metrics)
        self._flops.append(flops)

    def flush(self) -> dict[str, float]:
        own = {name: float(np.mean([entry[name] for entry in self._flops])) for name in self._flops[0]}
        fetched = jax.device_get(self._metrics)
        self._metrics, self._flops = [], []
        now = time.monotonic()
        seconds, self._last = max(now - self._last, 1e-9), now
        means = {name: float(np.mean([entry[name] for entry in fetched])) for name in fetched[0]} | summed(own)
        tokens = means.pop("tokens") * len(fetched)
        flops = sum(value for name, value in means.items() if name.startswith("flops/")) * len(fetched)
        speed = {"seconds": seconds, "tokens_per_second": tokens / seconds}
        return means | speed | device_figures(flops / seconds, self._devices)


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
