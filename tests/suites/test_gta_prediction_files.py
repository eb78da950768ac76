"""Files of predictions as they come: shards, parts, damaged ones; what is odd is named and counted, nothing ends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrpo_jax.errors import UserError
from regrpo_jax.suites.benchmark import EPISODES, STEPS
from regrpo_jax.suites.gta.cut_json import whole_members
from regrpo_jax.suites.gta.prediction_files import Predictions, read_predictions
from regrpo_jax.suites.gta.record_types import GtaData
from regrpo_jax.suites.gta.records import read_gta
from regrpo_jax.suites.gta.score import score_predictions
from regrpo_jax.suites.gta.shards import shards_of
from tests.suites.gta_samples import answer, asked, call, dataset, folder, gold_entries, record, whitelist, written

RECORDS = dataset()
IDS = list(RECORDS)
SIZES = (25, 25, 10)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GtaData:
    return read_gta(folder(tmp_path_factory.mktemp("gta")))


def part(start: int, end: int, *, steps: bool = False) -> dict[str, Any]:
    return gold_entries({name: RECORDS[name] for name in IDS[start:end]}, steps=steps)


def shards(place: Path, *, steps: bool = False, name: str = "gta_bench") -> list[Path]:
    ends = [sum(SIZES[: number + 1]) for number in range(len(SIZES))]
    pairs = zip(ends, SIZES, strict=True)
    parts = [part(end - size, end, steps=steps) for end, size in pairs]
    return [written(place / f"{name}_{number}.json", entries) for number, entries in enumerate(parts)]


def ids(found: Predictions) -> list[str]:
    return [prediction.record.id for prediction in found.predictions]


def kinds(found: Predictions) -> dict[str, int]:
    every = [problem.kind for problem in found.problems]
    return {kind: every.count(kind) for kind in dict.fromkeys(every)}


@pytest.mark.parametrize("steps", [True, False])
def test_shards_whose_numbers_start_again_are_merged_in_order(data: GtaData, tmp_path: Path, steps: bool) -> None:
    whole = written(tmp_path / "whole.json", gold_entries(RECORDS, steps=steps))
    (tmp_path / "parts").mkdir()
    parts = shards(tmp_path / "parts", steps=steps)
    found = read_predictions(data, parts)
    assert ids(found) == IDS and found.mode == (STEPS if steps else EPISODES) and not found.problems
    assert score_predictions(data, parts) == score_predictions(data, [whole])


def test_the_ways_to_name_shards(tmp_path: Path) -> None:
    parts = shards(tmp_path)
    for ways in (parts, parts[::-1], [tmp_path], parts[:1], [tmp_path / "gta_bench.json"]):
        assert shards_of(ways) == parts
    assert shards_of(parts[1:2]) == parts[1:2]
    tenth = written(tmp_path / "gta_bench_10.json", part(0, 1))
    assert shards_of([tmp_path])[-1] == tenth  # by number, which is not the order of their names


def test_other_files_keep_the_order_that_they_are_given_in(tmp_path: Path) -> None:
    paths = [written(tmp_path / name, {}) for name in ("b.json", "a.json")]
    assert shards_of(paths) == paths


def test_numbers_may_go_on_from_shard_to_shard(data: GtaData, tmp_path: Path) -> None:
    second = {str(int(number) + 30): entry for number, entry in part(30, 60).items()}
    paths = [written(tmp_path / "p_0.json", part(0, 30)), written(tmp_path / "p_1.json", second)]
    found = read_predictions(data, paths)
    assert ids(found) == IDS and not found.problems


def test_a_missing_shard_is_named_and_what_follows_is_matched(data: GtaData, tmp_path: Path) -> None:
    parts = shards(tmp_path)
    parts[1].unlink()
    found = read_predictions(data, [parts[0], parts[2]])
    assert ids(found) == IDS[:25] + IDS[50:]
    assert kinds(found) == {"missing shard": 1, "entries matched by what was asked": 1}
    assert "gta_bench_1.json" in str(found.problems[0])
    notes = score_predictions(data, [parts[0], parts[2]]).notes
    assert any("partial: 35 of 60" in note for note in notes) and any("missing shard: 1" in note for note in notes)


@pytest.mark.parametrize("steps", [True, False])
def test_recorded_turns_tell_the_record_where_no_prompt_does(data: GtaData, tmp_path: Path, steps: bool) -> None:
    parts = shards(tmp_path, steps=steps)
    parts[0].unlink()
    for path in parts[1:]:
        told = json.loads(path.read_text())
        bare = {key: {"prediction": entry["prediction"], "gold": entry["gold"]} for key, entry in told.items()}
        text = json.dumps(bare).replace('"image/image_', '"/elsewhere/gta_dataset/image/image_')
        path.write_text(text)
    assert ids(read_predictions(data, parts[1:])) == IDS[25:]


def test_a_missing_shard_before_others_that_do_not_say_what_they_were_asked(data: GtaData, tmp_path: Path) -> None:
    parts = shards(tmp_path)
    parts[0].unlink()
    for path in parts[1:]:
        told = json.loads(path.read_text())
        written(path, {key: {"prediction": entry["prediction"]} for key, entry in told.items()})
    found = read_predictions(data, parts[1:])
    assert ids(found) == []
    assert kinds(found) == {"missing shard": 1, "shard after a missing one": 2}


def test_a_file_that_was_cut_off_gives_what_is_whole(data: GtaData, tmp_path: Path) -> None:
    path = written(tmp_path / "e.json", gold_entries(RECORDS, steps=False))
    text = path.read_text()
    path.write_text(text[: text.index('"20": {') + 40])
    found = read_predictions(data, [path])
    assert ids(found) == IDS[:20]
    assert kinds(found) == {"damaged file": 1} and "20 entries before that are read" in str(found.problems[0])


def test_a_shard_that_was_cut_off_does_not_shift_the_next(data: GtaData, tmp_path: Path) -> None:
    parts = shards(tmp_path)
    text = parts[0].read_text()
    parts[0].write_text(text[: text.index('"20": {')])
    found = read_predictions(data, parts)
    assert ids(found) == IDS[:20] + IDS[25:]
    assert kinds(found)["damaged file"] == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff\xfe", b"{", b'{"0"', b"not json", b'"text"'])
def test_a_shard_of_which_nothing_can_be_read(data: GtaData, tmp_path: Path, content: bytes) -> None:
    parts = shards(tmp_path)
    parts[1].write_bytes(content)
    found = read_predictions(data, parts)
    assert ids(found) == IDS[:25] + IDS[50:]
    assert kinds(found)["damaged file"] >= 1
    (tmp_path / "alone.json").write_bytes(content)
    with pytest.raises(UserError, match="no predictions can be read: alone.json"):
        read_predictions(data, [tmp_path / "alone.json"])


def test_a_path_where_nothing_is(data: GtaData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"score_only"):
        read_predictions(data, [tmp_path / "none.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no predictions are there"):
        read_predictions(data, [tmp_path / "empty"])


def test_unknown_and_duplicate_ids_are_named(data: GtaData, tmp_path: Path) -> None:
    entries = gold_entries(RECORDS, steps=False)
    text = json.dumps(entries | {"60": entries["0"], "999": entries["1"], "x": entries["2"], "-1": entries["3"]})
    twice = json.dumps({"prediction": [[answer("other")]]})
    (tmp_path / "e.json").write_text(f'{text[:-1]}, "5": {twice}}}')
    found = read_predictions(data, [tmp_path / "e.json"])
    assert ids(found) == IDS
    assert kinds(found) == {"prediction for an unknown id": 4, "duplicate id": 1}
    assert found.predictions[5].last.text == "other"


def test_the_same_file_twice(data: GtaData, tmp_path: Path) -> None:
    path = written(tmp_path / "e.json", gold_entries(RECORDS, steps=False))
    found = read_predictions(data, [path, path])
    assert ids(found) == IDS and kinds(found)["duplicate id"] == 60


def test_holes_are_missing_records(data: GtaData, tmp_path: Path) -> None:
    entries = gold_entries(RECORDS, steps=True)
    del entries["0"], entries["30"]
    found = read_predictions(data, [written(tmp_path / "s.json", entries)])
    assert ids(found) == [name for place, name in enumerate(IDS) if place not in (0, 30)] and not found.problems


def test_a_file_of_a_part_of_the_dataset_is_matched(data: GtaData, tmp_path: Path) -> None:
    found = read_predictions(data, [written(tmp_path / "e.json", part(40, 50))])
    assert ids(found) == IDS[40:50] and kinds(found) == {"entries matched by what was asked": 1}


def test_entries_by_the_records_own_ids(data: GtaData, tmp_path: Path) -> None:
    entries = dict(zip(IDS, gold_entries(RECORDS, steps=False).values(), strict=True))
    assert ids(read_predictions(data, [written(tmp_path / "e.json", entries)])) == IDS
    bare = {name: {"prediction": entry["prediction"]} for name, entry in entries.items()}
    assert ids(read_predictions(data, [written(tmp_path / "b.json", bare)])) == IDS


def test_a_single_entry_that_asks_another_question_keeps_its_number(data: GtaData, tmp_path: Path) -> None:
    entries = gold_entries(RECORDS, steps=False)
    entries["3"] = entries["4"]
    found = read_predictions(data, [written(tmp_path / "e.json", entries)])
    assert ids(found) == IDS
    assert kinds(found) == {"entry that is about another record": 1, "gold that is not the dataset's": 1}


def test_newer_keys_and_tools_before_the_question_do_no_harm(data: GtaData, tmp_path: Path) -> None:
    entries = part(10, 20)
    for entry in entries.values():
        entry |= {"steps": [], "full_tree": None, "attached_files": ["a.png"], "assistant_outputs": [["x"]]}
        entry["origin_prompt"] = [f"[Available Tool List]\nTool names: OCR\n{entry['origin_prompt'][0]}"]
    assert ids(read_predictions(data, [written(tmp_path / "e.json", entries)])) == IDS[10:20]


def test_positions_count_malformed_records(tmp_path: Path) -> None:
    one = record(asked("a?"), answer("a"), right=whitelist(["a"]))
    two = record(asked("b?"), answer("b"), right=whitelist(["b"]))
    data = read_gta(folder(tmp_path / "own", {"0": one, "1": {"dialogs": 3}, "2": two}))
    entries = {str(place): {"prediction": [[answer("b")]]} for place in range(3)}
    found = read_predictions(data, [written(tmp_path / "e.json", entries)])
    assert ids(found) == ["0", "2"] and kinds(found) == {"prediction for an unknown id": 1}
    assert any("1 records of dataset.json" in note for note in score_predictions(data, [tmp_path / "e.json"]).notes)


Damage = Callable[[dict[str, Any]], None]
DAMAGED: dict[str, tuple[Damage, str]] = {
    "no prediction": (lambda entry: entry.pop("prediction"), "malformed prediction"),
    "a prediction of null": (lambda entry: entry.update(prediction=None), "malformed prediction"),
    "a prediction of text": (lambda entry: entry.update(prediction="12"), "malformed prediction"),
    "an episode of null": (lambda entry: entry.update(prediction=[None]), "malformed prediction"),
    "a flat episode": (lambda entry: entry.update(prediction=[answer("12")]), "malformed prediction"),
    "a turn of null": (lambda entry: entry.update(prediction=[[None]]), "turn of another shape"),
    "a turn without a role": (lambda entry: entry.update(prediction=[[{"content": "12"}]]), "turn of another shape"),
    "no calls": (lambda e: e.update(prediction=[[{"role": "assistant", "tool_calls": []}]]), "turn of another shape"),
    "null calls": (lambda e: e.update(prediction=[[{"role": "assistant", "tool_calls": None}]]), "turn of another"),
    "a call without a function": (lambda e: e.update(prediction=[[{"tool_calls": [{}]}]]), "turn of another shape"),
    "an answer of null": (lambda entry: entry.update(prediction=[[answer(None)]]), "answer that is no text"),
    "an answer of a number": (lambda entry: entry.update(prediction=[[answer(12)]]), "answer that is no text"),
    "an answer of parts": (lambda entry: entry.update(prediction=[[answer([{"text": "12"}])]]), "answer that is no"),
    "another gold": (lambda entry: entry.update(gold=[[answer("99")]]), "gold that is not the dataset's"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_entry_is_named_and_wrong(name: str, data: GtaData, tmp_path: Path) -> None:
    damage, kind = DAMAGED[name]
    entries = gold_entries(RECORDS, steps=False)
    damage(entries["0"])
    path = written(tmp_path / "e.json", entries)
    found = read_predictions(data, [path])
    (problem,) = found.problems
    assert kind in problem.kind and problem.where == "record 0"
    score = score_predictions(data, [path])
    right = next(figure.hits for figure in score.figures if figure.name == "AnsAcc, objective")
    assert right == (37 if name == "another gold" else 36)
    assert any(kind in note for note in score.notes)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "function", "name", "error"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries=st.dictionaries(st.sampled_from(["0", "1", "7", "70"]), values | st.fixed_dictionaries(
    {"prediction": values, "gold": values, "origin_prompt": values}), min_size=1))  # fmt: skip
def test_no_file_of_json_ends_the_scoring(entries: dict[str, Any], data: GtaData, tmp_path: Path) -> None:
    score = score_predictions(data, [written(tmp_path / "e.json", entries)])
    assert all(figure.hits >= 0 for figure in score.figures)
    assert score.figures and set(score.records) <= set(IDS)
    json.dumps(score.records)


@given(st.dictionaries(st.text(max_size=3), values, max_size=4), st.data())
def test_what_is_read_of_a_cut_object_is_a_beginning_of_it(told: dict[str, Any], draw: st.DataObject) -> None:
    text = json.dumps(told, indent=draw.draw(st.sampled_from([None, 4])))
    assert whole_members(text) == told
    found = whole_members(text[: draw.draw(st.integers(0, len(text)))])
    assert list(found.items()) == list(told.items())[: len(found)]


def test_steps_beside_episodes(data: GtaData, tmp_path: Path) -> None:
    mixed = gold_entries(RECORDS, steps=True) | dict(list(gold_entries(RECORDS, steps=False).items())[:3])
    found = read_predictions(data, [written(tmp_path / "s.json", mixed)])
    assert found.mode == STEPS and kinds(found)["malformed prediction"] == 3


def test_predictions_that_are_too_long_or_too_short(data: GtaData, tmp_path: Path) -> None:
    entries = gold_entries(RECORDS, steps=True)
    entries["0"]["prediction"].append(answer("more"))
    entries["1"]["prediction"].pop()
    notes = score_predictions(data, [written(tmp_path / "s.json", entries)]).notes
    assert any("1 recorded turns have no prediction" in note for note in notes)
    assert any("1 predicted turns have no recorded one" in note for note in notes)


def test_several_turns_of_the_user_make_the_first_one_an_episode(tmp_path: Path) -> None:
    dialog = [asked("a?"), answer("a"), asked("b?"), call("OCR", image="x"), answer("b")]
    data = read_gta(folder(tmp_path / "own", {"0": record(*dialog, right=whitelist(["a"]))}))
    entries = {"0": {"prediction": [[answer("a")], [answer("b")]], "origin_prompt": ["a?", "b?"]}}
    found = read_predictions(data, [written(tmp_path / "e.json", entries)])
    assert [turn.text for turn in found.predictions[0].gold] == ["a"] and not found.problems
