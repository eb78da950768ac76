"""What is written down: trajectories, failures and reflections, read and checked without an accelerator."""

from regrpo_jax.records.actions import (
    KNOWN_TOOLS,
    action_signature,
    actions_equivalent,
    extract_code,
    extract_tool_calls,
    primary_tool,
    split_action,
)
from regrpo_jax.records.audit import AuditReport, audit, content_key
from regrpo_jax.records.audit_page import format_audit
from regrpo_jax.records.candidates import Candidate, contrastive_candidates
from regrpo_jax.records.complexity import complexity, complexity_score, record_complexity
from regrpo_jax.records.conversation import (
    is_observation_text,
    normalise_turns,
    parse_trajectory,
    strip_observation,
)
from regrpo_jax.records.differences import Change, ChangeKind, Difference, difference
from regrpo_jax.records.loading import load_clean, load_rot, read_records
from regrpo_jax.records.observation_text import classify_observation_text
from regrpo_jax.records.reasons import RecordError
from regrpo_jax.records.reflection import (
    evidence_grounded,
    parse_reflection,
    quoted_span,
    render_reflection,
    split_reflection,
    telling_span,
)
from regrpo_jax.records.rot import rot_from_dict, rot_to_dict, validate_rot
from regrpo_jax.records.tool_names import tools_of, tools_of_raw
from regrpo_jax.records.types import (
    Complexity,
    ErrorType,
    ExecutedStep,
    Execution,
    ImageReference,
    Observation,
    Reflection,
    Rejection,
    RotRecord,
    Status,
    Step,
    ToolCall,
    Trajectory,
    Turn,
)

__all__ = [
    "KNOWN_TOOLS",
    "AuditReport",
    "Candidate",
    "Change",
    "ChangeKind",
    "Complexity",
    "Difference",
    "ErrorType",
    "ExecutedStep",
    "Execution",
    "ImageReference",
    "Observation",
    "RecordError",
    "Reflection",
    "Rejection",
    "RotRecord",
    "Status",
    "Step",
    "ToolCall",
    "Trajectory",
    "Turn",
    "action_signature",
    "actions_equivalent",
    "audit",
    "classify_observation_text",
    "complexity",
    "complexity_score",
    "content_key",
    "contrastive_candidates",
    "difference",
    "evidence_grounded",
    "extract_code",
    "extract_tool_calls",
    "format_audit",
    "is_observation_text",
    "load_clean",
    "load_rot",
    "normalise_turns",
    "parse_reflection",
    "parse_trajectory",
    "primary_tool",
    "quoted_span",
    "read_records",
    "record_complexity",
    "render_reflection",
    "rot_from_dict",
    "rot_to_dict",
    "split_action",
    "split_reflection",
    "strip_observation",
    "telling_span",
    "tools_of",
    "tools_of_raw",
    "validate_rot",
]
