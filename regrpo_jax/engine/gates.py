"""What the engine refuses to write: records that keep every rule and would still teach the wrong thing.

`validate_rot` holds for anybody's records. These gates are stricter, because our records are made by the thousand and
nobody reads them: evidence must really quote, nothing before the correction may give it away, the answer must be given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from regrpo_jax.engine.showing import without_places
from regrpo_jax.environments.answers import AnswerChecker, CheckKind, check_answer
from regrpo_jax.records.actions import FINAL_ANSWER, actions_equivalent, extract_code, extract_tool_calls
from regrpo_jax.records.clauses import body_start
from regrpo_jax.records.confession import confession
from regrpo_jax.records.conversation import normalise_turns
from regrpo_jax.records.differences import literal_value
from regrpo_jax.records.execution import quotable
from regrpo_jax.records.reflection import telling_span
from regrpo_jax.records.rot import validate_rot
from regrpo_jax.records.rot_rules import locate_reflection
from regrpo_jax.records.tool_names import tools_of_raw
from regrpo_jax.records.types import Status, Turn

MOST_WORDS = 80  # of the evidence, and of the fix plan
MOST_CHARACTERS = 600
_PLACEHOLDER = re.compile(r"<image_[0-9]+>")
Meta = Mapping[str, Any]


def gate_reasons(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Every reason not to write this record of the engine, as "rule: sentence"; () for one that is fit.

    The rules of `validate_rot` come first; where one is broken, the gates are not asked.
    """
    reasons = validate_rot(record)
    if reasons:
        return reasons
    if record.get("execution") is None:
        return ("execution_missing: a record of the engine needs an `execution` block",)
    conversation, meta = normalise_turns(record["conversations"]), record["rot_meta"]
    reflection_turn = locate_reflection(conversation, meta)
    assert reflection_turn is not None  # validate_rot found it
    before, tools = conversation[:reflection_turn], tools_of_raw(record)
    return (
        *_evidence_reasons(meta, record["execution"]),
        *_length_reasons(meta["reflection"]),
        *_leak_reasons(before, meta, tools),
        *_confession_reasons(before, meta),
        *_answer_reasons(conversation, record["answer"], tools),
        *_image_reasons(conversation, record["image"]),
    )


def audit_reasons(record: Mapping[str, Any]) -> tuple[str, ...]:
    """`gate_reasons` for a record that says it is the engine's, else `validate_rot`: for audits of any file."""
    return validate_rot(record) if record.get("execution") is None else gate_reasons(record)


def _failed_status(execution: Meta) -> str:
    """What the sandbox said of the failed action; "" where it was never run."""
    steps, at = execution["steps"], execution["failed_step"]
    return str(steps[at]["status"]) if at < len(steps) else ""


def _evidence_reasons(meta: Meta, execution: Meta) -> Iterator[str]:
    observation = meta["failed_observation"]
    observed = quotable(without_places(observation[body_start(observation) :]), execution)
    # Where a picture alone tells of the failure, the text does not, nor do names of files.
    if _failed_status(execution) == Status.OK and execution.get("seen"):
        observed = "\n".join(line.rpartition(": ")[2] for line in execution["seen"].splitlines())
    if not telling_span(meta["reflection"]["evidence"], observed):
        yield "evidence_span: the evidence quotes neither two words and eight characters in a row, nor all there is"


def _length_reasons(reflection: Meta) -> Iterator[str]:
    for key in ("evidence", "fix_plan"):
        words, characters = len(reflection[key].split()), len(reflection[key])
        if words > MOST_WORDS or characters > MOST_CHARACTERS:
            yield (
                f"reflection_length: `{key}` has {words} words and {characters} characters; at most {MOST_WORDS} and "
                f"{MOST_CHARACTERS} are read with care"
            )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _stands_in(code: str, text: str) -> bool:
    """Whether the text has the code as it is, and not as a part of longer names: `reread("a")` is not `read("a")`."""
    left, right = (r"(?<!\w)" * code[0].isalnum(), r"(?!\w)" * code[-1].isalnum())
    return re.search(left + re.escape(code) + right, _one_line(text)) is not None


def _leak_reasons(before: Sequence[Turn], meta: Meta, tools: frozenset[str]) -> Iterator[str]:
    code = extract_code(meta["corrected_action"])
    needle = _one_line(code)
    if not needle:
        yield "corrected_code: the corrected action has no code"
        return
    earlier = [turn.content for turn in before]
    acted = [turn.content for turn in before if turn.role == "assistant"]
    if any(_stands_in(needle, text) for text in earlier):
        yield "code_leak: the code of the correction already stands in an earlier turn"
    elif any(actions_equivalent(text, meta["corrected_action"], tools=tools) for text in acted):
        yield "code_leak: an earlier turn already does what the correction does"
    reflection = meta["reflection"]
    if any(_stands_in(needle, reflection[key]) for key in ("evidence", "fix_plan")):
        yield "reflection_leak: the reflection holds the code of the correction, so that nothing is left to act out"


def _confession_reasons(before: Sequence[Turn], meta: Meta) -> Iterator[str]:
    task = next((turn.content for turn in before if turn.role == "user"), "")
    word = confession(meta["failed_action"], task)
    if word:
        yield f"thought_confesses: the failed turn says {word!r}, as if it knew that it fails"


def _answer_reasons(conversation: Sequence[Turn], answer: object, tools: frozenset[str]) -> Iterator[str]:
    """The last turn gives the answer; an argument that the code computes was checked when it ran."""
    last = conversation[-1]
    calls = extract_tool_calls(extract_code(last.content), tools) if last.role == "assistant" else ()
    given = [call for call in calls if call.name == FINAL_ANSWER]
    if not given:
        yield f"final_answer: the last turn does not call {FINAL_ANSWER}"
        return
    sources = [*given[-1].arguments, *(source for _, source in given[-1].keywords)]
    if not sources:
        yield f"final_answer: {FINAL_ANSWER} is called without an answer"
        return
    value = literal_value(sources[0])
    if value is not None and not _same_answer(value, answer):
        yield "final_answer: the last turn gives another answer than the record's"


def _same_answer(given: object, answer: object) -> bool:
    """The same number, or a text that holds the answer; whether it commits was judged when the episode ended."""
    text = "" if answer is None else str(answer)
    if not any(character.isalnum() for character in text):
        return False
    if check_answer(AnswerChecker(CheckKind.CONTAINS, text), given):
        return True
    number = literal_value(text.replace(",", ""))
    if not isinstance(number, int | float) or not math.isfinite(number):
        return False
    return check_answer(AnswerChecker(CheckKind.NUMBER, number), given)


def _image_reasons(conversation: Sequence[Turn], image: object) -> Iterator[str]:
    if not isinstance(image, dict):
        if image:
            yield "image_placeholders: `image` must name a placeholder for every file"
        return
    text = "\n".join(turn.content for turn in conversation)
    for placeholder in image:
        if placeholder not in text:
            yield f"image_placeholders: {placeholder} is declared and stands nowhere in the conversation"
    for placeholder in sorted(set(_PLACEHOLDER.findall(text)) - set(image)):
        yield f"image_placeholders: {placeholder} stands in the conversation and no file is declared for it"
