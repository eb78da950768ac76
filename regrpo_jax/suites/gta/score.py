"""GTA's files of predictions, scored by everybody's rule, each number with whose it is and over what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from regrpo_jax.suites.benchmark import STEPS, Score
from regrpo_jax.suites.gta import episode_figures, step_figures
from regrpo_jax.suites.gta.official_episodes import episode_verdict
from regrpo_jax.suites.gta.predicted import Prediction, recorded
from regrpo_jax.suites.gta.prediction_files import Predictions, read_predictions
from regrpo_jax.suites.gta.record_types import GtaData
from regrpo_jax.suites.gta.similarity import ENCODER, Similarity, similarity_of
from regrpo_jax.suites.problems import told


def score_predictions(data: GtaData, paths: Sequence[Path], encoder: Path | None = None) -> Score:
    """What files of predictions come to; step by step or end to end is told from their shape.

    Args:
      paths: files, several are shards.
      encoder: a folder of the official sentence encoder (all-mpnet-base-v2) for subjective answers and the arguments
        of calls that make images; None for the folder `all-mpnet-base-v2` beside the dataset file, and without one for
        the same text.
    Raises:
      UserError: a file cannot be read, or the encoder cannot.
    """
    beside = data.folder / ENCODER
    similarity = similarity_of(encoder or (beside if beside.is_dir() else None))
    found = read_predictions(data, paths)
    return _steps(data, found, similarity) if found.mode == STEPS else _episodes(data, found, similarity)


def _steps(data: GtaData, found: Predictions, similarity: Similarity) -> Score:
    verdicts = step_figures.step_records(found.predictions, similarity)
    strict = step_figures.step_records(_beside_the_datasets(found), similarity)
    return Score(
        "GTA, step by step",
        (
            *step_figures.step_figures(verdicts, similarity),
            *step_figures.strict_step_figures(data, strict, similarity),
        ),
        (*_common_notes(data, found), *step_figures.step_notes(found.predictions, verdicts)),
        {verdict.record.id: step_figures.told(verdict) for verdict in verdicts},
    )


def _episodes(data: GtaData, found: Predictions, similarity: Similarity) -> Score:
    verdicts = [episode_verdict(prediction, similarity) for prediction in found.predictions]
    strict = [episode_verdict(prediction, similarity) for prediction in _beside_the_datasets(found)]
    pairs = zip(found.predictions, verdicts, strict=True)
    return Score(
        "GTA, end to end",
        (
            *episode_figures.episode_figures(verdicts, similarity),
            *episode_figures.other_figures(data, found.predictions),
            *episode_figures.strict_episode_figures(data, strict, similarity),
        ),
        (*_common_notes(data, found), *episode_figures.episode_notes(found.predictions, verdicts)),
        {prediction.record.id: episode_figures.told(prediction, verdict) for prediction, verdict in pairs},
    )


def _beside_the_datasets(found: Predictions) -> list[Prediction]:
    """The predictions beside the dataset's recorded turns, whatever the file sets beside them."""
    steps = found.mode == STEPS
    return [replace(one, gold=recorded(one.record, steps=steps)) for one in found.predictions]


def _common_notes(data: GtaData, found: Predictions) -> list[str]:
    """What is missing or odd in the files, and in the recorded answers themselves."""
    notes = list(told(found.problems))
    if len(found.predictions) < len(data.records):
        there = {prediction.record.id for prediction in found.predictions}
        gone = [record.id for record in data.records if record.id not in there]
        notes.insert(
            0,
            f"partial: {len(there)} of {len(data.records)} records have a prediction; GTA's figures are over these, "
            f"strict ones over all (missing: {_some(gone)})",
        )
    if data.count > len(data.records):
        notes.append(f"{data.count - len(data.records)} records of {data.file.name} cannot be read and count nowhere")
    if failing := [one.record.id for one in found.predictions if episode_figures.gold_fails(one)]:
        notes.append(f"recorded answers that are wrong by GTA's own rule: {len(failing)} ({_some(failing)})")
    if without := [one.record.id for one in found.predictions if _lacks_answer(one)]:
        notes.append(f"records with a right answer whose dialog has no turn that gives one: {_some(without)}")
    return notes


def _lacks_answer(prediction: Prediction) -> bool:
    return not prediction.record.answer.image and not step_figures.has_answer(prediction.record)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
