"""A suite in Python: its tasks, tools and check, which sees the workspace; and that no tool brings the tasks along."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.config.checks import check_config
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.own_check import own_check
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.mounts import view_of
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.find import suite_of, toolset_settings
from regrpo_jax.suites.python import LoadedSuite, python_suite
from regrpo_jax.suites.suite import Suite
from regrpo_jax.toolbox.remote_tools import Endpoint
from regrpo_jax.toolbox.toolset import BUILTIN, ToolsetSettings

SUITE = "tests.suites.own_suite"
NONE = ToolsetSettings(builtin=("final_answer",))


def turn(code: str) -> str:
    return f"Thought: go on.\n\nCode:\n```py\n{code}\n```"


def started(suite: Suite) -> Environment:
    """As the stages start it, but that the tests' own package may hold tools and tasks."""
    tools = suite.tools
    return start_environment(base_config().environment, tools.loader, tools.settings, max_steps=4)


@pytest.fixture(scope="module")
def suite() -> LoadedSuite:
    return python_suite(f"{SUITE}:make_suite", NONE)


def test_tasks_are_those_that_it_makes(suite: LoadedSuite) -> None:
    tasks = suite.tasks("validation", 3, seed=1)
    assert len(tasks) == 3 and {task.split for task in tasks} == {"validation"}
    assert all(task.file("a.txt").decode() in task.id for task in tasks)
    assert {"add", "note", "final_answer"} == set(suite.tools.loaded)


def test_its_check_sees_the_answer_and_the_workspace(suite: LoadedSuite) -> None:
    (task,) = suite.tasks("train", 1, seed=0)
    number = int(task.file("a.txt"))
    played = {
        "right": (f'note("{2 * number}")', f"final_answer({2 * number})"),
        "wrong note": (f'note("{2 * number + 1}")', f"final_answer({2 * number})"),
        "no note": ("add(1, 2)", f"final_answer({2 * number})"),
        "wrong answer": (f'note("{2 * number}")', "final_answer(-1)"),
        "no answer": (f'note("{2 * number}")',),
    }
    with started(suite) as environment:
        for name, codes in played.items():
            with environment.reset(task) as episode:
                for code in codes:
                    episode.step(turn(code))
            assert episode.success == (name == "right"), name


def test_an_action_cannot_say_that_it_is_right(suite: LoadedSuite) -> None:
    """The check runs on the host; an object that equals everything is a text when it gets there."""
    (task,) = suite.tasks("train", 1, seed=0)
    code = "class Any:\n    def __eq__(self, other): return True\n    def __int__(self): return 0\nfinal_answer(Any())"
    with started(suite) as environment, environment.reset(task) as episode:
        episode.step(turn('note("0")'))
        episode.step(turn(code))
        assert not episode.success or int(task.file("a.txt")) == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{SUITE}:nothing", "gave NoneType; return a PythonSuite, or a Suite"),
        (f"{SUITE}:broken", "RuntimeError: no luck"),
        (f"{SUITE}:missing", "AttributeError"),
        ("tests.suites.missing:make_suite", "ModuleNotFoundError"),
        (f"{SUITE}:tools_beside_the_tasks", "stands in the module that makes the tasks"),
    ],
)
def test_what_is_no_suite_is_told_in_a_line(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as told:
        python_suite(name, NONE)
    assert "\n" not in str(told.value)


def test_a_whole_suite_is_taken_as_it_is() -> None:
    suite = python_suite("experiments.step_credit.without_plans:make_suite", NONE)
    tasks = suite.tasks("test", 3, 0)
    assert [task.judges_steps for task in tasks] == [False] * 3 and all(task.oracle for task in tasks)
    assert "final_answer" in suite.tools.loaded


def test_a_task_that_is_none_is_told_with_its_number() -> None:
    with pytest.raises(UserError, match="task 0 of the split 'test': .files. has 'a' without a content"):
        python_suite(f"{SUITE}:bad_tasks", NONE).tasks("test", 1, 0)


def test_tools_that_bring_the_tasks_along_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_shop"
    package.mkdir()
    for name in ("__init__", "tasks", "tools"):
        (package / f"{name}.py").write_text("def price(): ...\n")
    (tmp_path / "my_tools.py").write_text("import my_shop\n")
    (tmp_path / "other_tools.py").write_text("import json\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = SandboxSettings(python_path=(str(tmp_path),), hidden=(str(package / "tasks.py"),))
    view_of(settings, ("other_tools:price",))
    for tools in ("my_shop.tools:price", "my_tools:price"):
        with pytest.raises(UserError, match="makes the tasks or holds their answers"):
            view_of(settings, (tools,))


def test_tools_of_the_package_that_makes_the_tasks_do_not_start(suite: LoadedSuite) -> None:
    tools = suite.tools
    with pytest.raises(UserError, match="own_suite.py makes the tasks"):
        start_environment(base_config().environment, tools.loader, tools.settings, max_steps=4, hidden=tools.hidden)


def test_a_check_that_cannot_be_had_or_raises_is_told() -> None:
    class NoFiles:
        def read_file(self, name: str) -> bytes:
            raise FileNotFoundError(name)

        def files(self) -> dict[str, str]:
            return {"a.txt": ""}

    assert own_check(f"{SUITE}:is_noted", 1, NoFiles()) is False
    with pytest.raises(UserError, match="cannot be had"):
        own_check("nowhere:check", 1, NoFiles())
    with pytest.raises(UserError, match="raised TypeError"):
        own_check(f"{SUITE}:make_tasks", 1, NoFiles())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"suite.name": "gaya"}, "config.suite.name is 'gaya'; choose one of toolrepair, gta, gaia, bfcl"),
        ({"suite.name": "configs"}, r"tasks\.jsonl: cannot be read .*config\.suite\.name names a folder"),
        (
            {"suite.name": "configs", "tools.endpoints": ("detekt=http://localhost:9000",)},
            "'detekt': write NAME=ADDRESS .*, each of vision, images, detect, segment, caption once",
        ),
        ({"suite.name": "configs", "tools.mcp": ("shop=",)}, "config.tools.mcp has 'shop='"),
    ],
)
def test_what_a_config_gets_wrong(fields: dict[str, object], words: str) -> None:
    config = base_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=words):
        suite_of(config).tasks("train", 1, 0)


def test_tools_of_a_config() -> None:
    config = base_config()
    config.tools.builtin = ("crop", "gta_names")
    config.tools.search = "https://search.example/api SEARCH_KEY"
    config.tools.endpoints = ("vision=http://localhost:8000/v1 wise",)
    config.tools.user = ("tests.suites.own_tools:add",)
    config.tools.mcp = ("shop=python server.py --fast", "https://tools.example/mcp")
    settings = toolset_settings(config.tools)
    assert settings.builtin == ("crop", "final_answer") and settings.gta_names
    assert settings.search_engine == Endpoint("https://search.example/api", key_variable="SEARCH_KEY")
    assert settings.vision == Endpoint("http://localhost:8000/v1", "wise")
    assert (settings.images, settings.corpus) == (None, "")
    first, second = settings.mcp_servers
    assert (first.name, first.command) == ("shop", ("python", "server.py", "--fast"))
    assert (second.name, second.url) == ("server2", "https://tools.example/mcp")
    assert (settings.detect, settings.segment, settings.caption) == (None, None, None)


def test_models_behind_the_tools_of_a_config() -> None:
    config = base_config()
    assert "segment" not in toolset_settings(config.tools).builtin
    config.tools.endpoints = (
        "detect=http://localhost:9000/detect",
        "segment=https://x.example/segment?a=b SEGMENT_KEY",
    )
    check_config(config)
    settings = toolset_settings(config.tools)
    assert settings.detect == Endpoint("http://localhost:9000/detect")
    assert settings.segment == Endpoint("https://x.example/segment?a=b", key_variable="SEGMENT_KEY")
    assert settings.caption is None and set(settings.builtin) == {*BUILTIN, "segment"}


@pytest.mark.parametrize(
    "endpoints",
    [
        ("detect",),
        ("detect=",),
        ("paint=http://localhost:9000",),
        ("detect=localhost:9000",),
        ("detect=http://a", "detect=http://b"),
        ("detect=http://a sk-not-a-variable-123",),
    ],
)
def test_endpoints_that_are_none_are_refused(endpoints: tuple[str, ...]) -> None:
    config = base_config()
    config.tools.endpoints = endpoints
    with pytest.raises(
        UserError,
        match="config.tools.endpoints .*list some of vision=ADDRESS MODEL, .* detect=ADDRESS, segment=",
    ) as refused:
        check_config(config)
    assert "sk-not" not in str(refused.value)
