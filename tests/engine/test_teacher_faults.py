"""Every way in which a server fails, one at a time, over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.engine.teacher.teacher import Teacher, TeacherRefused, TeacherStopped
from tests.engine.openai_server import BODIES, HANGS, Body, Server, openai_server, question
from tests.engine.teacher_cases import FastClock, settings, simple_failure

FAILURE = simple_failure()


@pytest.fixture
def server() -> Iterator[Server]:
    with openai_server() as made:
        yield made


@pytest.fixture
def clock() -> FastClock:
    return FastClock()


def teacher(server: Server, folder: Path, clock: FastClock, **changes: Any) -> Teacher:
    return Teacher(settings(server.url, folder, **changes), clock.clock())


def first(server: Server, *behaviours: str) -> None:
    """Do these one after the other, then answer."""
    server.script.behaviour = lambda body, number: behaviours[number] if number < len(behaviours) else "answer"


@pytest.mark.parametrize(
    "fault",
    [
        "500",
        "502",
        "503",
        "429",
        "408",
        "429 odd",
        "hang",
        "drip",
        "reset",
        "truncated",
        "520",
        "529",
        "abort",
        "error",
        *BODIES,
    ],
)
def test_a_fault_that_passes_is_outlasted(fault: str, server: Server, tmp_path: Path, clock: FastClock) -> None:
    first(server, fault, fault)
    asker = teacher(server, tmp_path, clock, timeout=2.0 if fault in ("hang", "drip") else 60.0)
    start = time.monotonic()
    assert asker.annotate(FAILURE).fix_plan
    assert time.monotonic() - start < HANGS / 2, "it was not waited for"
    assert len(server.seen) == asker.spent().requests == 3 and asker.spent().replies == 1
    waits = [wait for wait in clock.waits if wait > 0.01]
    assert len(waits) == 2 and 0.5 <= waits[0] <= 1 <= waits[1] <= 2


@pytest.mark.parametrize(("fault", "wait"), [("429 wait", 7.0), ("503 wait", 0.5), ("429 date", 30.0)])
def test_retry_after_is_honoured(fault: str, wait: float, server: Server, tmp_path: Path, clock: FastClock) -> None:
    server.script.dated = lambda: formatdate(clock.clock().date() + 31, usegmt=True)
    first(server, fault)
    assert teacher(server, tmp_path, clock).annotate(FAILURE)
    assert sum(clock.waits) >= wait


@pytest.mark.parametrize(
    ("fault", "told"),
    [("401", "does not accept the key"), ("403", "does not accept the key"), ("404", "Check base_url and model"),
     ("429 money", "no money"), ("429 long", "asks to wait 86400 seconds"), ("400", "not understood any request")],
)  # fmt: skip
def test_what_cannot_get_better_stops_the_run(
    fault: str, told: str, server: Server, tmp_path: Path, clock: FastClock
) -> None:
    server.script.behaviour = lambda body, number: fault
    asker = teacher(server, tmp_path, clock)
    with pytest.raises(TeacherStopped, match=told):
        asker.annotate(FAILURE)
    sent = len(server.seen)
    assert sent == (3 if fault == "400" else 1)  # 400: once in every format
    with pytest.raises(TeacherStopped, match=told):  # nor does another thread ask again
        asker.annotate(simple_failure(right='read("moon")'))
    assert len(server.seen) == sent


@pytest.mark.parametrize("fault", ["500", "429", "hang", "reset", "web page"])
def test_a_server_that_stays_away_stops_the_run_and_it_goes_on_later(
    fault: str, server: Server, tmp_path: Path, clock: FastClock
) -> None:
    server.script.behaviour = lambda body, number: fault
    with pytest.raises(TeacherStopped, match=r"\(3 tries\)"):
        teacher(server, tmp_path, clock, retries=2, timeout=0.2).annotate(FAILURE)
    assert len(server.seen) == 3
    first(server)
    assert teacher(server, tmp_path, clock).annotate(FAILURE)


def test_nobody_listens(tmp_path: Path, clock: FastClock) -> None:
    with openai_server() as server:
        url = server.url
    prices = {"dollars_per_million_input_tokens": 1.0, "most_dollars": 1.0}
    asker = Teacher(settings(url, tmp_path, retries=3, **prices), clock.clock())
    with pytest.raises(TeacherStopped, match=r"no answer: Connect\w+: .*\(4 tries\). Run again when it answers"):
        asker.annotate(FAILURE)
    assert (asker.spent().requests, asker.spent().dollars) == (4, 0.0)  # what never arrived costs nothing


def test_a_record_that_breaks_a_server_that_serves_others_is_refused(
    server: Server, tmp_path: Path, clock: FastClock
) -> None:
    asker = teacher(server, tmp_path, clock, retries=2)
    other = simple_failure(right='read("moon")')

    def behaviour(body: Body, number: int) -> str:
        if "moon" not in question(body):
            return "answer"
        if number == 1:
            asker.annotate(FAILURE)  # another thread is served meanwhile
        return "500"

    server.script.behaviour = behaviour
    with pytest.raises(TeacherRefused, match=r"^server_error: HTTP 500: .*\(3 tries\)$"):
        asker.annotate(other)


def test_a_record_that_is_answered_oddly_is_refused_and_the_run_goes_on(
    server: Server, tmp_path: Path, clock: FastClock
) -> None:
    server.script.behaviour = lambda body, number: "cut json" if "moon" in question(body) else "answer"
    asker = teacher(server, tmp_path, clock, retries=2)
    assert asker.annotate(FAILURE)
    with pytest.raises(TeacherRefused, match=r"^odd_reply: .*no JSON \(3 tries\)$"):  # nobody else is asking
        asker.annotate(simple_failure(right='read("moon")'))
    assert asker.annotate(simple_failure(right='read("star")'))


@pytest.mark.parametrize(
    "fault", ["wrong schema", "wrong type", "no quote", "prose", "half json", "silence", "length", "odd letters"]
)
def test_a_wrong_answer_is_sent_back_with_what_is_wrong(
    fault: str, server: Server, tmp_path: Path, clock: FastClock
) -> None:
    first(server, fault, fault)
    assert teacher(server, tmp_path, clock).annotate(FAILURE)
    assert [len(body["messages"]) for body in server.seen] == [2, 4, 4]
    roles = [message["role"] for message in server.seen[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    told = {
        "wrong schema": "'confidence', which it must not have",
        "wrong type": "must be 'ArgInvalid'",
        "no quote": "does not quote",
        "length": "cut off after 1024 tokens",
        "odd letters": "half a character",
    }.get(fault, "no JSON")
    assert told in server.seen[-1]["messages"][-1]["content"]


@pytest.mark.parametrize("fault", ["wrong schema", "length", "silence"])
def test_an_answer_that_stays_wrong_refuses_the_record_and_is_not_kept(
    fault: str, server: Server, tmp_path: Path, clock: FastClock
) -> None:
    server.script.behaviour = lambda body, number: fault
    asker = teacher(server, tmp_path, clock, repairs=1)
    with pytest.raises(TeacherRefused, match=r"^answer_malformed: still after 1 repairs: \S"):
        asker.annotate(FAILURE)
    assert len(server.seen) == 2
    first(server)
    assert asker.annotate(FAILURE) and len(server.seen) == 3


@pytest.mark.parametrize(
    ("fault", "rule"),
    [("refusal", "teacher_refusal"), ("content filter", "content_filter"), ("400 filter", "content_filter"),
     ("400 length", "too_long")],
)  # fmt: skip
def test_a_refusal_is_one_records_only(fault: str, rule: str, server: Server, tmp_path: Path, clock: FastClock) -> None:
    first(server, fault)
    asker = teacher(server, tmp_path, clock)
    with pytest.raises(TeacherRefused, match=f"^{rule}: .") as caught:
        asker.annotate(FAILURE)
    assert "\n" not in str(caught.value) and len(server.seen) == 1
    first(server)
    assert asker.annotate(simple_failure(right='read("moon")'))


def test_a_bad_request_of_a_server_that_understood_others_is_one_records(
    server: Server, tmp_path: Path, clock: FastClock
) -> None:
    assert teacher(server, tmp_path, clock).annotate(FAILURE)
    server.script.behaviour = lambda body, number: "400" if "moon" in question(body) else "answer"
    asker = teacher(server, tmp_path, clock)  # the run is resumed, and remembers
    with pytest.raises(TeacherRefused, match="^bad_request: HTTP 400"):
        asker.annotate(simple_failure(right='read("moon")'))
    assert asker.annotate(simple_failure(right='read("star")'))
    assert server.seen[-1]["response_format"]["type"] == "json_schema"  # one odd record has not simplified the rest


@pytest.mark.parametrize(
    ("formats", "forms"),
    [(("json_object", "text"), ["json_schema", "json_object"]), (("text",), ["json_schema", "json_object", "text"])],
)
def test_formats_that_a_server_does_not_know(
    formats: tuple[str, ...], forms: list[str], server: Server, tmp_path: Path, clock: FastClock
) -> None:
    server.script.formats = formats
    asker = teacher(server, tmp_path, clock)
    assert asker.annotate(FAILURE) and asker.annotate(simple_failure(right='read("moon")'))
    sent = [body.get("response_format", {"type": "text"})["type"] for body in server.seen]
    assert sent == [*forms, forms[-1]]  # found out once


def test_parameters_that_a_server_does_not_know(server: Server, tmp_path: Path, clock: FastClock) -> None:
    server.script.unknown = ("max_tokens", "temperature", "seed")
    asker = teacher(server, tmp_path, clock)
    assert asker.annotate(FAILURE)
    last = server.seen[-1]
    assert last["max_completion_tokens"] == 1024 and not set(server.script.unknown) & set(last)
    assert last["response_format"]["type"] == "json_schema" and len(server.seen) == 4


def test_an_empty_observation_is_not_even_asked_about(server: Server, tmp_path: Path, clock: FastClock) -> None:
    with pytest.raises(TeacherRefused, match="^observation_empty"):
        teacher(server, tmp_path, clock).annotate(simple_failure(observation=" \n"))
    assert server.seen == []


def test_half_characters_in_a_prompt_do_no_harm(server: Server, tmp_path: Path, clock: FastClock) -> None:
    failure = simple_failure(observation='NotFound \ud800: "Ann" at "bridge"')
    assert teacher(server, tmp_path, clock).annotate(failure)
