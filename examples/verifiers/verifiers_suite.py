"""A taskset of `verifiers` as a suite of ours: its tasks and its rewards, both on the host, where no action can look.

    # my_suite.py
    from verifiers_suite import VerifiersSuite

    _suite = VerifiersSuite(MyTaskset(MyConfig(id="mine")), __name__)
    make_suite, __getattr__ = _suite.make_suite, _suite.check

A task is what its prompt says. The answer of an episode is scored as the reply to it: rewards that look at `last_reply`
fit, those that look at the calls of tools, at a runtime or ask a judge do not.
"""

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.configs.agent import AgentConfig
from verifiers.v1.graph import MessageNode
from verifiers.v1.trace import AgentInfo, TraceTask

from regrpo_jax.suites.python import PythonSuite

SPLITS = (*["train"] * 7, "validation", "test", "test")  # verifiers has none: dealt in turn
CHECK = "task_"


class VerifiersSuite:
    """What a module of a suite is made of.

    taskset: its tasks must be the same at every start. module: where `make_suite` and `__getattr__` stand. steps: what
    solves a task, for the data engine; [] where nobody knows. enough: the least reward of a success.
    """

    def __init__(
        self,
        taskset: vf.Taskset,
        module: str,
        *,
        steps: Callable[[Any], list[str]] = lambda task: [],
        enough: float = 1.0,
        most: int = 1000,
    ) -> None:
        self.taskset, self.module, self.steps, self.enough, self.most = taskset, module, steps, enough, most

    def make_suite(self) -> PythonSuite:
        """What `config.suite.name` names."""
        return PythonSuite(tasks=self.tasks)

    def tasks(self, split: str) -> Iterator[dict[str, Any]]:
        """Those that are dealt to the split; each names its own check."""
        for number, task in enumerate(self._all):
            if SPLITS[number % len(SPLITS)] == split:
                system = f"{task.data.system_prompt}\n" if task.data.system_prompt else ""
                yield {
                    "id": f"{type(task).__name__}-{number}",
                    "instruction": system + task.data.prompt_text,
                    "check": f"{self.module}:{CHECK}{number}",
                    "steps": self.steps(task),
                }

    def check(self, name: str) -> Callable[[object, object], bool]:
        """The check "task_17", as a module's `__getattr__` finds it."""
        if not name.removeprefix(CHECK).isdigit():
            raise AttributeError(name)
        task = self._all[int(name.removeprefix(CHECK))]
        return lambda answer, workspace: self._reward(task, str(answer)) >= self.enough

    @functools.cached_property
    def _all(self) -> list[vf.Task]:
        return list(itertools.islice(self.taskset, self.most))

    def _reward(self, task: vf.Task, answer: str) -> float:
        said = [vf.UserMessage(content=task.data.prompt_text), vf.AssistantMessage(content=answer)]
        nodes = [MessageNode(message=said[0]), MessageNode(message=said[1], parent=0, sampled=True)]
        told = TraceTask(type=type(task).__name__, data=task.data)
        trace = vf.Trace(task=told, agent=AgentInfo(config=AgentConfig()), nodes=nodes)
        asyncio.run(task.score(trace))
        return trace.reward
