"""What a corpus of Reflection-of-Thought records is like: which rules it breaks, and what it would teach.

Run before training: a corpus where half of the failures are of one kind, or where every reflection is twice
as long as the cost `eta` assumes, is worth knowing about before the run rather than after.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from regrpo_jax.records.actions import code_of, extract_tool_calls, primary_tool
from regrpo_jax.records.reasons import printable, rule_of
from regrpo_jax.records.rot_rules import validate_rot

_DOUBLED_LABEL = re.compile(r"\bCode\s*:\s*\n\s*Code\s*:")
UNKNOWN = "(none)"


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest of a set of lengths; all 0 for an empty set."""

    smallest: int
    median: float
    largest: int


@dataclass(frozen=True)
class AuditReport:
    """The result of `audit`; counts are of records, in `broken_rules` once for every rule broken.

    `warnings` are no reasons to refuse a record: `corrected_without_tool` and `doubled_code_label`. Lengths
    are in words, but `turns` in turns.
    """

    total: int
    valid: int
    broken_rules: Mapping[str, int]
    warnings: Mapping[str, int]
    error_types: Mapping[str, int]
    primary_tools: Mapping[str, int]
    duplicate_ids: tuple[str, ...]
    lengths: Mapping[str, Spread]


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


def _spread(lengths: list[int]) -> Spread:
    return Spread(min(lengths), statistics.median(lengths), max(lengths)) if lengths else Spread(0, 0, 0)


def _words(values: Mapping[str, Any], key: str) -> int:
    return len(_text(values, key).split())


def _corrected_tool(record: Mapping[str, Any]) -> str:
    return primary_tool(extract_tool_calls(code_of(_text(_meta(record), "corrected_action")))) or UNKNOWN


def _warnings(record: Mapping[str, Any]) -> list[str]:
    found = ["corrected_without_tool"] if _corrected_tool(record) == UNKNOWN else []
    return [*found, "doubled_code_label"] if _DOUBLED_LABEL.search(_text(_meta(record), "corrected_action")) else found


def _lengths(records: list[dict[str, Any]]) -> dict[str, Spread]:
    conversations = [record.get("conversations") for record in records]
    return {
        "turns": _spread([len(turns) for turns in conversations if isinstance(turns, list)]),
        "evidence": _spread([_words(_reflection(record), "evidence") for record in records]),
        "fix_plan": _spread([_words(_reflection(record), "fix_plan") for record in records]),
        "failed_observation": _spread([_words(_meta(record), "failed_observation") for record in records]),
        "corrected_action": _spread([_words(_meta(record), "corrected_action") for record in records]),
    }


def audit(records: list[dict[str, Any]]) -> AuditReport:
    """Count broken rules, error types, tools, duplicates and lengths over raw records, however broken."""
    reasons = [validate_rot(record) for record in records]
    ids = Counter(record["id"] for record in records if isinstance(record.get("id"), str))
    return AuditReport(
        total=len(records),
        valid=sum(not found for found in reasons),
        broken_rules=_ordered(rule for found in reasons for rule in {rule_of(reason) for reason in found}),
        warnings=_ordered(warning for record in records for warning in _warnings(record)),
        error_types=_ordered(_text(_meta(record), "error_type") or UNKNOWN for record in records),
        primary_tools=_ordered(_corrected_tool(record) for record in records),
        duplicate_ids=tuple(sorted(identity for identity, count in ids.items() if count > 1)),
        lengths=_lengths(records),
    )


def _counts(title: str, counts: Mapping[str, int], total: int) -> list[str]:
    lines = [f"  {printable(name):<28} {count:>7}  {count / total:6.1%}" for name, count in counts.items()]
    return [title, *(lines or ["  (none)"])]


def format_audit(report: AuditReport) -> str:
    """The report as a page of text for a terminal."""
    total = max(report.total, 1)
    lines = [f"{report.valid} of {report.total} records keep every rule"]
    lines += _counts("broken rules", report.broken_rules, total)
    lines += _counts("warnings", report.warnings, total)
    lines += _counts("error types", report.error_types, total)
    lines += _counts("tool of the corrected action", report.primary_tools, total)
    lines += [f"ids used more than once: {', '.join(map(printable, report.duplicate_ids)) or '(none)'}"]
    lines += ["lengths in words (turns: number)          smallest   median  largest"]
    lines += [
        f"  {name:<38} {spread.smallest:>10} {spread.median:>8g} {spread.largest:>8}"
        for name, spread in report.lengths.items()
    ]
    return "\n".join(lines)
