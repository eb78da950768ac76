"""A check of a person's own that looks at the workspace."""

from __future__ import annotations

from regrpo_jax.environments.own_check import CheckedWorkspace

CHECK = "tests.workers.own_checks:painted"


def painted(answer: object, workspace: CheckedWorkspace) -> bool:
    """Whether the picture is there, and the last call was that of the answer."""
    last = workspace.calls[-1].name
    return answer == 42 and workspace.read("paint_1.png").startswith(b"\x89PNG") and last == "final_answer"
