"""Episodes of a policy over the real tools: reflecting where an action failed, or retrying bare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regrpo_jax.agent.policy import ACTION_OPENING, REFLECTION_OPENING
from regrpo_jax.agent.prompt import instruction_text, observation_text, placeholders, system_text
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.engine.demonstrations import PROFILE
from regrpo_jax.engine.shards import write_images
from regrpo_jax.engine.writing import image_name
from regrpo_jax.environments.batch import step_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.recovery import FAILURES
from regrpo_jax.environments.toolrepair import LOADERS, make_suite
from regrpo_jax.evaluation.decoding import TurnRequest, TurnWriter
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records.types import ImageReference, Turn
from regrpo_jax.toolbox.sandbox.settings import SandboxSettings


def play_episodes(
    functions: PolicyFunctions, variables: dict, reader: ConversationReader, workdir: Path,
    families: Sequence[str], count: int, seed: int, temperature: float, shown: int = 4,
) -> dict[str, dict[str, dict[str, float]]]:  # fmt: skip
    """Arm -> family -> success, recovery, tokens of reflections."""
    tasks = make_suite("validation", count, seed, PROFILE, chosen=families, surprises=0.7)
    folder = workdir / "played"
    write_images(folder, tasks)
    writer = TurnWriter(functions, variables, reader, 64, 64, temperature, 0, 1.0, (64, 128, 192, 256), 0)
    told = {}
    with Environment.start(SandboxSettings(workers=2), loader=LOADERS[PROFILE]) as environment:
        for arm, retry in (("reflecting", REFLECTION_OPENING), ("bare", ACTION_OPENING)):
            episodes = [environment.reset(task) for task in tasks]
            turns = [[Turn("system", system_text({}, brief=True)),
                      Turn("user", instruction_text(t.instruction, t.images))] for t in tasks]  # fmt: skip
            images = [tuple(ImageReference(mark, str(folder / image_name(t, name)))
                      for mark, name in placeholders(t.images).items()) for t in tasks]  # fmt: skip
            failed, failures = [False] * count, np.zeros(count)
            live, costs = list(range(count)), np.zeros(count)
            while live:
                requests = [TurnRequest(tasks[i].id, tuple(turns[i]), images[i], retry if failed[i] else ACTION_OPENING)
                            for i in live]  # fmt: skip
                written = writer.write(requests)
                going = [(i, turn) for i, turn in zip(live, written, strict=True) if turn.finished]
                seen = step_episodes(environment, [episodes[i] for i, _ in going], [t.text for _, t in going])
                live = []
                for (i, turn), observation in zip(going, seen, strict=True):
                    costs[i] += turn.reflection_tokens
                    twice, failed[i] = failed[i], observation.status in FAILURES
                    failures[i] += failed[i]
                    number = len(episodes[i].steps) - 1
                    turns[i] += [Turn("assistant", turn.text), Turn("user", observation_text(number, observation.text))]
                    if not episodes[i].done and not (twice and failed[i]):
                        live.append(i)
            for episode in episodes:
                episode.close()
            told[arm] = _summary(
                f"{arm} T={temperature:g}", [t.family for t in tasks], [e.success for e in episodes], failures, costs
            )
            for i in range(shown if arm == "reflecting" else 0):
                print("##", tasks[i].instruction, episodes[i].success)
                print("\n".join(turn.content.replace("\n", " / ") for turn in turns[i][2:]))
    return told


def _summary(
    arm: str, families: Sequence[str], success: Sequence[bool], failures: np.ndarray, costs: np.ndarray
) -> dict[str, dict[str, float]]:
    rows = defaultdict(list)
    for number, family in enumerate(families):
        for name in (family, "all"):
            rows[name].append((success[number], failures[number] > 0, costs[number], failures[number] == 0))
    told = {}
    for name, values in rows.items():
        done, fell, cost, clean = np.array(values, float).T
        told[name] = {
            "tasks": len(values),
            "success": done.mean(),
            "first_attempt_success": (done * clean).mean(),
            "recovery": done[fell > 0].mean() if fell.any() else float("nan"),
            "failed": fell.mean(),
            "reflection_tokens": cost.sum() / max(1, (cost > 0).sum()),
        }
        print(f"{arm:16}{name:9}" + "  ".join(f"{key} {value:.2f}" for key, value in told[name].items()), flush=True)
    return told
