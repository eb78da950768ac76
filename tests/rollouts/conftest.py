"""A tiny policy that sees, with random weights and a tokenizer of the compact suite, and the suite's environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.prompt import instruction_text, observation_text, system_text
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.tokenizer import IMAGE_TOKEN, train_tokenizer
from regrpo_jax.engine.tool_shapes import loaded_tools
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.models.config import tiny
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import LOADERS, make_suite


@pytest.fixture(scope="session")
def tasks() -> list[Task]:
    """One task of each family, most of them with a surprise."""
    return make_suite("train", 9, 4, surprises=0.8)


@pytest.fixture(scope="session")
def environment() -> Iterator[Environment]:
    with Environment.start(SandboxSettings(workers=2), loader=LOADERS["compact"]) as made:
        yield made


@pytest.fixture(scope="session")
def reader(tasks: list[Task]) -> ConversationReader:
    tools = loaded_tools(LOADERS["compact"])
    texts = [observation_text(0, "Not executed yet: the action is uncertain. Reflect, then act.")]
    for task in tasks:
        texts += [system_text(task.tools, tools, brief=True), instruction_text(task.instruction, task.images)]
        texts += [*(step.turn() for step in task.oracle)]
    config = tiny(400, hidden_size=32, num_layers=1)
    assert config.vision is not None
    settings = ImageSettings(min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28, temporal_patch_size=1)
    return ConversationReader(
        ChatRenderer(train_tokenizer(texts, vocab_size=400), True, IMAGE_TOKEN), config.vision, settings
    )


@pytest.fixture(scope="session")
def sampler(reader: ConversationReader) -> SamplerPolicy:
    """Random weights; the end of a turn is likely enough that many turns have one."""
    renderer = reader.renderer
    functions = policy_functions(tiny(len(renderer.tokenizer), hidden_size=32, num_layers=1))
    rng = np.random.default_rng(0)

    def noise(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(mean + rng.normal(scale=0.2, size=shape.shape), shape.dtype)

    variables = jax.tree_util.tree_map_with_path(noise, jax.eval_shape(functions.init, jax.random.key(0)))
    variables["params"] = _ends_turns(variables["params"], renderer.end_of_turn_id)
    return SamplerPolicy(functions, variables, reader, prefix_buckets=(512,), branch_tokens=384)


def _ends_turns(params: dict[str, Any], end: int) -> dict[str, Any]:
    """The embedding, which is also the head, with a larger row for the end of a turn: it is often very likely."""

    def larger(path: tuple[Any, ...], array: jax.Array) -> jax.Array:
        return array.at[end].multiply(4.0) if path[-1].key == "embedding" else array

    return jax.tree_util.tree_map_with_path(larger, params)


@pytest.fixture
def settings(tmp_path: Path) -> CollectSettings:
    rules = LoopSettings(gate="failure", retries=3, max_steps=4, turn_tokens=40, episode_tokens=300)
    return CollectSettings(
        rules, branches=3, tools=loaded_tools(LOADERS["compact"]), brief=True, image_folder=tmp_path / "images"
    )
