"""The authors' package, read where `pip install --target` put it: nothing of it is copied or installed here.

Only modules that need the standard library (and mpmath) are imported: the classes that tools stand for, the checker,
tables of names. The package's own dependencies are not needed for these.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from regrpo_jax.errors import UserError
from regrpo_jax.suites.foreign_package import lies_in, take_from

PACKAGE, MATHS = "bfcl_eval", "mpmath"
DOCUMENTS = "data/multi_turn_func_doc"
_CHECKER = "eval_checker/multi_turn_eval"
_FILES = ("__init__.py", "constants/__init__.py", "constants/executable_backend_config.py", "eval_checker/__init__.py")
BACKEND = f"{PACKAGE}.constants.executable_backend_config"
CHECKER = f"{PACKAGE}.{_CHECKER.replace('/', '.')}.multi_turn_checker"
CALLING = f"{PACKAGE}.{_CHECKER.replace('/', '.')}.multi_turn_utils"
PROMPTS = f"{PACKAGE}.constants.default_prompts"
_INSTALL = "pip install --no-deps --target DIR bfcl-eval==2026.3.23, and name DIR in config.suite.path"


def package_folder(path: Path) -> Path:
    """The package itself, from the folder that it lies in, or from itself. UserError where it is not."""
    for place in (path / PACKAGE, path):
        if place.name == PACKAGE and (place / _CHECKER).is_dir() and (place / DOCUMENTS).is_dir():
            return place
    raise UserError(f"{path} holds no package {PACKAGE} with the multi-turn sets of BFCL; {_INSTALL}")


def readable_places(package: Path) -> tuple[str, ...]:
    """What the process of the tools reads of it: classes, checker and documents, none of the tasks and answers."""
    places = [*(package / file for file in _FILES), package / _CHECKER, package / DOCUMENTS]
    if importlib.util.find_spec(MATHS) is None or lies_in(MATHS, package.parent):
        places.append(package.parent / MATHS)
    return tuple(str(place) for place in places if place.exists())


def imported(package: Path, module: str) -> ModuleType:
    """A module of the package in that folder. UserError where it is not, or needs what is not here."""
    take_from(PACKAGE, package, _INSTALL)
    maths = package.parent / MATHS
    if MATHS not in sys.modules and importlib.util.find_spec(MATHS) is None and maths.is_dir():
        take_from(MATHS, maths, _INSTALL)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{module} of {package} cannot be imported: {error}; {_INSTALL}") from error
