"""Devices and microbatches change how an update is computed and nothing else, with split weights as with whole ones."""

import json
import math
from pathlib import Path

import jax
import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.training.parallel import check_divisible, device_mesh
from tests.many_devices import DEVICES, run_on_many_devices

ROOT = Path(__file__).resolve().parents[2]
SPLITS = {
    "sft": ("8x1x1x1", "2x1x4x1", "1x1x8x2", "1x8x1x1", "2x2x2x2"),
    "regrpo": ("8x1x1x1", "2x1x4x2", "1x1x8x8", "1x8x1x1", "2x2x2x1"),
    "dropout": ("2x1x4x4", "1x8x1x1"),
}

# Prints, per step and per data x fsdp x model x microbatches, the largest difference to one device, relative to the
# largest number of each array. A process of its own, because the number of devices is fixed when jax starts.
SCRIPT = """
import dataclasses, json, re, runpy, sys, tempfile
from pathlib import Path
import jax, numpy as np
from regrpo_jax.config.base_config import base_config, stage_section
from regrpo_jax.models.lora import AdapterSettings
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.sharding import param_shardings, place
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import device_mesh, shard_batch
from regrpo_jax.training.state import initial_state, split_variables
from regrpo_jax.training.steps import regrpo_step, sft_step

made = runpy.run_path("tests/training/conftest.py")
ROWS = 8
GATHER = r"= [a-z0-9]+[[]([0-9,]*)[]][^=]{0,40} all-gather[(]"
optimizer = make_optimizer(stage_section(base_config(), "rl"), steps=10)
adapter = AdapterSettings(rank=2, targets=("q_proj", "o_proj"), vision_rank=2, vision_targets=("fc1", "fc2"))


def start(functions, trainable):
    variables = made["make_variables"](functions)
    trained, frozen = split_variables(variables, trainable, jax.random.key(1), functions.config, adapter)
    # A fresh adapter is float32, and its `up` zero, so that `down` has no gradient.
    return (jax.tree.map(lambda x: x.astype(float) + 0.01, trained) if trainable == "lora" else trained), frozen


def updated(make_step, functions, trained, frozen, batches, split):
    data, fsdp, model, microbatches = map(int, split.split("x"))
    mesh = device_mesh(jax.devices()[: data * fsdp * model], fsdp=fsdp, model=model)
    state, frozen = place((initial_state(trained, optimizer), frozen), mesh)
    step = make_step(functions, optimizer, mesh, microbatches)
    for batch in batches:
        state, metrics = step(state, frozen, shard_batch(batch, mesh))
        agree = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, param_shardings(state, mesh))
        assert jax.tree.all(agree), agree
    assert step._cache_size() == 1, "compiled more than once"
    gathered = None
    if fsdp > 1:
        text = step.lower(state, frozen, shard_batch(batches[0], mesh)).compile().as_text()
        gathered = [[int(size) for size in shape.split(",")] for shape in re.findall(GATHER, text) if shape]
    return state, frozen, gathered, jax.device_get((state, metrics))  # the state has the gradient in its first moments


def difference(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other))
    return max(float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-9)) for a, b in pairs)


def shards(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): [x.shape, x.addressable_shards[0].data.shape]
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def restored(state, mesh):
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = StageCheckpoints(Path(folder), keep=1)
        checkpoints.save(state, {})
        checkpoints.close()
        checkpoints = StageCheckpoints(Path(folder), keep=1)
        back, _ = checkpoints.restore(place(jax.tree.map(np.zeros_like, jax.device_get(state)), mesh))
        checkpoints.close()
    return back


def sft(functions, optimizer, mesh, microbatches):
    return sft_step(functions, optimizer, mesh, microbatches=microbatches, chunk_size=16)


def regrpo(functions, optimizer, mesh, microbatches):
    settings = made["make_settings"](zero_variance="skip", normalize_advantages=True)
    key = jax.random.key(5)
    return regrpo_step(
        functions, optimizer, mesh, settings, microbatches=microbatches, chunk_size=16, dropout_key=key
    )


text, vision = made["make_functions"]("float64"), made["make_functions"]("float64", images=True)
dropping = policy_functions(dataclasses.replace(vision.config, lora_dropout=0.3))
texts = [made["make_sft_batch"](seed, ROWS) for seed in range(2)]
groups = [made["make_group_batch"](seed, ROWS, images=True, equal_rewards=(0, 5)) for seed in range(2)]
groups = jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, groups)  # rewards in float64 too
jobs = {
    "sft": (sft, text, "full", texts, "1x1x1x1"),
    "regrpo": (regrpo, vision, "lora", groups, "1x1x1x1"),
    "dropout": (regrpo, dropping, "lora", groups, "1x1x1x8"),  # the same eight parts, with the same keys
}
report = {"devices": jax.device_count()}
for name, splits in json.loads(sys.argv[1]).items():
    make_step, functions, trainable, batches, whole = jobs[name]
    job = (make_step, functions, *start(functions, trainable), batches)
    _, _, _, single = updated(*job, whole)
    report[name] = {"metrics": {key: float(np.max(value)) for key, value in single[1].items()}}
    for split in splits:
        state, frozen, gathered, other = updated(*job, split)
        if gathered is not None:
            report[name]["gathered " + split] = gathered
            report[name]["parts " + split] = shards({**frozen, **state.trainable})
        report[name][split] = [difference(a, b) for a, b in zip(single, other)]
        if split.startswith("2x1x4"):
            report[name]["shards"] = shards({**frozen, **state.trainable}) | shards(state.optimizer_state)
            back = restored(state, jax.tree.leaves(state.trainable)[0].sharding.mesh)
            report[name]["restored"] = [
                difference(state, back), jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, state, back))
            ]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report() -> dict:
    done = run_on_many_devices(SCRIPT, json.dumps(SPLITS), float64=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("step", "split"), [(step, split) for step, splits in SPLITS.items() for split in splits])
def test_update_is_the_same_for_every_split(report: dict, step: str, split: str) -> None:
    assert report["devices"] == DEVICES
    state, metrics = report[step][split]
    assert state < 1e-10
    assert metrics < 1e-10


def test_what_was_compared_did_train(report: dict) -> None:
    assert report["sft"]["metrics"]["gradient_norm"] > 1e-3
    assert report["regrpo"]["metrics"]["gradient_norm"] > 1e-4
    assert report["regrpo"]["metrics"]["action/token_count"] > 50
    assert report["regrpo"]["metrics"]["reflection/token_count"] > 5
    dropped, kept = (report[name]["metrics"]["action/logprob"] for name in ("dropout", "regrpo"))
    assert dropped != pytest.approx(kept, rel=1e-6)


def test_weights_and_moments_are_split_and_everything_else_is_whole(report: dict) -> None:
    shards = report["sft"]["shards"] | report["regrpo"]["shards"]
    in_four = {
        name: [index - len(part) for index, size in enumerate(part) if size * 4 == whole[index]]
        for name, (whole, part) in shards.items()
    }
    last, before_last = ({name for name, axes in in_four.items() if axes == [axis]} for axis in (-1, -2))
    assert last >= {
        "params/layers/q_proj/kernel",
        "params/layers/v_proj/bias",
        "params/layers/up_proj/kernel",
        "params/vision/blocks/qkv/bias",
        "params/vision/merger_fc1/kernel",
        "lora/layers/q_proj/up",
        "1/0/mu/lora/vision/blocks/fc1/up",
        "1/0/nu/params/layers/gate_proj/kernel",
    }
    assert before_last >= {
        "params/embedding",
        "params/layers/o_proj/kernel",
        "params/vision/blocks/fc2/kernel",
        "lora/layers/o_proj/down",
        "1/0/nu/params/layers/down_proj/kernel",
    }
    whole = {name for name, (whole, part) in shards.items() if whole == part}
    assert whole | last | before_last == shards.keys()
    assert whole >= {"params/layers/o_proj/bias", "lora/layers/q_proj/down", "lora/layers/o_proj/up"} & shards.keys()
    assert {"params/layers/input_norm/scale", "params/token_mixing", "1/0/count"} <= whole


@pytest.mark.parametrize(("step", "split"), [("sft", "1x8x1x1"), ("sft", "2x2x2x2"), ("regrpo", "1x8x1x1")])
def test_weights_are_split_over_fsdp_and_gathered_a_layer_at_a_time(report: dict, step: str, split: str) -> None:
    devices = math.prod(map(int, split.split("x")[1:3]))  # of both axes
    parts = report[step][f"parts {split}"]
    split_whole = {
        name: whole for name, (whole, part) in parts.items() if math.prod(whole) == devices * math.prod(part)
    }
    assert split_whole.keys() >= {"params/embedding", "params/layers/q_proj/kernel", "params/layers/down_proj/kernel"}
    if step == "regrpo":
        assert split_whole.keys() >= {"lora/layers/q_proj/down", "params/vision/blocks/fc1/kernel"}
    model = int(split.split("x")[2])
    layers = [shape for name, shape in split_whole.items() if "layers" in name or "blocks" in name]
    gathered = report[step][f"gathered {split}"]
    assert {math.prod(shape[1:]) // model for shape in layers} <= {math.prod(shape) for shape in gathered}
    vocabulary, hidden = split_whole["params/embedding"]
    for shape in gathered:
        assert shape not in layers
        if model == 1:  # half of a projection is as wide as the vocabulary
            assert shape[-1] != vocabulary and shape != [vocabulary, hidden]
        else:  # what "model" splits stays so; only kernels of the widest look like nothing else
            widest = max(max(layer) for layer in layers)
            assert shape not in [layer[1:] for layer in layers if widest in layer]


@pytest.mark.parametrize("step", ["sft", "regrpo"])
def test_a_checkpoint_of_split_weights_comes_back_as_it_was(report: dict, step: str) -> None:
    assert report[step]["restored"] == [0.0, True]


def test_indivisible_batch_is_told_with_the_number_that_would_do() -> None:
    mesh = device_mesh(jax.devices()[:1])
    check_divisible(12, 4, mesh, key="config.sft.batch_rows")
    with pytest.raises(UserError) as error:
        check_divisible(10, 4, mesh, key="config.sft.batch_rows")
    assert str(error.value) == (
        "config.sft.batch_rows=10 does not split over 1 data-parallel device(s) times 4 microbatch(es); make it a "
        "multiple of 4"
    )


def test_devices_that_the_model_axis_does_not_divide_are_told() -> None:
    with pytest.raises(UserError, match=r"config\.mesh\.model=3 does not divide the number of devices, 1"):
        device_mesh(jax.devices()[:1], model=3)
