"""The stage `plan`: what a configuration needs of each device, told by compiling its programs; nothing is run.

workdir/plan.md     the tables, with the command
workdir/plan.json   every number
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.lora import check_settings
from regrpo_jax.models.parameter_count import parameter_count
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.plan.chips import GIB, Chip
from regrpo_jax.plan.devices import Target, target
from regrpo_jax.plan.figures import Figures, figures
from regrpo_jax.plan.page import print_plan, write_plan
from regrpo_jax.plan.programs import Program, programs
from regrpo_jax.plan.settings import BATCHES, Setting, other_settings, with_setting
from regrpo_jax.run.record import prepare_workdir, record_run
from regrpo_jax.run.run import Run
from regrpo_jax.run.starting_policy import check_row_patches, planned_policy
from regrpo_jax.training.metrics import StageProgress
from regrpo_jax.training.parallel import check_divisible, device_mesh
from regrpo_jax.training.state import adapter_settings


def run(run: Run) -> None:
    """Compiles every step of `config.plan.steps` for `config.plan.topology`; says what does not fit and what would.

    Raises:
      UserError: there are no such devices, or the configuration does not split over them.
    """
    config = run.config
    where = target(config.plan.topology)
    prepare_workdir(run.workdir)
    record_run(config, run.workdir)
    policy = _policy(config, where)
    found = _compiled(config, policy, where, tuple(config.plan.steps))
    notes = _notes(config, policy, where, found)
    title = f"{_name(config)} on {len(where.devices)} x {where.chip.kind if where.chip else where.platform}"
    command = f"python -m regrpo_jax.main {shlex.join(sys.argv[1:])}"
    print_plan(title, found, where.chip, notes)
    write_plan(run.workdir, title, command, found, where.chip, notes)
    print(f"written to {run.workdir / 'plan.md'}", flush=True)


def _policy(config: ConfigDict, where: Target) -> PolicyConfig:
    """The policy as it is compiled here: a fused kernel of devices elsewhere has the plain one in its place."""
    policy = planned_policy(config, where.platform)
    return dataclasses.replace(policy, attention="xla") if where.compiled_elsewhere else policy


def _name(config: ConfigDict) -> str:
    return Path(config.model.path).name if config.model.path else "the tiny preset"


def _compiled(config: ConfigDict, policy: PolicyConfig, where: Target, steps: tuple[str, ...]) -> list[Figures]:
    made, count = _programs(config, policy, where, steps), len(where.devices)
    found = []
    with StageProgress("plan", len(made)) as progress:
        for program in made:
            found.append(figures(program, where, count))
            progress.advance(1, f"{program.name} compiled in {found[-1].compile_seconds:.0f} s")
    return found


def _programs(config: ConfigDict, policy: PolicyConfig, where: Target, steps: tuple[str, ...]) -> list[Program]:
    functions = policy_functions(policy)
    mesh = device_mesh(where.devices, fsdp=config.mesh.fsdp, model=config.mesh.model)
    for stage, size in BATCHES.items():
        if stage in steps or (stage == "online" and "score" in steps):
            section = stage_section(config, stage)
            check_divisible(section[size], section.microbatches, mesh, key=f"config.{stage}.{size}")
    if "sft" in steps:
        check_row_patches(config.sft.row_patches, policy.vision)
    if any(stage_section(config, stage).trainable == "lora" for stage in BATCHES):
        shapes = jax.eval_shape(functions.init, jax.random.key(0))["params"]
        check_settings(shapes, adapter_settings(config.lora))
    return programs(config, functions, mesh, where.platform, steps)


def _notes(config: ConfigDict, policy: PolicyConfig, where: Target, found: Sequence[Figures]) -> list[str]:
    """What the tables mean, and what to change where something does not fit."""
    notes = [
        f"{parameter_count(policy):,} parameters, {policy.dtype}, attention {policy.attention}, remat {policy.remat}, "
        f"mesh data x fsdp x model = {len(where.devices) // (config.mesh.fsdp * config.mesh.model)} x "
        f"{config.mesh.fsdp} x {config.mesh.model}; the largest buckets, every row filled",
        "beside: what lies there meanwhile; at least: each bound as if the others cost nothing, at the peak of the "
        "data sheet; memory counts arguments once, a decode step is one token of every branch",
    ]
    if where.compiled_elsewhere:
        notes.append(
            f"compiled by XLA for a CPU, attention as plain products: on {config.plan.topology} the temporaries are "
            "others, and fewer with a fused kernel"
        )
    chip = where.chip
    if chip is None:
        return [*notes, "nothing is known of this device: whether it fits cannot be told"]
    over = [one for one in found if not one.fits(chip)]
    if not over:
        return [*notes, "fits"]
    for one in over:
        notes.append(f"{one.name} does not fit: {_remedy(one, chip)}")
    if where.compiled_elsewhere and len(where.devices) == 1:
        return notes
    setting = _first_that_fits(config, policy, where, over)
    told = f"{setting.told()}" if setting else f"none of the {config.plan.tries} that were tried"
    return [*notes, f"first setting that fits: {told}"]


def _remedy(one: Figures, chip: Chip) -> str:
    """What takes most of it, and which fields change that."""
    held = one.weights + one.optimizer + one.beside
    if held > chip.memory:
        return (
            f"weights and optimizer alone take {held / GIB:.1f} of {chip.memory / GIB:.1f} GiB; raise config.mesh.fsdp "
            "or config.mesh.model, train an adapter (config.optimizer.trainable='lora'), or take more devices"
        )
    if one.name in ("prefill", "decode"):
        return "play fewer at once: config.online.tasks, config.online.branches, or smaller config.data.*_buckets"
    return (
        "raise config.optimizer.microbatches, choose config.model.remat='full', raise config.mesh.fsdp, or lower the "
        "rows or the lengths of a batch"
    )


def _first_that_fits(
    config: ConfigDict, policy: PolicyConfig, where: Target, over: Sequence[Figures]
) -> Setting | None:
    """Compiles what did not fit in other settings, until all of it does or `config.plan.tries` are spent."""
    assert where.chip is not None
    names, tried = tuple(one.name for one in over), 0
    for setting in other_settings(config, len(where.devices), tuple(config.plan.steps)):
        if tried == config.plan.tries:
            return None
        changed = with_setting(config, setting)
        described = _policy(changed, where)
        lie = [one.weights + one.optimizer + one.beside for one in _programs(changed, described, where, names)]
        if max(lie) > where.chip.memory:
            continue  # nothing has to be compiled to know that
        tried += 1
        print(f"plan: trying {setting.told()}", flush=True)
        if all(one.fits(where.chip) for one in _compiled(changed, described, where, names)):
            return setting
    return None
