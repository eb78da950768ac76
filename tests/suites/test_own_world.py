"""A world with a state: episodes change it, it says what success is, and nobody can look into it or talk it over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.engine.execute import Refused, play_clean
from regrpo_jax.engine.suite_source import situation_of
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import ONE_WAY, OracleStep, Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.rollouts.shared_play import Action, SharedPlay, expected_observations
from regrpo_jax.stages.online import playing
from regrpo_jax.suites.find import suite_of
from tests.environments.conftest import turn

HERE = Path(__file__).parent


def tasks_of(name: str) -> list[Task]:
    config = base_config()
    config.suite.name, config.tools.builtin = name, ("calculator",)
    return suite_of(config).tasks("train", 3, 0)


@pytest.fixture(scope="module")
def safes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The suite in a folder of a person's own: its world and its tasks are modules apart."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(HERE / "own_world.py", folder / "safe_world.py")
    tasks = (HERE / "own_safes.py").read_text().replace("tests.suites.own_world", "safe_world")
    (folder / "safe_tasks.py").write_text(tasks)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        yield "safe_tasks:make_suite"


@pytest.fixture(scope="module")
def environment(safes: str) -> Iterator[Environment]:
    config = base_config()
    config.suite.name, config.tools.builtin = safes, ("calculator",)
    with playing(config) as made:
        yield made


@pytest.fixture
def task(safes: str) -> Task:
    return tasks_of(safes)[0]


def test_an_episode_fails_learns_why_and_opens_the_safe(environment: Environment, task: Task) -> None:
    assert task.instruction == "Open it.\nA safe. Its dial is at 0."
    with environment.reset(task) as episode:
        failed = episode.step(turn("print(act('pull'))"))
        assert failed.status == Status.TOOL_ERROR and "It stays shut. The lamp blinks" in failed.text
        code = failed.text.partition("blinks ")[2][0]
        assert episode.step(turn(f"print(act('turn {code}'))")).text == f"The dial is at {code}."
        episode.park()
        assert episode.step(turn("print(act('pull'))")).text == "It opens."
        episode.step(turn("final_answer()"))
        assert episode.success


def test_branches_have_worlds_of_their_own(environment: Environment, task: Task) -> None:
    first = turn("print(act('turn 9'))")
    with SharedPlay(environment, [task]) as play:
        assert [one.text for one in play.play([Action(0, (), first)] * 2)] == ["The dial is at 9."] * 2
        actions = [Action(0, (first,), turn(f"print(act('{what}'))")) for what in ("turn 8", "pull", "sing")]
        found = play.play(actions)
    assert [one.status for one in found] == [Status.OK, Status.TOOL_ERROR, Status.TOOL_ERROR]
    assert "The lamp blinks" in found[1].text and 'Say "turn 3" or "pull".' in found[2].text


def test_the_data_engine_takes_its_steps_and_no_policy_has_to(environment: Environment, task: Task, safes: str) -> None:
    config = base_config()
    config.suite.name, config.tools.builtin = safes, ("calculator",)
    tools = suite_of(config).tools
    assert task.metadata[ONE_WAY] is True
    code = json.loads(task.file("world.json"))["code"]
    steps = [OracleStep("go.", told) for told in (f"act('turn {code}')", "act('pull')", "final_answer('done')")]
    solved = replace(task, oracle=tuple(steps))
    situation = situation_of(solved, tools, brief=True)
    assert [one.text for one in play_clean(environment, situation)] == [f"The dial is at {code}.", "It opens.", ""]
    with SharedPlay(environment, [solved]) as play:
        assert expected_observations(play, [solved], [0]) == {0: None}
    wrong = replace(solved, oracle=(steps[1], steps[2]))
    with pytest.raises(Refused, match="clean_step_fails"):
        play_clean(environment, situation_of(wrong, tools, brief=True))


CHEATS = {
    "saying so": "final_answer('done')",
    "looking for the task": (
        "import glob\nfinal_answer(''.join(open(name).read() for name in glob.glob('**', recursive=True)))"
    ),
    "a safe of one's own": ("from safe_world import Safe\nSafe.success = lambda self: True\nfinal_answer('done')"),
    "the tasks": "from safe_tasks import make_tasks\nfinal_answer(list(make_tasks('train')))",
    "another tool": "import regrpo_jax.toolbox.world as world\nworld.NOT_DONE = 'done'\nfinal_answer('done')",
}


@pytest.mark.parametrize("name", CHEATS)
def test_nobody_is_believed_but_the_world(environment: Environment, task: Task, name: str) -> None:
    with environment.reset(task) as episode:
        episode.step(turn(CHEATS[name]))
        assert not episode.success


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_world", "tests.suites.own_world:Broken has no step, success; write a class with"),
        ("answered", '"answer" is not asked for: the world says whether its task is done'),
    ],
)
def test_what_is_no_world_is_told_in_a_line(name: str, words: str) -> None:
    with pytest.raises(UserError) as told:
        tasks_of(f"tests.suites.own_safes:{name}")
    assert words in str(told.value) and "\n" not in str(told.value)
