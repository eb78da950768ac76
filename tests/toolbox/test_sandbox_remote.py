"""Tools that run on the host: once, never late into another's request, alone able to fail as infrastructure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.remote_calls import MOST_CALLS
from regrpo_jax.sandbox.results import Tape
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.failures import ToolFailure
from tests.toolbox.sandbox_checks import INPUTS, LIMITS, LOADER


@contextmanager
def remote_pool(tool: Any, **changes: Any) -> Iterator[SandboxPool]:
    settings = SandboxSettings(**{**LIMITS, **changes})
    with SandboxPool(settings, loader=LOADER, remote_tools={"ask_host": tool}) as a_pool:
        yield a_pool


class Counting:
    """Answers with how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __call__(self, question: Any) -> Any:
        self.asked.append(question)
        return [question, len(self.asked)]


def test_a_tape_answers_in_the_place_of_the_tool() -> None:
    tool = Counting()
    code = "for word in 'aab':\n    print(ask_host(word))"
    with remote_pool(tool) as a_pool:
        tape = Tape()
        with a_pool.open(INPUTS) as session:
            first = session.run(code, tape)
            assert first.text == "['a', 1]\n['a', 2]\n['b', 3]" and tool.asked == ["a", "a", "b"]
        with a_pool.open(INPUTS) as session:
            assert session.run(code, tape.finished()) == first and len(tool.asked) == 3
            other = session.run("ask_host('c')", tape.finished())
            assert other.status is Status.TOOL_ERROR and "asked for something else" in other.text
        assert len(tool.asked) == 3
        with a_pool.open(INPUTS) as session:  # an action that was broken off goes on where its tape ends
            assert session.run(code + "\nask_host('c')", tape).text.endswith("['c', 4]")
        assert len(tool.asked) == 4 and len(tape.calls) == 4


class Painter:
    """Writes a file, as an image generator does."""

    def __init__(self) -> None:
        self.painted = 0

    def run_on_host(self, workspace: Any, name: str) -> str:
        self.painted += 1
        workspace.write_file(name, b"painted %d" % self.painted)
        return name


def test_a_tape_holds_the_files_that_a_tool_wrote() -> None:
    tool = Painter()
    code = "name = ask_host('made.png')\nprint(open(name).read())"
    with remote_pool(tool, workspace_bytes=2**20) as a_pool:
        tape = Tape()
        for known in (tape, tape):
            with a_pool.open(INPUTS) as session:
                result = session.run(code, known.finished() if tool.painted else known)
                assert (result.text, result.images, tool.painted) == ("painted 1", ("made.png",), 1)


def test_what_remote_tools_write_is_limited() -> None:
    class Writer:
        def run_on_host(self, workspace: Any, question: Any) -> None:
            workspace.write_file("big", bytes(2**19))

    with remote_pool(Writer(), workspace_bytes=2**20) as a_pool, a_pool.open(INPUTS) as session:
        result = session.run("for n in range(5):\n    ask_host(n)")
        assert result.status is Status.TOOL_ERROR and "there is room for 0" in result.text
        assert [run.status for run in result.tool_calls] == [Status.EMPTY, Status.EMPTY, Status.TOOL_ERROR]


class Late:
    """Uses the workspace when its call has long been given up."""

    def __init__(self, use: Callable[[Any], object]) -> None:
        self.use, self.release, self.found = use, threading.Event(), threading.Event()
        self.error: Exception | None = None

    def run_on_host(self, workspace: Any, question: Any) -> str:
        if question == "soon":
            return "in time"
        self.release.wait(20)
        try:
            self.use(workspace)
        except Exception as error:
            self.error = error
        self.found.set()
        return "late"


@pytest.mark.parametrize(
    "use",
    [
        lambda workspace: workspace.write_file("late.txt", b"x" * 2**20),
        lambda workspace: workspace.read_file("notes.txt"),
        lambda workspace: workspace.files(),
    ],
    ids=["write", "read", "files"],
)
def test_a_late_tool_touches_no_later_request(use: Callable[[Any], object]) -> None:
    tool = Late(use)
    with remote_pool(tool, remote_seconds=0.3) as a_pool, a_pool.open(INPUTS) as session:
        late = session.run("ask_host('never')")
        assert late.status is Status.TIMEOUT and "ask_host did not answer within 0.3 seconds" in late.text
        tool.release.set()
        for _ in range(20):
            assert session.run("print(ask_host('soon'), read_text('notes.txt')[:7])").text == "in time one red"
            assert session.read_file("notes.txt") == INPUTS["notes.txt"]
            assert list(session.files()) == ["notes.txt"]
        assert tool.found.wait(20) and isinstance(tool.error, TimeoutError)


def test_only_the_host_calls_a_failure_infrastructure() -> None:
    def gone(question: Any) -> None:
        raise ToolFailure(Status.INFRA_ERROR, "the service is gone")

    inside = {"tool": "add", "status": "infra_error"}
    wrap = "tests.toolbox.sandbox_tools:break_tools"
    with remote_pool(gone) as a_pool, a_pool.open(INPUTS, wrap=wrap, wrap_settings=inside) as session:
        faked = session.run("add(1, 2)")
        assert (faked.status, faked.tool_calls[0].status) == (Status.TOOL_ERROR, Status.TOOL_ERROR)
        for code in ("ask_host(1)", "try:\n    ask_host(1)\nexcept Exception:\n    print('fine')"):
            tape = Tape()
            result = session.run(code, tape)
            assert (result.status, result.text) == (Status.INFRA_ERROR, "the tool ask_host failed: the service is gone")
            assert tape.calls == [], "it is asked again when the action is"


def test_calls_of_the_host_are_counted() -> None:
    tool = Counting()
    with remote_pool(tool) as a_pool, a_pool.open(INPUTS) as session:
        result = session.run(f"for n in range({MOST_CALLS + 1}):\n    ask_host(n)")
        assert result.status is Status.TOOL_ERROR and f"{MOST_CALLS} times" in result.text
        assert len(tool.asked) == MOST_CALLS
        assert session.run("ask_host(1)").status is Status.OK


def test_a_remote_call_can_be_broken_off() -> None:
    with remote_pool(lambda question: time.sleep(30), remote_seconds=30.0) as a_pool, a_pool.open(INPUTS) as session:
        timer = threading.Timer(0.3, session.break_off)
        timer.start()
        begun = time.monotonic()
        assert session.run("ask_host(1)").status is Status.INFRA_ERROR
        assert time.monotonic() - begun < 20
        timer.join()
