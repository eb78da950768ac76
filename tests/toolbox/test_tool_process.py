"""The line between an action and its tools: what may cross it, what stays behind it, what a call comes to."""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.served import ServedObjects, pack, unpack
from regrpo_jax.sandbox.session import SandboxSession
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.sandbox.values import Reader, Unsupported, Writer, Wrong
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, ToolFailure, Unavailable
from tests.toolbox.hostile_actions import HOSTILE
from tests.toolbox.sandbox_checks import INPUTS, LIMITS, pool

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), inner, max_size=4)
        | st.frozensets(st.text() | st.integers(), max_size=4)
    ),
    max_leaves=15,
)
WRITTEN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=15,
)
KINDS = st.sampled_from(
    ("list", "tuple", "set", "frozenset", "dict", "str", "int", "bytes", "bytearray", "image", "array", "scalar")
    + ("served", "complex", "Decimal", "Fraction", "range", "datetime", "date", "time", "timedelta", "path")
)


def crossed(value: Any) -> Any:
    writer = Writer()
    written = writer.write(value)
    return Reader(bytes(writer.blob), lambda handle: handle).read(written)


@given(PLAIN)
def test_plain_data_crosses_as_it_is(value: Any) -> None:
    assert crossed(value) == value and type(crossed(value)) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**5 + "\ud800",
        2**5000,
        -(2**5000),
        {(1, "a"): {2, 3}},
        complex(1, -2),
        decimal.Decimal("1.10"),
        fractions.Fraction(10**3000, 7),
        range(5, 0, -2),
        datetime.datetime(2024, 2, 29, 1, 2, 3, 4, datetime.UTC),
        datetime.date(2024, 2, 29),
        datetime.time(1, 2),
        datetime.timedelta(-1, 5, 6),
        pathlib.Path("a/b"),
        np.float32(1.5),
        np.datetime64("2024-01-01"),
    ],
    ids=repr,
)
def test_other_values_cross_too(value: Any) -> None:
    assert crossed(value) == value and type(crossed(value)) is type(value)


def test_arrays_pictures_and_tables_cross() -> None:
    for array in (
        np.arange(6).reshape(2, 3),
        np.zeros((0, 3), "<U4"),
        np.array(["a", "bc"]),
        np.ones(3, bool).T,
        np.array(5),
    ):
        found = crossed(array)
        assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()
    for mode in ("RGB", "L", "1", "RGBA", "P", "I", "F"):
        image = Image.new("RGB", (5, 3), "red").convert(mode)
        assert crossed(image).convert("RGB").tobytes() == image.convert("RGB").tobytes() and crossed(image).mode == mode
    table = pd.DataFrame({"a": [1, 2], "b": ["x", None], 3: [1.5, 2.5]}, index=["r", "s"])
    pd.testing.assert_frame_equal(crossed(table), table)


def test_a_subclass_arrives_as_the_plain_type_and_behaviour_does_not_arrive() -> None:
    class Odd(str):
        def __reduce__(self) -> Any:
            raise SystemExit

    assert type(crossed(Odd("x"))) is str and type(crossed(OrderedDict(a=1))) is dict
    for value in (object(), len, lambda: 1, Odd, np.array([object()]), [iter([])], {"a": open}):
        with pytest.raises(Unsupported):
            crossed(value)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(Unsupported, match="nested more than 64 deep"):
        crossed(endless)


@given(st.lists(WRITTEN, max_size=4), KINDS, st.binary(max_size=20))
def test_what_no_writer_wrote_is_refused_or_a_value(parts: list[Any], kind: str, blob: bytes) -> None:
    try:
        Reader(blob, lambda handle: None).read([kind, *parts])
    except Wrong:
        return


class Record(dict[str, str]):
    """What its printed form does not tell."""

    served = ("__getitem__", "__len__", "__iter__", "__repr__", "keys")

    def __repr__(self) -> str:
        return f"keys {sorted(self)}"

    def __missing__(self, key: str) -> str:
        raise LookupError(f"no {key}; try {min(self)}")


def test_what_is_served_stays_where_it_is() -> None:
    objects = ServedObjects()
    record = Record(a="secret")

    def operate(handle: int, name: str, arguments: Any, keywords: Any) -> Any:
        return unpack(pack(objects.operation(handle, name)(*arguments, **keywords), objects, 10**6), operate)

    data = pack([record, record], objects, 10**6)
    assert b"secret" not in data
    first, second = unpack(data, operate)
    assert (str(first), first["a"], len(first), list(first), first.keys()) == ("keys ['a']", "secret", 1, ["a"], ["a"])
    assert type(first).__name__ == "Record" and crossed(second) == 0
    with pytest.raises(LookupError, match="no b; try a"):
        first["b"]
    with pytest.raises(AttributeError):
        first.values()
    for handle, name in ((0, "values"), (1, "keys"), (-1, "keys")):
        with pytest.raises(LookupError):
            objects.operation(handle, name)


@pytest.mark.parametrize(
    "error", [ToolError("a"), EmptyResult("b"), Unavailable("c"), ToolFailure(Status.TIMEOUT, "d")]
)
def test_failures_of_tools_cross_with_their_status(error: ToolFailure) -> None:
    found = unpack(pack(error, ServedObjects(), 10**6), lambda *unused: None)
    assert (type(found), found.status, str(found)) == (type(error), error.status, str(error))


def test_what_cannot_be_pickled_arrives_as_its_text() -> None:
    assert unpack(pack(lambda: 1, ServedObjects(), 10**6), lambda *unused: None).startswith("<function")
    with pytest.raises(ValueError, match="1,018 bytes; at most 100"):
        pack("x" * 1000, ServedObjects(), 100)


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxPool]:
    with pool() as a_pool:
        yield a_pool


def test_what_lies_behind_the_tools_only_they_read(shared: SandboxPool) -> None:
    with shared.open(INPUTS, behind={"prices.csv": b"apple,3", "empty": b""}) as session:
        assert session.run("print(behind_the_tools())\nprint(behind_the_tools('prices.csv'))").text == (
            "['empty', 'prices.csv']\napple,3"
        )
        assert list(session.files()) == ["notes.txt"]
        code = "from regrpo_jax.toolbox import behind\nprint(behind.names())\nimport os\nprint(os.listdir('.'))"
        assert session.run(code).text == "[]\n['notes.txt']"
    with shared.open(INPUTS) as session:
        assert session.run("print(behind_the_tools())").text == "[]"


def test_an_object_of_a_tool_in_an_action(shared: SandboxPool) -> None:
    with shared.open(INPUTS) as session:
        assert (
            session.run("r = record()\nprint(r, len(r), r['colour'], f'{r}')").text
            == "keys ['colour'] 1 red keys ['colour']"
        )
        missing = session.run("r['size']")
        assert (missing.status, missing.text) == (
            Status.TOOL_ERROR,
            "Error at `r['size']`: LookupError: no size; try colour",
        )
        assert session.run("try:\n    r['size']\nexcept LookupError as error:\n    print(error)").status is Status.OK
        assert session.run("look_at(r)").text == "Record red", "given back, it is the object itself"
        assert "AttributeError" in session.run("r.values()").text


def test_prints_of_tools_and_answers_that_were_swallowed(shared: SandboxPool) -> None:
    with shared.open(INPUTS) as session:
        assert session.run("print('a')\nnoisy()\nprint('b')").text == "a\nheard\nb"
        result = session.run("try:\n    final_answer(1)\nexcept BaseException: pass\nfinal_answer(2)")
        assert (result.final_answer, result.ended) == (1, True), "the first answer is the answer"


def test_a_tool_that_ends_its_process_is_told(shared: SandboxPool) -> None:
    with shared.open(INPUTS) as session:
        left = session.run("leave()")
        assert (left.status, left.killed, left.working) == (Status.TOOL_ERROR, "exit", "leave")
        assert left.text.startswith("killed: the tools ended their own process.") and left.called == {"leave": 1}
        polite = session.run("say_goodbye()")
        assert polite.status is Status.TOOL_ERROR and not polite.killed and "SystemExit" in polite.text
        assert session.run("add(1, 2)").text == "3"


def test_kills_are_typed(shared: SandboxPool) -> None:
    kills = {
        "while True: pass": ("wall", Status.TIMEOUT, ""),
        "import os\nos._exit(0)": ("exit", Status.TOOL_ERROR, ""),
        "import os\nos.kill(os.getpid(), 9)": ("signal", Status.TOOL_ERROR, ""),
        "read_text('notes.txt')\nwhile True: pass": ("wall", Status.TIMEOUT, ""),
        "hang()": ("wall", Status.TIMEOUT, "hang"),
        "import os\nos.closerange(3, 256)\nwhile True: pass": ("protocol", Status.TOOL_ERROR, ""),
        "import time\nfor n in range(3000): open(f'f{n}', 'w').close()\ntime.sleep(2)": (
            "files",
            Status.TOOL_ERROR,
            "",
        ),
    }
    for code, (killed, status, working) in kills.items():
        with shared.open(INPUTS) as session:
            result = session.run(code)
            assert (result.killed, result.status, result.working) == (killed, status, working), result
            assert session.run("print(1)").killed == ""


def test_a_solution_runs_in_the_actions_process(shared: SandboxPool, session: SandboxSession) -> None:
    result = session.run(
        "solve_it('def solution():\\n    import os\\n    return os.getpid()') == str(__import__('os').getpid())"
    )
    assert result.text == "True"
    assert (
        session.run(
            "solve_it('def solution():\\n    for n in range(9):\\n        try:\\n            if n == 6: return n * 7\\n"
            "        finally: pass')"
        ).text
        == "42"
    )
    failed = session.run("solve_it('def solution():\\n    return 1 / 0')")
    assert (
        failed.status is Status.TOOL_ERROR and "solve_it: ZeroDivisionError: division by zero (line 2)" in failed.text
    )
    assert session.run("solve_it('def solution(): return []')").status is Status.EMPTY


@pytest.fixture(scope="module")
def reusing() -> Iterator[SandboxPool]:
    settings = SandboxSettings(**LIMITS)
    with SandboxPool(settings, loader="tests.toolbox.sandbox_tools:load_stateless") as a_pool:
        yield a_pool


def test_a_process_of_stateless_tools_serves_many_episodes(reusing: SandboxPool) -> None:
    seen = []
    for number in range(4):
        with reusing.open(INPUTS, seed=3, behind={f"file {number}": b""}, tool_seed=number % 2) as session:
            pid, names, drawn = (session.run(code).text for code in ("own_process()", "behind_the_tools()", "draw()"))
            assert names == f"['file {number}']"
            seen.append((pid, drawn))
    assert len({pid for pid, _ in seen}) == 1 and seen[0] == seen[2] != seen[1] == seen[3]
    with reusing.open(INPUTS, behind={"secret": b""}) as session:
        session.run("own_process()")
    with pytest.raises(UserError, match="no_such"), reusing.open(INPUTS, wrap="tests.no_such:thing"):
        pass
    with reusing.open(INPUTS) as session:
        assert session.run("behind_the_tools(), own_process()").text == f"([], {seen[0][0]})"


ATTACKS = {action.name: action.code for action in HOSTILE if "tool" in action.name or "call" in action.name} | {
    "a call that goes on": "import threading\nthreading.Thread(target=hang, daemon=True).start()\nprint(1)",
    "a tool that leaves": "leave()",
    "a tool that hangs": "hang()",
    "an endless loop": "while True: pass",
    "signals": "import os\nfor pid in map(int, filter(str.isdigit, os.listdir('/proc'))):\n"
    "    for number in range(1, 65):\n        if pid not in (1, os.getpid()) and number not in (9, 19):\n"
    "            try: os.kill(pid, number)\n            except OSError: pass",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_an_action_does_reaches_the_next_episode_through_its_tools(reusing: SandboxPool, name: str) -> None:
    def probe() -> list[str]:
        with reusing.open(INPUTS, seed=7, behind={"a": b"b"}) as session:
            codes = ("behind_the_tools(), add(1, 2), read_text('notes.txt')", "draw()", "behind_the_tools('a')")
            return [session.run(code).text for code in codes]

    expected = probe()
    with reusing.open(INPUTS, behind={"other": b"x"}) as session:
        assert session.run(ATTACKS[name]).status is not Status.INFRA_ERROR
    assert probe() == expected


@pytest.fixture
def session(shared: SandboxPool) -> Iterator[SandboxSession]:
    with shared.open(INPUTS) as opened:
        yield opened
