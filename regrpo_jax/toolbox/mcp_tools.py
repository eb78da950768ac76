"""The tools of MCP servers, as tools of ours. They are remote: the server and its client live on the host.

A server is asked once for its tools (`describe_server`); the descriptions are plain data that can cross into a
sandbox, where nothing of the server is started. The connection is made when a tool is first called.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import re
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, Unavailable
from regrpo_jax.toolbox.remote_tools import RemoteTool, Workspace

_START_SECONDS = 120.0  # until a server answers for the first time, which may be a program that is loaded
_JSON_TYPES = frozenset(("string", "integer", "number", "boolean", "array", "object", "null"))


@dataclass(frozen=True)
class McpServer:
    """A server to connect to: a `command` to start (its standard input and output are the line), or a `url`.

    environment: names of variables of the host that the command gets, beside the few that every one gets.
    prefix: put before the names of its tools, to keep them apart. seconds: of a call.
    """

    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    environment: tuple[str, ...] = ()
    prefix: str = ""
    seconds: float = 30.0


@dataclass(frozen=True)
class McpToolDescription:
    """What a server says of one of its tools; `inputs` as smolagents has them."""

    server: McpServer
    remote_name: str
    name: str
    description: str
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)


class _Connection:
    """A session with a server, in an event loop of its own thread, so that any thread may call."""

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"mcp-{server.name}", daemon=True)
        self._thread.start()
        self._stop = asyncio.Event()
        ready: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._life = asyncio.run_coroutine_threadsafe(self._live(ready), self._loop)
        try:
            self._client = ready.result(_START_SECONDS)
        except BaseException:
            self.close()
            raise

    async def _live(self, ready: concurrent.futures.Future[Any]) -> None:
        try:
            async with _client(self.server) as client:
                ready.set_result(client)
                await self._stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))
            raise

    def run(self, call: Callable[[Any], Coroutine[Any, Any, Any]], seconds: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(call(self._client), self._loop)
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise

    @property
    def alive(self) -> bool:
        return not self._life.done()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        try:
            self._life.result(5.0)
        except BaseException:  # it is being given up; how it ends matters to nobody
            self._life.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)


def _client(server: McpServer) -> Any:
    import os

    from mcp import Client, StdioServerParameters

    patience = max(server.seconds, _START_SECONDS)  # of the first answer; calls have a limit of their own
    if server.url:
        return Client(server.url, read_timeout_seconds=patience)
    environment = {name: os.environ[name] for name in server.environment if name in os.environ}
    parameters = StdioServerParameters(
        command=server.command[0], args=list(server.command[1:]), env=environment or None
    )
    return Client(parameters, read_timeout_seconds=patience)


_connections: dict[McpServer, _Connection] = {}
_lock = threading.Lock()


def _connection(server: McpServer) -> _Connection:
    """The connection to a server, made anew if it broke. Raises whatever connecting raises."""
    with _lock:
        known = _connections.get(server)
        if known is not None and known.alive:
            return known
        if known is not None:
            known.close()
        _connections[server] = _Connection(server)
        return _connections[server]


@atexit.register
def close_connections() -> None:
    """End all servers that were started."""
    with _lock:
        while _connections:
            _connections.popitem()[1].close()


def _input(schema: dict[str, Any], required: bool) -> dict[str, Any]:
    declared = schema.get("type")
    kinds = [declared] if isinstance(declared, str) else list(declared or [])
    known = [kind for kind in kinds if kind in _JSON_TYPES and kind != "null"]
    found: dict[str, Any] = {
        "type": known[0] if len(known) == 1 else known or "any",
        "description": str(schema.get("description") or schema.get("title") or ""),
    }
    if schema.get("enum"):
        found["enum"] = list(schema["enum"])
    if schema.get("default") is not None:
        found["description"] += f" (if left out: {schema['default']!r})"
    return found if required else found | {"nullable": True}


def describe_server(server: McpServer) -> tuple[McpToolDescription, ...]:
    """The server's tools, sorted by name. UserError when it cannot be started or reached."""
    if bool(server.command) == bool(server.url):
        raise UserError(f'MCP server "{server.name}": give either a command or a url')
    try:
        listed = _connection(server).run(lambda client: client.list_tools(), _START_SECONDS)
    except Exception as error:
        what = " ".join(server.command) or server.url
        words = str(error) or type(error).__name__
        raise UserError(f'MCP server "{server.name}" ({what}) cannot be reached: {words}') from error
    return tuple(sorted((_described(server, tool) for tool in listed.tools), key=lambda tool: tool.name))


def _described(server: McpServer, tool: Any) -> McpToolDescription:
    schema = tool.input_schema or {}
    required = set(schema.get("required") or ())
    properties = schema.get("properties") or {}
    ordered = sorted(properties, key=lambda name: name not in required)  # optional arguments come last
    inputs = {name: _input(properties[name], name in required) for name in ordered}
    return McpToolDescription(
        server=server,
        remote_name=tool.name,
        name=re.sub(r"\W", "_", f"{server.prefix}{tool.name}"),
        description=(tool.description or tool.name).strip(),
        inputs=inputs,
    )


class McpTool(RemoteTool):
    """One tool of an MCP server."""

    name = "mcp_tool"
    description = "A tool of an MCP server."

    def __init__(self, description: McpToolDescription) -> None:
        self.name, self.description = description.name, description.description
        self.inputs = dict(description.inputs)
        self._described = description
        super().__init__()

    def answer(self, workspace: Workspace, **arguments: Any) -> Any:
        server, remote_name = self._described.server, self._described.remote_name
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            connection = _connection(server)
            reply = connection.run(lambda client: client.call_tool(remote_name, given), server.seconds)
        except concurrent.futures.TimeoutError as error:
            raise ToolError(f"{self.name} timed out after {server.seconds:g} seconds.") from error
        except Exception as error:
            raise Unavailable(f'{self.name} is unavailable: MCP server "{server.name}": {error}') from error
        texts = [part.text for part in reply.content if getattr(part, "type", "") == "text"]
        text = "\n".join(texts)
        if reply.is_error:
            raise ToolError(f"{self.name}: {text or 'the server reports an error'}")
        if reply.structured_content is not None:
            content = reply.structured_content
            return content["result"] if set(content) == {"result"} else content
        if not texts:
            raise EmptyResult(f"No result returned by {self.name}.")
        return text
