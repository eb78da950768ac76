"""Where compiled programs are kept, by setting and devices."""

from pathlib import Path

import pytest

from regrpo_jax.run.compiled_programs import compiled_folder


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    return tmp_path


@pytest.mark.parametrize("platform", ["cpu", "tpu", "gpu"])
@pytest.mark.parametrize("setting", ["", "/somewhere", "gs://bucket/programs"])
def test_what_is_said_is_done(setting: str, platform: str) -> None:
    assert compiled_folder(setting, platform) == setting


def test_a_cpu_keeps_none_of_its_own_accord() -> None:
    assert compiled_folder("auto", "cpu") == ""


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_accelerators_keep_them_for_the_user(user: Path, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled_folder("auto", platform) == str(user / "regrpo_jax" / "compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/programs")
    assert compiled_folder("auto", platform) == "gs://bucket/programs"
