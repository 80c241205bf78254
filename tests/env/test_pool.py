"""The way to the agents: limits, deadlines, retries, the journal."""

import asyncio
import json
import time
from dataclasses import dataclass, replace
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
    build_agents,
    run_sync,
)
from aipo_env.agents.base import BudgetSpent, RetryLater
from aipo_env.tasks.toy import ToySource
from aipo_env.toy.world import World

QUICK = PoolLimits(deadline_s=0.05, retries=1, backoff_s=0.0)


def request(query: str = "zura", key: tuple[int, ...] = (0, 0)) -> AgentRequest:
    return AgentRequest(kind="knowledge", query=query, key=key)


def ask(
    agent: object, limits: PoolLimits = QUICK, journal: Journal | None = None
) -> Outcome:
    return run_sync(AgentPool({"knowledge": agent}, limits, journal).consult(request()))


def test_a_reply_comes_with_its_account():
    outcome = ask(CannedAgent("zura=#58#13;"))
    assert outcome.reply == AgentReply(text="zura=#58#13;", tokens=1)
    assert (outcome.error, outcome.retries) == ("", 0)


def test_no_agent_behind_a_role():
    pool = AgentPool({})
    assert run_sync(pool.consult(request())) == Outcome(
        reply=None, error="no agent for 'knowledge'"
    )
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
    assert (mended.reply, mended.error, mended.retries) == (
        AgentReply(text="fine"),
        "",
        1,
    )


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
        return await asyncio.gather(
            *(pool.consult(request(str(number))) for number in range(6))
        )

    for _ in range(2):  # a training run opens a new event loop for every step
        outcomes = asyncio.run(ask_six())
        assert [outcome.reply and outcome.reply.text for outcome in outcomes] == list(
            "012345"
        )
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
    journal.clear(journal.size())
    assert journal.get(request(key=(0,))) is None
    journal.put(request(key=(2,)), Outcome(reply=AgentReply(text="next step")))
    journal.close()
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == [
        "(2,)"
    ]


def test_a_journal_of_rubbish_is_passed_over(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(
        b'\xff\xfe\n[]\n{"key": 1}\n{"key": "(0,)", "hash": "x", "reply": {"text":'
        b" 3}}\n"
    )
    journal = Journal(path)
    assert journal.get(request(key=(0,))) is None
    journal.close()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"concurrency": 0}, "concurrency=0 must be a whole number, at least 1"),
        ({"deadline_s": 0.0}, "deadline_s=0.0 must be a number, at least 0.001"),
        (
            {"deadline_s": float("nan")},
            "deadline_s=nan must be a number, at least 0.001",
        ),
        ({"retries": -1}, "retries=-1 must be a whole number, at least 0"),
        ({"backoff_s": -0.5}, "backoff_s=-0.5 must be a number, at least 0"),
    ],
)
def test_limits_out_of_range_are_refused(limits: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        PoolLimits(**limits)


@dataclass
class Busy:
    """Asks for a pause `times` times, then replies; keeps when it was asked."""

    pause_s: float
    times: int = 1
    agent_id = "busy"

    def __post_init__(self) -> None:
        self.asked_s: list[float] = []

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.asked_s.append(time.monotonic())
        if len(self.asked_s) <= self.times:
            raise RetryLater("busy", self.pause_s)
        return AgentReply(text="fine", tokens=3, cost_usd=0.5)


async def ask_many(pool: AgentPool, num: int) -> list[Outcome]:
    return await asyncio.gather(
        *(pool.consult(request(str(n), (n, 0))) for n in range(num))
    )


def test_a_pause_that_an_agent_asks_for_is_kept_by_all():
    agent = Busy(0.3)
    pool = AgentPool(
        {"knowledge": agent}, PoolLimits(concurrency=1, retries=1, backoff_s=0.0)
    )
    outcomes = asyncio.run(ask_many(pool, 3))
    assert {outcome.reply.text for outcome in outcomes} == {"fine"}
    assert sorted(outcome.retries for outcome in outcomes) == [0, 0, 1]
    assert agent.asked_s[1] - agent.asked_s[0] >= 0.3


def test_a_pause_beyond_the_deadline_is_a_failure():
    agent = Busy(61.0, times=9)
    assert ask(agent, PoolLimits(deadline_s=60.0)).error == "RetryLater: busy"
    assert len(agent.asked_s) == 1


def test_retries_are_drawn_from_the_seed(monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []

    async def note(delay_s: float) -> None:
        waits.append(delay_s)

    monkeypatch.setattr("aipo_env.agents.pool.agent_pool.asyncio.sleep", note)
    pool = AgentPool(
        {"knowledge": FaultyAgent("raise")}, PoolLimits(retries=3, backoff_s=1.0)
    )
    for seed in (1, 1, 2):
        asyncio.run(pool.consult(AgentRequest(kind="knowledge", query="q", seed=seed)))
    assert waits[:3] == waits[3:6]
    assert waits[:3] != waits[6:]
    for factor, low in ((1, 0), (2, 1), (4, 2)):
        assert 0.5 * factor <= waits[low] <= 1.5 * factor


def test_calls_a_second_are_limited():
    agent = Busy(0.0, times=0)
    pool = AgentPool({"knowledge": agent}, PoolLimits(rate=20.0))
    asyncio.run(ask_many(pool, 5))
    assert agent.asked_s[-1] - agent.asked_s[0] >= 4 / 20


def test_a_slow_agent_does_not_hold_up_another():
    agents = {"knowledge": FaultyAgent("hang"), "reason": CannedAgent("quick")}
    pool = AgentPool(agents, PoolLimits(concurrency=2, deadline_s=60.0))

    async def both() -> Outcome:
        slow = [asyncio.create_task(pool.consult(request(str(n)))) for n in range(4)]
        await asyncio.sleep(0)
        quick = await pool.consult(AgentRequest(kind="reason", query="q"))
        for call in slow:
            call.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return quick

    assert asyncio.run(both()).reply.text == "quick"


def test_one_agent_behind_several_roles_has_one_limit():
    agent = Counting()
    pool = AgentPool(build_agents(agent, ToySource(World())), PoolLimits(concurrency=2))

    async def ask_all() -> None:
        kinds = ("knowledge", "reason", "verify") * 3
        await asyncio.gather(
            *(pool.consult(AgentRequest(kind=kind, query="q")) for kind in kinds)
        )

    asyncio.run(ask_all())
    assert agent.most == 2


def test_an_agent_that_keeps_failing_is_left_alone_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    agent = FaultyAgent("raise", times=4)
    pool = AgentPool({"knowledge": agent}, PoolLimits(retries=0, break_after=3))
    errors = [run_sync(pool.consult(request())).error for _ in range(6)]
    assert (
        errors
        == ["ValueError: boom"] * 3 + ["not asked: it failed 3 times in a row"] * 3
    )
    assert caplog.messages == ["an agent failed 3 times in a row: left alone for 30 s"]
    assert pool.spent["calls"] == 3
    clock = time.monotonic() + 31
    monkeypatch.setattr("aipo_env.agents.pool.gate.time.monotonic", lambda: clock)
    assert (
        run_sync(pool.consult(request())).error == "ValueError: boom"
    )  # the one that tries
    assert (
        run_sync(pool.consult(request())).error
        == "not asked: it failed 4 times in a row"
    )
    clock += 31
    assert run_sync(pool.consult(request())).reply.text == "fine"
    assert run_sync(pool.consult(request())).reply.text == "fine"


def test_those_who_wait_for_a_dead_agent_are_let_go():
    pool = AgentPool(
        {"knowledge": FaultyAgent("hang")},
        PoolLimits(concurrency=2, deadline_s=0.1, retries=0, break_after=4),
    )
    outcomes = asyncio.run(ask_many(pool, 200))
    assert pool.spent["calls"] == 4
    assert [outcome.error for outcome in outcomes[:4]] == ["no reply within 0.1 s"] * 4
    assert {outcome.error for outcome in outcomes[4:]} == {
        "not asked: it failed 4 times in a row"
    }


@pytest.mark.parametrize(
    ("budget", "num_answered"),
    [({"max_calls": 3}, 3), ({"max_tokens": 7}, 3), ({"max_usd": 1.0}, 2)],
)
def test_a_spent_budget_leaves_the_run_unaided(
    budget: dict, num_answered: int, caplog: pytest.LogCaptureFixture
):
    [(name, most)] = budget.items()
    pool = AgentPool({"knowledge": Busy(0.0, times=0)}, PoolLimits(**budget))
    outcomes = [run_sync(pool.consult(request(str(n)))) for n in range(5)]
    assert [bool(outcome.reply) for outcome in outcomes] == [True] * num_answered + [
        False
    ] * (5 - num_answered)
    told = f"the run's budget for agents is spent: {name}={most}"
    assert outcomes[-1].error == told
    assert caplog.messages == [f"{told}; the run goes on unaided"]
    spent = {
        "calls": num_answered,
        "tokens": 3 * num_answered,
        "usd": 0.5 * num_answered,
    }
    assert pool.spent == spent | {
        f"knowledge/{metric}": amount for metric, amount in spent.items()
    }


def test_a_spent_budget_stops_the_run_if_wanted():
    limits = PoolLimits(max_calls=1, when_spent="stop")
    pool = AgentPool({"knowledge": Busy(0.0, times=0)}, limits)
    assert run_sync(pool.consult(request())).reply.text == "fine"
    with pytest.raises(
        BudgetSpent,
        match="max_calls=1. Raise it, or set when_spent to 'unaided', and resume",
    ):
        run_sync(pool.consult(request("another")))


def test_retries_count_and_tools_do_not():
    pool = AgentPool(
        {"knowledge": FaultyAgent("raise"), "lookup": CannedAgent("found")},
        PoolLimits(max_calls=2, retries=4, backoff_s=0.0),
    )
    outcome = run_sync(pool.consult(request()))
    assert (outcome.error, outcome.retries) == (
        "the run's budget for agents is spent: max_calls=2",
        2,
    )
    assert (
        run_sync(pool.consult(AgentRequest(kind="lookup", query="q"))).reply.text
        == "found"
    )
    assert pool.spent["calls"] == 2


def test_a_reply_from_the_journal_is_free(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    pool = AgentPool(
        {"knowledge": Busy(0.0, times=0)}, PoolLimits(max_calls=1), journal
    )
    for _ in range(3):
        assert run_sync(pool.consult(request())).reply.text == "fine"
    journal.close()


def test_another_version_of_an_agent_gets_nothing_from_the_journal(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.put(
        replace(request(), agent_id="openai:m#1"),
        Outcome(reply=AgentReply(text="paid")),
    )
    assert journal.get(replace(request(), agent_id="openai:m#1")).reply.text == "paid"
    assert journal.get(replace(request(), agent_id="openai:m#2")) is None
    journal.close()


def test_a_stalled_call_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("aipo_env.agents.pool.gate.STALL_S", 0.05)
    pool = AgentPool(
        {"knowledge": FaultyAgent("hang")},
        PoolLimits(concurrency=1, deadline_s=0.4, retries=0),
    )

    async def both() -> None:
        await asyncio.gather(
            pool.consult(request(key=(7, 3, 1, 0))),
            pool.consult(request(key=(7, 3, 2, 5))),
        )

    asyncio.run(both())
    lines = [line.rpartition(", for ")[0] for line in caplog.messages]
    assert "stalled: episode 7-3-1, call 0, agent faulty: asked" in lines
    assert "stalled: episode 7-3-2, call 5, agent faulty: waiting for its turn" in lines
    assert len(lines) >= 4


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"rate": -1.0}, "rate=-1.0 must be a number, at least 0"),
        ({"break_after": -1}, "break_after=-1 must be a whole number, at least 0"),
        ({"max_usd": -0.5}, "max_usd=-0.5 must be a number, at least 0"),
        ({"when_spent": "panic"}, "when_spent='panic'. Valid: stop, unaided"),
        ({"when_lost": "weep"}, "when_lost='weep'. Valid: stop, unaided"),
    ],
)
def test_further_limits_out_of_range_are_refused(limits: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        PoolLimits(**limits)


def test_pauses_before_retries_are_spread_over_half_to_one_and_a_half():
    async def all_seconds() -> list[float]:
        limits = PoolLimits(
            deadline_s=5.0, retries=1, backoff_s=0.4, concurrency=60, break_after=1000
        )
        pool = AgentPool({"knowledge": FaultyAgent("raise")}, limits)
        asked = [replace(request(), seed=seed) for seed in range(60)]
        outcomes = await asyncio.gather(*map(pool.consult, asked))
        return sorted(outcome.seconds for outcome in outcomes)

    seconds = run_sync(all_seconds())
    assert seconds[0] >= 0.2
    assert seconds[-1] - seconds[0] > 0.25  # of the 0.4 between 0.2 and 0.6
