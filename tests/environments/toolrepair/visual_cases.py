"""Visual tasks and what their tools draw, without a sandbox: an action is one call of a tool, made here."""

from __future__ import annotations

from pathlib import Path

from regrpo_jax.environments.task import Task
from regrpo_jax.suites.toolrepair import make_task, visual_families
from regrpo_jax.suites.toolrepair_tools.compact_toolset import load_compact_tools
from regrpo_jax.suites.toolrepair_tools.full_toolset import load_full_tools
from regrpo_jax.toolbox import behind

TOOLS = {"compact": load_compact_tools(), "full": load_full_tools()}
COUNTS = {"compact": 80, "full": 18}  # tasks of a family and a split
VISUAL = [(profile, family) for profile in TOOLS for family in visual_families(profile)]


def tasks_of(profile: str, family: str, split: str, count: int, surprises: float = 0.6) -> list[Task]:
    """Difficulties in turn."""
    return [make_task(family, split, seed, 1 + seed % 3, profile, surprises=surprises) for seed in range(count)]


def put(task: Task, folder: Path) -> None:
    """The task's files into the workspace and behind the tools; what was there is removed."""
    for old in folder.iterdir():
        old.unlink()
    for file in task.files:
        if not file.behind:
            (folder / file.name).write_bytes(file.content)
    behind.install({file.name: file.content for file in task.files if file.behind})


def drawn(task: Task, code: str, folder: Path) -> tuple[str, bytes]:
    """What an action returns, and the content of the file of that name. The folder is the current one."""
    profile = task.id.split("/")[1]
    told = eval(code, {name: TOOLS[profile][name] for name in task.tools})
    return told, (folder / told).read_bytes()
