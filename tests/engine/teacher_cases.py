"""Failures for a teacher to explain, made by hand from the suite's tasks; settings; a clock that does not wait."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

from PIL import Image

from regrpo_jax.agent.prompt import instruction_text, placeholders
from regrpo_jax.engine.cases import ArgumentShape, CleanStep, Failure, NearMiss, Situation, ToolShape
from regrpo_jax.engine.teacher.limits import TeacherSettings
from regrpo_jax.engine.teacher.questions import annotate_text
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import ErrorType, Observation, Status
from regrpo_jax.suites.toolrepair import families, make_task, plan_of
from regrpo_jax.toolbox.http_client import Clock

OK = Observation(Status.OK, 'total "79"')


def failures() -> Iterator[Failure]:
    """One after the other, of all the kinds that the suite's surprises have; no two ask the same."""
    asked: set[str] = set()
    for number in count(1):
        for family in families("compact"):
            task = make_task(family, "train", number, 1 + number % 3, "compact", surprises=1.0)
            for index in range(len(plan_of(task).attempts)):
                found = failure_at(task, index)
                if found is not None and annotate_text(found) not in asked:
                    asked.add(annotate_text(found))
                    yield found


def failure_at(task: Task, index: int) -> Failure | None:
    """The suite's surprise at a step, where it has one."""
    attempts = plan_of(task).attempts
    one = attempts[index]
    if one.repair is None:
        return None
    steps = [CleanStep(each.thought, each.repair.code if each.repair else each.code) for each in attempts]
    steps.append(CleanStep("that is the answer.", f'final_answer("{plan_of(task).answer}")'))
    situation = Situation("oracle", task.id, task, "Call one tool.", instruction_text(task.instruction, task.images),
                          tuple(steps), index, shapes(*task.tools), placeholders(task.images))  # fmt: skip
    told = Observation(Status.TOOL_ERROR, f"Error at `{one.code}`: NotFound. Known: {one.repair.evidence}.")
    miss = NearMiss(one.repair.error_type, "plan", one.thought, one.code, one.repair)
    return Failure(situation, miss, (*[OK] * index, told, *[OK] * (len(steps) - index)), answered=True)


def some_failures(number: int) -> list[Failure]:
    return list(islice(failures(), number))


def shapes(*names: str) -> dict[str, ToolShape]:
    argument = ArgumentShape("name", "string", "what to take")
    return {name: ToolShape(name, f"Does {name}.", (argument,)) for name in (*names, "final_answer")}


def simple_failure(
    observation: str = 'Error at `read("eagle")`: NotFound. "Milan" is "Max", "Ann" at "bridge".',
    wrong: str = 'read("eagle")',
    right: str = 'read("bridge")',
    kind: ErrorType = ErrorType.ARG_INVALID,
    **changes: Any,
) -> Failure:
    """A failure of one step whose texts a test chooses."""
    task = make_task(families("compact")[0], "train", 1, 1, "compact")
    steps = (CleanStep("look.", right), CleanStep("done.", "final_answer(1)"))
    parts: dict[str, Any] = {
        "source": "oracle",
        "source_id": "one",
        "task": task,
        "system": "Call one tool.",
        "instruction": "Task: where is Ann?",
        "steps": steps,
        "index": 0,
        "tools": shapes("read", "crop"),
    }
    situation = Situation(**(parts | changes))
    return Failure(
        situation, NearMiss(kind, "plan", "look.", wrong), (Observation(Status.TOOL_ERROR, observation), OK, OK), True
    )


def settings(url: str, cache: Path, **changes: Any) -> TeacherSettings:
    parts: dict[str, Any] = {"base_url": url, "model": "wise", "cache": cache, "timeout": 5.0}
    return TeacherSettings(**(parts | {"requests_per_minute": 1e6} | changes))


@dataclass
class FastClock:
    """Time that really passes, plus all waits at once."""

    skipped: float = 0.0
    waits: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.skipped += seconds
            self.waits.append(seconds)

    def clock(self) -> Clock:
        return Clock(lambda: time.monotonic() + self.skipped, lambda: time.time() + self.skipped, self.sleep)


def picture(kind: str = "PNG", size: tuple[int, int] = (16, 12)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, kind)
    return stream.getvalue()
