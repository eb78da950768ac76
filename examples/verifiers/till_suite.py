"""The taskset of the till as a suite: `config.suite.name="till_suite:make_suite"`."""

from till_taskset import TillConfig, TillTask, TillTaskset
from verifiers_suite import VerifiersSuite


def steps(task: TillTask) -> list[str]:
    """What solves a task, so that the data engine can make records of it."""
    return [f'calculator("{task.data.terms}")', f"final_answer({task.data.total})"]


_suite = VerifiersSuite(TillTaskset(TillConfig(id="till")), __name__, steps=steps)
make_suite, __getattr__ = _suite.make_suite, _suite.check
