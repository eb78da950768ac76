"""Actions mean what Python means: programs beside a real CPython, variables that live on, clocks that repeat."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.session import SandboxSession
from tests.toolbox.python_snippets import SNIPPETS
from tests.toolbox.sandbox_checks import INPUTS, pool


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxPool]:
    with pool(wall_seconds=20.0) as a_pool:
        yield a_pool


@pytest.fixture
def session(shared: SandboxPool) -> Iterator[SandboxSession]:
    with shared.open(INPUTS, seed=1) as opened:
        yield opened


def test_there_are_enough_programs() -> None:
    assert len(SNIPPETS) >= 99 and len(set(SNIPPETS.values())) == len(SNIPPETS)


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_program_does_what_cpython_does(session: SandboxSession, name: str, tmp_path: Path) -> None:
    code = SNIPPETS[name]
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    result = session.run(code)
    if done.returncode == 0:
        assert (result.status, result.text) == (Status.OK, done.stdout.removesuffix("\n"))
    else:
        assert result.status in (Status.TOOL_ERROR, Status.INVALID_ACTION)
        assert result.text.startswith(done.stdout + "Error"), result.text
        raised = done.stderr.strip().rpartition("\n")[2].partition(":")[0].rpartition(".")[2]
        assert (raised or "SystemExit") in result.text


def test_the_corpus_in_one_episode_leaves_the_tools_what_they_are(shared: SandboxPool) -> None:
    with shared.open(INPUTS) as session:
        for name, code in SNIPPETS.items():
            if name not in ("star_import", "decorator_with_arguments"):  # which redefine what is looked at below
                session.run(code)
        assert session.run("add(1, 2)").text == "3"


def test_variables_live_from_one_action_to_the_next(session: SandboxSession) -> None:
    session.run("import math as m\nx = [1]\ndef grow():\n    x.append(len(x))\n    return x\nclass A:\n    n = 5")
    assert session.run("grow()\ngrow()").text == "[1, 1, 2]"
    assert (
        session.run("x = x + [m.floor(2.5)]\nA.n += 1\nprint(x, A.n, A.__module__)").text == "[1, 1, 2, 2] 6 __main__"
    )
    assert session.run("def later(): return new_name\nnew_name = 7").status is Status.OK
    assert session.run("later()").text == "7"
    assert session.run("import pickle\nprint(pickle.loads(pickle.dumps(A())).n)").text == "6"


def test_errors_name_the_statement_they_came_from(session: SandboxSession) -> None:
    assert session.run("y = 1\nfor n in (1, 0):\n    z = (\n        y / n)").text == (
        "Error at `z = (`: ZeroDivisionError: division by zero"
    )
    session.run("def half(n):\n    return n / 0")
    assert "Error at `return n / 0`: ZeroDivisionError" in session.run("x = half(3)").text
    assert session.run("a = 1; read_text('no.txt'); b = 2").text.startswith(
        "Error at `read_text('no.txt')`: read_text: "
    )
    assert session.run("open('no.txt')").text.endswith("No such file or directory: 'no.txt'. Files here: notes.txt")
    assert session.run("x = (").text == "Error: SyntaxError: '(' was never closed (<unknown>, line 1)"
    assert session.run("return 1").text == "Error: SyntaxError: 'return' outside function (<unknown>, line 1)"


def test_the_last_expression_is_shown(session: SandboxSession) -> None:
    assert session.run("'text'").text == "text"
    assert session.run("x = 5\nx; x + 1").text == "6"
    assert session.run("None").text == session.run("if True: 5").text == ""
    assert session.run("from __future__ import annotations\n(lambda x: x).__name__").text == "<lambda>"


CLOCKS = """
import datetime, os, random, secrets, tempfile, time, uuid
print(time.time(), time.time_ns(), time.monotonic(), time.perf_counter_ns(), time.process_time(), time.strftime('%c'))
print(datetime.datetime.now(), datetime.datetime.utcnow(), datetime.datetime.today(), datetime.date.today())
print(datetime.datetime.now(datetime.UTC), time.localtime().tm_year, time.gmtime()[:3], time.ctime(), time.asctime())
print(random.random(), random.Random().random(), random.SystemRandom().random(), os.urandom(4), os.getrandom(3))
print(secrets.token_hex(4), secrets.randbelow(100), uuid.uuid4(), uuid.uuid1(), hash('text'), {'a', 'b', 'c'})
print(tempfile.mktemp(), time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_REALTIME))
import numpy as np
print(np.random.default_rng().random(), np.random.rand(), np.random.SeedSequence().entropy)
print(np.random.RandomState().rand())
"""


def test_clocks_and_entropy_are_those_of_the_seed(shared: SandboxPool) -> None:
    seen = []
    for seed in (5, 5, 6):
        with shared.open(INPUTS, seed) as session:
            seen.append([session.run(CLOCKS).text, session.run(CLOCKS).text])
    assert seen[0] == seen[1] and "Error" not in seen[0][0], seen[0][0]
    assert seen[0][0] != seen[0][1], "the clock moves, and each draw is another"
    for first, second in zip(seen[0][0].splitlines()[3:], seen[2][0].splitlines()[3:], strict=True):
        assert first != second, "another seed, other draws"
    assert "2025-01-01" in seen[0][0]


def test_a_clock_moves_by_what_is_slept_and_waits_end(session: SandboxSession) -> None:
    code = (
        "import asyncio, threading, time, subprocess, sys\n"
        "begun = time.monotonic()\ntime.sleep(0.2)\nprint(round(time.monotonic() - begun, 3))\n"
        "print(threading.Event().wait(0.05), threading.Lock().acquire(timeout=0.05))\n"
        "async def main():\n"
        "    try: await asyncio.wait_for(asyncio.sleep(60), 0.1)\n"
        "    except TimeoutError: print('late')\n"
        "asyncio.run(main())\n"
        "end = time.time() + 0.01\nwhile time.time() < end: pass\n"
        "try: subprocess.run(['sleep', '60'], timeout=0.2)\n"
        "except subprocess.TimeoutExpired: print('killed')\n"
    )
    result = session.run(code)
    assert (result.status, result.text) == (Status.OK, "0.2\nFalse True\nlate\nkilled")


def test_values_go_to_the_tools_and_back(session: SandboxSession) -> None:
    for value in (
        "1",
        "2.5",
        "True",
        "2**5000",
        "10**10",
        "Fraction(1, 3)",
        "Decimal('1.5')",
        "1 + 2j",
        "np.float32(1.5)",
    ):
        code = f"import numpy as np\nfrom decimal import Decimal\nfrom fractions import Fraction\nadd({value}, 0)"
        result = session.run(f"{code} == {value} and type(add({value}, 0) - 0)")
        assert result.status is Status.OK and "class" in result.text, (value, result.text)
    refused = session.run("add(lambda: 1, 2)")
    assert refused.status is Status.TOOL_ERROR and "a value of type function cannot be given to a tool" in refused.text
    assert refused.tool_calls[0].status is Status.TOOL_ERROR
