"""An environment for others to play, as tools of MCP or as an OpenEnv server.

The commands are `aipo serve --mcp` and `aipo serve --openenv`. Each client has its own
episodes, which no other reaches, and its own budget of consultations.
"""

import asyncio
import copy
import os
import secrets
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional

from aipo_env.errors import ConfigError, check_number, check_whole
from aipo_env.event_loop import run_sync
from aipo_env.flags import environment_named
from aipo_env.gym.turn_env import TurnEnv
from aipo_env.records import Split
from aipo_env.rollout.environment import Environment
from aipo_env.serving.guard import (
    LOOPBACK,
    Guard,
    called_name,
    is_loopback,
    new_token,
)

TOKEN_VARIABLE = "AIPO_SERVE_TOKEN"
"""The environment variable with the token that requests must show."""
MAX_EPISODES = 64
"""Episodes of a client that run at once; the one that has rested longest is dropped."""
_MAX_IDLE_S = 1e9
"""The longest silence that can be asked for: thirty years."""
_MAX_SHOWN_CHARS = 64
"""What a message repeats of an id that a client made up."""
_RESULT = ("observation", "reward", "terminated", "truncated", "info")
"""The names of what `step` of an environment returns, in order."""
_Flag = Annotated[bool, FlagCreatePairsOff]


def serve(
    name: Positional[str] = "AIPO-Toy-Turn-v0",
    mcp: _Flag = False,
    openenv: _Flag = False,
    stdio: _Flag = False,
    environment: Environment = Environment(),  # noqa: B008
    aided: bool = True,
    split: Split = "train",
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_host: tuple[str, ...] = (),
    idle_s: float = 600.0,
    max_sessions: int = 64,
    max_consults: int = 1_000,
) -> None:
    """Offer an environment to others' policies, turn by turn, by MCP or OpenEnv.

    Limits of tokens count bytes of UTF-8: raise --environment.rules.max-policy-tokens
    and .max-context-tokens for policies that think at length.

    Args:
        name: What is played: an id, behind "package:" if another package registers it,
            or a task source.
        mcp: As two tools, reset and step, by the Model Context Protocol.
        openenv: As a server of OpenEnv; its clients play one episode at a time each.
        stdio: With --mcp: over standard input and output, for a client that starts this
            command.
        environment: Single fields of it; --source, --agents and --reward for short.
        aided: Whether the policies may consult.
        split: Training or held-out tasks.
        host: The address to listen on. For any that other machines reach, requests must
            show a token: the one in the environment variable AIPO_SERVE_TOKEN, or one
            that is made and told at the start.
        port: The port.
        allow_host: Names by which the server may be called, as behind a proxy, and
            whose web pages may call it; on this machine its own are among them.
        idle_s: Seconds after which a client from which nothing comes is sent away.
        max_sessions: Clients at once.
        max_consults: Consultations of agents that a client may have, over all its
            episodes; a turn that begins within them is answered whole.
    """
    check_whole("serve: max_sessions", max_sessions, 1)
    check_whole("serve: max_consults", max_consults)
    check_number("serve: idle_s", idle_s, 0.001, _MAX_IDLE_S)
    for allowed_host in allow_host:
        is_name = "/" not in allowed_host
        if not is_name or called_name(allowed_host) != allowed_host.lower():
            raise ConfigError(
                f"serve: allow_host={allowed_host!r} must be a name alone, without a"
                " scheme, a port or a path, as in --allow-host proxy.example."
            )
    if mcp == openenv:
        raise ConfigError("serve: choose --mcp or --openenv.")
    env = TurnEnv(
        environment=environment_named(name, environment),
        split=split,
        aided=aided,
        observation="delta",
    )
    if stdio:
        mcp_server(env, max_consults).run("stdio")
        return
    if openenv:
        app = openenv_app(env, max_consults, max_sessions)
        address = f"OpenEnv server: http://{host}:{port}"
    else:
        from mcp.server.transport_security import TransportSecuritySettings

        app = mcp_server(env, max_consults, idle_s).streamable_http_app(
            host=host,
            session_idle_timeout=idle_s,
            max_sessions=max_sessions,
            # The guard around it checks names and pages.
            transport_security=TransportSecuritySettings(
                enable_dns_rebinding_protection=False
            ),
        )
        address = f"MCP server: http://{host}:{port}/mcp"
    import uvicorn  # which comes with either

    token = _token(host)
    print(f"{address}{_token_note(token)}", file=sys.stderr)
    names: tuple[str, ...] = allow_host
    if is_loopback(host):
        names = (*LOOPBACK, host, *allow_host)
    guard = Guard(app, names, token, idle_s, max_sessions)
    uvicorn.run(guard, host=host, port=port, log_level="warning")


def _users_token() -> str:
    return os.environ.get(TOKEN_VARIABLE, "").strip()


def _token(host: str) -> str:
    """Return the token that requests must show; empty if they need none."""
    token = _users_token()
    # On an address of this machine alone, the check of names is enough.
    if not token and not is_loopback(host):
        token = new_token()
    return token


def _token_note(token: str) -> str:
    """Return how requests show the token; empty if they need none."""
    if not token:
        return ""
    # A token of the user's is no secret of ours to print: terminals are logged.
    shown = f"${TOKEN_VARIABLE}" if token == _users_token() else token
    return f", with Authorization: Bearer {shown}"


@dataclass
class Allowance:
    """How many consultations a client may still have.

    Args:
        num_left: So many; below 0 where the last turn had more than were left.
        lock: Held while one of the client's turns is answered: of turns side by side,
            each would begin within the budget.
    """

    num_left: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def check(self) -> None:
        """Raise ConfigError when none is left."""
        if self.num_left <= 0:
            raise ConfigError(
                "this client's budget of consultations is spent (--max-consults)."
            )

    async def charged_turn(self, env: TurnEnv, text: str) -> dict[str, Any]:
        """Take a turn, and book what it consulted, however it ends.

        Raises:
            ConfigError: No consultation is left.
        """
        async with self.lock:
            self.check()
            before = env.num_consults
            try:
                return await step_by_name(env, text)
            finally:
                self.num_left -= env.num_consults - before


@dataclass(eq=False)
class _Client:
    """One client of the MCP server.

    Args:
        allowance: Its budget.
        resting: Its episodes that wait for a turn, by id; the one that has waited
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


def mcp_server(env: TurnEnv, max_consults: int = 1_000, idle_s: float = 600.0) -> Any:
    """Return an MCP server whose tools play copies of an environment."""
    from mcp.server import MCPServer
    from mcp.server.mcpserver.context import Context
    from mcp.server.mcpserver.exceptions import ToolError

    clients: dict[str, _Client] = {}

    async def find_client(ctx: Context) -> _Client:
        """Return the client of a request, and forget those that are silent."""
        now = time.monotonic()
        # Twice as long as the server keeps a session without a request.
        silent = [
            name for name, client in clients.items() if now - client.last > 2 * idle_s
        ]
        for name in silent:
            await clients.pop(name).leave()
        client = clients.setdefault(_client_id(ctx), _Client(Allowance(max_consults)))
        client.last = now
        return client

    # The docstrings of the two below are what clients are told of the tools.

    async def reset(
        ctx: Context, seed: int | None = None, index: int | None = None
    ) -> dict[str, Any]:
        """Start an episode, of a seed or of a task's index: its id, and the problem."""
        client = await find_client(ctx)
        own_env = copy.copy(env)
        name = secrets.token_hex(16)  # which no other client guesses
        options = {} if index is None else {"index": index}
        try:
            client.allowance.check()
            observation, info = own_env.reset(seed=seed, options=options)
        except ConfigError as error:
            raise ToolError(str(error)) from None
        client.resting[name] = own_env
        await client.leave(MAX_EPISODES)
        return {"episode": name, "observation": observation, "info": info}

    async def step(ctx: Context, episode: str, text: str) -> dict[str, Any]:
        """Take a turn in an episode; one without a call is the final answer.

        The reward comes with the last turn.
        """
        client = await find_client(ctx)
        # An episode whose turn is being answered takes no other.
        own_env = client.resting.pop(episode, None)
        if own_env is None:
            raise ToolError(
                f"there is no episode {episode[:_MAX_SHOWN_CHARS]!r} that waits for a"
                " turn; call reset"
            )
        try:
            result = await client.allowance.charged_turn(own_env, text)
        except ConfigError as error:
            await own_env.leave()
            raise ToolError(str(error)) from None
        except BaseException:
            # The client may have gone; its episode goes too.
            await own_env.leave()
            raise
        if not result["terminated"] and not result["truncated"]:
            client.resting[episode] = own_env
        return result

    server = MCPServer(
        "aipo", instructions="Call reset, then step until terminated or truncated."
    )
    server.tool()(reset)
    server.tool()(step)
    return server


def _client_id(ctx: Any) -> str:
    """Return what names the client of a request: the id of its session."""
    request = getattr(ctx.request_context, "request", None)
    if request is None:
        return ""  # it talks over standard input, so it is the only one
    session_id: str = request.headers.get("mcp-session-id", "")
    return session_id


def openenv_app(env: TurnEnv, max_consults: int = 1_000, max_sessions: int = 64) -> Any:
    """Return an OpenEnv server whose every session plays a copy of an environment."""
    from openenv.core.env_server.http_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class Turn(Action):  # type: ignore[misc]
        text: str

    class Seen(Observation):  # type: ignore[misc]
        text: str
        terminated: bool = False
        truncated: bool = False
        info: dict[str, Any] = {}  # noqa: RUF012

    class Served(Environment):  # type: ignore[misc]
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self._env = copy.copy(env)
            self._state = State()
            self._allowance = Allowance(max_consults)

        def reset(
            self, seed: int | None = None, episode_id: str | None = None, **options: Any
        ) -> Seen:
            self._allowance.check()
            text, info = self._env.reset(seed=seed, options=options)
            name = episode_id or secrets.token_hex(8)
            self._state = State(episode_id=name, step_count=0)
            return Seen(text=text, info=info)

        def step(
            self, action: Turn, timeout_s: float | None = None, **options: Any
        ) -> Seen:
            return run_sync(self.step_async(action))

        async def step_async(
            self, action: Turn, timeout_s: float | None = None, **options: Any
        ) -> Seen:
            result = await self._allowance.charged_turn(self._env, action.text)
            self._state.step_count += 1
            is_over = result["terminated"] or result["truncated"]
            text = result.pop("observation")
            return Seen(text=text, done=is_over, **result)

        def close(self) -> None:
            run_sync(self._env.leave())

        @property
        def state(self) -> State:
            return self._state

    # One more than the guard lets in: at its limit it is for the guard to say so.
    return create_fastapi_app(Served, Turn, Seen, max_concurrent_envs=max_sessions + 1)


async def step_by_name(env: TurnEnv, text: str) -> dict[str, Any]:
    """Take one turn, and return what `step` of the environment returns, by name."""
    # `step` itself waits, and so would hold up the event loop that this runs in.
    work = env._act(text)
    if work is not None:
        await work
    result: dict[str, Any] = dict(zip(_RESULT, env._result(), strict=True))
    # It has the gold answer, and whoever plays may not see that.
    result["info"].pop("episode_record", None)
    return result
