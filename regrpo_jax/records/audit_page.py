"""The audit as a page of text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regrpo_jax.records.audit import AuditReport, Spread
from regrpo_jax.records.reasons import printable

_MOST_NAMES = 20  # ids that are written out


def _counts(title: str, counts: Mapping[str, int], total: int) -> list[str]:
    lines = [f"  {printable(name):<28} {count:>7}  {count / total:6.1%}" for name, count in counts.items()]
    return [title, *(lines or ["  (none)"])]


def _spreads(title: str, spreads: Mapping[str, Spread]) -> list[str]:
    lines = [f"{title:<38}   smallest   median  largest"]
    return lines + [
        f"  {name:<38} {spread.smallest:>10g} {spread.median:>8.3g} {spread.largest:>8g}"
        for name, spread in spreads.items()
    ]


def format_audit(report: AuditReport) -> str:
    """The report as a page of text for a terminal."""
    total = max(report.total, 1)
    lines = [f"{report.valid} of {report.total} records keep every rule; {report.hard_failures} hard failures"]
    lines += _counts("broken rules", report.broken_rules, total)
    lines += _counts("warnings", report.warnings, total)
    lines += _counts("error types", report.error_types, total)
    if report.deviations:
        told = ", ".join(f"{name} {points:+.1%}" for name, points in report.deviations.items())
        lines += [f"error types against the paper's shares: {told}"]
    lines += _counts("tool of the corrected action", report.primary_tools, total)
    for name, counts in report.origins.items():
        lines += _counts(f"{name} of the execution", counts, total)
    lines += [f"ids used more than once: {_listed(report.duplicate_ids)}"]
    lines += [f"ids of records that repeat an earlier one's task and actions: {_listed(report.duplicate_contents)}"]
    lines += _spreads("lengths in words (turns: number)", report.lengths)
    lines += _spreads("complexity of the reflections", report.complexity)
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:_MOST_NAMES]))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{shown}{more}" or "(none)"
