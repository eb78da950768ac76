"""ReGRPO in one file: play, reflect, judge, update, measure, over real tools in the sandbox, on a CPU.

    python -m experiments.one_file.regrpo [--updates=8]

Read it from `main` downwards. What it does by hand: the episode (an action, its observation, the gate, one reflection,
one repair), the credit of first attempts and repairs, the batch, the clipped loss and the optimizer. What it takes from
the package: the tasks and their sandbox, tokens and template, the sampler, and the policy's forward passes.

It leaves out what makes a long run safe and fast: resuming, playing ahead, several devices, microbatches, LoRA,
pictures, episodes that share what they did alike, and oracles that know what a step should have seen (here a step was
right if nothing failed in it and the answer came out right).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from regrpo_jax.agent.policy import ACTION_OPENING, REFLECTION_OPENING, EpisodePrompt, Prefix, Told, WriteRequest
from regrpo_jax.agent.prompt import instruction_text, observation_text, system_text
from regrpo_jax.config.command_line import load_config
from regrpo_jax.core.attempt_credit import attempt_rewards
from regrpo_jax.core.clipped_loss import clipped_loss
from regrpo_jax.core.step_advantages import step_advantages
from regrpo_jax.data.batches import collate_prefixes
from regrpo_jax.data.corpus import Corpus
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.groups import Group
from regrpo_jax.data.images import pack_images
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.environments.task import Task
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.logprobs import token_scores
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records.types import Status, Turn
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.run.starting_policy import starting_policy
from regrpo_jax.suites.toolrepair.suite import ToolRepair
from regrpo_jax.training.parallel import device_mesh

CONFIG = Path(__file__).parents[2] / "configs" / "recovery.py"
SUITE = ToolRepair(families=("moved", "service"), surprises=0.7)
TASKS, BRANCHES, STEPS = 8, 8, 4  # groups of an update, episodes of a group, steps of an episode at most
PREFIX, LENGTH = 128, 256  # tokens of a prompt and of an episode, padded
ETA, BETA, CLIP, LEARNING_RATE = 0.1, 0.01, (0.2, 0.28), 2e-4
TURN_TOKENS = 80
FAILED = (Status.TOOL_ERROR, Status.INVALID_ACTION, Status.TIMEOUT, Status.EMPTY)


@dataclasses.dataclass
class Attempt:
    """An action with what was written before it. kinds: 1 reflection, 2 thought and action.  # [token]"""

    step: int
    number: int  # 0 the first attempt at the step, 1 its repair
    at: int  # where its own tokens begin in the episode
    kinds: np.ndarray
    logprobs: np.ndarray
    failed: bool


@dataclasses.dataclass
class Played:
    """An episode: all its tokens after the prompt, and the attempts among them."""

    tokens: list[int]
    attempts: list[Attempt]
    success: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=8)
    updates = parser.parse_args().updates
    config = load_config(CONFIG)
    mesh, nothing = device_mesh(), Corpus([], [], [], False)
    functions, variables, reader = starting_policy(config, nothing, Path("."), mesh, resuming=False)
    reference = variables["params"]
    params = jax.tree.map(jnp.copy, reference)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LEARNING_RATE))
    state = optimizer.init(params)
    update = jax.jit(lambda *arguments: learn(functions, optimizer, *arguments))
    tools = SUITE.tools
    with start_environment(config.environment, tools.loader, max_steps=STEPS + 2) as environment:
        for number in range(updates):
            begun = time.monotonic()
            tasks = SUITE.tasks("train", TASKS, seed=10_000 + number)
            groups, prefixes = play(environment, functions, {"params": params}, reader, tasks, seed=number)
            batch = collate(groups, prefixes, judge(groups))
            params, state, loss = update(params, reference, state, batch)
            seconds = time.monotonic() - begun
            print(f"update {number + 1}/{updates}  {told(groups)}  loss {loss:.4f}  {seconds:.0f} s", flush=True)
        tests = SUITE.tasks("test", 3 * TASKS, seed=7)
        for title, chosen in (("before", reference), ("after", params)):
            groups, _ = play(environment, functions, {"params": chosen}, reader, tests, seed=99)
            print(f"{title}: {len(tests)} unseen tasks x {BRANCHES} episodes  {told(groups)}")


def play(
    environment: Environment,
    functions: PolicyFunctions,
    variables: dict[str, Any],
    reader: ConversationReader,
    tasks: Sequence[Task],
    seed: int,
) -> tuple[list[list[Played]], Sequence[Prefix]]:
    """A group of episodes of each task, all in step: write, act, observe.  # [group][branch]"""
    sampler = SamplerPolicy(functions, variables, reader, prefix_buckets=(PREFIX,), branch_tokens=LENGTH)
    prompts = []
    for number, task in enumerate(tasks):
        system = system_text(task.tools, SUITE.tools.loaded, brief=True)
        turns = (Turn("system", system), Turn("user", instruction_text(task.instruction, ())))
        prompts.append(EpisodePrompt(turns, (), number))
    session = sampler.start(prompts, BRANCHES, seed)
    places = [(group, branch) for group in range(len(tasks)) for branch in range(BRANCHES)]
    played = {place: Played([], []) for place in places}
    episodes = {place: environment.reset(tasks[place[0]]) for place in places}
    live = places
    while live:
        # The gate: a failure, and nothing else, opens one block. Its opening is put in the policy's mouth.
        openings = [REFLECTION_OPENING if _after_failure(played[place]) else ACTION_OPENING for place in live]
        requests = [WriteRequest(place, opening, TURN_TOKENS) for place, opening in zip(live, openings, strict=True)]
        going_on = []
        for place, turn in zip(live, session.write(requests), strict=True):
            observation = _act(played[place], episodes[place], turn)
            if observation is not None:
                going_on.append((place, Told(observation)))
        heard = session.observe(going_on)
        for (place, _), words in zip(going_on, heard, strict=True):
            if words is not None:
                played[place].tokens += words.tokens.tolist()
        still = [place for (place, _), words in zip(going_on, heard, strict=True) if words is not None]
        session.finish([place for place in live if place not in still])
        live = still
    for episode in episodes.values():
        episode.close()
    return [[played[group, branch] for branch in range(BRANCHES)] for group in range(len(tasks))], session.prefixes


def _after_failure(played: Played) -> bool:
    return bool(played.attempts) and played.attempts[-1].failed


def _act(played: Played, episode: Episode, turn: Any) -> str | None:
    """Runs a turn's action and writes it down; the next user turn, or None when the episode is over."""
    last = played.attempts[-1] if played.attempts else None
    repairs = last is not None and last.failed
    step, number = (last.step, 1) if repairs and last else (last.step + 1 if last else 0, 0)
    played.tokens += turn.opening.tolist()
    begins = turn.text.find("Thought:")  # of the action's part; the reflection stands before it
    kinds = np.where(turn.starts < begins, 1, 2).astype(np.int8)  # [token]
    observation = episode.step(turn.text) if turn.finished else None
    failed = observation is None or observation.status in FAILED
    played.attempts.append(Attempt(step, number, len(played.tokens), kinds, turn.logprobs, failed))
    played.tokens += turn.tokens.tolist()
    played.success = episode.success
    over = observation is None or episode.done or (failed and repairs) or len(played.attempts) > STEPS
    return None if over or observation is None else observation_text(len(played.attempts) - 1, observation.text)


def judge(groups: Sequence[Sequence[Played]]) -> np.ndarray:
    """A of each attempt, by core's equations: first attempts and repairs each with their own.

    Returns:
      float.  # [group, branch, step, attempt]
    """
    shape = (len(groups), BRANCHES, STEPS + 2, 2)
    made, right = np.zeros(shape, bool), np.zeros(shape, bool)
    cost = np.zeros(shape, np.float32)
    for group, episodes in enumerate(groups):
        for branch, played in enumerate(episodes):
            for one in played.attempts:
                place = (group, branch, one.step, one.number)
                made[place], right[place] = True, not one.failed and played.success
                cost[place] = np.sum(one.kinds == 1)
    rewards, reached = attempt_rewards(
        right, cost, np.zeros(shape, bool), made, first_attempt="own", eta=ETA
    )  # each [group, branch, place]
    advantages = step_advantages(rewards, reached, normalize=True, epsilon=0.1)  # [group, branch, place]
    return np.asarray(advantages).reshape(shape)


def collate(groups: Sequence[Sequence[Played]], prefixes: Sequence[Prefix], advantages: np.ndarray) -> dict[str, Any]:
    """Prompts padded on the left, episodes on the right; the last token of a prompt leads its branches."""
    bare = [Group("", one.tokens, one.positions, pack_images([], None), ()) for one in prefixes]
    prefix, _ = collate_prefixes(bare, image_token_id=-1, buckets=(PREFIX,))
    shape = (len(groups), BRANCHES, LENGTH)
    targets, fed, valid = (np.zeros(shape, np.int32) for _ in range(3))
    kinds, behaviour, at_tokens = np.zeros(shape, np.int8), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for group, episodes in enumerate(groups):
        for branch, played in enumerate(episodes):
            size = len(played.tokens)
            targets[group, branch, :size] = played.tokens
            fed[group, branch, :size] = [prefixes[group].tokens[-1], *played.tokens[:-1]]
            valid[group, branch, :size] = 1
            for one in played.attempts:
                own = (group, branch, slice(one.at, one.at + len(one.kinds)))
                kinds[own], behaviour[own] = one.kinds, one.logprobs
                at_tokens[own] = advantages[group, branch, one.step, one.number]
    starts = np.array([one.positions[-1].max() for one in prefixes], np.int32)  # [group]
    order = starts[:, None, None] + np.arange(LENGTH, dtype=np.int32)  # [group, 1, token]
    positions = np.broadcast_to(order[..., None], (*shape, 3))
    block = TokenBlock(fed, valid, np.ascontiguousarray(positions), np.full(shape, -1, np.int32))
    return {"prefix": prefix, "branches": block, "targets": targets, "kinds": kinds, "behaviour": behaviour,
            "advantages": at_tokens}  # fmt: skip


def token_logprobs(functions: PolicyFunctions, params: Any, batch: dict[str, Any]) -> jax.Array:
    """log pi of every trained token: each prompt runs once, its branches attend to it.  # [group, branch, token]"""
    variables = {"params": params}
    _, cache = functions.run_prefix(variables, batch["prefix"], None)
    hidden = functions.run_branches(variables, batch["branches"], cache)  # [group, branch, token, hidden]
    return token_scores(
        hidden,
        functions.head(variables),
        batch["targets"],
        batch["kinds"] > 0,
        chunk_size=4096,
        vocab_size=functions.config.vocab_size,
    ).logprobs


def learn(
    functions: PolicyFunctions,
    optimizer: optax.GradientTransformation,
    params: Any,
    reference: Any,
    state: Any,
    batch: dict[str, Any],
) -> tuple[Any, Any, jax.Array]:
    """One step of the optimizer on reflections and actions alike: clipped ratios, and the KL to the reference."""
    reflection, action = batch["kinds"] == 1, batch["kinds"] == 2
    anchor = token_logprobs(functions, reference, batch)  # [group, branch, token]

    def objective(params: Any) -> jax.Array:
        loss, _ = clipped_loss(
            token_logprobs(functions, params, batch),
            anchor,
            batch["behaviour"],
            reflection,
            action,
            batch["advantages"],
            beta=BETA,
            clip_range=CLIP,
        )
        return loss

    loss, gradient = jax.value_and_grad(objective)(params)
    changes, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, changes), state, loss


def told(groups: Sequence[Sequence[Played]]) -> str:
    """Success; success of the episodes without, and with a failure."""
    episodes = [played for group in groups for played in group]
    failed = [any(attempt.failed for attempt in played.attempts) for played in episodes]
    success = [played.success for played in episodes]
    at_once = np.mean([right and not once for right, once in zip(success, failed, strict=True)])
    repaired = np.mean([right for right, once in zip(success, failed, strict=True) if once] or [np.nan])
    return f"success {np.mean(success):.0%}  without a failure {at_once:.0%}  after a failure {repaired:.0%}"


if __name__ == "__main__":
    main()
