"""OpenEnv: its server and one WebSocket session for each slot, in one process;
free-running on asyncio.
"""

import asyncio
import socket
import sys
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn
from openenv.core import GenericEnvClient
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from workload import Load, clock, parse_load, report

LOAD: Load


class Turn(Action):
    text: str


class Seen(Observation):
    text: str = ""


class ConsultEnv(Environment):
    """Answers a call after as long as the load says; a turn without a call is the
    answer.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **options: Any
    ) -> Seen:
        return Seen(text="1 + 0 = ?")

    def step(
        self, action: Turn, timeout_s: float | None = None, **options: Any
    ) -> Seen:
        raise NotImplementedError

    async def step_async(
        self, action: Turn, timeout_s: float | None = None, **options: Any
    ) -> Seen:
        if action.text.startswith("<knowledge>"):
            await asyncio.sleep(LOAD.delay_s(action.text))
            return Seen(text="It holds.", done=False, reward=0.0)
        return Seen(done=True, reward=float("\\boxed{1}" in action.text))

    @property
    def state(self) -> State:
        return State()


async def play(client: Any, episodes: Any) -> int:
    """Play episodes in one slot until there are no more; return how many consultations
    there were.
    """
    num_consults = 0
    for episode in episodes:
        await client.reset()
        for turn in range(LOAD.num_consults(episode) + 1):
            result = await client.step({"text": LOAD.turn(episode, turn)})
        assert result.done, result
        num_consults += turn
    return num_consults


async def run(port: int) -> None:
    clients = [
        GenericEnvClient(base_url=f"http://127.0.0.1:{port}") for _ in range(LOAD.slots)
    ]
    for start in range(0, LOAD.slots, 32):
        await asyncio.gather(
            *(client.connect() for client in clients[start : start + 32])
        )
    await asyncio.gather(
        *(play(client, [index % LOAD.episodes]) for index, client in enumerate(clients))
    )
    with clock() as measured:
        episodes = iter(range(LOAD.episodes))
        consults = await asyncio.gather(*(play(client, episodes) for client in clients))
    report(LOAD, measured, LOAD.episodes, sum(consults))
    await asyncio.gather(*(client.close() for client in clients))


def serve() -> int:
    """Start the server in a thread; return its port."""
    app = create_fastapi_app(ConsultEnv, Turn, Seen, max_concurrent_envs=LOAD.slots)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error")
    )
    Thread(target=server.run, daemon=True).start()
    for _ in count():
        with socket.socket() as probe:
            if server.started and probe.connect_ex(("127.0.0.1", port)) == 0:
                return port


if __name__ == "__main__":
    LOAD = parse_load()[0]
    asyncio.run(run(serve()))
