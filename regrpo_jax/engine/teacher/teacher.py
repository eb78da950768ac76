"""A stronger model that explains failures and, on request, thinks up near misses. Optional: rules can do both.

What it says is checked before it is used, sent back when it is wrong, and kept on disk when it is right. Source:
ReGRPO (arXiv 2606.31392), where a teacher model writes the reflections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from regrpo_jax.engine.cases import Failure, NearMiss, Situation
from regrpo_jax.engine.teacher.client import ChatClient, Reply
from regrpo_jax.engine.teacher.limits import (
    AnswerCache,
    Budget,
    Spent,
    TeacherRefused,
    TeacherSettings,
    TeacherStopped,
    request_key,
)
from regrpo_jax.engine.teacher.questions import (
    ANNOTATE,
    PROPOSE,
    Malformed,
    annotate_text,
    data_url,
    image_text,
    near_misses_schema,
    propose_text,
    read_near_misses,
    read_reflection,
    reflection_schema,
    repair_text,
)
from regrpo_jax.records.reasons import printable
from regrpo_jax.records.types import ErrorType, Reflection
from regrpo_jax.toolbox.http_client import Clock

__all__ = ["Clock", "Teacher", "TeacherRefused", "TeacherSettings", "TeacherStopped"]

Answer = TypeVar("Answer")
Message = dict[str, Any]

_MOST_SENT_BACK = 4000  # characters of a wrong answer
_MOST_TOLD = 300  # characters of a refusal


class Teacher:
    """A chat model as annotator and proposer, for any number of threads. TeacherStopped when it cannot start."""

    def __init__(self, settings: TeacherSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self._budget = Budget(settings)
        self._cache = AnswerCache(Path(settings.cache))
        self._client = ChatClient(settings, self._budget, clock or Clock())

    @property
    def name(self) -> str:
        """How records name it as their annotator."""
        return f"teacher:{self.settings.model}"

    def spent(self) -> Spent:
        """Requests, tokens and dollars of every run that shared the cache."""
        return self._budget.spent()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def annotate(self, failure: Failure) -> Reflection:
        """The reflection on a failure; its evidence quotes what the near miss returned.

        TeacherRefused: none can be had for this failure. TeacherStopped: nothing more can be had for now.
        """
        if not failure.failed.text.strip():
            raise TeacherRefused("observation_empty: the failed action returned no text that could be quoted")
        messages = self._question(ANNOTATE, annotate_text(failure), failure.situation)
        schema = reflection_schema(failure.near_miss.error_type)
        return self._answer(messages, schema, lambda text: read_reflection(text, failure))

    def propose(self, situation: Situation, error_type: ErrorType) -> list[NearMiss]:
        """One to three near misses, the most believable first; whether they fail is for the sandbox to say.

        TeacherRefused and TeacherStopped as in `annotate`.
        """
        messages = self._question(PROPOSE, propose_text(situation, error_type), situation)
        return self._answer(messages, near_misses_schema(), lambda text: read_near_misses(text, situation, error_type))

    def _question(self, system: str, text: str, situation: Situation) -> list[Message]:
        text = _encodable(text)
        content: str | list[Message] = text
        if self.settings.images and situation.images:
            content = [{"type": "text", "text": text}]
            for placeholder, name in situation.images.items():
                url = data_url(name, situation.task.file(name), self.settings.longest_side)
                content.append({"type": "text", "text": _encodable(image_text(placeholder, name))})
                content.append({"type": "image_url", "image_url": {"url": url}})
        return [{"role": "system", "content": system}, {"role": "user", "content": content}]

    def _answer(self, messages: list[Message], schema: dict[str, Any], read: Callable[[str], Answer]) -> Answer:
        """From the cache, else from the server."""
        key = request_key(
            {
                "model": self.settings.model,
                "messages": _digested(messages),
                "schema": schema,
                "temperature": self.settings.temperature,
                "seed": self.settings.seed,
            }
        )
        with self._cache.lock(key):
            kept = self._cache.get(key)
            if kept is not None:
                try:
                    return read(kept)
                except Malformed:
                    pass  # damaged, or kept by a version that checked less: it is asked again and replaced
            text, answer = self._asked(messages, schema, read)
            self._cache.put(key, self.settings.model, text)
            return answer

    def _asked(
        self, messages: list[Message], schema: dict[str, Any], read: Callable[[str], Answer]
    ) -> tuple[str, Answer]:
        """Ask, and send wrong answers back. TeacherRefused when no right one comes."""
        conversation = list(messages)
        for _ in range(self.settings.repairs + 1):
            reply = self._client.ask(conversation, schema)
            _check_willing(reply)
            try:
                if reply.finish == "length":
                    raise Malformed(f"it was cut off after {self.settings.max_tokens} tokens: be shorter")
                return reply.content, read(reply.content)
            except Malformed as error:
                problems = error.problems
            said = _encodable(reply.content[:_MOST_SENT_BACK])
            conversation = [
                *messages,
                {"role": "assistant", "content": said or "(nothing)"},
                {"role": "user", "content": repair_text(problems)},
            ]
        told = printable("; ".join(problems), _MOST_TOLD)
        raise TeacherRefused(f"answer_malformed: still after {self.settings.repairs} repairs: {told}")


def _encodable(text: str) -> str:
    """Without half characters, which no request can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _check_willing(reply: Reply) -> None:
    if reply.refusal:
        raise TeacherRefused(f"teacher_refusal: it said {printable(reply.refusal, _MOST_TOLD)!r}")
    if reply.finish == "content_filter":
        raise TeacherRefused("content_filter: the server's filter cut the answer off")


def _digested(messages: list[Message]) -> list[Message]:
    """The messages with the digests of their images in the images' place."""
    return [
        message
        if isinstance(message["content"], str)
        else message | {"content": list(map(_digest, message["content"]))}
        for message in messages
    ]


def _digest(part: Message) -> Message:
    if part["type"] != "image_url":
        return part
    return {"type": "image_url", "sha256": hashlib.sha256(part["image_url"]["url"].encode("ascii")).hexdigest()}
