"""Two thousand consultations at once."""

import asyncio
import resource

import pytest

from aipo_env import AgentPool, AgentRequest, PoolLimits
from aipo_env.testing import FaultServer

pytest.importorskip("openai")
pytest.importorskip(
    "aiohttp",
    reason="aiohttp is not installed: httpx takes minutes for as many connections",
)
from aipo_env.agents.chat import ChatAgent

NUM = 2_000


async def ask_all(pool: AgentPool) -> list[str]:
    requests = (
        AgentRequest(kind="verify", query=f"{n} holds", key=(n, 0)) for n in range(NUM)
    )
    outcomes = await asyncio.gather(*map(pool.consult, requests))
    return [
        outcome.reply.text if outcome.reply else outcome.error for outcome in outcomes
    ]


async def three_times(pool: AgentPool, server: FaultServer) -> list[int]:
    """Ask everything three times; return the peak memory after each, in MB."""
    peaks = []
    for _ in range(3):
        assert await ask_all(pool) == ["fine"] * NUM
        server.requests.clear()
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    return peaks


@pytest.mark.slow
def test_two_thousand_calls_at_once_take_their_connections_and_no_more_memory(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FaultServer(delay_s=10.0) as server:
        limits = PoolLimits(concurrency=NUM, deadline_s=300.0, retries=0)
        peaks = asyncio.run(
            three_times(
                AgentPool({"verify": ChatAgent("tiny", server.url)}, limits), server
            )
        )
        assert server.most_open > NUM / 2
    assert peaks[2] - peaks[1] < 20


@pytest.mark.slow
def test_a_pool_of_64_passes_two_thousand_callers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FaultServer() as server:
        limits = PoolLimits(concurrency=64, deadline_s=300.0, retries=0)
        texts = asyncio.run(
            ask_all(AgentPool({"verify": ChatAgent("tiny", server.url)}, limits))
        )
        assert texts == ["fine"] * NUM
        assert server.most_open <= 64
        assert server.num_connections <= 64
