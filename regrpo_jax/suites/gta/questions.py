"""GTA step by step: each recorded turn of the assistant is asked for, after the recorded ones before it.

As in the official step mode (`infer_every_with_gt` of open-compass/GTA) the last turn is asked for with the words that
no tool is to be called, whatever the dialog does there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from smolagents.tools import Tool

from regrpo_jax.agent.prompt import instruction_text, placeholders, system_text
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import ImageReference, Turn
from regrpo_jax.suites.benchmark import Question
from regrpo_jax.suites.gta.gold_steps import ANSWER_NOW, said, seen
from regrpo_jax.suites.gta.record_types import GtaRecord
from regrpo_jax.suites.gta.recordings import answered_calls


def question_id(task: str, number: int) -> str:
    """The id of the question for a task's assistant turn of that number, from 0. task: its id."""
    return f"{task}/{number}"


def questions_of(
    record: GtaRecord, task: Task, folder: Path, loaded: Mapping[str, Tool], *, system: str = ""
) -> list[Question]:
    """A question for each turn of the assistant, in order.

    Args:
      folder: where the paths of pictures start.
      system: as in `SuiteTools`.
    """
    images = tuple(
        ImageReference(placeholder, str(folder / name)) for placeholder, name in placeholders(task.images).items()
    )
    talk = [Turn("system", system_text(task.tools, loaded, brief=False, template=system))]
    answers = dict(enumerate(answered_calls(record)))
    found: list[Question] = []
    for place, turn in enumerate(record.dialog):
        if turn.role == "user":
            first = place == 0
            talk.append(Turn("user", instruction_text(task.instruction, task.images) if first else turn.content or ""))
        elif turn.role == "assistant":
            number = len(found)
            asked = tuple(talk) if number < len(answers) - 1 else _for_the_last(talk)
            found.append(Question(question_id(task.id, number), asked, images))
            talk.append(Turn("assistant", said(*answers[number])))
            if answers[number][1]:
                talk.append(seen(number, answers[number][1]))
    return found


def _for_the_last(talk: list[Turn]) -> tuple[Turn, ...]:
    last = talk[-1]
    return (*talk[:-1], dataclasses.replace(last, content=f"{last.content}\n\n{ANSWER_NOW}"))
