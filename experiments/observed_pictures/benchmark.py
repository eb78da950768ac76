"""What pictures in observations cost an update: two tool-made pictures in each branch, against text of the same length.

    python -m experiments.observed_pictures.benchmark            # seconds, a small policy, in turn in one process
    python -m experiments.observed_pictures.benchmark --plan     # Qwen2-VL-7B shapes, compiled and not run

Three forms of one group: branches of text; branches with two pictures of their own; branches that share their two
pictures, which are encoded once. All have as many tokens, and a picture in the prefix. The update is loss and gradient
of an adapter. `--plan` prints XLA's own figures: temporary memory (`memory_analysis`) and operations (`cost_analysis`).
"""

import dataclasses
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from regrpo_jax.data.batches import GroupBatch, collate_groups
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import PatchedImage, pack_images, patch_positions
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.config import PolicyConfig, VisionConfig, sectioned_axes
from regrpo_jax.models.lora import AdapterSettings, init_adapter
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.training.steps import group_logprobs

_PLAN = flags.DEFINE_bool("plan", False, "Compile at Qwen2-VL-7B shapes instead of running a small policy.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed rounds; each runs every form once.")

IMAGE = 5  # token id of an image
FORMS = ("text", "pictures of their own", "pictures shared")
SMALL = PolicyConfig(
    vocab_size=8192,
    hidden_size=256,
    intermediate_size=688,
    num_layers=4,
    num_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    remat="none",
    vision=VisionConfig(depth=4, embed_dim=128, num_heads=4, intermediate_size=512),
)
LARGE = dataclasses.replace(
    SMALL,
    vocab_size=152_064,
    hidden_size=3584,
    intermediate_size=18_944,
    num_layers=28,
    num_heads=28,
    num_key_value_heads=4,
    head_dim=128,
    rotary_axes=sectioned_axes((16, 24, 24)),
    tie_word_embeddings=False,
    remat="full",
    dtype="bfloat16",
    param_dtype="bfloat16",
    vision=VisionConfig(depth=32, embed_dim=1280, num_heads=16, intermediate_size=5120),
)
BRANCHES = 5


def make_group(config: PolicyConfig, form: str, prefix: int, branch: int, side: int) -> GroupBatch:
    """A group of random tokens and pictures.

    Args:
      side: rows and columns of tokens of each picture.
    """
    rng = np.random.default_rng(0)
    assert config.vision is not None
    merge = config.vision.spatial_merge_size

    def picture() -> PatchedImage:
        patches = rng.normal(size=((side * merge) ** 2, config.vision.patch_dim)).astype(np.float32)
        return PatchedImage(patches, patch_positions(side * merge, side * merge, merge), (side, side))

    def tokens(length: int, pictures: int) -> np.ndarray:
        found = rng.integers(10, config.vocab_size, length)
        for number in range(pictures):
            start = 8 + number * (side * side + 8)
            found[start : start + side * side] = IMAGE
        return found.astype(np.int32)

    count = {"text": 0, "pictures of their own": 2 * BRANCHES, "pictures shared": 2}[form]
    images = pack_images([picture() for _ in range(1 + count)], config.vision)
    shown = 2 if count else 0
    branches = []
    for number in range(BRANCHES):
        body = tokens(branch, shown)
        segments = np.where(np.arange(branch) >= branch // 2, 2, 0).astype(np.int8) * (body != IMAGE)
        first = 1 + (2 * number if count > 2 else 0)
        branches.append(Branch("", body, segments.astype(np.int8), True, 0.0, tuple(range(first, first + shown))))
    start = tokens(prefix + 1, 1)
    places = rotary_positions(start == IMAGE, [(side, side)])
    group = Group("", start, places, images, tuple(branches), prefix_images=1)
    none = [np.zeros((BRANCHES, 1), np.float32)]
    return collate_groups([group], none, image_token_id=IMAGE, prefix_buckets=(prefix,), branch_buckets=(branch,))


def update_of(functions: PolicyFunctions) -> Any:
    """Loss and gradient of the adapter."""

    def loss(adapter: Any, params: Any, batch: GroupBatch) -> jax.Array:
        logprobs = group_logprobs(functions, {"params": params, "lora": adapter}, batch, chunk_size=256)
        return -jnp.sum(logprobs.astype(jnp.float32))

    return jax.jit(jax.value_and_grad(loss))


def plan() -> None:
    """XLA's figures at 7B shapes, a line a form."""
    functions = policy_functions(LARGE)
    variables = jax.eval_shape(functions.init, jax.random.key(0))
    adapter = jax.eval_shape(
        lambda params: init_adapter(jax.random.key(1), params, AdapterSettings(rank=16)), variables["params"]
    )
    for form in FORMS:
        batch = make_group(LARGE, form, prefix=2048, branch=768, side=16)
        begun = time.perf_counter()
        compiled = update_of(functions).lower(adapter, variables["params"], batch).compile()
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        assert memory is not None
        row = {"form": form, "patches": 0 if batch.images is None else int(batch.images.patches.shape[1])}
        row |= {"temporaries_gib": round(memory.temp_size_in_bytes / 2**30, 2)}
        row |= {"arguments_gib": round(memory.argument_size_in_bytes / 2**30, 2)}
        row |= {"teraflops": round(cost["flops"] / 1e12, 1), "compile_seconds": round(time.perf_counter() - begun)}
        print(json.dumps(row), flush=True)


def measure() -> None:
    """Seconds of an update of the small policy, medians over rounds that run each form once."""
    functions = policy_functions(SMALL)
    variables = functions.init(jax.random.key(0))
    adapter = init_adapter(jax.random.key(1), variables["params"], AdapterSettings(rank=8))
    update, seconds = update_of(functions), {form: list[float]() for form in FORMS}
    batches = {form: jax.device_put(make_group(SMALL, form, prefix=512, branch=256, side=8)) for form in FORMS}
    for round_number in range(_REPEATS.value + 1):
        for form, batch in batches.items():
            begun = time.perf_counter()
            jax.block_until_ready(update(adapter, variables["params"], batch))
            if round_number:  # the first compiles
                seconds[form].append(time.perf_counter() - begun)
    medians = {form: float(np.median(times)) for form, times in seconds.items()}
    for form in FORMS:
        ratio = medians[form] / medians["text"]
        print(json.dumps({"form": form, "seconds": round(medians[form], 3), "of_text": round(ratio, 3)}), flush=True)


def main(_: list[str]) -> None:
    """See the module docstring."""
    if _PLAN.value:
        plan()
    else:
        measure()


if __name__ == "__main__":
    app.run(main)
