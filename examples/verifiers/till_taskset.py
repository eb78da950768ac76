"""A taskset as verifiers has it: data, a task with its reward, and what loads them."""

import random
from collections.abc import Iterator

import verifiers.v1 as vf

PRICES = {"loaf": 4, "egg": 2, "cheese": 9}


class TillData(vf.TaskData):
    terms: str
    total: int


class TillTask(vf.Task[TillData]):
    @vf.reward(weight=1.0)
    async def right(self, trace: vf.Trace) -> float:
        return float((trace.last_reply or "").strip() == str(self.data.total))


class TillConfig(vf.TasksetConfig):
    num_tasks: int = 40


class TillTaskset(vf.Taskset[TillTask, TillConfig]):
    def load(self) -> Iterator[TillTask]:
        for number in range(self.config.num_tasks):
            draw = random.Random(number)
            bought = {item: draw.randint(1, 9) for item in draw.sample(sorted(PRICES), 2)}
            told = " and ".join(f"{count} x {item} at {PRICES[item]}" for item, count in bought.items())
            terms = " + ".join(f"{count} * {PRICES[item]}" for item, count in bought.items())
            total = sum(count * PRICES[item] for item, count in bought.items())
            yield TillTask(TillData(prompt=f"What do {told} come to?", terms=terms, total=total), self.config.task)
