"""Who plays a policy's episodes: the sampler of this process, or an engine that is handed the policy's adapter.

config.player.server = ""             the sampler, which shares the weights of the training
config.player.server = "URL MODEL"    an engine that serves the base model (vLLM and SGLang exchange adapters while they
                                      run); a policy that has an adapter is written to workdir/player and loaded from
                                      there; without config.model.path, any server at all, to be measured
"""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any, Protocol

from ml_collections import ConfigDict

from regrpo_jax.agent.plain_tokens import PlainTokens
from regrpo_jax.agent.policy import Policy
from regrpo_jax.agent.remote_engine import EngineSettings, exchange_adapter
from regrpo_jax.agent.remote_policy import RemotePolicy
from regrpo_jax.config.base_config import stage_section
from regrpo_jax.config.servers import server_of
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.hosts.agreement import meet
from regrpo_jax.hosts.role import role
from regrpo_jax.models.peft import export_adapter
from regrpo_jax.models.process_arrays import own_copy
from regrpo_jax.rollouts.engine_tokens import EngineTokens
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.parallel import own_mesh, row_shards

Tree = dict[str, Any]


class Player(Protocol):
    """Makes players of policies."""

    def __call__(self, variables: Tree, *, version: int, temperature: float) -> Policy:
        """The policy with these variables, which have seen `version` updates.

        Raises:
          UserError: the engine cannot be given its adapter.
        """


def player_of(context: RunContext, reader: ConversationReader) -> Player:
    """The one that the config names. UserError: an engine's settings make no sense."""
    if context.config.player.server:
        return EnginePlayer(context, reader)
    return SamplerPlayer(context, reader)


def engine_settings(config: ConfigDict) -> EngineSettings:
    """The engine that the config names. UserError where its key is not in the environment."""
    url, model, key_variable = server_of(config.player.server)
    requests = config.requests
    return EngineSettings(
        url,
        model,
        key_variable,
        timeout=requests.timeout,
        retries=requests.retries,
        concurrency=requests.at_once,
        extended=config.player.extended,
    )


class ServedPlayer:
    """Whatever a server holds, of which nothing is here."""

    def __init__(self, config: ConfigDict) -> None:
        self._settings = engine_settings(config)

    def __call__(self, variables: Tree, *, version: int, temperature: float) -> RemotePolicy:
        return RemotePolicy(dataclasses.replace(self._settings, temperature=temperature), PlainTokens(), version)


class SamplerPlayer:
    """Plays in this process, with the copy of the weights that its own devices hold."""

    def __init__(self, context: RunContext, reader: ConversationReader) -> None:
        self._context, self._reader = context, reader

    def __call__(self, variables: Tree, *, version: int, temperature: float) -> SamplerPolicy:
        config, mesh = self._context.config, self._context.mesh
        if mesh.is_multi_process:
            own = own_mesh(mesh)
            assert own is not None  # `run.own_play.check_play` refuses it
            mesh, variables = own, own_copy(variables, own)
        return SamplerPolicy(
            self._context.functions,
            variables,
            self._reader,
            prefix_buckets=tuple(config.data.prefix_buckets),
            branch_tokens=max(config.data.branch_buckets),
            temperature=temperature,
            version=version,
            mesh=mesh if row_shards(mesh) > 1 else None,
            prefill_parts=stage_section(config, "online").microbatches,
        )


class EnginePlayer:
    """Plays on an engine, one policy at a time: a new adapter takes the place of the one before it."""

    def __init__(self, context: RunContext, reader: ConversationReader) -> None:
        self._context, self._tokens = context, EngineTokens(reader)
        self._settings = engine_settings(context.config)
        self._folder = context.workdir / "player"
        self._room = max(context.config.data.branch_buckets)
        self._served = ""  # adapter that the engine holds for us

    def __call__(self, variables: Tree, *, version: int, temperature: float) -> RemotePolicy:
        settings = dataclasses.replace(self._settings, temperature=temperature)
        if "lora" not in variables:
            return RemotePolicy(settings, self._tokens, version, self._room)
        name = f"{self._context.workdir.name}-{version}"
        folder = (self._folder / name).resolve()
        export_adapter(folder, variables, self._context.functions.config, base_model=self._context.config.model.path)
        if role().writes:
            exchange_adapter(settings, self._served, name, str(folder))
            if self._served not in ("", name):
                shutil.rmtree(self._folder / self._served, ignore_errors=True)  # the engine has forgotten it
        if self._context.mesh.is_multi_process:
            meet("the adapter of an engine")
        self._served = name
        return RemotePolicy(dataclasses.replace(settings, model=name), self._tokens, version, self._room)
