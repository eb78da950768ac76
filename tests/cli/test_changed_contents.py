"""A run whose files became others under the same path is refused when it is started again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.corpus import Corpus
from regrpo_jax.errors import UserError
from regrpo_jax.main import main
from regrpo_jax.records import ImageReference, load_clean, load_rot
from regrpo_jax.run.fingerprints import run_fingerprints
from regrpo_jax.run.record import changed_contents, check_unchanged, record_run
from tests.compact_records import FEW

CONFIG = f"--config={Path(__file__).resolve().parents[1] / 'tiny_config.py'}"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The files of a run: records of both kinds, a picture, weights and an adapter."""
    shutil.copy(FEW.rot_train, tmp_path / "rot.json")
    shutil.copy(FEW.clean_train, tmp_path / "clean.json")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for folder in ("model", "adapter"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights.safetensors").write_bytes(b"12345678")
        (tmp_path / folder / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def taken(files: Path) -> Callable[[], dict[str, str]]:
    """The fingerprints as a start would take them now."""
    config = base_config()
    config.data.rot, config.data.clean = str(files / "rot.json"), str(files / "clean.json")
    config.model.path, config.lora.path = str(files / "model"), str(files / "adapter")
    shown = (ImageReference("", str(files / "a.png")), ImageReference("", "data:image;base64,AAAA"))

    def take() -> dict[str, str]:
        rot = [dataclasses.replace(record, images=shown) for record in load_rot(files / "rot.json")]
        return run_fingerprints(config, Corpus(load_clean(files / "clean.json"), rot, rot, False))

    return take


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "records": ("data.rot", lambda folder: shutil.copy(FEW.rot_test, folder / "rot.json")),
    "one digit": ("data.clean", lambda f: (f / "clean.json").write_text((f / "clean.json").read_text() + " ")),
    "a picture": ("data.rot (pictures)", lambda folder: Image.new("RGB", (8, 8), "red").save(folder / "a.png")),
    "weights": ("model.path", lambda folder: (folder / "model/weights.safetensors").write_bytes(b"12345679")),
    "a config": ("model.path", lambda folder: (folder / "model/config.json").write_text('{"a": 1}')),
    "an adapter": ("lora.path", lambda folder: (folder / "adapter/weights.safetensors").write_bytes(b"2345678")),
}


@pytest.mark.parametrize(("field", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_what_changed_is_named(
    files: Path, taken: Callable[[], dict[str, str]], field: str, change: Callable[[Path], object]
) -> None:
    before = taken()
    assert set(before) == {"data.rot", "data.rot (pictures)", "data.clean", "model.path", "lora.path"}
    check_unchanged(before, files)  # there is no earlier start
    record_run(base_config(), files, before)
    for path in files.rglob("*.json"):
        path.touch()
    (files / "model" / "README.md").write_text("Of no account.")
    check_unchanged(taken(), files)
    change(files)
    assert changed_contents(taken(), files) == [field]
    with pytest.raises(UserError, match=r"began with other contents of config\.") as caught:
        check_unchanged(taken(), files)
    assert f"config.{field};" in str(caught.value)


def test_a_gguf_file_and_the_tokenizer_beside_it_count(files: Path) -> None:
    config = base_config()
    config.model.path = str(files / "model.gguf")

    def taken() -> str:
        return run_fingerprints(config, Corpus([], [], [], False))["model.path"]

    (files / "model.gguf").write_bytes(b"1")
    digests = [taken()]
    for name in ("tokenizer.json", "chat_template.jinja", "model.gguf"):
        (files / name).write_text("2")
        digests.append(taken())
    assert len(set(digests)) == 4
    (files / "other.json").write_text("{}")
    assert taken() == digests[-1]


def test_a_start_that_reads_less_forgets_nothing(files: Path, taken: Callable[[], dict[str, str]]) -> None:
    before = taken()
    record_run(base_config(), files, before)
    record_run(base_config(), files)
    record_run(base_config(), files, {"data.source": "x"})
    kept = json.loads((files / "config.json").read_text())["fingerprints"]
    assert kept == before | {"data.source": "x"}


def test_a_run_is_not_resumed_with_other_records(files: Path) -> None:
    def start(**fields: Any) -> None:
        chosen = {"data.rot": files / "rot.json", "data.clean": files / "clean.json", "sft.steps": 0, "rl.steps": 0}
        main([CONFIG, f"--workdir={files / 'run'}", "--config.stages=sft",
              *(f"--config.{name}={value}" for name, value in (chosen | fields).items())])  # fmt: skip

    start()
    start()
    shutil.copy(FEW.rot_test, files / "rot.json")
    with pytest.raises(UserError, match=r"began with other contents of config\.data\.rot"):
        start()
