"""A tool of the shop that lives on a server: an MCP server on standard input and output."""

from mcp.server.mcpserver import MCPServer

RATES = {"EUR": 1.0, "USD": 1.25, "SEK": 11.0}
server = MCPServer("shop", log_level="CRITICAL")


@server.tool()
def convert(amount: float, currency: str) -> float:
    """An amount of euros in another currency: EUR, USD or SEK."""
    if currency not in RATES:
        raise ValueError(f'no rate for "{currency}". Currencies: {", ".join(RATES)}')
    return round(amount * RATES[currency], 2)


if __name__ == "__main__":
    server.run()
