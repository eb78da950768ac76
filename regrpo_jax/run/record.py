"""The run directory: made before anything costs time, with what is needed to repeat the run."""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from regrpo_jax.config.base_config import TRAINING_STAGES, base_config
from regrpo_jax.config.former_fields import recorded_fields
from regrpo_jax.errors import UserError
from regrpo_jax.hosts.role import role
from regrpo_jax.records.text_files import replace_text

RECORD = "config.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")
# Fields that may differ between starts of one run without changing what its checkpoints mean.
FREE_FIELDS = (
    "stages", "log_every", "log_to", "compilation_cache", "checkpoint", "eval", "recovery", "baselines", "environment",
    "workers", "audit", "requests", "played_at_once", "hosts",
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
        probe = workdir / f".writable-{role().index}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written ({error.strerror}); choose another folder") from error


def check_earlier_start(config: ml_collections.ConfigDict, workdir: Path) -> bool:
    """Whether the folder holds an earlier start of this run; says what changed since then.

    Raises:
      UserError: the earlier start had another model or data, so that its checkpoints would not fit.
    """
    path = workdir / RECORD
    if not path.exists():
        return False
    earlier = recorded_fields(_earlier(path)["config"])
    changed = _changed_fields(earlier, recorded_fields(_as_json(config)), config.stages)
    fatal = [field for field in changed if field.split(".")[0] in FIXED_SECTIONS]
    if fatal:
        raise UserError(
            f"{path}: this folder holds a run with other {', '.join(fatal)}; use those values, or another --workdir"
        )
    if changed:
        print(f"resuming with changed {', '.join(changed)}", flush=True)
    return True


def changed_contents(fingerprints: Mapping[str, str], workdir: Path) -> list[str]:
    """The fields that name other contents, under the same path, than in an earlier start of the run."""
    earlier = _fingerprints(workdir / RECORD)
    return [field for field, digest in fingerprints.items() if earlier.get(field, digest) != digest]


def check_unchanged(fingerprints: Mapping[str, str], workdir: Path) -> None:
    """Raises UserError when what this start reads is not what an earlier start of the run read."""
    changed = ", ".join(f"config.{field}" for field in changed_contents(fingerprints, workdir))
    if changed:
        raise UserError(
            f"{workdir / RECORD}: this run began with other contents of {changed}; put back the files it began with, "
            "or use another --workdir"
        )


def record_run(config: ml_collections.ConfigDict, workdir: Path, fingerprints: Mapping[str, str] | None = None) -> None:
    """Writes `config.json` with configuration, versions and commit.

    From then on the folder belongs to this run. It is written once data and model were read, so that a mistyped path
    can be mended under the same folder.

    Args:
      fingerprints: of what this start reads; those of earlier starts are kept beside them.
    """
    if not role().writes:
        return
    kept = _fingerprints(workdir / RECORD) | dict(fingerprints or {})
    record = {"config": _as_json(config), "versions": _versions(), "commit": _commit(), "fingerprints": kept}
    replace_text(workdir / RECORD, json.dumps(record, indent=2) + "\n")


def identity_of(config: ml_collections.ConfigDict) -> str:
    """The configuration in words, without what differs between the processes of a run."""
    found = _as_json(config)
    found.pop("hosts", None)
    return json.dumps(found, sort_keys=True)


def _earlier(path: Path) -> dict[str, Any]:
    """Raises UserError when the file is no record of a run."""
    try:
        earlier = json.loads(path.read_text())
        if isinstance(earlier["config"], dict):
            return earlier
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as the record of an earlier start; use another --workdir") from error
    raise UserError(f"{path}: cannot be read as the record of an earlier start; use another --workdir")


def _fingerprints(path: Path) -> dict[str, str]:
    """Those that earlier starts left; none from a version that took none."""
    found = _earlier(path).get("fingerprints") if path.exists() else None
    return found if isinstance(found, dict) else {}


def _as_json(config: ml_collections.ConfigDict) -> dict:
    return json.loads(config.to_json_best_effort())


def _changed_fields(earlier: dict[str, Any], current: dict[str, Any], stages: Sequence[str]) -> list[str]:
    """Fields of another value; one that the earlier version of the program did not have was what it is by default."""
    defaults = recorded_fields(_as_json(base_config()))
    before, now = (_by_stage(fields, stages) for fields in (defaults | earlier, current))
    fields = sorted(field for field in before.keys() | now.keys() if before.get(field) != now.get(field))
    return [field for field in fields if not {field, field.split(".")[0]} & set(FREE_FIELDS)]


def _by_stage(fields: dict[str, Any], stages: Sequence[str]) -> dict[str, Any]:
    """With what each stage's optimizer is, wherever it was said."""
    trained = [stage for stage in TRAINING_STAGES if stage in stages]
    found = {field: value for field, value in fields.items() if "optimizer" not in field.split(".")}
    for field, value in fields.items():
        if field.startswith("optimizer."):
            found |= {f"{stage}.{field}": fields.get(f"{stage}.{field}", value) for stage in trained}
    return found


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
