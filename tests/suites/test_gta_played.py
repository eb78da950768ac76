"""GTA's dialogs played in the sandbox: recorded answers are marked for host and policy, and no action can read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from regrpo_jax.engine.cases import NearMiss
from regrpo_jax.engine.execute import Refused, play_clean, play_failure
from regrpo_jax.engine.task_source import task_source
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import ErrorType, Status
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.gta.suite import GtaSuite
from regrpo_jax.toolbox.remote_tools import Endpoint
from regrpo_jax.toolbox.toolset import ToolsetSettings
from tests.suites import gta_samples as samples
from tests.toolbox.model_server import Models, serving

PLAYED = ("0", "66", "150", "226")
SANDBOX = SandboxSettings(workers=2, wall_seconds=30.0)


def started(suite: GtaSuite) -> Environment:
    tools = suite.tools
    sandbox = replace(SANDBOX, hidden=tools.hidden)
    return Environment.start(sandbox, tools.settings, EpisodeLimits(max_steps=8), loader=tools.loader)


def picture(place: Path) -> None:
    """White with a red square, which the detector of the tests finds."""
    place.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (48, 32), "white")
    ImageDraw.Draw(image).rectangle((10, 10, 19, 19), fill="red")
    image.save(place, "PNG")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> GtaSuite:
    records = {name: record for name, record in samples.dataset().items() if name in PLAYED}
    return GtaSuite(samples.folder(tmp_path_factory.mktemp("gta"), records), ToolsetSettings())


@pytest.fixture(scope="module")
def environment(suite: GtaSuite) -> Iterator[Environment]:
    with started(suite) as found:
        yield found


def turn(code: str) -> str:
    return f"Thought: go on.\n\nCode:\n```py\n{code}\n```"


def task(suite: GtaSuite, record: str) -> Task:
    (found,) = [one for one in suite.all_tasks() if one.id == f"gta/{record}"]
    return found


def played(environment: Environment, task: Task) -> Episode:
    with environment.reset(task) as episode:
        for step in task.oracle:
            episode.step(step.turn())
    return episode


@pytest.mark.parametrize("record", PLAYED)
def test_a_recorded_dialog_solves_its_task(suite: GtaSuite, environment: Environment, record: str) -> None:
    episode = played(environment, task(suite, record))
    assert [step.observation.status for step in episode.steps if step.observation] == [Status.OK] * len(episode.steps)
    assert episode.success


def test_what_was_recorded_is_told_so_to_the_policy_and_to_the_host(suite: GtaSuite, environment: Environment) -> None:
    episode = played(environment, task(suite, "66"))  # MathOCR is recorded, Solver and Plot run
    marked = [step.observation is not None and "[recorded: " in step.observation.text for step in episode.steps]
    assert marked == [True, False, False, False]
    told = [run.result.startswith("[recorded: ") for runs in episode.tool_runs for run in runs]
    assert told == marked
    assert [run.name for runs in episode.tool_runs for run in runs] == ["MathOCR", "Solver", "Plot", "final_answer"]


def test_an_action_cannot_unmark_a_call_for_the_host(suite: GtaSuite, environment: Environment) -> None:
    code = (
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n"
        "    found = CountGivenObject(image='image/image_1.jpg', text='beer')\nprint(found)"
    )
    with environment.reset(task(suite, "0")) as episode:
        observation = episode.step(turn(code))
    assert observation.text.strip().endswith("2")
    assert episode.tool_runs[0][0].result.startswith("[recorded: CountGivenObject")


def test_no_action_can_read_what_was_recorded(suite: GtaSuite, environment: Environment) -> None:
    code = (
        "import os, gc\nfrom regrpo_jax.toolbox import behind\n"
        "names = [os.path.join(place, name) for place, _, found in os.walk('.') for name in found]\n"
        f"print(behind.names(), names, os.path.exists({str(suite.path)!r}), 'recordings' in str(globals()))"
    )
    with environment.reset(task(suite, "0")) as episode:
        observation = episode.step(turn(code))
    assert observation.text.strip() == "[] [] False False"


def test_episodes_of_two_records_share_nothing(suite: GtaSuite, environment: Environment) -> None:
    asked = turn("print(CountGivenObject(image='image/image_1.jpg', text='beer'))")
    with environment.reset(task(suite, "0")) as first, environment.reset(task(suite, "66")) as second:
        assert first.step(asked).status == Status.OK
        assert second.step(asked).status == Status.INVALID_ACTION  # it has no such tool
        other = second.step(turn("print(MathOCR(image='image/image_1.jpg'))"))
        assert other.status == Status.TOOL_ERROR and "File not found" in other.text
        dummy = turn("print(AddText(image='dummy_generated_image.jpg', text='x', position='lt'))")
        with environment.reset(task(suite, "150")) as third:
            assert "none has made a picture yet" in third.step(dummy).text


def test_a_model_answers_where_the_picture_is_here_and_the_recording_where_it_is_not(
    suite: GtaSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {name: record for name, record in samples.dataset().items() if name == "0"}
    place = samples.folder(tmp_path / "gta", found)
    picture(place / "image" / "image_2.jpg")
    models = Models()
    monkeypatch.setattr("regrpo_jax.toolbox.remote_tools._FIRST_WAIT", 0.001)
    with serving(models) as address:
        with_model = GtaSuite(place, ToolsetSettings(detect=Endpoint(f"{address}/detect")))
        (only,) = with_model.all_tasks()
        with started(with_model) as environment, environment.reset(only) as episode:
            here = episode.step(turn("print(CountGivenObject(image='image/image_2.jpg', text='red'))"))
            gone = episode.step(turn("print(CountGivenObject(image='image/image_1.jpg', text='beer'))"))
    assert here.text.strip() == "1" and len(models.seen) == 1
    assert gone.text.strip().splitlines()[-1] == "2" and gone.text.startswith("[recorded: ")


def test_the_data_engine_takes_the_dialogs_and_no_failure_that_is_only_unrecorded(
    suite: GtaSuite, environment: Environment
) -> None:
    source = task_source(suite, "test", seed=0)
    (first,) = [one for one in source.situations if one.task.id == "gta/66" and one.index == 0]
    assert len(play_clean(environment, first)) == 4
    unknown = "print(Solver(command='x**2 - = 4'))"
    failure = play_failure(
        environment, replace(first, index=1), NearMiss(ErrorType.ARG_INVALID, "test", "go.", unknown)
    )
    assert failure.failed.status == Status.TOOL_ERROR and failure.answered
    (beer,) = [one for one in source.situations if one.task.id == "gta/0" and one.index == 2]
    bottles = "print(CountGivenObject(image='image/image_1.jpg', text='bottles'))"
    with pytest.raises(Refused, match="near_miss_unrecorded"):
        play_failure(environment, beer, NearMiss(ErrorType.GROUNDING_DRIFT, "test", "go.", bottles))
