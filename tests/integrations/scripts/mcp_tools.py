"""Tools of an MCP server in an episode, over both transports; prints what came of each
call.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from aipo_env import (
    AgentPool,
    AgentRequest,
    ConfigError,
    PoolLimits,
    ScriptedPolicy,
    build_scenario,
    run_sync,
)
from aipo_env.tools.toolbox import build_tools

SERVER = Path(__file__).with_name("mcp_server.py")
CALLS = (
    '<add>{"a": 2, "b": 40}</add>',
    "<to_upper>quiet</to_upper>",
    "<fail>luck</fail>",
    '<add>{"a": "x", "b": 1}</add>',
    '<add>{"a": 1}</add>',
    "\\boxed{1}",
)


def play(spec: str) -> dict[str, object]:
    rules = {
        "consult_budget": 9,
        "max_turns": 9,
        "max_policy_tokens": 999,
        "max_context_tokens": 9999,
    }
    scenario = build_scenario(tools=[spec], rules=rules)
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    episode = ScriptedPolicy(CALLS).run(session)
    return {
        "told": [
            line
            for line in episode.messages[0].content.splitlines()
            if line.startswith(("<add", "<to_"))
        ],
        "replies": [[c.status, c.reply.splitlines()[0]] for c in episode.consults],
        "authors": sorted(
            {
                int(span.author)
                for m in episode.messages
                for span in m.spans
                if span.is_content
            }
        ),
    }


def restart(spec: str) -> list[str]:
    """Have the server die in a call; the next ones find another, in other event loops
    too.
    """
    pool = AgentPool(
        build_tools([spec]).functions,
        PoolLimits(retries=0, deadline_s=30.0, break_after=0),
    )
    query = json.dumps({"a": 1, "b": 2})
    died = run_sync(pool.consult(AgentRequest(kind="die", query="now")))
    again = [
        asyncio.run(pool.consult(AgentRequest(kind="add", query=query)))
        for _ in range(2)
    ]
    return [
        "died" if died.reply is None else died.reply.text,
        *(o.reply.text if o.reply else o.error for o in again),
    ]


def refusal(spec: str) -> str:
    try:
        build_tools([spec])
    except ConfigError as error:
        return str(error)
    return ""


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
stdio = f"mcp:{sys.executable} {SERVER}"
with subprocess.Popen(
    [sys.executable, SERVER, str(port)], stderr=subprocess.DEVNULL
) as running:
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    http = play(f"mcp:http://127.0.0.1:{port}/mcp")
    running.terminate()
result = {
    "stdio": play(stdio),
    "http": http,
    "restart": restart(stdio),
    "refused": [
        refusal("mcp:http://127.0.0.1:1/mcp"),
        refusal("mcp:no-such-command-here"),
    ],
}
print(json.dumps(result))
