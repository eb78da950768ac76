"""Every kind of fault, end to end through the sandbox: it bites, says how to repair, and the repaired call works."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.faults import FILE_FAULTS, Fault, FaultKind, sample_faults
from regrpo_jax.environments.workspace import Workspace, copy_name, new_name
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ErrorType, Status
from tests.environments.conftest import make_task, turn


class Case(NamedTuple):
    fault: Fault
    broken: str
    status: Status
    told: tuple[str, ...]
    repaired: str
    result: str


def fault(kind: FaultKind, target: str, /, calls: tuple[int, ...] = (), **parameters: Any) -> Fault:
    return Fault(kind, target, parameters, calls)


K = FaultKind
CASES = {
    "renamed": Case(
        fault(K.RENAMED_FILE, "a.txt", name="sum.txt"),
        'read_text("a.txt")',
        Status.TOOL_ERROR,
        ('File not found: "a.txt"', 'Files here: "b.txt", "sign.png", "sum.txt"'),
        'read_text("sum.txt")',
        "total 42",
    ),
    "missing": Case(
        fault(K.MISSING_FILE, "a.txt"),
        'read_text("a.txt")',
        Status.TOOL_ERROR,
        ('File not found: "a.txt"', '"archive/a.txt"'),
        'read_text("archive/a.txt")',
        "total 42",
    ),
    "empty": Case(
        fault(K.EMPTY_FILE, "a.txt"),
        'read_text("a.txt")',
        Status.EMPTY,
        ('Get empty content from file "a.txt"', '"a_backup.txt"'),
        'read_text("a_backup.txt")',
        "total 42",
    ),
    "wrong region, the place is known": Case(
        fault(K.WRONG_REGION, "look", actual="bottom right"),
        'look("sign.png", region="top left")',
        Status.EMPTY,
        ('No object found at "top left"', '"bottom right"'),
        'look("sign.png", region="bottom right")',
        "GATE 4",
    ),
    "wrong region, upside down": Case(
        fault(K.WRONG_REGION, "look"),
        'look("sign.png", "top left")',
        Status.EMPTY,
        ('No object found at "top left"', 'Ask for "stored bottom right"'),
        'look("sign.png", "stored bottom right")',
        "EXIT 7",
    ),
    "unavailable for good": Case(
        fault(K.TOOL_UNAVAILABLE, "search", instead="read_text"),
        'search("Rome")',
        Status.TOOL_ERROR,
        ("search is unavailable", "Use read_text instead", "read_text (Reads the text of a file)", "look ("),
        'read_text("a.txt")',
        "total 42",
    ),
    "unavailable once": Case(
        fault(K.TOOL_UNAVAILABLE, "search", (1,)),
        'search("Rome")',
        Status.TOOL_ERROR,
        ("search is unavailable", "Call it again"),
        'search("Rome")',
        "3 hills",
    ),
    "signature": Case(
        fault(K.SIGNATURE_CHANGED, "look", renamed={"image": "picture"}),
        'look("sign.png")',
        Status.TOOL_ERROR,
        ("named arguments only", "Usage: look(*, picture: str, region: str = None) -> str"),
        'look(picture="sign.png", region="top left")',
        "EXIT 7",
    ),
    "signature, old keyword": Case(
        fault(K.SIGNATURE_CHANGED, "count", renamed={"text": "words"}),
        'count(text="abc")',
        Status.TOOL_ERROR,
        ('no argument "text"', "Usage: count(*, words: str) -> int"),
        'count(words="abc")',
        "3",
    ),
    "signature, nothing to rename": Case(
        fault(K.SIGNATURE_CHANGED, "paint", renamed={}),
        'paint("red")',
        Status.TOOL_ERROR,
        ("Usage: paint(*, color: str) -> str",),
        'paint(color="red")',
        "paint_1.png",
    ),
    "ambiguous": Case(
        fault(K.AMBIGUOUS_QUERY, "search", candidates=["Rome, Italy", "Rome, Georgia"]),
        'search("Rome")',
        Status.TOOL_ERROR,
        ('Ambiguous: "Rome" fits 2 entries', '"Rome, Georgia", "Rome, Italy"'),
        'search("Rome, Italy")',
        "7 hills",
    ),
    "ambiguous, other words": Case(
        fault(K.AMBIGUOUS_QUERY, "search", candidates={"the old one": "Rome, Italy", "the other": "Rome, Georgia"}),
        'search(query="Rome")',
        Status.TOOL_ERROR,
        ('"the old one", "the other"',),
        'search(query="the other")',
        "5 hills",
    ),
    "ambiguous by default": Case(
        fault(K.AMBIGUOUS_QUERY, "search"),
        'search("Rome")',
        Status.TOOL_ERROR,
        ('"Rome (current)", "Rome (archived)"',),
        'search("Rome (current)")',
        "3 hills",
    ),
    "stale": Case(
        fault(K.STALE_VALUE, "search", since="2019-05"),
        'search("Rome")',
        Status.OK,
        (" hills", "stale: kept since 2019-05", "refresh=True"),
        'search("Rome", refresh=True)',
        "3 hills",
    ),
    "stale, as an error": Case(
        fault(K.STALE_VALUE, "search", raises=True, value="9 hills"),
        'search("Rome")',
        Status.TOOL_ERROR,
        ("9 hills", "refresh=True"),
        'search("Rome", refresh=True)',
        "3 hills",
    ),
    "timeout": Case(
        fault(K.TIMEOUT, "search", (1,), seconds=30),
        'search("Rome")',
        Status.TIMEOUT,
        ("search gave no answer within 30 seconds", "Call it again"),
        'search("Rome")',
        "3 hills",
    ),
    "timeout that hangs": Case(
        fault(K.TIMEOUT, "search", (1,), hangs=True),
        'print("before")\nsearch("Rome")',
        Status.TIMEOUT,
        ("Timeout: killed", "search gave no answer", "Call it again"),
        'search("Rome")',
        "3 hills",
    ),
    "timeout of some arguments": Case(
        Fault(K.TIMEOUT, "look", arguments={"region": None}),
        'look("sign.png")',
        Status.TIMEOUT,
        ("look gave no answer", "region=None; call it with other arguments"),
        'look("sign.png", "top left")',
        "EXIT 7",
    ),
    "slow": Case(
        fault(K.SLOW_ANSWER, "search", seconds=0.1),
        'search("Rome")',
        Status.OK,
        ("3 hills", "slow: search needed 0.1 seconds", "quick=True"),
        'search("Rome", quick=True)',
        "3 hills",
    ),
    "too slow": Case(
        fault(K.SLOW_ANSWER, "search", seconds=60),
        'search("Rome")',
        Status.TIMEOUT,
        ("Timeout: killed", "search needs 60 seconds", "quick=True"),
        'search("Rome", quick=True)',
        "3 hills",
    ),
    "truncated": Case(
        fault(K.TRUNCATED_OUTPUT, "read_text", keep=5),
        'read_text("a.txt")',
        Status.OK,
        ("total", "truncated: 5 of 8 characters", "offset=5"),
        'read_text("a.txt", offset=5)',
        " 42",
    ),
    "garbled": Case(
        fault(K.GARBLED_OUTPUT, "read_text"),
        'read_text("a.txt")',
        Status.OK,
        ("garbled", 'encoding="utf-8"'),
        'read_text("a.txt", encoding="utf-8")',
        "total 42",
    ),
    "unit": Case(
        fault(K.WRONG_UNIT, "count", unit="cm", wanted="m", factor=100),
        'count("abc")',
        Status.OK,
        ("300", "in cm, not in m: 1 of m is 100 of cm", 'unit="m"'),
        'count("abc", unit="m")',
        "3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_fault_bites_tells_and_can_be_repaired(environment: Environment, name: str) -> None:
    case = CASES[name]
    with environment.reset(make_task(faults=(case.fault,))) as episode:
        broken = episode.step(turn(case.broken))
        assert broken.status == case.status, broken.text
        for words in case.told:
            assert words in broken.text
        assert case.result not in broken.text.split("\n") or case.fault.kind == K.SLOW_ANSWER
        repaired = episode.step(turn(case.repaired))
        assert (repaired.status, repaired.text) == (Status.OK, case.result)


def test_every_kind_is_tried() -> None:
    assert {case.fault.kind for case in CASES.values()} == set(FaultKind)


def test_without_the_fault_the_broken_call_works(environment: Environment) -> None:
    with environment.reset(make_task()) as episode:
        for code in ('read_text("a.txt")', 'look("sign.png")', 'search("Rome")', 'count("abc")'):
            assert episode.step(turn(code)).status == Status.OK


def test_an_error_of_a_call_with_the_new_signature_shows_the_new_signature(environment: Environment) -> None:
    changed = fault(K.SIGNATURE_CHANGED, "look", renamed={"image": "picture"})
    with environment.reset(make_task(faults=(changed,))) as episode:
        assert "look(*, picture: str" in episode.step(turn("look(picture=3)")).text
        missing = episode.step(turn('look(region="top left")'))
        assert 'needs the argument "picture"' in missing.text and "look(image" not in missing.text


def test_faults_of_the_same_tool_add_up_and_others_are_left_alone(environment: Environment) -> None:
    plan = (fault(K.TIMEOUT, "search", (1,)), fault(K.STALE_VALUE, "search"), fault(K.SIGNATURE_CHANGED, "search"))
    with environment.reset(make_task(faults=plan)) as episode:
        assert episode.step(turn('search("Rome")')).status == Status.TIMEOUT
        refused = episode.step(turn('search("Rome", refresh=True)'))
        assert refused.status == Status.TOOL_ERROR
        named = refused.text.partition("search(*, ")[2].partition(":")[0]
        assert episode.step(turn(f'search({named}="Rome", refresh=True)')).text == "3 hills"
        assert episode.step(turn('read_text("a.txt")')).text == "total 42"


def test_a_plan_for_a_tool_or_a_file_that_is_not_there_is_told(environment: Environment) -> None:
    with pytest.raises(UserError, match="'nothing.txt', which is not among its files"):
        environment.reset(make_task(faults=(fault(K.EMPTY_FILE, "nothing.txt"),)))
    for changes, words in (
        ({"faults": (fault(K.TIMEOUT, "crash"),)}, "not among the episode's tools"),
        ({"tools": ("fly",)}, "no tool is called"),
    ):
        with environment.reset(make_task(**changes)) as episode, pytest.raises(UserError, match=words):
            episode.step(turn("1"))


def test_a_fault_never_overwrites_a_file() -> None:
    with pytest.raises(UserError, match="would overwrite"):
        Workspace.of(make_task(faults=(fault(K.RENAMED_FILE, "a.txt", name="b.txt"),)))


def test_wrong_parameters_are_told() -> None:
    with pytest.raises(UserError, match="has no parameter 'colour'"):
        fault(K.STALE_VALUE, "search", colour="red")
    with pytest.raises(UserError, match="counted from 1"):
        fault(K.STALE_VALUE, "search", (0,))
    with pytest.raises(UserError, match="no fault"):
        Fault.from_json({"kind": "earthquake", "target": "a"})


kinds = st.sampled_from(sorted(FaultKind))


@given(kinds, st.integers(0, 2**32), st.lists(st.integers(1, 9), max_size=3))
def test_a_fault_survives_json(kind: FaultKind, seed: int, calls: list[int]) -> None:
    made = Fault(kind, "x.txt", calls=tuple(calls), seed=seed, arguments={"a": [1, None]})
    assert Fault.from_json(made.to_json()) == made
    assert isinstance(made.usual_error_type, ErrorType)


@settings(deadline=None)
@given(st.integers(), st.floats(0, 1), st.sets(kinds, min_size=1))
def test_sampled_plans_repeat_and_concern_what_there_is(seed: int, rate: float, chosen: set[FaultKind]) -> None:
    files, tools = ("a.txt", "b.txt", "sign.png"), ("read_text", "look", "final_answer")
    plan = sample_faults(files, tools, seed, rate, sorted(chosen), protected=("b.txt",))
    assert plan == sample_faults(files, tools, seed, rate, sorted(chosen), protected=("b.txt",))
    for one in plan:
        assert one.kind in chosen
        assert one.target in (("a.txt", "sign.png") if one.kind in FILE_FAULTS else ("read_text", "look"))
    alone = sample_faults(("a.txt",), (), seed, rate, sorted(chosen))
    assert alone == tuple(one for one in plan if one.target == "a.txt")
    Workspace.of(make_task(faults=plan))


def test_tools_without_a_region_or_a_query_have_no_faults_of_such() -> None:
    tools = {f"look{number}": ("image", "region") for number in range(200)} | {"count": ("number",), "list_files": ()}
    plan = sample_faults((), tools, 3, 1.0, (K.WRONG_REGION, K.AMBIGUOUS_QUERY))
    assert len(plan) == 200 and {one.kind for one in plan} == {K.WRONG_REGION}


def test_the_rate_is_the_share_of_faulty_targets() -> None:
    names = [f"{number}.txt" for number in range(1000)]
    assert sample_faults(names, (), 1, 0.0) == ()
    assert len(sample_faults(names, (), 1, 1.0)) == 1000
    assert 250 < len(sample_faults(names, (), 1, 0.3)) < 350
    with pytest.raises(UserError, match="between 0 and 1"):
        sample_faults(names, (), 1, 1.5)


@given(st.integers(0, 2**32), st.sampled_from(["a.txt", "folder/b.tar.gz", "README", ".hidden"]))
def test_new_names_are_new(seed: int, target: str) -> None:
    renamed = new_name(Fault(K.RENAMED_FILE, target, seed=seed))
    assert renamed != target and renamed.rpartition("/")[0] == target.rpartition("/")[0]
    for kind in (K.MISSING_FILE, K.EMPTY_FILE):
        assert copy_name(Fault(kind, target, seed=seed)) not in (None, target)
        assert copy_name(Fault(kind, target, {"copy": None})) is None


@pytest.mark.parametrize("kind", sorted(set(FaultKind) - FILE_FAULTS))
def test_default_faults_of_every_tool_repeat(environment: Environment, kind: FaultKind) -> None:
    """{} is always a whole fault, and the same seed gives the same words."""
    calls = {
        "search": 'search("Rome")',
        "look": 'look("sign.png", region="top left")',
        "count": 'count("twelve signs")',
    }
    for target, code in calls.items():
        if kind == K.WRONG_REGION and target != "look":
            continue  # they have no region
        task = make_task(faults=(Fault(kind, target, seed=5),))
        seen = []
        for _ in range(2):
            with environment.reset(task) as episode:
                seen.append(episode.step(turn(code)))
        assert seen[0] == seen[1]
        plain = {"search": "3 hills", "look": "EXIT 7", "count": "12"}[target]
        assert seen[0].text != plain
