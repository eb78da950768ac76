"""How alike subjective answers are: the same text, or an encoder's cosine, and each number says which."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.suites.gta.records import read_gta
from regrpo_jax.suites.gta.score import score_predictions
from regrpo_jax.suites.gta.similarity import SameText, SentenceEncoder, similarity_of
from tests.suites.gta_samples import answer, asked, call, folder, record, written

VECTORS = {
    "east": (3.0, 0.0),
    "north": (0.0, 0.5),
    "north-east": (1.0, 1.0),
    "west": (-2.0, 0.0),
    "nowhere": (0.0, 0.0),
}


class Encoder:
    """What `sentence_transformers` gives, with five words."""

    def __init__(self, path: str, device: str) -> None:
        if path.endswith("damaged"):
            raise OSError("no config.json")

    def encode(self, text: str) -> tuple[float, ...]:
        return VECTORS.get(text, (0.0, 1.0))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = Encoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


def model(place: Path, name: str = "all-mpnet-base-v2") -> Path:
    (place / name).mkdir()
    return place / name


@pytest.mark.parametrize(
    ("one", "other", "cosine"),
    [
        ("east", "east", 1),
        ("east", "north", 0),
        ("east", "north-east", 0.5**0.5),
        ("east", "west", 0),  # nothing below 0
        ("east", "nowhere", 0),
        ("nowhere", "nowhere", 0),
    ],
)
def test_an_encoders_cosine(library: None, tmp_path: Path, one: str, other: str, cosine: float) -> None:
    assert similarity_of(model(tmp_path))(one, other) == pytest.approx(cosine)


def test_without_a_folder_texts_are_alike_when_they_are_the_same() -> None:
    same = similarity_of(None)
    assert isinstance(same, SameText) and (same("a", "a"), same("a", "A"), same("a", "a ")) == (1, 0, 0)


def test_what_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is no folder; name the one of all-mpnet-base-v2"):
        SentenceEncoder(tmp_path / "none")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install 'regrpo_jax\[similarity\]'"):
        SentenceEncoder(model(tmp_path))


def test_a_folder_that_the_library_cannot_read(library: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read it .OSError: no config.json"):
        SentenceEncoder(model(tmp_path, "damaged"))


def test_scores_say_which_was_used(library: None, tmp_path: Path) -> None:
    gold = call("Plot", command="x")
    records = {
        "0": record(asked("Where?"), answer("east"), right=["north", "north-east"]),
        "1": record(asked("Plot."), gold, right=None),
    }
    data = read_gta(folder(tmp_path / "own", records))
    other = call("Plot", command="y")  # its text is of no known word, as the recorded one's
    entries = {"0": {"prediction": [[answer("east")]]}, "1": {"prediction": [[other]]}}
    path = written(tmp_path / "e.json", entries)
    plain, encoded = score_predictions(data, [path]), score_predictions(data, [path], model(tmp_path))
    (data.folder / "all-mpnet-base-v2").mkdir()
    assert score_predictions(data, [path]) == encoded  # as the one that lies beside the dataset
    found = [{one.name: one for one in score.figures if one.scorer == "GTA"} for score in (plain, encoded)]
    assert [one["AnsAcc"].hits for one in found] == [0, pytest.approx(0.5**0.5)]
    assert [one["AnsAcc with images"].hits for one in found] == [0, pytest.approx(1 + 0.5**0.5)]
    assert [one["AnsAcc"].note for one in found] == [
        "similarity: the same text",
        "similarity: cosine of all-mpnet-base-v2",
    ]
