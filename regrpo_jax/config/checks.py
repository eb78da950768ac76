"""Is every value of a config one that exists? Asked before anything costs time: a typo must not end a night's run.

An unknown choice that no one refuses is worse still: compared with one known word, it silently means the other.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import TRAINING_STAGES, base_config, declared
from regrpo_jax.config.combinations import combination_rules, optimizer_field
from regrpo_jax.config.command_line import field_values
from regrpo_jax.config.fields import declared_fields
from regrpo_jax.config.former_fields import what_became_of
from regrpo_jax.errors import UserError


def check_config(config: ConfigDict) -> None:
    """Raises UserError for a value that means nothing, naming the field and what it may be."""
    _check_fields(config)
    values = field_values(config)
    bounds = declared_fields(declared())
    for stage in TRAINING_STAGES:
        for name in config[stage].optimizer:
            bounds[f"{stage}.optimizer.{name}"] = bounds[f"optimizer.{name}"]
    for field, bound in bounds.items():
        value = values[field]
        _require(value is None or bound.holds(value), field, bound.told(value), bound.remedy)
    for stage in TRAINING_STAGES:
        dense = values["model.quantize"] == "none" or stage not in config.stages
        field = optimizer_field(values, stage, "trainable")
        remedy = "choose 'lora', because weights that config.model.quantize stores in few bits stay frozen"
        _require(dense or values[field] != "full", field, values[field], remedy)
    _require(values["model.quantize"] == "none" or values["mesh.fsdp"] == 1, "mesh.fsdp", values["mesh.fsdp"],
             "choose 1: what config.model.quantize stores in few bits can be split over mesh.model alone")  # fmt: skip
    difficulties = values["suite.difficulties"]
    known = bool(difficulties) and set(difficulties) <= {1, 2, 3}
    _require(known, "suite.difficulties", difficulties, "list some of 1, 2, 3")
    wanted = {name: values[f"engine.{name}"] for name in ("records", "clean", "demonstrations")}
    if "data" in config.stages:
        _require(any(wanted.values()), "engine.records", wanted, "ask for records, clean or demonstrations")
    for rule in combination_rules(values, tuple(config.stages)):
        _require(rule.holds, rule.field, values[rule.field], rule.remedy)
    if config.checkpoint.every % config.log_every:
        raise UserError(
            f"config.checkpoint.every={config.checkpoint.every} must be a multiple of config.log_every="
            f"{config.log_every}, so that a resumed run writes the same lines as an uninterrupted one"
        )


def _check_fields(config: ConfigDict) -> None:
    """A config file may build its own ConfigDict; it must have the fields of `base_config`."""
    given, known = field_values(config), field_values(base_config())
    known |= {
        f"{stage}.optimizer.{name}": known[f"optimizer.{name}"]
        for stage in TRAINING_STAGES
        for name in config.get(stage, {}).get("optimizer", {})
        if f"optimizer.{name}" in known
    }
    missing, unknown = sorted(known.keys() - given.keys()), sorted(given.keys() - known.keys())
    if missing or unknown:
        for field in unknown:
            if became := what_became_of(field, known):
                raise UserError(became)
        wrong = [f"lacks {', '.join(missing)}"] if missing else []
        wrong += [f"has the unknown {', '.join(unknown)}"] if unknown else []
        raise UserError(f"the config {' and '.join(wrong)}; start from regrpo_jax.config.base_config.base_config()")
    for field, value in given.items():
        _require(value is not None or known[field] is None, field, value, f"give a value such as {known[field]}")
        number = isinstance(known[field], int | float) and not isinstance(known[field], bool)
        fits = not number or isinstance(value, int | float)  # a stage's own optimizer is a dictionary of anything
        _require(fits, field, value, f"give a number such as {known[field]}")


def _require(holds: bool, field: str, value: object, remedy: str) -> None:
    if not holds:
        raise UserError(f"config.{field} is {value!r}; {remedy}")
