"""Plays what `aipo serve --openenv` offers, with OpenEnv's own client; prints what it
saw.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time

from openenv.core import GenericEnvClient

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
COMMAND = [
    sys.executable,
    "-m",
    "aipo_env.cli",
    "serve",
    "--openenv",
    "--port",
    str(PORT),
]


async def play(seed: int) -> list:
    client = GenericEnvClient(base_url=f"http://127.0.0.1:{PORT}")
    await client.connect()
    first = await client.reset(seed=seed)
    asked = await client.step({"text": "<knowledge>mele</knowledge>"})
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


async def main() -> None:
    one, twin, other = await asyncio.gather(play(3), play(3), play(4))
    print(
        json.dumps(
            {"one": one, "is_repeatable": one == twin, "differs": one[0] != other[0]}
        )
    )


with subprocess.Popen(COMMAND) as server:
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            time.sleep(0.2)
        asyncio.run(main())
    finally:
        server.terminate()
