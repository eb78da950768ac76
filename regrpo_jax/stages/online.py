"""The online stage: play, judge, update; the policy learns from what it did itself.

Where the groups of an update come from is the one thing that its three ways differ in:

    in turn    played by the policy as it is, then trained on: the default
    ahead      played in a thread of their own by the policy of some updates ago: config.online.staleness, `play_ahead`
    replayed   read from another run's buffer: config.online.replay, `replayed_updates`

A seed decides it all. A run that was stopped goes on exactly where it was; one that plays ahead has lost the policies
before its checkpoint, and plays the first `staleness` updates with the restored one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.agent.shown_pictures import NO_PICTURES, PictureLimits, configured_limits
from regrpo_jax.config.base_config import stage_section
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.online_batches import OnlineBatch, collate_rollouts, lacks_images, with_images
from regrpo_jax.data.rollout_buffer import RolloutBuffer, UnwrittenBuffer
from regrpo_jax.data.rollout_credit import credit_settings
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.rollout_metrics import alarms
from regrpo_jax.hosts.role import role
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.play_ahead import PlayAhead
from regrpo_jax.rollouts.played_work import play_flops
from regrpo_jax.rollouts.players import Player
from regrpo_jax.rollouts.replayed_updates import check_same_tokens, stored_groups
from regrpo_jax.rollouts.update_groups import (
    GroupPlayer,
    UpdateGroups,
    played_metrics,
    sampled_tokens,
)
from regrpo_jax.run.run import Run
from regrpo_jax.suites.find import suite_of
from regrpo_jax.training.batch_flops import Passes, trained_parts
from regrpo_jax.training.loop import RunContext, Source, train_stage
from regrpo_jax.training.online_step import online_settings, online_step, online_update
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import own_mesh_in_context, rows_here
from regrpo_jax.training.scoring import logprob_scorer
from regrpo_jax.training.train_step import Step

Tree = dict[str, Any]
# (number of an update, what is trained of the policy before it) -> what the update learns from
Groups = Callable[[int, Tree], UpdateGroups]


def run(run: Run) -> None:
    """Trains the policy on its own episodes."""
    learner = run.learner
    learner.variables = run_online(
        learner.context, learner.variables, learner.reader, learner.player, after=run.trained
    )


def run_online(
    context: RunContext, variables: Tree, reader: ConversationReader, player: Player, *, after: Mapping[str, int]
) -> Tree:
    """Trains the policy on its own episodes; returns its variables. With algorithm "none" they stay as they are.

    Args:
      variables: the policy before it, which is the reference as well.
      player: plays the policies.
      after: the stages before this one, and their updates.
    Raises:
      UserError: the checkpoint is of another run, the suite cannot be played, a number is not finite, or the run to
        replay does not fit.
    """
    online = stage_section(context.config, "online")
    if online.algorithm == "none":
        print("online: config.online.algorithm is 'none', the policy stays as it is", flush=True)
        return variables
    optimizer = make_optimizer(online, steps=online.steps * online.epochs)

    @contextlib.contextmanager
    def parts(make_start: Callable[[], Tree], frozen: Tree, first: int) -> Iterator[tuple[Step, Source]]:
        reference = {**frozen, **make_start()}  # no step donates these
        with group_source(context, reader, player, frozen, first=first) as groups:
            yield _update(context, optimizer, reference), Played(context, reader, groups)

    scored = 1 if online.weight_cap is None else 2  # the reference; stale rollouts
    passes = Passes(trained=online.epochs, scored=scored)
    return train_stage(context, "online", variables, optimizer, parts, _note, after, log_every=1, passes=passes)


def playing(config: ConfigDict) -> Environment:
    """The environment of `config.suite`, to be closed by the caller."""
    tools = suite_of(config).tools
    return start_environment(
        config.environment,
        tools.loader,
        tools.settings,
        max_steps=config.agent.max_steps + 1,
        hidden=tools.hidden,
        workers=config.workers,
    )


def loop_settings(config: ConfigDict) -> LoopSettings:
    """The rules of an episode; a bare retry never opens the gate."""
    gate = "never" if config.online.algorithm == "grpo" else config.agent.gate
    agent = config.agent
    return LoopSettings(
        gate=gate,
        timing=agent.timing,
        retries=agent.retries,
        max_steps=agent.max_steps,
        turn_tokens=agent.turn_tokens,
        episode_tokens=agent.episode_tokens,
    )


def picture_limits(config: ConfigDict, reader: ConversationReader | None) -> PictureLimits:
    """Which pictures that tools make a policy is shown; none, if it cannot see.

    Args:
      reader: of the policy; None for a served one of which nothing is here.
    Raises:
      UserError: its chat template has no place for them.
    """
    limits = configured_limits(config.agent)
    if reader is None or not min(limits.of_observation, limits.of_episode):
        return limits
    if reader.settings is None:
        return NO_PICTURES
    if not reader.renderer.shows_observed_images:
        raise UserError(
            "the chat template has no place for a picture in the user turn after an action; set "
            "config.agent.observation_images=(0, 0, 1), or mend the template"
        )
    return limits


def collect_settings(
    config: ConfigDict, workdir: Any, reader: ConversationReader | None, *, branches: int
) -> CollectSettings:
    """How groups are played; `picture_limits` says what of the reader and raises."""
    suite = suite_of(config)
    return CollectSettings(
        loop_settings(config),
        branches,
        tools=suite.tools.loaded,
        brief=suite.brief,
        patience=config.environment.patience,
        system=suite.tools.system,
        image_folder=workdir / "rollouts" / "images",
        seconds=config.online.collect_seconds,
        pictures=picture_limits(config, reader),
    )


@dataclasses.dataclass(frozen=True)
class Played:
    """Groups as batches; "seconds/play" is the wait for them."""

    context: RunContext
    reader: ConversationReader
    groups: Groups
    unhurried = True

    def __call__(self, number: int, trainable: Tree) -> tuple[OnlineBatch, dict[str, float]]:
        """Plays, or waits for what is played ahead."""
        with own_mesh_in_context(self.context.mesh):
            return self._played(number, trainable)

    def _played(self, number: int, trainable: Tree) -> tuple[OnlineBatch, dict[str, float]]:
        begun = time.monotonic()
        played = self.groups(number, trainable)
        seen = {f"rollouts/{name}": value for name, value in played.values.items() if value is not None}
        seen |= {"rollouts/sampled_tokens": float(played.tokens), "seconds/play": time.monotonic() - begun}
        if played.work is not None:
            seen |= play_flops(played.work, self.context.functions.config, trained_parts(trainable))
        for words in alarms(played.values):
            print(f"online step {number}: {words}", flush=True)
        return update_batch(self.context, self.reader, played.groups, number), seen

    def get_state(self) -> dict[str, Any]:
        """Nothing: the number of an update decides what is played."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing, likewise."""


@contextlib.contextmanager
def group_source(
    context: RunContext, reader: ConversationReader, player: Player, frozen: Tree, *, first: int
) -> Iterator[Groups]:
    """Where the updates from `first` on get their groups; what it holds is closed at the end, also after an error."""
    config, online = context.config, context.config.online
    if online.replay:
        yield _replayed(context, reader, range(first, online.steps + 1))
        return
    settings = collect_settings(config, context.workdir, reader, branches=online.branches)
    folder = context.workdir / "rollouts"
    written = RolloutBuffer(folder) if role().writes else UnwrittenBuffer(folder)
    with playing(config) as environment, written as buffer:
        group_player = GroupPlayer(config, environment, buffer, settings)

        def play(number: int, version: int, trainable: Tree) -> UpdateGroups:
            policy = player({**frozen, **trainable}, version=version, temperature=1.0)
            return group_player.play(number, policy)

        if online.staleness == 0:
            yield lambda number, trainable: play(number, number - 1, trainable)
            return
        # An engine holds one adapter of ours: that of the next policy would take the place of the one that plays.
        in_order = group_player.looks_back or config.player.server
        at_once = 1 if in_order else online.staleness + 1
        with PlayAhead(play, staleness=online.staleness, first=first, last=online.steps, at_once=at_once) as ahead:
            yield ahead


def _replayed(context: RunContext, reader: ConversationReader, numbers: range) -> Groups:
    """Groups of another run, whatever the policy is; they are judged by the settings of this one."""
    played, credit = Path(context.config.online.replay), credit_settings(stage_section(context.config, "online"))
    check_same_tokens(played, context.workdir)
    stored = stored_groups(played, reader, numbers)

    def next_groups(number: int, trainable: Tree) -> UpdateGroups:
        groups = next(stored)
        return UpdateGroups(groups, played_metrics(groups, credit), sampled_tokens(groups))

    return next_groups


def _update(context: RunContext, optimizer: Any, reference: Tree) -> Step:
    """`online_step.online_update` of the config."""
    online = stage_section(context.config, "online")
    parts = {"microbatches": online.microbatches, "chunk_size": context.logprob_chunk}
    return online_update(
        online_step(context.functions, optimizer, context.mesh, online_settings(context.config), **parts),
        logprob_scorer(context.functions, context.mesh, **parts),
        reference,
        epochs=online.epochs,
        recompute_stale=online.weight_cap is not None,
    )


def update_batch(
    context: RunContext, reader: ConversationReader, groups: Sequence[RolloutGroup], number: int
) -> OnlineBatch:
    """What update `number` learns from, as arrays; what an older policy or another engine played is marked as stale.

    Raises:
      UserError: an engine played and did not tell the tokens of any episode.
    """
    online, data = stage_section(context.config, "online"), context.config.data
    remote = bool(context.config.player.server)
    counted = [rollout for group in groups for rollout in group.counted]
    if remote and counted and not any(rollout.scored for rollout in counted):
        raise UserError(
            "nothing can be trained on: the engine tells no tokens with log-probs, of any episode; vLLM and SGLang do "
            "(config.player.extended=True), `transformers serve` does not"
        )
    return collate_rollouts(
        [
            with_images(group, reader.settings, reader.vision) if group.images is None or lacks_images(group) else group
            for group in groups
        ],
        rows=online.tasks,
        branches=online.branches,
        credit=credit_settings(online),
        train_truncated=online.train_truncated,
        policy_version=None if remote else number - 1,
        image_token_id=context.image_token_id,
        prefix_buckets=data.prefix_buckets,
        branch_buckets=data.branch_buckets,
        own_rows=rows_here(context.mesh, online.tasks),
    )


def _note(values: Mapping[str, float]) -> str:
    def shown(name: str) -> str:
        value = values.get(f"rollouts/{name}")
        return "-" if value is None else f"{value:.0%}"

    return (
        f"success {shown('success')}  first try {shown('first_attempt_success')}  recovery {shown('recovery')}  "
        f"needless {shown('needless')}  useful groups {shown('useful_groups')}"
    )
