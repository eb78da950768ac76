"""The data stage: from a source of clean trajectories to executed RoT records; no accelerator library is imported.

workdir/config.json                  the configuration, versions and commit of the run
workdir/journal.jsonl                what became of each slot, as it happened; a start after a crash goes on from it
workdir/pictures/                    what tools made while records were tried; corpus/images/ gets those that are needed
workdir/corpus/rot-*.jsonl           RoT records in shards, images/ beside them
workdir/corpus/synthetic/rot-*.jsonl those whose observations were made up, where config.engine.synthetic allows it
workdir/corpus/clean-*.jsonl         clean trajectories
workdir/corpus/demonstrations-*.jsonl episodes and drills for a warm start, where config.engine.demonstrations asks
workdir/corpus/tasks/                the tasks, to play the records again (the audit stage does)
workdir/rejects.jsonl                every refused attempt with its reasons
workdir/summary.json, summary.png    counts, lengths, refusals
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from regrpo_jax.agent.shown_pictures import NO_PICTURES, PictureLimits, configured_limits
from regrpo_jax.config.base_config import ERROR_SHARES
from regrpo_jax.config.fields import shares_of
from regrpo_jax.engine.demonstrations import STEM, Habits, write_demonstrations
from regrpo_jax.engine.episode_source import episode_source
from regrpo_jax.engine.fill import Source, Workshop
from regrpo_jax.engine.journal import Journal
from regrpo_jax.engine.schedule import Committed, fill_slots
from regrpo_jax.engine.shards import copy_pictures, is_complete, write_images, write_lines, write_shards
from regrpo_jax.engine.showing import Showing
from regrpo_jax.engine.slots import plan_slots
from regrpo_jax.engine.suite_source import SuiteSource
from regrpo_jax.engine.summary import draw_summary, print_summary, summarise
from regrpo_jax.engine.task_source import task_source
from regrpo_jax.engine.teachers import teaching
from regrpo_jax.engine.trajectory_source import trajectory_source
from regrpo_jax.environments.starting import ray_settings, start_environment
from regrpo_jax.environments.task import Task, write_tasks
from regrpo_jax.errors import UserError
from regrpo_jax.records.execution import SYNTHETIC
from regrpo_jax.records.path_roots import path_roots
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.records.types import ErrorType
from regrpo_jax.run.corpus_files import CORPUS, TASKS
from regrpo_jax.run.fingerprints import source_fingerprints
from regrpo_jax.run.record import (
    changed_contents,
    check_earlier_start,
    check_unchanged,
    prepare_workdir,
    record_run,
)
from regrpo_jax.run.run import Run
from regrpo_jax.sandbox.isolation import check_isolation
from regrpo_jax.suites.find import suite_of, tools_of
from regrpo_jax.suites.suite import LOADER

SUITE = "toolrepair"
PICTURES = "pictures"
_MOST_STEPS = 64
_ATTEMPTS = 40  # situations tried for a record, at most
_SHARD = 1000  # records of a file


def run(run: Run) -> None:
    """Fills the corpus that `config.engine` asks for, or goes on filling it.

    Raises:
      UserError: for everything that a person can mend.
    """
    config, workdir = run.config, run.workdir
    source = source_of(config)
    unfinished, fingerprints = _unfinished(config, workdir), source_fingerprints(config)
    if unfinished and config.workers.backend == "local":
        check_isolation(config.environment.allow_unisolated)  # before anything costs time
    prepare_workdir(workdir)
    check_earlier_start(config, workdir)
    if unfinished:
        check_unchanged(fingerprints, workdir)
    elif changed_contents(fingerprints, workdir):
        print("data: config.data.source has changed since the corpus was made of it; the corpus stays as it is")
        fingerprints = {}
    record_run(config, workdir, fingerprints)
    if config.engine.demonstrations:
        show_how(config, workdir / CORPUS)
    if config.engine.records or config.engine.clean:
        _fill(config, workdir, source)


def _unfinished(config: ConfigDict, workdir: Path) -> bool:
    """Whether episodes are still to be played."""
    wanted = config.engine
    shown = not wanted.demonstrations or is_complete(workdir / CORPUS, STEM)
    filled = not (wanted.records or wanted.clean) or (workdir / "summary.json").exists()
    return not (shown and filled)


def show_how(config: ConfigDict, folder: Path) -> None:
    """Plays and writes the demonstrations; what an earlier start has written stays."""
    chosen = config.engine
    if is_complete(folder, STEM):
        print(f"data: the demonstrations are in {folder}", flush=True)
        return
    started = time.monotonic()
    write_demonstrations(
        folder, chosen.demonstrations, config.seed,
        families=config.suite.families, difficulties=config.suite.difficulties,
        habits=Habits(diagnosis=chosen.diagnosis), workers=config.environment.workers,
        allow_unisolated=config.environment.allow_unisolated, pictures=_limits(config),
        ray=ray_settings(config.workers),
    )  # fmt: skip
    print(f"data: {chosen.demonstrations} demonstrations in {time.monotonic() - started:.0f} s", flush=True)


def _fill(config: ConfigDict, workdir: Path, source: Source) -> None:
    if (workdir / "summary.json").exists():
        print(f"data: complete, the corpus is in {workdir / CORPUS}", flush=True)
        return
    chosen = config.engine
    shares = {ErrorType(name): share for name, share in sorted(shares_of(chosen.error_types, ERROR_SHARES).items())}
    slots = plan_slots(chosen.records, chosen.clean, shares, config.seed)
    started, tools = time.monotonic(), source.tools
    for note in getattr(source, "notes", ()):
        print(f"data: {note}", flush=True)
    with contextlib.closing(Journal(workdir / "journal.jsonl")) as journal:
        if journal.entries:
            print(f"data: resuming with {len(journal.entries)} of {len(slots)} slots tried", flush=True)
        with (
            start_environment(
                config.environment,
                tools.loader,
                tools.settings,
                max_steps=_MOST_STEPS,
                hidden=tools.hidden,
                workers=config.workers,
            ) as environment,
            teaching(config, workdir, style=_style(source)) as teachers,
        ):
            shop = Workshop(
                source, environment, teachers.name, teachers.annotate, teachers.propose,
                attempts=_ATTEMPTS, synthetic=chosen.synthetic, seed=config.seed,
                showing=Showing(_limits(config), workdir / PICTURES),
                others=_other_types(source, shares), slots=len(slots),
            )  # fmt: skip
            threads = max(config.environment.workers, teachers.threads)
            with _bar(len(slots)) as progress:
                committed = fill_slots(shop, slots, journal, threads, progress)
        write_corpus(workdir, shop, committed)
    told = summarise(slots, committed)
    draw_summary(told, workdir / "summary.png")
    replace_text(workdir / "summary.json", json.dumps(told, indent=2) + "\n")
    print_summary(told, time.monotonic() - started)
    if committed.empty:
        print(f"{len(committed.empty)} slots stayed empty: the source has no more such failures", flush=True)
    print(f"everything was written to {workdir}", flush=True)


def _other_types(source: Source, shares: Mapping[ErrorType, float]) -> tuple[ErrorType, ...]:
    """Of those that were asked for, which may take the place of a type of which the source has too few."""
    return tuple(kind for kind in shares if shares[kind] > 0) if getattr(source, "any_type", False) else ()


def _limits(config: ConfigDict) -> PictureLimits:
    """Which pictures records show: none, if the policy that learns from them has no eyes."""
    return configured_limits(config.agent) if config.model.images else NO_PICTURES


def source_of(config: ConfigDict) -> Source:
    """The source that `config.data.source` names. UserError when there is none such."""
    name, chosen = config.data.source, config.engine
    if chosen.demonstrations and (name, config.suite.profile) != (SUITE, "compact"):
        raise UserError(
            f"config.engine.demonstrations={chosen.demonstrations} needs config.data.source={SUITE!r} and "
            f"config.suite.profile='compact', not {name!r} and {config.suite.profile!r}"
        )
    if name == SUITE:
        return SuiteSource(
            profile=config.suite.profile,
            split=chosen.split,
            difficulties=config.suite.difficulties,
            natural=chosen.natural,
            seed=config.seed,
            chosen=config.suite.families,
        )
    path = Path(name)
    if name == "suite":
        return task_source(suite_of(config), chosen.split, config.seed)
    if name and path.is_dir():
        tools = None if config.suite.name == SUITE else suite_of(config).tools
        return episode_source(path, seed=config.seed, failures_only=chosen.natural == 1, tools=tools)
    if name and path.is_file():
        return trajectory_source(
            path,
            seed=config.seed,
            tools=tools_of(LOADER, config),
            roots=path_roots(config.data.path_roots),
            salvage=config.data.salvage,
        )
    raise UserError(
        f"config.data.source is {name!r}; it must be {SUITE!r}, 'suite' (the tasks of config.suite that have steps), a "
        "JSON file of clean trajectories, or the folder of an evaluation run"
    )


def _style(source: Source) -> str:
    """Of the rules' reflections: a tiny policy learns few words, a large one varied sentences."""
    return "short" if source.brief else "sentences"


@contextlib.contextmanager
def _bar(total: int) -> Any:
    columns = (TextColumn("records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[refused]} refused"))  # fmt: skip
    with Progress(*columns, transient=True) as bar:
        shown = bar.add_task("records", total=total, refused=0)

        def update(committed: Committed) -> None:
            done = len(committed.filled) + len(committed.empty)
            bar.update(shown, completed=done, refused=len(committed.rejects))

        yield update


def write_corpus(workdir: Path, shop: Workshop, committed: Committed, per_shard: int = _SHARD) -> None:
    """All files of the corpus, from what was committed; the same bytes whenever it is called."""
    folder = workdir / CORPUS
    records = [entry.record for slot, entry in committed.filled if slot.error_type is not None and entry.record]
    clean = [entry.record for slot, entry in committed.filled if slot.error_type is None and entry.record]
    executed = [record for record in records if record["execution"]["kind"] != SYNTHETIC]
    synthetic = [record for record in records if record["execution"]["kind"] == SYNTHETIC]
    tasks = _tasks(shop, committed)
    write_images(folder, tasks)
    copy_pictures(workdir / PICTURES, folder, [*executed, *clean])
    write_shards(folder, "rot", executed, per_shard)
    write_shards(folder, "clean", clean, per_shard)
    if synthetic:
        write_images(folder / "synthetic", tasks)
        write_shards(folder / "synthetic", "rot", synthetic, per_shard)
    write_tasks(tasks, folder / TASKS)
    write_lines(workdir / "rejects.jsonl", committed.rejects)


def _tasks(shop: Workshop, committed: Committed) -> list[Task]:
    """The tasks of the records, once each; a source gives the same situation for the same number again."""
    tasks: dict[str, Task] = {}
    for slot, entry in committed.filled:
        found = shop.source.situation(*shop.tried(slot, entry.attempt))
        if found is not None:
            played = (entry.record or {}).get("execution", {}).get("task", found[0].task.id)
            task = next(one for one in found[0].tasks if one.id == played)
            tasks.setdefault(task.id, task)
    return list(tasks.values())
