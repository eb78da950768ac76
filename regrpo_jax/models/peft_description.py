"""What an `adapter_config.json` of PEFT says of each module, and which of PEFT's variants we refuse."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.models.qwen2_vl.hf_config import read_json

# Field of PEFT's LoraConfig -> values that mean a plain low-rank update of the base weights, PEFT's default first.
# Some initialisations (PiSSA, OLoRA, LoftQ, ..) move a part of the base weights into the adapter.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
    "fan_in_fan_out": (False, None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "use_qalora": (False, None),
    **dict.fromkeys(
        ("layer_replication", "trainable_token_indices", "target_parameters", "alora_invocation_tokens", "use_bdlora",
         "arrow_config", "kasa_config", "monteclora_config", "velora_config"),
        (None,),
    ),
}  # fmt: skip


# Fields that we read below, and those that say where an adapter comes from but not what it computes.
READ = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules",
        "modules_to_save", "layers_to_transform", "layers_pattern")  # fmt: skip
NOTES = ("auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
         "inference_mode", "loftq_config", "lora_dropout", "lora_dtype", "lora_ga_config", "lorap_lr_ratio",
         "megatron_config", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config",
         "task_type")  # fmt: skip
ALL_LINEAR = "all-linear"


@dataclasses.dataclass(frozen=True)
class PeftDescription:
    """The fields we read of PEFT's `LoraConfig`; a module is named as PEFT's base model names it.

    Attributes:
      rank_pattern: regular expression of module names -> their rank, where it is not `rank`.
      alpha_pattern: likewise for `alpha`.
      rank_stabilised: the scale is alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732), not alpha / rank.
      targets: names, or ends of names, of the modules with an adapter; or one regular expression; or `ALL_LINEAR`.
      excluded: likewise, of modules without one.
      saved: ends of names of the modules whose full weights replace those of the base model.
      layers: the layers with an adapter; None for all.
      layers_pattern: names of the lists that `layers` counts in; none for any list.
    """

    rank: int
    alpha: float
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    rank_stabilised: bool
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...]
    saved: tuple[str, ...]
    layers: tuple[int, ...] | None
    layers_pattern: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        return _of_pattern(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """The factor on B A x."""
        rank = self.rank_of(module)
        return _of_pattern(self.alpha_pattern, module, self.alpha) / (rank**0.5 if self.rank_stabilised else rank)

    def has_adapter(self, module: str) -> bool:
        """Whether PEFT puts an adapter on a linear module of this name (`check_target_module_exists` of PEFT)."""
        saved = any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in self.saved)
        if saved or _named(module, self.excluded):
            return False
        if self.targets == ALL_LINEAR:
            return True
        if not _named(module, self.targets):
            return False
        if self.layers is None or isinstance(self.targets, str) or module in self.targets:
            return True
        lists = self.layers_pattern or (r"[^.]*",)
        found = (re.match(rf"(?:^|.*?\.){name}\.(\d+)\.", module) for name in lists)
        return any(match is not None and int(match[1]) in self.layers for match in found)

    def is_saved(self, module: str) -> bool:
        """Whether the full weights of a module come with the adapter: it, or one that it is in, is in `saved`."""
        parts = module.split(".")
        inside = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        return any(name.endswith(end) for name in inside for end in self.saved)


def read_description(path: Path) -> PeftDescription:
    """The file's fields.

    Raises:
      UserError: missing, broken, or of an adapter that is no plain low-rank update.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; config.lora.path must be a folder with an adapter in PEFT's format")
    fields = {name: value for name, value in read_json(path).items() if value is not None}
    for name, supported in SUPPORTED.items():
        value = fields.get(name, supported[0])
        if value not in supported:
            wanted = " or ".join(repr(choice) for choice in supported if choice is not None) or "none"
            raise UserError(f"{path}: {name} {value!r} is not supported, only {wanted} is")
    unknown = [name for name in fields if name not in (*SUPPORTED, *READ, *NOTES) and fields[name]]
    if unknown:
        raise UserError(
            f"{path}: {unknown[0]} {fields[unknown[0]]!r} is not known here, and may change what it computes"
        )
    try:
        description = PeftDescription(
            rank=fields["r"],
            alpha=fields["lora_alpha"],
            rank_pattern=fields.get("rank_pattern", {}),
            alpha_pattern=fields.get("alpha_pattern", {}),
            rank_stabilised=fields.get("use_rslora", False),
            targets=_names(fields["target_modules"]),
            excluded=_names(fields.get("exclude_modules", ())),
            saved=tuple(fields.get("modules_to_save", ())),
            layers=_layers(fields.get("layers_to_transform", ())),
            layers_pattern=_one_or_more(fields.get("layers_pattern", ())),
        )
        if not isinstance(description.rank_stabilised, bool):
            raise ValueError(f"use_rslora is {description.rank_stabilised!r}")
        if not all(size > 0 for size in _sizes(description)):
            raise ValueError("a rank or alpha is not above 0")
        description.scale_of("m"), description.has_adapter("m")  # do its patterns compile?
    except KeyError as error:
        raise UserError(f"{path}: the key {error} is missing; is this a file that PEFT wrote?") from error
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise UserError(f"{path}: not a description that PEFT writes ({error})") from error
    return description


def _sizes(description: PeftDescription) -> list[float]:
    patterns = (description.rank_pattern, description.alpha_pattern)
    return [description.rank, description.alpha, *(size for pattern in patterns for size in pattern.values())]


def _of_pattern(pattern: dict[str, Any], module: str, default: Any) -> Any:
    """The first entry that the end of a module's name matches (`get_pattern_key` of PEFT)."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _named(module: str, names: str | tuple[str, ...]) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _names(value: Any) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


def _one_or_more(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _layers(value: Any) -> tuple[int, ...] | None:
    """PEFT takes an empty list for all layers."""
    return _one_or_more(value) or None
