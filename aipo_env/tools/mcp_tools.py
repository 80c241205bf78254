"""Tools of an MCP server, at an address or as a command that is started.

Their specs are "mcp:http://localhost:8000/mcp" and "mcp:python server.py".
"""

import asyncio
import atexit
import re
import shlex
from collections.abc import Mapping
from concurrent.futures import Future
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from typing import Any

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.codecs.base import ToolSchema
from aipo_env.errors import ConfigError
from aipo_env.tools.arguments import check_name, read_arguments
from aipo_env.tools.hints import foreign_schema

SERVER_START_S = 30.0
"""A server that does not tell its tools by then is none."""
_LOST = (
    "Connection closed",
    "Session terminated",
    "Session not found",
    "Server returned an error response",
)
"""How the client says that the connection is gone; the codes of these errors are
servers' own, too.
"""
_OF_CALL = ("Tool ", "Invalid s")
"""How the client's own errors about a result begin."""
_MAX_FAULT_CHARS = 300
"""What a message repeats of somebody else's error."""
_OLDEST_MCP = (2, 3)
"""The version that this was tested with; 2.0 starts no server by its command."""
_NEXT_MCP = (3, 0)
"""The first version that this was not written for."""
MCP_EXTRAS = (
    "The extras mcp, openenv and verifiers exclude each other: the first needs mcp 2.3"
    " or later, openenv one below 2, and verifiers 2.0.0 alone."
)
"""What to know where one of them is to be installed."""


def mcp_fault() -> str:
    """Return what is wrong with the `mcp` that is installed; empty: nothing."""
    install = 'pip install "aipo-rl[mcp]"'
    try:
        found = version("mcp")
    except PackageNotFoundError:
        return f"needs mcp, which is not installed: {install}."
    numbers = tuple(int(number) for number in re.findall(r"\d+", found)[:2])
    if _OLDEST_MCP <= numbers < _NEXT_MCP:
        return ""
    return (
        f"needs mcp 2.3 or a later 2.x, and {found} is installed: {install}, in an"
        f" environment without the extras openenv and verifiers. {MCP_EXTRAS}"
    )


def need_mcp(what: str) -> None:
    """Raise ConfigError unless `mcp` is installed in a version that can be used.

    Args:
        what: What needs it.
    """
    fault = mcp_fault()
    if fault:
        raise ConfigError(f"{what} {fault}")


class McpServer:
    """A connection to a server.

    It lives in a thread of its own, so that it outlives event loops. A connection that
    is lost is made again by the next call; a command is started again.

    Args:
        place: The server's address, or the command that starts it.

    Raises:
        ConfigError: There is no server, it tells no tools in time, or `mcp` is not
            installed.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        need_mcp(f"tools: 'mcp:{place}'")
        self._opened = self._open()
        try:
            client, loop, _ = self._opened.result(SERVER_START_S)
            listing = asyncio.run_coroutine_threadsafe(client.list_tools(), loop)
            tools = listing.result(SERVER_START_S).tools
        except Exception as error:
            # Whatever a library or a server of somebody else's raises. The client's
            # groups of tasks wrap it, in one or more layers.
            first: BaseException = error
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            fault = f"{type(first).__name__}: {first}"[:_MAX_FAULT_CHARS]
            raise ConfigError(
                f"tools: the MCP server {place!r} cannot be used: {fault}. Start it, or"
                " correct the address."
            ) from None
        atexit.register(self.close)
        self.tools = [McpTool(self, tool) for tool in tools]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool; an error of the tool is text.

        Raises:
            Exception: The server cannot be reached.
        """
        opened = self._opened
        try:
            client, loop, _ = await asyncio.wrap_future(opened)
            # In the connection's own loop, in its thread; awaited in this one.
            call = client.call_tool(name, dict(arguments))
            future = asyncio.run_coroutine_threadsafe(call, loop)
            result = await asyncio.wrap_future(future)
        except Exception as error:
            message = str(error)
            # The server's word on this call, or the client's on its result.
            is_of_call = hasattr(error, "code") or message.startswith(_OF_CALL)
            if is_of_call and message not in _LOST:
                return f"error: {message}"
            # Calls run side by side: only the first of those that fail opens anew.
            if self._opened is opened:
                self.close(0.0)
                self._opened = self._open()
            raise
        parts = []
        for block in result.content:
            # A picture or a sound has no text: its kind stands in its place.
            parts.append(getattr(block, "text", f"[{block.type}]"))
        text = "\n".join(parts)
        return f"error: {text}" if result.is_error else text

    def close(self, wait_s: float = 5.0) -> None:
        """End the connection, and the command; wait so long until it has ended."""
        if self._opened.done() and not self._opened.exception():
            _, loop, ended = self._opened.result()
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.set)
                self._thread.join(wait_s)

    def _open(self) -> "Future[Any]":
        """Return a future of the client, its event loop, and the event that ends it."""
        opened: Future[Any] = Future()
        # A future that runs cannot be cancelled: other callers wait for it too.
        opened.set_running_or_notify_cancel()
        connection = _connect(self.place, opened)
        self._thread = Thread(
            target=asyncio.run, args=[connection], name="aipo-mcp", daemon=True
        )
        self._thread.start()
        return opened


async def _connect(place: str, opened: "Future[Any]") -> None:
    """Open a connection, say so by the future, and close it when its event is set.

    One task does all this: the library wants a connection closed by the task that
    opened it.
    """
    try:
        server = _server(place)
        from mcp import Client

        async with asyncio.timeout(SERVER_START_S) as opening, Client(server) as client:
            opening.reschedule(None)  # the timeout was for opening alone
            ended = asyncio.Event()
            opened.set_result((client, asyncio.get_running_loop(), ended))
            await ended.wait()
    except BaseException as error:
        # All of them, a cancelled task's too: somebody waits for the future.
        if not opened.done():
            opened.set_exception(error)


def _server(place: str) -> Any:
    """Return what the client is made with: an address, or a command's parameters."""
    from mcp import StdioServerParameters

    if place.startswith(("http://", "https://")):
        return place
    command, *arguments = shlex.split(place)
    return StdioServerParameters(command=command, args=arguments)


class McpTool:
    """One tool of a server, behind the protocol of agents.

    Args:
        server: The connection to call it by.
        tool: As the client lists it.

    Raises:
        ConfigError: Its name is no plain one, or an agent's role.
    """

    is_stateful = False

    def __init__(self, server: McpServer, tool: Any) -> None:
        # A name like "files/read" is common among servers, and no name in a codec.
        self.agent_id = re.sub(r"\W", "_", tool.name)
        self._server = server
        self._name = tool.name
        check_name(self.agent_id)
        properties = tool.input_schema.get("properties") or {}
        parameters = {}
        for name, property_schema in properties.items():
            parameters[name] = foreign_schema(property_schema)
        names_required = tool.input_schema.get("required") or ()
        required = tuple(name for name in parameters if name in names_required)
        lines = (tool.description or "").strip().splitlines() or [tool.name]
        self.schema = ToolSchema(self.agent_id, lines[0], parameters, required)

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Call the tool with the arguments that the query holds."""
        try:
            arguments = read_arguments(request.query, self.schema)
        except ValueError as error:
            return AgentReply(text=f"error: {error}")
        text = await self._server.call(self._name, arguments)
        return AgentReply(text=text or "(nothing)")
