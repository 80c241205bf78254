"""Plays what `aipo serve --mcp` offers, as a client that starts the command, and over
HTTP; prints what it saw.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

COMMAND = ["-m", "aipo_env.cli", "serve", "--mcp", "--agents", "scripted"]
ASK = "<knowledge>mele</knowledge>"
WRONG = (
    {"sed": 3},
    {"seed": "3"},
    {"seed": True},
    {"index": 1.0},
    {"index": -1},
    {"split": "dev"},
    {"aided": "false"},
    {"aided": 1},
)
"""Arguments of `reset` that it does not take."""
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]


def command_line(*options: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable, args=[*COMMAND, "--stdio", *options]
    )


async def call(client: Client, name: str, **arguments: object) -> dict:
    result = await client.call_tool(name, arguments)
    if result.is_error:
        return {"error": result.content[0].text}
    # What models read and what programs read is the same.
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def play() -> dict:
    async with Client(command_line()) as client:
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        first, twin, other = [
            await call(client, "reset", seed=seed) for seed in (3, 3, 4)
        ]
        asked = await call(client, "step", episode=first["episode"], text=ASK)
        ended = await call(client, "step", episode=first["episode"], text="\\boxed{1}")
        after = await call(client, "step", episode=first["episode"], text="again")
        chosen = await call(client, "reset", split="test", index=3, aided=False)
        refused = [await call(client, "reset", **wrong) for wrong in WRONG]
        long = await call(client, "step", episode=twin["episode"], text="x" * 1_000_001)
        goes_on = await call(client, "step", episode=twin["episode"], text=ASK)
    return {
        "first": first,
        "asked": asked,
        "ended": ended,
        "tools": tools,
        "is_repeatable": (
            first["observation"] == twin["observation"] != other["observation"]
        ),
        "after": after["error"],
        "chosen": chosen,
        "refused": [answer.get("error", "") for answer in refused],
        "long": long["error"],
        "goes_on": goes_on == asked,
    }


async def play_unaided() -> dict:
    options = ("--unaided", "--tokenizer", "tiktoken:aipo")
    async with Client(command_line(*options)) as client:
        opened = await call(client, "reset", index=0)
        wanted = await call(client, "reset", aided=True)
        ended = await call(
            client, "step", episode=opened["episode"], text="Let us think. " * 100
        )
    return {
        "opened": [opened["spans"], opened["stop"]],
        "wanted": wanted["error"],
        "num_tokens": ended["info"]["num_policy_tokens"],
    }


async def consult(client: Client, opened: dict) -> str:
    """Consult in an episode; return what comes back."""
    if "error" in opened:
        return opened["error"]
    told = await call(client, "step", episode=opened["episode"], text=ASK)
    return told.get("observation") or told["error"]


async def play_over_http() -> dict:
    """Have clients with and without sessions play on a budget of one consultation."""
    address = f"http://127.0.0.1:{PORT}/mcp"
    answered = []
    for mode in ("legacy", "auto"):
        async with Client(address, mode=mode) as one, Client(address, mode=mode) as two:
            opened = await call(one, "reset", seed=3)
            # Side by side, a client without sessions uses several connections.
            others = await asyncio.gather(
                *(call(two, "reset", seed=3) for _ in range(8))
            )
            answered.append(await consult(one, opened))
            answered += await asyncio.gather(*(consult(two, each) for each in others))
            answered.append(await consult(one, await call(one, "reset", seed=3)))
    return {"over_http": answered} | await play_with_made_up_sessions(address)


async def play_with_made_up_sessions(address: str) -> dict:
    """Have more clients than there may be make up a session each."""
    async with Client(address, mode="legacy") as honest:
        opened = await call(honest, "reset", seed=3)
        made_up = []
        for number in range(4):
            headers = {"mcp-session-id": f"made-up-{number}"}
            async with httpx2.AsyncClient(headers=headers) as http:
                transport = streamable_http_client(address, http_client=http)
                async with Client(transport, mode="2026-07-28") as client:
                    begun = await call(client, "reset", seed=3)
                    made_up.append(await consult(client, begun))
        return {"made_up": made_up, "honest": await consult(honest, opened)}


async def main() -> None:
    result = await play() | {"unaided": await play_unaided()}
    one_each = ["--max-consults", "1", "--max-sessions", "3", "--port", str(PORT)]
    with subprocess.Popen(
        [sys.executable, *COMMAND, *one_each], stderr=subprocess.DEVNULL
    ) as server:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            time.sleep(0.1)
        result |= await play_over_http()
        server.terminate()
    # Beside this extra the other one is not to be had.
    other = [sys.executable, "-m", "aipo_env.cli", "serve", "--openenv"]
    done = subprocess.run(other, capture_output=True, text=True, check=False)
    print(json.dumps(result | {"other": done.stderr}))


asyncio.run(main())
