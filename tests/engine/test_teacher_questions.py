"""What a teacher is asked and shown, and what it costs, over real HTTP."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regrpo_jax.engine.cases import Failure
from regrpo_jax.engine.gates import gate_reasons
from regrpo_jax.engine.teacher.teacher import Teacher, TeacherRefused
from regrpo_jax.engine.writing import rot_record
from regrpo_jax.environments.task import TaskFile
from regrpo_jax.records.reflection import quoted_span
from regrpo_jax.records.types import ErrorType
from tests.engine.openai_server import Server, openai_server, question
from tests.engine.teacher_cases import FastClock, picture, settings, simple_failure, some_failures

FAILURE = simple_failure()


@pytest.fixture
def server() -> Iterator[Server]:
    with openai_server() as made:
        yield made


@pytest.fixture
def clock() -> FastClock:
    return FastClock()


def teacher(server: Server, folder: Path, clock: FastClock, **changes: Any) -> Teacher:
    return Teacher(settings(server.url, folder, **changes), clock.clock())


def test_a_reflection_is_asked_for_with_all_that_the_teacher_must_know(
    server: Server, tmp_path: Path, clock: FastClock
) -> None:
    for failure in some_failures(8):
        found = teacher(server, tmp_path, clock).annotate(failure)
        assert found.error_type == failure.near_miss.error_type
        assert len(quoted_span(found.evidence, failure.failed.text)) >= 8
        body, told = server.seen[-1], question(server.seen[-1])
        for text in (failure.situation.instruction, failure.near_miss.code, failure.failed.text,
                     failure.situation.step.code, *failure.situation.tools):  # fmt: skip
            assert text in told
        for number, step in enumerate(failure.situation.steps[: failure.situation.index]):
            assert step.code in told and failure.observations[number].text in told
        assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("wise", 0.0, 0, 1024)
        schema = body["response_format"]["json_schema"]
        assert schema["strict"] and schema["schema"]["properties"]["error_type"]["enum"] == [found.error_type]
        record = rot_record(failure, found, number=0, annotator="teacher:wise", loader="module:function", seed=0)
        assert gate_reasons(record) == ()
    assert clock.waits == [] or max(clock.waits) < 1e-3


def with_pictures(*contents: bytes) -> Failure:
    failure = simple_failure()
    names = [f"picture_{number}.png" for number in range(len(contents))]
    files = tuple(map(TaskFile, names, contents))
    images = {f"<image_{number:02d}>": name for number, name in enumerate(names)}
    situation = replace(
        failure.situation, task=replace(failure.situation.task, files=files, images=tuple(names)), images=images
    )
    return replace(failure, situation=situation)


def test_pictures_are_shown_as_they_are_or_shrunk(server: Server, tmp_path: Path, clock: FastClock) -> None:
    small, jpeg, bitmap, large = picture(), picture("JPEG"), picture("BMP"), picture("PNG", (3000, 1500))
    failure = with_pictures(small, jpeg, bitmap, large)
    assert teacher(server, tmp_path, clock, images=True, longest_side=1000).annotate(failure)
    parts = server.seen[-1]["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["text", *["text", "image_url"] * 4]
    assert "<image_03>" in parts[7]["text"] and "picture_3.png" in parts[7]["text"]
    kinds, contents = zip(*(part["image_url"]["url"].split(";base64,") for part in parts[2::2]), strict=True)
    assert kinds == ("data:image/png", "data:image/jpeg", "data:image/png", "data:image/png")
    decoded = [base64.b64decode(content) for content in contents]
    assert decoded[:2] == [small, jpeg]
    assert [Image.open(io.BytesIO(data)).size for data in decoded[2:]] == [(16, 12), (1000, 500)]
    assert teacher(server, tmp_path, clock).annotate(failure)  # without images it is another question
    assert len(server.seen) == 2 and isinstance(server.seen[-1]["messages"][1]["content"], str)


def test_another_picture_is_another_question(server: Server, tmp_path: Path, clock: FastClock) -> None:
    asker = teacher(server, tmp_path, clock, images=True)
    for content in (picture(), picture(size=(17, 12)), picture()):
        assert asker.annotate(with_pictures(content))
    assert len(server.seen) == 2
    with pytest.raises(TeacherRefused, match="^image: "):
        asker.annotate(with_pictures(picture()[:45]))


def test_near_misses_are_proposed(server: Server, tmp_path: Path, clock: FastClock) -> None:
    situation = FAILURE.situation
    said = [{"thought": "maybe there.", "code": 'read("harbour")'}, {"thought": "x", "code": 'read("bridge")'}]
    server.script.answer = lambda body: json.dumps({"near_misses": said})
    asker = teacher(server, tmp_path, clock)
    found = asker.propose(situation, ErrorType.GROUNDING_DRIFT)
    assert [(one.code, one.proposer, one.error_type) for one in found] == [
        ('read("harbour")', "teacher", ErrorType.GROUNDING_DRIFT)
    ]
    assert asker.propose(situation, ErrorType.GROUNDING_DRIFT) == found and len(server.seen) == 1
    assert asker.propose(situation, ErrorType.ARG_INVALID) and len(server.seen) == 2
    server.script.answer = lambda body: json.dumps({"near_misses": said[1:]})
    with pytest.raises(TeacherRefused, match="^answer_malformed: .*same as the right action"):
        asker.propose(situation, ErrorType.INFO_INSUFFICIENT)


def test_a_bill_is_read_from_the_answers(server: Server, tmp_path: Path, clock: FastClock) -> None:
    prices = {"dollars_per_million_input_tokens": 10.0, "dollars_per_million_output_tokens": 100.0}
    asker = teacher(server, tmp_path, clock, **prices)
    asker.annotate(FAILURE)
    spent = asker.spent()
    assert (spent.input_tokens, spent.output_tokens) == (100, 20)
    assert spent.dollars == pytest.approx(0.003)
    server.script.usage = None  # this server does not tell: what was reserved stays spent
    asker.annotate(simple_failure(right='read("moon")'))
    assert asker.spent().dollars > 0.1
