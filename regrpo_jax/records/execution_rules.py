"""The rules of the execution block: what it must hold, and that the conversation is the one that was run.

A record without a block breaks none of them. With one, every hash, status and count is held against the turns, so
that a record cannot be edited after its episode and still pass for executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from regrpo_jax.records.actions import FINAL_ANSWER, code_of, extract_code, extract_tool_calls
from regrpo_jax.records.execution import EXECUTED, RECORDED, SYNTHETIC, VERSION, execution_from_dict, text_sha256
from regrpo_jax.records.reasons import kind_of, printable
from regrpo_jax.records.rot_claims import locate_reflection
from regrpo_jax.records.types import ErrorType, Execution, Status, Turn

KINDS = (EXECUTED, RECORDED, SYNTHETIC)
SOURCES = ("oracle", "trajectory", "policy")
FAILURES = frozenset({Status.EMPTY, Status.TOOL_ERROR, Status.TIMEOUT, Status.INVALID_ACTION})
_TEXTS = ("kind", "source", "proposer", "annotator", "task", "task_sha256", "loader")
_NUMBERS = ("version", "seed", "failed_step")
_STEP_KEYS = ("code_sha256", "status", "observation_sha256")
_COUNTS = ("candidates", "steps_back", "length")
_HEX = re.compile(r"[0-9a-f]{64}")
_LOADER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_HEADER = re.compile(r"\[OUTPUT OF STEP (?P<step>[0-9]+)\] -> Observation:\n")


def execution_schema_reasons(block: object) -> Iterator[str]:
    """What keeps the value of a record's `execution` key from being read; nothing for None (no block)."""
    if block is None:
        return
    if not isinstance(block, dict):
        yield f"execution_schema: `execution` must be an object, not {kind_of(block)}"
        return
    for key in _TEXTS:
        if not isinstance(block.get(key), str) or not block[key].strip():
            yield f"execution_schema: `{key}` of `execution` must be a text that is not empty"
    for key in _NUMBERS:
        if type(block.get(key)) is not int:
            yield f"execution_schema: `{key}` of `execution` must be a whole number"
    if not isinstance(block.get("seen", ""), str):
        yield "execution_schema: `seen` of `execution` must be a text"
    if type(block.get("repaired")) is not bool:
        yield "execution_schema: `repaired` of `execution` must be true or false"
    tools = block.get("tools")
    if not isinstance(tools, dict) or not all(isinstance(version, str) for version in tools.values()):
        yield "execution_schema: `tools` of `execution` must be an object of names and versions"
    yield from _step_schema_reasons(block.get("steps"))
    yield from _complexity_schema_reasons(block.get("complexity"))


def _step_schema_reasons(steps: object) -> Iterator[str]:
    if not isinstance(steps, list):
        yield "execution_schema: `steps` of `execution` must be a list"
        return
    for index, step in enumerate(steps):
        if not isinstance(step, dict) or not all(isinstance(step.get(key), str) for key in _STEP_KEYS):
            yield f"execution_schema: step {index} of `execution` must have the texts {', '.join(_STEP_KEYS)}"
        elif step["status"] not in set(Status):
            yield f"execution_schema: {printable(step['status'])!r} of step {index} is none of {', '.join(Status)}"
        elif type(step.get("recorded", False)) is not bool:
            yield f"execution_schema: `recorded` of step {index} of `execution` must be true or false"


def _complexity_schema_reasons(measured: object) -> Iterator[str]:
    if not isinstance(measured, dict):
        yield "execution_schema: `complexity` of `execution` must be an object"
        return
    if any(type(measured.get(key)) is not int for key in _COUNTS):
        yield f"execution_schema: {', '.join(_COUNTS)} of `complexity` must be whole numbers"
    if type(measured.get("score")) not in (int, float):
        yield "execution_schema: `score` of `complexity` must be a number"


def execution_claim_reasons(
    block: Mapping[str, object] | None,
    conversation: tuple[Turn, ...],
    meta: Mapping[str, object],
    tools: frozenset[str],
) -> Iterator[str]:
    """Every claim of a well-formed block that is false of its record; the record's other rules must hold already."""
    if block is None:
        return
    execution = execution_from_dict(block)
    yield from _source_reasons(execution)
    yield from _tool_reasons(execution, str(meta["corrected_action"]), tools)
    yield from _complexity_reasons(execution, meta)
    if execution.failed_step != meta["step_index"]:
        yield f"execution_failed_step: step {execution.failed_step} failed, but `step_index` is {meta['step_index']}"
        return
    turns, reflection_turn = _assistant_turns(conversation), locate_reflection(conversation, meta)
    if reflection_turn not in turns or turns.index(reflection_turn) != execution.failed_step + 1:
        yield f"execution_failed_step: the reflection does not follow right after step {execution.failed_step}"
        return
    yield from _header_reasons(conversation, execution.failed_step)
    if execution.kind == SYNTHETIC:
        yield from _synthetic_reasons(execution)
        return
    yield from _step_reasons(execution, conversation)
    yield from _outcome_reasons(execution, str(meta["error_type"]))


def _source_reasons(execution: Execution) -> Iterator[str]:
    if execution.version != VERSION:
        yield f"execution_version: version {execution.version} of the block is not {VERSION}, the one known here"
    if execution.kind not in KINDS:
        yield f"execution_kind: {printable(execution.kind)!r} is none of {', '.join(KINDS)}"
    if execution.source not in SOURCES:
        yield f"execution_source: {printable(execution.source)!r} is none of {', '.join(SOURCES)}"
    if execution.annotator != "rules" and not execution.annotator.removeprefix("teacher:").strip():
        yield "execution_annotator: a teacher without a name"
    elif execution.annotator != "rules" and not execution.annotator.startswith("teacher:"):
        yield f"execution_annotator: {printable(execution.annotator)!r} is neither rules nor teacher:MODEL"
    if not _HEX.fullmatch(execution.task_sha256):
        yield "execution_task: `task_sha256` is no SHA-256 in hex"
    if not _LOADER.fullmatch(execution.loader):
        yield f"execution_loader: {printable(execution.loader)!r} is not written package.module:function"


def _tool_reasons(execution: Execution, corrected_action: str, tools: frozenset[str]) -> Iterator[str]:
    if FINAL_ANSWER not in execution.tools:
        yield f"execution_tools: the episode had no {FINAL_ANSWER}"
    for name in sorted({call.name for call in extract_tool_calls(code_of(corrected_action), tools)}):
        if name not in execution.tools:
            yield f"execution_tools: the corrected action calls {printable(name)}, which the episode did not have"


def _complexity_reasons(execution: Execution, meta: Mapping[str, object]) -> Iterator[str]:
    measured, reflection = execution.complexity, meta["reflection"]
    assert isinstance(reflection, dict)  # the schema says so
    words = len(reflection["evidence"].split()) + len(reflection["fix_plan"].split())
    if measured.candidates < 1 or measured.steps_back < 0 or not 0 <= measured.score <= 1:
        yield "execution_complexity: at least 1 candidate, 0 steps back and a score in [0, 1] are needed"
    elif measured.length != words:
        yield f"execution_complexity: a reflection of {words} words is said to have {measured.length}"


def _assistant_turns(conversation: tuple[Turn, ...]) -> list[int]:
    return [index for index, turn in enumerate(conversation) if turn.role == "assistant"]


def _header_reasons(conversation: tuple[Turn, ...], failed_step: int) -> Iterator[str]:
    """The failed and the corrected turn are answered under the same step number, as in the authors' records."""
    turns = _assistant_turns(conversation)[failed_step : failed_step + 2]
    for turn in turns:
        header = _HEADER.match(conversation[turn + 1].content) if turn + 1 < len(conversation) else None
        if turn + 1 < len(conversation) and (header is None or int(header["step"]) != failed_step):
            yield f"step_header: turn {turn + 1} does not open with [OUTPUT OF STEP {failed_step}] -> Observation:"


def _synthetic_reasons(execution: Execution) -> Iterator[str]:
    if execution.steps:
        yield "execution_steps: a synthetic record ran no steps"
    if execution.repaired:
        yield "execution_repaired: nothing was repaired in a synthetic record"


def _step_reasons(execution: Execution, conversation: tuple[Turn, ...]) -> Iterator[str]:
    turns = _assistant_turns(conversation)
    if len(turns) != len(execution.steps) or execution.failed_step + 1 >= len(turns):
        yield (
            f"execution_steps: {len(execution.steps)} steps were run and {len(turns)} are written, where step "
            f"{execution.failed_step} fails and the next one mends it"
        )
        return
    if (execution.kind == RECORDED) != any(step.recorded for step in execution.steps):
        yield f"execution_kind: {execution.kind} is not what the marks of its steps say"
    for number, (turn, step) in enumerate(zip(turns, execution.steps, strict=True)):
        if text_sha256(extract_code(conversation[turn].content)) != step.code_sha256:
            yield f"execution_code: turn {turn} has other code than step {number} that was run"
        if turn + 1 < len(conversation):
            text = _HEADER.sub("", conversation[turn + 1].content, count=1)
            if text_sha256(text) != step.observation_sha256:
                yield f"execution_observation: turn {turn + 1} is another observation than that of step {number}"


def _outcome_reasons(execution: Execution, error_type: str) -> Iterator[str]:
    if execution.failed_step + 1 >= len(execution.steps):
        return
    failed, corrected = (execution.steps[execution.failed_step + offset].status for offset in (0, 1))
    harmless = failed == Status.OK and (error_type == ErrorType.NON_COMMIT or bool(execution.seen))
    if failed not in FAILURES and not harmless:
        yield f"failed_status: the status of the failed action is {failed.value}, which is no failure of the agent's"
    if corrected != Status.OK:
        yield f"corrected_status: the status of the corrected action is {corrected.value}, not ok"
    if not execution.repaired:
        yield "execution_repaired: the episode did not end with the right answer"
