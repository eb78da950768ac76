"""The tools of MCP servers, as tools of ours. They are remote: the server and its client live on the host.

A server is asked once for its tools (`describe_server`); the descriptions are plain data that can cross into a
sandbox, where nothing of the server is started. The connection is made when a tool is first called.
"""

from __future__ import annotations

import base64
import json
import math
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.toolbox.failures import ServerLost, ToolError, ToolFailure
from regrpo_jax.toolbox.host_files import Workspace, free_name, stored
from regrpo_jax.toolbox.json_schemas import argument, resolved
from regrpo_jax.toolbox.mcp_connections import (
    RESTART_SECONDS,
    START_SECONDS,
    Lost,
    McpServer,
    Refused,
    ask,
    close_connections,
    is_connected,
)
from regrpo_jax.toolbox.mcp_names import python_names
from regrpo_jax.toolbox.remote_tools import RemoteTool
from regrpo_jax.toolbox.returned_pictures import MOST_PICTURES

__all__ = ["McpServer", "McpTool", "McpToolDescription", "close_connections", "describe_server"]
_MOST_PAGES = 1000


@dataclass(frozen=True)
class McpToolDescription:
    """What a server says of one of its tools; `inputs` as smolagents has them.

    arguments: the server's names of those arguments that are called otherwise here.
    """

    server: McpServer
    remote_name: str
    name: str
    description: str
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)


def describe_server(server: McpServer) -> tuple[McpToolDescription, ...]:
    """The server's tools, of all pages, sorted by name. UserError when it cannot be started, reached or read."""
    if bool(server.command) == bool(server.url):
        raise UserError(f'MCP server "{server.name}": give either a command or a url')
    try:
        listed = ask(server, _all_tools, START_SECONDS, start_seconds=START_SECONDS)
    except (Lost, Refused, TimeoutError) as error:
        what = " ".join(server.command) or server.url
        words = str(error) or f"it did not list its tools within {START_SECONDS:g} seconds"
        raise UserError(f'MCP server "{server.name}" ({what}) cannot be reached: {words}') from error
    names = python_names(f"{server.prefix}{tool.name}" for tool in listed)
    described = (_described(server, tool, names[f"{server.prefix}{tool.name}"]) for tool in listed)
    return tuple(sorted(described, key=lambda tool: tool.name))


async def _all_tools(client: Any) -> list[Any]:
    """Of every page, each name once. Lost when the pages have no end."""
    found: dict[str, Any] = {}
    cursor, seen = None, set()
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            found.setdefault(tool.name, tool)
        cursor = page.next_cursor
        if cursor is None:
            return list(found.values())
        if cursor in seen:
            break
        seen.add(cursor)
    raise Lost("the pages of its list of tools have no end")


def _described(server: McpServer, tool: Any, name: str) -> McpToolDescription:
    root = tool.input_schema or {}
    schema = resolved(root, root)
    properties = schema.get("properties")
    properties = dict(properties) if isinstance(properties, Mapping) else {}
    required = {key for key in schema.get("required") or () if key in properties}
    ordered = sorted(properties, key=lambda key: key not in required)  # optional arguments come last
    names = python_names(ordered)
    return McpToolDescription(
        server=server,
        remote_name=tool.name,
        name=name,
        description=(tool.description or tool.title or tool.name).strip(),
        inputs={names[key]: argument(properties[key], root, required=key in required) for key in ordered},
        arguments={names[key]: key for key in ordered if names[key] != key},
    )


class McpTool(RemoteTool):
    """One tool of an MCP server."""

    name = "mcp_tool"
    description = "A tool of an MCP server."
    may_return_nothing = True

    def __init__(self, description: McpToolDescription) -> None:
        self.name, self.description = description.name, description.description
        self.inputs = dict(description.inputs)
        self._described = description
        super().__init__()

    def not_ready(self) -> str:
        server = self._described.server
        return "" if is_connected(server) else f'MCP server "{server.name}" does not come up'

    def answer(self, workspace: Workspace, /, **arguments: Any) -> Any:
        server, remote_name = self._described.server, self._described.remote_name
        given = self._given(arguments)
        try:
            reply = ask(
                server,
                lambda client: client.call_tool(remote_name, given),
                server.seconds,
                start_seconds=RESTART_SECONDS,
            )
        except TimeoutError as error:
            raise ToolFailure(Status.TIMEOUT, f"{self.name} timed out after {server.seconds:g} seconds.") from error
        except Refused as error:
            raise ToolError(f"{self.name}: {error}") from error
        except Lost as error:
            raise ServerLost(f'MCP server "{server.name}": {error}') from error
        files = sum(map(_is_file, reply.content))
        if files > MOST_PICTURES:
            raise ToolError(
                f"{self.name}: the server sent {files} files; at most {MOST_PICTURES} are kept of one call."
            )
        said = [words for part in reply.content if (words := self._told(part, workspace))]
        structured = reply.structured_content
        if reply.is_error:
            if structured is not None and not _repeats(said, structured):
                said.append(_json(structured))
            raise ToolError(f"{self.name}: " + ("\n".join(said) or "the server reports an error"))
        if structured is None or files:
            if structured is not None and not any(getattr(part, "type", "") == "text" for part in reply.content):
                said.insert(0, _json(structured))
            return "\n".join(said) or None
        if isinstance(structured, dict) and set(structured) == {"result"}:
            return structured["result"]
        if isinstance(structured, dict) and said and "text" not in structured and not _repeats(said, structured):
            return structured | {"text": "\n".join(said)}
        return structured

    def _given(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by the server's names. None stands for one that is left out, where it is no value itself."""
        given = {}
        for name, value in arguments.items():
            types = self.inputs[name]["type"]
            if value is None and types != "any" and "null" not in types and self.inputs[name].get("nullable"):
                continue
            given[self._described.arguments.get(name, name)] = value
        if _has_odd_number(given):
            raise ToolError(f"{self.name}: an argument holds nan or inf, which a server cannot be told.")
        return given

    def _told(self, part: Any, workspace: Workspace) -> str:
        """A part of an answer in words: its text, or the name of the file that it becomes."""
        kind, resource = getattr(part, "type", ""), getattr(part, "resource", None)
        if kind == "text":
            return str(part.text)
        if kind in ("image", "audio"):
            return self._file(workspace, part.data, part.mime_type)
        if kind == "resource_link":
            about = f" ({part.description})" if part.description else ""
            return f"{part.title or part.name}: {part.uri}{about}"
        if resource is not None and hasattr(resource, "blob"):
            return self._file(workspace, resource.blob, resource.mime_type or "")
        return str(getattr(resource, "text", "")) if resource is not None else _json(part.model_dump(mode="json"))

    def _file(self, workspace: Workspace, data: str, kind: str) -> str:
        """The name of the file that was sent; words in its place when it cannot be read."""
        try:
            content = base64.b64decode(data)
            if kind.startswith("image/") and kind != "image/svg+xml":
                return stored(workspace, self.name, content, "the server")
            ending = mimetypes.guess_extension(kind.partition(";")[0].strip()) or ".bin"
            name = free_name(workspace, self.name, ending)
            workspace.write_file(name, content)
        except OSError as error:
            raise ToolError(f"{self.name}: what the server sent cannot be kept: {error}") from error
        except (ValueError, ToolError) as error:
            return f"[{kind or 'a file'} that cannot be read: {error}]"
        return name


def _is_file(part: Any) -> bool:
    return getattr(part, "type", "") in ("image", "audio") or hasattr(getattr(part, "resource", None), "blob")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _repeats(said: list[str], structured: Any) -> bool:
    """Whether the words say what the structure does, as servers are asked to send it for older clients."""
    try:
        return json.loads("\n".join(said)) == structured
    except ValueError:
        return False


def _has_odd_number(value: Any) -> bool:
    return any(isinstance(number, float) and not math.isfinite(number) for number in _leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
