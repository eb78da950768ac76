"""Records with a recorded failure, and a small reader and policy to replay them with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.tokenizer import train_tokenizer
from regrpo_jax.models.config import tiny
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.records import ErrorType, Reflection, RotRecord, Turn, render_reflection


def action_text(code: str, thought: str = "go on.") -> str:
    return f"Thought: {thought}\n\nCode:\n```py\n{code}\n```"


def make_record(name: str, observation: str, *, steps_before: int = 1, error_type: str = "ArgInvalid") -> RotRecord:
    """A task with `steps_before` right steps, a failure that returned `observation`, its repair, and the answer."""
    failed, corrected = action_text('inspect_file_as_text("b.csv")'), action_text('inspect_file_as_text("a.csv")')
    reflection = Reflection(ErrorType(error_type), f"It returned '{observation}'.", "Read a.csv.")
    turns = [Turn("system", "Use the tools."), Turn("user", f"Task {name}: what is the total?")]
    for index in range(steps_before):
        turns.append(Turn("assistant", action_text(f'print(search("{name}"))')))
        turns.append(Turn("user", f"[OUTPUT OF STEP {index}] -> Observation:\na.csv"))
    failed_turn = len(turns)
    turns += [
        Turn("assistant", failed),
        Turn("user", f"[OUTPUT OF STEP {steps_before}] -> Observation:\n{observation}"),
        Turn("assistant", render_reflection(reflection) + corrected),
        Turn("user", f"[OUTPUT OF STEP {steps_before}] -> Observation:\ntotal: 12"),
        Turn("assistant", action_text("final_answer(12)")),
    ]
    return RotRecord(
        id=name,
        images=(),
        answer="12",
        conversation=tuple(turns),
        source_id=name,
        step_index=steps_before,
        error_type=ErrorType(error_type),
        failed_action=failed,
        failed_observation=observation,
        reflection=reflection,
        corrected_action=corrected,
        final_answer="12",
        failed_turn=failed_turn,
        reflection_turn=failed_turn + 2,
    )


@pytest.fixture(scope="session")
def record() -> Callable[..., RotRecord]:
    return make_record


@pytest.fixture(scope="session")
def action() -> Callable[..., str]:
    return action_text


@pytest.fixture(scope="session")
def reader() -> ConversationReader:
    texts = [turn.content for turn in make_record("alpha", "Error: File not found: b.csv").conversation]
    tokenizer = train_tokenizer(texts, vocab_size=380)
    return ConversationReader(ChatRenderer(tokenizer), None, None)


@pytest.fixture(scope="session")
def functions(reader: ConversationReader) -> PolicyFunctions:
    return policy_functions(tiny(len(reader.renderer.tokenizer), hidden_size=32, num_layers=1, images=False))


@pytest.fixture(scope="session")
def variables(functions: PolicyFunctions) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(functions.init, jax.random.key(0))
    return jax.tree.map(lambda array: jnp.asarray(0.2 * rng.normal(size=array.shape), array.dtype), shapes)
