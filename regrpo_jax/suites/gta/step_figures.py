"""The figures of step mode: GTA's own, and strict ones of ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regrpo_jax.suites.benchmark import Figure
from regrpo_jax.suites.gta.official_steps import StepVerdict, step_verdict
from regrpo_jax.suites.gta.predicted import Prediction
from regrpo_jax.suites.gta.record_types import GtaData, GtaRecord
from regrpo_jax.suites.gta.similarity import Similarity

OFFICIAL, STRICT = "GTA", "ours, strict"


def step_figures(verdicts: Sequence[StepVerdict], similarity: Similarity) -> list[Figure]:
    """GTA's, over the records that have a prediction."""
    calls = _sum(verdicts, "recorded_calls")
    answered = [verdict for verdict in verdicts if verdict.answered]
    objective = [verdict for verdict in verdicts if verdict.record.answer.objective]
    return [
        Figure("InstAcc", OFFICIAL, _sum(verdicts, "kinds"), calls + len(answered), "of recorded calls + answers"),
        Figure("ToolAcc", OFFICIAL, _sum(verdicts, "tools"), calls, "of recorded calls"),
        Figure("ArgAcc", OFFICIAL, _sum(verdicts, "arguments"), calls, "of recorded calls; paths made relative"),
        Figure("SummAcc", OFFICIAL, _sum(answered, "summary"), len(answered), similarity.label),
        Figure("SummAcc, objective", OFFICIAL, _sum(objective, "summary"), len(objective), "a part of SummAcc"),
        Figure(
            "calls with an error", OFFICIAL, _sum(verdicts, "errors"), _sum(verdicts, "calls"), "of predicted calls"
        ),
    ]


def strict_step_figures(data: GtaData, verdicts: Sequence[StepVerdict], similarity: Similarity) -> list[Figure]:
    """Ours: over all records and turns of the dataset, what is missing is wrong, and a call with an error is too."""
    turns = sum(len(record.assistant_turns) for record in data.records)
    calls = sum(bool(turn.calls) for record in data.records for turn in record.assistant_turns)
    answered = sum(not record.answer.image for record in data.records)
    right = sum(min(1.0, verdict.summary) for verdict in verdicts)
    return [
        Figure("InstAcc", STRICT, _sum(verdicts, "kinds"), turns, "of recorded turns"),
        Figure("ToolAcc", STRICT, _sum(verdicts, "clean_tools"), calls, "of recorded calls, without an error"),
        Figure("ArgAcc", STRICT, _sum(verdicts, "clean_arguments"), calls, "of recorded calls, without an error"),
        Figure("SummAcc", STRICT, right, answered, f"of records with an answer; {similarity.label}"),
    ]


def step_notes(predictions: Sequence[Prediction], verdicts: Sequence[StepVerdict]) -> list[str]:
    """Where the evaluator's arithmetic did something odd."""
    notes = []
    turns, answered = _sum(verdicts, "turns"), sum(verdict.answered for verdict in verdicts)
    calls = _sum(verdicts, "recorded_calls")
    if turns != calls + answered:
        notes.append(
            f"InstAcc divides by {calls + answered} = {calls} calls + {answered} records with an answer, though there "
            f"are {turns} turns, so that the recorded dialogs themselves are not at 100 %"
        )
    if last := sum(verdict.last_call for verdict in verdicts):
        notes.append(
            f"the last turn is asked for without tools, but in {last} records the recorded one is a call: a policy "
            "that does as it is told loses these in ToolAcc and InstAcc"
        )
    if lost := sum(max(0, len(one.gold) - len(one.turns)) for one in predictions):
        notes.append(f"{lost} recorded turns have no prediction; GTA's denominators leave them out")
    if more := sum(max(0, len(one.turns) - len(one.gold)) for one in predictions):
        notes.append(f"{more} predicted turns have no recorded one; nobody looks at them")
    if failed := _sum(verdicts, "tools") - _sum(verdicts, "clean_tools"):
        notes.append(f"ToolAcc counts {failed} calls that have an error")
    if mapped := _sum(verdicts, "arguments") - _sum(verdicts, "raw_arguments"):
        notes.append(f"{mapped} calls have the recorded arguments only after paths were made relative (ArgAcc)")
    if empty := _sum(verdicts, "no_text"):
        notes.append(f"{empty} answers are no text, at which GTA's evaluator ends; here they are wrong")
    if several := [verdict.record.id for verdict in verdicts if verdict.summary > 1]:
        notes.append(f"SummAcc counts records more than once that have several right answers: {', '.join(several)}")
    return notes


def step_records(predictions: Sequence[Prediction], similarity: Similarity) -> list[StepVerdict]:
    """What each record counts."""
    return [step_verdict(prediction, similarity) for prediction in predictions]


def told(verdict: StepVerdict) -> Mapping[str, Any]:
    """Plain data."""
    names = ("turns", "recorded_calls", "kinds", "tools", "arguments", "errors")
    answer = {"answer": verdict.summary} if verdict.answered else {}
    return {OFFICIAL: {name: getattr(verdict, name) for name in names} | answer}


def has_answer(record: GtaRecord) -> bool:
    """Whether the recorded dialog ends with words of the assistant."""
    return bool(record.dialog[-1].role == "assistant" and not record.dialog[-1].calls)


def _sum(verdicts: Sequence[StepVerdict], name: str) -> Any:
    return sum(getattr(verdict, name) for verdict in verdicts)
