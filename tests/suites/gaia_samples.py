"""Invented questions in GAIA's exact formats; its own may not be given out again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

STEPS = {"Steps": "1. Add.", "Number of steps": "1", "How long did this take?": "1 minute", "Tools": "None"}


def told(name: str, level: Any = 1, right: str = "12", file: str = "", question: str = "How many?") -> dict[str, Any]:
    """A line of `metadata.jsonl`."""
    return {
        "task_id": name,
        "Question": question,
        "Level": level,
        "Final answer": right,
        "file_name": file,
        "Annotator Metadata": STEPS,
    }


QUESTIONS = [
    told("a-1", 1, "12", "a-1.png"),
    told("a-2", "1", "St. Petersburg"),
    told("b-1", 2, "apples, 3, pears", "b-1.csv"),
    told("b-2", "2", "1,000"),
    told("c-1", 3, "Right; left"),
]


def png() -> bytes:
    """A picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return buffer.getvalue()


def folder(place: Path, questions: list[Any] | None = None) -> Path:
    """A folder of one split, with the attachments of `QUESTIONS`."""
    place.mkdir(parents=True, exist_ok=True)
    lines = [
        one if isinstance(one, str) else json.dumps(one) for one in (QUESTIONS if questions is None else questions)
    ]
    (place / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (place / "a-1.png").write_bytes(png())
    (place / "b-1.csv").write_text("a,b\n1,2\n")
    return place


def answers(place: Path, by_id: dict[str, Any]) -> Path:
    """A file of answers as the leaderboard takes it."""
    lines = [{"task_id": name, "model_answer": answer, "reasoning_trace": ""} for name, answer in by_id.items()]
    place.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place
