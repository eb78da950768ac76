"""The page of a run: everything is in it, nothing in it runs or is loaded, whatever a task or a policy wrote."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import regrpo_jax
from regrpo_jax.environments import viewer
from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.episode_result import EpisodeResult, Outcome
from regrpo_jax.environments.faults import Fault, FaultKind
from regrpo_jax.environments.task import TaskFile
from regrpo_jax.environments.viewer import render_run, summary, write_run
from regrpo_jax.records.types import ErrorType, Observation, Reflection, Status, Step
from tests.environments.conftest import make_task, png, turn

REFLECTION = 'Reflection:\n- ErrorType: ArgInvalid\n- Evidence: "sum.txt"\n- FixPlan: Read it.\n'


TAGS = set(re.findall(r"<(\w+)", (Path(viewer.__file__).parent / "viewer.html.jinja").read_text(encoding="utf-8")))


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag]

    def classes(self, tag: str) -> list[str]:
        return [found.get("class") or "" for found in self.attributes(tag)]


def step(index: int, text: str, status: Status, seen: str, code: str = "1", images: tuple[str, ...] = ()) -> Step:
    reflection = Reflection(ErrorType.ARG_INVALID, "x", "y") if text.startswith("Reflection") else None
    observation = Observation(status, seen, images, size=len(seen))
    return Step(index, "Try it.", code, (), observation, reflection, text)


def solved(**changes: object) -> EpisodeResult:
    task = make_task(faults=(Fault(FaultKind.RENAMED_FILE, "a.txt", {"name": "sum.txt"}),), **changes)
    steps = (
        step(0, turn("1"), Status.TOOL_ERROR, 'Files here: "sum.txt"'),
        step(1, REFLECTION + turn("1"), Status.OK, "total 42", images=("paint_1.png", "gone.png")),
    )
    return EpisodeResult(task, Outcome.ANSWERED, 42, True, steps, {(1, "paint_1.png"): png("blue")})


def failed() -> EpisodeResult:
    task = make_task(id="other", family="looking")
    return EpisodeResult(
        task, Outcome.OUT_OF_STEPS, None, False, (step(0, "no", Status.INVALID_ACTION, "No code", ""),)
    )


def broken() -> EpisodeResult:
    return EpisodeResult(make_task(id="lost"), Outcome.INFRA_ERROR, None, False, (), error="the sandbox failed")


def test_a_page_shows_the_run() -> None:
    rows = {"success": {"oracle": 1.0, "random": 0.0}, "episodes": {"oracle": 1000}}
    page = Page(render_run("A run", [solved(), failed(), broken()], rows))
    words = " ".join(page.texts)
    told = "A run|100.0%|1,000|What is the total?|renamed_file: a.txt|total 17|tool error|Try it.|out of steps"
    for expected in (*told.split("|"), 'Files here: "sum.txt"', "the sandbox failed"):
        assert expected in words, expected
    assert page.classes("pre").count("reflection") == 1
    assert {"seen tool_error", "seen ok", "seen invalid_action"} <= set(page.classes("pre"))
    results = [found["data-result"] for found in page.attributes("details") if found.get("class") == "episode"]
    assert results == ["solved", "failed", "infra error"]
    families = [found["data-family"] for found in page.attributes("details") if found.get("class") == "episode"]
    assert families == ["reading", "looking", "reading"]
    assert words.count("cannot be shown") == 1  # the image that nobody kept
    assert "only the tools read it" not in words
    behind = solved(files=(TaskFile("a.txt", b"x"), TaskFile("b.txt", b"total 9", behind=True)), images=())
    words = " ".join(" ".join(Page(render_run("A run", [behind])).texts).split())
    assert words.count("only the tools read it") == 1 and "b.txt 7 bytes, only the tools read it" in words


def test_a_page_needs_nothing_else() -> None:
    text = render_run("A run", [solved(), failed()])
    page = Page(text)
    assert not page.attributes("link") and not page.attributes("iframe") and not page.attributes("a")
    sources = [found["src"] for _, found in page.tags if "src" in found]
    assert len(sources) == 3 and all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in text and "https://" not in text and "url(" not in text
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(found["content"] for found in page.attributes("meta") if "http-equiv" in found)
    assert policy is not None and f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


hostile = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    ["<script>alert(1)</script>", "</pre><img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "'\"><b>", "\ud800", "\0", "-->"]
)


@settings(deadline=None)
@given(hostile, hostile, hostile)
def test_what_was_written_stays_text(first: str, second: str, third: str) -> None:
    task = make_task(
        id=first, family=second, instruction=third, metadata={},
        checker=AnswerChecker(CheckKind.EXACT, f"x{first}"),
        files=(TaskFile(f"f{first}", second.encode("utf-8", "replace")),), images=(),
        faults=(Fault(FaultKind.STALE_VALUE, second, {"value": third}),),
    )  # fmt: skip
    steps = (step(0, first, Status.OK, second, third, (first,)), step(1, "", Status.EMPTY, third, ""))
    results = [EpisodeResult(task, Outcome.ANSWERED, third, True, steps, {(0, first): b"no image"}, error=second)]
    page = Page(render_run(first, results, {second: {third: first}}))
    assert len(page.attributes("script")) == 1
    assert {name for name, _ in page.tags} <= TAGS
    assert not any(name.startswith("on") for _, found in page.tags for name in found)


def test_images_are_decoded_written_anew_and_made_small() -> None:
    stream = io.BytesIO()
    Image.new("L", (3000, 1000)).save(stream, "JPEG", comment=b"<script>")
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\xff\xff\xff\0\xff\xff\xff\x08\x02\0\0\0"
    for content, size in ((stream.getvalue(), (480, 160)), (png(), (64, 48)), (bomb, None), (b"GIF89a", None)):
        result = solved(files=(TaskFile("a.txt", b""), TaskFile("x.png", content)), images=("x.png",))
        sources = [found["src"] for found in Page(render_run("t", [result])).attributes("img")][:-1]
        assert bool(sources) == (size is not None)
        for source in sources:
            data = base64.b64decode((source or "").partition(",")[2])
            assert Image.open(io.BytesIO(data)).size == size and b"<script>" not in data


def test_a_long_run_shows_a_part_and_says_so(tmp_path: Path) -> None:
    results = [solved(id=f"t{number}", family=f"f{number % 4}", images=()) for number in range(50)]
    write_run(tmp_path / "run.html", "Long", results, most_episodes=10)
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert text.count('<details class="episode"') == 10 and "(10 are in this file)" in text
    assert "t0" in text and "t45" in text


def test_an_empty_run_is_a_page_too() -> None:
    assert "There are no episodes." in render_run("Nothing", [])


def test_the_summary_leaves_infra_errors_out() -> None:
    found = summary([solved(), failed(), broken()])
    assert found["episodes"] == 2 and found["dropped"] == 1
    assert found["success at worst"] == pytest.approx(1 / 3)
    assert (found["success"], found["met a failure"], found["success after a failure"]) == (0.5, 1.0, 0.5)
    assert found["steps"] == "1.50"
    assert summary([])["success"] == 0.0


@pytest.mark.parametrize("name", ["viewer.html.jinja", "viewer.js"])
def test_the_template_is_part_of_the_package(name: str) -> None:
    package = Path(regrpo_jax.__file__).parent
    assert (package / "environments" / name).is_file()
    settings = ConfigParser()
    settings.read(package.parent / "setup.cfg", encoding="utf-8")
    assert f"environments/{name}" in settings["options.package_data"]["regrpo_jax"]
