"""Qwen2 text models against transformers and peft on random tiny configurations: logits, gradients, greedy text."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import load_policy
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.lora import init_adapter
from regrpo_jax.models.peft import MODULE_PATHS, export_adapter
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.sampler import Prompt, sample

TOLERANCE = 2e-4
VOCABULARY = 40
ALPHA = 6.0
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
Variables = dict[str, Any]


class Twins:
    """One random model in both frameworks, ours loaded from the directory that transformers wrote."""

    def __init__(self, folder: Path, *, tied: bool, heads: int, key_value_heads: int) -> None:
        torch.manual_seed(heads + tied)
        config = Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=8 * heads,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            initializer_range=0.3,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 5_000.0},
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
        self.theirs = Qwen2ForCausalLM(config).eval()
        for name, parameter in self.theirs.named_parameters():
            if parameter.ndim == 1:  # transformers starts biases at 0 and norms at 1, which would hide mistakes
                torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.3)
        self.folder = folder
        self.theirs.save_pretrained(folder)
        self.config, params = load(folder)
        self.functions = policy_functions(self.config)
        self.variables: Variables = {"params": params}

        def logits(variables: Variables, block: TokenBlock) -> jax.Array:
            hidden, _ = self.functions.run_prefix(variables, block, None)
            return hidden @ self.functions.head(variables).T

        def loss(variables: Variables, block: TokenBlock) -> tuple[jax.Array, jax.Array]:
            """Mean cross-entropy of the next token, and the logits.  # [row, token, vocab]"""
            scores = logits(variables, block)
            logprobs = jax.nn.log_softmax(scores[:, :-1])
            return -jnp.mean(jnp.take_along_axis(logprobs, block.tokens[:, 1:, None], axis=-1)), scores

        self.logits = compiled(logits)
        self.value_and_gradient = compiled(jax.value_and_grad(loss, has_aux=True))


def load(folder: Path) -> tuple[PolicyConfig, dict[str, Any]]:
    return load_policy(folder, dtype="float32", param_dtype="float32", remat="none", lora_alpha=ALPHA)


def text_block(tokens: np.ndarray) -> TokenBlock:
    order = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32)[:, None], (*tokens.shape, 3))
    return TokenBlock(tokens, np.ones_like(tokens), order, np.full_like(tokens, -1))


def random_tokens(rows: int = 2, length: int = 12) -> np.ndarray:
    return np.random.default_rng(1).integers(0, VOCABULARY, (rows, length)).astype(np.int32)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Twins]:
    return functools.cache(lambda *sizes: make_twins(tmp_path_factory.mktemp("model"), *sizes))


def make_twins(folder: Path, tied: bool, heads: int, key_value_heads: int) -> Twins:
    return Twins(folder, tied=tied, heads=heads, key_value_heads=key_value_heads)


@pytest.mark.parametrize(
    ("tied", "heads", "key_value_heads"),
    [(True, 4, 4), (False, 4, 2), (True, 14, 2)],  # 1, 2 and 7 queries to a key
)
def test_logits_and_gradients_agree(
    twins: Callable[..., Twins], tmp_path: Path, tied: bool, heads: int, key_value_heads: int
) -> None:
    pair = twins(tied, heads, key_value_heads)
    tokens = random_tokens()
    labels = torch.tensor(tokens, dtype=torch.long)
    result = pair.theirs(input_ids=labels, labels=labels)
    pair.theirs.zero_grad()
    result.loss.backward()
    (value, logits), gradient = pair.value_and_gradient(pair.variables, text_block(tokens))
    np.testing.assert_allclose(logits, result.logits.detach().numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(value, result.loss.item(), atol=TOLERANCE)

    # The gradient has the weights' names, so it can be written and loaded like a model.
    theirs = {name: parameter.grad.clone() for name, parameter in pair.theirs.named_parameters()}
    assert ("lm_head.weight" in theirs) != tied
    save_file(theirs, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((pair.folder / "config.json").read_text())
    expected = load(tmp_path)[1]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=TOLERANCE), gradient["params"], expected)
    assert all(np.max(np.abs(leaf)) > 1e-3 for leaf in jax.tree.leaves(expected))


def test_sharded_and_bfloat16_directories_load(twins: Callable[..., Twins], tmp_path: Path) -> None:
    pair = twins(False, 4, 2)
    pair.theirs.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").exists()
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "sharded")[1], pair.variables["params"])
    Qwen2ForCausalLM.from_pretrained(pair.folder, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    rounded = jax.tree.map(lambda array: array.astype(jnp.bfloat16).astype(jnp.float32), pair.variables["params"])
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "half")[1], rounded)


def test_greedy_generation_is_the_same_text(twins: Callable[..., Twins]) -> None:
    pair, new_tokens = twins(False, 4, 2), 12
    tokens = random_tokens(rows=3, length=7)
    theirs = pair.theirs.generate(
        torch.tensor(tokens, dtype=torch.long),
        attention_mask=torch.ones(tokens.shape, dtype=torch.long),
        do_sample=False,
        max_new_tokens=new_tokens,
    )
    prompt = Prompt(
        prefix=text_block(tokens[:, :-1]),
        images=None,
        last_token=tokens[:, -1],
        next_position=np.full(3, tokens.shape[1], np.int32),
        forced=np.zeros((3, 1, 0), np.int32),
        forced_lengths=np.zeros((3, 1), np.int32),
    )
    ours = sample(
        pair.functions,
        pair.variables,
        prompt,
        jax.random.key(0),
        jnp.zeros(()),
        max_tokens=new_tokens,
        stop_id=VOCABULARY,  # no such token: neither side stops early
        banned_ids=(),
    )
    np.testing.assert_array_equal(ours.tokens[:, 0], theirs[:, tokens.shape[1] :].numpy())
    assert len(np.unique(ours.tokens)) > 5


@pytest.mark.parametrize("targets", [("q_proj", "k_proj", "v_proj", "o_proj"), tuple(MODULE_PATHS)])
def test_peft_loads_the_exported_adapter(twins: Callable[..., Twins], tmp_path: Path, targets: tuple[str, ...]) -> None:
    pair = twins(False, 4, 2)
    random = np.random.default_rng(3)
    adapter = init_adapter(jax.random.key(0), pair.variables["params"], rank=3, targets=targets)
    adapter = jax.tree.map(lambda array: array + random.normal(scale=0.2, size=array.shape).astype("f4"), adapter)
    export_adapter(tmp_path, adapter, alpha=ALPHA, base_model=str(pair.folder))
    adapted = PeftModel.from_pretrained(Qwen2ForCausalLM.from_pretrained(pair.folder), str(tmp_path)).eval()
    assert sum(".lora_" in name for name, _ in adapted.named_parameters()) == 2 * 2 * len(targets)
    tokens = random_tokens()
    with torch.no_grad():
        expected = adapted(input_ids=torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    block = text_block(tokens)
    np.testing.assert_allclose(pair.logits({**pair.variables, "lora": adapter}, block), expected, atol=TOLERANCE)
    assert np.max(np.abs(pair.logits(pair.variables, block) - expected)) > 0.1
