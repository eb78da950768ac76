"""Log-probs without a gradient: the same in one part or several, whoever else is scored, and in less memory."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import pack_images
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import MetricsWriter
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.reference import reference_logprobs
from regrpo_jax.training.scoring import logprob_scorer
from regrpo_jax.training.steps import group_logprobs
from tests.many_devices import run_on_many_devices

BUCKETS = {"prefix_buckets": (8, 16), "branch_buckets": (8,)}


def make_groups(count: int) -> list[Group]:
    """Groups whose prefixes and branches have lengths of their own."""
    chance = np.random.default_rng(3)
    groups = []
    for number in range(count):
        prefix = chance.integers(1, 40, chance.integers(3, 16)).astype(np.int32)
        branches = []
        for label in ("correct", "failed"):
            tokens = chance.integers(1, 40, chance.integers(2, 8)).astype(np.int32)
            branches.append(Branch(label, tokens, np.full(len(tokens), 2, np.int8), label == "correct", 0.0))
        positions = rotary_positions(np.zeros(len(prefix), bool), ())
        groups.append(Group(f"record {number}", prefix, positions, pack_images([], None), tuple(branches)))
    return groups


GROUPS = make_groups(13)


@pytest.fixture(scope="module")
def context(functions: PolicyFunctions, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    config, folder = base_config(), tmp_path_factory.mktemp("run")
    config.data.update(BUCKETS)
    return RunContext(config, folder, MetricsWriter(folder), functions, device_mesh(jax.devices()[:1]), -1)


@pytest.fixture(scope="module")
def alone(context: RunContext, variables: dict) -> list[np.ndarray]:
    """The references of `GROUPS`, each scored by itself."""
    return reference_logprobs(context, variables, GROUPS, at_once=1, microbatches=1)


@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_parts_add_up_to_the_batch(
    functions: PolicyFunctions, variables: dict, group_batch: Any, microbatches: int
) -> None:
    batch = group_batch(5, 4)
    scorer = logprob_scorer(functions, device_mesh(jax.devices()[:1]), microbatches=microbatches, chunk_size=16)
    expected = group_logprobs(functions, variables, batch, chunk_size=16)
    assert np.all(np.asarray(expected)[batch.segments > 0] < 0)
    np.testing.assert_allclose(scorer(variables, batch), expected, rtol=1e-5, atol=1e-6)


def test_parts_take_less_memory(functions: PolicyFunctions, variables: dict, group_batch: Any) -> None:
    batch, mesh = group_batch(5, 64), device_mesh(jax.devices()[:1])
    needed = []
    for microbatches in (1, 16):
        scorer: Any = logprob_scorer(functions, mesh, microbatches=microbatches, chunk_size=16)
        compiled = scorer.lower(variables, batch).compile()
        needed.append(compiled.memory_analysis().temp_size_in_bytes)
    assert needed[1] < needed[0] / 4


@pytest.mark.parametrize(("at_once", "microbatches"), [(4, 2), (3, 2), (40, 1)])
def test_references_are_the_same_however_they_are_scored(
    context: RunContext, variables: dict, alone: list[np.ndarray], at_once: int, microbatches: int
) -> None:
    found = reference_logprobs(context, variables, GROUPS, at_once=at_once, microbatches=microbatches)
    for group, logprobs, expected in zip(GROUPS, found, alone, strict=True):
        assert logprobs.shape == (2, max(len(branch.tokens) for branch in group.branches))
        np.testing.assert_allclose(logprobs, expected, rtol=1e-5, atol=1e-6)


def test_references_do_not_depend_on_who_else_is_scored(context: RunContext, variables: dict) -> None:
    whole = reference_logprobs(context, variables, GROUPS, at_once=4, microbatches=1)
    for most in (1, 6):
        few = reference_logprobs(context, variables, GROUPS[:most], at_once=4, microbatches=1)
        for logprobs, expected in zip(few, whole, strict=False):
            np.testing.assert_array_equal(logprobs, expected)


# Prints the largest difference to one device, for passes of three groups on four devices in two parts each.
SCRIPT = """
import json, runpy, tempfile
from pathlib import Path
import jax, numpy as np
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.reference import reference_logprobs

made, own = runpy.run_path("tests/training/conftest.py"), runpy.run_path("tests/training/test_scoring.py")
functions = made["make_functions"]()
variables = made["make_variables"](functions)
config = own["base_config"]()
config.data.update(own["BUCKETS"])


def scored(devices, at_once, microbatches):
    context = RunContext(config, Path("."), None, functions, device_mesh(jax.devices()[:devices]), -1)
    return reference_logprobs(context, variables, own["GROUPS"][:5], at_once=at_once, microbatches=microbatches)


alone = scored(1, 1, 1)
print(json.dumps(max(float(np.max(np.abs(a - b))) for a, b in zip(scored(4, 3, 2), alone, strict=True))))
"""


def test_devices_that_do_not_divide_a_pass() -> None:
    done = run_on_many_devices(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) < 1e-5
