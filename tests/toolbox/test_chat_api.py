"""Servers as they complain: what is too long, what asks for another name, what may pass, and who is told a key."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from regrpo_jax.toolbox.chat_api import Api, ApiError, Course, body_of, choice_of, judge
from regrpo_jax.toolbox.http_client import HttpClient
from tests.agent.odd_engine import OddEngine, in_seconds, odd_serving

# As servers say it: OpenAI, vLLM (older, newer, with pictures), SGLang, llama.cpp, TGI, Mistral, Gemini, Bedrock.
TOO_LONG = [
    {"error": {"message": "too many", "code": "context_length_exceeded", "param": "messages"}},
    {"object": "error", "message": "This model's maximum context length is 2048 tokens. However, you requested 2100 "
     "tokens (2000 in the messages, 100 in the completion).", "type": "BadRequestError", "param": None, "code": 400},
    {"error": {"message": "'max_tokens' or 'max_completion_tokens' is too large: 200. This model's maximum context "
     "length is 100 tokens and your request has 50 input tokens (200 > 100 - 50).", "param": "max_tokens"}},
    {"error": {"message": "The decoder prompt (length 3000) is longer than the maximum model length of 2048."}},
    {"message": "The input (5000 tokens) is longer than the model's context length (4096 tokens)."},
    {"error": {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}},
    {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs`"},
    {"message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context"},
    {"error": {"message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."}},
    {"message": "Input is too long for requested model."},
]  # fmt: skip


@pytest.mark.parametrize("body", TOO_LONG, ids=lambda body: str(body)[:40])
@pytest.mark.parametrize("status", [400, 422])
def test_what_is_too_long_is_one_requests_trouble(body: dict[str, Any], status: int) -> None:
    verdict = judge(status, json.dumps(body), None)
    assert (verdict.course, verdict.rule) == (Course.REFUSE, "too_long") and not verdict.wants_other_limit
    assert judge(413, "<html>", None).rule == "too_long"
    assert judge(500, json.dumps(body), None).course == Course.RETRY


@pytest.mark.parametrize(
    "told",
    ["max_tokens is too large: 5000. This model supports at most 4096 completion tokens", "temperature must be >= 0",
     "Unexpected fields in the request: {'top_p'}", "the model does not exist"],
)  # fmt: skip
def test_other_complaints_are_not_taken_for_it(told: str) -> None:
    sent = {"messages": "the context window is too long", "max_tokens": 3}
    pydantic = {"detail": [{"loc": ["body", "top_p"], "msg": told, "input": sent}]}
    for body in ({"error": {"message": told}}, {"detail": told}, pydantic):
        verdict = judge(400, json.dumps(body), None)
        assert (verdict.course, verdict.wants_other_limit) == (Course.SIMPLIFY, False) and told in verdict.words


def test_a_field_that_a_server_names_by_its_place() -> None:
    refused = {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted", "input": 3}]}
    assert judge(422, json.dumps(refused), None).wants_other_limit


@pytest.mark.parametrize(
    "error",
    [{"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
      "instead.", "param": "max_tokens"}, {"message": "no", "param": "max_tokens"},
     {"message": "Unrecognized request argument supplied: max_tokens"}],
)  # fmt: skip
def test_the_other_name_of_the_limit_is_found_once(error: dict[str, str]) -> None:
    asked: list[str] = []

    def refusing(body: dict[str, Any]) -> dict[str, Any]:
        asked.append("max_tokens" if "max_tokens" in body else "max_completion_tokens")
        return {"error": error | {"code": 400}} if asked[-1] == "max_tokens" else {"most": body[asked[-1]]}

    with odd_serving(OddEngine(refusing, lambda number: "")) as address, HttpClient(timeout=30) as client:
        api = Api(client, address, retries=0)
        for _ in range(2):
            assert api.ask("/x", {"max_tokens": 7}, lambda text: _checked(body_of(text))["most"]) == 7
    assert asked == ["max_tokens", "max_completion_tokens", "max_completion_tokens"]


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    return body if "most" in body else choice_of(json.dumps(body))[1]


@pytest.mark.parametrize("dated", [False, True])
def test_a_server_that_asks_for_time_is_given_it(dated: bool) -> None:
    engine = OddEngine(lambda body: {"fine": 1}, lambda number: "status 429" if number == 0 else "", wait="0.4")
    if dated:
        engine.wait = in_seconds(2)
    with odd_serving(engine) as address, HttpClient(timeout=30) as client:
        begun = time.monotonic()
        assert Api(client, address, retries=1, first_wait=0.001).ask("/x", {}, body_of) == {"fine": 1}
        assert time.monotonic() - begun > (0.8 if dated else 0.4)
        engine.asked, engine.wait = 0, "86400"
        with pytest.raises(ApiError, match="HTTP 429"):
            Api(client, address, retries=9, first_wait=0.001).ask("/x", {}, body_of)


@pytest.mark.parametrize("status", ["status 520", "status 529", "status 503", "body cut", "body empty", "no HTTP"])
def test_what_passes_is_outlasted(status: str) -> None:
    engine = OddEngine(lambda body: {"fine": 1}, lambda number: status if number < 2 else "")
    with odd_serving(engine) as address, HttpClient(timeout=30) as client:
        assert Api(client, address, retries=2, first_wait=0.001).ask("/x", {}, body_of) == {"fine": 1}
        engine.asked = 0
        with pytest.raises(ApiError):
            Api(client, address, retries=1, first_wait=0.001).ask("/x", {}, body_of)


@pytest.mark.parametrize("key", ["sk-MARKED/0123456789+abcdef==", "s3cret"])
def test_a_key_that_a_server_repeats_is_told_to_nobody(key: str) -> None:
    engine = OddEngine(lambda body: {"error": {"message": f"no: Bearer {key}", "code": 400}}, lambda number: "")
    with odd_serving(engine) as address, HttpClient(timeout=30, key=key) as client:
        with pytest.raises(ApiError, match=r"\[key\]") as caught:
            Api(client, address, retries=0).ask("/x", {}, choice_of)
        assert engine.headers == [f"Authorization: Bearer {key}"] and key not in str(caught.value)
        engine.write = lambda body: {"said": f"Bearer {key}"}
        assert Api(client, address, retries=0).ask("/x", {}, body_of)["said"].endswith("[key]")


def test_a_word_that_stands_for_a_key_may_be_said() -> None:
    engine = OddEngine(lambda body: {"said": "the folder is EMPTY"}, lambda number: "")
    with odd_serving(engine) as address, HttpClient(timeout=30, key="EMPTY") as client:
        assert Api(client, address, retries=0).ask("/x", {}, body_of) == {"said": "the folder is EMPTY"}
