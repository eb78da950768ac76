"""Training on what an engine plays: over HTTP, with the trainer's adapters, which the engine reads from the disk.

The engine here samples by itself: it has its own copy of the base weights and of every adapter that it is told to load.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrpo_jax.agent.policy import EpisodePrompt, SampledTurn, WriteRequest
from regrpo_jax.config.command_line import load_config
from regrpo_jax.data.corpus import Corpus
from regrpo_jax.data.rollout_buffer import StoredRollouts
from regrpo_jax.errors import UserError
from regrpo_jax.main import main
from regrpo_jax.models.peft_import import load_adapter
from regrpo_jax.records.types import Turn
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.run.starting_policy import starting_policy
from regrpo_jax.training.parallel import device_mesh
from tests.agent.chat_server import Engine, serving

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "recovery.py"
UPDATES = 2


@dataclasses.dataclass
class SamplingEngine(Engine):
    """A policy behind the protocol; `adapted` are the policies that it has been asked for."""

    base: Any = None
    adapted: dict[str, SamplerPolicy] = dataclasses.field(default_factory=dict)
    one_at_a_time: Any = dataclasses.field(default_factory=threading.Lock)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        turns = [Turn(message["role"], message["content"]) for message in body["messages"]]
        opening = turns.pop().content if turns[-1].role == "assistant" else ""
        with self.one_at_a_time:
            session = self._policy(body["model"]).start([EpisodePrompt(tuple(turns), (), 0)], 1, body["seed"])
            (turn,) = session.write([WriteRequest((0, 0), opening, body["max_tokens"])])
        message = {"role": "assistant", "content": turn.text.removeprefix(opening)}
        choice = {"message": message, "finish_reason": "stop" if turn.finished else "length"}
        return {"choices": [choice | ({"logprobs": {"content": self._told(turn)}} if self.shows == "ids" else {})]}

    def _told(self, turn: SampledTurn) -> list[dict[str, Any]]:
        pairs = zip(turn.tokens, turn.logprobs, strict=True)
        return [{"token": f"token_id:{token}", "logprob": float(logprob), "bytes": None} for token, logprob in pairs]

    def _policy(self, name: str) -> SamplerPolicy:
        if name == "base":
            return self.base
        if name not in self.adapted:
            variables = load_adapter(
                Path(self.adapters[name]), self.base.variables["params"], self.base.functions.config
            )
            self.adapted[name] = dataclasses.replace(self.base, variables=variables)
        return self.adapted[name]


@pytest.fixture
def engine(tmp_path: Path) -> SamplingEngine:
    config = load_config(CONFIG)
    functions, variables, reader = starting_policy(
        config, Corpus([], [], [], False), tmp_path, device_mesh(), resuming=False
    )
    base = SamplerPolicy(functions, variables, reader, prefix_buckets=(256,), branch_tokens=96)
    return SamplingEngine(reader.renderer, lambda messages, opening: "", base=base)


def train(workdir: Path, address: str, *options: str) -> None:
    main(
        [
            f"--config={CONFIG}",
            f"--workdir={workdir}",
            f"--config.player.server={address} base",
            "--config.online.optimizer.trainable=lora",
            "--config.online.weight_cap=2",
            "--config.online.tasks=2",
            "--config.online.branches=4",
            f"--config.online.steps={UPDATES}",
            '--config.suite.families=("service",)',
            "--config.online.learning_rate=0.01",
            *options,
        ]
    )


def test_a_policy_is_trained_on_what_an_engine_plays_with_its_adapters(engine: SamplingEngine, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with serving(engine) as address:
        train(workdir, address, '--config.stages=("online", "recovery")', "--config.recovery.tasks=3")
    assert list(engine.adapted) == [f"run-{version}" for version in range(UPDATES + 1)]
    assert list(engine.adapters) == [f"run-{UPDATES}"]  # the others were given up
    assert [path.name for path in (workdir / "player").iterdir()] == [f"run-{UPDATES}"]
    stored = StoredRollouts(workdir / "rollouts")
    for number in range(1, UPDATES + 1):
        played = [rollout for group in stored.update(number) for rollout in group.rollouts]
        assert played and {rollout.policy_version for rollout in played} == {number - 1}
        assert all(rollout.scored and rollout.trained.any() for rollout in played)
    first, last = (engine.adapted[name].variables["lora"] for name in ("run-0", f"run-{UPDATES}"))
    assert all(not np.any(one["up"]) for one in _factors(first)) and any(np.any(one["up"]) for one in _factors(last))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    updates = [line for line in lines if line["stage"] == "online"]
    assert len(updates) == UPDATES and all(line["branches/stale_share"] == 1 for line in updates)
    # The engine played with the very adapter that is trained: its log-probs are those of the policy before the update.
    for line in updates:
        weights = {name: value for name, value in line.items() if name.endswith("/weight")}
        assert weights and all(abs(value - 1) < 1e-3 for value in weights.values()), weights


def test_an_engine_that_tells_no_tokens_trains_nothing(engine: SamplingEngine, tmp_path: Path) -> None:
    engine.shows = "nothing"
    with serving(engine) as address, pytest.raises(UserError, match="tells no tokens with log-probs"):
        train(tmp_path / "run", address, '--config.stages=("online",)')


def _factors(tree: dict[str, Any]) -> list[dict[str, Any]]:
    if "up" in tree:
        return [tree]
    return [found for branch in tree.values() for found in _factors(branch)]
