"""Devices and microbatches change how an update is computed and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.training.parallel import check_divisible, data_mesh

ROOT = Path(__file__).resolve().parents[2]

# Prints, per step and per (devices, microbatches), the largest difference to one device and one batch, relative to
# the largest number of each array. A process of its own, because the number of devices is fixed when jax starts.
SCRIPT = """
import json, runpy
import jax, numpy as np
from regrpo_jax.base_config import base_config
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import data_mesh, replicate, shard_batch
from regrpo_jax.training.state import initial_state, split_variables
from regrpo_jax.training.steps import regrpo_step, sft_step

made = runpy.run_path("tests/training/conftest.py")
ROWS = 8
optimizer = make_optimizer(base_config().rl, steps=10)


def start(functions, trainable):
    variables = made["make_variables"](functions)
    trained, frozen = split_variables(
        variables, trainable, jax.random.key(1), rank=2, alpha=4.0, targets=("q_proj", "v_proj")
    )
    # `up` starts at zero, and then `down` has no gradient.
    return (jax.tree.map(lambda x: x + 0.01, trained) if trainable == "lora" else trained), frozen


def updated(make_step, functions, trained, frozen, batches, devices, microbatches):
    mesh = data_mesh(jax.devices()[:devices])
    state, frozen = replicate((initial_state(trained, optimizer), frozen), mesh)
    step = make_step(functions, optimizer, mesh, microbatches)
    for batch in batches:
        state, metrics = step(state, frozen, shard_batch(batch, mesh))
    return jax.device_get((state.trainable, metrics))


def difference(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other))
    return max(float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-6)) for a, b in pairs)


def sft(functions, optimizer, mesh, microbatches):
    return sft_step(functions, optimizer, mesh, microbatches=microbatches, chunk_size=16)


def regrpo(functions, optimizer, mesh, microbatches):
    settings = made["make_settings"](zero_variance="skip", normalize_advantages=True)
    return regrpo_step(functions, optimizer, mesh, settings, microbatches=microbatches, chunk_size=16)


text, vision = made["make_functions"]("float64"), made["make_functions"]("float64", images=True)
jobs = {
    "sft": (sft, text, "full", [made["make_sft_batch"](seed, ROWS) for seed in range(2)], ((8, 1), (1, 2))),
    "regrpo": (
        regrpo, vision, "lora",
        [made["make_group_batch"](seed, ROWS, images=True, equal_rewards=(0, 5)) for seed in range(2)],
        ((8, 1), (2, 4)),
    ),
}
report = {"devices": jax.device_count()}
for name, (make_step, functions, trainable, batches, splits) in jobs.items():
    job = (make_step, functions, *start(functions, trainable), batches)
    single = updated(*job, 1, 1)
    report[name] = {"metrics": {key: float(np.max(value)) for key, value in single[1].items()}}
    for devices, microbatches in splits:
        other = updated(*job, devices, microbatches)
        report[name][f"{devices}x{microbatches}"] = [difference(a, b) for a, b in zip(single, other)]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report() -> dict:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=os.environ | flags, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("step", "split"), [("sft", "8x1"), ("sft", "1x2"), ("regrpo", "8x1"), ("regrpo", "2x4")])
def test_update_is_the_same_for_every_split(report: dict, step: str, split: str) -> None:
    assert report["devices"] == 8
    parameters, metrics = report[step][split]
    assert parameters < 1e-10
    assert metrics < 1e-10


def test_what_was_compared_did_train(report: dict) -> None:
    assert report["sft"]["metrics"]["gradient_norm"] > 1e-3
    assert report["regrpo"]["metrics"]["gradient_norm"] > 1e-4
    assert report["regrpo"]["metrics"]["action/token_count"] > 50
    assert report["regrpo"]["metrics"]["reflection/token_count"] > 5


def test_indivisible_batch_is_told_with_the_number_that_would_do() -> None:
    mesh = data_mesh(jax.devices()[:1])
    check_divisible(12, 4, mesh, key="config.sft.batch_rows")
    with pytest.raises(UserError) as error:
        check_divisible(10, 4, mesh, key="config.sft.batch_rows")
    assert str(error.value) == (
        "config.sft.batch_rows=10 does not split over 1 device(s) times 4 microbatch(es); make it a multiple of 4"
    )
