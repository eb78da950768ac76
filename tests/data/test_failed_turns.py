"""Turns of clean trajectories that failed, or are said not to be trained: shown, trained or left out, and counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.corpus import clean_examples, told_failures
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.errors import UserError
from regrpo_jax.records import Trajectory, Turn
from regrpo_jax.records.conversation import steps_of
from tests.data.conftest import CONVERSATION, FAILED

Decode = Callable[[ChatRenderer, np.ndarray], str]


def trajectory(turns: tuple[Turn, ...], name: str = "detour") -> Trajectory:
    return Trajectory(name, (), "1280", turns, turns[0].content, turns[1].content, steps_of(turns))


DETOUR = trajectory(CONVERSATION)  # its second turn fails
STRAIGHT = trajectory((*CONVERSATION[:4], CONVERSATION[-1]), "straight")


def config(treatment: str) -> Any:
    changed = base_config()
    changed.data.failed_turns, changed.data.on_bad_record = treatment, "fatal"
    changed.sft.row_length = 4096
    return changed


def said(record: Trajectory) -> list[str]:
    return [turn.content for turn in record.conversation if turn.role == "assistant"]


@pytest.mark.parametrize("treatment", ["mask", "train", "drop"])
def test_failed_turns_are_treated_as_the_config_says(
    reader: ConversationReader, decode: Decode, end_of_turn: str, treatment: str
) -> None:
    found = clean_examples([DETOUR, STRAIGHT], reader, config(treatment))
    trained = {example.record_id: decode(reader.renderer, example.tokens[example.segments > 0]) for example in found}
    whole = {record.id: "".join(text + end_of_turn for text in said(record)) for record in (DETOUR, STRAIGHT)}
    assert FAILED in whole["detour"] and trained.pop("straight") == whole["straight"]
    masked = whole["detour"].replace(FAILED + end_of_turn, "")
    assert trained == {"mask": {"detour": masked}, "train": {"detour": whole["detour"]}, "drop": {}}[treatment]
    assert FAILED in "".join(decode(reader.renderer, example.tokens) for example in found) or treatment == "drop"


def test_masking_is_the_default() -> None:
    assert base_config().data.failed_turns == "mask"


def test_a_turn_that_is_not_to_be_trained_is_shown(chatml_reader: ConversationReader, decode: Decode) -> None:
    turns = tuple(dataclasses.replace(turn, trained=index != 2) for index, turn in enumerate(STRAIGHT.conversation))
    [example] = clean_examples([trajectory(turns)], chatml_reader, config("train"))
    trained = decode(chatml_reader.renderer, example.tokens[example.segments > 0])
    assert trained == said(STRAIGHT)[-1] + "<|im_end|>"
    assert said(STRAIGHT)[0] in decode(chatml_reader.renderer, example.tokens)


def test_they_are_counted() -> None:
    told = told_failures([DETOUR, STRAIGHT, DETOUR], "mask")
    assert told == (
        "2 turns in 2 of 3 clean trajectories failed or have no code: shown and not trained (config.data.failed_turns)"
    )
    assert told_failures([STRAIGHT], "mask") == ""


def test_nothing_left_is_an_error(chatml_reader: ConversationReader) -> None:
    with pytest.raises(UserError, match="'drop' leaves no trajectory"):
        clean_examples([DETOUR], chatml_reader, config("drop"))
    only = trajectory(CONVERSATION[:2] + CONVERSATION[4:6])
    with pytest.raises(UserError, match="none of its tokens would be trained on"):
        clean_examples([only], chatml_reader, config("mask"))
