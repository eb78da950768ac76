"""The run directory: made before anything costs time, with what is needed to repeat the run."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import ml_collections

from regrpo_jax.errors import UserError
from regrpo_jax.records.text_files import replace_text

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")
# Fields that may differ between starts of one run without changing what its checkpoints mean.
FREE_FIELDS = (
    "stages", "log_every", "log_to", "compilation_cache", "checkpoint", "eval", "recovery", "baselines", "environment",
    "audit",
)  # fmt: skip
# Sections of which no field may differ, because checkpoints and rollouts would not fit.
FIXED_SECTIONS = ("seed", "model", "data", "lora", "engine", "suite", "tools")


def prepare_workdir(workdir: Path) -> None:
    """Makes the folder and proves that it can be written.

    Raises:
      UserError: it can't.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written ({error.strerror}); choose another folder") from error


def check_earlier_start(config: ml_collections.ConfigDict, workdir: Path) -> bool:
    """Whether the folder holds an earlier start of this run; says what changed since then.

    Raises:
      UserError: the earlier start had another model or data, so that its checkpoints would not fit.
    """
    path = workdir / "config.json"
    if not path.exists():
        return False
    try:
        earlier = json.loads(path.read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as the record of an earlier start; use another --workdir") from error
    changed = sorted(_changed_fields(earlier, _as_json(config)))
    fatal = [
        field
        for field in changed
        if field.split(".")[0] in ("seed", "model", "data", "lora", "engine", "suite", "tools")
    ]
    if fatal:
        raise UserError(
            f"{path}: this folder holds a run with other {', '.join(fatal)}; use those values, or another --workdir"
        )
    if changed:
        print(f"resuming with changed {', '.join(changed)}", flush=True)
    return True


def record_run(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Writes `config.json` with configuration, versions and commit.

    From then on the folder belongs to this run. It is written once data and model were read, so that a mistyped path
    can be mended under the same folder.
    """
    record = {"config": _as_json(config), "versions": _versions(), "commit": _commit()}
    replace_text(workdir / "config.json", json.dumps(record, indent=2) + "\n")


def _as_json(config: ml_collections.ConfigDict) -> dict:
    return json.loads(config.to_json_best_effort())


def _changed_fields(earlier: dict, current: dict, prefix: str = "") -> list[str]:
    changed = []
    for name in earlier.keys() | current.keys():
        field = f"{prefix}{name}"
        if field in FREE_FIELDS:
            continue
        before, now = earlier.get(name), current.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            changed += _changed_fields(before, now, f"{field}.")
        elif before != now:
            changed.append(field)
    return changed


def _versions() -> dict[str, str]:
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    return installed | {"python": platform.python_version()}


def _commit() -> str:
    """The commit of the source checkout, "" when there is none."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
