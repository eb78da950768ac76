"""JSONL shards: whole or not there, named so that a reader sees whether one is missing.

`rot-00000-of-00002.jsonl`, one record a line; images lie beside them under `images/`, named by content.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrpo_jax.engine.writing import image_name
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError


def write_shards(folder: Path, stem: str, records: Sequence[dict[str, Any]], per_shard: int) -> list[Path]:
    """Write records into as many shards as needed (none for no record), each atomically; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    count = -(-len(records) // per_shard)
    paths = [folder / f"{stem}-{number:05d}-of-{count:05d}.jsonl" for number in range(count)]
    for stale in set(folder.glob(f"{stem}-[0-9]*-of-[0-9]*.jsonl")) - set(paths):
        stale.unlink()
    for number, path in enumerate(paths):
        part = records[number * per_shard : (number + 1) * per_shard]
        write_lines(path, part)
    return paths


def is_complete(folder: Path, stem: str) -> bool:
    """Whether `write_shards` got to its end there."""
    found = sorted(folder.glob(f"{stem}-[0-9]*-of-[0-9]*.jsonl"))
    return bool(found) and len(found) == int(found[0].stem.rpartition("-")[2])


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """A JSON value a line; nobody sees half of the file."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        for value in values:
            stream.write(json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n")
    os.replace(temporary, path)


def copy_pictures(kept: Path, folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """The pictures of the records that tools made, from where they were kept, beside the records."""
    for name in sorted({name for record in records for name in record["image"].values()}):
        source, path = kept / Path(name).name, folder / name
        if not path.exists():
            if not source.exists():
                raise UserError(
                    f"{source}: a picture of a record is gone; remove the run's journal.jsonl to make it again"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_bytes(source.read_bytes())
            os.replace(temporary, path)


def write_images(folder: Path, tasks: Iterable[Task]) -> None:
    """The images that the tasks show, once each."""
    for task in tasks:
        for name in task.images:
            path = folder / image_name(task, name)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(path.name + ".tmp")
                temporary.write_bytes(task.file(name))
                os.replace(temporary, path)
