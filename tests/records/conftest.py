"""Records of our own, written as the authors' JSON would hold them, for every test of the records wing."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.records import extract_code

FAILED = 'Thought: I read the ledger.\n\nCode:\n```py\ninspect_file_as_text("legder.csv", question="total")\n```'
CORRECTED = 'Thought: The name was wrong.\n\nCode:\n```py\ninspect_file_as_text("ledger.csv", question="total")\n```'
EVIDENCE = "It answered 'File not found: legder.csv', so the name is misspelled."
FIX_PLAN = "Read ledger.csv, the attached file."
BLOCK = f"Reflection:\n- ErrorType: ArgInvalid\n- Evidence: {EVIDENCE}\n- FixPlan: {FIX_PLAN}\n"

ROT_RECORD: dict[str, Any] = {
    "id": "ledger_rot_s1_ArgInvalid",
    "image": {},
    "answer": "1280",
    "conversations": [
        {"role": "system", "content": "Solve the task with tools."},
        {"role": "user", "content": "Task: What is the total in ledger.csv?"},
        {
            "role": "assistant",
            "content": 'Thought: Look around.\n\nCode:\n```py\nprint(list_files("."))\n```',
        },
        {"role": "user", "content": "[OUTPUT OF STEP 0] -> Observation:\nledger.csv"},
        {"role": "assistant", "content": FAILED},
        {"role": "user", "content": "[OUTPUT OF STEP 1] -> Observation:\nError: File not found: legder.csv"},
        {"role": "assistant", "content": BLOCK + CORRECTED},
        {"role": "user", "content": "[OUTPUT OF STEP 1] -> Observation:\nTotal: 1280"},
        {"role": "assistant", "content": 'Thought: Done.\n\nCode:\n```py\nfinal_answer("1280")\n```'},
    ],
    "rot_meta": {
        "src_id": "ledger",
        "step_index": 1,
        "error_type": "ArgInvalid",
        "failed_action": FAILED,
        "failed_observation": "Error: File not found: legder.csv",
        "reflection": {"error_type": "ArgInvalid", "evidence": EVIDENCE, "fix_plan": FIX_PLAN},
        "corrected_action": CORRECTED,
        "final_answer": "1280",
    },
}

TOOLS = {"final_answer": "1", "inspect_file_as_text": "2", "list_files": "1"}
STATUSES = ("ok", "tool_error", "ok", "ok")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _steps(record: dict[str, Any]) -> list[dict[str, str]]:
    turns = record["conversations"]
    said = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    texts = [turns[index + 1]["content"].partition("\n")[2] if index + 1 < len(turns) else "" for index in said]
    return [
        {
            "code_sha256": _digest(extract_code(turns[index]["content"])),
            "status": status,
            "observation_sha256": _digest(text),
        }
        for index, text, status in zip(said, texts, STATUSES, strict=True)
    ]


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Writes the execution block that belongs to the record's turns, as if these had been run."""
    reflection = record["rot_meta"]["reflection"]
    words = len(reflection["evidence"].split()) + len(reflection["fix_plan"].split())
    record["execution"] = {
        "version": 1,
        "kind": "executed",
        "source": "oracle",
        "proposer": "misspelled_name",
        "annotator": "rules",
        "task": "books/ledger/1",
        "task_sha256": _digest("ledger"),
        "loader": "books.tools:load",
        "tools": dict(TOOLS),
        "seed": 7,
        "steps": _steps(record),
        "failed_step": 1,
        "repaired": True,
        "complexity": {"candidates": 1, "steps_back": 1, "length": words, "score": 0.25},
    }
    return record


CLEAN_RECORD: dict[str, Any] = {
    "id": "ledger",
    "image": None,
    "answer": 1280,
    "conversations": [
        {"from": "human", "value": "Task: What is the total in ledger.csv?"},
        {
            "from": "gpt",
            "value": "Thought: Read it.\nCode:\n```python\nt = inspect_file_as_text('ledger.csv')\n```",
        },
        {"from": "observation", "value": "Total: 1280"},
        {"from": "gpt", "value": "Thought: Done.\nCode:\n```py\nfinal_answer(1280)\n```"},
    ],
}


@pytest.fixture(scope="session")
def rot_record() -> Callable[[], dict[str, Any]]:
    """Makes a fresh valid record, so that a test may break it."""
    return lambda: copy.deepcopy(ROT_RECORD)


@pytest.fixture(scope="session")
def executed_record() -> Callable[[], dict[str, Any]]:
    """Makes a fresh valid record with the execution block that the data engine writes."""
    return lambda: seal(copy.deepcopy(ROT_RECORD))


@pytest.fixture(scope="session")
def clean_record() -> Callable[[], dict[str, Any]]:
    """Makes a fresh clean trajectory in the from/value form, without a system turn."""
    return lambda: copy.deepcopy(CLEAN_RECORD)


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a value as JSON into a new folder and gives the file's path."""

    def write(value: Any) -> Path:
        path = tmp_path / "records.json"
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    return write
