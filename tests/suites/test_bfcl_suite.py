"""BFCL's suite over a small folder in the package's layout: records, requests, functions that come late, verdicts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
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
from regrpo_jax.rollouts.shared_play import Action, SharedPlay
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.benchmark import EPISODES, PlayedCall, PlayedTask, PlayedTurn
from regrpo_jax.suites.bfcl.records import SETS, read_records
from regrpo_jax.suites.bfcl.requests import BfclRequests
from regrpo_jax.suites.bfcl.suite import BfclSuite
from regrpo_jax.suites.bfcl.world import failure_words
from regrpo_jax.suites.find import suite_of
from regrpo_jax.toolbox.toolset import ToolsetSettings
from tests.suites.bfcl_package import NEWS, SCENARIOS, write_package


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield write_package(tmp_path_factory.mktemp("bfcl"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "bfcl_eval"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def suite(folder: Path) -> BfclSuite:
    return BfclSuite(folder, ToolsetSettings(), brief=True)


@pytest.fixture(scope="module")
def environment(suite: BfclSuite) -> Iterator[Environment]:
    sandbox = SandboxSettings(workers=2, spares=1, hidden=suite.tools.hidden)
    with Environment.start(sandbox, suite.tools.settings, EpisodeLimits(max_steps=4), suite.tools.loader) as made:
        yield made


def task(suite: BfclSuite, kind: str = "base", number: int = 0) -> Task:
    return next(one for one in suite.all_tasks() if one.id == f"multi_turn_{kind}_{number}")


def act(episode: Episode, code: str) -> Observation:
    return episode.step(f"Thought: go on.\n\nCode:\n```py\n{code}\n```")


def oracle(one: Task, steps: tuple[Step, ...]) -> str:
    return one.oracle[len(steps)].turn()


def test_gold_calls_are_right_in_all_sets_and_in_their_result_file(
    suite: BfclSuite, environment: Environment, tmp_path: Path
) -> None:
    tasks = suite.all_tasks()
    assert [one.family for one in tasks] == [name for name in SETS for _ in range(SCENARIOS)]
    results = run_episodes(environment, tasks, oracle)  # more episodes than workers
    assert [result.success for result in results] == [True] * len(tasks)
    file = tmp_path / "result.json"
    suite.write_predictions(EPISODES, [PlayedTask(one.task.id, (), str(one.answer)) for one in results], file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    rest = ["[put_out(name='lamp 0')]", "[add(first=2, second=3)]"]
    assert lines[0] == {"id": "multi_turn_base_0", "result": [["[light(name='lamp 0')]"], rest]}
    score = suite.score([file])
    told = {figure.name: (figure.hits, figure.of, figure.scorer, figure.note) for figure in score.figures}
    assert told["all"] == (24, 24, "BFCL", "") and told["multi_turn_miss_func"] == (6, 6, "BFCL", "")
    assert told["train half"][1] + told["test half"][1] == 24 and not score.notes


def test_single_requests_are_right_with_their_gold_calls(folder: Path, environment: Environment) -> None:
    requests = BfclRequests(folder, ToolsetSettings(), brief=True)
    tasks = requests.all_tasks()
    assert len(tasks) == SCENARIOS * (2 + 3 + 3 + 2)
    assert all(result.success for result in run_episodes(environment, tasks, oracle))
    first, second = tasks[:2]
    assert first.instruction == "User: Light lamp 0."
    assert "light(name='lamp 0') -> {'lit': 'lamp 0', 'watts': 40}\nUser: Now put it out" in second.instruction
    late = [one for one in tasks if one.id.startswith("multi_turn_miss_func_0/")]
    assert ["put_out" in one.tools for one in late] == [False, False, True]
    with environment.reset(second) as episode:
        act(episode, "put_out(name='lamp 0')")
        act(episode, "final_answer('done')")
        assert episode.done and not episode.success
    with pytest.raises(UserError, match="take bfcl"):
        requests.score([])


def test_an_answer_brings_the_next_request_and_the_last_one_ends_the_episode(
    suite: BfclSuite, environment: Environment
) -> None:
    with environment.reset(task(suite)) as episode:
        assert act(episode, "light('lamp 0')").text == "{'lit': 'lamp 0', 'watts': 40}"
        seen = act(episode, "print('lit')\nfinal_answer('it is lit')")
        assert (seen.status, seen.text) == (Status.OK, "lit\nTask: Now put it out and add 2 and 3.")
        assert episode.asked_again and not episode.done
        assert act(episode, "put_out('lamp 0')").status == Status.OK  # which returns nothing
        assert act(episode, "print(add(2, 3)['result'])").text == "5"
        act(episode, "final_answer()")
        assert episode.done and episode.success
        calls = json.loads(episode.answer)["calls"]
    assert calls == [["light(name='lamp 0')"], ["put_out(name='lamp 0')", "add(first=2, second=3)"]]


@pytest.mark.parametrize(
    ("first", "kind"),
    [("light('other')", "state"), ("pass", "empty"), ("light('lamp 0', watts=60)", "response")],
)
def test_what_the_checker_finds_wrong(suite: BfclSuite, environment: Environment, first: str, kind: str) -> None:
    with environment.reset(task(suite)) as episode:
        act(episode, f"{first}\nfinal_answer()")
        act(episode, "put_out('lamp 0')\nadd(2, 3)\nfinal_answer()")
        told = json.loads(episode.answer)
        assert episode.done and not episode.success
    assert (told["valid"], told["kind"]) == (False, kind)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("light('lamp 9')", Status.TOOL_ERROR, "there is no lamp 'lamp 9', only lamp 0, other"),
        ("put_out('lamp 9')", Status.TOOL_ERROR, "Error during execution: 'lamp 9'"),
        ("light(lamp='lamp 0')", Status.TOOL_ERROR, "Error during execution: .*unexpected keyword argument 'lamp'"),
        ("light()", Status.TOOL_ERROR, "missing 1 required positional argument: 'name'"),
        ("log_in('shut')", Status.TOOL_ERROR, "log_in: {'login_status': False}"),
        ("history()", Status.TOOL_ERROR, "nobody is logged in"),
        ("light(b'lamp 0')", Status.TOOL_ERROR, "light: a value of type bytes is no plain data; give numbers"),
        ("get_login_status()", Status.OK, "{'login_status': False}"),
        ("log_in('open')", Status.OK, "{'login_status': True}"),
        ("dust()", Status.OK, "^$"),
        ("thing()", Status.OK, "LampAPI object"),
        ("sing()", Status.INVALID_ACTION, r"name 'sing' is not defined.*\nTools: add, dust, final_answer"),
        ("_load_scenario({})", Status.INVALID_ACTION, "not defined"),
    ],
)
def test_what_the_policy_is_told(
    suite: BfclSuite, environment: Environment, code: str, status: Status, words: str
) -> None:
    with environment.reset(task(suite)) as episode:
        seen = act(episode, code)
    assert seen.status == status, seen.text
    assert re.search(words, seen.text, re.DOTALL), seen.text


@pytest.mark.parametrize(
    ("name", "value", "fails"),
    [
        ("f", {"error": "no"}, True), ("f", {"error": 404}, True), ("f", [{"error": "no"}], True),
        ("f", {"booking_status": False, "error": "no"}, True), ("f", {"success": False}, True),
        ("f", {"error": None}, False), ("f", {"error": ""}, True), ("f", [{"error": "no"}, {}], False),
        ("f", [{"success": False}], False), ("get_status", {"success": False}, False),
        ("ticket_get_login_status", {"login_status": False}, False), ("f", {"status": False}, False),
        ("f", {"sent_status": "no"}, False), ("f", {"lit": False}, False), ("f", "error", False), ("f", None, False),
    ],
)  # fmt: skip
def test_what_a_returned_value_says_of_a_failure(name: str, value: Any, fails: bool) -> None:
    assert bool(failure_words(name, value)) is fails


def test_a_function_that_comes_late_is_unknown_before_and_told_with_its_request(
    suite: BfclSuite, environment: Environment
) -> None:
    late = task(suite, "miss_func")
    assert not {"put_out", "add"} & set(late.tools)
    with environment.reset(late) as episode:
        act(episode, "light('lamp 0')\nfinal_answer()")
        seen = act(episode, "put_out('lamp 0')")
        assert seen.status == Status.INVALID_ACTION
        assert "NameError: name 'put_out' is not defined" in seen.text and "put_out" not in seen.text.split("Tools:")[1]
        assert "put_out" not in act(episode, "stop()").text  # which is truly unknown
        seen = act(episode, "final_answer('nothing puts out')")
        assert seen.text == f"Task: put_out(name)\nadd(first, second)\n{NEWS}"
        assert "put_out" in act(episode, "stop()").text
        act(episode, "put_out('lamp 0')")
        act(episode, "add(2, 3)\nfinal_answer()")
        assert episode.success


def test_each_request_has_the_whole_budget_of_steps(suite: BfclSuite, environment: Environment) -> None:
    with environment.reset(task(suite)) as episode:
        for code in ("1", "1", "light('lamp 0')", "final_answer()", "1", "1", "1"):
            act(episode, code)
            assert not episode.done
        act(episode, "1")
        assert str(episode.outcome) == "out_of_steps"


def test_a_parked_episode_comes_back_in_the_middle_of_its_requests(suite: BfclSuite, environment: Environment) -> None:
    with environment.reset(task(suite)) as episode:
        act(episode, "light('lamp 0')\nfinal_answer()")
        environment.leave(episode)
        act(episode, "put_out('lamp 0')")
        environment.leave(episode)
        act(episode, "add(2, 3)\nfinal_answer()")
        assert episode.success and episode.differed == 0 and episode.followups == 1


def test_an_episode_that_was_killed_has_lost_its_calls(suite: BfclSuite, environment: Environment) -> None:
    with environment.reset(task(suite)) as episode:
        act(episode, "light('lamp 0')\nfinal_answer()")
        assert act(episode, "import os\nos.abort()").status == Status.TOOL_ERROR
        act(episode, "put_out('lamp 0')\nadd(2, 3)\nfinal_answer()")
        assert episode.done and not episode.success


def test_answering_twice_in_an_action_gains_nothing(suite: BfclSuite, environment: Environment) -> None:
    with environment.reset(task(suite)) as episode:
        act(episode, "light('lamp 0')\ntry:\n    final_answer()\nexcept BaseException:\n    final_answer()")
        act(episode, "put_out('lamp 0')\nadd(2, 3)\nfinal_answer()")
        assert episode.done and not episode.success


def test_no_action_reads_tasks_answers_or_the_world(suite: BfclSuite, environment: Environment, folder: Path) -> None:
    data = str(folder / "bfcl_eval" / "data")
    with environment.reset(task(suite)) as episode:
        seen = act(episode, f"import os\nprint(os.listdir('.'), os.listdir({data!r}))")
        assert seen.text == "[] ['multi_turn_func_doc']"
        act(episode, 'final_answer(\'{"valid": true, "calls": []}\')')
        act(episode, 'final_answer(\'{"valid": true, "calls": []}\')')
        assert episode.done and not episode.success


def test_both_halves_have_whole_scenarios_and_are_dealt_by_the_number_alone(suite: BfclSuite) -> None:
    sides: dict[str, set[str]] = {}
    for record in suite.records:
        sides.setdefault(record.scenario, set()).add(record.split)
    assert all(len(found) == 1 for found in sides.values())
    assert {one for found in sides.values() for one in found} == {"train", "test"}
    train = suite.tasks("train", 100, 0)
    assert {one.split for one in train} == {"train"} and len(train) + len(suite.tasks("test", 100, 0)) == 24
    assert suite.tasks("train", 3, 5) == suite.tasks("train", 3, 5) != suite.tasks("train", 3, 6)
    with pytest.raises(UserError, match="no task has the split 'validation'"):
        suite.tasks("validation", 1, 0)


def test_tasks_are_the_same_after_json(suite: BfclSuite) -> None:
    late = task(suite, "miss_func")
    assert Task.from_json(json.loads(json.dumps(late.to_json()))) == late
    assert "followups" not in replace(late, followups=()).to_json()


def result(name: str, *turns: list[Any]) -> str:
    return json.dumps({"id": name, "result": list(turns)}) + "\n"


def test_scores_of_a_file_made_elsewhere(suite: BfclSuite, tmp_path: Path) -> None:
    first, second = tmp_path / "a_result.json", tmp_path / "b_result.json"
    rest = ["[put_out(name='lamp 1'), add(first=2, second=3)]", "Done."]
    first.write_text(
        result("multi_turn_base_0", [[{"light": '{"name": "lamp 0"}'}], []], [[{"put_out": {"name": "lamp 0"}}]])
        + result("multi_turn_base_1", ["[light(name='lamp 1')]"], rest)
        + result("multi_turn_base_2", ["[light(name='lamp 2')]"])
        + json.dumps({"id": "multi_turn_base_3", "result": "Error"})
        + "\n\n"
        + result("multi_turn_base_4", ["[light(name=open('x'))]"], [])
        + result("simple_python_0", [])
    )
    second.write_text(
        result("multi_turn_base_0", [[{"light": '{"name": "lamp 0"}'}]],
               [[{"put_out": {"name": "lamp 0"}}, {"add": {"first": 2, "second": 3}}]])
    )  # fmt: skip
    score = suite.score([first, second])
    told = {name: score.records[f"multi_turn_base_{name}"]["BFCL"] for name in range(SCENARIOS)}
    assert [told[name]["valid"] for name in told] == [True, True, False, False, False, False]
    assert [told[name]["kind"] for name in told][2:] == [
        "multi_turn:force_terminated", "multi_turn:inference_error", "state", "missing",
    ]  # fmt: skip
    figures = {figure.name: figure for figure in score.figures}
    assert (figures["multi_turn_base"].hits, figures["multi_turn_base"].of) == (2, 6)
    assert figures["multi_turn_base"].note == "1 have no result and count as wrong"
    assert (figures["all"].hits, figures["all"].of) == (2, 24)
    notes = " ".join(score.notes)
    for words in ("1 ids came twice, the last one counts: multi_turn_base_0", "1 ids are none of the records",
                  "1 results are no list of lists: multi_turn_base_3", "1 calls are of no function"):  # fmt: skip
        assert words in notes
    utilities = sys.modules["bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils"]
    assert not [name for name in vars(utilities) if name.startswith("regrpo_jax")]


def test_a_prediction_of_an_episode_that_broke_off_is_cut_short(suite: BfclSuite, tmp_path: Path) -> None:
    calls = (PlayedCall("light", "ok", "name='lamp 0'", ""), PlayedCall("final_answer", "ok", "'x'", ""))
    turns = (PlayedTurn("", "ok", "", calls), PlayedTurn("", "tool_error", "", (PlayedCall("add", "ok", "2, 3", ""),)))
    file = tmp_path / "result.json"
    suite.write_predictions(EPISODES, [PlayedTask("multi_turn_miss_param_0", turns)], file)
    assert json.loads(file.read_text())["result"] == [["[light(name='lamp 0')]"], ["[add(2, 3)]"]]
    assert suite.score([file]).records["multi_turn_miss_param_0"]["BFCL"]["kind"] == "multi_turn:force_terminated"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1: no line of a BFCL result file"),
        ("[]", "line 1: no line of a BFCL result file"),
        ('{"id": 3, "result": []}', '"id" is 3'),
        ('{"id": "other", "result": []}', "no id is one of the records"),
        (None, "cannot be read"),
    ],
)
def test_result_files_that_are_none(suite: BfclSuite, tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "result.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=words):
        suite.score([file])


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("BFCL_v4_multi_turn_base.json", "{", "line 1: not JSON"),
        ("BFCL_v4_multi_turn_base.json", "[]", "line 1: an object is expected, not list"),
        ("BFCL_v4_multi_turn_base.json", "\n", "holds no record"),
        ("BFCL_v4_multi_turn_base.json", '{"id": 7}', '"id" must be a str'),
        ("BFCL_v4_multi_turn_base.json", '{"id": "x"}', "no ground truth is there for 'x'"),
        ("BFCL_v4_multi_turn_base.json", '{"id": "a_0", "question": 1}', '"question" must be a list'),
        ("BFCL_v4_multi_turn_base.json", '{"id": "a_0", "question": [1]}', "must be a list of messages"),
        ("BFCL_v4_multi_turn_base.json", '{"id": "a_0", "question": [[], []]}', "has 2 requests, its ground truth 1"),
        ("BFCL_v4_multi_turn_base.json", '{"id": "a_0", "question": [[]]}', "says nothing"),
        ("BFCL_v4_multi_turn_base.json", '{"id": "a_0", "question": [[]], "missed_function": {"x": []}}', "missed_f"),
        ("BFCL_v4_multi_turn_base.json", '{"id": "a_0", "question": [[{"content": "x"}]]}', '"involved_classes"'),
        ("possible_answer/BFCL_v4_multi_turn_base.json", '{"id": "a_0", "ground_truth": [1]}', "list of lists of"),
        ("BFCL_v3_multi_turn_base.json", "", "there is 2 files"),
    ],
)
def test_records_that_are_none_are_named(tmp_path: Path, file: str, text: str, words: str) -> None:
    package = write_package(tmp_path) / "bfcl_eval"
    answers = package / "data" / "possible_answer" / "BFCL_v4_multi_turn_base.json"
    answers.write_text('{"id": "a_0", "ground_truth": [["f()"]]}')
    (package / "data" / file).write_text(text)
    with pytest.raises(UserError, match=words):
        read_records(package)


def test_a_second_record_of_an_id_and_a_set_that_is_not_there(tmp_path: Path) -> None:
    package = write_package(tmp_path) / "bfcl_eval"
    file = package / "data" / "BFCL_v4_multi_turn_base.json"
    lines = file.read_text()
    file.write_text(lines + lines)
    with pytest.raises(UserError, match="line 7: a second record has the \"id\" 'multi_turn_base_0'"):
        read_records(package)
    file.unlink()
    with pytest.raises(UserError, match=r"there is no file BFCL_\*_multi_turn_base.json"):
        read_records(package)


def test_the_suite_of_a_config(folder: Path, tmp_path: Path) -> None:
    config = base_config()
    config.suite.name, config.suite.path, config.suite.brief = "bfcl", str(folder), True
    config.suite.families = ("miss_func", "LampAPI", "SumAPI")
    found = suite_of(config)
    assert found.brief and {one.family for one in found.tasks("test", 100, 0)} == {"miss_func"}
    config.suite.path = str(folder / "bfcl_eval")
    assert len(suite_of(config).tasks("test", 100, 0)) + len(suite_of(config).tasks("train", 100, 0)) == SCENARIOS
    for families, words in ((("LampAPI",), "no record has these classes alone"), (("Lamp",), "has 'Lamp'; bfcl has")):
        config.suite.families = families
        with pytest.raises(UserError, match=words):
            suite_of(config).tasks("test", 1, 0)
    config.suite.path = str(tmp_path)
    with pytest.raises(UserError, match="pip install --no-deps --target DIR bfcl-eval"):
        suite_of(config).tasks("test", 1, 0)


def test_branches_share_what_they_did_alike_and_part_between_requests(
    suite: BfclSuite, environment: Environment
) -> None:
    def turn(code: str) -> str:
        return f"Thought: go on.\n\nCode:\n```py\n{code}\n```"

    first, light = turn("light('lamp 0')"), turn("final_answer('lit')")
    right, wrong = turn("put_out('lamp 0')\nadd(2, 3)\nfinal_answer()"), turn("put_out('other')\nfinal_answer()")
    with SharedPlay(environment, [task(suite)]) as play:
        assert not play.play([Action(0, (), first)])[0].asked_again
        assert play.play([Action(0, (first,), light)])[0].asked_again
        good, bad = play.play([Action(0, (first, light), right), Action(0, (first, light), wrong)])
        assert (good.outcome, good.success) == ("answered", True) and not good.asked_again
        assert (bad.outcome, bad.success) == ("answered", False)
        assert play.runs == 4
