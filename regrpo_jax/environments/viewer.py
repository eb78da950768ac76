"""One HTML file per run, to look at what a policy did: tasks, images, code, observations, reflections.

The file needs nothing else: style and script are inside, images are embedded, and its own policy (CSP) forbids the
browser to load anything or to run any script but the one for filtering. What tasks and policies wrote is escaped;
images are decoded and written anew, so that no byte of theirs is passed on.
"""

from __future__ import annotations

import base64
import codecs
import functools
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined, Template

from regrpo_jax.environments.episode_result import EpisodeResult
from regrpo_jax.environments.faults import Fault
from regrpo_jax.environments.workspace import Workspace
from regrpo_jax.records.reflection import split_reflection
from regrpo_jax.records.types import Step

_FOLDER = Path(__file__).parent
_MOST_PIXELS = 32 * 2**20  # of an image that is decoded
_SIDE = 480  # pixels of an image that is shown
_PREVIEW = 600  # characters of a file
_MOST_CHARACTERS = 20_000  # of any text
Value = str | int | float
Metrics = Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True)
class _Image:
    name: str
    uri: str  # "" when it cannot be shown


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    preview: str
    behind: bool = False  # only the tools read it


@dataclass(frozen=True)
class _Step:
    number: int
    reflection: str
    thought: str
    code: str
    raw: str  # the turn as written, when there is no code in it
    status: str
    text: str
    note: str
    images: tuple[_Image, ...]


@dataclass(frozen=True)
class _Episode:
    id: str
    family: str
    split: str
    difficulty: int
    error_type: str
    instruction: str
    expected: str
    answer: str
    outcome: str
    success: bool
    error: str
    faults: tuple[str, ...]
    files: tuple[_File, ...]
    images: tuple[_Image, ...]
    steps: tuple[_Step, ...]


def render_run(
    title: str, results: Sequence[EpisodeResult], metrics: Metrics | None = None, most_episodes: int = 200
) -> str:
    """The page. metrics: rows of a table, each column -> value; numbers between 0 and 1 that are floats are shares.

    At most `most_episodes` episodes are shown (the page says so), spread evenly over the run.
    """
    shown = results
    if len(results) > most_episodes:
        shown = [results[place * len(results) // most_episodes] for place in range(most_episodes)]
    script = (_FOLDER / "viewer.js").read_text(encoding="utf-8")
    table = dict(metrics or {})
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    return page_template(_FOLDER / "viewer.html.jinja").render(
        title=title,
        columns=columns,
        rows=[(name, [_shown(row.get(column, "")) for column in columns]) for name, row in table.items()],
        families=_by_family(results),
        total=len(results),
        episodes=[_episode(result) for result in shown],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


@functools.cache
def page_template(path: Path) -> Template:
    """A page's template: what goes into it is escaped, and what it asks for must be there."""
    templates = Templates(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(path.name)


def write_run(
    path: Path,
    title: str,
    results: Sequence[EpisodeResult],
    metrics: Metrics | None = None,
    most_episodes: int = 200,
) -> None:
    """Write `render_run`'s page to a file. OSError."""
    page = render_run(title, results, metrics, most_episodes)
    path.write_bytes(page.encode("utf-8", "replace"))


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.1%}" if 0 <= value <= 1 else f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _by_family(results: Sequence[EpisodeResult]) -> list[tuple[str, int, int, str, int]]:
    """(family, episodes, successes, share, dropped), sorted; dropped ones, infra errors, are not among the episodes."""
    episodes = Counter(result.task.family for result in results)
    lost = Counter(result.task.family for result in results if result.dropped)
    solved = Counter(result.task.family for result in results if result.success and not result.dropped)
    return [
        (name, count - lost[name], solved[name], f"{solved[name] / max(1, count - lost[name]):.0%}", lost[name])
        for name, count in sorted(episodes.items())
    ]


def _cut(text: object) -> str:
    words = str(text)
    return words if len(words) <= _MOST_CHARACTERS else f"{words[:_MOST_CHARACTERS]} [...]"


def _episode(result: EpisodeResult) -> _Episode:
    task = result.task
    return _Episode(
        id=task.id,
        family=task.family,
        split=task.split,
        difficulty=task.difficulty,
        error_type="" if task.error_type is None else str(task.error_type),
        instruction=_cut(task.instruction),
        expected=_cut(" | ".join(map(str, task.checker.values))),
        answer=_cut(result.answer) if result.outcome == "answered" else "",
        outcome=str(result.outcome),
        success=result.success,
        error=_cut(result.error),
        faults=tuple(map(_fault_words, task.faults)),
        files=_files(Workspace.of(task)),
        images=tuple(_Image(name, _data_uri(task.file(name))) for name in task.images),
        steps=tuple(_step(step, result) for step in result.steps),
    )


def _fault_words(fault: Fault) -> str:
    parts = [f"{name}={value!r}" for name, value in {**fault.parameters, **fault.arguments}.items()]
    calls = [f"calls {', '.join(map(str, fault.calls))}"] if fault.calls else []
    details = ", ".join([*calls, *parts])
    return _cut(f"{fault.kind}: {fault.target}" + (f" ({details})" if details else ""))


def _files(workspace: Workspace) -> tuple[_File, ...]:
    given = tuple(_file(name, content) for name, content in workspace.files.items())
    return given + tuple(_file(name, content, behind=True) for name, content in workspace.behind.items())


def _file(name: str, content: bytes, behind: bool = False) -> _File:
    head = content[: 4 * _PREVIEW]
    try:
        text = "" if b"\0" in head else codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        text = ""
    return _File(name, len(content), text[:_PREVIEW] + (" [...]" if len(text) > _PREVIEW else ""), behind)


def _step(step: Step, result: EpisodeResult) -> _Step:
    seen = step.observation
    names = () if seen is None else seen.images
    block, rest = split_reflection(step.text)
    size = 0 if seen is None or not seen.size else seen.size
    return _Step(
        number=step.index + 1,
        reflection=_cut(block.strip()),
        thought=_cut(step.thought) if step.code else "",
        code=_cut(step.code),
        raw="" if step.code else _cut(rest.strip()),
        status="" if seen is None else str(seen.status),
        text="" if seen is None else _cut(seen.text),
        note=f"{size:,} bytes" if size else "",
        images=tuple(_Image(name, _data_uri(result.images.get((step.index, name), b""))) for name in names),
    )


def _data_uri(content: bytes) -> str:
    """The image, made small and written anew, as a data URI; "" when it cannot be decoded or is too large."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > _MOST_PIXELS:
                return ""
            small = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    except Exception:  # bytes that an action wrote: a decoder may fail in any way
        return ""
    if max(small.size) < 64:  # tiny pictures are for tiny policies; people need them larger
        small = small.resize((small.width * 4, small.height * 4), Image.Resampling.NEAREST)
    small.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def summary(results: Sequence[EpisodeResult]) -> dict[str, Value]:
    """A column of numbers for the metrics: episodes, success, steps, failures met and repaired, and what was dropped.

    Success at worst is that with the dropped episodes, infra errors, as failures.
    """
    counted = [result for result in results if not result.dropped]
    failed = [result for result in counted if any(_is_failure(step) for step in result.steps)]

    def share(chosen: Sequence[Any], of: Sequence[Any]) -> float:
        return len(chosen) / len(of) if of else 0.0

    solved = [result for result in counted if result.success]
    return {
        "episodes": len(counted),
        "success": share(solved, counted),
        "success at worst": share(solved, results),
        "met a failure": share(failed, counted),
        "success after a failure": share([result for result in failed if result.success], failed),
        "steps": f"{sum(len(result.steps) for result in counted) / max(1, len(counted)):.2f}",
        "dropped": len(results) - len(counted),
    }


def _is_failure(step: Step) -> bool:
    return step.observation is not None and step.observation.status != "ok"
