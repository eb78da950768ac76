"""Paths under other roots: a whole root or none, in fields and in texts, and one sentence on what is still missing."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.errors import UserError
from regrpo_jax.records import load_clean
from regrpo_jax.records.path_roots import PathRoots, path_roots, suggested_root

ROOTS = path_roots([".cache/tong=data/real", "/mnt/a=b", "old=", "x=/far"])
NAMES = st.text("abc._-", min_size=1, max_size=6).filter(lambda name: name.strip(".") != "")
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".cache/tong/gta/1.jpg", "data/real/gta/1.jpg"),
        (".cache/tongue/1.jpg", ".cache/tongue/1.jpg"),  # another folder whose name begins alike
        (".cache/tong//1.jpg", "data/real/1.jpg"),
        ("a/.cache/tong/1.jpg", "a/.cache/tong/1.jpg"),
        ("/mnt/a/1.jpg", "b/1.jpg"),
        ("mnt/a/1.jpg", "mnt/a/1.jpg"),
        ("old/1.jpg", "1.jpg"),
        ("x/1.jpg", "/far/1.jpg"),
        ("", ""),
        ("data:image;base64,b2xkLw==", "data:image;base64,b2xkLw=="),
    ],
)
def test_a_path_is_under_a_root_or_not(path: str, expected: str) -> None:
    assert ROOTS.path(path) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('open(".cache/tong/a b.txt")', 'open("data/real/a b.txt")'),
        ("see .cache/tong/1.jpg, and x/2.jpg.", "see data/real/1.jpg, and /far/2.jpg."),
        ("['/mnt/a/1.jpg', 'c/mnt/a/1.jpg']", "['b/1.jpg', 'c/mnt/a/1.jpg']"),
        ("https://x/y", "https://x/y"),
        ("max/min, ax/b, x.y, x /y", "max/min, ax/b, x.y, x /y"),
        ("the old/new question", "the new question"),  # words in the form of a path cannot be told from one
    ],
)
def test_texts_say_the_new_root(text: str, expected: str) -> None:
    assert ROOTS.text(text) == expected


@given(PATHS, PATHS, PATHS)
def test_code_and_field_agree(old: str, new: str, rest: str) -> None:
    roots = PathRoots(((old, new),))
    assert roots.text(f'open("{old}/{rest}")') == f'open("{roots.path(f"{old}/{rest}")}")'


@given(st.text())
def test_without_roots_nothing_changes(text: str) -> None:
    assert PathRoots().text(text) == PathRoots().path(text) == text


@given(PATHS, PATHS)
def test_a_suggested_root_brings_the_one_path_to_the_other(written: str, there: str) -> None:
    told = suggested_root(written, there)
    assert not told or path_roots([told]).path(written) == there


@pytest.mark.parametrize("told", ["data", "=data", "/=data", " = "])
def test_what_is_no_root_is_told(told: str) -> None:
    with pytest.raises(UserError, match=r"config\.data\.path_roots has .*old=new"):
        path_roots([told])


def trajectory(name: int, image: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": "see"}, {"from": "gpt", "value": "ok"}]
    return {"id": name, "image": image, "conversations": said}


def test_pictures_are_sought_under_the_new_root_and_one_sentence_names_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/1.jpg").write_bytes(b"x")
    records = [trajectory(1, "there/1.jpg"), *(trajectory(n, f"there/{n}.jpg") for n in range(2, 8))]
    records.append({"id": 9, "conversations": [{"from": "human", "value": "Picture 1: <img>there/1.jpg</img>\nsee"},
                                               {"from": "gpt", "value": "ok"}]})  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records))
    with caplog.at_level(logging.WARNING):
        found = load_clean(path, roots=path_roots(["there=here"]))
    assert [one.id for one in found] == ["1", "9"]
    assert [image.path for one in found for image in one.images] == [str(tmp_path / "here/1.jpg")] * 2
    assert found[1].conversation[0].content.startswith("Picture 1: <img>there/1.jpg</img>")  # texts stay as they are
    (told,) = caplog.messages
    assert told == (
        f"{path}: 6 of 8 records are left out, as pictures of theirs are not here: {tmp_path}/here/2.jpg, "
        f"{tmp_path}/here/3.jpg, {tmp_path}/here/4.jpg and 3 more; say where they lie with config.data.path_roots, "
        '"old=new"'
    )


def test_a_file_whose_pictures_are_all_missing_says_so_too(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([trajectory(1, "there/1.jpg")]))
    with pytest.raises(UserError, match=r"none of its 1 records can be used(.|\n)*config\.data\.path_roots"):
        load_clean(path)
