"""The run directory: made before anything costs time, with what is needed to repeat the run."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import ml_collections

from regrpo_jax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")
# Fields that may differ between starts of one run without changing what its checkpoints mean.
FREE_FIELDS = ("stages", "log_every", "compilation_cache", "checkpoint", "eval")


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


def record_run(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Writes `config.json` with configuration, versions and commit; says what changed since an earlier start.

    Raises:
      UserError: the earlier start had another model or data, so that its checkpoints would not fit.
    """
    path = workdir / "config.json"
    current = json.loads(config.to_json_best_effort())
    if path.exists():
        earlier = json.loads(path.read_text()).get("config", {})
        changed = sorted(_changed_fields(earlier, current))
        fatal = [field for field in changed if field.split(".")[0] in ("seed", "model", "data", "lora")]
        if fatal:
            raise UserError(
                f"{path}: this folder holds a run with other {', '.join(fatal)}; use those values, or another --workdir"
            )
        if changed:
            print(f"resuming with changed {', '.join(changed)}", flush=True)
    record = {"config": current, "versions": _versions(), "commit": _commit()}
    path.write_text(json.dumps(record, indent=2) + "\n")


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
