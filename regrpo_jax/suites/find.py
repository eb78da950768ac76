"""From `config.suite` and `config.tools` to what is played."""

from __future__ import annotations

import shlex
from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.errors import UserError
from regrpo_jax.suites import folder, python
from regrpo_jax.suites.suite import LOADER, Suite, SuiteTools
from regrpo_jax.suites.toolrepair import suite as toolrepair
from regrpo_jax.toolbox.mcp_tools import McpServer
from regrpo_jax.toolbox.remote_tools import Endpoint
from regrpo_jax.toolbox.toolset import BUILTIN, ToolsetSettings


def suite_of(config: ConfigDict) -> Suite:
    """The suite that a config names. UserError when there is none such, or it cannot be read."""
    chosen = config.suite
    if chosen.name == toolrepair.NAME:
        return toolrepair.ToolRepair(chosen.profile, chosen.families, chosen.difficulties, chosen.surprises)
    settings = toolset_settings(config.tools)
    if chosen.name == folder.NAME:
        place = Path(chosen.path).resolve()
        return folder.FolderSuite(place, SuiteTools(LOADER, settings, (str(place),)), chosen.brief)
    if ":" in chosen.name:
        return python.python_suite(chosen.name, settings)
    raise UserError(
        f"config.suite.name is {chosen.name!r}; choose {toolrepair.NAME!r}, {folder.NAME!r} with config.suite.path, or "
        'write "package.module:make_suite"'
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
    return ToolsetSettings(
        builtin=tuple(BUILTIN) if tools.builtin == ("all",) else tuple(dict.fromkeys((*tools.builtin, "final_answer"))),
        user_tools=tuple(tools.user),
        mcp_servers=tuple(_server(number, words) for number, words in enumerate(tools.mcp)),
        corpus=str(Path(tools.corpus).resolve()) if tools.corpus else "",
        vision=_endpoint(tools.vision),
        images=_endpoint(tools.images),
        search_engine=_endpoint(tools.search),
        gta_names=tools.gta_names,
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


def _endpoint(told: ConfigDict) -> Endpoint | None:
    if not told.url:
        return None
    return Endpoint(told.url, told.model, told.key_variable)
