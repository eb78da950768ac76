"""What a worker may read of our package: enough to have its tools, and nothing that makes a task."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import regrpo_jax
from regrpo_jax.environments.tool_faults import APPLY
from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.modules import FORBIDDEN, inside
from regrpo_jax.sandbox.pool import LOADER
from regrpo_jax.suites.toolrepair import LOADERS

PACKAGE = Path(regrpo_jax.__file__).resolve().parent
ROOT = PACKAGE.parent
OURS = (*LOADERS.values(), LOADER)
# Nothing of the checkout is found but by the folder that is named first; then all is loaded as a worker does it.
LOADED = """
import importlib, json, sys
folder, root, references = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path = [folder, *(path for path in sys.path if path not in ("", root))]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
for reference in references:
    module, _, name = reference.partition(":")
    found = getattr(importlib.import_module(module), name)
    for tool in found(None).values() if name.startswith("load") else ():
        if callable(warm_up := getattr(tool, "warm_up", None)):
            warm_up()
import regrpo_jax.sandbox.tool_process, regrpo_jax.sandbox.worker
print(json.dumps({name: module.__file__ for name, module in sys.modules.items() if name.startswith("regrpo_jax")}))
"""


def modules(references: tuple[str, ...]) -> set[str]:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in inside(references)}
    return {name.removesuffix(".__init__") for name in names}


@pytest.mark.parametrize("loader", OURS)
def test_nothing_inside_makes_tasks(loader: str) -> None:
    found = modules((loader,))
    assert {"regrpo_jax", "regrpo_jax.sandbox.worker", loader.partition(":")[0]} <= found
    for name in found:
        assert not any(name == wall or name.startswith(f"{wall}.") for wall in FORBIDDEN), name
        assert name.rpartition(".")[2] not in ("registry", "families", "plan", "draft", "demonstrations", "documents")
    for path in inside((loader,)):
        text = path.read_text(encoding="utf-8")
        assert "def make_task" not in text and "-> Draft" not in text, path


def test_packages_on_the_way_import_nothing() -> None:
    for package in ("regrpo_jax", "regrpo_jax/environments", "regrpo_jax/suites/toolrepair_tools"):
        assert "import " not in (ROOT / package / "__init__.py").read_text(encoding="utf-8").partition('"""\n')[2]


@pytest.mark.parametrize("loader", OURS)
def test_what_is_inside_is_enough(loader: str, tmp_path: Path) -> None:
    for path in inside((loader,)):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    command = [sys.executable, "-P", "-c", LOADED, str(tmp_path), str(ROOT), loader, APPLY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout.splitlines()[-1])
    assert files and all(file.startswith(str(tmp_path)) for file in files.values())


def user_package(folder: Path, source: str) -> None:
    package = folder / "users_own_tools"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(source)
    (package / "tools.py").write_text("from .inner import thing\n\ndef load(settings):\n    return {}\n")


def test_what_a_users_package_imports_of_ours_is_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def thing():\n    from regrpo_jax.suites.toolrepair_tools.compact_tools import Read\n"
    user_package(tmp_path, source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "regrpo_jax.suites.toolrepair_tools.compact_tools" in modules(("users_own_tools.tools:load",))
    assert all(path.is_relative_to(PACKAGE) for path in inside(("users_own_tools.tools:load",)))


@pytest.mark.parametrize(
    "line",
    [
        "from regrpo_jax.suites.toolrepair.registry import make_task as thing",
        "from regrpo_jax.suites import toolrepair as thing",
        "def thing():\n    import regrpo_jax.engine.demonstrations",
        'thing = "regrpo_jax.suites.toolrepair.registry:make_task"',
    ],
)
def test_tools_that_bring_the_tasks_along_are_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = f"cheating_tools_{len(line)}"  # the answer for a name is kept
    (tmp_path / f"{name}.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=rf"makes tasks, so no sandbox may read it, but {name} imports it"):
        inside((f"{name}:load",))


def test_what_is_imported_for_types_alone_is_not_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from regrpo_jax.suites.toolrepair import plan_of\n"
        "else:\n    import regrpo_jax.toolbox.tables\n"
    )
    (tmp_path / "typed_tools.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = modules(("typed_tools:load",))
    assert "regrpo_jax.toolbox.tables" in found and "regrpo_jax.suites.toolrepair" not in found
