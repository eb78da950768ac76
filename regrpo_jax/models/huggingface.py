"""Weights of a local Hugging Face directory: read tensor by tensor straight onto the devices, and written back.

A checkpoint may be larger than the host's memory; no more of it than about one tensor is there at a time.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from rich.progress import track

from regrpo_jax.errors import UserError, listed
from regrpo_jax.hosts.role import role
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.model_files import described_in, model_files, read_tensors, tensor_shapes
from regrpo_jax.models.own_config import describe_own
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.process_arrays import fetched, put
from regrpo_jax.models.quantization import Quantization, dequantized, stored
from regrpo_jax.models.qwen2_vl.hf_config import describe, read_config, read_json
from regrpo_jax.models.qwen2_vl.weights import (
    EMBEDDING,
    HEAD,
    canonical_name,
    hugging_face_names,
    is_redundant,
    written_name,
)
from regrpo_jax.models.safetensors_files import same_values, write_tensors

Array = jax.Array
Tree = dict[str, Any]
Flat = dict[str, Any]  # our path, joined with "/" -> array, shape or sharding
Place = tuple[str, int | None]  # path of one of our arrays, and which layer of it, None where it has none

# What belongs to a model besides its configuration and weights.
COMPANIONS = ("*token*.json", "vocab.json", "merges.txt", "chat_template*", "*processor_config.json",
              "generation_config.json")  # fmt: skip


def load_policy(folder: Path, **settings: Any) -> tuple[PolicyConfig, Tree]:
    """Configuration and parameters of a model of one of the families in `hf_config`, on one device.

    Args:
      folder: with `config.json` and `model.safetensors`, or several files and their index; or a GGUF file.
      settings: fields of `PolicyConfig` that are ours to choose: dtype, param_dtype, remat, ...
    Raises:
      UserError: as `read_config` and `load_weights`.
    """
    config = with_stored_head(read_config(described_in(folder), **settings), folder)
    return config, load_weights(folder, config)


def with_stored_head(config: PolicyConfig, folder: Path) -> PolicyConfig:
    """The architecture of a directory: what `config.json` says, but that a head of its own is one, whatever that says.

    As in transformers, the values decide: a head that `config.json` ties and that is stored all the same stays tied
    where it is equal to the embedding, and is the head where it is not.

    Raises:
      UserError: the files of the weights cannot be read.
    """
    if not config.tie_word_embeddings:
        return config
    tables = {
        canonical_name(name): (file, name)
        for file in model_files(folder)
        for name, shape in tensor_shapes(file).items()
        if canonical_name(name) in (EMBEDDING, HEAD) and shape == (config.vocab_size, config.hidden_size)
    }
    tied = len(tables) < 2 or same_values(tables[EMBEDDING], tables[HEAD])
    return dataclasses.replace(config, tie_word_embeddings=tied)


def load_weights(
    folder: Path,
    config: PolicyConfig,
    *,
    shardings: Callable[[Tree], Tree] | None = None,
    quantization: Quantization = "none",
) -> Tree:
    """The parameters of a policy in `config.param_dtype`, stacked over layers.

    Args:
      folder: with `model.safetensors`, or several files and their index; or a GGUF file.
      shardings: tree of shapes -> tree of shardings (`sharding.param_shardings`); None puts all on one device.
      quantization: how the kernels of the blocks are stored.
    Raises:
      UserError: files are missing or broken, or tensors are missing, unexpected or of the wrong shape (they are named;
        found before any weight is read).
    """
    shapes = param_shapes(config)
    places = tensor_places(config, shapes)
    files = _checked_files(folder, config, shapes, places)
    kept = {path: jax.eval_shape(functools.partial(stored, path, kind=quantization), s) for path, s in shapes.items()}
    placement = _placement(kept, shardings)
    arrays: Flat = {}
    count = sum(map(len, files.values()))
    found = ((here[name], tensor) for file, here in files.items() for name, tensor in read_tensors(file, here))
    for place, tensor in track(found, f"reading {folder.name}", total=count, transient=True, disable=count < 100):
        path, layer = place
        part = _placed_tensor(path, tensor.astype(shapes[path].dtype), placement[path])
        if layer is None:
            arrays[path] = put(part, placement[path])
            continue
        layout = tuple(jax.tree.leaves(placement[path]))
        if path not in arrays:
            leaves, structure = jax.tree.flatten(kept[path])
            arrays[path] = jax.tree.unflatten(structure, _zeros(tuple(leaves), layout))
        arrays[path] = _with_layer(arrays[path], stored(path, part, kind=quantization), layer, layout)
    return traverse_util.unflatten_dict(arrays, sep="/")


def save_policy(
    folder: Path,
    config: PolicyConfig,
    params: Tree,
    *,
    source: Path | None = None,
    token_ids: Mapping[str, int] | None = None,
    own: bool = False,
    **options: Any,
) -> None:
    """Writes full weights as `transformers` loads them, with the configuration, tokenizer and processor of `source`.

    Of several processes all have to call this, and the first one writes.

    Args:
      folder: made if missing; it must not be `source`.
      params: an adapter is merged by the caller (`lora.merge_adapter`).
      source: the directory that the policy was loaded from, None for one that was trained from scratch.
      token_ids: without `source`, what `config.json` says of the tokenizer: image_token_id, eos_token_id, ...
      own: describe it in the form of `own_config`, which `load_policy` reads and `transformers` does not.
      options: of `safetensors_files.write_tensors`.
    Raises:
      UserError: the policy is no Hugging Face architecture, or `folder` is `source`.
    """
    description = describe_own(config) if own else describe(config)
    if source is not None and source.resolve() == folder.resolve():
        raise UserError(f"{folder}: holds the weights that the run started from; export to another folder")
    tensors = _hugging_face_tensors(config, params)
    if not role().writes:
        for _ in tensors:  # each is put together by all
            pass
        return
    folder.mkdir(parents=True, exist_ok=True)
    if source is None:
        (folder / "config.json").write_text(json.dumps(description | dict(token_ids or {}), indent=2) + "\n")
    else:
        _copy_companions(source, folder)
        described = _as_written(read_json(source / "config.json"), config)
        (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    write_tensors(folder, tensors, **options)


def _copy_companions(source: Path, folder: Path) -> None:
    """Tokenizer and processor, and none that an earlier export has left: readers prefer some files to others."""
    for pattern in COMPANIONS:
        for old in folder.glob(pattern):
            old.unlink()
        for file in source.glob(pattern):
            shutil.copy(file, folder / file.name)


def _as_written(description: dict[str, Any], config: PolicyConfig) -> dict[str, Any]:
    """A `config.json` that is true of the weights beside it: whether the head is tied, and the dtype."""
    true: dict[str, Any] = {"tie_word_embeddings": config.tie_word_embeddings}
    true |= dict.fromkeys(("dtype", "torch_dtype"), config.param_dtype)
    described = {**description, "tie_word_embeddings": config.tie_word_embeddings}
    for part in (described, described.get("text_config"), described.get("vision_config")):
        if isinstance(part, dict):
            part |= {key: value for key, value in true.items() if key in part}
    return described


def param_shapes(config: PolicyConfig) -> Flat:
    """Shape and dtype of every parameter, without making any."""
    tree = jax.eval_shape(policy_functions(config).init, jax.random.key(0))["params"]
    return traverse_util.flatten_dict(tree, sep="/")


def tensor_shape(path: str, shape: tuple[int, ...], config: PolicyConfig) -> tuple[int, ...]:
    """Shape in Hugging Face's layout of one of our arrays, or of one layer of it: [out_features, in_features]."""
    if path == "vision/patch_embed/kernel" and config.vision is not None:
        v = config.vision
        return (shape[-1], v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size)
    return shape[::-1] if path.endswith("/kernel") else shape


def tensor_places(config: PolicyConfig, shapes: Flat) -> dict[str, Place]:
    """Published name of every tensor of a checkpoint -> (path, layer) where it goes."""
    names = hugging_face_names(config)
    return {name: place for path, shape in shapes.items() for name, place in _parts(path, names[path], shape)}


def _parts(path: str, name: str, shape: Any) -> Iterator[tuple[str, Place]]:
    if "{}" not in name:
        yield name, (path, None)
        return
    for layer in range(shape.shape[0]):
        yield name.format(layer), (path, layer)


def _checked_files(
    folder: Path, config: PolicyConfig, shapes: Flat, places: dict[str, Place]
) -> dict[Path, dict[str, Place]]:
    """File -> names of the tensors to read from it, and where they go."""
    found = [(file, name, shape) for file in model_files(folder) for name, shape in tensor_shapes(file).items()]
    published = {name: canonical_name(name) for _, name, _ in found}
    if config.tie_word_embeddings and EMBEDDING not in published.values():
        published = {name: EMBEDDING if known == HEAD else known for name, known in published.items()}
    files: dict[Path, dict[str, Place]] = {file: {} for file, _, _ in found}
    seen: dict[str, str] = {}
    problems = []
    for file, name, shape in found:
        known = published[name]
        if known not in places:
            problems += [] if is_redundant(known, config) else [f"unexpected {name}"]
            continue
        path, layer = places[known]
        expected = tensor_shape(path, shapes[path].shape[0 if layer is None else 1 :], config)
        if shape != expected:
            problems.append(f"{name} has shape {shape}, expected {expected}")
        if known in seen:
            problems.append(f"{name} in {file.name} is there already, as {seen[known]}")
        seen[known] = f"{name} in {file.name}"
        files[file][name] = places[known]
    problems += [f"missing {written_name(name, config)}" for name in sorted(set(places) - set(seen))]
    if problems:
        description = "its metadata" if described_in(folder) == folder else "config.json"
        raise UserError(f"{folder}: the weights do not fit {description}: {listed(problems)}")
    return files


def _placement(kept: Flat, shardings: Callable[[Tree], Tree] | None) -> Flat:
    """Path -> sharding of its array, or of each part of a quantised one."""
    if shardings is None:
        device = SingleDeviceSharding(jax.devices()[0])
        return {path: jax.tree.map(lambda _: device, like) for path, like in kept.items()}
    tree = shardings(traverse_util.unflatten_dict(kept, sep="/"))
    return traverse_util.flatten_dict(tree, sep="/")


def _placed_tensor(path: str, tensor: np.ndarray, placement: Any) -> Array:
    """A tensor on its devices, each of which is sent no more than what it keeps, turned to our layout there."""
    sharding: Sharding = jax.tree.leaves(placement)[0]
    if isinstance(sharding, NamedSharding):
        rank = 2 if path.endswith("/kernel") else tensor.ndim
        spec = (None,) * (rank - len(sharding.spec)) + tuple(sharding.spec)[-rank:]
        turned = spec[::-1] if path.endswith("/kernel") else spec
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*turned))
    if path.endswith("/kernel"):
        flat = put(tensor.reshape(tensor.shape[0], -1), sharding)
        return _transposed(flat)
    return put(tensor, sharding)


@jax.jit
def _transposed(tensor: Array) -> Array:
    return tensor.T


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _with_layer(stacked: Any, part: Any, layer: int, layout: tuple[Sharding, ...]) -> Any:
    """`stacked` with one layer replaced, in place; left to itself the compiler would move small parts."""

    def write(whole: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(whole, new, layer, axis=0)

    leaves, structure = jax.tree.flatten(jax.tree.map(write, stacked, part))
    return jax.tree.unflatten(structure, map(jax.lax.with_sharding_constraint, leaves, layout))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _zeros(shapes: tuple[jax.ShapeDtypeStruct, ...], layout: tuple[Sharding, ...]) -> tuple[Array, ...]:
    """Arrays of zeros that are made where they stay; compiled once for each shape."""
    zeros = (jnp.zeros(shape.shape, shape.dtype) for shape in shapes)
    return tuple(map(jax.lax.with_sharding_constraint, zeros, layout))


def _hugging_face_tensors(config: PolicyConfig, params: Tree) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every tensor, one layer fetched at a time."""
    flat = traverse_util.flatten_dict(params, sep="/")
    for name, (path, layer) in tensor_places(config, param_shapes(config)).items():
        part = flat[path] if layer is None else jax.tree.map(lambda array, i=layer: array[i], flat[path])
        tensor = fetched(dequantized(part))
        turned = tensor.T if path.endswith("/kernel") else tensor
        yield written_name(name, config), turned.reshape(tensor_shape(path, tensor.shape, config))
