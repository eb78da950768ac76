"""Tool episodes through a real OpenAI-compatible server on loopback, beside the same checkpoint in this process.

    python -m experiments.remote_engine.run --model=runs/served/run/model

Starts `transformers serve` (or the command of --serve), plays held-out tasks of the compact suite over real tools with
`RemotePolicy`, and checks what can be checked from outside: that both read a prompt as the same number of tokens, that
greedy turns are the same, that nothing without log-probs would ever train, and what a server that dies looks like.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from PIL import Image

from experiments.remote_engine.checkpoint import FAMILIES, LARGEST, SMALLEST
from regrpo_jax.agent.policy import EpisodePrompt, Policy, Told, WriteRequest
from regrpo_jax.agent.remote_engine import EngineSettings, post
from regrpo_jax.agent.remote_policy import RemotePolicy, chat_messages
from regrpo_jax.agent.rollout import Rollout, RolloutGroup
from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.corpus import Corpus
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics, rollouts_of
from regrpo_jax.records.types import ImageReference
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.engine_tokens import EngineTokens
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.run.starting_policy import starting_policy
from regrpo_jax.stages.online import collect_settings, playing
from regrpo_jax.suites.toolrepair import make_suite
from regrpo_jax.training.parallel import device_mesh

SHOWN = ("episodes", "dropped", "success", "success_at_worst", "failed", "tool_calls", "tokens", "truncated")


def played_config(model: Path) -> ConfigDict:
    """How tasks are played."""
    config = base_config()
    config.model.path = str(model)
    config.data.pixels = (SMALLEST, LARGEST)
    config.data.prefix_buckets, config.data.branch_buckets = (256,), (384,)
    config.agent.turn_tokens, config.agent.episode_tokens = 64, 200
    config.suite.families = FAMILIES
    return config


@contextlib.contextmanager
def served(command: str, model: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers; SystemExit when it does not come up."""
    words = [*shlex.split(command), str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        for _ in range(240):
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            if process.poll() is not None:
                raise SystemExit(f"the server ended with {process.returncode}; see {log}")
            time.sleep(0.5)
        else:
            raise SystemExit(f"the server does not answer; see {log}")
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def play(
    environment: Environment, policy: Policy, tasks: Sequence[Task], settings: CollectSettings, seed: int
) -> tuple[list[RolloutGroup], dict[str, Any]]:
    """Episodes and what became of them."""
    begun = time.monotonic()
    groups, counts = collect_groups(environment, policy, tasks, settings, seed=seed)
    rollouts = rollouts_of(groups)
    told = {name: value for name, value in rollout_metrics(rollouts).items() if name in SHOWN}
    told |= {
        "scored": sum(rollout.scored for rollout in rollouts),
        "trained_tokens": sum(int(rollout.trained.sum()) for rollout in rollouts),
        "actions": counts.actions,
        "actions_without_an_error": sum(r.statuses.count("ok") for r in rollouts),
        "turns_a_second": round(sum(len(r.turns) for r in rollouts) / (time.monotonic() - begun), 1),
        "refused": counts.refused,
    }
    return groups, told


def prompt_lengths(policy: RemotePolicy, groups: Sequence[RolloutGroup], prompts: Sequence[EpisodePrompt]) -> Any:
    """Tokens of each prompt here and by the server's own count."""
    found = []
    for group, prompt in zip(groups, prompts, strict=True):
        body = {"model": policy.settings.model, "messages": chat_messages(prompt.turns, prompt.images), "max_tokens": 1}
        usage = post(policy.settings, "/chat/completions", body)["usage"]
        found.append([len(group.prefix), usage["prompt_tokens"], len(group.image_files)])
    return found


def observed_lengths(policy: RemotePolicy, prompts: Sequence[EpisodePrompt], folder: Path) -> str:
    """Of conversations that went on with pictures of several sizes, how many the server counts as we do."""
    sizes = ((56, 56), (200, 90), (90, 300))
    images = []
    for number, size in enumerate(sizes):
        path = folder / f"observed-{number}.png"
        Image.new("RGB", size, (40 * number, 80, 120)).save(path)
        images.append(ImageReference(f"<image_{90 + number}>", str(path)))
    agreed = 0
    for number, prompt in enumerate(prompts):
        session = policy.start([prompt], 1, seed=0)
        (turn,) = session.write([WriteRequest((0, 0), "", 16)])
        shown = images[: 1 + number % len(images)]
        lines = "".join(f"\na.png: {image.placeholder}" for image in shown)
        session.observe([((0, 0), Told(f"[OUTPUT OF STEP 0] -> Observation:\nok{lines}", tuple(shown)))])
        messages, known = session.conversation((0, 0))
        known += not turn.finished  # a live episode ends there; the server's template ends the turn
        body = {"model": policy.settings.model, "messages": messages, "max_tokens": 1}
        agreed += post(policy.settings, "/chat/completions", body)["usage"]["prompt_tokens"] == known
    return f"{agreed} of {len(prompts)}"


def texts(rollout: Rollout) -> list[str]:
    return [turn.text for turn in rollout.turns]


class Watched:
    """A policy that remembers the prompts that it was started with."""

    def __init__(self, policy: RemotePolicy) -> None:
        self.policy, self.prompts = policy, list[EpisodePrompt]()
        self.version = policy.version

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> Any:
        self.prompts = list(prompts)
        return self.policy.start(prompts, branches, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a directory that transformers can load")
    parser.add_argument("--serve", default="transformers serve", help="command that is given the model and the port")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--branches", type=int, default=4)
    parser.add_argument("--out", type=Path, default=None, help="where the numbers go as JSON")
    chosen = parser.parse_args()
    model = chosen.model.resolve()
    config = played_config(model)
    functions, variables, reader = starting_policy(
        config, Corpus([], [], [], False), model, device_mesh(), resuming=True
    )
    tasks = make_suite("test", chosen.tasks, 5, "compact", chosen=FAMILIES, surprises=0.5)
    told: dict[str, Any] = {"tasks": len(tasks), "with_pictures": sum(bool(task.images) for task in tasks)}
    with tempfile.TemporaryDirectory() as work, playing(config) as environment:
        settings = {n: collect_settings(config, Path(work), reader, branches=n) for n in (1, chosen.branches)}
        address = f"http://127.0.0.1:{chosen.port}/v1"
        with served(chosen.serve, model, chosen.port, Path(work) / "server.log") as process:

            def remote(temperature: float, concurrency: int, **changes: Any) -> Watched:
                engine = EngineSettings(
                    address, str(model), temperature=temperature, concurrency=concurrency, extended=False, retries=1,
                    first_wait=0.1, **changes,
                )  # fmt: skip
                return Watched(RemotePolicy(engine, EngineTokens(reader)))

            greedy = remote(0.0, 1)
            groups, told["greedy, remote"] = play(environment, greedy, tasks, settings[1], 0)
            told["prompt tokens: ours, the server's, pictures"] = prompt_lengths(greedy.policy, groups, greedy.prompts)
            told["observed pictures: as many tokens here and there"] = observed_lengths(
                greedy.policy, greedy.prompts, Path(work)
            )
            here = SamplerPolicy(
                functions, variables, reader, prefix_buckets=(256,), branch_tokens=384, temperature=0.0
            )
            ours, told["greedy, in this process"] = play(environment, here, tasks, settings[1], 0)
            pairs = [(a.rollouts[0], b.rollouts[0]) for a, b in zip(groups, ours, strict=True)]
            told["greedy: first turns the same"] = sum(texts(a)[0] == texts(b)[0] for a, b in pairs)
            told["greedy: episodes the same"] = sum(texts(a) == texts(b) for a, b in pairs)
            sampled, told["sampled, 1 at a time"] = play(
                environment, remote(1.0, 1), tasks, settings[chosen.branches], 1
            )
            _, told["sampled, in this process"] = play(
                environment, dataclasses.replace(here, temperature=1.0), tasks, settings[chosen.branches], 1
            )
            again, _ = play(environment, remote(1.0, 1), tasks, settings[chosen.branches], 1)
            told["sampled again, 1 at a time: episodes the same"] = _same(sampled, again)
            together, told["sampled, 8 at a time"] = play(
                environment, remote(1.0, 8), tasks, settings[chosen.branches], 1
            )
            told["sampled, 8 at a time: episodes as 1 at a time"] = _same(sampled, together)
            told["different texts of a group's first turns"] = sum(
                len({texts(rollout)[0] for rollout in group.rollouts}) for group in sampled
            ) / len(sampled)
            told["errors"] = _errors(environment, remote, tasks, settings[1], process)
    print(json.dumps(told, indent=2))
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(told, indent=2) + "\n")


def _same(first: Sequence[RolloutGroup], second: Sequence[RolloutGroup]) -> str:
    pairs = list(zip(rollouts_of(first), rollouts_of(second), strict=True))
    return f"{sum(texts(a) == texts(b) for a, b in pairs)} of {len(pairs)}"


def _errors(
    environment: Environment, remote: Any, tasks: Sequence[Task], settings: CollectSettings, process: Any
) -> dict[str, str]:
    """What a person reads when things go wrong: fields that the server refuses, and a server that is gone."""
    found = {}
    engine = remote(0.0, 1).policy.settings
    for name, policy in {
        "vLLM's fields": RemotePolicy(
            EngineSettings(engine.base_url, engine.model, retries=0), remote(0.0, 1).policy.tokens
        ),
        "a model it does not serve": RemotePolicy(
            EngineSettings(engine.base_url, "other", extended=False, retries=0), remote(0.0, 1).policy.tokens
        ),
        "a server that was killed": remote(0.0, 1),
    }.items():
        if name.endswith("killed"):
            process.send_signal(signal.SIGKILL)
            process.wait()
        try:
            play(environment, policy, tasks[:2], settings, 0)
            found[name] = "no error"
        except UserError as error:
            found[name] = str(error)[:300]
    return found


if __name__ == "__main__":
    main()
