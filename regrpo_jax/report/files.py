"""What a run left in its folder, as far as the report needs it; what is missing leaves a section out, and says why."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.data.rollout_buffer import StoredRollouts
from regrpo_jax.environments.task import TASKS_FILE, Task, read_tasks
from regrpo_jax.errors import UserError
from regrpo_jax.models.gguf_files import is_gguf

SPLITS = ("validation", "test", "held_out")  # at the end of a title: of another split than the first one
BARE = "bare retry"  # in the title of a policy that played without reflections, as a control
Lines = Mapping[str, Sequence[Mapping[str, Any]]]


class LeftOut(Exception):
    """A part of the report that cannot be made; says why, in words for a person."""


class Played(NamedTuple):
    """The episodes of a policy on unseen tasks. tasks: by id; {} where they were not kept."""

    title: str
    groups: list[RolloutGroup]
    tasks: dict[str, Task]


class Update(NamedTuple):
    """The groups that an update of the training learnt from."""

    number: int
    groups: list[RolloutGroup]


def check_run(workdir: Path) -> None:
    """Raises UserError where no run has been."""
    if not workdir.is_dir():
        raise UserError(f"{workdir}: no such folder; name the --workdir of a run")
    wanted = ("config.json", "metrics.jsonl", "recovery.json")
    if not any((workdir / name).exists() for name in wanted):
        raise UserError(f"{workdir}: holds none of {', '.join(wanted)}; name the --workdir of a run")


def read_record(workdir: Path) -> dict[str, Any]:
    """`config.json`: "config", "versions" and "commit". LeftOut."""
    record = _read_json(workdir / "config.json", "the configuration was not recorded")
    if not isinstance(record.get("config"), dict):
        raise LeftOut("config.json holds no configuration")
    return record


def read_metrics(workdir: Path) -> Lines:
    """The lines of `metrics.jsonl` by stage, in the order of the file; what a crash cut short is skipped. LeftOut."""
    path = workdir / "metrics.jsonl"
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LeftOut(f"metrics.jsonl cannot be read ({_reason(error)})") from error
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for text in texts:
        line = _line(text)
        if line is not None:
            lines.setdefault(line["stage"], []).append(line)
    if not lines:
        raise LeftOut("metrics.jsonl holds no line yet")
    return lines


def read_recovery(workdir: Path) -> dict[str, dict[str, Any]]:
    """`recovery.json`: title of a policy -> its numbers, in the order of the run. LeftOut."""
    told = _read_json(workdir / "recovery.json", "no policy played the unseen tasks; the stage recovery does that")
    policies = {title: numbers for title, numbers in told.items() if isinstance(numbers, dict)}
    if not policies:
        raise LeftOut("recovery.json names no policy")
    return policies


def read_replay(workdir: Path) -> dict[str, dict[str, Any]]:
    """`evaluation.json`: title of a policy -> its `evaluation.report.replay_metrics`, in their order. LeftOut."""
    told = _read_json(workdir / "evaluation.json", "no records were replayed; the stage eval does that")
    overall = {title: column.get("overall") for title, column in told.items() if isinstance(column, dict)}
    columns = {title: values for title, values in overall.items() if isinstance(values, dict)}
    if not columns:
        raise LeftOut("evaluation.json names no policy")
    return columns


def read_played(workdir: Path, title: str) -> Played:
    """The episodes of one policy of `recovery.json`. LeftOut."""
    folder = workdir / "recovery" / slug(title)
    path = folder / "groups.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            groups = [RolloutGroup.from_json(json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LeftOut(f"the episodes of {title!r} cannot be read ({_reason(error)})") from error
    if not groups:
        raise LeftOut(f"{title!r} played no episode")
    return Played(title, groups, _tasks(folder))


def read_updates(workdir: Path) -> list[Update]:
    """What the first and the last update of the online stage learnt from. LeftOut."""
    if not any((workdir / "rollouts").glob("rollouts-*.jsonl")):
        raise LeftOut("no rollouts of the training were kept; the online stage does that")
    try:
        stored = StoredRollouts(workdir / "rollouts")
        numbers = sorted(stored.updates)
        if not numbers:
            raise LeftOut("no update was written down in rollouts/")
        return [Update(number, stored.update(number)) for number in dict.fromkeys((numbers[0], numbers[-1]))]
    except (OSError, UserError, ValueError, KeyError, TypeError) as error:
        raise LeftOut(f"rollouts of the training cannot be read ({_reason(error)})") from error


def read_tokenizer(workdir: Path) -> Any:
    """The run's tokenizer, from `tokenizer/` or the checkpoint that it started from. LeftOut."""
    folder = workdir / "tokenizer"
    if not folder.is_dir():
        try:
            path = read_record(workdir)["config"].get("model", {}).get("path", "")
        except LeftOut:
            path = ""
        folder = Path(path) if path else folder
    if not folder.is_dir() and not is_gguf(folder):
        raise LeftOut("the run has no tokenizer folder, so that tokens cannot be shown as text")
    from transformers import PreTrainedTokenizerFast  # takes seconds to import, and only this section needs it

    from regrpo_jax.data.tokenizer import load_tokenizer

    try:
        if is_gguf(folder):
            return load_tokenizer(folder)
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a damaged tokenizer file may end in an error of any type
        raise LeftOut(f"the tokenizer in {folder.name}/ cannot be read ({_reason(error)})") from error


def slug(title: str) -> str:
    """The folder of a policy, as the stage `recovery` names it."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether JSON holds a finite number there."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tasks(folder: Path) -> dict[str, Task]:
    """Kept by each policy, or once for all of them."""
    for place in (folder / "tasks", folder.parent / "tasks"):
        if (place / TASKS_FILE).exists():
            try:
                return {task.id: task for task in read_tasks(place)}
            except UserError:
                return {}
    return {}


def _read_json(path: Path, absent: str) -> dict[str, Any]:
    if not path.exists():
        raise LeftOut(f"there is no {path.name}: {absent}")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LeftOut(f"{path.name} cannot be read ({_reason(error)})") from error
    if not isinstance(told, dict):
        raise LeftOut(f"{path.name} is not a JSON object")
    return told


def _line(text: str) -> Mapping[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(line, dict) and isinstance(line.get("stage"), str) and isinstance(line.get("step"), int)
    return line if whole else None


def _reason(error: Exception) -> str:
    words = str(error.strerror if isinstance(error, OSError) and error.strerror else error).strip()
    return words.split("\n")[0] or type(error).__name__
