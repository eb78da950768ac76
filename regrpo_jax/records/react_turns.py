"""ReAct turns, "Action: tool" and "Action Input: ..", as the code that does the same.

Data sets in ShareGPT's form and agents of the transformers family (the JSON kind, whose action is one object) write a
call in words. Our episodes run Python, so that a trajectory of theirs is played as Python.
"""

from __future__ import annotations

import json
import keyword
import re
from typing import Any

from regrpo_jax.records.actions import FINAL_ANSWER

_THOUGHT = re.compile(r"\A\s*Thought:\s*", re.IGNORECASE)
_FINAL = re.compile(r"^[ \t]*Final Answer:\s*(.*)\Z", re.IGNORECASE | re.MULTILINE | re.DOTALL)
_ACTION = re.compile(r"^[ \t]*Action:[ \t]*(?P<rest>.*)\Z", re.IGNORECASE | re.MULTILINE | re.DOTALL)
_INPUT = re.compile(r"\A(?P<name>[^\n]*?)\s*^[ \t]*Action[ _]Input:\s*(?P<input>.*)\Z", re.I | re.M | re.DOTALL)
_END = re.compile(r"\s*(?:<end_\w+>|^[ \t]*Observation:?[ \t]*)\s*\Z", re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"\A```(?:json)?\s*\n?(.*?)\s*```\Z", re.DOTALL)
_ENDS = frozenset({FINAL_ANSWER, "finish", "final answer"})


def react_action(text: str) -> tuple[str, str] | None:
    """(thought, code) of a turn in ReAct's form; None for any other."""
    body = _END.sub("", text)
    action = _ACTION.search(body)
    final = _FINAL.search(body)
    if action is None:
        return None if final is None else (_thought(body[: final.start()]), _answered(final[1].strip()))
    rest = _unfenced(action["rest"])
    found = _blob(rest) or _named(rest)
    if found is None:
        return None
    name, given = found
    if name.lower() in _ENDS:
        return _thought(body[: action.start()]), _answered(_answer_in(given))
    return (_thought(body[: action.start()]), f"print({_call(name, given)})") if _is_name(name) else None


def _thought(text: str) -> str:
    return _THOUGHT.sub("", text).strip()


def _unfenced(text: str) -> str:
    fenced = _FENCE.match(text.strip())
    return fenced[1] if fenced else text.strip()


def _blob(text: str) -> tuple[str, Any] | None:
    """{"action": name, "action_input": ..}"""
    value = _json(text)
    if not isinstance(value, dict) or not isinstance(value.get("action"), str):
        return None
    return value["action"].strip(), value.get("action_input", {})


def _named(text: str) -> tuple[str, Any] | None:
    match = _INPUT.match(text)
    if match is None:
        return (text, {}) if _is_name(text) else None
    words = _unfenced(match["input"])
    value = _json(words)
    return match["name"].strip().strip("`[]"), words if value is None else value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _answer_in(given: Any) -> Any:
    return next(iter(given.values())) if isinstance(given, dict) and len(given) == 1 else given


def _answered(answer: Any) -> str:
    return f"{FINAL_ANSWER}({answer!r})"


def _call(name: str, given: Any) -> str:
    if isinstance(given, dict) and all(map(_is_name, given)):
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"
    return f"{name}({given!r})"


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)
