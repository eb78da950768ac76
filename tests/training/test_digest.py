"""A digest tells trees apart that differ in a bit, a place, a name, a type or a shape; devices change nothing."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.training.digest import digest_of
from tests.many_devices import run_on_many_devices

KERNEL = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def flipped(array: np.ndarray, bit: int) -> np.ndarray:
    words = array.copy().view(np.uint8)
    words.flat[bit // 8] ^= 1 << bit % 8
    return words.view(array.dtype)


def test_every_bit_counts() -> None:
    found = {digest_of({"kernel": flipped(KERNEL, bit)}) for bit in range(0, KERNEL.nbytes * 8, 7)}
    assert len(found) == -(-KERNEL.nbytes * 8 // 7) and digest_of({"kernel": KERNEL}) not in found
    assert all(len(digits) == 16 for digits in found)


def test_places_names_types_and_shapes_count() -> None:
    trees = [
        {"kernel": KERNEL},
        {"kernel": KERNEL[::-1]},
        {"kernel": KERNEL[:, ::-1]},
        {"kernel": KERNEL.reshape(7, 5)},
        {"other": KERNEL},
        {"kernel": KERNEL.view(np.int32)},
        {"kernel": KERNEL, "bias": np.zeros(0, np.float32)},
        {"a": KERNEL, "b": 2 * KERNEL},
        {"a": 2 * KERNEL, "b": KERNEL},
        {"kernel": np.zeros((5, 7), np.float32)},
        {"kernel": -np.zeros((5, 7), np.float32)},
    ]
    assert len({digest_of(tree) for tree in trees}) == len(trees)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int8, jnp.int4, jnp.uint4, jnp.bool_, jnp.int32])
def test_arrays_of_every_width(dtype: jnp.dtype) -> None:
    array = (jnp.arange(12) % 3).astype(dtype)
    assert digest_of([array]) == digest_of([array + 0 if dtype != jnp.bool_ else array])
    assert digest_of([array]) != digest_of([array[::-1]])


# Prints the digest of one tree on one device, and split over eight in two ways.
SCRIPT = """
import json, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from regrpo_jax.training.digest import digest_of
tree = {"kernel": np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32), "step": np.int32(3)}
found = [digest_of(tree)]
for shape in ((4, 2), (2, 4)):
    mesh = jax.make_mesh(shape, ("data", "model"), devices=jax.devices()[:8])
    split = {"kernel": NamedSharding(mesh, P("data", "model")), "step": NamedSharding(mesh, P())}
    found.append(digest_of(jax.device_put(tree, split)))
print(json.dumps(found))
"""


def test_it_is_the_same_however_arrays_are_split() -> None:
    done = run_on_many_devices(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert len(set(json.loads(done.stdout.splitlines()[-1]))) == 1
