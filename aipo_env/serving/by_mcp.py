"""An environment for others as two tools of MCP, `reset` and `step`."""

import copy
import inspect
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

from gymnasium.error import Error as GymnasiumError

from aipo_env.errors import ConfigError
from aipo_env.gym.turn_env import TurnEnv
from aipo_env.serving.episodes import (
    Allowance,
    Offer,
    ServerFault,
    check_length,
    start_told,
)
from aipo_env.tools.mcp_tools import need_mcp

MAX_EPISODES = 64
"""Episodes of a client that run at once; the one that has rested longest is dropped."""
_NAME_BYTES = 16
"""Of an episode's name: nobody guesses it."""
_MAX_ID_CHARS = 64
"""What is kept, and shown, of an id that a client sends."""


@dataclass(eq=False)
class Client:
    """One client of the server.

    Args:
        allowance: Its budget.
        resting: Its episodes that wait for a turn, by name; the one that has waited
            longest comes first.
        last: When it asked for something last, on the monotonic clock.
    """

    allowance: Allowance
    resting: OrderedDict[str, TurnEnv] = field(default_factory=OrderedDict)
    last: float = field(default_factory=time.monotonic)

    async def leave(self, most: int = 0) -> None:
        """Drop the episodes that have waited longest, all but so many."""
        while len(self.resting) > most:
            _, env = self.resting.popitem(last=False)
            await env.leave()


class Clients:
    """The clients of a server, each with its episodes and its budget.

    Args:
        max_consults: The budget of each.
        idle_s: Whoever was silent for twice as long is forgotten.
        max_clients: One more takes the place of the one that was silent for longest.
    """

    def __init__(self, max_consults: int, idle_s: float, max_clients: int) -> None:
        self._max_consults = max_consults
        # The server of sessions ends one after `idle_s` without a request; it counts
        # from another moment.
        self._forget_s = 2 * idle_s
        self._max_clients = max_clients
        self._clients: dict[str, Client] = {}

    async def of(self, client_id: str) -> Client:
        """Return the client of an id; forget those that are silent or too many."""
        now = time.monotonic()
        for other_id, other in list(self._clients.items()):
            if now - other.last > self._forget_s:
                await self._forget(other_id)
        while (
            client_id not in self._clients and len(self._clients) >= self._max_clients
        ):
            # Those that have gone without a word among them.
            await self._forget(
                min(self._clients, key=lambda one: self._clients[one].last)
            )
        client = self._clients.setdefault(
            client_id, Client(Allowance(self._max_consults))
        )
        client.last = now
        return client

    def take(self, episode: str) -> tuple[Client, TurnEnv] | None:
        """Take an episode that waits for a turn from the client that opened it.

        Its name is a secret of theirs, and enough: who has no session may come back
        over another connection.
        """
        for client in self._clients.values():
            # While its turn is answered it takes no other.
            env = client.resting.pop(episode, None)
            if env is not None:
                client.last = time.monotonic()
                return client, env
        return None

    async def put_back(self, client: Client, episode: str, env: TurnEnv) -> None:
        """Have an episode wait for its next turn, unless its client was forgotten."""
        if client not in self._clients.values():
            await env.leave()
            return
        client.last = time.monotonic()
        client.resting[episode] = env
        await client.leave(MAX_EPISODES)

    async def _forget(self, client_id: str) -> None:
        # Not awaited in between: nobody finds half of it.
        await self._clients.pop(client_id).leave()


def mcp_server(
    offer: Offer, *, version: str = "", idle_s: float = 600.0, max_clients: int = 64
) -> Any:
    """Return an MCP server whose tools play copies of an environment.

    Args:
        offer: What is served.
        version: Told to clients.
        idle_s, max_clients: As in `Clients`.

    Raises:
        ConfigError: `mcp` is not installed, or in a version that cannot be used.
    """
    need_mcp("aipo serve --mcp")
    from mcp.server import MCPServer
    from mcp.server.mcpserver.context import Context
    from mcp.server.mcpserver.exceptions import ToolError

    clients = Clients(offer.max_consults, idle_s, max_clients)

    # The docstrings of the two below are what clients are told of the tools.

    async def reset(
        ctx: Context,
        seed: int | None = None,
        index: int | None = None,
        split: Literal["train", "test"] | None = None,
        aided: bool | None = None,
    ) -> dict[str, Any]:
        """Start an episode: its name, and the problem.

        A seed begins a series of episodes; without one the task is drawn. `index`
        chooses a task of the split, and `aided` whether agents may be consulted. The
        policy writes the next turn, which ends behind any of the strings in `stop`.
        `spans` say who wrote what `messages` hold.
        """
        client = await clients.of(_client_id(ctx))
        env = copy.copy(offer.env)
        # What is left out chooses nothing, as does null.
        options = {"index": index, "split": split, "aided": aided}
        try:
            client.allowance.check()
            told = await start_told(env, seed, options)
        except (ConfigError, ServerFault) as error:
            raise ToolError(str(error)) from None
        episode = secrets.token_hex(_NAME_BYTES)
        await clients.put_back(client, episode, env)
        return {"episode": episode, **told}

    async def step(episode: str, text: str) -> dict[str, Any]:
        """Take a turn in an episode; one without a call is the final answer.

        The verdict's reward comes with the last turn.
        """
        try:
            check_length(text)
        except ConfigError as error:
            raise ToolError(str(error)) from None
        taken = clients.take(episode)
        if taken is None:
            raise ToolError(
                f"there is no episode {episode[:_MAX_ID_CHARS]!r} that waits for a"
                " turn; call reset"
            )
        client, env = taken
        try:
            told = await client.allowance.charged_turn(env, text)
        except (ConfigError, ServerFault, GymnasiumError) as error:
            await env.leave()
            raise ToolError(str(error)) from None
        except BaseException:
            # The client may have gone; its episode goes too.
            await env.leave()
            raise
        if not told["terminated"] and not told["truncated"]:
            await clients.put_back(client, episode, env)
        return told

    return MCPServer(
        offer.name,
        description=offer.description,
        version=version,
        instructions="Call reset, then step until terminated or truncated.",
        tools=[_strict_tool(reset), _strict_tool(step)],
        log_level="WARNING",  # below that, it logs what clients send
    )


def _strict_tool(function: Any) -> Any:
    """Return a tool that refuses what it does not know, by name, and other types."""
    from mcp.server.mcpserver.tools import Tool
    from pydantic import ConfigDict

    tool = Tool.from_function(function, description=inspect.getdoc(function))

    class Arguments(tool.fn_metadata.arg_model):  # type: ignore[misc, name-defined]
        model_config = ConfigDict(extra="forbid", strict=True)

    tool.fn_metadata.arg_model = Arguments
    tool.parameters = Arguments.model_json_schema()
    return tool


def _client_id(ctx: Any) -> str:
    """Return what names the client of a request: its session, or its connection."""
    request = getattr(ctx.request_context, "request", None)
    if request is None:
        return ""  # it talks over standard input, so it is the only one
    session_id = request.headers.get("mcp-session-id", "")
    if session_id:
        return str(session_id[:_MAX_ID_CHARS])
    # From version 2026-07-28 of the protocol on there are no sessions.
    return f"{request.client.host}:{request.client.port}" if request.client else ""
