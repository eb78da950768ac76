"""What was played of a public suite, a file a task, so that a run which was stopped goes on and anybody can look."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regrpo_jax.agent.rollout import Rollout
from regrpo_jax.errors import UserError
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.suites.benchmark import PlayedCall, PlayedTask, PlayedTurn


def played_of(rollout: Rollout) -> PlayedTask:
    """An episode, as its suite is told of it."""
    turns = tuple(
        PlayedTurn(
            turn.text,
            "" if turn.status is None else str(turn.status),
            turn.observation,
            tuple(PlayedCall(call.name, str(call.status), call.arguments, call.result) for call in turn.calls),
        )
        for turn in rollout.turns
    )
    answer = rollout.answer if rollout.outcome == "answered" else None
    return PlayedTask(rollout.task_id, turns, answer, rollout.outcome, rollout.success, rollout.error)


@dataclasses.dataclass(frozen=True)
class PlayedFolder:
    """The files of one policy in one mode."""

    folder: Path

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Keeps what is there if it was come by in this very way, and forgets it otherwise."""
        path = self.folder / "identity.json"
        if path.exists() and _read(path) == identity:
            return
        for old in self._tasks():
            old.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(identity, indent=2, sort_keys=True) + "\n")

    def keep(self, played: PlayedTask) -> None:
        """Writes one down."""
        replace_text(
            self.path_of(played.id), json.dumps(dataclasses.asdict(played), ensure_ascii=False, indent=1) + "\n"
        )

    def has(self, names: Iterable[str]) -> bool:
        """Whether all of these were played."""
        return all(self.path_of(name).exists() for name in names)

    def read(self, name: str) -> PlayedTask:
        """What was played of a task. UserError where its file is no longer as it was written."""
        path = self.path_of(name)
        try:
            told = _read(path)
            turns = tuple(
                PlayedTurn(**{**turn, "calls": tuple(PlayedCall(**call) for call in turn["calls"])})
                for turn in told.pop("turns")
            )
            return PlayedTask(turns=turns, **told)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not as this program wrote it ({error}); remove it to play again") from error

    def path_of(self, name: str) -> Path:
        """The file of a task."""
        return self.folder / f"task-{quote(name, safe='')}.json"

    def _tasks(self) -> list[Path]:
        return sorted(self.folder.glob("task-*.json"))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read any more ({error}); remove it to play again") from error
