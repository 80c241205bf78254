"""Plays what `aipo serve --openenv` offers, with OpenEnv's own client, and asks for its
tasks; prints what it saw.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from openenv.core import GenericEnvClient

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
COMMAND = [sys.executable, "-m", "aipo_env.cli", "serve", "--openenv"]
ASK = {"text": "<knowledge>mele</knowledge>"}
WRONG = (
    {"spilt": "test"},
    {"split": "dev"},
    {"index": -1},
    {"index": "3"},
    {"aided": 1},
    {"seed": True},
    {"episode_id": 7},
    {"session_id": "of another"},
    {"func": "print"},
)
"""Options of `reset` that it does not take."""


async def play(seed: int) -> list:
    client = GenericEnvClient(base_url=f"http://127.0.0.1:{PORT}")
    await client.connect()
    first = await client.reset(seed=seed)
    asked = await client.step(ASK)
    ended = await client.step({"text": "\\boxed{1}"})
    state = await client.state()
    await client.close()
    steps = [
        [s.observation["text"], s.reward, s.done, s.observation["truncated"]]
        for s in (first, asked, ended)
    ]
    return [
        *steps,
        state["step_count"] if isinstance(state, dict) else state.step_count,
    ]


async def choose() -> dict:
    client = GenericEnvClient(base_url=f"http://127.0.0.1:{PORT}")
    await client.connect()
    alone = await client.reset(split="test", index=3, aided=False)
    chosen = await client.reset(split="test", index=3)
    asked = await client.step(ASK)
    refused = []
    for wrong in WRONG:
        try:
            await client.reset(**wrong)
        except RuntimeError as error:
            refused.append(str(error))
    await client.close()
    return {
        "alone": alone.observation,
        "chosen": chosen.observation,
        "asked": asked.observation,
        "refused": refused,
    }


def ask(path: str, **body: object) -> list:
    """Return the status and the answer of a request over HTTP."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return [answer.status, json.load(answer)]
    except urllib.error.HTTPError as error:
        return [error.code, json.load(error)]


def ask_for_tasks() -> list:
    [name] = ask("list_environments")[1]
    return [
        name,
        ask("metadata"),
        ask(f"{name}/splits"),
        ask(f"{name}/num_tasks", split="test"),
        ask(f"{name}/task", split="test", index=3),
        ask(f"{name}/task_range", split="test", start=3, stop=5),
        ask(f"{name}/task", split="test", index=-1),
        ask(f"{name}/task", split="dev", index=0),
        ask(f"{name}/task_range", split="test"),
        ask(f"{name}/tasks", split="test"),
        ask("reset", sed=3),
        ask("mcp", jsonrpc="2.0", id=1, method="openenv/session/create"),
    ]


async def main() -> None:
    one, twin, other = await asyncio.gather(play(3), play(3), play(4))
    result = {
        "one": one,
        "is_repeatable": one == twin,
        "differs": one[0] != other[0],
        "choices": await choose(),
        "tasks": await asyncio.to_thread(ask_for_tasks),
    }
    # Beside this extra the other one is not to be had.
    server = subprocess.run(
        [*COMMAND[:-1], "--mcp"], capture_output=True, text=True, check=False
    )
    print(json.dumps(result | {"other": server.stderr}))


with subprocess.Popen([*COMMAND, "--port", str(PORT)]) as server:
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            time.sleep(0.2)
        asyncio.run(main())
    finally:
        server.terminate()
