"""From `config.suite` and `config.tools` to what is played."""

from __future__ import annotations

import functools
import importlib
import shlex
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import cast

from ml_collections import ConfigDict

from regrpo_jax.agent.prompt import RELEASE, TOOLS
from regrpo_jax.config.servers import ENDPOINTS, is_address, server_of, servers_of
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.suites import folder, python
from regrpo_jax.suites.benchmark import Benchmark
from regrpo_jax.suites.suite import LOADER, Suite, SuiteTools
from regrpo_jax.suites.toolrepair import suite as toolrepair
from regrpo_jax.toolbox.mcp_tools import McpServer
from regrpo_jax.toolbox.remote_tools import Endpoint
from regrpo_jax.toolbox.toolset import BUILTIN, BY_ENDPOINT, ToolsetSettings

# Public suites by name: classes, called with `config.suite.path` and the settings of `config.tools`.
PUBLIC = {
    "gta": "regrpo_jax.suites.gta.suite:GtaSuite",
    "gaia": "regrpo_jax.suites.gaia.suite:GaiaSuite",
    "bfcl": "regrpo_jax.suites.bfcl.suite:BfclSuite",
    "bfcl_requests": "regrpo_jax.suites.bfcl.requests:BfclRequests",
    "tau2_telecom": "regrpo_jax.suites.tau2.suite:Tau2Suite",
    "tau2_telecom_workflow": "regrpo_jax.suites.tau2.suite:Tau2Workflow",
}
ALL, GTA = "all", "gta_names"  # what `config.tools.builtin` may list beside names of tools


def suite_of(config: ConfigDict) -> Suite:
    """The suite that a config names. UserError when there is none such, or it cannot be read."""
    suite, system = _named(config), config.suite.system
    return suite if not system else Told(suite, RELEASE if system == "release" else _template(Path(system)))


def benchmark_of(config: ConfigDict) -> Benchmark:
    """The suite of a config, if its authors say how it is scored. UserError otherwise, as `suite_of` as well."""
    suite = _named(config)
    if not hasattr(suite, "score"):
        raise UserError(f"config.suite.name is {config.suite.name!r}, which nobody scores; choose {', '.join(PUBLIC)}")
    return cast(Benchmark, suite)


@dataclass(frozen=True)
class Told:
    """A suite whose policy reads another first turn."""

    suite: Suite
    system: str

    @property
    def name(self) -> str:
        """The suite's."""
        return self.suite.name

    @property
    def brief(self) -> bool:
        """The suite's."""
        return self.suite.brief

    @functools.cached_property
    def tools(self) -> SuiteTools:
        """The suite's, told in other words."""
        return replace(self.suite.tools, system=self.system)

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """The suite's."""
        return self.suite.tasks(split, count, seed)


def _template(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"config.suite.system is {str(path)!r}, which cannot be read ({error}); name a text file, or 'release'"
        ) from error
    if TOOLS not in text:
        raise UserError(f"{path}: says nothing of the tools; write {TOOLS} where they are to be told")
    return text.rstrip("\n")


def _named(config: ConfigDict) -> Suite:
    chosen = config.suite
    if chosen.name == toolrepair.NAME:
        return toolrepair.ToolRepair(chosen.profile, chosen.families, chosen.difficulties, chosen.surprises)
    settings = toolset_settings(config.tools)
    if chosen.name in PUBLIC:
        module, _, name = PUBLIC[chosen.name].partition(":")
        if not Path(chosen.path).is_dir() or not chosen.path:
            raise UserError(
                f"config.suite.path is {chosen.path!r}; name the folder that holds the files of {chosen.name}"
            )
        kind = getattr(importlib.import_module(module), name)
        taken = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
        options = {"families": tuple(chosen.families), "brief": chosen.brief}
        return kind(Path(chosen.path).resolve(), settings, **{key: options[key] for key in options if key in taken})
    place = Path(chosen.name).resolve()
    if chosen.name and place.is_dir():
        return folder.FolderSuite(place, SuiteTools(LOADER, settings, (str(place),)), chosen.brief)
    if ":" in chosen.name:
        return python.python_suite(chosen.name, settings)
    raise UserError(
        f"config.suite.name is {chosen.name!r}; choose one of {', '.join((toolrepair.NAME, *PUBLIC))}, a folder that "
        f'holds {folder.FILE}, or "package.module:make_suite"'
    )


def tools_of(loader: str, config: ConfigDict) -> SuiteTools:
    """The tools that a loader gives in a run: of `config.suite` where they are its own, else of `config.tools`."""
    if config.suite.name != toolrepair.NAME:
        own = suite_of(config).tools
        if own.loader == loader:
            return own
    return SuiteTools(LOADER, toolset_settings(config.tools)) if loader == LOADER else SuiteTools(loader)


def toolset_settings(tools: ConfigDict) -> ToolsetSettings:
    """The tools that `config.tools` asks for. UserError for a server that is neither a command nor an address."""
    own = [name for name in (*tools.builtin, "final_answer") if name not in (ALL, GTA)]
    searched = tools.search
    models = {name: Endpoint(*server) for name, server in servers_of(tools.endpoints, ENDPOINTS).items()}
    every = (*BUILTIN, *(name for name in BY_ENDPOINT if name in models))
    return ToolsetSettings(
        builtin=every if ALL in tools.builtin else tuple(dict.fromkeys(own)),
        user_tools=tuple(tools.user),
        mcp_servers=tuple(_server(number, words) for number, words in enumerate(tools.mcp)),
        corpus=str(Path(searched).resolve()) if searched and not is_address(searched) else "",
        search_engine=_endpoint(searched, model=False) if is_address(searched) else None,
        gta_names=GTA in tools.builtin,
        vision=models.get("vision"),
        images=models.get("images"),
        detect=models.get("detect"),
        segment=models.get("segment"),
        caption=models.get("caption"),
        recorded=tools.recorded,
    )


def _server(number: int, words: str) -> McpServer:
    """ "name=command with arguments", or "name=https://..."; the name may be left out."""
    name, separator, rest = words.partition("=")
    if not separator or not name.isidentifier():
        name, rest = f"server{number + 1}", words
    if not rest.strip():
        raise UserError(f"config.tools.mcp has {words!r}; write a command, an address, or name=one of these")
    if rest.startswith(("http://", "https://")):
        return McpServer(name, url=rest)
    return McpServer(name, command=tuple(shlex.split(rest)))


def _endpoint(text: str, *, model: bool = True) -> Endpoint | None:
    return Endpoint(*server_of(text, model=model)) if text else None
