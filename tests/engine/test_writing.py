"""What a record says is right where a person's own function judges: its name is no answer."""

from dataclasses import replace

import pytest

from regrpo_jax.engine.cases import CleanStep
from regrpo_jax.engine.writing import clean_record, rot_record
from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.records.types import ErrorType, Reflection
from tests.engine.teacher_cases import OK, simple_failure


@pytest.mark.parametrize(
    ("code", "answer"),
    [("final_answer(69)", "69"), ('final_answer(answer="two words")', "two words"), ("final_answer(total)", "total")],
)
def test_where_a_function_judges_the_record_has_the_answer_that_the_steps_give(code: str, answer: str) -> None:
    failure = simple_failure()
    task = replace(failure.situation.task, checker=AnswerChecker(CheckKind.FUNCTION, "my_suite:is_right"))
    steps = (failure.situation.steps[0], CleanStep("done.", code))
    situation = replace(failure.situation, task=task, steps=steps)
    assert clean_record(situation, (OK, OK), number=1)["answer"] == answer
    told = Reflection(ErrorType.ARG_INVALID, '"bridge"', 'use "bridge"')
    record = rot_record(replace(failure, situation=situation), told, number=1, annotator="rules", loader="none", seed=0)
    assert record["answer"] == record["rot_meta"]["final_answer"] == answer
