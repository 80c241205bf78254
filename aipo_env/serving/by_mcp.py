"""An environment for others as two tools of MCP, `reset` and `step`."""

import copy
import inspect
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
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
    leave_all,
    start_told,
)
from aipo_env.tools.mcp_tools import need_mcp

MAX_EPISODES = 64
"""Episodes of a session that run at once; the one that has rested longest is dropped.
"""
NO_SESSION = ""
"""Stands for all clients without a session: one client together."""
_FIRST_WITHOUT_SESSIONS = "2026-07-28"
"""The version of MCP from which on clients have none; versions are dates."""
_NAME_BYTES = 16
"""Of an episode's name: nobody guesses it."""
_MAX_ID_CHARS = 64
"""What is shown of an id that a client sends."""


@dataclass(eq=False)
class Client:
    """A session, or all clients together that have none.

    Args:
        allowance: Its budget.
        max_episodes: Episodes that may wait for a turn; one more takes the place of
            the one that has waited longest.
        resting: Its episodes that wait for a turn, by name, each with the time, on the
            monotonic clock, since when; the one that has waited longest comes first.
        last: When it asked for something last, likewise.
        num_running: What it asked for and was not answered yet.
    """

    allowance: Allowance
    max_episodes: int = MAX_EPISODES
    resting: OrderedDict[str, tuple[float, TurnEnv]] = field(
        default_factory=OrderedDict
    )
    last: float = field(default_factory=time.monotonic)
    num_running: int = 0

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Answer something: meanwhile the client is not silent."""
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1
            self.last = time.monotonic()

    def dropped(self, before: float) -> list[TurnEnv]:
        """Drop the episodes that wait since before a time, and return them."""
        names = [name for name, (since, _) in self.resting.items() if since < before]
        return [self.resting.pop(name)[1] for name in names]

    def crowded_out(self) -> list[TurnEnv]:
        """Drop the episodes that have waited longest and are too many."""
        num_too_many = max(0, len(self.resting) - self.max_episodes)
        return [self.resting.popitem(last=False)[1][1] for _ in range(num_too_many)]


class Clients:
    """The clients of a server, each with its episodes and its budget.

    A client is known by the session that the server gave it. Whatever else it shows it
    may have made up: all that have no session share one budget, and none of them takes
    a session's place.

    Args:
        max_consults: The budget of each.
        idle_s: Whoever was silent for twice as long is forgotten, and so is an episode
            that waited for as long.
        max_clients: Sessions; one more takes the place of the one that was silent for
            longest. Those without may have as many episodes as these in all.
    """

    def __init__(self, max_consults: int, idle_s: float, max_clients: int) -> None:
        self._max_consults = max_consults
        # The server of sessions ends one after `idle_s` without a request; it counts
        # from another moment.
        self._forget_s = 2 * idle_s
        self._max_clients = max_clients
        self._clients: dict[str, Client] = {}

    async def of(self, session_id: str) -> Client:
        """Return the client of a session; forget those that are silent or too many."""
        now = time.monotonic()
        left = self._forgotten(now - self._forget_s)
        if session_id not in self._clients:
            left += self._crowded_out(session_id)
            max_episodes = MAX_EPISODES
            if session_id == NO_SESSION:
                max_episodes *= self._max_clients
            allowance = Allowance(self._max_consults)
            self._clients[session_id] = Client(allowance, max_episodes)
        client = self._clients[session_id]
        client.last = now
        # Only now is anything awaited: nobody finds half of it done.
        await leave_all(left)
        return client

    def take(self, episode: str) -> tuple[Client, TurnEnv] | None:
        """Take an episode that waits for a turn from the client that opened it.

        Its name is a secret of theirs, and enough: who has no session may come back
        over another connection.
        """
        for client in self._clients.values():
            # While its turn is answered it takes no other.
            if episode in client.resting:
                _, env = client.resting.pop(episode)
                return client, env
        return None

    async def put_back(self, client: Client, episode: str, env: TurnEnv) -> None:
        """Have an episode wait for its next turn, unless its client was forgotten."""
        if client not in self._clients.values():
            await leave_all([env])
            return
        client.resting[episode] = time.monotonic(), env
        await leave_all(client.crowded_out())

    def _forgotten(self, before: float) -> list[TurnEnv]:
        """Forget what is silent since before a time; return the episodes to leave."""
        left: list[TurnEnv] = []
        for session_id, client in list(self._clients.items()):
            left += client.dropped(before)
            if client.last < before and not client.num_running:
                left += self._forget(session_id)
        return left

    def _crowded_out(self, session_id: str) -> list[TurnEnv]:
        """Make room for a session; return the episodes to leave."""
        if session_id == NO_SESSION:
            return []

        def spoke(one: str) -> tuple[bool, float]:
            # Those that have gone without a word come first.
            return self._clients[one].num_running > 0, self._clients[one].last

        sessions = [one for one in self._clients if one != NO_SESSION]
        sessions.sort(key=spoke)
        num_too_many = max(0, len(sessions) + 1 - self._max_clients)
        return [env for one in sessions[:num_too_many] for env in self._forget(one)]

    def _forget(self, session_id: str) -> list[TurnEnv]:
        client = self._clients.pop(session_id)
        return [env for _, env in client.resting.values()]


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
        client = await clients.of(_session_id(ctx))
        env = copy.copy(offer.env)
        # What is left out chooses nothing, as does null.
        options = {"index": index, "split": split, "aided": aided}
        with client.answered():
            try:
                client.allowance.check(env, aided)
                told = await start_told(env, seed, options)
            except (ConfigError, ServerFault) as error:
                raise ToolError(str(error)) from None
            episode = secrets.token_hex(_NAME_BYTES)
            await clients.put_back(client, episode, env)
        return {"episode": episode, **told}

    async def step(episode: str, text: str) -> dict[str, Any]:
        """Take a turn in an episode; one without a call is the final answer.

        The verdict's reward comes with the last turn; it is null where the server
        failed.
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
        with client.answered():
            try:
                told = await client.allowance.charged_turn(env, text)
            except (ConfigError, ServerFault, GymnasiumError) as error:
                await leave_all([env])
                raise ToolError(str(error)) from None
            except BaseException:
                # The client may have gone; its episode goes too.
                await leave_all([env])
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


def _session_id(ctx: Any) -> str:
    """Return the session of a request, which the server gave to its client."""
    context = ctx.request_context
    if context.protocol_version >= _FIRST_WITHOUT_SESSIONS:
        return NO_SESSION  # nobody has checked what its headers say
    if context.request is None:
        return NO_SESSION  # it talks over standard input, so it is the only one
    # A session that there is not has been refused already.
    return str(context.request.headers.get("mcp-session-id", NO_SESSION))
