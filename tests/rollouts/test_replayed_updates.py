"""An update read again from the disk has the arrays that it had when it was played, pictures included, bit for bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.rollout_buffer import RolloutBuffer
from regrpo_jax.environments.environment import Environment
from regrpo_jax.errors import UserError
from regrpo_jax.rollouts.players import player_of
from regrpo_jax.rollouts.replayed_updates import check_same_tokens, stored_groups
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.rollouts.update_groups import GroupPlayer, UpdateGroups
from regrpo_jax.stages import online as online_stage
from regrpo_jax.stages.online import collect_settings, update_batch
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.parallel import device_mesh

UPDATES = 2


def make_context(sampler: SamplerPolicy, workdir: Path) -> RunContext:
    config = base_config()
    config.data.update({"prefix_buckets": (512,), "branch_buckets": (384,)})
    config.agent.update({"turn_tokens": 24, "episode_tokens": 48, "retries": 2})
    config.online.update({"tasks": 2, "branches": 2, "steps": UPDATES})
    config.suite.families = ("region", "moved")
    image_token_id = sampler.reader.renderer.image_token_id
    mesh = device_mesh(jax.devices()[:1])
    return RunContext(config, workdir, cast(Any, None), sampler.functions, mesh, image_token_id)


@pytest.fixture(scope="module")
def played(
    environment: Environment, sampler: SamplerPolicy, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunContext, list[UpdateGroups]]:
    """Updates by a policy that sees, each with the policy before it."""
    context = make_context(sampler, tmp_path_factory.mktemp("played"))
    with RolloutBuffer(context.workdir / "rollouts") as buffer:
        settings = collect_settings(context.config, context.workdir, sampler.reader, branches=2)
        player = GroupPlayer(context.config, environment, buffer, settings)
        policies = [dataclasses.replace(sampler, version=version) for version in range(UPDATES)]
        return context, [player.play(policy.version + 1, policy) for policy in policies]


def bits(batch: Any) -> Any:
    if dataclasses.is_dataclass(batch):
        return {field.name: bits(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    array = np.asarray(batch)
    return array.dtype, array.shape, array.tobytes()


def test_the_batches_are_those_that_were_trained_on(
    played: tuple[RunContext, list[UpdateGroups]], sampler: SamplerPolicy
) -> None:
    context, live = played
    read = list(stored_groups(context.workdir, sampler.reader, range(1, UPDATES + 1)))
    assert len(read) == UPDATES
    for number, (groups, update) in enumerate(zip(read, live, strict=True), 1):
        batch = update_batch(context, sampler.reader, update.groups, number)
        assert batch.images is not None and (batch.segments > 0).any() and not batch.stale.any()
        assert bits(update_batch(context, sampler.reader, groups, number)) == bits(batch)


def test_a_later_start_begins_with_a_later_update(
    played: tuple[RunContext, list[UpdateGroups]], sampler: SamplerPolicy
) -> None:
    context, live = played
    (groups,) = stored_groups(context.workdir, sampler.reader, range(2, 3))
    assert [group.task_id for group in groups] == [group.task_id for group in live[1].groups]


def test_what_cannot_be_replayed_is_told(
    played: tuple[RunContext, list[UpdateGroups]], sampler: SamplerPolicy, tmp_path: Path
) -> None:
    context, _ = played
    with pytest.raises(UserError, match=r"update 3 is not there, .* asks for 4; set it to what the run has \(2\)"):
        stored_groups(context.workdir, sampler.reader, range(2, 5))
    with pytest.raises(UserError, match="no rollouts are stored here"):
        stored_groups(tmp_path, sampler.reader, range(1, 2))
    blind = ConversationReader(ChatRenderer(sampler.reader.renderer.tokenizer), None, None)
    with pytest.raises(UserError, match="its policy saw images"):
        next(stored_groups(context.workdir, blind, range(1, 2)))


def test_token_ids_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    for name, path, tokenizer in (("a", "", "x"), ("b", "", "y"), ("c", "", "x"), ("d", "hf", ""), ("e", "hf", "")):
        (tmp_path / name / "tokenizer").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps({"config": {"model": {"path": path}}}))
        if tokenizer:
            (tmp_path / name / "tokenizer" / "tokenizer.json").write_text(tokenizer)
    check_same_tokens(tmp_path / "a", tmp_path / "c")
    check_same_tokens(tmp_path / "d", tmp_path / "e")
    for other in ("b", "d"):
        with pytest.raises(UserError, match="another tokenizer"):
            check_same_tokens(tmp_path / other, tmp_path / "a")
    with pytest.raises(UserError, match="cannot be read as a run"):
        check_same_tokens(tmp_path / "nowhere", tmp_path / "a")


@pytest.mark.parametrize("staleness", [0, 2])
def test_an_error_while_playing_reaches_the_trainer_and_closes_the_environment(
    sampler: SamplerPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, staleness: int
) -> None:
    context = make_context(sampler, tmp_path)
    context.config.online.update({"staleness": staleness, "steps": 6})
    closed = []

    class Closing:
        def __enter__(self) -> Closing:
            return self

        def __exit__(self, *unused: object) -> None:
            closed.append(True)

    def play(self: GroupPlayer, number: int, policy: Any) -> UpdateGroups:
        assert not closed
        if number == 3:
            raise UserError("no state can be started")
        return UpdateGroups([], {}, number)

    monkeypatch.setattr(online_stage, "playing", lambda config: Closing())
    monkeypatch.setattr(GroupPlayer, "play", play)
    trained = []
    with (
        pytest.raises(UserError, match="no state can be started"),
        online_stage.group_source(context, sampler.reader, player_of(context, sampler.reader), {}, first=1) as source,
    ):
        for number in range(1, 7):
            trained.append(source(number, {}).tokens)
    assert trained == [1, 2] and closed == [True]
    RolloutBuffer(tmp_path / "rollouts").close()  # it is free again
