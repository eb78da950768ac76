"""The audit stage: is a file of RoT records fit to train on, and does it still come out when it is played again?

workdir/audit.json   counts of broken rules, warnings, types, lengths; with the replay, what came out otherwise

Any RoT file, ours or the authors'. A broken hard rule, a duplicate, or a record that replays otherwise ends the stage
with an error, and the program with a status other than 0.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.progress import Progress

from regrpo_jax.agent.shown_pictures import configured_limits
from regrpo_jax.engine.gates import audit_reasons
from regrpo_jax.errors import UserError, listed
from regrpo_jax.records import audit, format_audit, read_records
from regrpo_jax.records.images import NO_ROOTS
from regrpo_jax.records.loading import folder_of, read_rot
from regrpo_jax.records.opened_images import ImageError, open_image
from regrpo_jax.records.path_roots import PathRoots, path_roots
from regrpo_jax.records.reasons import RecordError, printable, rule_of
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.run.record import prepare_workdir
from regrpo_jax.run.run import Run

_MOST_STEPS = 64


def run(run: Run) -> None:
    """Audits `config.data.rot`, which is the corpus of the data stage where the stages begin with it.

    Raises:
      UserError: the file cannot be read, a hard check fails, or a record replays otherwise.
    """
    config, workdir = run.config, run.workdir
    path = config.data.rot
    if not path:
        raise UserError(
            "config.data.rot is empty; name a file of RoT records, or a pattern such as 'corpus/rot-*.jsonl'"
        )
    records = read_records(path, salvage=config.data.salvage)
    if not records:
        raise UserError(f"{path}: holds no record, so that there is nothing to audit; name another file")
    prepare_workdir(workdir)
    roots = path_roots(config.data.path_roots)
    report = audit(records, functools.partial(reasons_of, folder=folder_of(path), roots=roots))
    print(format_audit(report), flush=True)
    told: dict[str, Any] = {"path": path, "report": dataclasses.asdict(report)}
    failures = [f"{report.hard_failures} hard checks fail"] if report.hard_failures else []
    if config.audit.replay:
        differing = replay_file(config, records, folder_of(path))
        counts = Counter(rule_of(reason) for reasons in differing.values() for reason in reasons)
        told["replay"] = {"records": len(records), "differing": differing}
        print(
            f"replay: {len(records) - len(differing)} of {len(records)} records come out as they were written",
            flush=True,
        )
        if differing:
            failures.append(
                f"{len(differing)} records replay otherwise ({', '.join(f'{r} {n}' for r, n in counts.items())})"
            )
    replace_text(workdir / "audit.json", json.dumps(told, indent=2, default=str) + "\n")
    if failures:
        raise UserError(f"{path}: {listed(failures)}; see {workdir / 'audit.json'}")


def reasons_of(record: Mapping[str, Any], folder: Path, roots: PathRoots = NO_ROOTS) -> tuple[str, ...]:
    """Why a record would not be trained on, by the reading that a training stage gives it; () for one that is fit.

    A record of our own must keep the data engine's rules too.
    """
    reasons = audit_reasons(record)
    if reasons:
        return reasons
    try:
        images = read_rot(record, folder, roots).images
    except RecordError as error:
        return error.reasons
    return tuple(reason for image in images if (reason := _picture_reason(image.path)))


@functools.cache
def _picture_reason(path: str) -> str:
    try:
        open_image(path)
    except ImageError as error:
        return f"image_unreadable: {error}"
    return ""


def replay_file(config: ConfigDict, records: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, tuple[str, ...]]:
    """Record id -> what is different, for those that replay otherwise.

    Raises:
      UserError: the records cannot be replayed at all: no execution block, other tools than one loader's, no tasks.
    """
    from regrpo_jax.engine.replay import replay
    from regrpo_jax.engine.tool_shapes import shapes_of
    from regrpo_jax.environments.starting import start_environment
    from regrpo_jax.environments.task import read_tasks
    from regrpo_jax.suites.find import tools_of

    loaders = {_loader(record) for record in records}
    if len(loaders) != 1 or None in loaders:
        which = ", ".join(sorted(printable(loader) for loader in loaders))
        raise UserError(f"config.audit.replay needs records that were executed with one set of tools, not with {which}")
    tasks = {task.id: task for task in read_tasks(folder / "tasks")}
    chosen = config.environment
    tools = tools_of(str(loaders.pop()), config)
    with (
        start_environment(
            chosen, tools.loader, tools.settings, max_steps=_MOST_STEPS, hidden=tools.hidden, workers=config.workers
        ) as environment,
        Progress(transient=True) as bar,
    ):
        shown = bar.add_task("replay", total=len(records))
        found = replay(
            environment,
            records,
            tasks,
            shapes_of(tools.loaded),
            chosen.workers,
            lambda: bar.update(shown, advance=1),
            configured_limits(config.agent),
        )
    return {str(record["id"]): reasons for record, reasons in zip(records, found, strict=True) if reasons}


def _loader(record: Mapping[str, Any]) -> str | None:
    execution = record.get("execution")
    loader = execution.get("loader") if isinstance(execution, dict) else None
    return loader if isinstance(loader, str) else None
