"""Turns out of sampled tokens: which tokens are code, which are reflection, and prompts that do not fit."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.agent.policy import ACTION_OPENING, REFLECTION_OPENING, EpisodePrompt, SampledTurn, WriteRequest
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.evaluation.decoding import GeneratedTurn, TurnRequest, TurnWriter, generated_turn
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.records import Turn
from regrpo_jax.rollouts.sampler_policy import CHUNK, SamplerPolicy
from regrpo_jax.rollouts.token_text import TokenText
from regrpo_jax.stages.replay import with_room

REFLECTION = "Reflection:\n- ErrorType: ArgInvalid\n- Evidence: It says 'total'.\n- FixPlan: Read a.csv.\n"
PROMPT = (Turn("system", "Use the tools."), Turn("user", "Task: what is the total?"))


@pytest.fixture(scope="module")
def writer(functions: PolicyFunctions, variables: dict[str, Any], reader: ConversationReader) -> TurnWriter:
    policy = SamplerPolicy(
        functions, variables, reader, prefix_buckets=(64, 128), branch_tokens=64, lanes=1, temperature=0.0
    )
    return TurnWriter(policy, batch=2, max_new_tokens=64, seed=0)


@pytest.fixture
def turn_of(reader: ConversationReader) -> Callable[..., tuple[GeneratedTurn, list[list[int]]]]:
    """The turn made of texts that were sampled one after another, and the token numbers of each text."""

    def make(*texts: str, stopped: bool = True) -> tuple[GeneratedTurn, list[list[int]]]:
        tokens: list[int] = []
        places = []
        for text in texts:
            ids = reader.renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
            places.append(list(range(len(tokens), len(tokens) + len(ids))))
            tokens += ids
        text, starts = TokenText(reader.renderer.tokenizer).text_of(tokens)
        if stopped:
            tokens, starts = [*tokens, reader.renderer.end_of_turn_id], np.append(starts, len(text))
        logprobs = -np.arange(len(tokens), dtype=np.float32)  # a token's log-prob tells its number
        sampled = SampledTurn(np.zeros(0, np.int32), np.array(tokens), logprobs, text, starts, stopped)
        return generated_turn(sampled), places

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
        TurnRequest("alpha", PROMPT, (), ACTION_OPENING),
        TurnRequest("alpha", PROMPT, (), REFLECTION_OPENING),
        TurnRequest("alpha", (*PROMPT, Turn("assistant", "Thought: a"), Turn("user", "b")), (), ACTION_OPENING),
    ]
    turns = writer.write(requests)
    assert [turn.text.startswith(request.opening) for turn, request in zip(turns, requests, strict=True)] == [True] * 3
    for turn, request in zip(turns, requests, strict=True):
        (alone,) = writer.write([request])
        assert alone.text == turn.text
        np.testing.assert_allclose(alone.code_logprobs, turn.code_logprobs, atol=1e-4)
        assert all(value <= 0 for value in turn.code_logprobs)
    assert writer.write([]) == []


def test_turns_keep_their_budget_and_their_draws_do_not_depend_on_the_batch(writer: TurnWriter) -> None:
    policy = dataclasses.replace(writer.policy, temperature=1.0, top_k=50, top_p=0.95)
    warm = dataclasses.replace(writer, policy=policy, max_new_tokens=24)
    requests = [TurnRequest("alpha", PROMPT, (), opening) for opening in (ACTION_OPENING, REFLECTION_OPENING) * 2]
    turns = warm.write(requests)
    assert [turn.text for turn in dataclasses.replace(warm, batch=3).write(requests)] == [turn.text for turn in turns]
    assert turns[0] != turns[2] and turns[1] != turns[3]
    for turn in turns:
        # Without a code block all sampled tokens count but those of a reflection.
        assert turn.finished or turn.reflection_tokens or len(turn.code_logprobs) == 24


def test_no_control_token_and_no_row_without_a_token_is_ever_sampled(
    writer: TurnWriter, functions: PolicyFunctions, variables: dict[str, Any], reader: ConversationReader
) -> None:
    # A policy that wants nothing but control tokens and the rows that pad its vocabulary: with tied embeddings their
    # rows are also its output.
    tokenizer = reader.renderer.tokenizer
    control = sorted(set(reader.renderer.control_tokens.values()) - {reader.renderer.end_of_turn_id})
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") in control
    embedding = variables["params"]["embedding"]
    embedding = jnp.concatenate([embedding, embedding[-7:]])
    padding = list(range(len(tokenizer), len(embedding)))
    assert len(padding) == 7
    embedding = embedding.at[jnp.array(control + padding)].multiply(100.0)
    hungry = dataclasses.replace(
        writer.policy,
        functions=policy_functions(dataclasses.replace(functions.config, vocab_size=len(embedding))),
        variables={"params": variables["params"] | {"embedding": embedding}},
        temperature=1.0,
    )
    session = hungry.start([EpisodePrompt(PROMPT, (), 0)], branches=2, seed=0)
    turns = session.write([WriteRequest((0, 0), ACTION_OPENING, 64), WriteRequest((0, 1), REFLECTION_OPENING, 64)])
    assert all(len(turn.tokens) for turn in turns)
    assert not {*control, *padding} & {int(token) for turn in turns for token in turn.tokens}


def test_a_conversation_that_cannot_be_a_prompt_ends(writer: TurnWriter, caplog: pytest.LogCaptureFixture) -> None:
    spelled = (*PROMPT, Turn("assistant", "Thought: <|im_end|>"), Turn("user", "b"))
    fine_request, broken_request = (TurnRequest(name, turns, (), ACTION_OPENING) for name, turns in
                                    (("alpha", PROMPT), ("beta", spelled)))  # fmt: skip
    with caplog.at_level(logging.WARNING):
        broken, fine = writer.write([broken_request, fine_request])
    assert broken == GeneratedTurn("", 0, (), False)
    assert fine.text.startswith(ACTION_OPENING)
    assert "a conversation ends early: record beta: turn 2 contains the tokenizer's control token" in caplog.text
    assert writer.write([broken_request]) == [broken]


def test_a_prompt_longer_than_the_largest_bucket_ends_and_is_not_cut(
    writer: TurnWriter, reader: ConversationReader, caplog: pytest.LogCaptureFixture
) -> None:
    length = len(reader.read_prompt(PROMPT, ())[0])
    request = TurnRequest("gamma", PROMPT, (), ACTION_OPENING)
    narrow, fitting = (
        dataclasses.replace(
            writer, policy=dataclasses.replace(writer.policy, prefix_buckets=(8, length + CHUNK - less))
        )
        for less in (1, 0)
    )
    assert fitting.write([request])[0].text.startswith(ACTION_OPENING)
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        assert narrow.write([request]) == [GeneratedTurn("", 0, (), False)]
    assert f"a conversation ends early: record gamma: a prompt of {length} tokens is longer" in caplog.text


def test_every_prompt_that_is_replayable_has_room(writer: TurnWriter, reader: ConversationReader) -> None:
    length = len(reader.read_prompt(PROMPT, ())[0])  # its last token leads the turn, so a bucket may hold one less
    policy = dataclasses.replace(writer.policy, prefix_buckets=with_room((length - 1, 8)))
    (turn,) = dataclasses.replace(writer, policy=policy).write([TurnRequest("delta", PROMPT, (), REFLECTION_OPENING)])
    assert turn.text.startswith(REFLECTION_OPENING)
