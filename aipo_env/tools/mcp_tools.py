"""Tools of an MCP server: "mcp:http://localhost:8000/mcp", or a command that is
started, "mcp:python server.py".
"""

import asyncio
import atexit
import re
import shlex
from collections.abc import Mapping
from concurrent.futures import Future
from threading import Thread
from typing import Any

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.codecs.base import ToolSchema
from aipo_env.errors import ConfigError
from aipo_env.tasks.rows import need
from aipo_env.tools.arguments import check_name, read_arguments
from aipo_env.tools.hints import foreign_schema

START_S = 30.0
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


class McpServer:
    """A connection to a server. It lives in a thread of its own, so that it outlives
    event loops.

    A connection that is lost is made again by the next call; a command is started
    again.

    Raises:
        ConfigError: There is no server, it tells no tools in time, or `mcp` is not
            installed.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        need("mcp", '"aipo-rl[mcp]"')
        self._opened = self._open()
        try:
            client, loop, _ = self._opened.result(START_S)
            listed = asyncio.run_coroutine_threadsafe(client.list_tools(), loop).result(
                START_S
            )
        except (
            Exception
        ) as error:  # whatever a library or a server of somebody else's raises
            first: BaseException = error
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            fault = f"{type(first).__name__}: {first}"[:300]
            raise ConfigError(
                f"tools: the MCP server {place!r} cannot be used: {fault}. Start it, or"
                " mend the address."
            ) from None
        atexit.register(self.close)
        self.tools = [McpTool(self, tool) for tool in listed.tools]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool; an error of the tool is text.

        Raises:
            Exception: The server cannot be reached.
        """
        opened = self._opened
        try:
            client, loop, _ = await asyncio.wrap_future(opened)
            called = asyncio.run_coroutine_threadsafe(
                client.call_tool(name, dict(arguments)), loop
            )
            result = await asyncio.wrap_future(called)
        except Exception as error:
            told = str(error)
            # The server's word on this call, or the client's on its result.
            is_of_call = hasattr(error, "code") or told.startswith(
                ("Tool ", "Invalid s")
            )
            if is_of_call and told not in _LOST:
                return f"error: {told}"
            if self._opened is opened:
                self.close(0.0)
                self._opened = self._open()
            raise
        text = "\n".join(
            getattr(block, "text", f"[{block.type}]") for block in result.content
        )
        return f"error: {text}" if result.is_error else text

    def close(self, wait_s: float = 5.0) -> None:
        """End the connection, and the command; wait so long until it has ended."""
        if self._opened.done() and not self._opened.exception():
            _, loop, ended = self._opened.result()
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.set)
                self._thread.join(wait_s)

    def _open(self) -> "Future[Any]":
        opened: Future[Any] = Future()
        # a caller that is cancelled must not cancel it
        opened.set_running_or_notify_cancel()
        hold = _hold(self.place, opened)
        self._thread = Thread(
            target=asyncio.run, args=[hold], name="aipo-mcp", daemon=True
        )
        self._thread.start()
        return opened


async def _hold(place: str, opened: "Future[Any]") -> None:
    """Hold a connection open until its event is set: it has to be closed by the task
    that opened it.
    """
    try:
        from mcp import Client, StdioServerParameters

        is_address = place.startswith(("http://", "https://"))
        command, *arguments = [place] if is_address else shlex.split(place)
        server = (
            place
            if is_address
            else StdioServerParameters(command=command, args=arguments)
        )
        async with asyncio.timeout(START_S) as opening, Client(server) as client:
            opening.reschedule(None)
            ended = asyncio.Event()
            opened.set_result((client, asyncio.get_running_loop(), ended))
            await ended.wait()
    except BaseException as error:
        if not opened.done():
            opened.set_exception(error)


class McpTool:
    """One tool of a server, behind the protocol of agents.

    Raises:
        ConfigError: Its name is no plain one, or an agent's role.
    """

    is_stateful = False

    def __init__(self, server: McpServer, tool: Any) -> None:
        self.agent_id, self._server, self._name = (
            re.sub(r"\W", "_", tool.name),
            server,
            tool.name,
        )
        check_name(self.agent_id)
        properties = tool.input_schema.get("properties") or {}
        parameters = {key: foreign_schema(part) for key, part in properties.items()}
        wanted = tool.input_schema.get("required") or ()
        required = tuple(name for name in parameters if name in wanted)
        lines = (tool.description or "").strip().splitlines() or [tool.name]
        self.schema = ToolSchema(self.agent_id, lines[0], parameters, required)

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Call the tool with the arguments that the query holds."""
        try:
            arguments = read_arguments(request.query, self.schema)
        except ValueError as error:
            return AgentReply(text=f"error: {error}")
        return AgentReply(
            text=await self._server.call(self._name, arguments) or "(nothing)"
        )
