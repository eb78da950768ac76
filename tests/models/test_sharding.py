"""Which axis of which array is split; that the split policy computes the same is `training/test_parallel.py`'s."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.quantization import Quantization, quantize
from regrpo_jax.models.sharding import param_shardings, partition_spec, place
from regrpo_jax.training.parallel import device_mesh


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("params/layers/q_proj/kernel", (2, 8, 16), P(None, None, "model")),
        ("params/layers/q_proj/bias", (2, 16), P(None, "model")),
        ("params/layers/o_proj/kernel", (2, 16, 8), P(None, "model")),
        ("params/layers/o_proj/bias", (2, 8), P()),
        ("params/embedding", (40, 8), P("model")),
        ("params/lm_head", (40, 8), P("model")),
        ("params/lm_head", (41, 8), P()),
        ("params/vision/position_embedding", (16, 16, 8), P()),
        ("params/vision/blocks/proj/kernel", (2, 8, 8), P(None, "model")),
        ("params/vision/merger_fc1/kernel", (8, 8), P(None, "model")),
        ("params/layers/input_norm/scale", (2, 8), P()),
        ("params/layers/q_norm/scale", (2, 8), P()),
        ("lora/layers/up_proj/up", (2, 4, 16), P(None, None, "model")),
        ("lora/layers/up_proj/down", (2, 8, 4), P()),
        ("lora/layers/down_proj/down", (2, 16, 4), P(None, "model")),
        ("lora/layers/down_proj/up", (2, 4, 8), P()),
        ("optimizer_state/1/0/nu/params/layers/k_proj/kernel", (2, 8, 16), P(None, None, "model")),
        ("optimizer_state/1/0/count", (), P()),
    ],
)
def test_columns_then_rows_and_nothing_else(path: str, shape: tuple[int, ...], expected: P) -> None:
    assert partition_spec(path, shape, model=4) == expected
    assert partition_spec(path, shape, model=1) == P()


@pytest.mark.parametrize("vocabulary", [151_936, 152_064])
@pytest.mark.parametrize("parts", [2, 4, 8, 16])
def test_published_vocabularies_divide(vocabulary: int, parts: int) -> None:
    assert partition_spec("params/embedding", (vocabulary, 3584), model=parts) == P("model")


@pytest.mark.parametrize(
    ("kind", "split_scales"),  # int8 has one scale for all inputs: nothing to split by input
    [("int8", {"q_proj"}), ("nf4", {"q_proj", "o_proj"})],
)
def test_a_quantised_kernel_is_split_as_it_would_be_whole(kind: Quantization, split_scales: set[str]) -> None:
    kernel = jax.ShapeDtypeStruct((2, 256, 128), jnp.float32)
    kernels = jax.eval_shape(
        lambda array: {"layers": {name: {"kernel": quantize(array, kind)} for name in ("q_proj", "o_proj")}},
        kernel,
    )
    mesh = jax.sharding.AbstractMesh((2, 1, 4), ("data", "fsdp", "model"))
    specs = {
        jax.tree_util.keystr(path, simple=True, separator="/"): sharding.spec
        for path, sharding in jax.tree_util.tree_leaves_with_path(param_shardings(kernels, mesh))
    }
    expected = {"q_proj": P(None, None, "model"), "o_proj": P(None, "model")}
    assert specs == {
        f"layers/{name}/kernel/{array}": spec if array == "qvalue" or name in split_scales else P()
        for name, spec in expected.items()
        for array in ("qvalue", "scale")
    }


def test_every_kernel_of_a_block_is_split(small_config: PolicyConfig) -> None:
    assert small_config.vision is not None
    mesh = jax.sharding.AbstractMesh((2, 1, 4), ("data", "fsdp", "model"))
    for gated in (False, True):
        vision = dataclasses.replace(small_config.vision, gated=gated)
        config = dataclasses.replace(small_config, vision=vision, tie_word_embeddings=False)
        shapes = jax.eval_shape(policy_functions(config).init, jax.random.key(0))
        whole = {
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, sharding in jax.tree_util.tree_leaves_with_path(param_shardings(shapes, mesh))
            if sharding.spec == P()
        }
        kernels = {path for path in whole if path.endswith("/kernel")}
        assert kernels == {"params/vision/patch_embed/kernel"}
        assert {"params/embedding", "params/lm_head"} & whole == {"params/embedding", "params/lm_head"}  # 23 rows


def test_place_puts_what_the_shardings_say() -> None:
    mesh = device_mesh(jax.devices()[:1])
    tree = {"layers": {"q_proj": {"kernel": jnp.ones((2, 4, 4))}}, "count": jnp.zeros((), jnp.int32)}
    assert jax.tree.map(lambda x: x.sharding, place(tree, mesh)) == param_shardings(tree, mesh)
