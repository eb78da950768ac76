"""The walls between the parts of the house: who may import whom, and what must not be needed to start."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.house.measure import LAYERS, circles, graph_of, upward

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "regrpo_jax"
HOST_WING = [
    name
    for name in ("records", "config", "engine", "agent", "toolbox", "sandbox", "workers", "environments", "suites")
    if (PACKAGE / name).is_dir()
]
# Read before jax is imported, so that a mistake is told at once.
STARTUP = ["main", "config.command_line", "config.checks", "run.model_defaults", "run.record", "errors"]
DEVICE_LIBRARIES = {"jax", "jaxlib", "flax", "optax", "orbax", "grain"}
TEST_LIBRARIES = {"torch", "peft", "pytest", "hypothesis"}


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


def files_of(part: str) -> list[Path]:
    files = sorted((PACKAGE / part).rglob("*.py"))
    assert files, f"{part} is empty"
    return files


def test_core_imports_nothing_of_ours_but_core() -> None:
    for path in files_of("core"):
        ours = [name for name in imported_names(path) if name.split(".")[0] == "regrpo_jax"]
        assert all(name.startswith("regrpo_jax.core.") for name in ours), (path, ours)


@pytest.mark.parametrize("part", HOST_WING)
def test_host_wing_imports_no_device_library_and_no_part_that_does(part: str) -> None:
    allowed = {"errors", *HOST_WING}
    for path in files_of(part):
        for name in imported_names(path):
            parts = name.split(".")
            assert parts[0] not in DEVICE_LIBRARIES, (path, name)
            assert parts[0] != "regrpo_jax" or parts[1] in allowed, (path, name)


def test_no_import_runs_upward_and_none_in_a_circle() -> None:
    graph = graph_of(ROOT)
    assert {name.split(".")[0] for name in graph} - {"regrpo_jax"} <= {*LAYERS, ""}, "a folder that has no place"
    assert upward(graph) == []
    assert circles(graph) == []


def test_a_circle_and_an_import_upward_are_found() -> None:
    graph = {"core.kl": {"data.chat"}, "data.chat": {"core.losses"}, "core.losses": {"core.kl"}, "errors": set()}
    assert upward(graph) == [("core.kl", "data.chat")]
    assert circles(graph) == [["core.kl", "core.losses", "data.chat"]]


def test_no_part_needs_a_library_of_the_tests() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        needed = {name.split(".")[0] for name in imported_names(path)}
        assert not needed & TEST_LIBRARIES, (path, needed & TEST_LIBRARIES)


def test_host_wing_and_startup_leave_jax_out_of_the_process() -> None:
    modules = [f"regrpo_jax.{name}" for name in HOST_WING + STARTUP]
    for part in HOST_WING:
        files = [path.relative_to(ROOT) for path in files_of(part) if path.stem not in ("__init__", "__main__")]
        modules += [".".join(path.with_suffix("").parts) for path in files]
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & (DEVICE_LIBRARIES | TEST_LIBRARIES)
    assert "regrpo_jax" in loaded


def test_the_whole_package_imports_without_torch() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['peft'] = None  # importing either now raises ImportError\n"
        "import regrpo_jax.run.walk, regrpo_jax.stages.table as table\n"
        "import importlib\n"
        "for stage in table.STAGES.values(): importlib.import_module(stage.module)\n"
        "print(sys.modules['torch'])"
    )
    done = python("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr


def test_help_is_told_without_importing_jax() -> None:
    done = python("-X", "importtime", "-m", "regrpo_jax.main", "--help")
    assert done.returncode == 0
    for flag in ("--config ", "--workdir ", "--config.rl.steps=50"):
        assert flag in done.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "ml_collections" in imported
    assert not imported & DEVICE_LIBRARIES
