"""Files of records, good and bad: a person is told what to mend, and no input ends in a traceback."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.errors import UserError
from regrpo_jax.records import Rejection, RotRecord, Trajectory, load_clean, load_rot, read_records

Make = Callable[[], dict[str, Any]]
Write = Callable[[Any], Path]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["assistant", "Reflection:\n"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.text(), JSON_VALUES), min_size=1), st.booleans(), st.booleans())
def test_json_and_jsonl_hold_the_same(records: list[dict[str, Any]], ascii_only: bool, newline: bool) -> None:
    ascii_only = ascii_only or any("\ud800" <= letter <= "\udfff" for letter in json.dumps(records, ensure_ascii=False))
    with tempfile.TemporaryDirectory() as folder:
        array, lines = Path(folder, "a.json"), Path(folder, "a.jsonl")
        array.write_text(json.dumps(records, ensure_ascii=ascii_only, indent=1), encoding="utf-8")
        texts = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
        lines.write_text("\n".join(texts) + "\n" * newline, encoding="utf-8", newline="")
        first, second = read_records(array), read_records(lines)
    assert repr(first) == repr(second) == repr(json.loads(json.dumps(records)))


def test_forms_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert read_records(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{\n "a": 1\n}')
    assert read_records(str(path)) == [{"a": 1}]
    path.write_text('{"a": "one\u2028line"}\n{"a": 2}', encoding="utf-8")
    assert len(read_records(path)) == 2
    path.write_text("[]")
    assert read_records(path) == []


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "blank": (b" \n\n", "the file is empty"),
    "truncated array": (b'[{"id": "a"},\n {"id": "b', r"invalid or truncated JSON at line 2, column 9"),
    "truncated last line": (
        b'{"id": "a"}\n{"id": "b"}\n{"id": ',
        r"invalid or truncated JSON at line 3, column 8",
    ),
    "no JSON": (b"id,answer\n1,2\n", r"invalid or truncated JSON at line 1, column 1"),
    "two arrays": (b"[{}]\n[{}]", r"invalid or truncated JSON at line 2, column 1"),
    "not UTF-8": (b'[{"id": "caf\xe9"}]', r"not UTF-8 text \(byte 12\)"),
    "a number": (b"5", "holds a number, not a list of objects"),
    "a string": (b'"records"', "holds a string, not a list of objects"),
    "null": (b"null", "holds null, not a list of objects"),
    "true": (b"true", "holds a true/false value, not a list"),
    "list of numbers": (b"[1, 2]", "item 0 is a number, but every record must be an object"),
    "list with null": (b'[{"id": "a"}, null]', "item 1 is null, but every record"),
    "a line that is a list": (b'{"id": "a"}\n["b"]', "item 1 is a list, but every record"),
    "nested too deeply": (b"[" * 200_000, "nested too deeply"),
    "an endless number": (b'[{"id": ' + b"9" * 5000 + b"}]", "cannot be read"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
@pytest.mark.parametrize("read", [read_records, load_rot, load_clean])
def test_bad_files_are_named(tmp_path: Path, read: Callable[[Path], object], content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("read", [read_records, load_rot, load_clean])
def test_bad_paths_are_named(tmp_path: Path, read: Callable[[Path | str], object]) -> None:
    (tmp_path / "file").write_text("x")
    cases: list[tuple[Path | str, str]] = [
        (tmp_path / "missing.json", "there is no such file"),
        (tmp_path, "this is a directory"),
        (tmp_path / "file" / "inside.json", "cannot be read"),
        ("a\x00b", "cannot be read"),
        ("x" * 5000, "cannot be read"),
    ]
    for path, message in cases:
        with pytest.raises(UserError, match=message):
            read(path)


def test_skipping_warns_once_for_every_bad_record(
    rot_record: Make, write_json: Write, caplog: pytest.LogCaptureFixture
) -> None:
    anonymous, twice_bad = rot_record(), rot_record()
    del anonymous["id"]
    twice_bad["rot_meta"]["step_index"] = 99
    twice_bad["image"] = "gone.jpg"
    path = write_json([anonymous, rot_record(), twice_bad])
    rejections: list[Rejection] = []
    with caplog.at_level(logging.WARNING):
        records = load_rot(path, rejections=rejections)
    assert [record.id for record in records] == ["ledger_rot_s1_ArgInvalid"]
    assert [(item.path, item.position, item.record_id) for item in rejections] == [
        (str(path), 0, ""),
        (str(path), 2, "ledger_rot_s1_ArgInvalid"),
    ]
    assert rejections[0].reasons == ("schema_keys: the record has no key `id`",)
    assert [record.getMessage().split(" is skipped: ")[0] for record in caplog.records] == [
        f"{path}: record 0 (id '')",
        f"{path}: record 2 (id 'ledger_rot_s1_ArgInvalid')",
    ]


def test_fatal_names_file_position_id_and_reason(rot_record: Make, write_json: Write) -> None:
    bad = rot_record() | {"id": "the bad one"}
    bad["rot_meta"]["step_index"] = 99
    path = write_json([rot_record(), bad])
    with pytest.raises(UserError) as caught:
        load_rot(path, on_bad_record="fatal")
    for part in (str(path), "record 1", "the bad one", "step_index: 99"):
        assert part in str(caught.value)


def test_no_usable_record_is_an_error_that_says_why(rot_record: Make, clean_record: Make, write_json: Write) -> None:
    silent = clean_record()
    silent["conversations"] = silent["conversations"][:1]
    with pytest.raises(UserError, match=r"(?s)none of its 1 records.*record 0 \(id 'ledger'\): no_assistant_turn"):
        load_clean(write_json([silent]))
    with pytest.raises(UserError, match="none of its 0 records"):
        load_rot(write_json([]))
    rejections: list[Rejection] = []
    with pytest.raises(UserError, match="no key `rot_meta`"):
        load_rot(write_json([clean_record()]), rejections=rejections)
    assert len(rejections) == 1


def test_an_unknown_way_to_treat_bad_records(rot_record: Make, write_json: Write) -> None:
    with pytest.raises(UserError, match="on_bad_record"):
        load_rot(write_json([rot_record()]), on_bad_record="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("load", [load_rot, load_clean])
def test_images_are_sought_beside_the_file(
    rot_record: Make, write_json: Write, tmp_path: Path, load: Callable[..., list[RotRecord | Trajectory]]
) -> None:
    (tmp_path / "there.jpg").write_bytes(b"x")
    good, bad = rot_record(), rot_record()
    good["image"], bad["image"] = {"<image_00>": "there.jpg"}, ["there.jpg", "gone.jpg", "odd\x00.jpg"]
    rejections: list[Rejection] = []
    [record] = load(write_json([good, bad]), rejections=rejections)
    assert [image.path for image in record.images] == [str(tmp_path / "there.jpg")]
    assert [reason.partition(":")[0] for reason in rejections[0].reasons] == [
        "image_missing",
        "image_missing",
    ]
    assert str(tmp_path / "gone.jpg") in rejections[0].reasons[0]


CLEAN_DAMAGE: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "no id": ("schema_keys", lambda r: r.pop("id")),
    "id is true": ("schema_keys", lambda r: r.update(id=True)),
    "no conversations": ("schema_keys", lambda r: r.pop("conversations")),
    "answer is a list": ("schema_types", lambda r: r.update(answer=[])),
    "image is a number": ("schema_types", lambda r: r.update(image=1)),
    "a turn is text": ("turn_shape", lambda r: r["conversations"].append("x")),
    "no assistant": ("no_assistant_turn", lambda r: r.update(conversations=r["conversations"][:1])),
    "no task": ("role_order", lambda r: r.update(conversations=r["conversations"][1:])),
    "half a surrogate": ("text_encoding", lambda r: r.update(answer="\ud800")),
}


@pytest.mark.parametrize(("rule", "damage"), CLEAN_DAMAGE.values(), ids=CLEAN_DAMAGE.keys())
def test_clean_records_are_checked(
    clean_record: Make, write_json: Write, rule: str, damage: Callable[[dict[str, Any]], object]
) -> None:
    bad = clean_record()
    damage(bad)
    rejections: list[Rejection] = []
    assert len(load_clean(write_json([bad, clean_record()]), rejections=rejections)) == 1
    assert [reason.partition(":")[0] for reason in rejections[0].reasons] == [rule]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value but its root, inner ones as well as leaves."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from _paths(child, (*path, key))


def _replace(record: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    place: Any = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value


@settings(max_examples=150, deadline=None)
@given(data=st.data(), fatal=st.booleans(), clean=st.booleans())
def test_a_random_value_anywhere_is_taken_or_refused_with_a_reason(
    rot_record: Make,
    clean_record: Make,
    tmp_path_factory: pytest.TempPathFactory,
    data: Any,
    fatal: bool,
    clean: bool,
) -> None:
    record = clean_record() if clean else rot_record()
    for path in data.draw(st.lists(st.sampled_from(list(_paths(record))), min_size=1, max_size=1)):
        _replace(record, path, data.draw(JSON_VALUES))
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    file.write_text(json.dumps([record]), encoding="utf-8")
    rejections: list[Rejection] = []
    load: Callable[..., list[Any]] = load_clean if clean else load_rot
    try:
        loaded = load(file, on_bad_record="fatal" if fatal else "skip", rejections=rejections)
    except UserError as error:
        assert str(file) in str(error)
        assert fatal or all(": " in reason for reason in rejections[0].reasons)
    else:
        assert len(loaded) == 1 and not rejections


def test_special_numbers_of_python_json_do_no_harm(rot_record: Make, write_json: Write) -> None:
    record = rot_record() | {"answer": math.nan}
    assert load_rot(write_json([record]))[0].answer == "nan"
