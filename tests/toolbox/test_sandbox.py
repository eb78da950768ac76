"""What an episode can do: run actions, call tools, keep variables, answer; and how that is told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.results import ActionResult, ToolRun
from regrpo_jax.sandbox.session import RESTARTED, SandboxSession
from regrpo_jax.sandbox.settings import SandboxSettings
from tests.toolbox.sandbox_checks import INPUTS, LOADER, pool, probe, workers_of

WRAP = "tests.toolbox.sandbox_tools:break_tools"


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxPool]:
    with pool() as a_pool:
        yield a_pool


@pytest.fixture
def session(shared: SandboxPool) -> Iterator[SandboxSession]:
    with shared.open(INPUTS, seed=1) as opened:
        yield opened


STATUSES = {
    "print(read_text('notes.txt'))": Status.OK,
    "1 + 1": Status.OK,
    "final_answer('x')": Status.OK,
    "find('nothing')": Status.EMPTY,
    "find('nowhere')": Status.EMPTY,
    "find('nothing')\nfind('apple')": Status.OK,
    "try:\n    find('nowhere')\nexcept Exception:\n    print('none')": Status.EMPTY,
    "read_text('missing.txt')": Status.TOOL_ERROR,
    "try:\n    read_text('missing.txt')\nexcept FileNotFoundError:\n    print('none')": Status.OK,
    "add(1)": Status.TOOL_ERROR,
    "1 / 0": Status.TOOL_ERROR,
    "[1, 2][5]": Status.TOOL_ERROR,
    "{'a': 1}['b']": Status.TOOL_ERROR,
    "raise SystemExit": Status.TOOL_ERROR,
    "'x' * 10**12": Status.TOOL_ERROR,
    "": Status.INVALID_ACTION,
    "# only a remark": Status.INVALID_ACTION,
    "print('": Status.INVALID_ACTION,
    "x = (\0)": Status.INVALID_ACTION,
    "no_such_tool(1)": Status.INVALID_ACTION,
    "no_such_name": Status.INVALID_ACTION,
    "return 1": Status.INVALID_ACTION,
    "import no_such_module": Status.INVALID_ACTION,
    "def f():\n    print(n)\n    n = 1\nf()": Status.TOOL_ERROR,
    "import os": Status.OK,
    "eval('1')": Status.OK,
}


@pytest.mark.parametrize("code", STATUSES)
def test_status(session: SandboxSession, code: str) -> None:
    result = session.run(code)
    assert result.status is STATUSES[code], result


def test_text_is_what_was_printed_and_then_the_last_value(session: SandboxSession) -> None:
    assert session.run("print('one')\nprint('two', 3)\n'last'") == ActionResult(Status.OK, "one\ntwo 3\nlast", size=15)
    assert session.run("x = None").text == ""
    error = session.run("print('before')\nread_text('missing.txt')")
    assert error.text.startswith("before\nError at `read_text('missing.txt')`: read_text: FileNotFoundError: ")


def test_tool_calls_are_told(session: SandboxSession) -> None:
    result = session.run("add(1, b=2)\nfind('nowhere')")
    assert result.tool_calls == (
        ToolRun("add", Status.OK, "1, b=2", "3"),
        ToolRun("find", Status.EMPTY, "'nowhere'", "No results found for nowhere."),
    )


def test_variables_and_files_live_through_the_episode_and_no_longer(shared: SandboxPool) -> None:
    with shared.open(INPUTS) as session:
        session.run("x = 41\ndef more(n):\n    return n + 1")
        assert session.run("more(x)").text == "42"
        assert session.run("paint('red')").images == ("paint_1.png",)
        assert session.run("1").images == ()
        assert session.run("paint('blue')").images == ("paint_1.png",)
        assert list(session.files()) == ["notes.txt", "paint_1.png"]
        assert session.read_file("paint_1.png").startswith(b"\x89PNG")
        with pytest.raises(OSError, match="cannot read 'missing'"):
            session.read_file("missing")
        for name in ("../x", "/etc/passwd", "", "a/../../b"):
            with pytest.raises(OSError):
                session.read_file(name)
    with shared.open() as session:
        assert session.run("x").status is Status.INVALID_ACTION
        assert session.files() == {}
    with pytest.raises(UserError, match="closed"):
        session.run("1")


def test_a_long_list_of_long_names_is_told() -> None:
    with pool(max_files=4096, workspace_bytes=64 * 2**20, wall_seconds=20) as a_pool, a_pool.open(INPUTS) as session:
        (worker,) = workers_of(a_pool)
        code = "for n in range(3900): open(f'{n:04}' + 'é' * 120, 'w').close()"
        assert session.run(code).status is Status.OK
        assert len(session.files()) == 3901 and session.run("1").text == "1"
        assert session.run("import os\nos.makedirs('d' * 200 + ('/' + 'e' * 200) * 8)").status is Status.OK
        assert session.run("open('d' * 200 + ('/' + 'e' * 200) * 8 + '/x.png', 'w').close()").images == ()
        assert len(session.files()) == 3901, "a name this long cannot be asked for"
        assert workers_of(a_pool) == [worker]


def test_answers_are_plain_data_and_end_the_episode(session: SandboxSession) -> None:
    result = session.run("final_answer({'a': (1, 2.5), 'b': {3}})\nprint('not reached')")
    assert (result.final_answer, result.ended, result.text) == ({"a": [1, 2.5], "b": [3]}, True, "")
    assert session.run("final_answer(None)").ended
    stubborn = session.run("try:\n    final_answer(1)\nexcept Exception:\n    print('not reached')")
    assert (stubborn.final_answer, stubborn.text) == (1, "")


def test_an_unknown_name_is_not_guessed(session: SandboxSession) -> None:
    session.run("total_price = 5")
    assert session.run("total_prices + 1").status is Status.INVALID_ACTION


def test_long_text_keeps_head_and_tail(session: SandboxSession) -> None:
    result = session.run("for n in range(20000):\n    print(n)")
    assert result.status is Status.OK
    assert result.text.startswith("0\n1\n") and result.text.endswith("\n19999")
    assert "characters omitted ...]" in result.text
    assert len(result.text) < 20_000 < result.size == 108_890


def test_text_of_any_kind_arrives(session: SandboxSession) -> None:
    assert session.run("print('é\U0001f600\\ud800\\x00')").text == "é\U0001f600?\x00"
    assert session.run("'\ud800' if True else ''").status in (Status.OK, Status.INVALID_ACTION)
    assert "at 0x0>" in session.run("print(object())").text
    assert session.run("10**5000").text == "<int that cannot be shown: ValueError>"
    assert session.run("# é\n" + "1\n" * 2**20).status is Status.INVALID_ACTION


def test_time_and_memory_are_limited_and_the_episode_goes_on() -> None:
    with pool(wall_seconds=0.5) as a_pool, a_pool.open(INPUTS) as session:
        session.run("x = 1\npaint('red')")
        late = session.run("sum(1 for _ in iter(int, 1))")
        assert (late.status, late.text) == (Status.TIMEOUT, f"Timeout: killed after 0.5 seconds. {RESTARTED}")
        assert session.run("x").status is Status.INVALID_ACTION  # a fresh start: variables are gone
        assert list(session.files()) == ["notes.txt"]
        assert session.run("bytearray(2**33)").status is Status.TOOL_ERROR
        assert session.run("read_text('notes.txt')").status is Status.OK


def test_cpu_time_is_limited() -> None:
    with pool(cpu_seconds=1, wall_seconds=30) as a_pool, a_pool.open() as session:
        result = session.run("while True: pass")
        assert result.status is Status.TIMEOUT and "CPU" in result.text
        assert result.elapsed < 25


def test_remote_tools_run_on_the_host(shared: SandboxPool) -> None:
    with shared.open(INPUTS) as session:
        result = session.run("ask_host({'a': (1, None)})")
        assert (result.status, result.text) == (Status.OK, "{'asked': {'a': [1, None]}}")

    class Painter:
        def run_on_host(self, workspace: SandboxSession, name: str) -> str:
            workspace.write_file("made.png", workspace.read_file(name).upper())
            return "made.png"

    def slow(question: Any) -> None:
        import time

        time.sleep(30)

    def failing(question: Any) -> None:
        raise ConnectionError("no answer")

    for tool, code, status, words in (
        (Painter(), "ask_host('notes.txt')\nread_text('made.png')[:7]", Status.OK, "ONE RED"),
        (slow, "ask_host(1)", Status.TIMEOUT, "ask_host did not answer within 0.3 seconds"),
        (failing, "ask_host(1)", Status.TOOL_ERROR, "ask_host: ConnectionError: no answer"),
    ):
        settings = SandboxSettings(workers=1, spares=0, remote_seconds=0.3)
        remote: Any = {"ask_host": tool}
        with SandboxPool(settings, loader=LOADER, remote_tools=remote) as a_pool, a_pool.open(INPUTS) as session:
            result = session.run(code)
            assert result.status is status and result.text.endswith(words), result


def test_tools_are_wrapped_when_an_episode_opens(shared: SandboxPool) -> None:
    settings = {"tool": "add", "status": "empty"}
    with shared.open(INPUTS, 5, wrap=WRAP, wrap_settings=settings) as session:
        result = session.run("add(1, 2)")
        assert (result.status, result.text) == (Status.EMPTY, "Error at `add(1, 2)`: add is out of order (5)")
    with shared.open(INPUTS, 5) as session:
        assert session.run("add(1, 2)").text == "3"
    with pytest.raises(UserError, match="KeyError"):
        shared.open(INPUTS, wrap=WRAP, wrap_settings={})
    with pytest.raises(UserError, match="no_such"):
        shared.open(INPUTS, wrap="tests.no_such:thing")
    with shared.open(INPUTS) as session:
        assert session.run("add(1, 2)").text == "3"


def test_actions_are_plain_python(shared: SandboxPool) -> None:
    with shared.open(INPUTS) as session:
        assert session.run("import sys, os\nx = sys.maxsize\nos.getcwd()").text == "/workspace"
        assert session.run("match [1, 2]:\n    case [a, b]: print(a + b)\nx").text.startswith("3\n9223")
        assert session.run("no_name").status is Status.INVALID_ACTION
        assert "Error at `1 / 0`: ZeroDivisionError" in session.run("y = 1\n1 / 0").text
        answer = session.run("try:\n    final_answer([x > 0])\nexcept Exception: pass")
        assert (answer.final_answer, answer.ended) == ([True], True)


def test_input_files_come_from_paths_too(shared: SandboxPool, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("from a file")
    with shared.open({"folder/a.txt": tmp_path / "a.txt"}) as session:
        assert session.run("read_text('folder/a.txt')").text == "from a file"
    with pytest.raises(UserError, match="missing.*cannot be read"):
        shared.open({"missing": tmp_path / "missing"})
    with pytest.raises(UserError, match="no file name"):
        shared.open({"../a.txt": b""})
    with pytest.raises(UserError, match="workspace_bytes"):
        shared.open({"big": bytes(shared.settings.workspace_bytes + 1)})
    with shared.open(INPUTS) as session:  # none of these took the worker away
        assert session.run("1").text == "1"


def test_same_seed_same_actions_same_observations() -> None:
    with pool(workers=1) as one, pool(workers=8) as eight:
        expected = probe(one)
        assert probe(one) == expected
        with ThreadPoolExecutor(8) as threads:
            assert all(found == expected for found in threads.map(lambda _: probe(eight), range(24)))
        with one.open(INPUTS, seed=8) as session:  # another seed, another random number
            assert session.run("import random\nrandom.random()").text not in expected[0][2].text


def test_episodes_at_the_same_time_do_not_meet() -> None:
    with pool(workers=3) as a_pool:
        workers = set(workers_of(a_pool))

        def episode(number: int) -> list[str]:
            with a_pool.open({"mine.txt": b"%d" % number}, number) as session:
                session.run(f"x = {number}")
                return [session.run("x").text, session.run("read_text('mine.txt')").text, *session.files()]

        with ThreadPoolExecutor(6) as threads:  # more than workers: the others wait
            found = list(threads.map(episode, range(30)))
        assert found == [[str(number), str(number), "mine.txt"] for number in range(30)]
        assert len(workers) == 3 and set(workers_of(a_pool)) == workers  # all of them reused, none replaced


def test_a_mistake_in_the_settings_is_told() -> None:
    with pytest.raises(UserError, match="wall_seconds is -1"):
        SandboxSettings(wall_seconds=-1)
    with pytest.raises(UserError, match="not installed here"):
        SandboxPool(SandboxSettings(), loader="no_such_package:load")
    with pytest.raises(UserError, match="cannot be loaded.*no_such"):
        SandboxPool(SandboxSettings(), loader="tests.toolbox.sandbox_tools:no_such")
    with pytest.raises(UserError, match="/no/such/folder"):
        pool(readable=("/no/such/folder",))
