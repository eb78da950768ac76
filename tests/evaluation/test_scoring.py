"""Confidences of recorded actions, against one forward pass at a time with everything spelled out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.evaluation.scoring import recorded_confidences
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records import RotRecord, Turn, extract_code


@pytest.fixture(scope="module")
def naive(
    functions: PolicyFunctions, variables: dict[str, Any], reader: ConversationReader
) -> Callable[[RotRecord], list[float]]:
    """u of every assistant turn up to the failed one: no batch, no padding, no mask, the whole softmax."""
    tokenizer = reader.renderer.tokenizer

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    @jax.jit
    def forward(tokens: jax.Array) -> jax.Array:
        positions = jnp.repeat(jnp.arange(tokens.shape[1])[None, :, None], 3, axis=-1)
        block = TokenBlock(tokens, jnp.ones_like(tokens), positions, jnp.full_like(tokens, -1))
        hidden, _ = functions.run_prefix(variables, block, None)
        return jax.nn.log_softmax(hidden @ functions.head(variables).T)

    def confidences(record: RotRecord) -> list[float]:
        tokens: list[int] = []
        scored: list[list[int]] = []
        for turn in record.conversation[: record.failed_turn + 1]:
            tokens += encode(f"<|im_start|>{turn.role}\n")
            code = extract_code(turn.content) if turn.role == "assistant" else ""
            before, _, after = turn.content.rpartition(code) if code else (turn.content, "", "")
            start = len(tokens) + len(encode(before))
            ids = encode(before) + encode(code) + encode(after)
            if turn.role == "assistant":
                end = start + len(encode(code))
                scored.append(list(range(start, end) if code else range(len(tokens), len(tokens) + len(ids))))
            tokens += ids + encode("<|im_end|>\n")
        logprobs = forward(jnp.array([tokens]))[0]  # [token, vocab]
        picked = [[float(logprobs[place - 1, tokens[place]]) for place in places] for places in scored]
        return [float(np.exp(np.mean(values))) for values in picked]

    return confidences


def test_confidences_are_those_of_one_pass_at_a_time(
    functions: PolicyFunctions,
    variables: dict[str, Any],
    reader: ConversationReader,
    record: Callable[..., RotRecord],
    naive: Callable[[RotRecord], list[float]],
) -> None:
    records = [
        record("alpha", "Error: File not found: b.csv", steps_before=2),
        record("beta", "[]", steps_before=0),
        _without_code(record("gamma", "total: 11")),
    ]
    # Three records in batches of two, of unequal length: padding on both axes.
    scored = recorded_confidences(functions, variables, reader, records, batch=2, chunk_size=16)
    assert [len(values) for values in scored] == [3, 1, 2]
    for values, one in zip(scored, records, strict=True):
        assert values == pytest.approx(naive(one), rel=1e-4)
        assert all(0 < value < 1 for value in values)
    assert len({round(value, 6) for values in scored for value in values}) > 3


def _without_code(record: RotRecord) -> RotRecord:
    """The same with a first step that is only words."""
    turns = list(record.conversation)
    turns[2] = Turn("assistant", "Thought: I wait and see.")
    return RotRecord(**{**vars(record), "conversation": tuple(turns)})
