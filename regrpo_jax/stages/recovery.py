"""The stage `recovery`: the policy plays unseen tasks over real tools, wherever the config's list of stages says so.

workdir/recovery.json                 the numbers of every policy that was played, with 95 % intervals
workdir/recovery/POLICY/tasks.jsonl   what each task adds to them, for `regrpo_jax.evaluation.compare`
workdir/recovery/POLICY/groups.jsonl  the episodes, token by token
workdir/recovery/POLICY/results.jsonl the episodes as the data engine reads them, with tasks/ beside it: the policy's
                                      own failures become RoT records with --config.data.source=workdir/recovery/POLICY
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrpo_jax.agent.policy import Policy
from regrpo_jax.agent.rollout import Rollout, RolloutGroup
from regrpo_jax.config.servers import server_of
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.engine.episode_source import RESULTS_FILE, TASKS_FOLDER
from regrpo_jax.engine.tool_shapes import shapes_of
from regrpo_jax.environments.task import Task, write_tasks
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.compare import ROWS_FILE, print_comparison, read_rows
from regrpo_jax.evaluation.recovery_metrics import Row, grouped, intervals, lost_row, row_of
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics, rollouts_of
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.report.files import slug
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.players import Player
from regrpo_jax.run.run import Run
from regrpo_jax.stages.online import collect_settings, playing
from regrpo_jax.stages.table import title_of
from regrpo_jax.suites.find import suite_of
from regrpo_jax.training.loop import RunFolder
from regrpo_jax.training.metrics import StageProgress

FOLDER, NUMBERS, GROUPS_FILE = "recovery", "recovery.json", "groups.jsonl"
BARE = ", bare retry"
_NO_MATTER = ("bare_control", "splits")  # what else is played cannot change the numbers


def run(run: Run) -> None:
    """Plays the policy as it stands, or takes the numbers of an earlier start."""
    played = run.played
    measure = run.measure("recovery", lambda: RecoveryEvaluation(played.context, played.player, played.reader))
    measure.measure(played.variables, run.trained)


class RecoveryEvaluation:
    """Policies played so far; kept in the workdir, so that a second start need not play again."""

    def __init__(self, context: RunFolder, player: Player, reader: ConversationReader | None) -> None:
        self._context, self._player, self._reader = context, player, reader
        self._numbers: dict[str, dict[str, Any]] = {}

    def measure(self, variables: dict[str, Any], trained: Mapping[str, int]) -> None:
        """Plays a policy, or takes the numbers of an earlier start.

        Args:
          trained: the stages that made it, in order, and their updates.
        Raises:
          UserError: the suite cannot be played.
        """
        config = self._context.config
        for split in config.recovery.splits:
            title = self._title(trained) + self._suffix(split)
            self._play(title, split, variables, trained, config.online.algorithm)
            if config.recovery.bare_control and config.online.algorithm != "grpo":
                self._play(title + BARE, split, variables, trained, "grpo")

    def print_tables(self) -> None:
        """What a run ends with, split by split."""
        folder = self._context.workdir / FOLDER
        for split in self._context.config.recovery.splits:
            titles = [title for title, numbers in self._numbers.items() if numbers["split"] == split]
            if titles:
                print_comparison({title: [read_rows(folder / slug(title))] for title in titles}, f"{split} split")

    def _suffix(self, split: str) -> str:
        return "" if split == self._context.config.recovery.splits[0] else f", {split}"

    def _title(self, trained: Mapping[str, int]) -> str:
        if not trained:
            return "before"
        return f"after {title_of(list(trained)[-1], self._context.config.online.algorithm)}"

    def _play(
        self, title: str, split: str, variables: dict[str, Any], trained: Mapping[str, int], algorithm: str
    ) -> None:
        context, config = self._context, self._context.config.copy_and_resolve_references()
        config.online.algorithm = algorithm
        chosen = config.recovery
        tasks = suite_of(config).tasks(split, chosen.tasks, chosen.seed)
        settings = collect_settings(config, context.workdir, self._reader, branches=chosen.episodes)
        identity = {**trained, "algorithm": algorithm, "played": played_digest(config, tasks, settings)}
        path, folder = context.workdir / NUMBERS, context.workdir / FOLDER / slug(title)
        earlier = _read(path)
        if earlier.get(title, {}).get("identity") == identity and (folder / ROWS_FILE).exists():
            self._numbers[title] = earlier[title]
            return
        print(f"recovery: {len(tasks)} tasks of the {split} split x {chosen.episodes} episodes, {title}", flush=True)
        policy = self._player(variables, version=trained.get("online", 0), temperature=chosen.temperature)
        groups = self._groups(config, policy, tasks, settings)
        rows = rows_of(tasks, groups, chosen.episodes)
        write_episodes(folder, tasks, groups, rows)
        lost = (len(tasks) - len(groups)) * chosen.episodes
        metrics = rollout_metrics(rollouts_of(groups), lost=lost)
        suite = tasks_digest(tasks)
        numbers = {"identity": identity, "split": split, "suite": suite, "metrics": metrics, **_numbers(rows)}
        self._numbers[title] = numbers
        step = sum(trained.values())
        values = {name: value for name, value in numbers["metrics"].items() if value is not None}
        stage = "recovery" + ("_bare" if title.endswith(BARE) else "") + self._suffix(split).replace(", ", "_")
        context.writer.drop_after(stage, step - 1)
        context.writer.write(stage, step, values)
        replace_text(path, json.dumps(comparable(earlier, split, suite) | self._numbers, indent=2) + "\n")

    def _groups(
        self, config: Any, policy: Policy, tasks: Sequence[Task], settings: CollectSettings
    ) -> list[RolloutGroup]:
        """Those of the tasks that could begin; the others are named."""
        chosen = config.recovery
        groups: list[RolloutGroup] = []
        with playing(config) as environment, StageProgress("recovery", len(tasks)) as progress:
            for start in range(0, len(tasks), config.played_at_once):
                part = tasks[start : start + config.played_at_once]
                found, counts = collect_groups(environment, policy, part, settings, seed=chosen.seed, first_group=start)
                groups += found
                for words in counts.refused:
                    print(f"recovery: {words}; its episodes are counted as dropped", flush=True)
                progress.advance(len(part))
        return groups


def played_digest(config: Any, tasks: Sequence[Task], settings: CollectSettings) -> str:
    """SHA-256 of all that numbers stand on beside the policy: tasks, prompt, tools (what they say and do), settings.

    Numbers of another digest are of other tasks, or were come by in another way, and are never shown for these.
    """
    player = config.player
    told = {
        "tasks": tasks_digest(tasks),
        "prompts": sorted({settings.system_text(task) for task in tasks}),
        "tools": {name: shape.version for name, shape in shapes_of(suite_of(config).tools.loaded).items()},
        "loop": vars(settings.loop),
        "wall_seconds": config.environment.wall_seconds,
        "agent": config.agent.to_dict(),
        "recovery": {field: value for field, value in config.recovery.items() if field not in _NO_MATTER},
        "player": [*server_of(player.server)[:2], player.extended] if player.server else [],  # whatever its key
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def comparable(earlier: Mapping[str, Mapping[str, Any]], split: str, suite: str) -> dict[str, Any]:
    """The numbers of an earlier start that may stand beside those of these tasks of this split: of the same ones."""
    return {
        title: numbers
        for title, numbers in earlier.items()
        if numbers.get("split") not in (split, None) or numbers.get("suite") == suite
    }


def tasks_digest(tasks: Sequence[Task]) -> str:
    """SHA-256 of tasks with all that they hold."""
    return hashlib.sha256("".join(map(_content_of, tasks)).encode()).hexdigest()


def _content_of(task: Task) -> str:
    """SHA-256 of a task with the contents of its files."""
    told = json.dumps(task.to_json(keep=lambda file: None), sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def rows_of(tasks: Sequence[Task], groups: Sequence[RolloutGroup], episodes: int) -> list[Row]:
    """A row for each task, also for one that could not begin; "content" tells tasks of one id apart."""
    played = {group.task_id: row_of(group) for group in groups}
    return [{**(played.get(task.id) or lost_row(task, episodes)), "content": _content_of(task)[:16]} for task in tasks]


def _numbers(rows: Sequence[Row]) -> dict[str, Any]:
    told: dict[str, Any] = {"intervals": intervals([rows])}
    for key, name in (("family", "families"), ("error_type", "error_types")):
        told[name] = {
            part: {"tasks": len(own), "intervals": intervals([own])} for part, own in grouped(rows, key).items()
        }
    return told


def write_episodes(folder: Path, tasks: Sequence[Task], groups: Sequence[RolloutGroup], rows: Sequence[Row]) -> None:
    """What was played, for the data engine, for the report and for comparisons; the rows last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tasks(tasks, folder / TASKS_FOLDER)
    _write_lines(folder / GROUPS_FILE, (group.to_json() for group in groups))
    _write_lines(folder / RESULTS_FILE, (result_of(one) for one in rollouts_of(groups) if not one.dropped))
    _write_lines(folder / ROWS_FILE, rows)


def result_of(rollout: Rollout) -> dict[str, Any]:
    """An episode as a line of results.jsonl, as far as `engine.episode_source` reads it."""
    steps = [
        {"text": turn.text, "status": str(turn.status), "observation": turn.observation, "fell": turn.fell}
        for turn in rollout.turns
        if turn.status is not None
    ]
    return {"id": rollout.task_id, "success": rollout.success, "outcome": rollout.outcome, "steps": steps}


def _write_lines(path: Path, lines: Sequence[Any] | Iterator[Any]) -> None:
    replace_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON any more; remove it to play again") from error
