"""Safetensors files of a model directory, one or many with an index, a tensor at a time in either direction."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regrpo_jax.errors import UserError
from regrpo_jax.models.qwen2_vl.hf_config import read_json

SINGLE_FILE = "model.safetensors"
INDEX = f"{SINGLE_FILE}.index.json"
SHARD_BYTES = 4 * 2**30


def model_files(folder: Path) -> list[Path]:
    """The files that hold a model's tensors.

    Raises:
      UserError: the index cannot be used.
    """
    index = folder / INDEX
    if not index.exists():
        return [folder / SINGLE_FILE]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index}: the key 'weight_map' is missing; download the file again")
    return [folder / name for name in sorted(set(weight_map.values()))]


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a file, from its header alone.

    Raises:
      UserError: the file is missing, broken or truncated.
    """
    with _opened(path) as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def read_tensors(path: Path, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The named tensors; the file is memory-mapped, so only the tensor at hand takes memory.

    Raises:
      UserError: as `tensor_shapes`.
    """
    with _opened(path) as tensors:
        for name in names:
            try:
                yield name, tensors.get_tensor(name)
            except SafetensorError as error:
                raise UserError(f"{path}: tensor {name} cannot be read ({error})") from error


def write_tensors(folder: Path, tensors: Iterable[tuple[str, np.ndarray]], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes a model's tensors, in several files with an index when they exceed `shard_bytes`.

    No more than one file's worth of them is in memory.
    """
    written: list[tuple[Path, list[str]]] = []
    total, held = 0, 0
    shard: dict[str, np.ndarray] = {}

    def flush() -> None:
        path = folder / f"shard-{len(written)}.safetensors.part"
        save_file(shard, path, metadata={"format": "pt"})
        written.append((path, list(shard)))
        shard.clear()

    for name, tensor in tensors:
        if shard and held + tensor.nbytes > shard_bytes:
            flush()
            held = 0
        shard[name] = np.ascontiguousarray(tensor)
        held, total = held + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(written) == 1:
        written[0][0].replace(folder / SINGLE_FILE)
        return
    weight_map: dict[str, str] = {}
    for number, (path, names) in enumerate(written, start=1):
        file = f"model-{number:05}-of-{len(written):05}.safetensors"
        path.replace(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: broken or truncated safetensors file ({error})") from error
