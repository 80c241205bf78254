"""An environment for others to play: `aipo serve --mcp`, as tools, and `aipo serve --openenv`, as an OpenEnv server."""

import copy
import secrets
import sys
from collections import OrderedDict
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional

from aipo_env.environment import Environment
from aipo_env.envs.turn_env import TurnEnv
from aipo_env.errors import ConfigError
from aipo_env.event_loop import run_sync
from aipo_env.flags import named
from aipo_env.records import Split

MAX_EPISODES = 1_000
"""Episodes that run at once; the one that has rested longest is dropped."""
_RESULT = ("observation", "reward", "terminated", "truncated", "info")
_Flag = Annotated[bool, FlagCreatePairsOff]


def serve(
    name: Positional[str] = "AIPO-Math-Turn-v0",
    mcp: _Flag = False,
    openenv: _Flag = False,
    stdio: _Flag = False,
    environment: Environment = Environment(),  # noqa: B008
    aided: bool = True,
    split: Split = "train",
    host: str = "127.0.0.1",
    port: int = 8000,
) -> None:
    """Offer an environment to others' policies, turn by turn, by MCP or OpenEnv.

    Limits of tokens count bytes of UTF-8: raise --environment.rules.max-policy-tokens and
    .max-context-tokens for policies that think at length.

    Args:
        name: What is played: an id, behind "package:" if another package registers it, or a task source.
        mcp: As two tools, reset and step, by the Model Context Protocol.
        openenv: As a server of OpenEnv; its clients play one episode at a time each.
        stdio: With --mcp: over standard input and output, for a client that starts this command.
        environment: Single fields of it; --source, --agents and --reward for short.
        aided: Whether the policies may consult.
        split: Training or held-out tasks.
        host: The address to listen on. Nothing asks for a password: leave it on this machine, or behind a proxy.
        port: The port.
    """
    if mcp == openenv:
        raise ConfigError("serve: choose --mcp or --openenv.")
    env = TurnEnv(
        environment=named(name, environment),
        split=split,
        aided=aided,
        observation="delta",
    )
    address = f"http://{host}:{port}"
    if openenv:
        app = openenv_app(env)
        import uvicorn  # which comes with it

        print(f"OpenEnv server: {address}", file=sys.stderr)
        uvicorn.run(app, host=host, port=port, log_level="warning")
    elif stdio:
        mcp_server(env).run("stdio")
    else:
        print(f"MCP server: {address}/mcp", file=sys.stderr)
        mcp_server(env).run("streamable-http", host=host, port=port)


def mcp_server(env: TurnEnv) -> Any:
    """Return an MCP server whose tools play copies of an environment."""
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    resting: OrderedDict[str, TurnEnv] = OrderedDict()

    async def reset(
        seed: int | None = None, index: int | None = None
    ) -> dict[str, Any]:
        """Start an episode, of a seed or of a task's index: its id, and the problem."""
        one, name = copy.copy(env), secrets.token_hex(8)
        try:
            observation, info = one.reset(
                seed=seed, options={} if index is None else {"index": index}
            )
        except ConfigError as error:
            raise ToolError(str(error)) from None
        resting[name] = one
        if len(resting) > MAX_EPISODES:
            _, oldest = resting.popitem(last=False)
            await oldest.leave()
        return {"episode": name, "observation": observation, "info": info}

    async def step(episode: str, text: str) -> dict[str, Any]:
        """Take a turn in an episode. A turn without a call is the final answer; the reward comes with the last one."""
        # An episode whose turn is being answered takes no other.
        one = resting.pop(episode, None)
        if one is None:
            raise ToolError(
                f"there is no episode {episode!r} that waits for a turn; call reset"
            )
        try:
            result = await take_turn(one, text)
        except BaseException:
            await one.leave()
            raise
        if not result["terminated"] and not result["truncated"]:
            resting[episode] = one
        return result

    server = MCPServer(
        "aipo", instructions="Call reset, then step until terminated or truncated."
    )
    server.tool()(reset)
    server.tool()(step)
    return server


def openenv_app(env: TurnEnv) -> Any:
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
            self._env, self._state = copy.copy(env), State()

        def reset(
            self, seed: int | None = None, episode_id: str | None = None, **options: Any
        ) -> Seen:
            text, info = self._env.reset(seed=seed, options=options)
            self._state = State(
                episode_id=episode_id or secrets.token_hex(8), step_count=0
            )
            return Seen(text=text, info=info)

        def step(
            self, action: Turn, timeout_s: float | None = None, **options: Any
        ) -> Seen:
            return run_sync(self.step_async(action))

        async def step_async(
            self, action: Turn, timeout_s: float | None = None, **options: Any
        ) -> Seen:
            result = await take_turn(self._env, action.text)
            self._state.step_count += 1
            is_over = result["terminated"] or result["truncated"]
            return Seen(text=result.pop("observation"), done=is_over, **result)

        def close(self) -> None:
            run_sync(self._env.leave())

        @property
        def state(self) -> State:
            return self._state

    return create_fastapi_app(Served, Turn, Seen, max_concurrent_envs=MAX_EPISODES)


async def take_turn(env: TurnEnv, text: str) -> dict[str, Any]:
    """Take one turn; return what `step` returns, by name and without the record, which has the gold answer."""
    work = env._act(text)
    if work is not None:
        await work
    result: dict[str, Any] = dict(zip(_RESULT, env._result(), strict=True))
    result["info"].pop("episode_record", None)
    return result
