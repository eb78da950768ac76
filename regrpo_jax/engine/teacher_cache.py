"""Answers on disk, by what was asked: a run that is resumed asks nothing twice and gets the same answers.

Only answers that were found valid are kept. A file that is damaged counts as none, so that its question is asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regrpo_jax.engine.teacher_settings import TeacherStopped


def request_key(request: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of plain data, whatever the order of its keys."""
    text = json.dumps(request, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file that nobody sees half of, from any number of threads and processes. OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class AnswerCache:
    """A folder of answers. `lock(key)` keeps two threads from asking the same at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def lock(self, key: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def get(self, key: str) -> str | None:
        """The text of the answer; None when there is none that can be read."""
        try:
            entry = json.loads(self._path(key).read_text(encoding="utf-8"))
            answer = entry["answer"] if entry["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return answer if isinstance(answer, str) else None

    def put(self, key: str, model: str, answer: str) -> None:
        """Keep an answer. TeacherStopped when the disk does not take it: it would be paid for again."""
        entry = json.dumps({"key": key, "model": model, "answer": answer}, ensure_ascii=True, sort_keys=True)
        try:
            write_whole(self._path(key), entry + "\n")
        except OSError as error:
            raise TeacherStopped(
                f"{self._path(key)}: the teacher's answer cannot be written ({error.strerror}); make room or rights "
                "and run again"
            ) from error

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
