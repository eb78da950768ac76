"""`python -m regrpo_jax.main --config=configs/toolrepair.py`: the table, the files, and what a person gets wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from regrpo_jax.config.base_config import base_config, declared
from regrpo_jax.config.fields import declared_fields
from regrpo_jax.suites.toolrepair import BASELINES, LOADERS, PROFILES, SPLITS
from regrpo_jax.suites.toolrepair.registry import SURPRISES

ROOT = Path(__file__).resolve().parents[3]
CONFIG = f"--config={ROOT / 'configs' / 'toolrepair.py'}"

MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "policy": (["--config.baselines.policy=orakel"], ["config.baselines.policy", "'never_repairs'"]),
    "profile": (["--config.suite.profile=tiny"], ["config.suite.profile", "'compact' or 'full'"]),
    "split": (["--config.recovery.splits=heldout"], ["config.recovery.splits", "held_out"]),
    "share": (["--config.suite.surprises=2"], ["config.suite.surprises is 2", "between 0 and 1"]),
    "no task": (["--config.recovery.tasks=0"], ["config.recovery.tasks is 0", "at least 1"]),
    "no worker": (["--config.environment.workers=0"], ["config.environment.workers is 0", "at least 1"]),
    "no time": (["--config.environment.wall_seconds=0"], ["config.environment.wall_seconds is 0.0", "above 0"]),
    "difficulty": (["--config.suite.difficulties=(4,)"], ["config.suite.difficulties", "1, 2, 3"]),
    "family": (["--config.suite.families=('moved','lost')"], ["'lost'", "moved, service"]),
    "training": (["--config.stages=('sft','baselines')"], ["config.stages", "'baselines' stands alone"]),
}


def test_choices_are_those_of_the_suite() -> None:
    fields = declared_fields(declared())
    assert set(fields["baselines.policy"].choices) == set(BASELINES)
    assert set(fields["suite.profile"].choices) == set(PROFILES) == set(LOADERS)
    assert set(fields["recovery.splits"].choices) == set(SPLITS)
    assert base_config().suite.surprises == SURPRISES


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "regrpo_jax.main", CONFIG, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_run_prints_the_table_and_writes_its_files_without_jax(tmp_path: Path) -> None:
    done = command(f"--workdir={tmp_path}", "--config.recovery.tasks=18")
    assert done.returncode == 0, done.stderr[-3000:]
    for words in (
        "oracle on 18 tasks of toolrepair, test",
        "100.0%",
        "moved",
        "GroundingDrift",
        "statuses",
        "at worst",
        "dropped",
    ):
        assert words in done.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "ml_collections" in imported and not imported & {"jax", "flax", "torch"}
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 18 and all(line["success"] for line in lines)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["overall"]["success"] == 1 and told["overall"]["dropped"] == 0
    assert sum(told["statuses"].values()) == sum(len(line["steps"]) for line in lines)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["recovery"]["tasks"] == 18
    page = (tmp_path / "episodes.html").read_text(encoding="utf-8")
    assert lines[0]["id"] in page and "<script src" not in page


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told_in_one_sentence(case: str, tmp_path: Path) -> None:
    arguments, words = MISTAKES[case]
    done = command(f"--workdir={tmp_path / 'run'}", *arguments)
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and len(told) == 1 and told[0].startswith("error: "), told
    assert all(word in told[0] for word in words), told
    assert not (tmp_path / "run").exists()
