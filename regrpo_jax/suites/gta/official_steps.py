"""GTA's figures step by step, as its evaluator sums them (mode `every_with_gt` of `gta_bench.py`, open-compass/GTA).

InstAcc: turns of the right kind without an error, divided by recorded calls + records with an answer, which is fewer
than there are turns: the recorded dialogs themselves score above 100 %. ToolAcc, ArgAcc: calls of the right tool, with
the very arguments, divided by recorded calls; a call with an error counts. SummAcc: every answer where an answer is
recorded, divided by records with an answer. Only turns that have both a prediction and a recorded turn are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from regrpo_jax.suites.gta.file_paths import relative_arguments
from regrpo_jax.suites.gta.official_answers import answer_score
from regrpo_jax.suites.gta.predicted import Kind, PredictedTurn, Prediction
from regrpo_jax.suites.gta.record_types import GtaRecord
from regrpo_jax.suites.gta.similarity import Similarity


@dataclass(frozen=True)
class StepVerdict:
    """What the turns of a record count.

    turns: pairs that were looked at; recorded_calls: among them. kinds, tools, arguments: hits; raw_arguments: hits
    without making paths relative. clean_tools, clean_arguments: hits without an error. summary: of all answers.
    calls, errors: predicted. no_text: answers that are no text where a text is scored. last_call: whether the last
    recorded turn is a call. answered: whether an answer is right or wrong (`Answer.image` is neither).
    """

    record: GtaRecord
    turns: int = 0
    recorded_calls: int = 0
    kinds: int = 0
    tools: int = 0
    arguments: int = 0
    raw_arguments: int = 0
    clean_tools: int = 0
    clean_arguments: int = 0
    summary: float = 0.0
    calls: int = 0
    errors: int = 0
    no_text: int = 0
    last_call: bool = False

    @property
    def answered(self) -> bool:
        """Whether the record counts among those with an answer."""
        return not self.record.answer.image


def step_verdict(prediction: Prediction, similarity: Similarity) -> StepVerdict:
    """What a record's turns count."""
    record, pairs = prediction.record, list(zip(prediction.turns, prediction.gold, strict=False))
    calls = [(one, gold) for one, gold in pairs if one.kind == gold.kind == Kind.CALL]
    right = [(one, gold) for one, gold in calls if one.name == gold.name]
    equal = [one for one, gold in right if same_arguments(one, gold, record)]
    answers = [one for one, gold in pairs if one.kind == gold.kind == Kind.ANSWER and not record.answer.image]
    return StepVerdict(
        record,
        turns=len(pairs),
        recorded_calls=sum(gold.kind == Kind.CALL for _, gold in pairs),
        kinds=sum(one.kind == gold.kind and not one.error for one, gold in pairs if gold.kind != Kind.NONE),
        tools=len(right),
        arguments=len(equal),
        raw_arguments=sum(one.arguments == gold.arguments for one, gold in right),
        clean_tools=sum(not one.error for one, _ in right),
        clean_arguments=sum(not one.error for one in equal),
        summary=sum(
            answer_score(one.text, record.answer, similarity) for one in answers if isinstance(one.content, str)
        ),
        calls=sum(one.kind == Kind.CALL for one, _ in pairs),
        errors=sum(one.kind == Kind.CALL and one.error for one, _ in pairs),
        no_text=sum(not isinstance(one.content, str) for one in answers),
        last_call=bool(prediction.gold) and prediction.gold[-1].kind == Kind.CALL,
    )


def same_arguments(one: PredictedTurn, gold: PredictedTurn, record: GtaRecord) -> bool:
    """Whether two calls have the same arguments, wherever the record's files lie."""
    return relative_arguments(one.arguments, record) == relative_arguments(gold.arguments, record)
