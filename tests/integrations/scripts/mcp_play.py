"""Plays what `aipo serve --mcp` offers, as a client that starts the command, and over
HTTP; prints what it saw.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time

from mcp import Client, StdioServerParameters

COMMAND = ["-m", "aipo_env.cli", "serve", "--mcp", "--agents", "scripted"]
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]


async def call(client: Client, name: str, **arguments: object) -> dict:
    result = await client.call_tool(name, arguments)
    if result.is_error:
        return {"error": result.content[0].text}
    return json.loads(result.content[0].text)


async def main() -> None:
    async with Client(
        StdioServerParameters(command=sys.executable, args=[*COMMAND, "--stdio"])
    ) as client:
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        first, twin, other = [
            await call(client, "reset", seed=seed) for seed in (3, 3, 4)
        ]
        asked = await call(
            client, "step", episode=first["episode"], text="<knowledge>mele</knowledge>"
        )
        ended = await call(client, "step", episode=first["episode"], text="\\boxed{1}")
        after = await call(client, "step", episode=first["episode"], text="again")
        chosen = await call(client, "reset", index=-1)
    with subprocess.Popen(
        [sys.executable, *COMMAND, "--port", str(PORT)], stderr=subprocess.DEVNULL
    ) as server:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            time.sleep(0.1)
        async with Client(f"http://127.0.0.1:{PORT}/mcp") as client:
            started = await call(client, "reset", seed=3)
            answered = await call(
                client,
                "step",
                episode=started["episode"],
                text="<knowledge>mele</knowledge>",
            )
        server.terminate()
    result = {
        "over_http": (
            started["observation"] == first["observation"] and answered == asked
        ),
        "tools": tools,
        "is_repeatable": (
            first["observation"] == twin["observation"] != other["observation"]
        ),
        "asked": asked,
        "ended": ended,
        "after": after["error"],
        "chosen": chosen["error"],
    }
    print(json.dumps(result))


asyncio.run(main())
