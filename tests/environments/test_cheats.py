"""The answer is not in the sandbox: who cheats scores like a policy that knows nothing.

Every cheat is also played where its hole is open, on the host with the contents, the package and the memory of the
task at hand; there it must win, or it would prove nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.environments.answers import check_answer
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.faults import Fault, FaultKind
from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.environments.workspace import Workspace, action_seed
from regrpo_jax.rollouts.shared_play import Action, SharedPlay
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import LOADERS, PROFILES, SPLITS, families, make_suite, make_task, plan_of
from regrpo_jax.toolbox import behind
from tests.environments.cheats import FILES, FROM_MEMORY, FROM_PACKAGE, FROM_WORKSPACE, SOLVE, TRACES
from tests.environments.conftest import make_task as small_task
from tests.environments.conftest import turn

TEXT_FAMILIES = ("moved", "service", "search", "sheet", "ballot", "chain")
SEEDS = 12
TASKS = [
    make_task(family, "test", seed, difficulty, surprises=1)
    for family in TEXT_FAMILIES
    for seed, difficulty in ((3, 1), (7, 2), (11, 3))
]
END = """
try:
    answer = solve(files, INSTRUCTION)
except Exception:
    answer = "unknown"
final_answer(answer)
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with Environment.start(SandboxSettings(workers=2, wall_seconds=30), loader=LOADERS["compact"]) as made:
        yield made


def contents(task: Task) -> dict[str, bytes]:
    return {file.name: file.content for file in task.files}


def cheating(task: Task, cheat: str) -> str:
    return f"INSTRUCTION = {task.instruction!r}\nSEEDS = {SEEDS}\n{SOLVE}\n{cheat}\n{END}"


def score(environment: Environment, cheat: str) -> int:
    solved = 0
    for task in TASKS:
        with environment.reset(task) as episode:
            episode.step(turn(cheating(task, cheat)))
            solved += episode.success
    return solved


def on_the_host(task: Task, cheat: str) -> Any:
    """What the cheat answers where nothing stands in its way."""
    answers: list[Any] = []
    exec(cheating(task, cheat), {"__name__": "__main__", "final_answer": answers.append})
    return answers[0]


@pytest.mark.parametrize("name", FILES)
def test_cheats_score_like_a_policy_that_knows_nothing(environment: Environment, name: str) -> None:
    assert score(environment, FILES[name]) == 0


def test_the_contents_behind_the_tools_are_all_that_is_needed() -> None:
    """So a cheat that gets at them scores 18 of 18."""
    for task in TASKS:
        held: dict[str, Any] = {}
        exec(SOLVE, held)
        answer = held["solve"](contents(task), task.instruction)
        assert check_answer(task.checker, answer), (task.id, answer)


@pytest.fixture
def opened() -> Iterator[None]:
    """The contents of the first task where its own process can reach them."""
    behind.install(contents(TASKS[0]))
    yield
    behind.install({})


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("name", FROM_MEMORY)
def test_cheats_win_where_the_contents_are_in_their_process(name: str) -> None:
    assert check_answer(TASKS[0].checker, on_the_host(TASKS[0], FROM_MEMORY[name]))


@pytest.mark.parametrize("name", FROM_PACKAGE)
def test_cheats_win_where_the_package_is(name: str) -> None:
    assert check_answer(TASKS[0].checker, on_the_host(TASKS[0], FROM_PACKAGE[name]))


@pytest.mark.parametrize("name", FROM_WORKSPACE)
def test_cheats_win_where_the_contents_are_in_the_workspace(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for task in TASKS:
        for file in task.files:
            (tmp_path / file.name).write_bytes(file.content)
        assert check_answer(task.checker, on_the_host(task, FROM_WORKSPACE[name]))
        for path in tmp_path.iterdir():
            path.unlink()


CANARY, GIVEN = f"canary-{'0a' * 12}", f"canary-{'1b' * 12}"


def canary_task() -> Task:
    """What must not be seen is in a note behind the tools and in a fault; what may be is in the workspace."""
    return small_task(
        files=(
            TaskFile("given.txt", GIVEN.encode()),
            TaskFile("moon.txt", f"by Ann\ntotal {CANARY}\n".encode(), behind=True),
            TaskFile("fox.json", f'[["alpha", "pay", "{CANARY}"], ["beta", "tax", "77"]]'.encode(), behind=True),
        ),
        images=(),
        tools=("read", "search", "sheet"),
        faults=(Fault(FaultKind.STALE_VALUE, "search", {"value": CANARY, "since": "2019"}, calls=(9,)),),
    )


@pytest.mark.parametrize("name", TRACES)
def test_no_trace_is_found(environment: Environment, name: str) -> None:
    with environment.reset(canary_task()) as episode:
        told = episode.step(turn('given = open("given.txt").read()\nread("lake")'))
        assert '"Ann" at "moon"' in told.text and CANARY not in told.text  # the tools do hold it
        episode.step(turn('record = sheet("fox")\nprint(record, record["beta"])'))
        seen = episode.step(turn(TRACES[name]))
        assert CANARY not in seen.text
        if name.startswith(("scan", "walk", "read what")):
            assert GIVEN in seen.text  # it does find what is there


@pytest.mark.parametrize("name", ["scan the memory of every process", "walk all objects for texts"])
def test_traces_are_found_where_they_are(name: str) -> None:
    held = {"text": CANARY + " "}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(TRACES[name].replace('"/proc")', '"/proc") if name == str(os.getpid())'), {"os": os, "held": held})
    assert CANARY in printed.getvalue()


REVEALS = (
    "dict(record)", "list(record)", "vars(record)", "record.__dict__", "record.entries", "record._entries",
    "list(record.values())", "list(record.items())", "[record[number] for number in range(4)]", "dir(record)",
    "__import__('pickle').dumps(record)", "__import__('json').dumps(record)", "__import__('copy').deepcopy(record)",
    "record.__reduce_ex__(2)", "record.__getattribute__('_entries')", "getattr(record, 'get')('alpha')",
    "type(record).__mro__", "record | {}", "{**record}", "[*record]", "record.__init__.__globals__",
    "f'{record:s}'", "'%s' % record", "'%r' % (record,)", "format(record)", "str(record)", "record.__class__.__dict__",
    "record._operate(record._handle, '__getattribute__', ('_entries',), {})", "[*reversed(record)]", "read(record)",
    "[record._operate(number, '__repr__', (), {}) for number in range(9)]", "record.__getitem__.__globals__['copyreg']",
)  # fmt: skip


@pytest.mark.parametrize("look", REVEALS)
def test_a_record_shows_its_values_to_who_knows_the_key_alone(environment: Environment, look: str) -> None:
    with environment.reset(canary_task()) as episode:
        seen = episode.step(turn(f'record = sheet("fox")\nprint({look})'))
        assert CANARY not in seen.text and '"77"' not in seen.text and "'77'" not in seen.text
        assert "77" in episode.step(turn('print(sheet("fox")["beta"])')).text
        missing = episode.step(turn('print(sheet("fox")["pay"])')).text
        assert 'no "pay". "pay" in "alpha", "tax" in "beta".' in missing and CANARY not in missing


TRICKS = ("*", "", ".", "..", "/", "./fox", "fox.*", "%", "' OR '1'='1", "../workspace/fox", "\\0", "[a-z]*")


def test_names_are_names_and_no_patterns(environment: Environment) -> None:
    """Of a tool's call with a name that fits everything, the answer does not come back."""
    solved = 0
    for task in TASKS:
        tool = plan_of(task).attempts[0].code.partition("(")[0]
        code = (
            f"import re\nshown = []\nfor name in {TRICKS!r}:\n    try:\n        shown.append(str({tool}(name)))\n"
            "    except Exception:\n        pass\n"
            'numbers = re.findall(r"\\d+", " ".join(shown))\nfinal_answer(numbers[-1] if numbers else "unknown")'
        )
        with environment.reset(task) as episode:
            episode.step(turn(code))
            solved += episode.success
    assert solved == 0


def sent(environment: Environment, task: Task) -> str:
    """All that the sandbox is given for the process of the actions and for that of the tools, but contents."""
    files, seed, wrap, wrap_settings = environment.reset(task).open_arguments()
    return repr((sorted(files), seed, wrap, wrap_settings))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([(profile, family) for profile in PROFILES for family in families(profile)]),
    st.sampled_from(SPLITS),
    st.integers(10**9, 10**12),
)
def test_neither_seed_nor_name_of_the_task_goes_inside(member: tuple[str, str], split: str, seed: int) -> None:
    profile, family = member
    task = make_task(family, split, seed, 2, profile, surprises=1)
    with_environment: Any = _Bare()
    told = sent(with_environment, task)
    assert str(seed) not in told and "toolrepair/" not in told


class _Bare(Environment):
    """An environment without workers: nothing is played."""

    def __init__(self) -> None:
        self.limits = None  # type: ignore[assignment]


def test_the_seed_of_an_action_is_a_hash_of_what_the_policy_sees() -> None:
    """Tasks that look the same have the same, whatever their seeds and answers; it tells nothing about either."""
    alike: dict[str, set[int]] = {}
    for seed in range(300):
        task = make_task("moved", "train", seed, 1)
        place = Workspace.of(task)
        alike.setdefault(task.instruction, set()).add(action_seed(task.instruction, place.files))
    assert all(len(seeds) == 1 for seeds in alike.values()) and len(alike) > 100
    assert len(set.union(*alike.values())) == len(alike)
    pictured = [make_task("region", "train", seed, 1) for seed in range(40)]
    assert len({action_seed("the same words", Workspace.of(task).files) for task in pictured}) == len(pictured)


def test_brute_force_finds_no_seed(environment: Environment) -> None:
    code = (
        "import random\nstate = random.getstate()\n"
        "print([seed for seed in range(20_000) if random.Random(seed).getstate() == state])"
    )
    task = TASKS[1]
    with environment.reset(task) as episode:
        assert episode.step(turn(code)).text == "[]"
    state = random.Random(task.seed).getstate()
    assert [seed for seed in range(100) if random.Random(seed).getstate() == state] == [task.seed]  # it would find it


def test_random_numbers_of_an_action_are_the_same_for_all_who_play_the_task(environment: Environment) -> None:
    draw = turn("import random\nprint(random.random())")
    with environment.reset(TASKS[0]) as one, environment.reset(TASKS[0]) as other:
        first = one.step(draw).text
        assert first == other.step(draw).text
    with SharedPlay(environment, TASKS[:1]) as play:  # as rollouts and the data engine play it
        assert play.play([Action(0, (), draw)])[0].text == first
    with environment.reset(TASKS[0], seed=5) as chosen:
        assert chosen.step(draw).text != first


def test_the_workspace_holds_what_the_task_gives_and_no_more() -> None:
    """Of the compact suite the picture alone; of the full one documents and pictures that the instruction speaks of."""
    for split in SPLITS:
        for task in make_suite(split, 81, 5, "compact"):
            assert set(Workspace.of(task).files) == set(task.images)
            assert bool(Workspace.of(task).behind) or task.family in ("region", "colour", "count")
        for task in make_suite(split, 54, 5, "full"):
            place = Workspace.of(task)
            assert not {"library.jsonl", "approvals.json", "staff.csv", "pay.csv"} & set(place.files)
            assert set(task.images) <= set(place.files)


@pytest.mark.parametrize("split", SPLITS)
def test_nothing_that_the_policy_is_given_holds_the_repair(split: str) -> None:
    """Neither the instruction nor a readable file of the compact workspace has the answer or the repaired call."""
    for task in make_suite(split, 81, 6, "compact", surprises=1):
        place = Workspace.of(task)
        given_texts = [task.instruction, *(content.decode("latin-1") for content in place.files.values())]
        for attempt in plan_of(task).attempts:
            if attempt.repair is not None:
                assert not any(attempt.repair.code in text for text in given_texts)
