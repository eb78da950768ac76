"""The data and audit stages as a person starts them: the same corpus from any number of workers and after any kill."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.data.corpus import load_corpus
from regrpo_jax.engine.shards import write_shards
from regrpo_jax.records import load_clean, load_rot
from regrpo_jax.run.corpus_files import CORPUS, TASKS
from tests import tiny_config
from tests.engine.openai_server import Body, Script, openai_server, question

ROOT = Path(__file__).parents[2]
RECORDS = 60
KILLS = 10
COMMON = (f"--config.engine.records={RECORDS}", "--config.engine.clean=12")


def command(workdir: Path, *options: str) -> list[str]:
    config = ROOT / "configs" / "build_rot.py"
    return [sys.executable, "-m", "regrpo_jax.main", f"--config={config}", f"--workdir={workdir}", *COMMON, *options]


def run(workdir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(workdir, *options), capture_output=True, text=True, cwd=ROOT, timeout=900)


def digests(folder: Path) -> dict[str, str]:
    """Every file of a corpus by name and content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with two workers, audited and replayed."""
    workdir = tmp_path_factory.mktemp("whole")
    done = run(workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"replay: {RECORDS} of {RECORDS} records come out as they were written" in done.stdout
    return workdir


def test_the_corpus_is_what_was_asked_for(whole: Path) -> None:
    told = json.loads((whole / "summary.json").read_text())
    assert told["got"] == told["asked"]
    assert told["executed"] == told["records"] == RECORDS
    rot = load_rot(whole / CORPUS / "rot-*.jsonl", on_bad_record="fatal")
    clean = load_clean(whole / CORPUS / "clean-*.jsonl", on_bad_record="fatal")
    assert (len(rot), len(clean)) == (RECORDS, 12)
    assert all(step.observation is None or step.observation.status == "ok" for one in clean for step in one.steps)
    assert len(list((whole / CORPUS).glob("rot-*-of-00001.jsonl"))) == 1
    assert (whole / "summary.png").stat().st_size > 10_000


def test_training_reads_it(whole: Path) -> None:
    config = tiny_config.get_config()
    config.data.rot, config.data.clean = (str(whole / CORPUS / f"{name}-*.jsonl") for name in ("rot", "clean"))
    corpus = load_corpus(config, needs_clean=True)
    assert (len(corpus.rot), len(corpus.clean)) == (RECORDS, 12)


def test_one_worker_writes_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "--config.environment.workers=1", '--config.stages=("data",)')
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / CORPUS) == digests(whole / CORPUS)
    assert (tmp_path / "rejects.jsonl").read_bytes() == (whole / "rejects.jsonl").read_bytes()


def test_killed_ten_times_it_still_ends_with_the_same_corpus(whole: Path, tmp_path: Path) -> None:
    rng, journal = random.Random(4), tmp_path / "journal.jsonl"
    kills = 0
    for number in range(KILLS):
        target = (number + rng.random()) * RECORDS / KILLS
        process = subprocess.Popen(
            command(tmp_path, '--config.stages=("data",)'), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and _lines(journal) < target:
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= KILLS - 1  # the last one may come too late
    done = run(tmp_path, '--config.stages=("data",)')
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / CORPUS) == digests(whole / CORPUS)
    ids = [json.loads(line)["id"] for path in (tmp_path / CORPUS).glob("rot-*") for line in path.open()]
    assert len(set(ids)) == RECORDS


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_second_start_has_nothing_to_do_and_another_corpus_is_refused(whole: Path) -> None:
    before = digests(whole / CORPUS)
    again = run(whole, '--config.stages=("data",)')
    assert again.returncode == 0 and "data: complete" in again.stdout
    other = run(whole, '--config.stages=("data",)', "--config.engine.natural=0.1")
    assert other.returncode == 2 and "engine.natural" in other.stderr and "Traceback" not in other.stderr
    assert digests(whole / CORPUS) == before


def _changed(record: dict[str, Any], how: str) -> dict[str, Any]:
    steps = record["execution"]["steps"]
    if how == "observation":
        failed = record["execution"]["failed_step"]
        steps[failed]["observation_sha256"] = "0" * 64
    elif how == "status":
        steps[0]["status"] = "timeout"
    elif how == "task":
        record["execution"]["task"] = "toolrepair/compact/moved/train/1/1"
    return record


@pytest.mark.parametrize("how", ["observation", "status", "task"])
def test_the_replay_notices_what_was_changed(whole: Path, tmp_path: Path, how: str) -> None:
    shutil.copytree(whole / CORPUS, tmp_path / CORPUS)
    path = tmp_path / CORPUS / "rot-00000-of-00001.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[3] = _changed(records[3], how)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    only = tmp_path / CORPUS / "rot-*.jsonl"
    done = run(tmp_path, '--config.stages=("audit",)', f"--config.data.rot={only}")
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    differing = json.loads((tmp_path / "audit.json").read_text())["replay"]["differing"]
    assert list(differing) == [records[3]["id"]]
    assert differing[records[3]["id"]][-1].startswith(f"replay_{how}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--config.data.source=nowhere.json",), "config.data.source is 'nowhere.json'"),
        (("--config.data.source=",), "config.data.source is ''"),
        (('--config.stages=("audit",)', "--config.data.rot=nowhere-*.jsonl"), "no file matches"),
        (('--config.stages=("audit",)', "--config.data.source="), "config.data.rot is empty"),
        (('--config.stages=("audit", "data")',), "'data' comes before 'audit'"),
        (("--config.engine.error_types=ArgInvalid=2.0",), "engine.error_types"),
        (("--config.engine.teacher=reflections",), "teacher.server"),
    ],
)
def test_a_persons_mistakes_are_told_in_one_line(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    done = run(tmp_path, *options)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr


def test_a_missing_shard_is_noticed(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / CORPUS, tmp_path / CORPUS)
    (path,) = (tmp_path / CORPUS).glob("rot-*.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    write_shards(tmp_path / CORPUS, "rot", records, per_shard=25)[1].unlink()
    done = run(tmp_path, '--config.stages=("audit",)', f"--config.data.rot={tmp_path / CORPUS}/rot-*.jsonl")
    assert done.returncode == 2 and "2 shards match but there must be 3" in done.stderr
    assert (tmp_path / CORPUS / TASKS).exists()


def _faulty(body: Body, number: int) -> str:
    """Every third question is refused, the others fail once and are then answered."""
    kind = int(hashlib.sha256(question(body).encode()).hexdigest(), 16) % 3
    return "refusal" if kind == 0 else ("429 wait", "500")[kind - 1] if number == 0 else "answer"


def test_a_teacher_behind_a_faulty_server_writes_the_reflections(tmp_path: Path) -> None:
    key = "sk-this-must-not-be-seen"
    with openai_server(Script(behaviour=_faulty)) as server:
        options = ("--config.engine.teacher=reflections", f"--config.teacher.server={server.url} told TEACHER_KEY",
                   "--config.teacher.requests_per_minute=6000", "--config.engine.records=8",
                   "--config.engine.clean=0")  # fmt: skip
        done = subprocess.run(
            command(tmp_path, *options), capture_output=True, text=True, cwd=ROOT, timeout=900,
            env=os.environ | {"TEACHER_KEY": key},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for path in (tmp_path / CORPUS).glob("rot-*") for line in path.open()]
    assert len(records) == 8
    assert {record["execution"]["annotator"] for record in records} == {"teacher:told"}
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").open()]
    assert any("teacher_refusal" in reject["rules"] for reject in rejects)
    assert "teacher: " in done.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert key not in done.stdout + done.stderr
    assert not any(key.encode() in path.read_bytes() for path in files)
