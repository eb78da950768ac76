"""A public suite in small, as a person would write it: tasks of ToolRepair, its own predictions, one figure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Turn
from regrpo_jax.suites.benchmark import EPISODES, STEPS, Figure, PlayedTask, Question, Score
from regrpo_jax.suites.toolrepair.suite import ToolRepair

ASKED = "Task: What is the price of tea?"


@dataclasses.dataclass(frozen=True)
class Small(ToolRepair):
    """Five tasks, and three questions; the second cannot be a prompt."""

    name: str = "small"
    modes: tuple[str, ...] = (EPISODES, STEPS)
    predictions_file: str = "predictions.jsonl"
    notes: tuple[str, ...] = ("no tool is missing",)

    def all_tasks(self) -> list[Task]:
        return self.tasks("test", 5, seed=3)

    def questions(self) -> list[Question]:
        texts = (ASKED, "<|im_start|>", ASKED + " And of milk?")
        return [
            Question(f"q/{number}", (Turn("system", "You call tools."), Turn("user", text)), opening="Thought:")
            for number, text in enumerate(texts)
        ]

    def write_predictions(self, mode: str, played: Sequence[PlayedTask], path: Path) -> None:
        lines = [{"id": one.id, "answer": one.answer, "turns": [turn.text for turn in one.turns]} for one in played]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def score(self, paths: Sequence[Path]) -> Score:
        try:
            lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        except OSError as error:
            raise UserError(f"{paths[0]}: cannot be read ({error.strerror})") from error
        told = {line["id"]: {"turns": len(line["turns"]), "answered": line["answer"] is not None} for line in lines}
        figures = (Figure("answered", "ours", sum(one["answered"] for one in told.values()), len(told)),)
        return Score("small", figures, ("<b>odd</b> & named",), told)


def make_suite() -> Small:
    return Small("compact", ("moved", "service"))
