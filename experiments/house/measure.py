"""How the house stands: modules at the root, config fields, lines, circles, imports upward, the way from play to loss.

    python -m experiments.house.measure [--folder=OTHER_CHECKOUT]

The layers are the folders of regrpo_jax from the ground up, in `LAYERS`; a file may import of its own folder and of
those before it. The way is what one reads who follows `regrpo_loss`'s parameters: every file of ours that can be
reached by imports from the online stage until the loss, on the paths that lead there.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

PACKAGE = "regrpo_jax"
LAYERS = (
    "errors", "core", "records", "config", "hosts", "toolbox", "sandbox", "agent", "workers", "environments", "suites",
    "engine", "models", "data", "training", "evaluation", "rollouts", "plan", "report", "run", "stages", "main",
)  # fmt: skip
"""From the ground up."""
ENDS = {"core.clipped_loss", "core.losses"}
STARTS = ("stages.online", "rollouts.online_stage")


def modules(folder: Path) -> dict[str, Path]:
    """Dotted name below the package -> file."""
    found = {}
    for path in sorted((folder / PACKAGE).rglob("*.py")):
        parts = path.relative_to(folder / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Our modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [
                name
                if (name := f"{node.module}.{alias.name}").removeprefix(f"{PACKAGE}.") in known
                else str(node.module)
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            below = name.removeprefix(f"{PACKAGE}.")
            if name.startswith(f"{PACKAGE}.") and below in known:
                yield below


def graph_of(folder: Path) -> dict[str, set[str]]:
    """Module -> our modules that it imports."""
    known = modules(folder)
    return {name: set(imported(path, known)) - {name} for name, path in known.items()}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's strongly connected components)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        numbers[name] = lowest[name] = len(numbers)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in numbers:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == numbers[name]:
            cut = stack.index(name)
            members = stack[cut:]
            del stack[cut:]
            if len(members) > 1:
                found.append(sorted(members))

    for name in graph:
        if name not in numbers:
            visit(name)
    return found


def upward(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """(module, what it imports from a layer above its own)."""
    order = {layer: number for number, layer in enumerate(LAYERS)}

    def layer(name: str) -> int:
        return order.get(name.split(".")[0], len(order))

    return [(name, other) for name in graph for other in sorted(graph[name]) if layer(other) > layer(name)]


def way(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules on import paths from the online stage to the losses."""
    start = next((name for name in STARTS if name in graph), "")
    after = _reached(graph, {start}) if start else set()
    turned: dict[str, set[str]] = {name: set() for name in graph}
    for name, others in graph.items():
        for other in others:
            turned[other].add(name)
    return sorted(after & _reached(turned, ENDS & set(graph)))


def _reached(graph: Mapping[str, set[str]], start: set[str]) -> set[str]:
    found, left = set(start), list(start)
    while left:
        new = graph[left.pop()] - found
        found |= new
        left += new
    return found


_COUNT = """
import importlib
for name in ("regrpo_jax.config.base_config", "regrpo_jax.base_config"):
    try:
        found = importlib.import_module(name).base_config()
        break
    except ImportError:
        pass
def count(section):
    return sum(count(value) if hasattr(value, "items") else 1 for value in section.values())
print(count(found))
"""


def fields(folder: Path) -> int:
    """Of the configuration, as its command line takes them."""
    done = subprocess.run([sys.executable, "-c", _COUNT], cwd=folder, capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("."))
    parser.add_argument("--list", action="store_true", help="name the circles and the imports upward")
    chosen = parser.parse_args()
    graph = graph_of(chosen.folder)
    known = modules(chosen.folder)
    rows = {
        "modules at the root": sum("." not in name and path.stem != "__init__" for name, path in known.items()),
        "modules": len(known),
        "lines": sum(len(path.read_text().splitlines()) for path in known.values()),
        "config fields": fields(chosen.folder),
        "circles": len(circles(graph)),
        "imports upward": len(upward(graph)),
        "files from the online stage to the loss": len(way(graph)),
    }
    table = Table("", str(chosen.folder.resolve().name), title="the house")
    for name, value in rows.items():
        table.add_row(name, f"{value:,}")
    console = Console()
    console.print(table)
    if chosen.list:
        for members in circles(graph):
            console.print("circle:", ", ".join(members))
        for name, other in upward(graph):
            console.print(f"upward: {name} -> {other}")


if __name__ == "__main__":
    main()
