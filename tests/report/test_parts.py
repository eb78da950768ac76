"""What the report chooses to show: which episodes, which curves, which numbers beside each other."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from regrpo_jax.agent.gate import GateDecision
from regrpo_jax.agent.rollout import Opener, Rollout, RolloutGroup, RolloutTurn
from regrpo_jax.records.types import Status
from regrpo_jax.report.curves import running_mean, stage_panels
from regrpo_jax.report.episodes import (
    ShownEpisode,
    reading_policy,
    reflection_lengths,
    shown_episodes,
    turn_segments,
)
from regrpo_jax.report.files import LeftOut, Played, slug
from regrpo_jax.report.images import ImageShelf
from regrpo_jax.report.plots import Bar, Bars, bar_plot
from regrpo_jax.report.tables import (
    PART_LABELS,
    dropped_alarms,
    headline,
    length_row,
    number_text,
    part_table,
    policy_table,
    training_headline,
)
from tests.data.rollout_groups import make_group

BLOCK = "Reflection:\n- ErrorType: ArgInvalid\n- Evidence: x\n- FixPlan: y\n"
ACTION = 'Code:\n```py\nread("a")\n```'


def turn(text: str, *, opening: int = 0, **changes: object) -> RolloutTurn:
    """opening: tokens that were put into the policy's mouth."""
    return dataclasses.replace(RolloutTurn(0, opening, opening + 9, text, 0), **changes)  # type: ignore[arg-type]


def rollout(kind: str, task: int, branch: int) -> Rollout:
    failed = turn("Thought: a", status=Status.TOOL_ERROR)
    worked = turn("Thought: b", status=Status.OK, reflection=Opener.GATE, reflection_tokens=7)
    turns = {"recovered": (failed, worked), "failed": (failed,), "solved at once": (turn("c", status=Status.OK),)}
    empty = np.zeros(0, np.int32)
    return Rollout(f"task {task}", task, branch, empty, empty.astype(np.int8), empty.astype(np.float32),
                   empty.astype(np.int16), turns[kind.removeprefix("dropped ")], (True,),
                   success="failed" not in kind, outcome="answered", dropped="dropped" in kind)  # fmt: skip


def played(kinds: list[list[str]], title: str = "after ReGRPO") -> Played:
    groups: list[RolloutGroup] = []
    for task, of_task in enumerate(kinds):
        family = ("moved", "service", "colour")[task % 3]
        rollouts = tuple(rollout(kind, task, branch) for branch, kind in enumerate(of_task))
        groups.append(
            dataclasses.replace(make_group(0, task), task_id=f"task {task}", family=family, rollouts=rollouts)
        )
    return Played(title, groups, {})


def shown(one: Played) -> list[ShownEpisode]:
    return shown_episodes(one, [one], ImageShelf([]))


def test_a_dozen_episodes_of_three_kinds_one_of_a_task_from_all_families() -> None:
    kinds = ["recovered", "failed", "solved at once"]
    found = shown(
        played([list(order) for order in itertools.islice(itertools.cycle(itertools.permutations(kinds)), 40)])
    )
    assert [episode.kind for episode in found] == ["recovered"] * 5 + ["failed"] * 4 + ["solved at once"] * 3
    assert len({episode.task_id for episode in found}) == 12
    for kind in kinds:
        assert {episode.family for episode in found if episode.kind == kind} == {"moved", "service", "colour"}
    assert [len(episode.turns) for episode in found] == [2] * 5 + [1] * 7
    assert found[0].others == (("after ReGRPO", 2, 3),)


def test_dropped_episodes_are_not_shown_and_missing_kinds_are_not_made_up() -> None:
    found = shown(played([["dropped recovered", "failed"], ["failed"], ["failed"]]))
    assert [(episode.kind, episode.task_id) for episode in found] == [("failed", f"task {n}") for n in range(3)]
    assert reflection_lengths(played([["dropped recovered", "recovered"], ["failed"]])) == [7]


def test_the_policy_to_read_is_the_last_that_could_reflect() -> None:
    assert reading_policy(["before", "after ReGRPO", "after ReGRPO, bare retry"]) == "after ReGRPO"
    assert reading_policy(["after GRPO, bare retry"]) == "after GRPO, bare retry"
    assert reading_policy(["before", "after ReGRPO", "before, held_out", "after ReGRPO, held_out"]) == "after ReGRPO"
    assert slug("after ReGRPO, bare retry") == "after-regrpo-bare-retry"
    assert slug("Ünder 2 %!") == "nder-2"


@pytest.mark.parametrize(
    ("text", "opening", "labels"),
    [
        (f"Thought: go.\n\n{ACTION}", 1, ["opening", "thought", "action"]),
        (f"{BLOCK}Thought: go.\n\n{ACTION}", 2, ["opening", "reflection", "thought", "action"]),
        (f"{BLOCK}Thought: go.\n\n{ACTION}", 0, ["reflection", "thought", "action"]),
        (f"{BLOCK}", 2, ["opening", "reflection"]),
        ("Thought: no code", 1, ["opening", "thought"]),
        (ACTION, 0, ["action"]),
        ("", 0, []),
    ],
)
def test_segments_are_the_turn(text: str, opening: int, labels: list[str]) -> None:
    found = turn_segments(turn(text, opening=opening))
    assert [segment.label for segment in found] == labels
    assert "".join(segment.text for segment in found) == text


def test_the_gate_is_told_in_words() -> None:
    held_back = turn("Thought: a", gate=GateDecision(True, "low_confidence", 0.4, 0.8), held_back=True)
    bare = turn("Thought: a", status=Status.EMPTY, gate=GateDecision(False, "never", 0.4, -np.inf))
    one = played([["recovered"]])
    group = one.groups[0]
    changed = dataclasses.replace(group.rollouts[0], turns=(held_back, bare))
    found = shown(Played("p", [dataclasses.replace(group, rollouts=(changed,))], {}))[0].turns
    assert found[0].gate == "opens: low confidence (confidence 0.400, threshold 0.800)" and found[0].gate_open
    assert (found[0].status, "held back before it ran" in found[0].notes) == ("held back", True)
    assert found[1].gate == "stays closed: reflections are switched off (confidence 0.400)"
    assert (found[1].status, found[1].gate_open) == ("empty", False)


def test_long_curves_are_averaged_and_short_ones_are_not_smoothed() -> None:
    lines = [{"stage": "sft", "step": n + 1, "loss": float(n % 2), "seconds": None} for n in range(1000)]
    ((title, panels),) = stage_panels({"sft": lines})
    assert title.startswith("Warm start") and [panel.title for panel in panels] == ["Loss"]
    curve = panels[0].curves[0]
    assert len(curve.values) == len(curve.smooth) == len(curve.steps) == 200
    assert np.mean(curve.values) == pytest.approx(0.5) and np.mean(curve.steps) == pytest.approx(500.5)
    ((_, panels),) = stage_panels({"sft": lines[:6]})
    assert panels[0].curves[0].values == (0, 1, 0, 1, 0, 1) and panels[0].curves[0].smooth == ()
    assert running_mean([0.0, 3.0, 0.0, 3.0, 9.0]) == (1.0, 1.5, 3.0, 3.75, 4.0)
    with pytest.raises(LeftOut):
        stage_panels({"sft": [{"stage": "sft", "step": 1, "loss": float("nan")}]})


def test_a_mean_over_no_tokens_is_no_point() -> None:
    counts = [{"action/token_count": 9.0, "action/policy_token_count": 9.0}, {"action/token_count": 0.0},
              {"action/token_count": 9.0, "action/policy_token_count": 0.0}]  # fmt: skip
    lines = [
        {"stage": "online", "step": step, "action/entropy": 0.5, "action/clip_share": 0.1, "reward": 0.0} | count
        for step, count in enumerate(counts, 1)
    ]
    ((_, panels),) = stage_panels({"online": lines})
    assert {panel.title: panel.curves[0].steps for panel in panels} == {
        "Reward": (1, 2, 3),
        "Entropy": (1, 3),
        "Clipped tokens": (1,),
    }


def numbers(low: float, mean: float, high: float, needless: float = 0.0) -> dict[str, object]:
    interval = {"success": [mean, low, high], "needless": [needless, needless, needless]}
    return {"metrics": {"success": 0.99, "grounded": 0.8, "tokens": None}, "intervals": interval}


def test_better_and_worse_need_intervals_that_do_not_meet() -> None:
    policies = {
        "before": numbers(0.3, 0.4, 0.5, 0.2),
        "a little": numbers(0.4, 0.55, 0.7, 0.2),
        "better": numbers(0.6, 0.7, 0.8, 0.1),
        "worse": numbers(0.1, 0.2, 0.29, 0.3),
    }
    rows = {row.label: row for row in policy_table(policies)}
    assert list(rows) == ["Task solved", "Needless reflections", "Evidence quoted"]
    assert [cell.text for cell in rows["Task solved"].cells] == ["40%", "55%", "70%", "20%"]
    assert [cell.interval for cell in rows["Task solved"].cells][2] == "60% – 80%"
    assert [cell.against for cell in rows["Task solved"].cells] == ["", "", "better", "worse"]
    assert [cell.against for cell in rows["Needless reflections"].cells] == ["", "", "better", "worse"]
    assert [cell.interval for cell in rows["Evidence quoted"].cells] == [""] * 4
    assert [label for label, _ in headline(policies)] == ["Task solved", "Needless reflections"]


def test_parts_have_a_row_for_every_name_that_any_policy_met() -> None:
    told = {"success": [0.5, 0.4, 0.6], "recovery": None, "success_at_worst": [0.45, 0.4, 0.5]}
    told["dropped_share"] = [0.1, 0.0, 0.2]
    policies = {
        "one": {"families": {"b": {"tasks": 3, "intervals": told}}},
        "two": {"families": {"a": {"metrics": {"recovery": 0.25}}}},
    }
    found = {
        name: (tasks, [[c.text for c in cells] for cells in of]) for name, tasks, of in part_table(policies, "families")
    }
    unknown = ["–"] * len(PART_LABELS)
    assert found == {
        "a": ("", [unknown, ["–", "–", "25%", "–", "–"]]),
        "b": ("3", [["50%", "–", "–", "45%", "10%"], unknown]),
    }
    with pytest.raises(LeftOut, match="error types"):
        part_table(policies, "error_types")


def test_policies_that_lost_more_than_two_in_a_hundred_are_named() -> None:
    metrics = {"one": (98.0, 2.0), "two": (97.0, 3.0), "three": (0.0, 0.0), "old": (None, None)}
    policies = {name: {"metrics": {"episodes": n, "dropped": lost}} for name, (n, lost) in metrics.items()}
    assert dropped_alarms(policies) == ["two: 3 of 100 episodes were dropped as trouble of the sandbox"]


def test_the_training_speaks_where_no_held_out_task_was_played() -> None:
    history = [{"success": 0.5 if update < 10 else 0.9, "recovery": None} for update in range(20)]
    ((label, values),) = training_headline(history)
    assert (label, [(title, cell.text) for title, cell in values]) == (
        "Task solved",
        [("first updates", "50%"), ("last updates", "90%")],
    )


def test_lengths_are_told_by_their_middle_and_their_end() -> None:
    assert length_row("a", [1, 9, 2, 8, 3, 7, 4, 6, 5, 100])[1:] == (10, 6, 9, 100)
    assert length_row("a", range(1, 101))[1:] == (100, 51, 90, 100)
    assert length_row("a", [4])[1:] == (1, 4, 4, 4)


@pytest.mark.parametrize(
    ("value", "share", "text"),
    [(None, True, "–"), (0.0, True, "0%"), (0.031, True, "3.1%"), (0.5, True, "50%"), (1.0, True, "100%"),
     (12.0, False, "12"), (11.66, False, "11.7"), (1234.5, False, "1,234")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, share: bool, text: str) -> None:
    assert number_text(value, share) == text


def test_a_plot_takes_its_colours_from_the_page_and_keeps_its_words() -> None:
    names = ["moved", "$\\frac{", "a" * 60]
    rows = [Bars("<before> & after", [Bar(0.5, 0.4, 0.6), Bar(None), Bar(1.0)]), Bars("after SFT", [Bar(0.1)] * 3)]
    text = bar_plot("Task solved", names, rows)
    assert text.startswith("<svg ") and text.endswith("</svg>")
    assert "var(--c0)" in text and "var(--c1)" in text and "var(--ink)" in text and "#0a0" not in text
    for words in ("moved", "$\\frac{", "aaa…", "&lt;before&gt; &amp; after", "after SFT"):
        assert words in text, words
    assert "<metadata" not in text and "http" not in text


def test_a_policy_is_compared_with_the_first_of_its_own_split() -> None:
    def numbers(split: str, mean: float) -> dict[str, Any]:
        told = {"metrics": {"success": mean}, "intervals": {"success": [mean, mean - 0.05, mean + 0.05]}}
        return told | {"split": split}

    policies = {"before": numbers("test", 0.6), "after": numbers("test", 0.8)}
    policies |= {"before, held_out": numbers("held_out", 0.1), "after, held_out": numbers("held_out", 0.3)}
    row = next(row for row in policy_table(policies) if row.label == "Task solved")
    assert [cell.against for cell in row.cells] == ["", "better", "", "better"]
