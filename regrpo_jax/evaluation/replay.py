"""Offline replay: the policy drives recorded tasks, once on its own and once after the recorded failure is injected.

Nothing is executed here. An action counts as right when it makes the same tool calls as the recorded one
(`records.actions_equivalent`), and then the recorded observation comes back. The status of a failed observation is
the one that the record carries; where it carries none, it is read from the text.
"""

import dataclasses
from collections.abc import Sequence

from regrpo_jax.agent.gate import GateDecision, confidence, reflection_gate
from regrpo_jax.agent.policy import ACTION_OPENING, NO_OPENING, REFLECTION_OPENING
from regrpo_jax.data.image_parts import images_before
from regrpo_jax.evaluation.decoding import (
    GeneratedTurn,
    TurnRequest,
    TurnWriter,
)
from regrpo_jax.records import (
    actions_equivalent,
    classify_observation_text,
    evidence_grounded,
    parse_reflection,
    split_reflection,
    tools_of,
)
from regrpo_jax.records.types import ImageReference, Reflection, RotRecord, Status, Turn


@dataclasses.dataclass(frozen=True)
class Episode:
    """What the policy did with one record.

    Attributes:
      record: the record.
      first: its own first attempt at the step where the record failed.
      first_right: whether that attempt is the recorded correct action.
      needless: whether the gate would open after a right first attempt (low confidence only).
      gate: the gate's decision after the injected failure.
      repair: its turn after the injected failure.
      repaired: whether the repair's action is the recorded correct one.
      reflection: the parsed reflection of the repair, None without one or when it is malformed.
      grounded: whether the reflection's evidence cites the failed observation.
      finished_alone: whether the rest of the task went right after its own first attempt.
      finished_after_failure: whether the rest went right after the repair.
    """

    record: RotRecord
    first: GeneratedTurn
    first_right: bool
    needless: bool
    gate: GateDecision
    repair: GeneratedTurn
    repaired: bool
    reflection: Reflection | None
    grounded: bool
    finished_alone: bool
    finished_after_failure: bool


def replay(records: Sequence[RotRecord], confidences: Sequence[Sequence[float]], writer: TurnWriter) -> list[Episode]:
    """Replays every record.

    Args:
      records: tasks with a recorded failure and its correction.
      confidences: u_1 .. u_i of the recorded actions up to the failed one, under this policy.
      writer: the policy.
    """
    gates = [_gate_after_failure(record, values) for record, values in zip(records, confidences, strict=True)]
    before = [_Context(r.id, r.conversation[: r.failed_turn], _images(r, r.failed_turn)) for r in records]
    failed = [_Context(r.id, r.conversation[: r.reflection_turn], _images(r, r.reflection_turn)) for r in records]
    firsts = writer.write([context.request(ACTION_OPENING) for context in before])
    repairs = writer.write(
        [
            context.request(REFLECTION_OPENING if gate.open else NO_OPENING if _is_seen(record) else ACTION_OPENING)
            for context, gate, record in zip(failed, gates, records, strict=True)
        ]
    )
    first_right = [_is_right(turn, record) for turn, record in zip(firsts, records, strict=True)]
    repaired = [_is_right(turn, record) for turn, record in zip(repairs, records, strict=True)]
    alone = _finish(records, [c.then(_said(t)) for c, t in zip(before, firsts, strict=True)], first_right, writer)
    after = _finish(records, [c.then(_said(t)) for c, t in zip(failed, repairs, strict=True)], repaired, writer)
    episodes = []
    for index, record in enumerate(records):
        reflection = parse_reflection(split_reflection(repairs[index].text)[0])
        episodes.append(
            Episode(
                record,
                firsts[index],
                first_right[index],
                first_right[index] and _is_unsure(record, firsts[index], confidences[index]),
                gates[index],
                repairs[index],
                repaired[index],
                reflection,
                reflection is not None and evidence_grounded(reflection.evidence, record.quotable),
                alone[index],
                after[index],
            )
        )
    return episodes


def _is_seen(record: RotRecord) -> bool:
    """Whether nothing but a picture tells of the failure, so that reflecting is the policy's own choice."""
    return record.failed_status == Status.OK and record.execution is not None and bool(record.execution.seen)


@dataclasses.dataclass(frozen=True)
class _Context:
    """What the policy has seen: turns, and the images that stand in them."""

    record_id: str
    turns: tuple[Turn, ...]
    images: tuple[ImageReference, ...]

    def then(self, *turns: Turn) -> "_Context":
        return _Context(self.record_id, (*self.turns, *turns), self.images)

    def request(self, opening: str) -> TurnRequest:
        return TurnRequest(self.record_id, self.turns, self.images, opening)


def _images(record: RotRecord, turn_count: int) -> tuple[ImageReference, ...]:
    return images_before(record.conversation, turn_count, record.images)


def _said(turn: GeneratedTurn) -> Turn:
    return Turn("assistant", turn.text)


def _is_right(turn: GeneratedTurn, record: RotRecord) -> bool:
    action = split_reflection(turn.text)[1]
    return turn.finished and actions_equivalent(action, record.corrected_action, tools=tools_of(record))


def _gate_after_failure(record: RotRecord, confidences: Sequence[float]) -> GateDecision:
    status = record.failed_status or classify_observation_text(record.failed_observation)
    return reflection_gate(status, record.step_index + 1, confidences[-1], confidences[:-1], blocks_opened=0)


def _is_unsure(record: RotRecord, turn: GeneratedTurn, confidences: Sequence[float]) -> bool:
    own = confidence(turn.code_logprobs)
    return reflection_gate(Status.OK, record.step_index + 1, own, confidences[:-1], blocks_opened=0).open


def _finish(
    records: Sequence[RotRecord], contexts: Sequence[_Context], right: Sequence[bool], writer: TurnWriter
) -> list[bool]:
    """Lets the policy take the remaining recorded steps; True where every one of them is right."""
    alive = {index: contexts[index] for index in range(len(records)) if right[index]}
    finished = [False] * len(records)
    offset = 1
    while alive:
        waiting = {}
        for index, context in alive.items():
            rest = records[index].conversation[records[index].reflection_turn :]
            if offset + 1 < len(rest):
                waiting[index] = context.then(rest[offset])
            else:
                finished[index] = True
        turns_written = writer.write([context.request(ACTION_OPENING) for context in waiting.values()])
        alive = {}
        for (index, context), written in zip(waiting.items(), turns_written, strict=True):
            expected = records[index].conversation[records[index].reflection_turn + offset + 1]
            tools = tools_of(records[index])
            if written.finished and actions_equivalent(written.text, expected.content, tools=tools):
                alive[index] = context.then(_said(written))
        offset += 2
    return finished
