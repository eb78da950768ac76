"""Fields that had another name or another form, so that whoever used one is told what it is now.

A run's `config.json` may be of an earlier version, too: `recorded_fields` says it in today's fields, so that the run
can go on and its report be written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from regrpo_jax.config.base_config import ERROR_SHARES, STARTS, TRAINING_STAGES, base_config


class Former(NamedTuple):
    """names: the fields that were, and those whose value they were given. now: how it is written today.

    value: of today's field, from those of the names, None for one that a record lacks; None where no run depends on it.
    """

    names: tuple[str, ...]
    now: str
    value: Callable[..., Any] | None = None


def _server(url: str | None, *others: str | None) -> str:
    return " ".join(word for word in (url, *others) if word) if url else ""


def _search(corpus: str | None, url: str | None, key_variable: str | None) -> str:
    return _server(url, key_variable) or corpus or ""


def _endpoints(vision: str | None, images: str | None) -> list[str]:
    return [f"{name}={text}" for name, text in (("vision", vision), ("images", images)) if text]


def _list(*values: Any) -> list[Any]:
    return list(values)


def _shares(names: Mapping[str, Any]) -> Callable[..., list[str]]:
    def written(*values: float | None) -> list[str]:
        given = {name: value for name, value in zip(names, values, strict=True) if value}
        return [name if value == names[name] else f"{name}={value:g}" for name, value in given.items()]

    return written


def _roles(proposer: str | None, annotator: str | None) -> list[str]:
    roles = {"near_misses": proposer, "reflections": annotator}
    return [role for role, who in roles.items() if who == "teacher"]


def _credit(success: str | None, first_attempt: str | None) -> str:
    return "episode" if success == "episode" else first_attempt or "shared"


_SERVER = "'ADDRESS MODEL KEY_VARIABLE'"
_ENDPOINTS = "tools.endpoints=('vision=ADDRESS MODEL KEY_VARIABLE', 'images=ADDRESS MODEL KEY_VARIABLE')"
FORMER = (
    *(Former((f"{section}.base_url", f"{section}.model", f"{section}.key_variable"), f"{section}.server={_SERVER}",
             _server) for section in ("player", "teacher")),
    Former(tuple(f"tools.{tool}.{part}" for tool in ("vision", "images") for part in ("url", "model", "key_variable")),
           _ENDPOINTS, lambda *parts: _endpoints(_server(*parts[:3]), _server(*parts[3:]))),
    Former(("tools.vision", "tools.images"), _ENDPOINTS, _endpoints),
    Former(("tools.corpus", "tools.search.url", "tools.search.key_variable"), "tools.search=PATH, or "
           "'ADDRESS KEY_VARIABLE'", _search),
    Former(("tools.search.model",), "tools.search='ADDRESS KEY_VARIABLE'"),
    Former(("tools.builtin", "tools.gta_names"), "tools.builtin=('all', 'gta_names')",
           lambda names, added: [*(names or ()), *(["gta_names"] if added else [])]),
    Former(("player.timeout", "teacher.timeout"), "requests.timeout=SECONDS"),
    Former(("player.retries", "teacher.retries"), "requests.retries=NUMBER"),
    Former(("player.concurrency", "teacher.max_concurrency"), "requests.at_once=NUMBER"),
    *(Former((f"{stage}.trainable",), f"{stage}.optimizer.trainable=.., or config.optimizer.trainable=.. of all stages",
             lambda trainable: trainable) for stage in TRAINING_STAGES),
    Former(tuple(f"engine.error_types.{name}" for name in ERROR_SHARES), "engine.error_types=('NAME=share', ..)",
           _shares(ERROR_SHARES)),
    Former(("engine.proposer", "engine.annotator"), "engine.teacher=('near_misses', 'reflections')", _roles),
    Former(("engine.natural", "engine.failures_only"), "engine.natural=1",
           lambda share, only: 1.0 if only else share),
    Former(("teacher.dollars_per_million_input_tokens", "teacher.dollars_per_million_output_tokens"),
           "teacher.prices=(INPUT, OUTPUT)", _list),
    Former(("data.min_pixels", "data.max_pixels"), "data.pixels=(LEAST, MOST)", _list),
    Former(("data.curriculum_start", "data.curriculum_full"), "data.curriculum_pace=(START, FULL)", _list),
    Former(("data.curriculum_success", "data.curriculum_window"), "data.curriculum_success=(SUCCESS, WINDOW)", _list),
    Former(("sft.row_length", "data.max_length"), "sft.row_length=TOKENS",
           lambda row, longest: min(row or longest, longest)),
    Former(("lora.alpha", "lora.vision_alpha", "lora.vision_rank"), "lora.alpha=NUMBER",
           lambda alpha, own, rank: alpha if own == alpha or not rank else own),
    Former(("online.clip_low", "online.clip_high"), "online.clip=(LOW, HIGH)", _list),
    Former(("online.advantage_epsilon", "online.normalize_advantages"), "online.advantage_epsilon=NUMBER, 0 for False,",
           lambda epsilon, divided: 0.0 if divided is False else epsilon),
    Former(("online.success", "online.first_attempt"), "online.credit=..", _credit),
    Former(tuple(f"online.{name}" for name in STARTS), "online.starts=('NAME=share', ..)", _shares(STARTS)),
    Former(("audit.rot",), "data.rot=FILE"),
    Former(("eval.max_new_tokens",), "agent.turn_tokens=NUMBER"),
    Former(("eval.batch",), "played_at_once=NUMBER"),
    Former(("recovery.tasks_at_once",), "played_at_once=NUMBER"),
    Former(("baselines.tasks",), "recovery.tasks=NUMBER"),
    Former(("baselines.split",), "recovery.splits=SPLIT"),
    Former(("baselines.max_steps",), "agent.max_steps=NUMBER"),
)  # fmt: skip
GONE = {
    "baselines.viewer_episodes": 50,
    "checkpoint.keep": 2,
    "engine.attempts": 40,
    "engine.shard_records": 1000,
    "model.logprob_chunk": 0,
    "teacher.repairs": 2,
    "teacher.temperature": 0.0,
}
"""What these are always: no field says it any more."""


def what_became_of(field: str, known: Mapping[str, Any]) -> str:
    """What a field is now that is none any more; "" for one that never was.

    Args:
      known: today's fields.
    """
    if field in known:
        return ""
    for former in FORMER:
        if field in former.names:
            return f"config.{field} is config.{former.now} now"
    return f"config.{field} is no field any more, it is {GONE[field]!r} always" if field in GONE else ""


def named_in(line: str, known: Mapping[str, Any]) -> str:
    """The same for the first former field that a line of Python sets; "" where there is none."""
    written = re.findall(r"\.([A-Za-z_]+(?:\.[A-Za-z_]+)+)", line)
    return next((told for field in written if (told := what_became_of(field, known))), "")


def recorded_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The "config" of a run's `config.json`, flat, in today's names: {"objective.eta": 0.1, ..}.

    A former field that is left over was set to something that no config says any more.
    """
    found, known = _flat(config), _flat(base_config())
    if found.get("suite.name") == "folder":  # a suite's own path was another field once, and is again of public suites
        found |= {"suite.name": found.get("suite.path", ""), "suite.path": ""}
    for former in FORMER:
        gone = [name for name in former.names if name not in known and name in found]
        if not gone:
            continue
        values = [found.get(name) for name in former.names]
        for name in gone:
            found.pop(name, None)
        if former.value is not None:
            found[former.now.partition("=")[0]] = former.value(*values)
    return {name: value for name, value in found.items() if name not in GONE or value != GONE[name]}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if hasattr(value, "items") else {f"{prefix}{name}": value}
    return found
