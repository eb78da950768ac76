"""What is drawn does not depend on how rows and weights lie on devices, nor on the parts that prefixes are run in, nor
on whether layers are decoded in a loop."""

import json

import pytest

from tests.many_devices import run_on_many_devices

SCRIPT = """
import dataclasses, json, re, runpy
import jax, jax.numpy as jnp, numpy as np
from regrpo_jax.models.decoding_state import Prompt
from regrpo_jax.models.play_sharding import spread
from regrpo_jax.models.decoding_state import APART
from regrpo_jax.models.drawing import draw_compiled, new_turn
from regrpo_jax.models.sampler import append, generate, start
from regrpo_jax.models.sharding import place
from regrpo_jax.models.token_choice import sampling_controls
from regrpo_jax.rollouts.live_rows import arranged, moved
from regrpo_jax.training.parallel import device_mesh, mesh_in_context

made = runpy.run_path("tests/training/conftest.py")
functions = made["make_functions"]("float64", images=True)
variables = made["make_variables"](functions)
batch = made["make_group_batch"](3, 8, images=True)
prompt = Prompt(
    batch.prefix, batch.images, np.asarray(batch.branches.tokens)[:, 0, 0],
    np.asarray(batch.prefix.positions)[:, -1].max(-1) + 1, np.arange(8, dtype=np.int32),
)
sampling = sampling_controls(max_tokens=6, stops=((5,),))
told = np.random.default_rng(0).integers(1, 40, (4, 3, 4)).astype(np.int32)


def played(mesh, parts, together):
    weights, key = place(variables, mesh), jax.random.key(1)
    with mesh_in_context(mesh):
        decoding = start(
            functions, weights, spread(prompt, mesh), key, branches=3, capacity=64, parts=parts,
            layers_together=together,
        )
        first, decoding = generate(functions, weights, decoding, sampling)
        every = [(group, branch) for group in range(8) for branch in range(3)]
        places, live = {branch: branch for branch in every}, [branch for branch in every if branch[0] % 2]
        decoding = moved(decoding, places, arranged(live, 3), 64)
        decoding, logprobs = append(
            functions, weights, decoding, told, np.full((4, 3), 4, np.int32), scored=True
        )
        second, decoding = generate(functions, weights, decoding, sampling)
    split = {len(array.sharding.device_set) for array in decoding.cache.keys}, decoding.cache.keys[0].sharding.spec
    return jax.device_get((first, logprobs, second)), str(split)


def largest_gathered(mesh):
    # Numbers of the largest array that a drawn token puts together from parts.
    weights = place(variables, mesh)
    with mesh_in_context(mesh):
        decoding = start(
            functions, weights, spread(prompt, mesh), jax.random.key(1), branches=1, capacity=64, layers_together=True
        )
        rest = dataclasses.replace(decoding, cache=APART)
        text = draw_compiled.lower(
            functions, weights, decoding.cache, rest, new_turn(decoding, sampling, None), sampling,
            jnp.asarray(6, jnp.int32), slots=64,
        ).compile().as_text()
    shapes = re.findall(r"= \\w+\\[([\\d,]+)\\]\\S* all-gather(?:-start)?\\(", text)
    return max(int(np.prod([int(size) for size in shape.split(",")])) for shape in shapes)


one, _ = played(device_mesh(jax.devices()[:1]), 1, False)
report = {}
for name, (data, fsdp, model, parts, together) in {
    "rows": (4, 1, 1, 1, False), "parts": (1, 1, 1, 4, True), "rows and parts": (4, 1, 1, 2, False),
    "weights": (1, 2, 2, 1, False), "all": (2, 2, 2, 2, True),
}.items():
    mesh = device_mesh(jax.devices()[: data * fsdp * model], fsdp=fsdp, model=model)
    other, split = played(mesh, parts, together)
    tokens = all(np.array_equal(one[index].tokens, other[index].tokens) for index in (0, 2))
    numbers = [(one[0].logprobs, other[0].logprobs), (one[1], other[1]), (one[2].logprobs, other[2].logprobs)]
    report[name] = [bool(tokens), max(float(np.abs(a - b).max()) for a, b in numbers), split]
report["drawn"] = [float(np.abs(one[0].logprobs).max()), float(np.abs(one[1]).max()), int(one[2].lengths.sum())]
kernel = variables["params"]["layers"]["gate_proj"]["kernel"]
mesh = device_mesh(jax.devices()[:4], fsdp=4)
report["gathered"] = [largest_gathered(mesh), int(np.prod(kernel.shape[1:]))]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report() -> dict:
    done = run_on_many_devices(SCRIPT, float64=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("split", ["rows", "parts", "rows and parts", "weights", "all"])
def test_the_same_is_drawn(report: dict, split: str) -> None:
    same_tokens, difference, _ = report[split]
    assert same_tokens and difference < 1e-10
    assert min(report["drawn"]) > 0.1


def test_rows_lie_on_the_devices_that_have_rows_of_their_own(report: dict) -> None:
    assert "'data'" in report["rows"][2]
    assert "'fsdp'" in report["weights"][2]
    assert "'data'" in report["all"][2] and "'fsdp'" in report["all"][2]


def test_a_drawn_token_goes_to_the_weights_not_they_to_it(report: dict) -> None:
    largest, kernel = report["gathered"]
    assert largest < kernel
