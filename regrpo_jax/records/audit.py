"""What a corpus of Reflection-of-Thought records is like: which rules it breaks, and what it would teach.

Run before training: a corpus where half of the failures are of one kind, or where every reflection is twice
as long as the cost `eta` assumes, is worth knowing about before the run rather than after. Broken rules and
duplicates are hard failures; everything else is for a person to judge.
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regrpo_jax.records.actions import FINAL_ANSWER, code_of, extract_tool_calls, primary_tool
from regrpo_jax.records.clauses import body_start
from regrpo_jax.records.complexity import record_complexity
from regrpo_jax.records.confession import confession
from regrpo_jax.records.conversation import identity_text
from regrpo_jax.records.execution import quotable
from regrpo_jax.records.images import IMAGE_KEYS
from regrpo_jax.records.reasons import rule_of
from regrpo_jax.records.reflection import telling_span
from regrpo_jax.records.rot import rot_from_dict
from regrpo_jax.records.rot_rules import validate_rot
from regrpo_jax.records.tool_names import tools_of_raw
from regrpo_jax.records.types import Complexity, ErrorType

_DOUBLED_LABEL = re.compile(r"\bCode\s*:\s*\n\s*Code\s*:")
UNKNOWN = "(none)"
ORIGINS = ("kind", "source", "proposer", "annotator")  # keys of the execution block that a corpus is counted by
# Source: ReGRPO (arXiv 2606.31392), the shares of error types among its records.
PAPER_SHARES: Mapping[str, float] = {
    ErrorType.GROUNDING_DRIFT.value: 0.294,
    ErrorType.TOOL_MISMATCH.value: 0.246,
    ErrorType.ARG_INVALID.value: 0.308,
    ErrorType.INFO_INSUFFICIENT.value: 0.152,
}
Raw = Mapping[str, Any]
Rules = Callable[[Raw], tuple[str, ...]]


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest of a set of numbers; all 0 for an empty set."""

    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class AuditReport:
    """The result of `audit`; counts are of records, in `broken_rules` once for every rule broken.

    hard_failures: records that break a rule, or repeat the id or the content of an earlier one. warnings: no reasons
    to refuse a record (see `_warnings`). duplicate_contents: ids of records with the task, failed action and corrected
    action of an earlier one. origins: for each of ORIGINS, counts of its values; "(none)" without an execution block.
    lengths: in words, but `turns` in turns. complexity: of the records that keep every rule. deviations: share of each
    error type of the paper minus its share there; others are told in `error_types`.
    """

    total: int
    valid: int
    broken_rules: Mapping[str, int]
    warnings: Mapping[str, int]
    error_types: Mapping[str, int]
    primary_tools: Mapping[str, int]
    duplicate_ids: tuple[str, ...]
    lengths: Mapping[str, Spread]
    hard_failures: int = 0
    duplicate_contents: tuple[str, ...] = ()
    origins: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    complexity: Mapping[str, Spread] = field(default_factory=dict)
    deviations: Mapping[str, float] = field(default_factory=dict)


def _meta(record: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = record.get("rot_meta")
    return meta if isinstance(meta, dict) else {}


def _reflection(record: Mapping[str, Any]) -> Mapping[str, Any]:
    reflection = _meta(record).get("reflection")
    return reflection if isinstance(reflection, dict) else {}


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _ordered(names: Iterable[str]) -> dict[str, int]:
    """Counts, most frequent first, ties in alphabetical order."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _spread(numbers: Iterable[float]) -> Spread:
    found = list(numbers)
    return Spread(min(found), statistics.median(found), max(found)) if found else Spread(0, 0, 0)


def _words(values: Mapping[str, Any], key: str) -> int:
    return len(_text(values, key).split())


def _corrected_tool(record: Raw) -> str:
    calls = extract_tool_calls(code_of(_text(_meta(record), "corrected_action")), tools_of_raw(record))
    return primary_tool(calls) or UNKNOWN


def _ends_open(record: Raw) -> bool:
    turns = record.get("conversations")
    last = turns[-1] if isinstance(turns, list) and turns else None
    content = last.get("content", last.get("value")) if isinstance(last, dict) else None
    calls = extract_tool_calls(code_of(content), tools_of_raw(record)) if isinstance(content, str) else ()
    return not any(call.name == FINAL_ANSWER for call in calls)


def _warnings(record: Raw) -> list[str]:
    """Names of what a person should look at.

    corrected_without_tool; doubled_code_label; short_evidence: no quoted span of useful length (a gate for records of
    our own); confessing_thought: the failed turn says that it fails; open_ending: the last turn gives no final answer.
    """
    meta, observation = _meta(record), _text(_meta(record), "failed_observation")
    observed = quotable(observation[body_start(observation) :], record.get("execution"))
    quoted = telling_span(_text(_reflection(record), "evidence"), observed)
    found = {
        "corrected_without_tool": _corrected_tool(record) == UNKNOWN,
        "doubled_code_label": _DOUBLED_LABEL.search(_text(meta, "corrected_action")) is not None,
        "short_evidence": not quoted,
        "confessing_thought": bool(confession(_text(meta, "failed_action"))),
        "open_ending": _ends_open(record),
    }
    return [name for name, holds in found.items() if holds]


def content_key(record: Raw) -> tuple[str, ...]:
    """What makes a record the same as another to a learner: task, pictures, two codes, and what came back.

    Spacing does not count. A record without `rot_meta` is a clean one: all its turns count.
    """
    turns = record.get("conversations")
    given = turns if isinstance(turns, list) else []
    listed = [record.get(key) for key in IMAGE_KEYS if key in record]  # the files of ours are named by their content
    shown = json.dumps(listed, sort_keys=True, default=str)
    if not _meta(record):
        texts = [_said(turn.get("content", turn.get("value"))) for turn in given if isinstance(turn, dict)]
    else:
        contents = [turn.get("content", turn.get("value")) for turn in given if _is_user(turn)]
        task = next((_said(content) for content in contents if isinstance(content, str | list)), "")
        actions = [code_of(_text(_meta(record), key)) for key in ("failed_action", "corrected_action")]
        texts = [task, *actions, _text(_meta(record), "failed_observation")]
    return (shown, *(" ".join(text.split()) for text in texts))


def _said(content: object) -> str:
    """A text, or a list of parts with its pictures."""
    return content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=str)


def _is_user(turn: object) -> bool:
    return isinstance(turn, dict) and turn.get("role", turn.get("from")) in ("user", "human")


def _repeats(keys: Iterable[object]) -> list[bool]:
    """For each key whether it stood earlier; an empty one never did."""
    seen: set[object] = set()
    repeats = []
    for key in keys:
        repeats.append(bool(key) and key in seen)
        seen.add(key)
    return repeats


def _origins(records: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    blocks = [record.get("execution") for record in records]
    told = [block if isinstance(block, dict) else {} for block in blocks]
    return {key: _ordered(_text(block, key) or UNKNOWN for block in told) for key in ORIGINS}


def _complexity(records: list[dict[str, Any]]) -> dict[str, Spread]:
    """Spreads over records that keep every rule; what a record says of itself was computed when it was made."""
    typed = [rot_from_dict(record, ".") for record in records if not validate_rot(record)]
    found: list[Complexity] = [
        record_complexity(record) if record.execution is None else record.execution.complexity for record in typed
    ]
    return {
        "candidates": _spread(one.candidates for one in found),
        "steps_back": _spread(one.steps_back for one in found),
        "words": _spread(one.length for one in found),
        "score": _spread(one.score for one in found),
    }


def _deviations(error_types: Mapping[str, int], total: int) -> dict[str, float]:
    return {name: error_types.get(name, 0) / total - share for name, share in PAPER_SHARES.items()} if total else {}


def _lengths(records: list[dict[str, Any]]) -> dict[str, Spread]:
    conversations = [record.get("conversations") for record in records]
    return {
        "turns": _spread([len(turns) for turns in conversations if isinstance(turns, list)]),
        "evidence": _spread([_words(_reflection(record), "evidence") for record in records]),
        "fix_plan": _spread([_words(_reflection(record), "fix_plan") for record in records]),
        "failed_observation": _spread([_words(_meta(record), "failed_observation") for record in records]),
        "corrected_action": _spread([_words(_meta(record), "corrected_action") for record in records]),
    }


def audit(records: list[dict[str, Any]], rules: Rules = validate_rot) -> AuditReport:
    """Count broken rules, error types, tools, duplicates, lengths and origins over raw records, however broken.

    rules: gives the reasons to refuse a record; the engine's stricter ones go here for records of its own.
    """
    reasons = [rules(record) for record in records]
    identities = [identity_text(record.get("id")) for record in records]
    keys = [content_key(record) for record in records]
    same_id, same_content = _repeats(identities), _repeats(key if any(key) else () for key in keys)
    error_types = _ordered(_text(_meta(record), "error_type") or UNKNOWN for record in records)
    return AuditReport(
        total=len(records),
        valid=sum(not found for found in reasons),
        broken_rules=_ordered(rule for found in reasons for rule in {rule_of(reason) for reason in found}),
        warnings=_ordered(warning for record in records for warning in _warnings(record)),
        error_types=error_types,
        primary_tools=_ordered(_corrected_tool(record) for record in records),
        duplicate_ids=tuple(sorted(set(itertools.compress(identities, same_id)))),
        lengths=_lengths(records),
        hard_failures=sum(any(faults) for faults in zip(reasons, same_id, same_content, strict=True)),
        duplicate_contents=tuple(itertools.compress(identities, same_content)),
        origins=_origins(records),
        complexity=_complexity(list(itertools.compress(records, (not found for found in reasons)))),
        deviations=_deviations(error_types, len(records)),
    )
