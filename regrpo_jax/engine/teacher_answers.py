"""A teacher's answer, read and checked: what a server promises of its format is never relied on. Pure functions.

Every problem is told in words that the teacher can act on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from regrpo_jax.engine.cases import CleanStep, Failure, NearMiss, Situation
from regrpo_jax.engine.gates import MOST_CHARACTERS, MOST_WORDS
from regrpo_jax.engine.teacher_prompts import (
    MOST_CODE,
    MOST_NEAR_MISSES,
    MOST_THOUGHT,
)
from regrpo_jax.records.actions import FINAL_ANSWER, action_signature, extract_tool_calls, parse_python, primary_tool
from regrpo_jax.records.clauses import body_start
from regrpo_jax.records.confession import confession
from regrpo_jax.records.reasons import kind_of, printable
from regrpo_jax.records.reflection import cites_observation, quoted_span, telling_span
from regrpo_jax.records.types import ErrorType, Reflection

_TELLING_CODE = 8  # characters: a shorter line of code stands in any sentence
# What models put around their JSON though they are asked not to.
_THINKING = re.compile(r"\A\s*(?!\s|\{).*?</think>", re.DOTALL)
_FENCED = re.compile(r"\A\s*```[A-Za-z]*\s*\n(?P<inside>.*?)\n?\s*```\s*\Z", re.DOTALL)


class Malformed(ValueError):
    """An answer that cannot be used; `problems` say why, a sentence each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_object(text: str) -> dict[str, Any]:
    """The JSON object that an answer consists of. Malformed."""
    inside = _THINKING.sub("", text, count=1).strip()
    fence = _FENCED.match(inside)
    try:
        found = json.loads(fence["inside"] if fence else inside, object_pairs_hook=_once, parse_constant=_no_constant)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is no JSON ({printable(error)})") from None
    if not isinstance(found, dict):
        raise Malformed(f"it is {kind_of(found)} and no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("a key of the JSON object is given twice")
    return found


def _no_constant(name: str) -> None:
    raise Malformed(f"{name} is no JSON")


def read_reflection(text: str, failure: Failure) -> Reflection:
    """The reflection in an answer, white space made one. Malformed."""
    found = read_object(text)
    _check_keys(found, ("error_type", "evidence", "fix_plan"), "the object")
    problems = [
        *_text_problems(found, "evidence", MOST_CHARACTERS, MOST_WORDS),
        *_text_problems(found, "fix_plan", MOST_CHARACTERS, MOST_WORDS),
    ]
    kind = failure.near_miss.error_type
    if found["error_type"] != kind:
        problems.append(f"error_type is {printable(found['error_type'])!r}; it must be {str(kind)!r}")
    if problems:
        raise Malformed(*problems)
    reflection = Reflection(kind, _one_line(found["evidence"]), _one_line(found["fix_plan"]))
    problems = [*_evidence_problems(reflection.evidence, failure.failed.text), *_leak_problems(reflection, failure)]
    if problems:
        raise Malformed(*problems)
    return reflection


def _evidence_problems(evidence: str, observation: str) -> Iterator[str]:
    told = observation[body_start(observation) :]
    if not telling_span(evidence, told):
        yield (
            "evidence does not quote the observation: copy a run of at least two words and eight characters of what "
            f"the environment said, or all of it. The longest run shared is {printable(quoted_span(evidence, told))!r}"
        )
    elif not cites_observation(evidence, observation):
        yield "evidence shares no telling word with the observation: quote all of it"


def _leak_problems(reflection: Reflection, failure: Failure) -> Iterator[str]:
    """The code of the corrected action, or a line of it that the failed one does not have."""
    failed = {_one_line(line) for line in failure.near_miss.code.splitlines()}
    right = failure.situation.step.code
    lines = [line for line in map(_one_line, right.splitlines()) if len(line) >= _TELLING_CODE and line not in failed]
    for key, text in (("evidence", reflection.evidence), ("fix_plan", reflection.fix_plan)):
        if _one_line(right) in text:
            yield f"{key} contains the code of the corrected action ({printable(right)}): say it in words"
        elif key == "fix_plan" and any(line in text for line in lines):
            yield f"{key} contains a line of the corrected action's code: say it in words"


def read_near_misses(text: str, situation: Situation, error_type: ErrorType) -> list[NearMiss]:
    """The usable near misses of an answer, in its order and each once. Malformed when none is usable."""
    found = read_object(text)
    _check_keys(found, ("near_misses",), "the object")
    if not isinstance(found["near_misses"], list) or not found["near_misses"]:
        raise Malformed("near_misses must be a list with at least one member")
    tools = frozenset(situation.tools)
    seen = {action_signature(situation.step.code, tools)}
    usable: list[NearMiss] = []
    problems: list[str] = []
    for number, one in enumerate(found["near_misses"][:MOST_NEAR_MISSES], 1):
        try:
            miss = _near_miss(one, situation, error_type)
            signature = action_signature(miss.code, tools)
            if signature in seen:
                raise Malformed("its code does the same as the right action or another near miss")
        except Malformed as error:
            problems += [f"near miss {number}: {problem}" for problem in error.problems]
        else:
            seen.add(signature)
            usable.append(miss)
    if not usable:
        raise Malformed(*problems)
    return usable


def _near_miss(one: object, situation: Situation, error_type: ErrorType) -> NearMiss:
    if not isinstance(one, dict):
        raise Malformed(f"it is {kind_of(one)} and no JSON object")
    _check_keys(one, ("thought", "code"), "it")
    problems = [*_text_problems(one, "thought", MOST_THOUGHT), *_text_problems(one, "code", MOST_CODE)]
    if problems:
        raise Malformed(*problems)
    thought = _one_line(one["thought"]).removeprefix("Thought:").strip()
    code = one["code"].strip("\r\n").rstrip()
    problems = [*_code_problems(code, situation, error_type)]
    if not thought:
        problems.append("its thought is empty")
    word = confession(CleanStep(thought, code).turn(), situation.instruction)
    if word:
        problems.append(f"it says {word!r}, as if it knew that it fails")
    if problems:
        raise Malformed(*problems)
    return NearMiss(error_type, "teacher", thought, code)


def _code_problems(code: str, situation: Situation, error_type: ErrorType) -> Iterator[str]:
    """What the rules of records ask of such a failure as well."""
    if error_type != ErrorType.CODE_ERROR and parse_python(code) is None:
        yield "its code is no Python that parses"
        return
    tools = frozenset(situation.tools)
    calls = extract_tool_calls(code, tools)
    if error_type == ErrorType.NON_COMMIT and any(call.name == FINAL_ANSWER for call in calls):
        yield "it calls final_answer, which a NonCommit does not"
    right = primary_tool(extract_tool_calls(situation.step.code, tools))
    if error_type == ErrorType.TOOL_MISMATCH and primary_tool(calls) in (None, right):
        yield "it must call another tool of the list than the right action does"


def _check_keys(found: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    missing = [f"{where} has no key {key!r}" for key in keys if key not in found]
    more = [f"{where} has a key {printable(key)!r}, which it must not have" for key in found if key not in keys]
    if missing or more:
        raise Malformed(*missing, *more[:3])


def _text_problems(found: Mapping[str, Any], key: str, most: int, most_words: int | None = None) -> Iterator[str]:
    value = found[key]
    if not isinstance(value, str):
        yield f"{key} must be a string, not {kind_of(value)}"
    elif not value.strip():
        yield f"{key} is empty"
    elif len(value) > most:
        yield f"{key} has {len(value)} characters; at most {most} are allowed"
    elif most_words is not None and len(value.split()) > most_words:
        yield f"{key} has {len(value.split())} words; at most {most_words} are allowed"
    elif "```" in value:
        yield f"{key} contains a code fence"
    elif any(character < " " and character not in "\n\r\t" or "\ud800" <= character <= "\udfff" for character in value):
        yield f"{key} contains a control character or half a character"


def _one_line(text: str) -> str:
    return " ".join(text.split())
