"""Environments of others as suites: OpenEnv's as a world, verifiers' tasks and rewards.

The adapter of OpenEnv knows of its interface alone, models of pydantic, so it is tested on such; the examples are
played where the libraries are installed.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from regrpo_jax.environments.own_check import own_check
from regrpo_jax.toolbox.openenv_world import OpenEnvWorld
from regrpo_jax.toolbox.world import new_world

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")
    way: Literal["up", "down"]
    metadata: dict[str, Any] = {}


class Guess(BaseModel):
    low: int = Field(ge=0)
    high: int


class Seen(BaseModel):
    text: str = ""
    level: int | None = None
    error: str | None = None
    done: bool = False
    reward: float | None = None
    metadata: dict[str, Any] = {}


class Stairs:
    """Two steps up; `reset` draws where it begins from the global generator, as many environments do."""

    def reset(self, top: int = 2) -> Seen:
        self.top, self.level, self.drawn = top, 0, random.random()
        return Seen(text="at the foot")

    def step(self, action: Move) -> Seen:
        if action.way == "down":
            return Seen(text="at the foot", metadata={"error": "there is no cellar"})
        self.level += 1
        top = self.level == self.top
        return Seen(text="on the way", level=self.level, done=top, reward=float(top))


class StairsWorld(OpenEnvWorld):
    environment, action = Stairs, Move


class Range(OpenEnvWorld):
    environment, action = Stairs, Guess


def test_an_episode_of_an_environment() -> None:
    world = StairsWorld()
    assert world.reset({"top": 2}) == "at the foot" and not world.success()
    assert world.step("up") == '{"text": "on the way", "level": 1}' and not world.success()
    with pytest.raises(ValueError, match="there is no cellar"):
        world.step('{"way": "down"}')
    assert world.step('{"way": "up"}').endswith("The episode is over: call final_answer.") and world.success()
    with pytest.raises(ValueError, match="is over"):
        world.step("up")
    assert world.success()


@pytest.mark.parametrize(
    ("world", "action", "words"),
    [
        (StairsWorld, "left", "No such action: way Input should be 'up' or 'down'"),
        (StairsWorld, '{"way": "up", "far": 1}', "far Extra inputs are not permitted"),
        (StairsWorld, "{up", "Invalid JSON"),
        (Range, "3", "No such action: .*object"),
        (Range, '{"low": -1}', "low Input should be greater.*; high Field required"),
    ],
)
def test_what_is_no_action_says_what_one_is(world: type[OpenEnvWorld], action: str, words: str) -> None:
    made = world()
    made.reset({})
    with pytest.raises(ValueError, match=words) as caught:
        made.step(action)
    assert "\n" not in str(caught.value)


def test_the_same_task_draws_the_same() -> None:
    def drawn(task: Mapping[str, int]) -> float:
        world = StairsWorld()
        world.reset(dict(task))
        return world.inside.drawn

    assert drawn({"top": 2}) == drawn({"top": 2}) != drawn({"top": 3})


def test_the_example_of_openenv(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openenv")
    monkeypatch.syspath_prepend(EXAMPLES / "openenv")
    world = new_world("openenv_lift:Lift")
    assert world.reset({"floor": 4, "wanted": 5}) == 'It is at "4", wanted at "5".'
    with pytest.raises(ValueError, match="wrong floor"):
        world.step("open")
    assert [world.step("up"), world.step("open")[:9]] == ['It is at "5", wanted at "5".', "It opens."]
    assert world.success()


def test_the_example_of_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("verifiers", minversion="0.4")
    monkeypatch.syspath_prepend(EXAMPLES / "verifiers")
    import till_suite

    task = next(iter(till_suite.make_suite().tasks("test")))
    right = int(task["steps"][-1].removeprefix("final_answer(").removesuffix(")"))
    assert own_check(task["check"], right, None) and not own_check(task["check"], right + 1, None)  # type: ignore[arg-type]
