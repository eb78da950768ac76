"""Turns out of sampled tokens: which tokens are code, which are reflection, and prompts that do not fit."""

import logging
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.decoding import ACTION_OPENING, REFLECTION_OPENING, GeneratedTurn, TurnRequest, TurnWriter
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sampler import Samples
from regrpo_jax.records import Turn

REFLECTION = "Reflection:\n- ErrorType: ArgInvalid\n- Evidence: It says 'total'.\n- FixPlan: Read a.csv.\n"
PROMPT = (Turn("system", "Use the tools."), Turn("user", "Task: what is the total?"))


@pytest.fixture(scope="module")
def writer(functions: PolicyFunctions, variables: dict[str, Any], reader: ConversationReader) -> TurnWriter:
    return TurnWriter(
        functions, variables, reader, batch=2, max_new_tokens=64, temperature=0.0, prefix_buckets=(64, 128), seed=0
    )


@pytest.fixture
def turn_of(writer: TurnWriter) -> Callable[..., tuple[GeneratedTurn, list[list[int]]]]:
    """The turn made of texts that were sampled one after another, and the token numbers of each text."""

    def make(*texts: str, stopped: bool = True) -> tuple[GeneratedTurn, list[list[int]]]:
        tokens: list[int] = []
        places = []
        for text in texts:
            ids = writer.reader.renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
            places.append(list(range(len(tokens), len(tokens) + len(ids))))
            tokens += ids
        tokens += [writer.reader.renderer.end_of_turn_id] * stopped
        count = len(tokens)
        samples = Samples(
            tokens=np.array([[tokens + [0] * 5]]),
            logprobs=-np.arange(count + 5, dtype=np.float32)[None, None],  # a token's log-prob tells its number
            lengths=np.array([[count]]),
            stopped=np.array([[stopped]]),
        )
        return writer._turn(samples, 0), places

    return make


def places_of(logprobs: tuple[float, ...]) -> list[int]:
    return [round(-value) for value in logprobs]


@pytest.mark.parametrize("stopped", [True, False])
def test_code_logprobs_are_those_of_the_code_and_no_others(turn_of: Callable[..., Any], stopped: bool) -> None:
    code = 'x = search("total")\nprint(x)'
    turn, places = turn_of("Thought: go on.\n\nCode:\n```py\n", code, "\n```", stopped=stopped)
    assert turn.text == f"Thought: go on.\n\nCode:\n```py\n{code}\n```"
    assert places_of(turn.code_logprobs) == places[1]
    assert turn.reflection_tokens == 0
    assert turn.finished is stopped


def test_a_thought_that_quotes_the_code_is_not_the_code(turn_of: Callable[..., Any]) -> None:
    turn, places = turn_of("Thought: I call final_answer(12) now.\n\nCode:\n```py\n", "final_answer(12)", "\n```")
    assert places_of(turn.code_logprobs) == places[1]


def test_reflection_tokens_are_counted_and_are_no_code(turn_of: Callable[..., Any]) -> None:
    turn, places = turn_of(REFLECTION, "Thought: go on.\n\nCode:\n```py\n", "final_answer(12)", "\n```")
    assert turn.reflection_tokens == len(places[0])
    assert places_of(turn.code_logprobs) == places[2]


@pytest.mark.parametrize("text", ["Thought: I give up.", ""])
def test_without_code_the_whole_action_counts(turn_of: Callable[..., Any], text: str) -> None:
    turn, places = turn_of(REFLECTION, text)
    assert places_of(turn.code_logprobs) == places[1]
    assert turn.reflection_tokens == len(places[0])


def test_characters_of_several_tokens_shift_nothing(turn_of: Callable[..., Any]) -> None:
    code = 'search("größte 東京 🗼")'
    turn, places = turn_of("Thought: über 日本.\n\nCode:\n```py\n", code, "\n```")
    assert code in turn.text
    assert places_of(turn.code_logprobs) == places[1]


def test_turns_open_as_asked_and_do_not_depend_on_their_batch(writer: TurnWriter) -> None:
    requests = [
        TurnRequest(PROMPT, (), ACTION_OPENING),
        TurnRequest(PROMPT, (), REFLECTION_OPENING),
        TurnRequest((*PROMPT, Turn("assistant", "Thought: a"), Turn("user", "b")), (), ACTION_OPENING),
    ]
    turns = writer.write(requests)
    assert [turn.text.startswith(request.opening) for turn, request in zip(turns, requests, strict=True)] == [True] * 3
    for turn, request in zip(turns, requests, strict=True):
        (alone,) = writer.write([request])
        assert alone.text == turn.text
        np.testing.assert_allclose(alone.code_logprobs, turn.code_logprobs, atol=1e-4)
        assert all(value <= 0 for value in turn.code_logprobs)
    assert writer.write([]) == []


def test_no_control_token_is_ever_sampled(
    functions: PolicyFunctions, variables: dict[str, Any], reader: ConversationReader
) -> None:
    # A policy that wants nothing but control tokens: with tied embeddings these rows are also its output.
    control = sorted(set(reader.renderer.control_tokens.values()) - {reader.renderer.end_of_turn_id})
    assert reader.renderer.tokenizer.convert_tokens_to_ids("<|image_pad|>") in control
    params = dict(variables["params"])
    params["embedding"] = params["embedding"].at[jnp.array(control)].multiply(100.0)
    hungry = TurnWriter(functions, {"params": params}, reader, batch=2, max_new_tokens=64, temperature=1.0,
                        prefix_buckets=(64, 128), seed=0)  # fmt: skip
    turns = hungry.write([TurnRequest(PROMPT, (), ACTION_OPENING), TurnRequest(PROMPT, (), REFLECTION_OPENING)])
    for turn in turns:
        assert len(turn.text) > len(ACTION_OPENING)
        assert not any(token in turn.text for token in reader.renderer.control_tokens)


def test_a_conversation_that_cannot_be_a_prompt_ends(writer: TurnWriter, caplog: pytest.LogCaptureFixture) -> None:
    spelled = (*PROMPT, Turn("assistant", "Thought: <|im_end|>"), Turn("user", "b"))
    with caplog.at_level(logging.WARNING):
        broken, fine = writer.write([TurnRequest(spelled, (), ACTION_OPENING), TurnRequest(PROMPT, (), ACTION_OPENING)])
    assert broken == GeneratedTurn("", 0, (), False)
    assert fine.text.startswith(ACTION_OPENING)
    assert "control token '<|im_end|>'" in caplog.text
    assert writer.write([TurnRequest(spelled, (), ACTION_OPENING)]) == [broken]


def test_an_opening_that_fills_the_budget_is_told(
    functions: PolicyFunctions, variables: dict[str, Any], reader: ConversationReader
) -> None:
    short = TurnWriter(
        functions, variables, reader, batch=1, max_new_tokens=2, temperature=0.0, prefix_buckets=(64,), seed=0
    )
    with pytest.raises(UserError, match=r"config\.eval\.max_new_tokens=2 leaves no room"):
        short.write([TurnRequest(PROMPT, (), REFLECTION_OPENING)])
