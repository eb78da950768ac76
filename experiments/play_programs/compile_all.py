"""How long all programs that an update is played with take to compile for a TPU slice that is elsewhere.

    PYTHONPATH=$PWD python experiments/play_programs/compile_all.py configs/qwen2_vl_7b.py v5e:2x4 FOLDER_OF_THE_MODEL

Rows and slots come in few sizes (`rollouts/live_rows.py`); every size that an update can come to is compiled once: the
prefixes, the loop that draws, both widths of an append, and branches moved into fewer rows or more slots.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from regrpo_jax.config.command_line import load_config
from regrpo_jax.models.decoding_state import APART, with_row_axes
from regrpo_jax.models.drawing import draw_compiled, empty_turn
from regrpo_jax.models.play_sharding import row_sharding
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.sampler import append_compiled, layers_together, start
from regrpo_jax.models.sharding import param_shardings
from regrpo_jax.models.token_choice import sampling_controls
from regrpo_jax.plan.arrays import prompt_shapes
from regrpo_jax.plan.devices import target
from regrpo_jax.rollouts.live_rows import FEWEST_SLOTS, SHRINKING, moved_compiled, slot_count
from regrpo_jax.rollouts.sampler_policy import CHUNK, WIDE_CHUNK, SamplerPolicy
from regrpo_jax.run.starting_policy import planned_policy
from regrpo_jax.training.parallel import device_mesh, mesh_in_context

Tree = Any
Lowered = jax.stages.Lowered


def sizes(config: ConfigDict) -> tuple[list[int], list[int]]:
    """Rows from the most to the fewest, slots from the fewest to the most."""
    most = config.online.tasks * -(-config.online.branches // SamplerPolicy.lanes)
    rows = [1 << (most - 1).bit_length()]
    while rows[-1] % SHRINKING == 0:
        rows.append(rows[-1] // SHRINKING)
    slots = [FEWEST_SLOTS]
    while slots[-1] < slot_count(max(config.data.branch_buckets)):
        slots.append(slot_count(slots[-1] + 1))
    return rows, slots


def programs(config: ConfigDict, topology: str) -> Iterator[tuple[str, Lowered]]:
    """(kind, traced) of each."""
    where = target(topology)
    functions = policy_functions(planned_policy(config, where.platform))
    mesh = device_mesh(where.devices, fsdp=config.mesh.fsdp, model=config.mesh.model)
    together, lanes = layers_together(where.platform), SamplerPolicy.lanes

    def on(array: Any, axis: int = 0) -> Any:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=row_sharding(array, mesh, axis))

    def placed(tree: Tree) -> Tree:
        return jax.tree.map(on, tree)

    shapes = jax.eval_shape(functions.init, jax.random.key(0))
    variables = jax.tree.map(
        lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        shapes,
        param_shardings(shapes, mesh),
    )
    key = jax.eval_shape(jax.random.key, 0)

    @functools.cache
    def decoding_of(rows: int, slots: int) -> Any:
        prompts = prompt_shapes(config, functions.config, rows)
        made = functools.partial(start, functions, branches=lanes, capacity=slots, layers_together=together)
        return with_row_axes(on, jax.eval_shape(made, variables, prompts, key))

    rows, slots = sizes(config)
    sampling = placed(jax.eval_shape(lambda: sampling_controls(max_tokens=CHUNK, stops=((0,),))))
    everywhere = NamedSharding(mesh, P())
    scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    flag = jax.ShapeDtypeStruct((), jnp.bool_, sharding=everywhere)
    with mesh_in_context(mesh):
        prompts = placed(prompt_shapes(config, functions.config, config.online.tasks))
        given = {"branches": config.online.branches, "capacity": FEWEST_SLOTS, "layers_together": together}
        yield "prefixes", start.lower(functions, variables, prompts, placed(key), **given)
        for count in rows:
            for room in slots:
                decoding = decoding_of(count, room)
                rest = dataclasses.replace(decoding, cache=APART)
                budget = jax.ShapeDtypeStruct((count, lanes), jnp.int32)
                turn = placed(jax.eval_shape(functools.partial(empty_turn, dtype=jnp.float32), budget, sampling))
                drawn = (variables, decoding.cache, rest, turn, sampling, scalar)
                yield "drawing", draw_compiled.lower(functions, *drawn, slots=room)
                for width in (CHUNK, WIDE_CHUNK):
                    if width <= room:
                        tokens = on(jax.ShapeDtypeStruct((count, lanes, width), jnp.int32))
                        fed = (variables, decoding.cache, rest, tokens, on(budget), None, flag)
                        yield "appending", append_compiled.lower(functions, *fed)
        for count, room, fewer, more in transitions(rows, slots):
            places = np.zeros((fewer, lanes), np.int32)
            yield (
                "moving",
                moved_compiled.lower(decoding_of(count, room), places, places, places.astype(bool), slots=more),
            )


def transitions(rows: list[int], slots: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """Rows and slots before and after: one size further, as an update goes from one to the next."""
    for place, count in enumerate(rows):
        for at, room in enumerate(slots):
            if at + 1 < len(slots):
                yield count, room, count, slots[at + 1]
            if place + 1 < len(rows):
                yield count, room, rows[place + 1], room


def main() -> None:
    path, topology, model = sys.argv[1:]
    config = load_config(Path(path))
    config.model.path = model
    found: dict[str, list[tuple[float, float]]] = {}  # kind -> (seconds, GiB that a device holds) of each
    for kind, lowered in programs(config, topology):
        began = time.monotonic()
        memory = lowered.compile().memory_analysis()
        held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
        measured = (time.monotonic() - began, (held - memory.alias_size_in_bytes) / 2**30)
        found.setdefault(kind, []).append(measured)
        print(f"{kind} {measured[0]:.1f} s {measured[1]:.2f} GiB", flush=True)
    table = Table("programs", "number", "seconds", "longest", "largest, GiB", title=f"{Path(path).name} on {topology}")
    everything = {"all": [one for of_kind in found.values() for one in of_kind]}
    for kind, measured in (found | everything).items():
        seconds, held = zip(*measured, strict=True)
        table.add_row(kind, str(len(seconds)), f"{sum(seconds):.0f}", f"{max(seconds):.1f}", f"{max(held):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
