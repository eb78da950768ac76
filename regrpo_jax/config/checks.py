"""Is every value of a config one that exists? Asked before anything costs time: a typo must not end a night's run.

An unknown choice that no one refuses is worse still: compared with one known word, it silently means the other.
"""

import math

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config
from regrpo_jax.config.combinations import combination_rules
from regrpo_jax.config.command_line import field_values
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ErrorType

TRAINING_STAGES = ("sft", "rl", "preference", "online")  # the sections that have an optimizer
ERROR_TYPES = tuple(map(str, ErrorType))

CHOICES: dict[str, tuple[str, ...]] = {
    "data.on_bad_record": ("skip", "fatal"),
    "data.conditioning": ("paper", "release"),
    "data.curriculum": ("none", "linear", "success-paced"),
    "model.dtype": ("auto", "float32", "bfloat16"),
    "model.param_dtype": ("auto", "float32", "bfloat16"),
    "model.remat": ("auto", "none", "dots", "full"),
    "model.attention": ("auto", "xla", "cudnn", "splash"),
    "model.quantize": ("none", "int8", "nf4"),
    "sft.trainable": ("auto", "full", "lora"),
    "rl.trainable": ("full", "lora"),
    "rl.kl_estimator": ("k1", "k2", "k3", "k3_release"),
    "rl.baseline": ("mean", "leave_one_out"),
    "rl.zero_variance": ("skip", "keep_kl"),
    "preference.trainable": ("full", "lora"),
    "agent.gate": ("failure", "paper", "never"),
    "agent.timing": ("post", "pre"),
    "online.trainable": ("auto", "full", "lora"),
    "online.algorithm": ("regrpo", "grpo", "none"),
    "suite.profile": ("compact", "full"),
    "online.success": ("step", "episode"),
    "online.ratio_of": ("token", "branch"),
    "online.divide_by": ("tokens", "budget"),
    "online.first_attempt": ("own", "condition", "shared"),
    "online.kl_estimator": ("k1", "k2", "k3", "k3_release"),
    "online.baseline": ("mean", "leave_one_out"),
    "online.zero_variance": ("skip", "keep_kl"),
    "engine.split": ("train", "validation", "test", "held_out"),
    "engine.diagnosis": ("reflection", "thought"),
    "engine.proposer": ("rules", "teacher"),
    "engine.annotator": ("rules", "teacher"),
    "baselines.policy": ("oracle", "never_repairs", "random"),
    "baselines.split": ("train", "validation", "test", "held_out"),
}
# Fields that list some of these.
LISTED = {
    "recovery.splits": ("validation", "test", "held_out"),
    "lora.targets": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "lora.vision_targets": ("qkv", "proj", "fc1", "fc2", "gate_proj", "up_proj", "down_proj"),
}
# Field -> lowest value, which is allowed.
AT_LEAST: dict[str, int] = {
    "log_every": 1,
    "mesh.model": 1,
    "data.max_length": 1,
    "data.curriculum_window": 1,
    "data.min_pixels": 1,
    "data.max_pixels": 28 * 28,
    "model.num_layers": 1,
    "model.hidden_size": 32,
    "model.logprob_chunk": 0,
    "lora.rank": 1,
    "lora.last_layers": 0,
    "lora.vision_rank": 0,
    "sft.row_patches": 0,
    "sft.batch_rows": 1,
    "sft.row_length": 2,
    "rl.groups_per_batch": 1,
    "rl.lambda_exec": 0,
    "rl.eta": 0,
    "rl.lambda_val": 0,
    "rl.beta": 0,
    "preference.pairs_per_batch": 1,
    "eval.records": 1,
    "eval.batch": 1,
    "eval.max_new_tokens": 1,
    "eval.temperature": 0,
    "eval.top_k": 0,
    "checkpoint.every": 1,
    "checkpoint.keep": 1,
    "agent.retries": 0,
    "agent.max_steps": 1,
    "agent.turn_tokens": 1,
    "agent.episode_tokens": 1,
    "online.tasks": 1,
    "online.branches": 2,
    "online.refills": 0,
    "online.staleness": 0,
    "online.lambda_exec": 0,
    "online.eta": 0,
    "online.lambda_val": 0,
    "online.beta": 0,
    "online.epochs": 1,
    "recovery.tasks": 1,
    "recovery.episodes": 1,
    "recovery.seed": 0,
    "recovery.temperature": 0,
    "recovery.tasks_at_once": 1,
    "player.retries": 0,
    "player.concurrency": 1,
    "engine.records": 0,
    "engine.demonstrations": 0,
    "engine.clean": 0,
    "engine.attempts": 1,
    "engine.shard_records": 1,
    "teacher.retries": 0,
    "teacher.repairs": 0,
    "teacher.max_concurrency": 1,
    "teacher.max_tokens": 1,
    "teacher.temperature": 0,
    "teacher.dollars_per_million_input_tokens": 0,
    "teacher.dollars_per_million_output_tokens": 0,
    "baselines.tasks": 1,
    "baselines.max_steps": 1,
    "environment.workers": 1,
    "baselines.viewer_episodes": 0,
} | {
    f"{stage}.{field}": lowest
    for stage in TRAINING_STAGES
    for field, lowest in {"steps": 0, "microbatches": 1, "warmup_steps": 0, "weight_decay": 0}.items()
}
ABOVE_ZERO = (
    "lora.alpha", "lora.vision_alpha", "rl.advantage_clip", "preference.beta", "eval.top_p",
    "environment.wall_seconds",
    "online.advantage_epsilon", "player.timeout",
    "online.advantage_clip", "online.clip_low", "online.clip_high", "online.weight_cap", "online.collect_seconds",
    "environment.patience",
    "teacher.timeout", "teacher.requests_per_minute", "teacher.most_requests", "teacher.most_dollars",
    *(f"{stage}.{field}" for stage in TRAINING_STAGES for field in ("learning_rate", "clip_norm")),
)  # fmt: skip
SHARES = (
    "lora.dropout",
    "data.curriculum_start",
    "data.curriculum_full",
    "data.curriculum_success",
    "sft.clean_ratio",
    "eval.top_p",
    "engine.natural",
    "suite.surprises",
    "online.forced_failures",
    "online.middle_states",
    "online.near_misses",
    *(f"engine.error_types.{name}" for name in ERROR_TYPES),
    *(f"{s}.{f}" for s in TRAINING_STAGES for f in ("final_learning_rate_share", "beta2")),
)


def check_config(config: ConfigDict) -> None:
    """Raises UserError for a value that means nothing, naming the field and what it may be."""
    _check_fields(config)
    values = field_values(config)
    for field, choices in CHOICES.items():
        _require(values[field] in choices, field, values[field], f"choose {' or '.join(map(repr, choices))}")
    for field, lowest in AT_LEAST.items():
        _require(lowest <= values[field] < math.inf, field, values[field], f"it must be at least {lowest}")
    for field in ABOVE_ZERO:
        value = 1.0 if values[field] is None else values[field]
        _require(0 < value < math.inf, field, value, "it must be above 0")
    for field in SHARES:
        _require(0 <= values[field] <= 1, field, values[field], "it must be between 0 and 1")
    _require(values["lora.dropout"] < 1, "lora.dropout", values["lora.dropout"], "it must be below 1")
    smallest, largest = values["data.min_pixels"], values["data.max_pixels"]
    _require(smallest <= largest, "data.min_pixels", smallest, f"it must be at most config.data.max_pixels={largest}")
    for field in ("data.prefix_buckets", "data.branch_buckets"):
        fits = bool(values[field]) and all(isinstance(length, int) and length > 0 for length in values[field])
        _require(fits, field, values[field], "list one or more lengths in tokens")
    for field, targets in LISTED.items():
        known = bool(values[field]) and set(values[field]) <= set(targets)
        _require(known, field, values[field], f"choose some of {', '.join(targets)}")
    for stage in TRAINING_STAGES:
        dense = values["model.quantize"] == "none" or stage not in config.stages
        trainable = values[f"{stage}.trainable"]
        remedy = "choose 'lora', because weights that config.model.quantize stores in few bits stay frozen"
        _require(dense or trainable != "full", f"{stage}.trainable", trainable, remedy)
    fused = values["model.attention"] in ("cudnn", "splash")
    _require(not fused or values["mesh.model"] == 1, "model.attention", values["model.attention"],
             "choose 'xla' or 'auto': fused kernels cannot be split over config.mesh.model devices")  # fmt: skip
    hidden = values["model.hidden_size"]
    _require(hidden % 32 == 0, "model.hidden_size", hidden, "it must be a multiple of 32")
    difficulties = values["suite.difficulties"]
    known = bool(difficulties) and set(difficulties) <= {1, 2, 3}
    _require(known, "suite.difficulties", difficulties, "list some of 1, 2, 3")
    shares = {name: values[f"engine.error_types.{name}"] for name in ERROR_TYPES}
    _require(any(shares.values()), "engine.error_types", shares, "give one of them a share above 0")
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
    missing, unknown = sorted(known.keys() - given.keys()), sorted(given.keys() - known.keys())
    if missing or unknown:
        wrong = [f"lacks {', '.join(missing)}"] if missing else []
        wrong += [f"has the unknown {', '.join(unknown)}"] if unknown else []
        raise UserError(f"the config {' and '.join(wrong)}; start from regrpo_jax.config.base_config.base_config()")
    for field, value in given.items():
        _require(value is not None or known[field] is None, field, value, f"give a value such as {known[field]}")


def _require(holds: bool, field: str, value: object, remedy: str) -> None:
    if not holds:
        raise UserError(f"config.{field} is {value!r}; {remedy}")
