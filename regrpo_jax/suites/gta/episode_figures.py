"""The figures end to end: GTA's own, MAT's, SPORT's, and strict ones of ours beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regrpo_jax.suites.benchmark import Figure
from regrpo_jax.suites.gta import mat_scorer, sport_scorer
from regrpo_jax.suites.gta.official_answers import is_correct
from regrpo_jax.suites.gta.official_episodes import KINDS, EpisodeVerdict, tool_f1
from regrpo_jax.suites.gta.predicted import Kind, Prediction
from regrpo_jax.suites.gta.record_types import Answer, GtaData
from regrpo_jax.suites.gta.similarity import Similarity

OFFICIAL, STRICT, MAT, SPORT = "GTA", "ours, strict", "MAT", "SPORT"
_RULES: Mapping[str, Callable[[str, Answer], bool]] = {MAT: mat_scorer.is_correct, SPORT: sport_scorer.is_correct}


def episode_figures(verdicts: Sequence[EpisodeVerdict], similarity: Similarity) -> list[Figure]:
    """GTA's, over the records that have a prediction."""
    answered = [verdict for verdict in verdicts if not verdict.record.answer.image]
    objective = [verdict for verdict in verdicts if verdict.record.answer.objective]
    return [
        Figure("AnsAcc", OFFICIAL, _answers(answered), len(answered), similarity.label),
        Figure("AnsAcc, objective", OFFICIAL, _answers(objective), len(objective), "a part of AnsAcc"),
        Figure("AnsAcc with images", OFFICIAL, _with_images(verdicts), len(verdicts), similarity.label),
        *(_f1(verdicts, kind) for kind in KINDS),
        Figure(
            "calls with an error",
            OFFICIAL,
            sum(verdict.errors for verdict in verdicts),
            sum(verdict.calls for verdict in verdicts),
            "of predicted calls",
        ),
    ]


def other_figures(data: GtaData, predictions: Sequence[Prediction]) -> list[Figure]:
    """MAT's and SPORT's."""
    objective = [one for one in predictions if one.record.answer.objective]
    every = {MAT: len(data.records), SPORT: sum(not record.answer.image for record in data.records)}
    words = {MAT: "of all records", SPORT: "of records with an answer"}
    figures = []
    for scorer, rule in _RULES.items():
        hits = sum(rule(answer_of(one), one.record.answer) for one in objective)
        figures += [
            Figure("AnsAcc, objective", scorer, hits, len(objective), "of objective records with a prediction"),
            Figure("AnsAcc, all", scorer, hits, every[scorer], f"{words[scorer]}; only objective ones can be right"),
        ]
    return figures


def strict_episode_figures(data: GtaData, verdicts: Sequence[EpisodeVerdict], similarity: Similarity) -> list[Figure]:
    """Ours: GTA's rule over all records of the dataset; what is missing is wrong."""
    answered = sum(not record.answer.image for record in data.records)
    objective = sum(record.answer.objective for record in data.records)
    right = [verdict for verdict in verdicts if verdict.record.answer.objective]
    return [
        Figure("AnsAcc", STRICT, _answers(verdicts), answered, f"of all with an answer; {similarity.label}"),
        Figure("AnsAcc, objective", STRICT, _answers(right), objective, "of all objective records"),
        Figure("AnsAcc with images", STRICT, _with_images(verdicts), len(data.records), f"of all; {similarity.label}"),
    ]


def episode_notes(predictions: Sequence[Prediction], verdicts: Sequence[EpisodeVerdict]) -> list[str]:
    """Where the evaluator's arithmetic did something odd."""
    notes = []
    if lost := [verdict.record.id for verdict in verdicts if verdict.overwritten]:
        notes.append(
            f"image records that lost because a later call of the same tool takes an earlier one's place: {_ids(lost)}"
        )
    if empty := [verdict.record.id for verdict in verdicts if verdict.empty]:
        notes.append(f"empty episodes, at which GTA's evaluator ends; here they are wrong: {_ids(empty)}")
    if other := sum(verdict.other_calls for verdict in verdicts):
        notes.append(
            f"{other} recorded calls are of no tool of GTA's, at which its evaluator ends; here no F1 has them"
        )
    if none := [kind for kind in KINDS if verdicts and not tool_f1(verdicts, kind).recorded]:
        notes.append(f"no recorded call is of the kind {', '.join(none)}, where GTA's evaluator divides by zero")
    if cased := [one.record.id for one in predictions if _by_case_alone(one)]:
        notes.append(f"right by MAT's rule only because case is ignored: {_ids(cased)}")
    if zeros := [one.record.id for one in predictions if _by_no_alone(one)]:
        notes.append(f'right by SPORT\'s rule only because "no" stands for 0: {_ids(zeros)}')
    return notes


def told(prediction: Prediction, verdict: EpisodeVerdict) -> Mapping[str, Any]:
    """Plain data."""
    record, text = prediction.record, answer_of(prediction)
    score = verdict.image if record.answer.image else verdict.answer
    found: dict[str, Any] = {"answer": text.encode("utf-8", "replace").decode()[:2000], OFFICIAL: score}
    if record.answer.objective:
        found |= {scorer: rule(text, record.answer) for scorer, rule in _RULES.items()}
    return found


def answer_of(prediction: Prediction) -> str:
    """The last turn's words; "" where it is a call, a result or nothing."""
    return prediction.last.text if prediction.last.kind == Kind.ANSWER else ""


def gold_fails(prediction: Prediction) -> bool:
    """Whether the recorded answer of an objective record is wrong by GTA's own rule; False where there is none."""
    record = prediction.record
    last = record.dialog[-1]
    if not record.answer.objective or last.role != "assistant" or last.calls:
        return False
    return not is_correct(last.content or "", record.answer)


def _f1(verdicts: Sequence[EpisodeVerdict], kind: str) -> Figure:
    found = tool_f1(verdicts, kind)
    note = f"F1: {found.hits} of {found.recorded} recorded calls hit, {found.predicted} predicted"
    return Figure(f"{kind} F1", OFFICIAL, found.value * found.recorded, found.recorded, note)


def _answers(verdicts: Sequence[EpisodeVerdict]) -> float:
    return sum(verdict.answer for verdict in verdicts)


def _with_images(verdicts: Sequence[EpisodeVerdict]) -> float:
    return sum(verdict.answer + verdict.image for verdict in verdicts)


def _by_case_alone(one: Prediction) -> bool:
    text, answer = answer_of(one), one.record.answer
    exact = all(any(alias in text for alias in group) for group in answer.whitelist)
    return mat_scorer.is_correct(text, answer) and not exact


def _by_no_alone(one: Prediction) -> bool:
    text, answer = answer_of(one).lower(), one.record.answer
    without = text.replace("no", "")
    zero = any("0" in group for group in answer.whitelist)
    return zero and sport_scorer.is_correct(text, answer) and not sport_scorer.is_correct(without, answer)


def _ids(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names)})"
