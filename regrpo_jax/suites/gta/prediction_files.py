"""Files of predictions as GTA's programs write them: `{"0": {"gold": [..], "prediction": [..], "origin_prompt": ..}}`.

Step by step, `prediction` is a turn for each recorded one; end to end it is a list of episodes, one for each turn of
the user, of which the first counts. Entries are numbered by position in the dataset file, and each shard starts at 0
again. Where a file says of most of its entries that they are other records than their numbers say (a shard before
it is missing, the dataset was a part of this one), they are matched by what was asked. Keys that are not known are
left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.suites.benchmark import EPISODES, STEPS
from regrpo_jax.suites.gta.matching import Matcher
from regrpo_jax.suites.gta.predicted import Kind, PredictedTurn, Prediction, recorded, turn_of
from regrpo_jax.suites.gta.record_types import GtaData, GtaRecord
from regrpo_jax.suites.gta.shards import DUPLICATE, read_shards, shards_of
from regrpo_jax.suites.problems import Problem

MALFORMED, STRANGE_TURN, NO_TEXT = "malformed prediction", "turn of another shape", "answer that is no text"
OTHER_GOLD = "gold that is not the dataset's"


@dataclass(frozen=True)
class Predictions:
    """What files of predictions hold. mode: `EPISODES` or `STEPS`; predictions: in the dataset's order."""

    mode: str
    predictions: tuple[Prediction, ...]
    problems: tuple[Problem, ...]


def read_predictions(data: GtaData, paths: Sequence[Path]) -> Predictions:
    """What the files, or the shards of a run, say of the records. UserError where none can be read."""
    shards, problems = read_shards(shards_of(paths))
    steps = _is_steps([entry for shard in shards for entry in shard.entries.values()])
    matcher, found = Matcher(data), {}
    for shard in shards:
        matched, odd = matcher.records_of(shard)
        problems += odd
        for number, record in matched.items():
            if record.id in found:
                problems.append(Problem(DUPLICATE, f"record {record.id}", f"{shard.path.name}: {number} counts"))
            prediction, odd = _prediction(shard.entries[number], record, steps)
            problems += odd
            found[record.id] = prediction
    ordered = tuple(found[record.id] for record in data.records if record.id in found)
    return Predictions(STEPS if steps else EPISODES, ordered, tuple(problems))


def write_predictions(data: GtaData, mode: str, turns: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Write turns as GTA's programs do.

    turns: by the record's id, in the shape of `call_turn`, `answer_turn` and `result_turn`; a record that is missing
    there has no entry.
    """
    entries = {}
    for record in data.records:
        if record.id in turns:
            entries[str(record.position)] = _entry(record, mode == STEPS, list(turns[record.id]))
    text = json.dumps(entries, ensure_ascii=False, indent=4)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(text.encode("utf-8", "replace"))
    temporary.replace(path)


def call_turn(name: str, arguments: Any, error: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A turn that calls a tool. error: {"type", "msg"} of a call that could not be made, as AgentLego gives it."""
    told: dict[str, Any] = {"role": "assistant"} | ({"error": dict(error)} if error is not None else {})
    return told | {"tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}


def answer_turn(text: str | None) -> dict[str, Any]:
    """A turn that answers."""
    return {"role": "assistant", "content": text}


def result_turn(name: str, kind: str, content: str) -> dict[str, Any]:
    """What a tool gave back. kind: "text" or "image"; content: the text, or the path of the image."""
    return {"role": "tool", "name": name, "content": {"type": kind, "content": content}}


def _entry(record: GtaRecord, steps: bool, turns: list[Mapping[str, Any]]) -> dict[str, Any]:
    told = [turn.told for turn in record.dialog]
    if not steps:
        after = next((place for place, turn in enumerate(told[1:], 1) if turn["role"] == "user"), len(told))
        return {"gold": [told[1:after]], "prediction": [turns], "origin_prompt": [record.question], "steps": []}
    places = [place for place, turn in enumerate(told) if turn["role"] == "assistant"]
    return {
        "gold": [told[place] for place in places],
        "prediction": turns,
        "origin_prompt": [told[:place] for place in places],
        "steps": [],
    }


def _is_steps(entries: Sequence[Any]) -> bool:
    """Whether most entries are flat lists of turns; golds decide where no prediction does."""
    for key in ("prediction", "gold"):
        lists = [
            one[key] for one in entries if isinstance(one, Mapping) and isinstance(one.get(key), list) and one[key]
        ]
        flat = sum(not isinstance(turns[0], list) for turns in lists)
        if lists:
            return 2 * flat > len(lists)
    return False


def _prediction(entry: Any, record: GtaRecord, steps: bool) -> tuple[Prediction, list[Problem]]:
    where = f"record {record.id}"
    problems = []
    turns = _turns(entry, "prediction", steps)
    if turns is None:
        problems.append(Problem(MALFORMED, where, "it counts as an empty one"))
    gold, own = _turns(entry, "gold", steps), recorded(record, steps=steps)
    if gold is None:
        gold = own
    elif [_gist(turn) for turn in gold] != [_gist(turn) for turn in own]:
        problems.append(Problem(OTHER_GOLD, where, "the official figures take the file's"))
    for place, turn in enumerate(turns or ()):
        if turn.kind == Kind.NONE:
            problems.append(Problem(STRANGE_TURN, where, f"turn {place}"))
        elif turn.kind == Kind.ANSWER and not isinstance(turn.content, str):
            problems.append(Problem(NO_TEXT, where, f"turn {place} is {json.dumps(turn.content)[:40]}"))
    return Prediction(record, turns or (), gold), problems


def _turns(entry: Any, key: str, steps: bool) -> tuple[PredictedTurn, ...] | None:
    told = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(told, list):
        return None
    if not steps:
        told = told[0] if told else []
    elif any(isinstance(turn, list) for turn in told):
        return None
    return tuple(map(turn_of, told)) if isinstance(told, list) else None


def _gist(turn: PredictedTurn) -> tuple[str, str, str]:
    return turn.kind, turn.name, turn.text if turn.kind == Kind.ANSWER else ""
