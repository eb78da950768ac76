"""GTA's recorded dialogs as turns of an agent that writes code: a thought, and one fenced block that calls the tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrpo_jax.agent.prompt import observation_text
from regrpo_jax.environments.task import OracleStep
from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.records.types import Turn
from regrpo_jax.suites.gta.call_keys import known_file, picture_stem
from regrpo_jax.suites.gta.record_types import IMAGE, DialogTurn, GtaRecord, ToolCall, ToolDescription
from regrpo_jax.suites.gta.recordings import AnsweredCall, answered_calls

ANSWER_NOW = "This is the last step: call no other tool, and end with final_answer(...)."
"""What the last turn of a record is asked with: the official step mode tells it not to call tools."""
_PICTURE, _RESULT = "picture", "result"  # names in the code
_ANSWER_THOUGHT = "that is the answer."
_NO_WORDS = "(the tool gave no result)"


def oracle_of(record: GtaRecord, described: Mapping[str, ToolDescription]) -> tuple[OracleStep, ...]:
    """The dialog as a script that plays the task; () where it comes to no answer.

    A picture that a tool made is what the code holds of it, whatever its file is called here; an image that is named in
    another way than its file gets the file's name.
    """
    if sum(turn.role == "user" for turn in record.dialog) > 1:
        return ()
    steps: list[OracleStep] = []
    pictures = _Made(record, described)
    answer: str | None = None
    for turn, calls in answered_calls(record):
        if calls:
            steps.append(OracleStep(_thought(turn), _code(calls, pictures.given)))
            pictures.take(calls)
        answer = turn.content.strip() if turn.content and turn.content.strip() else None
        if answer is not None and not calls:
            break
    if answer is not None:
        return (*steps, OracleStep(_ANSWER_THOUGHT, f"{FINAL_ANSWER}({answer!r})"))
    if record.answer.image and pictures.stems:
        return (*steps, OracleStep(_ANSWER_THOUGHT, f"{FINAL_ANSWER}({_PICTURE})"))
    return ()


class _Made:
    """Which pictures the tools have made so far, by the names that the dialog gives them."""

    def __init__(self, record: GtaRecord, described: Mapping[str, ToolDescription]) -> None:
        self.files = [file.path for file in record.files]
        self.stems: set[str] = set()
        self._images = {
            (tool.name, one.name) for tool in described.values() for one in tool.inputs if one.type == IMAGE
        }

    def take(self, calls: tuple[AnsweredCall, ...]) -> None:
        results = [one.result for one in calls if one.result is not None and one.result.type == IMAGE]
        self.stems |= {picture_stem(result.content) for result in results}

    def given(self, tool: str, name: str, value: Any) -> str:
        """An argument as Python writes it."""
        if (tool, name) not in self._images:
            return repr(value)
        if picture_stem(value) in self.stems:
            return _PICTURE
        return repr(known_file(value, self.files) or value)


def said(turn: DialogTurn, calls: tuple[AnsweredCall, ...]) -> str:
    """The assistant's turn as it was recorded, in our format; arguments as they stand there."""
    if calls:
        return OracleStep(_thought(turn), _code(calls, lambda tool, name, value: repr(value))).turn()
    return OracleStep(_ANSWER_THOUGHT, f"{FINAL_ANSWER}({(turn.content or '').strip()!r})").turn()


def seen(number: int, calls: tuple[AnsweredCall, ...]) -> Turn:
    """What the tools answered to the assistant's turn of that number, from 0."""
    words = [one.result.content if one.result is not None else _NO_WORDS for one in calls]
    return Turn("user", observation_text(number, "\n".join(words)))


def _thought(turn: DialogTurn) -> str:
    """The recorded one, without fences of its own, which would hide the code; some call turns have none."""
    words = " ".join((turn.thought or turn.content or "").replace("```", " ").split())
    return words or f"call {', '.join(call.name for call in turn.calls)}."


def _code(calls: tuple[AnsweredCall, ...], given: Any) -> str:
    lines = []
    for one in calls:
        name = _PICTURE if one.result is not None and one.result.type == IMAGE else _RESULT
        lines += [f"{name} = {_call(one.call, given)}", f"print({name})"]
    return "\n".join(lines)


def _call(call: ToolCall, given: Any) -> str:
    told = ", ".join(
        f"{name}={given(call.name, name, value)}"
        if name.isidentifier()
        else f"**{{{name!r}: {given(call.name, name, value)}}}"
        for name, value in call.arguments.items()
    )
    return f"{call.name}({told})"
