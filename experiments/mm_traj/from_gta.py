"""GTA's dialogs written as MM-Traj's trajectories: real questions, real calls, real results of tools.

    python -m experiments.mm_traj.from_gta GTA_FOLDER FOLDER      writes gta.json, with pictures that stand in

GTA's pictures are not needed: each file that a dialog names gets a picture of noise, so that whatever looks at one has
to be recorded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from experiments.mm_traj.invented import observed, picture, record


def steps_of(dialogs: list[dict[str, Any]]) -> tuple[list[tuple[str, str, str]], str]:
    """Steps, and what the assistant says at the end."""
    steps, said = [], ""
    for number, turn in enumerate(dialogs):
        if turn["role"] != "assistant":
            continue
        if not turn.get("tool_calls"):
            said = turn.get("content") or ""
            continue
        call = turn["tool_calls"][0]["function"]
        answer = dialogs[number + 1] if number + 1 < len(dialogs) else {}
        content = answer.get("content") if answer.get("role") == "tool" else None
        text = content.get("content", "") if isinstance(content, dict) else content or ""
        given = ", ".join(f"{name}={value!r}" for name, value in call["arguments"].items())
        code = f"result = {call['name']}({given})\nprint(result)"
        thought = (turn.get("thought") or "I go on.").partition("```")[0].strip()
        steps.append((thought, code, observed(str(text))))
    return steps, said


def answer_of(told: dict[str, Any]) -> str:
    """The first alias of each group of the whitelist; "" where there is none."""
    gold = told.get("gt_answer")
    if isinstance(gold, dict):
        return ", ".join(str(group[0]) for group in gold.get("whitelist") or [])
    return str(gold[0]) if isinstance(gold, list) and gold else ""


def write(gta: Path, folder: Path) -> Path:
    """The trajectories and stand-ins for the pictures; the path of the JSON."""
    file = next(path for path in (gta / "dataset.json", gta / "dataset.subset.json") if path.is_file())
    found = []
    for number, (name, told) in enumerate(json.loads(file.read_text(encoding="utf-8")).items()):
        steps, said = steps_of(told["dialogs"])
        answer = answer_of(told)
        final = ("I know it now.", f"final_answer({said or answer!r})", "")
        images = {f"<image_{at:02d}>": one["path"] for at, one in enumerate(told["files"])}
        for at, path in enumerate(images.values()):
            picture(folder / path, 100 * number + at)
        task = "".join(f"{mark}\n" for mark in images) + f"Task: {told['dialogs'][0]['content']}"
        found.append(
            record(f"gta_{name}", task, [*steps, final], image=images, answer=answer if answer in said else None)
        )
    path = folder / "gta.json"
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return path


if __name__ == "__main__":
    place = Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    print(write(Path(sys.argv[1]), place))
