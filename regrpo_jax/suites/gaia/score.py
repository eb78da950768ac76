"""Files of answers to GAIA scored by the leaderboard's rule, over all questions whose right answer is known.

MAT's evaluation script also lets a model rewrite wrong answers until the rule accepts them; that is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regrpo_jax.suites.benchmark import Figure, Score
from regrpo_jax.suites.gaia.answer_files import read_answers
from regrpo_jax.suites.gaia.records import GaiaData, GaiaRecord
from regrpo_jax.suites.gaia.scorer import is_infinite, question_scorer
from regrpo_jax.suites.problems import told

SCORER = "GAIA"


def score_answers(data: GaiaData, paths: Sequence[Path]) -> Score:
    """What the files come to: all levels, and each. UserError for a file that cannot be read."""
    answers, problems = read_answers(paths, [record.id for record in data.records])
    scored = [record for record in data.records if record.scored]
    right = {
        record.id for record in scored if record.id in answers and question_scorer(answers[record.id], record.answer)
    }
    levels = sorted({record.level for record in scored})
    figures = [_figure("all levels", scored, right)]
    figures += [
        _figure(f"level {level}", [record for record in scored if record.level == level], right) for level in levels
    ]
    records = {
        record.id: {
            "level": record.level,
            "answer": (answers[record.id] or "").encode("utf-8", "replace").decode()[:2000],
            SCORER: record.id in right if record.scored else None,
        }
        for record in data.records
        if record.id in answers
    }
    return Score("GAIA", tuple(figures), (*_notes(data, answers, right), *told(problems)), records)


def _figure(name: str, asked: Sequence[GaiaRecord], right: set[str]) -> Figure:
    hits = sum(record.id in right for record in asked)
    return Figure(name, SCORER, hits, len(asked), "of all questions asked, answered or not")


def _notes(data: GaiaData, answers: dict[str, str | None], right: set[str]) -> list[str]:
    notes = []
    scored = [record for record in data.records if record.scored]
    if gone := [record.id for record in scored if record.id not in answers]:
        notes.append(
            f"partial: {len(gone)} of {len(scored)} questions have no answer and count as wrong ({_some(gone)})"
        )
    if unscored := len(data.records) - len(scored):
        notes.append(f'{unscored} questions have the right answer "?": only the leaderboard can score them')
    if infinite := [record.id for record in scored if is_infinite(record.answer)]:
        notes.append(f"every text that is no number is right where the right answer is infinite: {_some(infinite)}")
    if none := [name for name in right if answers[name] is None]:
        notes.append(f'right because an answer that is missing is the text "None": {_some(none)}')
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
