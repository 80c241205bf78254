"""An MCP server for tests: over standard input and output, or over HTTP on the port
that is given.
"""

import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tests", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers.

    Only the first line is told.
    """
    return a + b


@server.tool(name="to-upper")
def shout(text: str) -> str:
    """Upper case."""
    return text.upper()


@server.tool()
def fail(text: str) -> str:
    """Always fails."""
    raise ToolError(f"no {text}")


@server.tool()
def die(text: str) -> str:
    """Ends the server."""
    os._exit(1)


if len(sys.argv) > 1:
    server.run("streamable-http", port=int(sys.argv[1]))
else:
    server.run("stdio")
