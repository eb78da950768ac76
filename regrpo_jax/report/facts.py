"""What a run was, in a few words of its configuration; and all of it, for who wants to repeat the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_STAGES = {
    "data": "data engine",
    "audit": "audit",
    "sft": "warm start (SFT)",
    "rl": "offline ReGRPO",
    "preference": "DPO",
    "online": "online training",
    "recovery": "unseen tasks",
    "eval": "offline replay",
}
_ALGORITHMS = {"regrpo": "ReGRPO: reflects after a failure", "grpo": "GRPO: retries without a reflection"}


def run_facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, value), of `config.json`; what an older record lacks is left out."""
    config = record["config"]
    found = [("stages", _stages(config.get("stages"))), ("policy", _policy(_section(config, "model")))]
    if "online" in (config.get("stages") or ()):
        online = _section(config, "online")
        rewarded = _section(config, "objective") or online
        found += [
            ("algorithm", _ALGORITHMS.get(online.get("algorithm", ""), str(online.get("algorithm", "")))),
            ("an update", _update(online)),
            ("tasks", _tasks(_section(config, "suite") or online)),
            ("price of a reflection", f"{rewarded['eta']:g} per 100 tokens" if "eta" in rewarded else ""),
        ]
    found += [("seed", str(config.get("seed", ""))), ("commit", str(record.get("commit") or "")[:12])]
    return [(name, value) for name, value in found if value]


def flat_fields(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every field with its value, as the command line would name it."""
    return list(_fields(record["config"], "config."))


def _fields(section: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found = []
    for name, value in section.items():
        inner = _fields(value, f"{prefix}{name}.") if isinstance(value, Mapping) else []
        found += inner or [(f"{prefix}{name}", json.dumps(value, ensure_ascii=False))]
    return found


def _stages(stages: Any) -> str:
    names = list(stages) if isinstance(stages, Sequence) and not isinstance(stages, str) else []
    return " → ".join(_STAGES.get(str(name), str(name)) for name in names)


def _policy(model: Mapping[str, Any]) -> str:
    if model.get("path"):
        return str(model["path"]).rstrip("/").split("/")[-1]
    if "hidden_size" not in model:
        return ""
    sees = "with eyes" if model.get("images") else "text only"
    return f"tiny preset, {model.get('num_layers')} layers of {model['hidden_size']}, {sees}"


def _update(online: Mapping[str, Any]) -> str:
    if not {"tasks", "branches", "steps"} <= online.keys():
        return ""
    return f"{online['tasks']} tasks × {online['branches']} episodes, {online['steps']} updates"


def _tasks(suite: Mapping[str, Any]) -> str:
    if suite.get("name", "toolrepair") != "toolrepair":
        return f"{suite['name']} {suite.get('path', '')}".strip()
    families = ", ".join(map(str, suite.get("families") or ())) or "all families"
    return f"ToolRepair, {suite.get('profile', '?')}: {families}"


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}
