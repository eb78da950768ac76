"""The figures of files of predictions: known ones of the 60 records, and those of a second evaluator for any others."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrpo_jax.suites.benchmark import EPISODES, STEPS, Score
from regrpo_jax.suites.gta.official_episodes import KINDS
from regrpo_jax.suites.gta.prediction_files import answer_turn, call_turn, result_turn, write_predictions
from regrpo_jax.suites.gta.record_types import GtaData
from regrpo_jax.suites.gta.records import read_gta
from regrpo_jax.suites.gta.score import score_predictions
from tests.suites import gta_evaluator as rival
from tests.suites.gta_samples import (
    answer,
    asked,
    call,
    dataset,
    folder,
    gold_entries,
    record,
    result,
    whitelist,
    written,
)

RECORDS = dataset()
TRUTHS = [one["gt_answer"] for one in RECORDS.values()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GtaData:
    return read_gta(folder(tmp_path_factory.mktemp("gta")))


def figures(score: Score, scorer: str) -> dict[str, float | None]:
    return {figure.name: figure.percent for figure in score.figures if figure.scorer == scorer}


def fractions(score: Score, scorer: str) -> dict[str, tuple[float, int]]:
    return {figure.name: (figure.hits, figure.of) for figure in score.figures if figure.scorer == scorer}


def note_about(score: Score, words: str) -> str:
    found = [note for note in score.notes if words in note]
    assert len(found) == 1, score.notes
    return found[0]


def obedient(entries: dict[str, Any]) -> dict[str, Any]:
    """The last turn is asked for without tools, so that a policy which does as it is told answers there."""
    for entry in entries.values():
        if "tool_calls" in entry["prediction"][-1]:
            entry["prediction"][-1] = answer("done")
    return entries


def test_the_recorded_episodes(data: GtaData, tmp_path: Path) -> None:
    score = score_predictions(data, [written(tmp_path / "e.json", gold_entries(RECORDS, steps=False))])
    official = fractions(score, "GTA")
    assert official["AnsAcc, objective"] == (37, 40)
    assert official["AnsAcc"] == (37, 45)
    assert official["AnsAcc with images"] == (52, 60)
    assert [official[f"{kind} F1"][1] for kind in KINDS] == [75, 20, 43, 13]
    assert figures(score, "GTA")["P F1"] == pytest.approx(100, abs=2e-3)
    assert fractions(score, "MAT") == {"AnsAcc, objective": (40, 40), "AnsAcc, all": (40, 60)}
    assert fractions(score, "SPORT") == {"AnsAcc, objective": (40, 40), "AnsAcc, all": (40, 45)}
    assert figures(score, "GTA")["AnsAcc"] == pytest.approx(82.222, abs=1e-3)
    assert figures(score, "GTA")["AnsAcc with images"] == pytest.approx(86.667, abs=1e-3)
    assert "67, 71, 206" in note_about(score, "wrong by GTA's own rule")


def test_the_recorded_steps(data: GtaData, tmp_path: Path) -> None:
    score = score_predictions(data, [written(tmp_path / "s.json", gold_entries(RECORDS, steps=True))])
    assert fractions(score, "GTA") == {
        "InstAcc": (208, 196),
        "ToolAcc": (151, 151),
        "ArgAcc": (151, 151),
        "SummAcc": (37, 45),
        "SummAcc, objective": (37, 40),
        "calls with an error": (0, 151),
    }
    assert figures(score, "GTA")["InstAcc"] == pytest.approx(106.122, abs=1e-3)
    assert fractions(score, "ours, strict")["InstAcc"] == (208, 208)
    assert "InstAcc divides by 196" in note_about(score, "InstAcc divides")


def test_an_obedient_policys_steps(data: GtaData, tmp_path: Path) -> None:
    score = score_predictions(data, [written(tmp_path / "o.json", obedient(gold_entries(RECORDS, steps=True)))])
    official = figures(score, "GTA")
    assert official["InstAcc"] == pytest.approx(104.592, abs=1e-3)
    assert official["ToolAcc"] == pytest.approx(98.013, abs=1e-3)
    assert "in 3 records the recorded one is a call" in note_about(score, "without tools")


def test_every_number_says_whose_and_how_alike_texts_are(data: GtaData, tmp_path: Path) -> None:
    score = score_predictions(data, [written(tmp_path / "e.json", gold_entries(RECORDS, steps=False))])
    assert {figure.scorer for figure in score.figures} == {"GTA", "MAT", "SPORT", "ours, strict"}
    assert all(figure.of for figure in score.figures)
    with_similarity = [figure for figure in score.figures if figure.name in ("AnsAcc", "AnsAcc with images")]
    assert all("similarity: the same text" in figure.note for figure in with_similarity)


names = st.sampled_from([*sorted(rival.TYPES), "Nothing"])
arguments = st.dictionaries(
    st.sampled_from(["image", "text"]), st.sampled_from(["image/image_1.jpg", "a", 1]), max_size=2
)
words = st.sampled_from(["12", "2 or 3", "-2 or 4", "$3120", "yes", "", "4.816 9:30", "The image is saved."])


@st.composite
def turns(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        turn = call(draw(names), **draw(arguments))
        return turn | ({"error": {"type": "API_ERROR", "msg": "x"}} if draw(st.booleans()) else {})
    return answer(draw(words))


@st.composite
def changed(draw: st.DrawFn, steps: bool) -> dict[str, Any]:
    """The recorded turns with some of them replaced, left out or added."""
    entries = gold_entries(dict(list(RECORDS.items())[: draw(st.integers(5, 60))]), steps=steps)
    for entry in entries.values():
        own = entry["prediction"] if steps else entry["prediction"][0]
        for _ in range(draw(st.integers(0, 2))):
            own[draw(st.integers(0, len(own) - 1))] = draw(turns())
        if draw(st.integers(0, 4)) == 0:
            own.append(draw(turns()))
        if draw(st.integers(0, 4)) == 0 and len(own) > 1:
            own.pop()
    return entries


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries=changed(True))
def test_steps_as_the_other_evaluator(entries: dict[str, Any], data: GtaData, tmp_path: Path) -> None:
    official = figures(score_predictions(data, [written(tmp_path / "s.json", entries)]), "GTA")
    expected = rival.steps(list(entries.values()), TRUTHS)
    assert {name: official[name] for name in expected} == pytest.approx(expected)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries=changed(False))
def test_episodes_as_the_other_evaluator(entries: dict[str, Any], data: GtaData, tmp_path: Path) -> None:
    official = figures(score_predictions(data, [written(tmp_path / "e.json", entries)]), "GTA")
    expected = rival.episodes(list(entries.values()), TRUTHS[: len(entries)])
    assert {name: official[name] for name in expected} == pytest.approx(expected)


def test_paths_of_another_machine_are_the_same_arguments(data: GtaData, tmp_path: Path) -> None:
    entries = gold_entries(RECORDS, steps=True)
    moved = 0
    for entry in entries.values():
        entry["gold"] = copy.deepcopy(entry["gold"])
        for turn in entry["gold"]:
            values = turn["tool_calls"][0]["function"]["arguments"] if "tool_calls" in turn else {}
            for key, value in values.items():
                if str(value).startswith("image/image_"):
                    values[key] = f"/elsewhere/gta_dataset/{value}"
                    moved += 1
    score = score_predictions(data, [written(tmp_path / "s.json", entries)])
    assert fractions(score, "GTA")["ArgAcc"] == (151, 151)
    assert f"{moved} calls have the recorded arguments only after paths" in note_about(score, "made relative")


def scored(tmp_path: Path, records: dict[str, Any], *episodes: list[dict[str, Any]]) -> Score:
    data = read_gta(folder(tmp_path / "own", records))
    pairs = zip(data.records, episodes, strict=True)
    write_predictions(data, EPISODES, {one.id: own for one, own in pairs}, tmp_path / "e.json")
    return score_predictions(data, [tmp_path / "e.json"])


def test_of_two_calls_of_a_tool_that_makes_images_the_last_counts(tmp_path: Path) -> None:
    first, second = call("AddText", image="a", text="1"), call("AddText", image="b", text="2")
    dialog = [first, result("AddText", "x"), second, result("AddText", "y")]
    score = scored(tmp_path, {"0": record(asked("Write."), *dialog, right=None)}, dialog)
    assert fractions(score, "GTA")["AnsAcc with images"] == (0, 1)
    assert "(0)" in note_about(score, "takes an earlier one's place")
    assert fractions(scored(tmp_path, {"0": record(asked("Write."), first, right=None)}, [first]), "GTA")[
        "AnsAcc with images"
    ] == (1, 1)


def test_an_image_record_without_such_a_call_is_right_whatever_is_predicted(tmp_path: Path) -> None:
    score = scored(tmp_path, {"0": record(asked("Look."), call("OCR", image="a"), right=None)}, [answer("no")])
    assert fractions(score, "GTA")["AnsAcc with images"] == (1, 1)


def test_a_failed_call_makes_no_image_but_counts_as_a_tool(tmp_path: Path) -> None:
    gold = call("Plot", command="x")
    failed = gold | {"error": {"type": "ARGS_ERROR", "msg": "no"}}
    score = scored(tmp_path, {"0": record(asked("Plot."), gold, right=None)}, [failed])
    assert fractions(score, "GTA")["AnsAcc with images"] == (0, 1)
    assert fractions(score, "GTA")["calls with an error"] == (1, 1)
    assert figures(score, "GTA")["L F1"] == pytest.approx(100, abs=2e-3)


def test_numbers_of_arguments_are_compared_as_python_does_and_those_of_images_as_texts(tmp_path: Path) -> None:
    gold, same = call("Plot", command=1), call("Plot", command=1.0)
    score = scored(tmp_path, {"0": record(asked("Plot."), gold, right=None)}, [same])
    assert fractions(score, "GTA")["AnsAcc with images"] == (0, 1)
    data = read_gta(tmp_path / "own")
    write_predictions(data, STEPS, {"0": [same]}, tmp_path / "s.json")
    assert fractions(score_predictions(data, [tmp_path / "s.json"]), "GTA")["ArgAcc"] == (1, 1)


@pytest.mark.parametrize("episode", [[], [answer(None)], [answer("")], [result("OCR", "12")], [call("OCR", image="a")]])
def test_an_episode_without_an_answer_is_wrong_and_ends_nothing(tmp_path: Path, episode: list[dict[str, Any]]) -> None:
    records = {"0": record(asked("How many?"), answer("12"), right=whitelist(["12"]))}
    score = scored(tmp_path, records, episode)
    for scorer in ("GTA", "MAT", "SPORT", "ours, strict"):
        assert fractions(score, scorer)["AnsAcc, objective"] == (0, 1)
    assert any("empty episodes" in note for note in score.notes) == (not episode)


def test_a_step_without_text_is_wrong_and_named(tmp_path: Path) -> None:
    data = read_gta(folder(tmp_path, {"0": record(asked("How many?"), answer("12"), right=whitelist(["12"]))}))
    write_predictions(data, STEPS, {"0": [answer_turn(None)]}, tmp_path / "s.json")
    score = score_predictions(data, [tmp_path / "s.json"])
    assert fractions(score, "GTA")["SummAcc"] == (0, 1)
    assert fractions(score, "GTA")["InstAcc"] == (1, 1)  # the right kind of turn, as the evaluator would say
    assert "ends" in note_about(score, "1 answers are no text")


def test_strict_figures_are_over_everything_and_errors_are_wrong(data: GtaData, tmp_path: Path) -> None:
    entries = gold_entries(dict(list(RECORDS.items())[:10]), steps=True)
    for entry in entries.values():
        entry["prediction"] = [turn | ({"error": {}} if "tool_calls" in turn else {}) for turn in entry["prediction"]]
    score = score_predictions(data, [written(tmp_path / "s.json", entries)])
    assert figures(score, "GTA")["ToolAcc"] == 100
    strict = fractions(score, "ours, strict")
    assert strict["ToolAcc"] == (0, 151) and strict["ArgAcc"] == (0, 151)
    assert strict["InstAcc"][1] == 208 and strict["SummAcc"] == (9, 45)
    assert "partial: 10 of 60" in note_about(score, "partial")


def test_what_quirks_let_through_is_told(tmp_path: Path) -> None:
    records = {
        "0": record(asked("Any?"), answer("0"), right=whitelist(["0"])),
        "1": record(asked("Who?"), answer("Bob"), right=whitelist(["Bob"])),
        "2": record(asked("What?"), call("OCR", image="a"), right=whitelist(["a"])),
        "3": record(asked("What next?"), call("Ghost", image="a"), right=None),
    }
    score = scored(tmp_path, records, [answer("I do not know")], [answer("bob")], [answer("b")], [answer("b")])
    assert "1 (0)" in note_about(score, '"no" stands for 0')
    assert "1 (1)" in note_about(score, "case is ignored")
    assert note_about(score, "no turn that gives one").endswith(": 2")
    assert "1 recorded calls are of no tool" in note_about(score, "of no tool of GTA's")
    assert "O, L, C" in note_about(score, "divides by zero")
    assert score.records["0"] == {"answer": "I do not know", "GTA": 0.0, "MAT": False, "SPORT": True}


def test_what_is_written_is_what_is_read(data: GtaData, tmp_path: Path) -> None:
    own = [
        call_turn("OCR", {"image": "a"}, {"type": "x", "msg": "y"}),
        result_turn("OCR", "text", "\ud800"),
        answer_turn("1"),
    ]
    write_predictions(data, EPISODES, {data.records[7].id: own}, tmp_path / "e.json")
    entry = json.loads((tmp_path / "e.json").read_text())
    assert list(entry) == ["7"] and entry["7"]["prediction"][0][0] == own[0]
    assert entry["7"]["origin_prompt"] == [data.records[7].question]
    score = score_predictions(data, [tmp_path / "e.json"])
    assert list(score.records) == [data.records[7].id]
    assert fractions(score, "GTA")["calls with an error"] == (1, 1)
