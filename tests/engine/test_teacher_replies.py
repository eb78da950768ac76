"""What servers answer is read without trust: bodies, complaints, headers, formats they do not know."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.engine.teacher.client import Dialect, Reply, read_reply
from regrpo_jax.engine.teacher.limits import Usage
from regrpo_jax.toolbox.chat_api import BadReply, Course, Verdict, judge
from regrpo_jax.toolbox.http_client import retry_after

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.sampled_from(
    ["choices", "message", "content", "finish_reason", "refusal", "usage", "prompt_tokens", "completion_tokens",
     "error", "code", "param", "type"]
)  # fmt: skip
bodies = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4))


@given(bodies.map(json.dumps) | st.text())
def test_any_body_is_a_reply_or_bad(text: str) -> None:
    try:
        reply = read_reply(text)
    except BadReply as error:
        assert str(error).startswith("it answered ")
    else:
        assert isinstance(reply, Reply) and isinstance(reply.content, str)


@given(st.integers(400, 599), bodies.map(json.dumps) | st.text(), st.none() | st.floats(0, 1e9))
def test_any_complaint_has_a_course(status: int, text: str, after: float | None) -> None:
    verdict = judge(status, text, after)
    assert verdict.words.startswith(f"HTTP {status}") and len(verdict.words) < 500 and "\n" not in verdict.words
    if status in (401, 402, 403):
        assert verdict.course == Course.STOP
    elif verdict.course == Course.RETRY:
        assert (status in (408, 409, 425, 429) or status >= 500) and verdict.after == after


@given(
    st.lists(st.sampled_from(["", "max_tokens", "temperature", "seed", "response_format"]), min_size=12, max_size=12)
)
def test_a_dialect_gets_simpler_only_so_often(params: list[str]) -> None:
    dialect, seen = Dialect(), [Dialect()]
    for param in params:
        simpler = dialect.simpler(Verdict(Course.SIMPLIFY, "HTTP 400", param=param))
        if simpler is None:
            assert dialect.form == "text"
            break
        assert simpler not in seen
        seen.append(simpler)
        dialect = simpler
    assert len(seen) <= 6


def test_how_a_request_is_put() -> None:
    schema = {"name": "reflection", "strict": True, "schema": {}}
    first = Dialect().parameters(schema, 50, 0.5, 3)
    form = {"type": "json_schema", "json_schema": schema}
    assert first == {"max_tokens": 50, "temperature": 0.5, "seed": 3, "response_format": form}
    told = Verdict(Course.SIMPLIFY, "Unsupported parameter: use 'max_completion_tokens' instead")
    assert "max_completion_tokens" in (Dialect().simpler(told) or Dialect()).parameters(schema, 50, 0.5, 3)
    assert Dialect("text", temperature=False, seed=False).parameters(schema, 50, 0.5, 3) == {"max_tokens": 50}


def test_a_whole_reply_is_read() -> None:
    choice = {"message": {"content": "hello", "refusal": None}, "finish_reason": "stop"}
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    assert read_reply(json.dumps(body)) == Reply("hello", "stop", "", Usage(3, 4))
    for usage in (
        None,
        {},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
    ):
        assert read_reply(json.dumps(body | {"usage": usage})).usage is None


DATE = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("", None), ("nan", None), ("inf", None),
     (formatdate(DATE + 90, usegmt=True), 90.0), (formatdate(DATE - 90, usegmt=True), 0.0),
     ("Wed, 99 Foo 2020 99:99:99 GMT", None), ("Thu, 01 Jan 99999 00:00:00 GMT", None)],
)  # fmt: skip
def test_retry_after_in_both_its_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, DATE) == seconds


@given(st.text())
def test_any_retry_after_can_be_read(value: str) -> None:
    seconds = retry_after(value, DATE)
    assert seconds is None or 0 <= seconds < float("inf")
