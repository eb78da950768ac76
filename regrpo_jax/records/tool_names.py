"""Which tools a record's actions may call: the known ones, and those the record itself says its episode had."""

from __future__ import annotations

from collections.abc import Mapping

from regrpo_jax.records.actions import KNOWN_TOOLS
from regrpo_jax.records.types import RotRecord


def tools_of(record: RotRecord) -> frozenset[str]:
    """KNOWN_TOOLS and the tools of the record's execution block."""
    return KNOWN_TOOLS if record.execution is None else KNOWN_TOOLS | set(record.execution.tools)


def tools_of_raw(record: Mapping[str, object]) -> frozenset[str]:
    """The same of a raw record, however broken its execution block is."""
    execution = record.get("execution")
    tools = execution.get("tools") if isinstance(execution, dict) else None
    return KNOWN_TOOLS | {name for name in tools if isinstance(name, str)} if isinstance(tools, dict) else KNOWN_TOOLS
