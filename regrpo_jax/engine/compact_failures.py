"""Failures that any task can have: broken code, and an answer that is shown instead of given.

They are a minority of the compact corpus, as in the authors' release, and come on top of the paper's four
error types.
"""

from __future__ import annotations

import random

from regrpo_jax.engine.compact_tasks import Call, CompactTask, Failure
from regrpo_jax.records.types import ErrorType

# The argument a hasty writer forgets to quote: never a year, which would be a number and not a name.
_UNQUOTED_ARGUMENT = {"inspect_file_as_text": 0, "visualizer": 1, "table_query": 1, "search": 0}
_FIRST_MISSING = {
    "inspect_file_as_text": (0, "file_path"),
    "visualizer": (1, "colour"),
    "table_query": (1, "key"),
    "search": (0, "name"),
}


def final_call(answer: str) -> Call:
    """The call that ends a task."""
    return Call("final_answer", (answer,))


def not_committed(rng: random.Random, answer: str) -> Failure:
    """At the last step the answer is printed or stored, and no `final_answer` is called (NonCommit)."""
    printed = (f'print("{answer}")', '"print" is no tool')
    stored = (f'answer = "{answer}"', "no tool call")
    code, quote = rng.choice((printed, stored))
    return Failure(
        ErrorType.NON_COMMIT,
        "final_answer",
        code,
        quote=quote,
        short_plan=f'give "{answer}"',
        long_plan=f'the answer is "{answer}", so give "{answer}" with final_answer',
    )


def broken_code(rng: random.Random, call: Call) -> Failure:
    """The right call, but one name lost its quotes (NameError) or one argument is left out (TypeError)."""
    return _without_quotes(call) if rng.random() < 0.5 else _without_argument(call)


def _without_quotes(call: Call) -> Failure:
    index = _UNQUOTED_ARGUMENT[call.tool]
    argument = call.arguments[index]
    variable = argument.split(".")[0]  # `fox.txt` without quotes asks for a variable `fox`
    return Failure(
        ErrorType.CODE_ERROR,
        call.tool,
        call.code.replace(f'"{argument}"', argument),
        quote=f'"{variable}" is not defined',
        short_plan=f'quote "{argument}"',
        long_plan=f'"{argument}" is text and not a variable, so quote "{argument}"',
    )


def _without_argument(call: Call) -> Failure:
    index, parameter = _FIRST_MISSING[call.tool]
    argument = call.arguments[index]
    return Failure(
        ErrorType.CODE_ERROR,
        call.tool,
        Call(call.tool, call.arguments[:index]).code,
        quote=f'{call.tool} misses "{parameter}"',
        short_plan=f'add "{argument}"',
        long_plan=f'the call needs "{argument}" as its {parameter}, so add "{argument}"',
    )


def failure_of(rng: random.Random, task: CompactTask, generic_share: float) -> Failure:
    """The family's own failure, or with probability `generic_share` one of the two of this file.

    Raises ValueError for a task without a tool call, which has no failure.
    """
    if task.call is None or task.failure is None:
        raise ValueError(f"a task of the family {task.family!r} has no failure")
    if rng.random() >= generic_share:
        return task.failure
    return not_committed(rng, task.answer) if rng.random() < 0.5 else broken_code(rng, task.call)
