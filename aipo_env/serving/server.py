"""An environment for others to play, as tools of MCP or as an OpenEnv server.

The commands are `aipo serve --mcp` and `aipo serve --openenv`. Each client has its own
episodes, which no other reaches, and its own budget of consultations.
"""

import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional

from aipo_env.errors import ConfigError, check_number, check_whole
from aipo_env.flags import environment_named
from aipo_env.gym.turn_env import TurnEnv
from aipo_env.records import Split
from aipo_env.rollout.environment import BYTES_PER_TOKEN, Environment, with_limits
from aipo_env.serving.by_mcp import mcp_server
from aipo_env.serving.by_openenv import openenv_app
from aipo_env.serving.episodes import Offer, check_split
from aipo_env.serving.guard import (
    LOOPBACK,
    Guard,
    called_name,
    is_loopback,
    new_token,
)

TOKEN_VARIABLE = "AIPO_SERVE_TOKEN"
"""The environment variable with the token that requests must show."""
_MAX_IDLE_S = 1e9
"""The longest silence that can be asked for: thirty years."""
_Flag = Annotated[bool, FlagCreatePairsOff]


def serve(
    name: Positional[str] = "AIPO-Toy-Turn-v0",
    mcp: _Flag = False,
    openenv: _Flag = False,
    stdio: _Flag = False,
    environment: Environment = Environment(),  # noqa: B008
    tokenizer: str = "byte",
    unaided: _Flag = False,
    split: Split = "train",
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_host: tuple[str, ...] = (),
    idle_s: float = 600.0,
    max_sessions: int = 64,
    max_consults: int = 1_000,
) -> None:
    """Offer an environment to others' policies, turn by turn, by MCP or OpenEnv.

    A policy may write 32,768 tokens in an episode of 65,536, four bytes of UTF-8 to a
    token, unless the environment has other limits; what they count is told at the
    start.

    Args:
        name: What is played: an id, behind "package:" if another package registers it,
            or a task source.
        mcp: As two tools, reset and step, by the Model Context Protocol.
        openenv: As a server of OpenEnv; its clients play one episode at a time each.
        stdio: With --mcp: over standard input and output, for a client that starts this
            command.
        environment: Single fields of it; --source, --agents and --reward for short.
        tokenizer: What limits of tokens count: "byte", bytes of UTF-8;
            "tiktoken:ENCODING"; "hf:FOLDER_OR_ID", best the policies' own.
        unaided: Offer no agents, whatever a client asks for; else it may choose for
            each episode.
        split: Training or held-out tasks, for clients that do not choose.
        host: The address to listen on. For any that other machines reach, requests must
            show a token: the one in the environment variable AIPO_SERVE_TOKEN, or one
            that is made and told at the start.
        port: The port.
        allow_host: Names by which the server may be called, as behind a proxy, and
            whose web pages may call it; on this machine its own are among them.
        idle_s: Seconds after which a client from which nothing comes is sent away.
        max_sessions: Clients at once.
        max_consults: Consultations of agents that a client may have, over all its
            episodes; beyond them calls are denied, and no episode with agents starts.
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
    if stdio and openenv:
        raise ConfigError("serve: --stdio is for --mcp alone.")
    played = environment_named(name, environment)
    env = TurnEnv(
        environment=with_limits(played, tokenizer),
        tokenizer=tokenizer,
        split=split,
        aided=not unaided,
        observation="delta",
    )
    # Why a source fails is ours to read: clients are told less.
    env.scenario.source.num_tasks(split)
    check_split(env, split)
    counted = _counted(env, tokenizer)
    description = f"{_description(env)} {counted}"
    offer = Offer(env, public_name(played), description, max_consults)
    our_version = version("aipo-rl")
    if openenv:
        app = openenv_app(offer, version=our_version, max_sessions=max_sessions)
        address = f"OpenEnv server: http://{host}:{port}"
    else:
        server = mcp_server(
            offer, version=our_version, idle_s=idle_s, max_clients=max_sessions
        )
        if stdio:
            print(counted, file=sys.stderr)
            server.run("stdio")
            return
        from mcp.server.transport_security import TransportSecuritySettings

        app = server.streamable_http_app(
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
    print(counted, file=sys.stderr)
    names: tuple[str, ...] = allow_host
    if is_loopback(host):
        names = (*LOOPBACK, host, *allow_host)
    guard = Guard(app, names, token, idle_s, max_sessions)
    uvicorn.run(guard, host=host, port=port, log_level="warning")


def public_name(environment: Environment) -> str:
    """Return what clients call an environment: its id or its source.

    One part of an address, and no folder of this machine: `file:data/tasks.jsonl` is
    `tasks.jsonl`, and options are left out.
    """
    spec = environment.source
    if isinstance(spec, Mapping) and not environment.id:
        name = str(spec.get("type", ""))
    else:
        name = environment.name
    bare = name.partition(",")[0].replace("\\", "/").rpartition("/")[2]
    return re.sub(r"[^\w.:=+ -]", "", bare).strip() or "environment"


def _description(env: TurnEnv) -> str:
    """Return what clients are told of an environment."""
    offered = ", ".join(env.scenario.offered) if env.aided else ""
    tools = ", ".join(env.scenario.toolbox.names)
    rules = env.scenario.rules
    return (
        "Turns of text on tasks whose answers are verified."
        f" Agents that may be consulted: {offered or 'none'}. Tools: {tools or 'none'}."
        f" At most {rules.max_turns} turns."
    )


def _counted(env: TurnEnv, tokenizer: str) -> str:
    """Return the limits of tokens, and what they count."""
    # Clients are told, too: no folder of this machine.
    unit = f"tokens of {tokenizer.rpartition('/')[2]}"
    if tokenizer == "byte":
        unit = f"bytes of UTF-8 (about {BYTES_PER_TOKEN} to a token)"
    rules = env.scenario.rules
    return (
        f"An episode may have {rules.max_context_tokens:,} {unit}, of which the policy"
        f" writes {rules.max_policy_tokens:,} at most."
    )


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
