"""What a teacher may do: settings, budget, pace, cache. No server here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from regrpo_jax.engine.teacher.limits import AnswerCache, Budget, TeacherStopped, Usage, read_key, request_key
from regrpo_jax.errors import UserError
from regrpo_jax.toolbox.http_client import LONGEST_WAIT, Clock, Pace
from tests.engine.teacher_cases import settings

URL = "http://localhost:1/v1"
PRICES = {"dollars_per_million_input_tokens": 1.0, "dollars_per_million_output_tokens": 2.0}
ONE = Usage(1_000_000, 500_000)  # two dollars at these prices


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": "http://[1:2"}, "base_url"),
        ({"base_url": "http://me:secret@host/v1"}, "key belongs in the variable"),
        ({"base_url": "http://host/v1?api_key=secret"}, "key belongs in the variable"),
        ({"model": ""}, "model"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"requests_per_minute": 0.0}, "requests_per_minute"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"retries": -1}, "retries"),
        ({"most_requests": -1}, "most_requests"),
        ({"most_dollars": 5.0}, "limits nothing while both prices"),
        ({"temperature": -0.1}, "temperature"),
    ],
)
def test_settings_that_make_no_sense_are_told(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told) as caught:
        settings(URL, tmp_path, **changes)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "  ", "two words", "kéy-SECRET", "a\x7fSECRET"])
def test_a_variable_without_a_key_is_told_without_its_value(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", bad)
    with pytest.raises(TeacherStopped, match="TEACHER_KEY") as caught:
        read_key(settings(URL, tmp_path, key_variable="TEACHER_KEY"))
    assert "SECRET" not in str(caught.value) and "two words" not in str(caught.value)
    monkeypatch.setenv("TEACHER_KEY", " good-key\n")  # as a file of secrets leaves it
    chosen = settings(URL, tmp_path, key_variable="TEACHER_KEY")
    assert read_key(chosen) == "good-key" and "good-key" not in repr(chosen)
    assert read_key(settings(URL, tmp_path)) == ""


def test_many_threads_and_objects_never_spend_more_than_allowed(tmp_path: Path) -> None:
    chosen = settings(URL, tmp_path, most_dollars=21.0, most_requests=100, **PRICES)
    budgets = [Budget(chosen), Budget(chosen)]  # as two processes would
    sent, most = [], []
    lock = threading.Lock()

    def ask(number: int) -> bool:
        budget = budgets[number % 2]
        try:
            reserved = budget.reserve(ONE)
        except TeacherStopped:
            return False
        with lock:
            sent.append(number)
            most.append(budget.spent().dollars)
        budget.settle(reserved, Usage(500_000, 250_000), replied=True)  # half of what it might have been
        return True

    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(ask, range(60)))
    assert max(most) <= 21.0
    assert told.count(True) == 20 and Budget(chosen).spent().dollars == pytest.approx(20.0)
    assert Budget(chosen).spent().requests == Budget(chosen).spent().replies == 20


def test_who_waits_for_what_others_leave_over_gets_it(tmp_path: Path) -> None:
    budget = Budget(settings(URL, tmp_path, most_dollars=3.0, **PRICES))
    reserved = budget.reserve(ONE)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(budget.reserve, ONE)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        budget.settle(reserved, Usage(0, 0), replied=False)
        assert waiting.result(5) == 2.0


def test_requests_run_out_and_a_later_run_does_not_start_from_zero(tmp_path: Path) -> None:
    chosen = settings(URL, tmp_path, most_requests=3)
    for _ in range(3):
        budget = Budget(chosen)
        budget.settle(budget.reserve(ONE), None, replied=False)
    with pytest.raises(TeacherStopped, match="budget is used up: 3 of 3 requests"):
        Budget(chosen).reserve(ONE)
    assert Budget(replace(chosen, most_requests=4)).reserve(ONE) == 0.0


def test_a_bill_that_nobody_knows_is_taken_for_the_most(tmp_path: Path) -> None:
    budget = Budget(settings(URL, tmp_path, most_dollars=5.0, **PRICES))
    budget.settle(budget.reserve(ONE), None, replied=False)
    budget.reserve(ONE)  # and this process is killed now
    assert Budget(settings(URL, tmp_path)).spent().dollars == pytest.approx(4.0)
    with pytest.raises(TeacherStopped, match="may cost 2.0000"):
        Budget(settings(URL, tmp_path, most_dollars=5.0, **PRICES)).reserve(ONE)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"requests": "x"}', '{"requests": 1}', '{"requests": Infinity}']
)
def test_a_damaged_count_stops_instead_of_starting_from_zero(content: str, tmp_path: Path) -> None:
    (tmp_path / "spent.json").write_text(content)
    with pytest.raises(TeacherStopped, match=r"spent\.json"):
        Budget(settings(URL, tmp_path))


class Line:
    """A clock of which only waiting turns the hands."""

    def __init__(self) -> None:
        self.time, self.lock = 0.0, threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.time += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.time, lambda: self.time, self.sleep)


@hypothesis_settings(deadline=None, max_examples=30)
@given(st.floats(1, 600), st.integers(1, 8), st.integers(1, 25))
def test_requests_keep_their_distance(per_minute: float, threads: int, count: int) -> None:
    line = Line()
    pace = Pace(line.clock(), places=threads, interval=60 / per_minute)
    times: list[float] = []
    lock, inside, most = threading.Lock(), [0], [0]

    def ask(_: int) -> None:
        with pace.turn():
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                times.append(line.time)
            with lock:
                inside[0] -= 1

    with ThreadPoolExecutor(threads + 2) as pool:
        list(pool.map(ask, range(count)))
    assert len(times) == count and most[0] <= threads
    # However late a thread looks at the clock: by now at least so much time must have passed for so many.
    assert line.time >= (count - 1) * 60 / per_minute * (1 - 1e-9)


def test_one_thread_is_paced_exactly_and_held() -> None:
    line = Line()
    pace = Pace(line.clock(), places=4, interval=2.0)
    times = []
    for number in range(4):
        if number == 2:
            pace.hold(7.0)
        with pace.turn():
            times.append(line.time)
    assert times == pytest.approx([0, 2, 9, 11])


def test_backoff_grows_is_bounded_and_seeded() -> None:
    def waits(seed: int) -> list[float]:
        pace = Pace(Line().clock(), places=4, seed=str(seed))
        return [pace.backoff(failures) for failures in range(1, 50)]

    assert waits(1) == waits(1) != waits(2)
    for number, wait in enumerate(waits(1)):
        longest = min(LONGEST_WAIT, 2.0**number)
        assert longest / 2 <= wait <= longest


answers = st.text(st.characters(codec="utf-8"))


@given(answers, st.text("0123456789abcdef", min_size=64, max_size=64))
def test_the_cache_gives_back_what_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, answer: str, key: str
) -> None:
    cache = AnswerCache(tmp_path_factory.mktemp("cache"))
    assert cache.get(key) is None
    cache.put(key, "wise", answer)
    assert cache.get(key) == answer


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-4],
        lambda data: b"\xff" + data,
        lambda data: b"[1, 2]",
        lambda data: b"null",
        lambda data: b'{"key": 1}',
        lambda data: data.replace(b'"answer": "', b'"answer": 5, "x": "'),
        lambda data: data.replace(b"aaaa", b"bbbb"),  # the entry of another question
        lambda data: b"[" * 100_000,
    ],
)
def test_a_damaged_entry_is_none(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    cache, key = AnswerCache(tmp_path), "a" * 64
    cache.put(key, "wise", "said")
    path = next(tmp_path.rglob("*.json"))
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(key) is None
    cache.put(key, "wise", "again")
    assert cache.get(key) == "again"
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_a_disk_that_takes_nothing_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "aa").write_text("a file in the place of the folder")
    with pytest.raises(TeacherStopped, match="cannot be written"):
        AnswerCache(tmp_path).put("a" * 64, "wise", "said")


def test_the_key_of_a_request_tells_all_its_parts_apart() -> None:
    request = {"model": "wise", "messages": [{"role": "user", "content": "é"}], "temperature": 0.0, "seed": 0}
    assert request_key(request) == request_key(dict(reversed(request.items())))
    assert request_key(request) == request_key(json.loads(json.dumps(request)))
    others = [
        request | {"model": "x"},
        request | {"messages": []},
        request | {"temperature": 0.1},
        request | {"seed": 1},
    ]
    assert len({request_key(one) for one in [request, *others]}) == 5


def test_no_field_of_the_settings_holds_a_key() -> None:
    assert not [one.name for one in fields(settings(URL, Path("x"))) if one.name in ("key", "api_key", "token")]
