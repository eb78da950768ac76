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
SHARDS = "model-?????-of-?????.safetensors"
SHARD_BYTES = 4 * 2**30
FLOATS = ("F64", "F32", "F16", "BF16")  # without a scale beside them they are the weights themselves


def model_files(folder: Path) -> list[Path]:
    """The files that hold a model's tensors: the single file where there is one, as transformers has it.

    Raises:
      UserError: the index cannot be used, or there are weights in another format only.
    """
    index = folder / INDEX
    if (folder / SINGLE_FILE).exists() or not index.exists():
        others = sorted(folder.glob("*.bin*")) if not (folder / SINGLE_FILE).exists() else []
        if others:
            raise UserError(
                f"{folder / SINGLE_FILE}: no such file; {others[0].name} has to be saved as safetensors first"
            )
        return [folder / SINGLE_FILE]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{index}: the key 'weight_map' is missing or no list of files; download the file again")
    return [folder / name for name in sorted(set(weight_map.values()))]


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a file, from its header alone.

    Raises:
      UserError: the file is missing, broken or truncated, or its numbers are not floating point of 16 bits or more.
    """
    shapes = {}
    with _opened(path) as tensors:
        for name in tensors.keys():  # noqa: SIM118
            tensor = tensors.get_slice(name)
            if tensor.get_dtype() not in FLOATS:
                raise UserError(
                    f"{path}: tensor {name} is stored as {tensor.get_dtype()}, only {', '.join(FLOATS)} are supported; "
                    "save the model in bfloat16 (config.model.quantize makes it small again)"
                )
            shapes[name] = tuple(tensor.get_shape())
    return shapes


def same_values(one: tuple[Path, str], other: tuple[Path, str], *, rows: int = 4096) -> bool:
    """Whether two tables, each given by file and name, hold the same numbers; some rows of them are read at a time.

    Raises:
      UserError: as `tensor_shapes`.
    """
    with _opened(one[0]) as first, _opened(other[0]) as second:
        a, b = first.get_slice(one[1]), second.get_slice(other[1])
        if a.get_shape() != b.get_shape():
            return False
        length = a.get_shape()[0]
        parts = (slice(start, min(start + rows, length)) for start in range(0, length, rows))
        return all(np.array_equal(a[part], b[part]) for part in parts)


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

    No more than one file's worth of them is in memory. Nothing is left of what an earlier export wrote, in either form:
    a reader takes one form first, and must not find old weights in it.
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
    for old in (folder / SINGLE_FILE, folder / INDEX, *folder.glob(SHARDS)):
        old.unlink(missing_ok=True)
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
