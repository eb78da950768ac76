"""Whether an episode of a GTA record came to what is right; called on the host (`environments.own_check`).

objective   the official rule: every whitelist group is hit and no blacklist entry, see `official_answers.py`
subjective  the answer is one of the references, letter by letter; the official similarity is the scorer's business
image       the drawing tool that the dialog calls last was really called, without a failure, and a picture of its
            name is there that can be opened. Nobody knows what is right of the picture itself
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from regrpo_jax.environments.own_check import CheckedWorkspace
from regrpo_jax.records.opened_images import FORMATS, ImageError, open_image_bytes
from regrpo_jax.records.types import Status
from regrpo_jax.suites.gta.gta_tool import RECORDED
from regrpo_jax.suites.gta.official_answers import is_correct
from regrpo_jax.suites.gta.record_types import IMAGE, Answer, GtaRecord, ToolDescription

CHECK = f"{__name__}:check"
OBJECTIVE, SUBJECTIVE, PICTURE = "objective", "subjective", "image"


def kind_of(answer: Answer) -> str:
    """Which of the three rules decides."""
    return OBJECTIVE if answer.objective else SUBJECTIVE if answer.subjective else PICTURE


def expected_of(record: GtaRecord, described: Mapping[str, ToolDescription]) -> str:
    """What `check` is told of the right answer, as JSON."""
    answer = record.answer
    told: dict[str, Any] = {"kind": kind_of(answer)}
    if answer.objective:
        told |= {"whitelist": answer.whitelist, "blacklist": answer.blacklist}
    elif answer.subjective:
        told |= {"references": answer.references}
    else:
        told |= {"tool": drawing_tool(record, described), "given": [file.path for file in record.files]}
    return json.dumps(told, ensure_ascii=False, sort_keys=True)


def drawing_tool(record: GtaRecord, described: Mapping[str, ToolDescription]) -> str:
    """The tool that makes the dialog's last picture; "" where none does."""
    draws = {name for name, tool in described.items() if any(output.type == IMAGE for output in tool.outputs)}
    called = [call.name for turn in record.dialog for call in turn.calls if call.name in draws]
    return called[-1] if called else ""


def check(answer: object, workspace: CheckedWorkspace, expected: str) -> bool:
    """See above. expected: as `expected_of` writes it."""
    told = json.loads(expected)
    text = answer if isinstance(answer, str) else str(answer)
    if told["kind"] == OBJECTIVE:
        whitelist, blacklist = (tuple(map(tuple, told[name])) for name in ("whitelist", "blacklist"))
        return is_correct(text, Answer(whitelist, blacklist, objective=True))
    if told["kind"] == SUBJECTIVE:
        return text.strip() in {reference.strip() for reference in told["references"]}
    if told["tool"] and not any(call.name == told["tool"] and call.status == Status.OK for call in workspace.calls):
        return False
    made = [name for name in workspace.names() if name not in told["given"] and _made_by(name, told["tool"])]
    return any(_opens(workspace.read(name)) for name in made)


def _made_by(name: str, tool: str) -> bool:
    """Whether tools write such a name: `<tool>_<n>.png`, with `recorded_` before it for a stand-in."""
    path = PurePosixPath(name)
    if not tool:
        return path.suffix.lower().lstrip(".") in {*map(str.lower, FORMATS), "jpg", "tif"}
    stem, _, number = path.stem.casefold().removeprefix(f"{RECORDED}_").rpartition("_")
    return len(path.parts) == 1 and stem == tool.casefold() and number.isdigit()


def _opens(content: bytes) -> bool:
    try:
        open_image_bytes(content, trusted=False)
    except ImageError:
        return False
    return True
