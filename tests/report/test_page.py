"""The report of a run: everything is in it, whatever is missing is said, and nothing written becomes markup."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import regrpo_jax
from regrpo_jax.agent.gate import GateDecision
from regrpo_jax.agent.rollout import Opener, RolloutGroup
from regrpo_jax.data.rollout_buffer import GroupKey, RolloutBuffer
from regrpo_jax.data.tokenizer import train_tokenizer
from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import Task, write_tasks
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.report.files import slug
from regrpo_jax.report.page import run_alarms, write_report
from tests.data.rollout_groups import make_group

PACKAGE = Path(regrpo_jax.__file__).parent
POLICIES = ("after SFT", "after ReGRPO", "after ReGRPO, bare retry")
TURN = (
    'Reflection:\n- ErrorType: ArgInvalid\n- Evidence: "moon"\n- FixPlan: use "sun"\n'
    'Thought: try again.\n\nCode:\n```py\nread("sun")\n```'
)
HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "{{ 7 * 7 }}", "'\"><b>", "$x_{$ -->")
PARTS = ("config.json", "metrics.jsonl", "recovery.json", "recovery", "rollouts", "tokenizer")


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(re.sub("<style>.*?</style>", "", page, count=1, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag]


def with_words(group: RolloutGroup, words: str) -> RolloutGroup:
    """Every turn says TURN after a failure that it reflects on, and every text has `words` in it."""
    rollouts = []
    for rollout in group.rollouts:
        turns = [
            replace(
                turn,
                text=TURN if number else f"Thought: look. {words}",
                observation=f"nothing at {words}",
                status=Status.OK if number else Status.TOOL_ERROR,
                reflection=Opener.GATE if number else Opener.NOBODY,
                reflection_tokens=5 + number if number else 0,
                gate=GateDecision(not number, "none" if number else "tool_error", 0.75, -np.inf),
            )
            for number, turn in enumerate(rollout.turns)
        ]
        rollouts.append(replace(rollout, turns=tuple(turns), outcome=f"answered {words}".strip()))
    return replace(group, rollouts=tuple(rollouts))


def numbers(success: float, words: str, group: Sequence[RolloutGroup]) -> dict[str, Any]:
    """As the stage `recovery` writes them; a family has intervals alone there."""
    intervals = {name: [success, success - 0.1, success + 0.1] for name in ("success", "first_attempt_success")}
    intervals |= {"recovery": [success / 2, 0.1, 0.6], "needless": None}
    part = {"tasks": 12, "intervals": intervals}
    return {
        "identity": {"algorithm": "regrpo"},
        "metrics": {
            "success": success,
            "needless": 0.02,
            "reflection_tokens": 11.5,
            "episodes": 24.0,
            "dropped": 3.0,
            "grounded": None,
        },
        "intervals": intervals,
        "families": {"ledger": part, f"moved{words}": part},
        "error_types": {f"ArgInvalid{words}": part, "none": part},
    }


def metric_lines(words: str) -> list[dict[str, Any]]:
    sft = [{"stage": "sft", "step": 10 * n, "loss": 5 / n, "seconds": 2.0} for n in range(1, 9)]
    online = [
        {"stage": "online", "step": n, "action/kl": 0.001 * n, "reflection/kl": 0.002 * n, "action/entropy": 0.3,
         "action/clip_share": 0.01, "reward": 0.4, "seconds": 3.0, "rollouts/success": 0.5 + 0.01 * n,
         "rollouts/first_attempt_success": 0.6 - 0.02 * n, "rollouts/recovery": 0.3 + 0.02 * n,
         "rollouts/needless": 0.01, "rollouts/reflection_tokens": 12.0, "rollouts/episodes": 32.0,
         "rollouts/dropped": 0.0, "rollouts/useful_groups": 0.5, f"rollouts/{words}": 1.0}
        for n in range(1, 21)
    ]  # fmt: skip
    return [*sft, *online, {"stage": words or "other", "step": 1, "loss": float("nan")}]


def make_run(workdir: Path, words: str = "") -> Path:
    """A folder with all that a run leaves; `words` is put wherever data could put something."""
    workdir.mkdir(parents=True, exist_ok=True)
    picture = workdir / "picture.png"
    Image.new("RGB", (48, 32), "navy").save(picture)
    config: dict[str, Any] = {
        "seed": 0,
        "stages": ["sft", "online", "recovery", words or "eval"],
        "model": {"path": words, "images": True, "hidden_size": 32, "num_layers": 1},
        "online": {"algorithm": words or "regrpo", "tasks": 2, "branches": 4, "steps": 2, "success": "step",
                   "normalize_advantages": True, "advantage_epsilon": 0.1},
        "objective": {"lambda_exec": 1.0, "eta": 0.1, "lambda_val": 0.0, "baseline": "mean", "advantage_clip": None},
        "suite": {"name": "toolrepair", "families": [f"moved{words}"], "profile": "compact"},
    }  # fmt: skip
    record = {"config": config, "versions": {"numpy": f"2{words}"}, "commit": f"abc{words}"}
    (workdir / "config.json").write_text(json.dumps(record))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metric_lines(words)) + '{"cut')
    titles = [title + words for title in POLICIES]
    groups = [with_words(make_group(3, number, files=[str(picture)]), words) for number in range(6)]
    groups = [replace(group, error_type=f"ArgInvalid{words}") for group in groups]
    told = {title: numbers(0.5 + 0.1 * place, words, groups) for place, title in enumerate(titles)}
    (workdir / "recovery.json").write_text(json.dumps(told))
    for title in titles:
        folder = workdir / "recovery" / slug(title)
        folder.mkdir(parents=True)
        (folder / "groups.jsonl").write_text("".join(json.dumps(group.to_json()) + "\n" for group in groups))
        tasks = [
            Task(
                group.task_id,
                "ledger",
                "test",
                f"Find the total. {words}",
                AnswerChecker(CheckKind.EXACT, f"42{words}"),
            )
            for group in groups
        ]
        write_tasks(tasks, folder / "tasks")
    with RolloutBuffer(workdir / "rollouts") as buffer:
        for update in (1, 2):
            for group in groups[:3]:
                buffer.add_group(update, group, planned=4)
                for rollout in group.rollouts:
                    buffer.add_rollout(update, rollout)
            buffer.add_update(update, [GroupKey(update, group.group) for group in groups[:3]])
    train_tokenizer([TURN], vocab_size=300).save_pretrained(str(workdir / "tokenizer"))
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "my_run")


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib is not installed; a test that is not about plots is quicker then."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_a_report_tells_the_run(text: str) -> None:
    page = Page(text)
    told = (
        "my_run|warm start (SFT) → online training|1 alarm|fail on purpose|after ReGRPO, bare retry|50%|40% – 60%|"
        "Find the total.|the gate opened it|opens: tool error (confidence 0.750)|nothing at|expected 42|Update 1|"
        "Update 2|advantage|ArgInvalid|12 tasks|fields of the configuration|"
        "Alarm: after ReGRPO: 3 of 27 episodes were dropped|solved at worst|"
        "config.objective.eta|Unseen tasks as played by after ReGRPO : a fixed"
    )
    for expected in told.split("|"):
        assert expected in page.words, expected
    assert "Left out" not in page.words
    assert len(page.attributes("svg")) == 2 + 1 + 9 + 2  # families, lengths, panels of online and of sft
    assert text.startswith("<!DOCTYPE html>")


def test_parts_of_a_turn_are_told_apart(text: str) -> None:
    found = {"".join((part.get("class") or "").split()) for part in Page(text).attributes("span")}
    assert {"opening", "reflection", "thought", "action"} <= found
    reflections = re.findall(r'<span class="reflection" title="reflection">(.*?)</span>', text, re.DOTALL)
    assert any("- Evidence: &#34;moon&#34;" in part and "Thought" not in part for part in reflections)


def test_tokens_are_coloured_by_their_advantage(text: str) -> None:
    runs = re.findall(r'<span class="run (\w+) (\w+)"(?: style="--a: ([\d.]+)")? title="([^"]*)"', text)
    sampled = {"reflection", "thought", "action"}
    assert {label for label, *_ in runs} >= sampled | {"observation", "template"}
    for label, color, shade, title in runs:
        value = re.search(r"advantage ([+-][\d.]+)", title)
        assert (value is None) == (color == "untrained") == (not shade) == (label not in sampled), (label, title)
        if value is not None:
            assert color == ("up" if float(value[1]) > 0 else "down" if float(value[1]) < 0 else "even")
    assert {"up", "down"} <= {color for _, color, *_ in runs}


def test_a_report_needs_nothing_else(text: str) -> None:
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & {name for name, _ in page.tags}
    sources = [found["src"] or "" for found in page.attributes("img")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))).size == (48, 32)
    targets = [value or "" for _, found in page.tags for name, value in found.items() if name.endswith("href")]
    assert targets and all(target.startswith("#") for target in targets)
    ids = [found["id"] for _, found in page.tags if found.get("id")]
    assert len(set(ids)) == len(ids)
    assert {target[1:] for target in targets} <= set(ids)
    assert "http:" not in text.replace("http-equiv", "") and "https:" not in text
    assert len(text) < 3_000_000
    policy = next(found["content"] for found in page.attributes("meta") if "http-equiv" in found)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_same_run_gives_the_same_bytes(run: Path, text: str) -> None:
    assert write_report(run).read_text(encoding="utf-8") == text


def test_what_was_written_stays_text(text: str, tmp_path: Path) -> None:
    words = " ".join(HOSTILE)
    page = Page(write_report(make_run(tmp_path / "run", words)).read_text(encoding="utf-8"))
    assert {name for name, _ in page.tags} <= {name for name, _ in Page(text).tags}
    assert not any(name.startswith("on") for _, found in page.tags for name in found)
    assert page.words.count(" ".join(words.split())) >= 10  # it is there, as text


@pytest.mark.usefixtures("no_plots")
def test_half_a_character_is_no_trouble(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = run / "recovery" / "after-regrpo" / "groups.jsonl"
    path.write_text(path.read_text().replace("nothing at", "seen \\ud800\\u0000 at"))
    assert "seen ?" in write_report(run).read_text(encoding="utf-8")


def test_a_replay_of_records_is_a_table(tmp_path: Path, no_plots: None) -> None:
    workdir = make_run(tmp_path / "run")
    columns = {"after SFT": {"overall": {"one_shot": 0.25}}, "after <ReGRPO>": {"overall": {"one_shot": 0.5}}}
    (workdir / "evaluation.json").write_text(json.dumps(columns))
    page = Page(write_report(workdir).read_text(encoding="utf-8"))
    words = "|".join(text.strip() for text in page.texts if text.strip())
    assert "after SFT|after <ReGRPO>|right at the first attempt|25.0%|50.0%|task solved|–|–" in words


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("no_plots")
def test_what_is_missing_is_left_out_with_a_word_why(part: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / part).rename(tmp_path / "elsewhere")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    reasons = re.findall(r"[Ll]eft out: ([^.]+(?:\.jsonl?[^.]*)*)\.", page.words)
    assert reasons and all(len(reason) > 10 for reason in reasons)
    named = {"recovery": "the episodes of", "rollouts": "no rollouts", "tokenizer": "no tokenizer"}.get(part, part)
    assert any(named in reason for reason in reasons), reasons


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("config.json", "{"),
        ("config.json", '{"config": {"online": 3}}'),
        ("metrics.jsonl", "[]\n3\n"),
        ("recovery.json", "[1]"),
        ("recovery.json", '{"before": {"metrics": 3, "intervals": {"success": [1]}, "families": {"a": 7}}}'),
        ("recovery/after-sft/groups.jsonl", '{"group": 3}\n'),
        ("recovery/after-sft/groups.jsonl", '{"rollouts": [[]], "prefix": []}\n'),
        ("recovery/after-regrpo/tasks/tasks.jsonl", "no task\n"),
        ("rollouts/rollouts-0000.jsonl", "no rollouts\n"),
        ("tokenizer/tokenizer.json", "no tokenizer"),
    ],
)
@pytest.mark.usefixtures("no_plots")
def test_what_is_damaged_costs_its_section_and_no_more(part: str, damage: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / part).write_text(damage)
    assert "In short" in write_report(run).read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_plots")
def test_without_matplotlib_only_the_plots_are_missing(run: Path) -> None:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "Left out: matplotlib is missing; plots need: pip install 'regrpo_jax[tools]'." in page.words
    assert "Find the total." in page.words and not page.attributes("svg")


def test_the_command_says_what_it_did(run: Path) -> None:
    command = [sys.executable, "-m", "regrpo_jax.report", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report written to {run / 'report.html'}"
    assert [f"alarm: {words}" for words in run_alarms(run)] == done.stdout.splitlines()[:-1] != []


def test_a_wrong_folder_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "regrpo_jax.report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    wanted = (
        f"error: {tmp_path}: holds none of config.json, metrics.jsonl, recovery.json; name the --workdir of a run\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", wanted)
    with pytest.raises(UserError, match="no such folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.usefixtures("no_plots")
def test_many_images_end_before_the_page_is_too_large(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    noise = np.random.default_rng(0)
    for path in sorted((run / "recovery").glob("after-regrpo/groups.jsonl")):
        lines = []
        for number, line in enumerate(path.read_text().splitlines()):
            files = []
            for place in range(3):
                file = tmp_path / f"noise-{number}-{place}.png"
                Image.fromarray(noise.integers(0, 255, (320, 320, 3), np.uint8)).save(file)
                files.append([f"<image_{place:02d}>", str(file)])
            lines.append(json.dumps(json.loads(line) | {"image_files": files}))
        path.write_text("\n".join(lines))
    text = write_report(run).read_text(encoding="utf-8")
    assert 1_000_000 < len(text) < 3_000_000
    assert "not shown" in Page(text).words


@pytest.mark.parametrize("name", ["page.html.jinja", "page.css"])
def test_the_template_is_part_of_the_package(name: str) -> None:
    assert (PACKAGE / "report" / name).is_file()
    settings = ConfigParser()
    settings.read(PACKAGE.parent / "setup.cfg", encoding="utf-8")
    assert f"report/{name}" in settings["options.package_data"]["regrpo_jax"].split()
