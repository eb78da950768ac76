"""Whole runs against a server that fails in every way at once: nothing is lost, asked twice, overspent or told."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.engine.cases import Failure
from regrpo_jax.engine.teacher.limits import AnswerCache
from regrpo_jax.engine.teacher.questions import annotate_text
from regrpo_jax.engine.teacher.teacher import Teacher, TeacherRefused, TeacherStopped
from regrpo_jax.records.reflection import cites_observation, parse_reflection, render_reflection
from regrpo_jax.records.types import Reflection
from tests.engine.openai_server import Body, Script, conversation, openai_server, question
from tests.engine.teacher_cases import FastClock, settings, some_failures

ROOT = Path(__file__).parents[2]
PASSING = ["500", "429 wait", "503 wait", "hang", "truncated", "reset", "empty choices", "cut json", "web page", "drip"]
WRONG = ["wrong schema", "prose", "half json", "no quote", "length", "silence"]
FINAL = ["refusal", "content filter", "400 filter"]
STOPPING = ["401", "403", "404", "400", "429 money", "429 long"]
Outcome = Reflection | str


def scripted(place: int) -> list[str]:
    """What the failure at this place goes through, whatever the order in which threads ask."""
    rng = random.Random(place)
    faults = rng.sample(PASSING, rng.randrange(4)) + rng.sample(WRONG, rng.randrange(3))
    rng.shuffle(faults)
    end = rng.choice(["answer", "answer", "answer", rng.choice(FINAL), "wrong schema"])
    return [*faults, *[end] * 9]


def mixed(failures: Sequence[Failure]) -> Callable[[Body, int], str]:
    """Everything at once."""
    scripts = {annotate_text(failure): scripted(place) for place, failure in enumerate(failures)}
    return lambda body, number: scripts[question(body)][number]


def outcome(asker: Teacher, failure: Failure) -> Outcome:
    try:
        return asker.annotate(failure)
    except TeacherRefused as refusal:
        return str(refusal)


def run(asker: Teacher, failures: Sequence[Failure], threads: int) -> list[Outcome]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda failure: outcome(asker, failure), failures))


def test_of_sixty_failures_none_is_lost_and_none_malformed(tmp_path: Path) -> None:
    failures = some_failures(60)
    with openai_server(Script(behaviour=mixed(failures), delay=0.002)) as server:

        def asked(failure: Failure) -> int:
            return sum(question(body) == annotate_text(failure) for body in server.seen)

        asker = Teacher(settings(server.url, tmp_path, timeout=2.0, retries=4), FastClock().clock())
        found = run(asker, failures, 4)
        for failure, one in zip(failures, found, strict=True):
            if isinstance(one, str):
                rule, _, sentence = one.partition(": ")
                assert rule in ("teacher_refusal", "content_filter", "answer_malformed") and sentence.strip()
            else:
                assert parse_reflection(render_reflection(one)) == one
                assert one.error_type == failure.near_miss.error_type
                assert cites_observation(one.evidence, failure.failed.text)
        met = {scripted(place)[number] for place, failure in enumerate(failures) for number in range(asked(failure))}
        assert met >= {*PASSING, *WRONG, *FINAL}  # the mix really had everything in it
        refused = sum(isinstance(one, str) for one in found)
        assert 10 <= refused <= 35
        assert asker.spent().requests == len(server.seen)
        kept = [path for path in tmp_path.rglob("*.json") if path.name != "spent.json"]
        assert len(kept) == 60 - refused and not list(tmp_path.rglob("*.tmp"))

        server.script.behaviour = lambda body, number: "500"  # all that was found is found again without asking
        sent = len(server.seen)
        again = Teacher(settings(server.url, tmp_path), FastClock().clock())
        for failure, one in zip(failures, found, strict=True):
            assert isinstance(one, str) or again.annotate(failure) == one
        assert len(server.seen) == sent

    with openai_server(Script(behaviour=mixed(failures))) as server:  # one thread finds what four found
        asker = Teacher(settings(server.url, tmp_path / "alone", timeout=2.0, retries=4), FastClock().clock())
        assert run(asker, failures[:20], 1) == found[:20]


@pytest.mark.parametrize("limit", ["requests", "dollars"])
def test_a_budget_stops_the_run_and_the_next_asks_only_the_rest(limit: str, tmp_path: Path) -> None:
    failures = some_failures(30)
    prices = {"dollars_per_million_input_tokens": 1.0, "dollars_per_million_output_tokens": 1.0}
    # A bill is 3100 tokens; a reservation is a token of each byte (about 5500) and 1024 tokens.
    first: dict[str, Any] = {"most_requests": 12} if limit == "requests" else {"most_dollars": 0.04, **prices}
    done: dict[int, Reflection] = {}

    def ask(asker: Teacher, number: int) -> bool:
        try:
            done[number] = asker.annotate(failures[number])
        except TeacherStopped as stop:
            assert "budget is used up" in str(stop) and "run again" in str(stop)
            return False
        return True

    with openai_server(Script(delay=0.01, usage=(3000, 100))) as server:
        asker = Teacher(settings(server.url, tmp_path, **first), FastClock().clock())
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: ask(asker, number), range(30)))
        assert 0 < len(done) == len(server.seen) < 30
        if limit == "requests":
            assert len(done) == 12
        else:
            assert 0.04 - 0.0075 < asker.spent().dollars <= 0.04  # stopped near the limit, not far below
        more = {"most_requests": 30} if limit == "requests" else {"most_dollars": 1.0, **prices}
        before, asked = dict(done), len(server.seen)
        asker = Teacher(settings(server.url, tmp_path, **more), FastClock().clock())
        assert all(ask(asker, number) for number in range(30))
        assert len(server.seen) - asked == 30 - asked
        assert all(done[number] == one for number, one in before.items())
        assert asker.spent().requests == 30 and max(Counter(map(conversation, server.seen)).values()) == 1


KILLED = """
import sys
from pathlib import Path
from regrpo_jax.engine.teacher.teacher import Teacher
from tests.engine.teacher_cases import settings, some_failures
teacher = Teacher(settings(sys.argv[1], Path(sys.argv[2])))
for failure in some_failures(20):
    print(teacher.annotate(failure).evidence, flush=True)
"""


def test_a_run_that_is_killed_asks_nothing_twice(tmp_path: Path) -> None:
    with openai_server(Script(delay=0.03)) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, server.url, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 60
        while len(server.seen) < 8 and time.monotonic() < end:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        written = (process.communicate()[0] or "").splitlines()
        asked = len(server.seen)
        assert 8 <= asked < 20 and asked - 1 <= len(written) <= asked
        asker = Teacher(settings(server.url, tmp_path), FastClock().clock())
        found = [asker.annotate(failure) for failure in some_failures(20)]
        assert [one.evidence for one in found[: len(written)]] == written
        assert 20 <= len(server.seen) <= 21  # at most the one under way is asked again
        assert asker.spent().requests == len(server.seen)


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path) -> None:
    failures = some_failures(4)
    with openai_server() as server:
        asker = Teacher(settings(server.url, tmp_path), FastClock().clock())
        found = [asker.annotate(failure) for failure in failures]
        paths = sorted(path for path in tmp_path.rglob("*.json") if path.name != "spent.json")
        paths[0].write_bytes(paths[0].read_bytes()[:30])
        AnswerCache(tmp_path).put(paths[1].stem, "wise", '{"error_type": "ArgInvalid"}')  # whole, but no reflection
        assert [asker.annotate(failure) for failure in failures] == found and len(server.seen) == 6
        assert [asker.annotate(failure) for failure in failures] == found and len(server.seen) == 6


def test_two_threads_with_the_same_question_ask_once(tmp_path: Path) -> None:
    failure = some_failures(1)[0]
    with openai_server(Script(delay=0.05)) as server:
        asker = Teacher(settings(server.url, tmp_path), FastClock().clock())
        found = run(asker, [failure] * 4, 4)
        assert len(server.seen) == 1 and found == [found[0]] * 4


def test_threads_keep_to_the_concurrency(tmp_path: Path) -> None:
    with openai_server(Script(delay=0.03)) as server:
        asker = Teacher(settings(server.url, tmp_path, max_concurrency=2), FastClock().clock())
        run(asker, some_failures(12), 6)
        assert server.most == 2


def test_when_one_thread_must_stop_the_others_send_no_more(tmp_path: Path) -> None:
    with openai_server(Script(behaviour=lambda body, number: "401", delay=0.02)) as server:
        asker = Teacher(settings(server.url, tmp_path), FastClock().clock())

        def stopped(failure: Failure) -> bool:
            with pytest.raises(TeacherStopped, match="does not accept the key"):
                asker.annotate(failure)
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(stopped, some_failures(20)))
        assert len(server.seen) <= 4  # those that were under way


MARK = "sk-MARKED/0123456789+abcdef=="


def always(behaviour: str) -> Callable[[Body, int], str]:
    return lambda body, number: behaviour


def everything_told(behaviour: Callable[[Body, int], str], folder: Path) -> list[str]:
    """Texts of all that a teacher with the marked key raises, with their tracebacks, and of what it finds."""
    told = []
    with openai_server(Script(behaviour=behaviour)) as server:
        limits = {"timeout": 0.2, "retries": 2, "key_variable": "TEACHER_KEY"}
        chosen = settings(server.url, folder, **limits)
        asker = Teacher(chosen, FastClock().clock())
        told += [repr(chosen), repr(asker), str(vars(asker)), asker.name]
        for failure in some_failures(3):
            try:
                told.append(repr(asker.annotate(failure)))
            except (TeacherRefused, TeacherStopped) as error:
                told += [str(error), repr(error), "".join(traceback.format_exception(error))]
        asker.close()
        assert server.authorizations and set(server.authorizations) == {f"Bearer {MARK}"}  # it really was used
    return told


def test_the_key_is_told_to_the_server_and_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEACHER_KEY", MARK)
    caplog.set_level(logging.DEBUG)
    for name in ("httpx2", "httpcore2", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        caplog.set_level(logging.DEBUG, logger=name)
    told: list[str] = []
    for place, fault in enumerate([*PASSING, *WRONG, *FINAL, *STOPPING, "key", "answer"]):
        told += everything_told(always(fault), tmp_path / str(place))
    told += everything_told(mixed(some_failures(3)), tmp_path / "mixed")
    assert caplog.records and any(record.name.startswith("httpx2") for record in caplog.records)
    told += [caplog.text, *capfd.readouterr()]
    told += [f"{record.getMessage()} {record.args} {record.__dict__}" for record in caplog.records]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".json" and path.name != "spent.json" for path in files)
    told += [path.name + path.read_bytes().decode("utf-8", "replace") for path in files]
    assert any("[key]" in text for text in told)  # the server did repeat it
    for text in told:
        assert MARK not in text and MARK not in text.replace("\\", "") and "0123456789+abcdef" not in text


def test_without_its_key_a_run_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", MARK)  # somebody else's: it must not be sent to this server
    with openai_server() as server:
        with pytest.raises(TeacherStopped, match="TEACHER_KEY"):
            Teacher(settings(server.url, tmp_path, key_variable="TEACHER_KEY"))
        Teacher(settings(server.url, tmp_path), FastClock().clock()).annotate(some_failures(1)[0])
        assert server.authorizations == [""]
    assert json.loads((tmp_path / "spent.json").read_text())["requests"] == 1
