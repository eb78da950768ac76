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
from regrpo_jax.models.qwen2_vl.weights import EMBEDDING, HEAD, canonical_name, hugging_face_names, layouts
from regrpo_jax.models.safetensors_files import read_tensors, same_values, tensor_shapes

Tree = dict[str, Any]
Flat = dict[str, Any]  # our path, joined with "/" -> array

FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.\w+)?\.weight")  # the adapter's name may stand after A or B
WRAPPER = re.compile(r"\.modules_to_save(\.\w+)?(?=\.(weight|bias)$)")
ADAPTABLE = re.compile(r"(layers|vision/blocks)/\w+/kernel|vision/(merger_|deepstack/)fc\d/kernel")


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
    if not path.exists() and path.with_suffix(".bin").exists():
        raise UserError(f"{path}: no such file; {path.stem}.bin has to be saved as safetensors first")
    names = hugging_face_names(config)
    places = tensor_places(config, {path: array for path, array in flat.items() if path in names})
    if config.tie_word_embeddings:
        places[HEAD] = places[EMBEDDING]
    shapes = tensor_shapes(path)
    adapted: dict[Place, Factors] = {}
    full: dict[str, str] = {}  # published name -> name in the file
    problems: list[str] = []
    for name in shapes:
        factor = FACTOR.fullmatch(name.removeprefix(PREFIX))
        published = canonical_name(f"{factor[1]}.weight" if factor else WRAPPER.sub("", name.removeprefix(PREFIX)))
        place = places.get(published)
        if not name.startswith(PREFIX) or place is None or (factor and not ADAPTABLE.fullmatch(place[0])):
            problems.append(f"unexpected {name}")
            continue
        held = adapted.setdefault(place, Factors(factor[1], {})).names if factor else full
        letter = factor[2] if factor else published
        problems += [f"{name} is there already, as {held[letter]}"] if letter in held else []
        held[letter] = name
    problems += [
        problem for place, f in adapted.items() for problem in _misfits(f, flat[place[0]], description, shapes)
    ]
    for published, name in full.items():
        problems += _full_misfits(name, places[published], adapted, flat, config, shapes)
    problems += _tied_misfits(path, full, description) if config.tie_word_embeddings else []
    problems += [] if problems else _missing(adapted, places, description)
    problems += _unsaved(full, places, description)
    if problems:
        raise UserError(f"{path}: this adapter does not fit the model: {listed(problems)}")
    return adapted, {name: places[published] for published, name in full.items()}


def _misfits(
    factors: Factors, kernel: Any, description: PeftDescription, shapes: dict[str, tuple[int, ...]]
) -> list[str]:
    rank, (in_features, out_features) = description.rank_of(factors.module), kernel.shape[-2:]
    problems = []
    if not description.has_adapter(factors.module):
        problems.append(f"unexpected {PREFIX}{factors.module}.lora_A.weight, which target_modules leaves out")
    for letter, expected in (("A", (rank, in_features)), ("B", (out_features, rank))):
        name = factors.names.get(letter)
        if name is None:
            problems.append(f"missing {PREFIX}{factors.module}.lora_{letter}.weight")
        elif shapes[name] != expected:
            problems.append(f"{name} has shape {shapes[name]}, expected {expected}")
    return problems


def _full_misfits(
    name: str,
    place: Place,
    adapted: dict[Place, Factors],
    flat: Flat,
    config: PolicyConfig,
    shapes: dict[str, tuple[int, ...]],
) -> list[str]:
    path, layer = place
    expected = tensor_shape(path, flat[path].shape[0 if layer is None else 1 :], config)
    if shapes[name] != expected:
        return [f"{name} has shape {shapes[name]}, expected {expected}"]
    if (f"{path.rpartition('/')[0]}/kernel", layer) in adapted:
        return [f"unexpected {name}, whose module has an adapter (bias is 'none')"]
    if isinstance(flat[path], qwix.QArray):
        return [f"{name} replaces a quantised kernel (config.model.quantize)"]
    return []


def _tied_misfits(path: Path, full: dict[str, str], description: PeftDescription) -> list[str]:
    """Of a model with one embedding at both ends: two copies must be equal, and a copy for one end is not the other.

    What is in the file without having been asked for (`modules_to_save`) is the tied tensor itself.
    """
    copies = [name for name in (EMBEDDING, HEAD) if name in full]
    if len(copies) == 2:
        same = same_values(*((path, full[name]) for name in copies))
        return [] if same else [f"{full[EMBEDDING]} and {full[HEAD]} differ, but this model ties them"]
    apart = [name for name in copies if any(map(description.is_saved, layouts(name.removesuffix(".weight"))))]
    return [f"{full[name]} replaces only one of the two embeddings that this model ties" for name in apart]


def _unsaved(full: dict[str, str], places: dict[str, Place], description: PeftDescription) -> list[str]:
    """What `modules_to_save` promises and the file lacks, whole modules or parts of one."""
    known = {published: layouts(published.rpartition(".")[0]) for published in places}
    missing = [
        f"missing {PREFIX}{published} (modules_to_save)"
        for published, modules in known.items()
        if published not in full and any(map(description.is_saved, modules))
    ]
    everywhere = [module for modules in known.values() for module in modules]
    for end in description.saved:
        alone = dataclasses.replace(description, saved=(end,))
        missing += [] if any(map(alone.is_saved, everywhere)) else [f"missing {end} (modules_to_save)"]
    return missing


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
