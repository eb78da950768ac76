"""A public suite as a run: played whole, kept a task at a time, killed and resumed to the same files, and scored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = (
    f"--config={ROOT / 'tests' / 'tiny_config.py'}",
    '--config.stages=("benchmark",)',
    "--config.suite.name=tests.suites.own_benchmark:make_suite",
    "--config.agent.turn_tokens=32",
    "--config.agent.episode_tokens=64",
    "--config.eval.temperature=1.0",
    "--config.played_at_once=2",
)


def command(workdir: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "regrpo_jax.main", f"--workdir={workdir}", *OPTIONS, *options]


def run(workdir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(workdir, *options), capture_output=True, text=True, cwd=ROOT, timeout=600)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    done = run(workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answered" in done.stdout and "score.html" in done.stdout and "no tool is missing" in done.stdout
    return workdir / "benchmark" / "before"


def test_every_task_is_played_and_scored(undisturbed: Path) -> None:
    score = json.loads((undisturbed / "score.json").read_text())
    assert score["figures"][0]["of"] == len(score["records"]) == 5
    tasks = [json.loads(path.read_text()) for path in undisturbed.glob("tasks-episodes/task-*.json")]
    assert {task["id"] for task in tasks} == set(score["records"])
    assert all(task["outcome"] for task in tasks)
    page = (undisturbed / "score.html").read_text()
    assert "&lt;b&gt;odd" in page and "<b>odd" not in page


def test_a_killed_run_goes_on_to_the_same_files(undisturbed: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = tmp_path / "benchmark" / "before" / "tasks-episodes"
    while not list(folder.glob("task-*.json")) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder.parent / "score.json").exists()
    assert run(tmp_path).returncode == 0
    assert files_of(folder.parent) == files_of(undisturbed)


def test_each_question_gets_a_turn_or_says_why_not(tmp_path: Path) -> None:
    done = run(tmp_path, "--config.eval.mode=steps")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "benchmark" / "before"
    played = [json.loads(path.read_text()) for path in sorted(folder.glob("tasks-steps/task-*.json"))]
    assert "1 of 3 could not be asked, or got no turn" in json.loads((folder / "score.json").read_text())["notes"][0]
    assert [one["outcome"] for one in played] == ["asked", "no_prompt", "asked"]
    assert all(one["turns"][0]["text"].startswith("Thought:") for one in played if one["turns"])


def test_a_file_made_elsewhere_is_scored_alone(undisturbed: Path, tmp_path: Path) -> None:
    done = run(tmp_path, f"--config.eval.score_only={undisturbed / 'predictions.jsonl'}")
    assert done.returncode == 0, done.stdout + done.stderr
    scored, played = (json.loads((folder / "score.json").read_text()) for folder in (tmp_path, undisturbed))
    assert scored["figures"] == played["figures"] and scored["records"] == played["records"]
    assert not (tmp_path / "tokenizer").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config.eval.score_only=nowhere.json"], "nowhere.json: cannot be read"),
        (["--config.suite.name=toolrepair"], "which nobody scores"),
        (["--config.suite.name=gta"], "config.suite.path is ''"),
        (['--config.stages=("score",)'], "name one in config.eval.score_only"),
        (["--config.data.prefix_buckets=(16,)"], "no task of the suite can be begun"),
        (["--config.eval.mode=steps", "--config.suite.system=release"], "config.suite.system is 'release'"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tmp_path: Path, options: list[str], words: str) -> None:
    done = run(tmp_path, *options)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_a_server_that_is_away_ends_the_run_and_is_no_failure_of_a_task(tmp_path: Path) -> None:
    away = ["--config.player.server=http://127.0.0.1:9/v1 nobody", "--config.requests.retries=0"]
    done = run(tmp_path, *away, "--config.player.extended=False")
    assert done.returncode == 2 and "127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr
    assert "no_prompt" not in "".join(path.read_text() for path in tmp_path.rglob("task-*.json"))
    assert not list(tmp_path.rglob("score.json"))
