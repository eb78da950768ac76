"""Families whose failure is seen: nothing that is told holds the answer or the failure, and the pictures hold both."""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regrpo_jax.environments.task import Task
from regrpo_jax.records.picture_words import picture_words
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair import (
    PROFILES,
    SPLITS,
    evidence_span,
    families,
    is_visual,
    make_suite,
    plan_of,
    told_with_pictures,
    visual_families,
)
from regrpo_jax.suites.toolrepair.compact_visual_families import SHEET_FILE
from regrpo_jax.suites.toolrepair_tools import compact_sheets
from regrpo_jax.suites.toolrepair_tools.compact_pictures import COLOURS, SIDE
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import ToolError
from tests.environments.toolrepair.visual_cases import COUNTS, TOOLS, VISUAL, drawn, put, tasks_of

Key = tuple[str, str, str]
CHANCE = 1 / len(COLOURS)


@pytest.fixture(scope="module")
def tasks() -> dict[Key, list[Task]]:
    return {
        (profile, family, split): tasks_of(profile, family, split, COUNTS[profile])
        for profile, family in VISUAL
        for split in SPLITS
    }


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    behind.install({})


def of_compact(tasks: dict[Key, list[Task]], family: str) -> list[Task]:
    return [task for split in SPLITS for task in tasks["compact", family, split]]


def test_visual_families_are_played_where_they_are_named() -> None:
    for profile in PROFILES:
        assert len(families(profile)) == 9 and not set(families(profile)) & set(visual_families(profile))
        own = {tool for pair in PROFILES[profile].visual_tools.values() for tools in pair for tool in tools}
        for split in SPLITS:
            for task in make_suite(split, 27, 2, profile):
                assert not is_visual(task) and "visual" not in task.metadata and not own & set(task.tools)
        chosen = make_suite("train", 6, 2, profile, chosen=(*visual_families(profile), "region"))
        assert [is_visual(task) for task in chosen] == [True, True, True, False, True, True]


@pytest.mark.parametrize(("profile", "family"), VISUAL)
def test_the_answer_stands_in_nothing_that_is_told(profile: str, family: str, tasks: dict[Key, list[Task]]) -> None:
    for split in SPLITS:
        for task in tasks[profile, family, split]:
            codes = [step.code for step in task.oracle[:-1]]
            thoughts = [step.thought for step in task.oracle[:-1]]
            names = [*(file.name for file in task.files), *task.tools, *task.images]
            told = " ".join((task.instruction, *codes, *thoughts, *names))
            assert plan_of(task).answer.casefold() not in told.casefold()
            assert not any(colour in told for colour in COLOURS)


@pytest.mark.parametrize(("profile", "family"), VISUAL)
def test_a_surprise_is_in_the_picture_and_nowhere_else(
    profile: str, family: str, tasks: dict[Key, list[Task]], workspace: Path
) -> None:
    """The tool returns a file's name, of one size in compact; the picture's words hold the evidence, once."""
    sizes, surprised = set(), 0
    for split in SPLITS:
        for task in tasks[profile, family, split]:
            attempt = plan_of(task).attempts[0]
            put(task, workspace)
            told, content = drawn(task, attempt.code, workspace)
            assert re.fullmatch(rf"{attempt.code.partition('(')[0]}(_\w+)+\.png", told)
            sizes.add(len(content))
            if attempt.repair is None:
                assert is_visual(task) and task.error_type is None
                continue
            surprised += 1
            assert is_visual(task) and task.error_type == ErrorType.GROUNDING_DRIFT and task.oracle[0].fails
            evidence_span(attempt.repair, told_with_pictures(told, {told: content}))
            with pytest.raises(ValueError, match="is not in the observation"):
                evidence_span(attempt.repair, told)
            after, repaired = drawn(task, attempt.repair.code, workspace)
            assert after != told and drawn(task, attempt.code, workspace) == (told, content)
            assert attempt.repair.evidence not in told_with_pictures(after, {after: repaired})
            sizes.add(len(repaired))
    assert surprised > len(SPLITS) * COUNTS[profile] / 3
    assert profile == "full" or len(sizes) == 1


@pytest.mark.parametrize("family", visual_families("compact"))
def test_answers_are_as_frequent_as_chance_has_it(family: str, tasks: dict[Key, list[Task]]) -> None:
    counts = Counter(plan_of(task).answer for task in of_compact(tasks, family))
    expected = counts.total() * CHANCE
    assert set(counts) == set(COLOURS)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 16.3  # chi2 of 3, 1 in 1000


def features(task: Task) -> Iterator[tuple[str, str]]:
    """All that a policy is told, piece by piece, and what a file's length could tell."""
    yield "instruction", task.instruction
    for number, word in enumerate(re.findall(r'"([^"]+)"', task.instruction)):
        yield f"word {number}", word
    yield "tools", " ".join(task.tools)
    yield "difficulty", str(task.difficulty)
    yield "surprise", str(task.error_type)
    for file in task.files:
        yield "size", str(len(file.content) // 16) if not file.behind else "unseen"


def answer_of(task: Task) -> str:
    return plan_of(task).answer


def guessed(known: list[Task], asked: list[Task], answer: Callable[[Task], str] = answer_of) -> dict[str, float]:
    """For each feature, how often the answer most frequent with it among the known tasks is that of an asked one."""
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for task in known:
        for feature in features(task):
            seen[feature][answer(task)] += 1
    right: dict[str, list[bool]] = defaultdict(list)
    for task in asked:
        for feature in features(task):
            best = min(seen[feature].items(), key=lambda item: (-item[1], item[0]), default=("red", 0))[0]
            right[feature[0]].append(best == answer(task))
    return {name: sum(found) / len(found) for name, found in right.items()}


@pytest.mark.parametrize("family", visual_families("compact"))
def test_a_blind_policy_guesses(family: str, tasks: dict[Key, list[Task]]) -> None:
    """No piece of what is told predicts the answer better than chance, give or take three deviations of it."""
    chosen = of_compact(tasks, family)
    known, asked = chosen[::2], chosen[1::2]
    bound = CHANCE + 3.3 * (CHANCE * (1 - CHANCE) / len(asked)) ** 0.5
    assert max(guessed(known, asked).values()) < bound < 0.37


def test_the_bound_of_a_blind_policy_would_show_a_leak() -> None:
    """An answer that depends on the first place that is told, in half of the tasks, is guessed far more often."""
    chosen = tasks_of("compact", "plot", "train", 240)

    def leaking(task: Task) -> str:
        told = list(COLOURS)[len(re.findall(r'"([^"]+)"', task.instruction)[0]) % len(COLOURS)]
        return told if task.seed // 2 % 2 else answer_of(task)

    assert guessed(chosen[::2], chosen[1::2], leaking)["word 0"] > 0.4


def nearest(pixel: np.ndarray, paper: int) -> str:
    known = {**COLOURS, "paper": (paper,) * 3}
    return min(known, key=lambda name: int(np.abs(pixel.astype(int) - known[name]).sum()))


@pytest.mark.parametrize("filtered", [Image.Resampling.LANCZOS, Image.Resampling.BICUBIC])
def test_a_sheet_does_not_show_its_cards_as_a_policy_sees_it(
    filtered: Image.Resampling, tasks: dict[Key, list[Task]]
) -> None:
    """Even who knows where a card is sees paper there, of hardly another tint; enlarged it is the card."""
    found: Counter[str] = Counter()
    tinted = large = 0
    for task in tasks["compact", "zoom", "train"]:
        paper = int(next(name for name in task.metadata["names"] if name.isdigit()))
        with Image.open(io.BytesIO(task.file(SHEET_FILE))) as opened:
            sheet = opened.convert("RGB")
        assert sheet.size == (compact_sheets.SHEET,) * 2 and picture_words(task.file(SHEET_FILE)) == "only grey"
        seen = np.asarray(sheet.resize((SIDE, SIDE), filtered))
        for colour, region, left, top in re.findall(r"\b(\w+)@(\w+)/(\d+)/(\d+)", " ".join(task.metadata["names"])):
            if colour not in COLOURS:
                continue  # a void one
            corner = compact_sheets._corner(region)
            x, y = (
                (start + int(offset) + compact_sheets.TINY // 2) // compact_sheets.CELL
                for start, offset in zip(corner, (left, top), strict=True)
            )
            found[nearest(seen[y, x], paper)] += 1
            towards = {name: np.array(rgb) - paper for name, rgb in COLOURS.items()}
            off = seen[y, x].astype(int) - paper
            tinted += colour == max(towards, key=lambda name: towards[name] @ off / np.linalg.norm(towards[name]))
            window = np.asarray(compact_sheets.magnified(sheet, region))
            large += nearest(window[4 * int(top) + 8, 4 * int(left) + 8], paper) == colour
    assert found["paper"] / found.total() > 0.99
    assert tinted / found.total() < 0.45 and large == found.total() > 100


def test_held_out_tasks_need_tools_and_meet_surprises_that_training_lacks(tasks: dict[Key, list[Task]]) -> None:
    for profile, family in VISUAL:
        seen = [task for split in SPLITS[:3] for task in tasks[profile, family, split]]
        unseen = tasks[profile, family, "held_out"]
        known = {tool for task in seen for tool in task.tools} | PROFILES[profile].tools
        kinds = {task.metadata["surprise"] for task in seen} - {""}
        for task in unseen:
            assert task.oracle[0].code.partition("(")[0] not in known
            assert task.metadata["surprise"] not in kinds
        assert kinds and {task.metadata["surprise"] for task in unseen} - {""}


def test_difficulty_adds_cards(tasks: dict[Key, list[Task]]) -> None:
    found: dict[int, set[int]] = defaultdict(set)
    for task in tasks["compact", "zoom", "train"]:
        if task.error_type is not None:
            found[task.difficulty].add(sum("@" in name for name in task.metadata["names"]))
            assert ("void" in task.instruction) == (task.difficulty == 3)
    assert found == {1: {1}, 2: {3}, 3: {4}}


@pytest.mark.parametrize(
    ("profile", "code", "words"),
    [
        ("compact", 'zoom("middle")', 'Unknown region "middle"'),
        ("compact", 'zoom("topleft")', "no sheet"),
        ("compact", 'pair("topleft", "up")', 'Unknown region "up"'),
        ("compact", 'chart("fox")', 'no "fox"'),
        ("full", 'draw_chart("fox.csv")', 'no register "fox.csv"'),
        ("full", 'magnify("fox.png", "top left")', "fox.png"),
    ],
)
def test_what_cannot_be_drawn_is_told(profile: str, code: str, words: str, workspace: Path) -> None:
    with pytest.raises(ToolError, match=re.escape(words)):
        eval(code, dict(TOOLS[profile]))
