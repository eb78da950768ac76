"""A policy's turns of code as the turns that GTA's files of predictions are made of.

A turn whose code calls a tool becomes `tool_calls`, one that calls final_answer alone becomes `content`, and what
neither is, or does not parse, or failed when it ran, has an `error`, which GTA's scorers count as no right turn.

Of a whole episode each call is a turn, with what it came to after it.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from regrpo_jax.records.actions import FINAL_ANSWER, extract_tool_calls, parse_python, split_action
from regrpo_jax.records.syntax import evaluated_literal
from regrpo_jax.records.types import Status, ToolCall
from regrpo_jax.suites.benchmark import EPISODES, PlayedCall, PlayedTask, PlayedTurn
from regrpo_jax.suites.gta.prediction_files import answer_turn, call_turn, result_turn
from regrpo_jax.suites.gta.questions import question_id
from regrpo_jax.suites.gta.record_types import GtaRecord
from regrpo_jax.suites.gta.tasks import task_id

Item = dict[str, Any]
Arguments = Mapping[str, Sequence[str]]  # tool -> names of its arguments, in order
_NO_ACTION, _FAILED = "NO_ACTION", "API_ERROR"
_UNNAMED, _UNREAD = "argument_{}", "arguments"  # names for what has none


def played_turns(
    mode: str, records: Sequence[GtaRecord], arguments: Arguments, played: Sequence[PlayedTask]
) -> dict[str, list[Item]]:
    """The turns of each record of which something was played, by its id.

    Args:
      mode: `EPISODES`, or `STEPS`, where a turn that was not asked for is one with an error.
      arguments: of all tools that are known.
    """
    by_id = {one.id: one for one in played}
    found = {}
    for record in records:
        if mode == EPISODES:
            names = [task_id(record)]
        else:
            names = [question_id(task_id(record), number) for number in range(len(record.assistant_turns))]
        if not any(name in by_id for name in names):
            continue
        if mode == EPISODES:
            found[record.id] = episode_items(by_id[names[0]], arguments)
        else:
            found[record.id] = [_asked_for(by_id.get(name), arguments) for name in names]
    return found


def step_item(text: str, arguments: Arguments) -> Item:
    """A single turn that was not run. arguments: of all tools that are known."""
    thought, code = split_action(text)
    calls = _written(code, arguments)
    asked = [call for call in calls if call.name != FINAL_ANSWER]
    if asked:
        turns = [call_turn(call.name, _arguments(call, arguments, code)) for call in asked]
        return turns[0] | {"tool_calls": [one for turn in turns for one in turn["tool_calls"]], "thought": thought}
    answers = [call for call in calls if call.name == FINAL_ANSWER]
    if answers:
        values = [*answers[-1].arguments, *(value for _, value in answers[-1].keywords)]
        return answer_turn(_as_text(_value(values[0], _constants(code))) if values else "")
    return _nothing(text, "the turn calls neither a tool nor final_answer" if code else "the turn has no code")


def episode_items(played: PlayedTask, arguments: Arguments) -> list[Item]:
    """A whole episode: each call with what it came to, and the answer at the end where there is one."""
    items: list[Item] = []
    for turn in played.turns:
        made = [call for call in turn.calls if call.name != FINAL_ANSWER]
        thought, code = split_action(turn.text)
        for number, call in enumerate(made):
            error = None if call.status == Status.OK else {"type": _FAILED, "msg": call.result}
            given = _given(call, _twin(turn, made, number, arguments), arguments, code)
            items.append(call_turn(call.name, given, error) | {"thought": thought})
            items.append(result_turn(call.name, "text", call.result))
        if not made and turn.status not in ("", Status.OK):
            items.append(_nothing(turn.text, turn.observation))
    if played.answer is not None:
        items.append(answer_turn(played.answer))
    return items


def _asked_for(played: PlayedTask | None, arguments: Arguments) -> Item:
    if played is None or not played.turns:
        return _nothing("", "the turn was not played")
    return step_item(played.turns[0].text, arguments)


def _nothing(text: str, why: str) -> Item:
    """A turn that did nothing; its words are no answer, so that they are not its content."""
    return answer_turn("") | {"thought": text, "error": {"type": _NO_ACTION, "msg": why}}


def _given(call: PlayedCall, twin: ToolCall | None, arguments: Arguments, code: str) -> dict[str, Any]:
    """The arguments of a call that was made, by name."""
    told = _told(call.arguments, arguments.get(call.name, ()))
    if told is not None:
        return told
    return _arguments(twin, arguments, code) if twin is not None else {_UNREAD: call.arguments}


def _twin(turn: PlayedTurn, made: Sequence[PlayedCall], number: int, arguments: Arguments) -> ToolCall | None:
    """The call as the code writes it, for one whose arguments were cut; None where they cannot be told apart."""
    name = made[number].name
    same = [one for one in _written(split_action(turn.text)[1], arguments) if one.name == name]
    alike = [place for place, one in enumerate(made) if one.name == name]
    return same[alike.index(number)] if len(same) == len(alike) else None


def _written(code: str, names: Collection[str]) -> tuple[ToolCall, ...]:
    return extract_tool_calls(code, frozenset((*names, FINAL_ANSWER)))


def _arguments(call: ToolCall, arguments: Arguments, code: str) -> dict[str, Any]:
    constants = _constants(code)
    found = {
        name: _value(text, constants)
        for name, text in _named(call.arguments, arguments.get(call.name, ())) + list(call.keywords)
    }
    return {name: value for name, value in found.items() if name != "**"}


def _named(values: Sequence[Any], names: Sequence[str]) -> list[tuple[str, Any]]:
    known = [*names, *(_UNNAMED.format(place) for place in range(len(names), len(values)))]
    return list(zip(known, values, strict=False))


def _told(text: str, names: Sequence[str]) -> dict[str, Any] | None:
    """Arguments as the journal of calls shows them, by name; None where they were cut or are no plain values."""
    tree = parse_python(f"call({text})")
    call = tree.body[0].value if tree and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr) else None
    if not isinstance(call, ast.Call):
        return None
    try:
        positional = [ast.literal_eval(one) for one in call.args]
        keywords = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords if one.arg}
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return {name: _plain(value) for name, value in (dict(_named(positional, names)) | keywords).items()}


def _constants(code: str) -> dict[str, str]:
    """Source of what the code binds once, at its top, to a name: `path = "a.jpg"`."""
    tree = parse_python(code)
    bound: dict[str, list[str]] = {}
    for node in tree.body if tree else []:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            bound.setdefault(node.targets[0].id, []).append(ast.unparse(node.value))
    return {name: values[0] for name, values in bound.items() if len(values) == 1}


def _value(source: str, constants: Mapping[str, str]) -> Any:
    """What the source stands for; the source itself where that is not known without running it."""
    for text in (source, constants.get(source, "")):
        try:
            return _plain(evaluated_literal(text))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return source


def _plain(value: Any) -> Any:
    """What JSON holds; sets, bytes and the like as Python writes them."""
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return repr(value)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
