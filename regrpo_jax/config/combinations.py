"""Values of a config that are good alone and mean nothing together: the online stage, and how its policy plays."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from regrpo_jax.config.base_config import STARTS, TRAINING_STAGES
from regrpo_jax.config.fields import shares_of


class Rule(NamedTuple):
    """holds: whether the values go together; if not, `field` is named with its value and the remedy."""

    holds: bool
    field: str
    remedy: str


def optimizer_field(values: Mapping[str, Any], stage: str, name: str) -> str:
    """The field that holds a value of a stage's optimizer: the stage's own where it has one, else the shared one."""
    own = f"{stage}.optimizer.{name}"
    return own if own in values else f"optimizer.{name}"


def combination_rules(values: Mapping[str, Any], stages: tuple[str, ...]) -> Iterator[Rule]:
    """The rules for a config with these stages.

    Args:
      values: every field, flat, each with a value that is good alone.
    """
    algorithm = values["online.algorithm"]
    yield Rule(
        values["data.curriculum"] == "none"
        or bool({"sft", "rl"} & set(stages))
        or not {"preference", "online"} & set(stages),
        "data.curriculum",
        "choose 'none': it orders the records of 'sft' and 'rl', and neither is in config.stages",
    )
    starts = shares_of(values["online.starts"], STARTS)
    yield Rule(
        starts.get("middle_states", 0.0) + starts.get("near_misses", 0.0) <= 1,
        "online.starts",
        "the shares of 'middle_states' and 'near_misses' must come to at most 1",
    )
    yield Rule(
        "baselines" not in stages or len(values["recovery.splits"]) == 1,
        "recovery.splits",
        "choose one of them: the stage 'baselines' plays one split",
    )
    yield Rule(
        "data" not in stages or not values["engine.teacher"] or bool(values["teacher.server"]),
        "engine.teacher",
        "name config.teacher.server='ADDRESS MODEL', or choose ()",
    )
    if {"online", "recovery"} & set(stages):
        control = "recovery" in stages and values["recovery.bare_control"]
        yield Rule(
            values["agent.timing"] == "post" or not (algorithm == "grpo" or values["agent.gate"] == "never" or control),
            "agent.timing",
            "choose 'post': 'pre' holds actions back to reflect on them, which config.online.algorithm='grpo', "
            "config.agent.gate='never' and config.recovery.bare_control never do",
        )
    yield Rule(
        "benchmark" not in stages or values["eval.mode"] == "episodes" or not values["suite.system"],
        "suite.system",
        "choose '', or config.eval.mode='episodes': a recorded conversation begins with the suite's own words",
    )
    several = values["hosts.kind"] != "one"
    yield Rule(not several or "plan" not in stages, "hosts.kind", "choose 'one': the stage 'plan' needs one process")
    yield Rule(
        not several or "online" not in stages or values["online.staleness"] == 0,
        "online.staleness",
        "choose 0, or config.hosts.kind='one': processes that train together meet in the same order, and one that "
        "plays meanwhile has none",
    )
    if values["player.server"]:
        yield from _of_an_engine(values, stages)
    if "online" in stages and algorithm != "none":
        yield from _of_training(values)


def _of_an_engine(values: Mapping[str, Any], stages: tuple[str, ...]) -> Iterator[Rule]:
    known = {"data", "audit", "recovery", "benchmark"}
    yield Rule(
        bool(values["model.path"]) or set(stages) <= known,
        "player.server",
        "name config.model.path, the same model on disk: without it a served model can be measured by 'recovery' and "
        "'benchmark', and nothing else",
    )
    resting = {"online"} if values["online.algorithm"] == "none" else set()
    trained = [stage for stage in stages if stage in TRAINING_STAGES and stage not in resting]
    for stage in trained:
        field = optimizer_field(values, stage, "trainable")
        yield Rule(
            values[field] != "full",
            field,
            "choose 'lora', or config.player.server='': a server can be given an adapter, no other weights",
        )
    yield Rule(
        not trained or values["player.extended"],
        "player.extended",
        "choose True, with vLLM or SGLang: others take no adapter while they run, and do not tell their tokens",
    )
    yield Rule(
        "online" not in trained or bool(values["online.replay"]) or values["online.weight_cap"] is not None,
        "online.weight_cap",
        "set it, such as 2: what another engine played needs importance weights",
    )


def _of_training(values: Mapping[str, Any]) -> Iterator[Rule]:
    yield Rule(
        values["agent.gate"] != "never" or values["online.algorithm"] == "grpo",
        "agent.gate",
        "choose 'failure' or 'paper', or config.online.algorithm='grpo', which retries without a reflection",
    )
    yield Rule(
        "forced_failures" not in shares_of(values["online.starts"], STARTS)
        or (values["suite.name"] == "toolrepair" and values["suite.surprises"] > 0),
        "online.starts",
        "leave 'forced_failures' out, or choose config.suite.name='toolrepair' with config.suite.surprises above 0: "
        "without surprises no task has a failure to start after",
    )
    in_turn = values["online.staleness"] == 0
    yield Rule(
        in_turn or values["online.weight_cap"] is not None,
        "online.staleness",
        "choose 0, or set config.online.weight_cap, such as 2: what an older policy played needs importance weights; "
        "without them the ratio is clipped around that policy, and the updates since then count as part of this one",
    )
    yield Rule(
        in_turn or values["mesh.model"] == values["mesh.fsdp"] == 1,
        "online.staleness",
        "choose 0, or config.mesh.model=1 and config.mesh.fsdp=1: devices that share one copy of the weights wait for "
        "each other, and cannot play and train at once",
    )
