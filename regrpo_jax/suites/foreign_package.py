"""A package of others, imported from the folder where `pip install --target` put it, without what lies beside it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from regrpo_jax.errors import UserError


def take_from(name: str, folder: Path, advice: str) -> None:
    """Let `import name` mean the package in that folder, without the folder's neighbours on the path.

    advice: how to get the package. UserError where the folder holds none.
    """
    if lies_in(name, folder.parent):
        return
    for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
        del sys.modules[known]  # of another folder
    start = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None or not start.is_file():
        raise UserError(f"{folder} is no Python package: it has no __init__.py; {advice}")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def lies_in(name: str, folder: Path) -> bool:
    """Whether a package that is imported lies there."""
    known = sys.modules.get(name)
    return known is not None and [str(folder / name)] == list(getattr(known, "__path__", []))
