"""Which files of our own package a worker may read: those that its tools import, and nothing that makes tasks.

A task is a pure function of names and a seed, so an action that could import what makes tasks would look the answer
up. Nothing is imported to find the files: imports are read off the sources, those inside functions too, and so are
references "package.module:name" that stand there as whole strings (the table of built-in tools is made of them).
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from regrpo_jax.errors import UserError
from regrpo_jax.records.syntax import syntax_tree

PACKAGE = "regrpo_jax"
FOLDER = Path(__file__).resolve().parents[1]  # of our package
# What every worker runs, whoever the tools are: itself, and the faults that wrap them.
ALWAYS = (f"{PACKAGE}.sandbox.worker", f"{PACKAGE}.environments.tool_faults")
# They make tasks, or know how each is solved.
FORBIDDEN = (f"{PACKAGE}.suites.toolrepair", f"{PACKAGE}.engine", f"{PACKAGE}.rollouts")
_REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+):[A-Za-z_]\w*")


def inside(references: Sequence[str]) -> list[Path]:
    """The files of our package, sorted, that a worker needs to have the things called "package.module:name".

    Modules of other packages among them are looked through for what they import of ours. UserError when that leads to
    what makes tasks.
    """
    return list(_inside(tuple(dict.fromkeys(reference.partition(":")[0] for reference in references))))


@functools.cache
def _inside(modules: tuple[str, ...]) -> tuple[Path, ...]:
    tops = {PACKAGE, *(module.partition(".")[0] for module in modules)}
    found: dict[str, Path] = {}
    waiting = [(module, "") for module in (*ALWAYS, *modules)]
    while waiting:
        module, because = waiting.pop()
        file = source_of(module) if module.partition(".")[0] in tops else None
        if file is None or module in found:
            continue
        if any(module == name or module.startswith(f"{name}.") for name in FORBIDDEN):
            whence = f"{because} imports it" if because else "it was named as the module of a tool"
            raise UserError(
                f"{module} makes tasks, so no sandbox may read it, but {whence}; take what the tools need from "
                f"elsewhere (those of the suite are in {PACKAGE}.suites.toolrepair_tools)"
            )
        found[module] = file
        outer = module.rpartition(".")[0]
        waiting += [(name, module) for name in (*([outer] if outer else []), *mentioned(file, module))]
    return tuple(sorted(file for module, file in found.items() if module.partition(".")[0] == PACKAGE))


def source_of(module: str) -> Path | None:
    """The file of a module, or the `__init__.py` of a package; None when there is no such file."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not spec.submodule_search_locations:
        return Path(spec.origin) if spec.origin and not inner and Path(spec.origin).suffix == ".py" else None
    place = Path(next(iter(spec.submodule_search_locations))).joinpath(*inner)
    candidates = [place / "__init__.py", *([place.with_name(f"{place.name}.py")] if inner else [])]
    return next((file for file in candidates if file.is_file()), None)


def mentioned(file: Path, module: str) -> Iterator[str]:
    """Dotted names that may be modules: all that a source imports when it runs, and all that it refers to."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    waiting: list[ast.AST] = [syntax_tree(file.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            waiting += node.orelse  # what stands there is never run
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            outer = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            whence = ".".join([*outer, *([node.module] if node.module else [])])
            yield from (whence, *(f"{whence}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            referred = _REFERENCE.fullmatch(node.value)
            if referred:
                yield referred[1]
