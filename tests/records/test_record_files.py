"""Files of others: every encoding and layout that can be told is read, what cannot is named, and a cut file says so."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.errors import UserError
from regrpo_jax.records import load_clean, read_records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("ab", max_size=3), children, max_size=3),
    max_leaves=5,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["id", "x", "é", "[", "{"]), VALUES), min_size=1, max_size=5)
LAYOUTS: dict[str, Callable[[list[dict[str, Any]], str], str]] = {
    "array": lambda records, end: json.dumps(records, ensure_ascii=False, indent=1).replace("\n", end),
    "lines": lambda records, end: end.join(json.dumps(record, ensure_ascii=False) for record in records),
    "over lines": lambda records, end: end.join(
        json.dumps(record, ensure_ascii=False, indent=2).replace("\n", end) for record in records
    ),
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
}  # fmt: skip


@given(
    records=RECORDS,
    layout=st.sampled_from(sorted(LAYOUTS)),
    encoding=st.sampled_from(ENCODINGS),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    packed=st.sampled_from(sorted(PACKED)),
)
def test_a_file_holds_the_same_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[dict[str, Any]],
    layout: str,
    encoding: str,
    end: str,
    packed: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"written{packed}"
    path.write_bytes(PACKED[packed](LAYOUTS[layout](records, end).encode(encoding)))
    assert read_records(path) == records


@given(records=RECORDS, layout=st.sampled_from(sorted(LAYOUTS)), data=st.data())
def test_a_cut_file_keeps_its_whole_records_where_asked(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], layout: str, data: Any
) -> None:
    whole = LAYOUTS[layout](records, "\n").encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_bytes(cut)
    try:
        kept = read_records(path, salvage=True)
    except UserError:
        kept = []
    assert kept == records[: len(kept)]
    ends = [len(LAYOUTS[layout](records[:count], "\n").encode()) for count in range(1, len(records) + 1)]
    closing = 2 if layout == "array" else 0  # "\n]"
    assert len(kept) == sum(end - closing <= len(cut) for end in ends)
    try:
        assert read_records(path) == kept  # without the salvage, only a cut between records goes unnoticed
        assert layout != "array" or cut == whole
    except UserError as error:
        assert str(path) in str(error)


def test_a_cut_says_where_and_how_much_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cut.json"
    path.write_text('[{"id": "a"},\n {"id": "b"},\n {"id": "c')
    with pytest.raises(UserError, match=r"line 3, column 9.*config\.data\.salvage=True"):
        read_records(path)
    with caplog.at_level(logging.WARNING):
        assert read_records(path, salvage=True) == [{"id": "a"}, {"id": "b"}]
    assert caplog.messages == [f"{path}: breaks off at line 3, column 9; the 2 whole records before are kept"]
    path.write_text('[{"id": "a')
    for salvage in (True, False):
        with pytest.raises(UserError, match="line 1, column 9") as caught:
            read_records(path, salvage=salvage)
        assert "salvage" not in str(caught.value)
    path.write_bytes('{"id": "a"}\n{"id": "é'.encode()[:-1])
    with pytest.raises(UserError, match=r"in the middle of a character \(byte 20\).*salvage"):
        read_records(path)
    assert read_records(path, salvage=True) == [{"id": "a"}]


ONE = {"id": "a", "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}
GTA = {"tools": [], "files": [], "dialogs": [{"role": "user", "content": "How much?"}], "gt_answer": None}
OTHERS: dict[str, tuple[bytes, str]] = {
    "under a key": (json.dumps({"version": 1, "data": [ONE]}).encode(), "1 records are under the key 'data'"),
    "under a split": (json.dumps({"train": [ONE, ONE], "test": []}).encode(), "2 records are under the key 'train'"),
    "by name": (json.dumps({"a": ONE, "b": ONE}).encode(), "an object of 2 records by name"),
    "GTA": (json.dumps({"0": GTA, "1": GTA}).encode(), "2 tasks in GTA's form"),
    "GTA as a list": (json.dumps([GTA]).encode(), "1 tasks in GTA's form"),
    "one of GTA": (json.dumps(GTA).encode(), "1 tasks in GTA's form"),
    "zstd": (b"\x28\xb5\x2f\xfd....", "zstd-compressed"),
    "zip": (b"PK\x03\x04....", "a zip archive"),
    "Parquet": (b"PAR1....PAR1", "a Parquet file"),
    "half a gzip": (gzip.compress(json.dumps([ONE] * 50).encode())[:60], "compressed file is damaged or cut off"),
    "Latin-1": ('[{"id": "café"}]'.encode("latin-1"), r"not UTF-8 text \(byte 12\)"),
    "no records": (b"[]", "none of its 0 records"),
    "another schema": (b'[{"question": "x", "gold": "y"}]', "no `conversations`; its keys: question, gold"),
}


@pytest.mark.parametrize(("content", "words"), OTHERS.values(), ids=OTHERS.keys())
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        load_clean(path)
    assert str(caught.value).startswith(f"{path}: ")
