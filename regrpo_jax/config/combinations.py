"""Values of a config that are good alone and mean nothing together: the online stage, and how its policy plays."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """holds: whether the values go together; if not, `field` is named with its value and the remedy."""

    holds: bool
    field: str
    remedy: str


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
    near_misses = values["online.near_misses"]
    yield Rule(
        values["online.middle_states"] + near_misses <= 1,
        "online.middle_states",
        f"with config.online.near_misses={near_misses} it must be at most {1 - near_misses:g}",
    )
    if {"online", "recovery"} & set(stages):
        control = "recovery" in stages and values["recovery.bare_control"]
        yield Rule(
            values["agent.timing"] == "post" or not (algorithm == "grpo" or values["agent.gate"] == "never" or control),
            "agent.timing",
            "choose 'post': 'pre' holds actions back to reflect on them, which config.online.algorithm='grpo', "
            "config.agent.gate='never' and config.recovery.bare_control never do",
        )
    if values["player.base_url"]:
        yield from _of_an_engine(values, stages)
    if "online" in stages and algorithm != "none":
        yield from _of_training(values)


def _of_an_engine(values: Mapping[str, Any], stages: tuple[str, ...]) -> Iterator[Rule]:
    yield Rule(bool(values["player.model"]), "player.base_url", "name config.player.model, as the server calls it")
    known = {"data", "audit", "recovery"}
    yield Rule(
        bool(values["model.path"]) or set(stages) <= known,
        "player.base_url",
        "name config.model.path, the same model on disk: without it a served model can be measured by 'recovery', and "
        "nothing else",
    )
    resting = {"online"} if values["online.algorithm"] == "none" else set()
    trained = [stage for stage in stages if f"{stage}.trainable" in values and stage not in resting]
    for stage in trained:
        yield Rule(
            values[f"{stage}.trainable"] != "full",
            f"{stage}.trainable",
            "choose 'lora', or config.player.base_url='': a server can be given an adapter, no other weights",
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
        values["online.forced_failures"] == 0
        or (values["suite.name"] == "toolrepair" and values["suite.surprises"] > 0),
        "online.forced_failures",
        "choose 0, or config.suite.name='toolrepair' with config.suite.surprises above 0: without surprises no task "
        "has a failure to start after",
    )
    yield Rule(
        values["online.success"] == "step" or values["online.first_attempt"] == "shared",
        "online.first_attempt",
        "choose 'shared' with config.online.success='episode', which pays all tokens of an episode alike",
    )
    in_turn = values["online.staleness"] == 0
    yield Rule(
        in_turn or values["online.weight_cap"] is not None,
        "online.staleness",
        "choose 0, or set config.online.weight_cap, such as 2: what an older policy played needs importance weights; "
        "without them the ratio is clipped around that policy, and the updates since then count as part of this one",
    )
    yield Rule(
        in_turn or values["mesh.model"] == 1,
        "online.staleness",
        "choose 0, or config.mesh.model=1: devices that share one copy of the weights wait for each other, and cannot "
        "play and train at once",
    )
