"""The way to the agents: limits, deadlines, retries, the journal."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from aipo_env import (
    AgentError,
    AgentPool,
    AgentReply,
    AgentRequest,
    CannedAgent,
    ConfigError,
    FaultyAgent,
    Journal,
    Outcome,
    PoolLimits,
    run_sync,
)

QUICK = PoolLimits(deadline_s=0.05, retries=1, backoff_s=0.0)


def request(query: str = "zura", key: tuple[int, ...] = (0, 0)) -> AgentRequest:
    return AgentRequest(kind="knowledge", query=query, key=key)


def ask(agent: object, limits: PoolLimits = QUICK, journal: Journal | None = None) -> Outcome:
    return run_sync(AgentPool({"knowledge": agent}, limits, journal).consult(request()))


def test_a_reply_comes_with_its_account():
    outcome = ask(CannedAgent("zura=#58#13;"))
    assert outcome.reply == AgentReply(text="zura=#58#13;", tokens=1)
    assert (outcome.error, outcome.retries) == ("", 0)


def test_no_agent_behind_a_role():
    pool = AgentPool({})
    assert run_sync(pool.consult(request())) == Outcome(reply=None, error="no agent for 'knowledge'")
    assert pool.agent_id("knowledge") == ""


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("raise", "ValueError: boom"),
        ("exit", "SystemExit: boom"),
        ("cancel", "the agent cancelled itself"),
        ("hang", "no reply within 0.05 s"),
        ("junk", "no AgentReply, but dict"),
    ],
)
def test_whatever_an_agent_does_is_an_outcome(fault: str, error: str):
    outcome = ask(FaultyAgent(fault))
    assert (outcome.reply, outcome.error, outcome.retries) == (None, error, 1)
    mended = ask(FaultyAgent(fault, times=1))
    assert (mended.reply, mended.error, mended.retries) == (AgentReply(text="fine"), "", 1)


@dataclass
class Raising:
    """Raises a TimeoutError of its own, as network clients do."""

    agent_id = "raising"

    async def reply(self, request: AgentRequest) -> AgentReply:
        raise TimeoutError("read timed out")


def test_an_agents_own_timeout_is_not_taken_for_the_deadline():
    assert ask(Raising()).error == "TimeoutError: read timed out"


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_reply_is_a_failure(text: str):
    assert ask(CannedAgent(text)).error == "the reply is empty"


def test_a_reply_is_cut_and_made_valid_text():
    assert ask(CannedAgent("x" * 30_000)).reply.text == "x" * 20_000
    assert ask(CannedAgent("half \ud83d pair")).reply.text == "half ? pair"


@pytest.mark.parametrize(
    "fields",
    [
        {"text": None},
        {"text": "x", "tokens": -1},
        {"text": "x", "tokens": 1.5},
        {"text": "x", "cost_usd": float("nan")},
        {"text": "x", "cost_usd": float("inf")},
        {"text": "x", "cost_usd": "free"},
    ],
)
def test_junk_in_a_reply_is_refused_at_construction(fields: dict):
    with pytest.raises(AgentError, match="an agent's reply"):
        AgentReply(**fields)


class Counting:
    """Counts how many calls are in flight."""

    agent_id = "counting"

    def __init__(self) -> None:
        self.now = self.most = 0

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.now -= 1
        return AgentReply(text=request.query)


def test_calls_in_flight_are_limited_in_every_event_loop():
    agent = Counting()
    pool = AgentPool({"knowledge": agent}, PoolLimits(concurrency=2, retries=0))

    async def ask_six() -> list[Outcome]:
        return await asyncio.gather(*(pool.consult(request(str(number))) for number in range(6)))

    for _ in range(2):  # a training run opens a new event loop for every step
        outcomes = asyncio.run(ask_six())
        assert [outcome.reply and outcome.reply.text for outcome in outcomes] == list("012345")
        assert agent.most == 2


def test_a_cancelled_call_stays_cancelled():
    async def cancel() -> None:
        pool = AgentPool({"knowledge": FaultyAgent("hang")}, PoolLimits(deadline_s=60))
        call = asyncio.create_task(pool.consult(request()))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())


def test_the_journal_gives_back_what_was_paid_for(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    assert ask(CannedAgent("paid"), journal=first).reply.text == "paid"
    first.close()
    second = Journal(path)
    agent = CannedAgent("asked again")
    assert ask(agent, journal=second).reply.text == "paid"
    assert agent.requests == []
    pool = AgentPool({"knowledge": agent}, QUICK, second)
    assert run_sync(pool.consult(request("another query"))).reply.text == "asked again"
    assert run_sync(pool.consult(request(key=(0, 1)))).reply.text == "asked again"
    second.close()
    assert len(path.read_text().splitlines()) == 3


def test_failures_are_not_in_the_journal(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    ask(FaultyAgent("raise"), journal=journal)
    assert journal.get(request()) is None
    journal.close()


def test_a_journal_cut_short_by_a_crash(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.put(request(key=(0,)), Outcome(reply=AgentReply(text="kept")))
    journal.put(request(key=(1,)), Outcome(reply=AgentReply(text="cut")))
    journal.close()
    path.write_bytes(path.read_bytes()[:-9])
    journal = Journal(path)
    assert journal.get(request(key=(0,))).reply == AgentReply(text="kept")
    assert journal.get(request(key=(1,))) is None
    journal.put(request(key=(1,)), Outcome(reply=AgentReply(text="asked again")))
    journal.close()
    journal = Journal(path)
    assert journal.get(request(key=(1,))).reply == AgentReply(text="asked again")
    journal.clear()
    assert journal.get(request(key=(0,))) is None
    journal.put(request(key=(2,)), Outcome(reply=AgentReply(text="next step")))
    journal.close()
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["(2,)"]


def test_a_journal_of_rubbish_is_passed_over(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'\xff\xfe\n[]\n{"key": 1}\n{"key": "(0,)", "hash": "x", "reply": {"text": 3}}\n')
    journal = Journal(path)
    assert journal.get(request(key=(0,))) is None
    journal.close()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"concurrency": 0}, "concurrency=0 must be at least 1"),
        ({"deadline_s": 0.0}, "deadline_s=0.0 must be positive"),
        ({"deadline_s": float("nan")}, "deadline_s=nan must be positive"),
        ({"retries": -1}, "retries=-1 must not be negative"),
        ({"backoff_s": -0.5}, "backoff_s=-0.5 must not be negative"),
    ],
)
def test_limits_out_of_range_are_refused(limits: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        PoolLimits(**limits)
