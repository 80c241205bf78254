"""One short question to every agent before a run."""

import asyncio
import socket
import time
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from aipo_env import (
    AgentLost,
    AgentPool,
    CannedAgent,
    Cassette,
    ChatAgent,
    ConfigError,
    FaultServer,
    FaultyAgent,
    Journal,
    OwnPolicyAgent,
    PoolLimits,
    ToySource,
    World,
    build_agents,
    check_agents,
)
from aipo_env.agents.mixed import MixedAgent

pytest.importorskip("openai")

KEY = "sk-test-4f7a91"
SOURCE = ToySource(World())


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def make_pool(spec: Any, journal: Journal | None = None, **limits: Any) -> AgentPool:
    return AgentPool(build_agents(spec, SOURCE), PoolLimits(**limits), journal)


def check(pool: AgentPool, patience_s: float = 0.0) -> None:
    asyncio.run(check_agents(pool, patience_s=patience_s))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_two_roles_behind_one_agent_are_one_request_that_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    journal = Journal(tmp_path / "journal.jsonl")
    with FaultServer() as server:
        agent = ChatAgent("tiny", server.url)
        spec = {"verify": agent, "reason": agent}
        pool = make_pool(spec, journal, max_calls=0, when_spent="stop", cache="memory")
        check(pool)
    [(_, body)] = server.requests
    system, user = body["messages"]
    assert system["content"].startswith("You are the Reasoning")
    assert user["content"] == "Question:\nWhat is 2 + 2?"
    assert pool.spent == {"calls": 0, "tokens": 0, "usd": 0.0}
    assert not journal.path.exists()
    assert caplog.messages == []


def test_a_dead_port_is_lost_when_patience_ends():
    url = f"http://127.0.0.1:{free_port()}/v1"
    pool = make_pool(ChatAgent("tiny", url))
    start = time.monotonic()
    with pytest.raises(AgentLost) as lost:
        check(pool, patience_s=0.5)
    assert 0.5 <= time.monotonic() - start < 5.0
    name = ChatAgent("tiny", url).agent_id
    assert str(lost.value).startswith(f"no answer can come from {name} at {url}: ")
    assert KEY not in str(lost.value)


def test_a_server_that_comes_up_meanwhile_is_there():
    port = free_port()
    server = FaultServer(port=port)
    timer = Timer(0.4, server.__enter__)
    timer.start()
    try:
        url = f"http://127.0.0.1:{port}/v1"
        check(make_pool(ChatAgent("tiny", url)), patience_s=30.0)
    finally:
        timer.join()
        server.__exit__()
    assert len(server.requests) == 1


def test_all_that_are_lost_are_named_at_once():
    with FaultServer(["401"]) as first, FaultServer(["404"]) as second:
        spec = {
            "verify": ChatAgent("tiny", first.url),
            "reason": ChatAgent("small", second.url),
            "knowledge": CannedAgent("4"),
        }
        start = time.monotonic()
        with pytest.raises(AgentLost) as lost:
            check(make_pool(spec), patience_s=30.0)
        assert time.monotonic() - start < 20.0
    assert len(first.requests) == len(second.requests) == 1
    told = str(lost.value)
    assert f"at {first.url}: HTTP 401: 'refused: Bearer [key]'" in told
    assert f"at {second.url}: HTTP 404: 'refused: Bearer [key]'" in told
    assert "canned" not in told


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("429", "AgentError: HTTP 429: 'refused: Bearer [key]'"),
        ("408", "AgentError: HTTP 408: 'refused: Bearer [key]'"),
        ("500", "AgentError: HTTP 500: 'refused: Bearer [key]'"),
        ("503", "AgentError: HTTP 503: 'refused: Bearer [key]'"),
        ("hang", "none within 0.3 s"),
        ("empty", "it is empty"),
        ("reset", "AgentError: "),
        ("garbage", "AgentError: the response is no chat completion: "),
    ],
)
def test_who_gives_no_reply_is_there_and_in_the_log(
    fault: str, told: str, caplog: pytest.LogCaptureFixture
):
    with FaultServer([fault]) as server:
        agent = ChatAgent("tiny", server.url)
        check(make_pool(agent, deadline_s=0.3 if fault == "hang" else 30.0), 30.0)
    assert len(server.requests) == 1
    [message] = caplog.messages
    begins = f"agent {agent.agent_id} gave no reply to a first question: {told}"
    assert message.startswith(begins)


@pytest.mark.parametrize("fault", ["raise", "exit", "cancel", "junk"])
def test_an_agent_that_is_a_program_is_there_whatever_it_does(fault: str):
    check(make_pool(FaultyAgent(fault)))


def test_unaided_the_lost_are_not_asked_in_the_run_nor_in_a_resumed_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "journal.jsonl"
    with FaultServer(["401", "reply"]) as server:
        for _ in range(2):
            journal = Journal(path)
            agent = ChatAgent("tiny", server.url)
            pool = make_pool(agent, journal, when_lost="unaided")
            check(pool)
            assert pool.why_lost("verify").startswith(agent.agent_id)
            journal.close()
    assert len(server.requests) == 1
    assert len(caplog.messages) == 2
    assert set(caplog.messages) == {
        f"lost: {pool.why_lost('verify')}; the run goes on unaided"
    }


def test_everybody_behind_a_mixture_is_asked():
    with FaultServer() as first, FaultServer(["401"]) as second:
        good, bad = ChatAgent("good", first.url), ChatAgent("bad", second.url)
        wrong = {"type": "aipo_env.agents.mixed:WrongAgent", "agent": bad}
        pool = make_pool(MixedAgent(SOURCE, [good, wrong], [1, 0]))
        with pytest.raises(AgentLost, match=f"from {bad.agent_id} at {second.url}"):
            check(pool)
    assert len(first.requests) == len(second.requests) == 1


def test_the_policy_itself_tools_and_a_replay_are_not_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tool = CannedAgent("found")
    agents = {**build_agents(OwnPolicyAgent(), SOURCE), "lookup": tool}
    check(AgentPool(agents))
    assert tool.requests == []
    (tmp_path / "cassette.jsonl").write_text("")
    with FaultServer(["401"]) as server:
        replay = Cassette(f"replay:{tmp_path / 'cassette.jsonl'}")
        check(make_pool(ChatAgent("tiny", server.url), replay))
    assert server.requests == []
    assert caplog.messages == []


def test_an_agent_that_is_wrongly_set_ends_the_run():
    class Wrong:
        agent_id = "wrong"

        async def reply(self, request: object) -> None:
            raise ConfigError("no sandbox")

    with pytest.raises(ConfigError, match="no sandbox"):
        check(make_pool(Wrong()))
