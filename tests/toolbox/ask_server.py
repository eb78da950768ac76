"""A small MCP server for the tests, spoken to over its standard input and output."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer("tests", log_level="CRITICAL")


@server.tool()
def add(first: int, second: int = 1) -> int:
    """The sum of two numbers."""
    return first + second


@server.tool(name="weather-of")
def weather(city: str) -> dict[str, str]:
    """The weather of a city."""
    return {"city": city, "sky": "clear"}


@server.tool()
def refuse(reason: str) -> str:
    """Never works."""
    raise ValueError(reason)


@server.tool()
def sleep(seconds: float) -> str:
    """Takes its time."""
    import time

    time.sleep(seconds)
    return "awake"


if __name__ == "__main__":
    server.run()
