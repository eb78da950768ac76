"""An engine's reply, read without trust: every field may be anything, and a turn is used whole or not at all."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.agent.engine_reply import Said, read_said
from regrpo_jax.toolbox.chat_api import BadReply
from tests.agent.odd_engine import CHANGES, UNSCORED

GOOD: dict[str, Any] = {
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "ab"},
            "finish_reason": "stop",
            "logprobs": {
                "content": [
                    {"token": "a", "logprob": -0.5, "bytes": [97]},
                    {"token": "b", "logprob": 0, "bytes": None},
                    {"token": "token_id:3", "logprob": -1e-7, "bytes": []},
                ]
            },
        }
    ],
    "usage": {"prompt_tokens": 4, "completion_tokens": 3},
}
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("\ud800")
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2)
)


def paths(value: Any, start: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a body something stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [start, *(path for key, each in inner for path in paths(each, (*start, key)))]


def test_a_good_reply_is_read() -> None:
    said = read_said(json.dumps(GOOD), 3)
    assert (said.text, said.finished, said.counted) == ("ab", True, 3)
    assert [(one.name, one.piece, one.logprob) for one in said.tokens] == [
        ("a", b"a", -0.5), ("b", b"b", 0.0), ("token_id:3", b"token_id:3", -1e-7),
    ]  # fmt: skip
    with pytest.raises(BadReply, match="3 tokens where at most 2"):
        read_said(json.dumps(GOOD), 2)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(paths(GOOD)[1:]), anything, st.booleans())
def test_a_reply_with_anything_anywhere_is_read_or_refused(path: tuple[Any, ...], value: Any, gone: bool) -> None:
    body = copy.deepcopy(GOOD)
    place = body
    for key in path[:-1]:
        place = place[key]
    if gone:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    try:
        said = read_said(json.dumps(body), 50)
    except BadReply as error:
        str(error).encode()
        return
    assert isinstance(said, Said) and said.text.encode() is not None
    assert all(math.isfinite(one.logprob) and -1000 <= one.logprob <= 0 for one in said.tokens)
    assert all(isinstance(one.piece, bytes) and isinstance(one.name, str) for one in said.tokens)


@settings(deadline=None, max_examples=50)
@given(st.text() | anything.map(json.dumps) | st.integers(1, 300).map(lambda cut: json.dumps(GOOD)[:-cut]))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(BadReply):
        read_said(text, 50)


@pytest.mark.parametrize("way", [way for way in CHANGES if way not in UNSCORED])
def test_one_thing_wrong_refuses_the_turn(way: str) -> None:
    body = copy.deepcopy(GOOD)
    CHANGES[way](body)
    with pytest.raises(BadReply) as caught:
        read_said(json.dumps(body), 50)
    assert caught.value.final == (way in ("words in tool_calls", "finish content_filter"))


def test_choices_out_of_order_and_twice_the_same() -> None:
    choice = GOOD["choices"][0]
    other = choice | {"index": 1, "message": {"role": "assistant", "content": "the second"}}
    assert read_said(json.dumps(GOOD | {"choices": [other, choice]}), 9).text == "ab"
    assert read_said(json.dumps(GOOD | {"choices": [choice, choice]}), 9).text == "ab"
    unnumbered = {name: value for name, value in choice.items() if name != "index"}
    assert read_said(json.dumps(GOOD | {"choices": [unnumbered]}), 9).text == "ab"


def test_a_turn_that_ended_at_once_has_no_words() -> None:
    body = copy.deepcopy(GOOD)
    body["choices"][0] |= {"message": {"role": "assistant", "content": None}, "logprobs": None}
    assert read_said(json.dumps(body), 9) == Said("", True, (), 3, prompt=4)
