"""Adapters of PEFT to start from, in the key layouts that versions of transformers and PEFT have written."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import qwix
from flax import traverse_util

from regrpo_jax.errors import UserError, listed
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import Place, tensor_places, tensor_shape
from regrpo_jax.models.lora import adapter_alpha
from regrpo_jax.models.peft import DESCRIPTION, PREFIX, TENSORS
from regrpo_jax.models.peft_description import PeftDescription, read_description
from regrpo_jax.models.qwen2_vl.weights import canonical_name, hugging_face_names
from regrpo_jax.models.safetensors_files import read_tensors, tensor_shapes

Tree = dict[str, Any]
Flat = dict[str, Any]  # our path, joined with "/" -> array

FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.\w+)?\.weight")  # the adapter's name may stand after A or B
WRAPPER = re.compile(r"\.modules_to_save(\.\w+)?(?=\.(weight|bias)$)")
ADAPTABLE = re.compile(r"(layers|vision/blocks)/\w+/kernel|vision/merger_fc\d/kernel")


@dataclasses.dataclass(frozen=True)
class Factors:
    """The two tensors of a module's adapter.

    Attributes:
      module: as PEFT's base model names it.
      names: "A" and "B" -> the tensor's name in the file.
    """

    module: str
    names: dict[str, str]


def load_adapter(folder: Path, params: Tree, config: PolicyConfig) -> Tree:
    """The policy with an adapter that was trained elsewhere: {"params": .., "lora": ..}.

    Our scale is one alpha / rank for all layers of a projection, with the alpha of `config`. What PEFT scales otherwise
    is brought to it by a factor on `up`, and smaller ranks by zero columns, which have no gradient and stay zero.
    Layers without an adapter are zero in both factors and do not learn either.

    Args:
      params: of the base model. Full weights that come with the adapter (`modules_to_save`) take the place of theirs.
    Raises:
      UserError: a file is missing or broken, the adapter is of another kind, or its tensors do not fit the model (they
        are named).
    """
    description = read_description(folder / DESCRIPTION)
    flat = dict(traverse_util.flatten_dict(params, sep="/"))
    adapted, full = _places_of_tensors(folder / TENSORS, description, flat, config)
    tensors = dict(read_tensors(folder / TENSORS, [name for f in adapted.values() for name in f.names.values()]))
    adapter: Flat = {}
    for path in sorted({path for path, _ in adapted}):
        name, layers = path.removesuffix("/kernel"), {layer: f for (p, layer), f in adapted.items() if p == path}
        *stack, in_features, out_features = flat[path].shape
        rank = max(len(tensors[factors.names["A"]]) for factors in layers.values())
        down = np.zeros((*stack, in_features, rank), np.float32)  # [layer, in_features, rank]
        up = np.zeros((*stack, rank, out_features), np.float32)  # [layer, rank, out_features]
        for layer, factors in layers.items():
            a, b = (tensors[factors.names[letter]].astype(np.float32) for letter in "AB")
            scale = description.scale_of(factors.module) * rank / adapter_alpha(config, name)
            place = ... if layer is None else layer
            down[place][:, : len(a)] = a.T
            up[place][: len(a)] = b.T * np.float32(scale)
        adapter[f"{name}/down"], adapter[f"{name}/up"] = jax.device_put((down, up))
    for tensor_name, tensor in read_tensors(folder / TENSORS, full):
        path, layer = full[tensor_name]
        flat[path] = _replaced(
            flat[path], tensor.reshape(len(tensor), -1).T if path.endswith("/kernel") else tensor, layer
        )
    return {
        "params": traverse_util.unflatten_dict(flat, sep="/"),
        "lora": traverse_util.unflatten_dict(adapter, sep="/"),
    }


def full_weights(folder: Path, params: Tree, config: PolicyConfig) -> list[str]:
    """Paths of the parameters that an adapter replaces in full, to be exported again with what grew out of it."""
    flat = traverse_util.flatten_dict(params, sep="/")
    _, full = _places_of_tensors(folder / TENSORS, read_description(folder / DESCRIPTION), flat, config)
    return sorted({path for path, _ in full.values()})


def _replaced(old: jax.Array, value: np.ndarray, layer: int | None) -> jax.Array:
    """`old`, or one layer of it, with another value on the same devices."""
    value = value.astype(old.dtype)
    return jax.device_put(value if layer is None else old.at[layer].set(value), old.sharding)


def _places_of_tensors(
    path: Path, description: PeftDescription, flat: Flat, config: PolicyConfig
) -> tuple[dict[Place, Factors], dict[str, Place]]:
    """Where each tensor of the file goes: the adapters by place, and the full weights by name."""
    names = hugging_face_names(config)
    places = tensor_places(config, {path: array for path, array in flat.items() if path in names})
    shapes = tensor_shapes(path)
    adapted: dict[Place, Factors] = {}
    full: dict[str, Place] = {}
    problems: list[str] = []
    for name in shapes:
        factor = FACTOR.fullmatch(name.removeprefix(PREFIX))
        published = f"{factor[1]}.weight" if factor else WRAPPER.sub("", name.removeprefix(PREFIX))
        place = places.get(canonical_name(published))
        if place is None or (factor and not ADAPTABLE.fullmatch(place[0])):
            problems.append(f"unexpected {name}")
        elif factor:
            adapted.setdefault(place, Factors(factor[1], {})).names[factor[2]] = name
        else:
            full[name] = place
    problems += [
        problem for place, f in adapted.items() for problem in _misfits(f, flat[place[0]], description, shapes)
    ]
    problems += [
        problem for name, place in full.items() for problem in _full_misfits(name, place, flat, config, shapes)
    ]
    problems += [] if problems else _missing(adapted, places, description)
    if problems:
        raise UserError(f"{path}: this adapter does not fit the model: {listed(problems)}")
    return adapted, full


def _misfits(
    factors: Factors, kernel: Any, description: PeftDescription, shapes: dict[str, tuple[int, ...]]
) -> list[str]:
    rank, (in_features, out_features) = description.rank_of(factors.module), kernel.shape[-2:]
    problems = []
    for letter, expected in (("A", (rank, in_features)), ("B", (out_features, rank))):
        name = factors.names.get(letter)
        if name is None:
            problems.append(f"missing {PREFIX}{factors.module}.lora_{letter}.weight")
        elif shapes[name] != expected:
            problems.append(f"{name} has shape {shapes[name]}, expected {expected}")
    return problems


def _full_misfits(
    name: str, place: Place, flat: Flat, config: PolicyConfig, shapes: dict[str, tuple[int, ...]]
) -> list[str]:
    path, layer = place
    expected = tensor_shape(path, flat[path].shape[0 if layer is None else 1 :], config)
    if shapes[name] != expected:
        return [f"{name} has shape {shapes[name]}, expected {expected}"]
    if path == "embedding" and config.tie_word_embeddings:
        return [f"{name} replaces only one of the two embeddings that this model ties"]
    if isinstance(flat[path], qwix.QArray):
        return [f"{name} replaces a quantised kernel (config.model.quantize)"]
    return []


def _missing(adapted: dict[Place, Factors], places: dict[str, Place], description: PeftDescription) -> list[str]:
    """Modules that should have an adapter, as far as the file has any in the same part of the model."""
    modules = {place: published.removesuffix(".weight") for published, place in places.items()}
    prefixes = {}  # "model" or "visual" -> what stands in its place in the file's layout
    for place, factors in adapted.items():
        part, rest = modules[place].split(".", 1)
        prefixes[part] = factors.module.removesuffix(rest)
    problems = [] if adapted else ["there is no adapter in the file"]
    for place, published in modules.items():
        part, _, rest = published.partition(".")
        if part in prefixes and place not in adapted and ADAPTABLE.fullmatch(place[0]):
            module = prefixes[part] + rest
            problems += [f"missing {PREFIX}{module}.lora_A.weight"] if description.has_adapter(module) else []
    return problems
