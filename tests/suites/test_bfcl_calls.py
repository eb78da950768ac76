"""Calls as texts: what is written is read again, and nothing but calls of known functions with plain data is run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.suites.bfcl.calls import UNKNOWN, decoded, is_plain, runnable, written

KNOWN = {"light", "add", "f"}


def f(a: Any, b: Any = 1, *, c: Any = 2) -> None: ...


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.tuples(PLAIN, PLAIN), PLAIN)
def test_a_call_that_is_written_is_read_and_run_as_it_was_made(positional: tuple[Any, ...], named: Any) -> None:
    text = written("f", f, positional, {"c": named})
    (read,) = decoded(f"[{text}]")
    assert runnable(read, KNOWN) == read
    found: dict[str, Any] = {}
    eval(read, {"f": lambda **given: found.update(given)})
    assert found == {"a": positional[0], "b": positional[1], "c": named}


@given(PLAIN, PLAIN)
def test_the_form_of_function_calling_is_read_alike(first: Any, second: Any) -> None:
    given_ = {"a": first, "b": second}
    as_object, as_text = decoded([{"f": given_}]), decoded({"f": json.dumps(given_)})
    assert as_object == as_text == (written("f", f, (), given_),)


@pytest.mark.parametrize(
    ("arguments", "keywords", "text"),
    [
        ((), {}, "f()"),
        ((1,), {}, "f(a=1)"),
        ((1, 2), {"c": "x"}, "f(a=1, b=2, c='x')"),
        ((1, 2, 3), {}, "f(1, 2, 3)"),
        ((1,), {"a": 2}, "f(1, a=2)"),
        ((), {"z": [1.5, (2,), {"k": None}]}, "f(z=[1.5, (2,), {'k': None}])"),
        (('it\'s "so"\n',), {}, "f(a='it\\'s \"so\"\\n')"),
    ],
)
def test_how_calls_are_written(arguments: tuple[Any, ...], keywords: dict[str, Any], text: str) -> None:
    assert written("f", f, arguments, keywords) == text


@pytest.mark.parametrize("value", [object(), float("nan"), float("inf"), b"x", {1, 2}, [object()], {"k": {1}}, 1j])
def test_what_is_no_plain_data_is_not_written(value: Any) -> None:
    assert not is_plain(value)
    with pytest.raises(ValueError, match="no plain data"):
        written("f", f, (value,), {})
    with pytest.raises(ValueError, match="no plain data"):
        written("f", f, (), {"z": value})


@pytest.mark.parametrize(
    ("step", "calls"),
    [
        ("[light(name='a')]", ("light(name='a')",)),
        ("light(name='a'), add(first=1, second=2)", ("light(name='a')", "add(first=1, second=2)")),
        ("```\n[light(name='a')]\n```", ("light(name='a')",)),
        ("[light('a')]", ("light()",)),
        ("[light(**{'name': 'a'})]", ("light()",)),
        ("[a.light(name=g(x=1))]", ("a.light(name=g(x=1))",)),
        ("[]", ()),
        ("", ()),
        ("All is done.", ()),
        ("[light]", ()),
        ("[light(name='a'), 3]", ()),
        ("light(name='a'", ()),
        ([], ()),
        ([{"light": '{"name": "a"}'}], ("light(name='a')",)),
        ([{"light": {"name": "a"}}, {"add": {}}], ("light(name='a')", "add()")),
        ([{"light": "not json"}], ()),
        ([{"light": "[1]"}], ()),
        (["light(name='a')"], ()),
        (None, ()),
        (7, ()),
    ],
)
def test_what_is_read_out_of_a_step(step: Any, calls: tuple[str, ...]) -> None:
    assert decoded(step) == calls


@pytest.mark.parametrize(
    "call",
    ["light()", "light('a')", "add(first=-1, second=2 * 3.5)", "add(first=add(first=1, second=2), second=3)",
     "light(name=['a', ('b',), {'c': {1, 2}}])", "light(name=None, on=True)"],
)  # fmt: skip
def test_calls_that_are_run(call: str) -> None:
    assert runnable(call, KNOWN) == call


@pytest.mark.parametrize(
    "call",
    ["__import__('os').system('true')", "light(name=open('/etc/passwd').read())", "x.light(name='a')", "light",
     "light(name=[one for one in 'ab'])", "light(name=lambda: 1)", "light(*['a'])", "light(**{'name': 'a'})",
     "other(name='a')", "light(name=name)", "add(first=9 ** 9, second='a' * 9)", "light(name=f'{1}')", "1", "light(",
     "light(name='a'); add()", "(light)(name='a') or 1", "light(name={**{}})", "add(first='a' + 'b')"],
)  # fmt: skip
def test_anything_else_becomes_a_call_that_fails(call: str) -> None:
    assert runnable(call, KNOWN) == UNKNOWN
