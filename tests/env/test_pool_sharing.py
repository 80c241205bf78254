"""Calls that are shared, made twice, gathered, or no longer paid for."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from aipo_env import (
    Agent,
    AgentError,
    AgentPool,
    AgentReply,
    AgentRequest,
    ConfigError,
    Journal,
    KnowledgeAgent,
    Outcome,
    PoolLimits,
    build_agents,
    build_scenario,
    run_sync,
)
from aipo_env.records import Completion, Consult, Task
from aipo_env.rollout.dialogue import Dialogue
from aipo_env.rollout.rules import DialogueRules
from aipo_env.tasks.toy import ToySource
from aipo_env.testing import ScriptedPolicy
from aipo_env.toy.world import World


def request(
    query: str = "zura", key: tuple[int, ...] = (0, 0), **fields: object
) -> AgentRequest:
    return AgentRequest(
        kind="knowledge", query=query, key=key, seed=hash(key) % 2**32, **fields
    )


@dataclass
class Numbering:
    """Numbers its replies, so that no two are equal, and waits for `is_open`, if that
    is to be waited for.
    """

    waits: tuple[int, ...] = ()
    fails: tuple[int, ...] = ()
    agent_id: str = "numbering"
    seeds: list[int] = field(default_factory=list)
    num_cancelled: int = 0

    def __post_init__(self) -> None:
        self.is_open = asyncio.Event()

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.seeds.append(request.seed)
        number = len(self.seeds)
        try:
            await (self.is_open.wait() if number in self.waits else asyncio.sleep(0))
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if number in self.fails:
            raise AgentError(f"fault {number}")
        return AgentReply(text=f"reply {number}", tokens=2, cost_usd=0.5)


async def ask_all(pool: AgentPool, requests: Sequence[AgentRequest]) -> list[Outcome]:
    return await asyncio.gather(*map(pool.consult, requests))


def texts(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        outcome.reply.text if outcome.reply else outcome.error for outcome in outcomes
    ]


def test_without_a_cache_every_call_is_made():
    agent = Numbering()
    outcomes = asyncio.run(
        ask_all(AgentPool({"knowledge": agent}), [request(), request()])
    )
    assert texts(outcomes) == ["reply 1", "reply 2"]


def test_equal_questions_in_flight_get_one_reply_and_are_paid_once():
    agent = Numbering()
    pool = AgentPool({"knowledge": agent}, PoolLimits(cache="memory"))
    requests = [request(key=(n, 0)) for n in range(3)] + [request("mele", (3, 0))]
    outcomes = asyncio.run(ask_all(pool, requests))
    assert texts(outcomes) == ["reply 1", "reply 1", "reply 1", "reply 2"]
    assert [outcome.reply.cost_usd for outcome in outcomes if outcome.reply] == [
        0.5,
        0.0,
        0.0,
        0.5,
    ]
    assert (pool.spent["calls"], pool.spent["tokens"], pool.spent["usd"]) == (2, 4, 1.0)
    assert texts([run_sync(pool.consult(request(key=(9, 0))))]) == ["reply 1"]
    assert len(set(agent.seeds)) == 2  # one for each question, whoever asks


@pytest.mark.parametrize(
    "other", [{"problem": "p"}, {"trace": "t"}, {"agent_id": "another"}]
)
def test_another_prompt_or_model_is_another_question(other: dict):
    pool = AgentPool({"knowledge": Numbering()}, PoolLimits(cache="memory"))
    outcomes = asyncio.run(ask_all(pool, [request(), request(**other)]))
    assert texts(outcomes) == ["reply 1", "reply 2"]


def test_a_cache_on_disk_outlives_the_run_and_holds_nothing_private(tmp_path: Path):
    limits = PoolLimits(cache=str(tmp_path / "cache.jsonl"))
    first = AgentPool({"knowledge": Numbering()}, limits)
    assert texts([run_sync(first.consult(request()))]) == ["reply 1"]
    run_sync(first.consult(request("secret", is_private=True)))
    second = AgentPool({"knowledge": Numbering(fails=(1, 2, 3))}, limits)
    [outcome] = [run_sync(second.consult(request(key=(5, 5))))]
    assert (texts([outcome]), outcome.reply and outcome.reply.cost_usd) == (
        ["reply 1"],
        0.0,
    )
    assert "secret" not in (tmp_path / "cache.jsonl").read_text()
    with pytest.raises(ConfigError, match="there is no folder"):
        AgentPool({}, PoolLimits(cache=str(tmp_path / "no" / "cache.jsonl")))


def test_failures_and_tools_are_not_cached():
    limits = PoolLimits(cache="memory", retries=0)
    pool = AgentPool(
        {"knowledge": Numbering(fails=(1,)), "lookup": Numbering()}, limits
    )
    assert (
        texts(asyncio.run(ask_all(pool, [request(), request()])))
        == ["AgentError: fault 1"] * 2
    )
    assert texts([run_sync(pool.consult(request()))]) == ["reply 2"]
    twice = [replace(request(), kind="lookup")] * 2
    assert texts(asyncio.run(ask_all(pool, twice))) == ["reply 1", "reply 2"]


def test_replies_with_known_probabilities_are_shared_in_flight_but_not_kept():
    class Sampling(Numbering):
        async def reply(self, request: AgentRequest) -> AgentReply:
            return replace(
                await super().reply(request), token_ids=(1,), logprobs=(-1.0,)
            )

    pool = AgentPool({"knowledge": Sampling()}, PoolLimits(cache="memory"))
    assert texts(asyncio.run(ask_all(pool, [request(), request()]))) == [
        "reply 1",
        "reply 1",
    ]
    assert texts([run_sync(pool.consult(request()))]) == ["reply 2"]


def test_who_asked_first_may_leave():
    async def leave() -> list[Outcome]:
        agent = Numbering(waits=(1,))
        pool = AgentPool({"knowledge": agent}, PoolLimits(cache="memory"))
        first, second = (
            asyncio.create_task(pool.consult(request(key=(n, 0)))) for n in range(2)
        )
        await asyncio.sleep(0.01)
        first.cancel()
        agent.is_open.set()
        return [await second]

    assert texts(asyncio.run(leave())) == ["reply 1"]


def hedge(agent: Agent, **limits: object) -> tuple[Outcome, AgentPool]:
    pool = AgentPool(
        {"knowledge": agent}, PoolLimits(hedge_s=0.02, retries=0, **limits)
    )
    return asyncio.run(pool.consult(request())), pool


def test_a_slow_call_is_made_twice_and_the_first_reply_counts():
    agent = Numbering(waits=(1,))
    outcome, pool = hedge(agent)
    assert (texts([outcome]), outcome.retries) == (["reply 2"], 0)
    assert (pool.spent["calls"], agent.num_cancelled) == (2, 1)
    assert agent.seeds[0] == agent.seeds[1]


def test_a_quick_call_is_made_once():
    agent = Numbering()
    assert texts([hedge(agent)[0]]) == ["reply 1"]
    assert len(agent.seeds) == 1


def test_no_call_is_made_twice_where_there_is_no_place_or_no_budget():
    for limits in (
        {"concurrency": 1},
        {"max_calls": 1},
        {"max_calls": 1, "when_spent": "stop"},
        {"rate": 0.1},
    ):
        agent = Numbering(waits=(1,))
        outcome, _ = hedge(agent, deadline_s=0.1, **limits)
        assert texts([outcome]) == ["no reply within 0.1 s"]
        assert len(agent.seeds) == 1


def test_where_both_calls_fail_the_first_says_why():
    class Failing:
        agent_id, num_calls = "failing", 0

        async def reply(self, request: AgentRequest) -> AgentReply:
            self.num_calls = number = self.num_calls + 1
            await asyncio.sleep(0.05 * number)
            raise AgentError(f"fault {number}")

    assert texts([hedge(Failing())[0]]) == ["AgentError: fault 1"]


def test_a_second_call_that_fails_leaves_the_first_its_time():
    async def ask() -> Outcome:
        agent = Numbering(waits=(1,), fails=(2,))
        pool = AgentPool({"knowledge": agent}, PoolLimits(hedge_s=0.01, retries=0))
        call = asyncio.create_task(pool.consult(request()))
        await asyncio.sleep(0.05)
        agent.is_open.set()
        return await call

    assert texts([asyncio.run(ask())]) == ["reply 1"]


def test_a_reply_that_is_empty_is_paid_for():
    class Thinker:
        agent_id = "thinker"

        async def reply(self, request: AgentRequest) -> AgentReply:
            return AgentReply(text="", tokens=500, cost_usd=0.01)

    pool = AgentPool({"knowledge": Thinker()}, PoolLimits(max_usd=0.02, backoff_s=0.0))
    outcome = asyncio.run(pool.consult(request()))
    assert outcome.error == "the run's budget for agents is spent: max_usd=0.02"
    assert (pool.spent["calls"], pool.spent["tokens"], pool.spent["usd"]) == (
        2,
        1000,
        0.02,
    )


def test_what_takes_long_is_learnt_from_the_replies():
    agent = Numbering(waits=(21,))
    pool = AgentPool({"knowledge": agent}, PoolLimits(hedge_quantile=0.9, retries=0))
    outcomes = asyncio.run(ask_all(pool, [request(str(n)) for n in range(20)]))
    assert len(agent.seeds) == 20
    assert texts([*outcomes[:1], run_sync(pool.consult(request()))]) == [
        "reply 1",
        "reply 22",
    ]


@dataclass
class Many:
    """Answers requests together, and keeps what it was asked together."""

    fault: str = ""
    agent_id: str = "many"
    batches: list[list[str]] = field(default_factory=list)

    async def reply(self, request: AgentRequest) -> AgentReply:
        raise NotImplementedError

    async def reply_many(
        self, requests: Sequence[AgentRequest]
    ) -> list[AgentReply | Exception]:
        self.batches.append([request.query for request in requests])
        if self.fault == "raise":
            raise AgentError("boom")
        replies: list[AgentReply | Exception] = [
            AgentReply(text=f"{r.query}!") for r in requests
        ]
        if self.fault == "one":
            replies[0] = AgentError("this one not")
        if self.fault == "interrupt":
            replies[0] = KeyboardInterrupt()
        return replies[1:] if self.fault == "few" else replies


def test_calls_to_a_local_model_are_gathered():
    agent = Many()
    pool = AgentPool(
        build_agents(agent, ToySource(World())), PoolLimits(concurrency=4, batch_s=0.05)
    )
    requests = [
        replace(request(str(n)), kind=("knowledge", "verify")[n % 2]) for n in range(6)
    ]
    assert texts(asyncio.run(ask_all(pool, requests))) == [
        "0!",
        "1!",
        "2!",
        "3!",
        "4!",
        "5!",
    ]
    assert agent.batches == [["0", "1", "2", "3"], ["4", "5"]]
    assert pool.agent_id("knowledge") == "knowledge/many"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("raise", ["AgentError: boom", "AgentError: boom"]),
        ("few", ["AgentError: 1 replies for 2 requests"] * 2),
        ("one", ["AgentError: this one not", "1!"]),
        ("interrupt", ["no AgentReply, but KeyboardInterrupt", "1!"]),
    ],
)
def test_a_batch_that_fails(fault: str, expected: list[str]):
    pool = AgentPool({"knowledge": KnowledgeAgent(Many(fault))}, PoolLimits(retries=0))
    assert texts(asyncio.run(ask_all(pool, [request("0"), request("1")]))) == expected


def test_a_budget_for_a_role_leaves_the_others(caplog: pytest.LogCaptureFixture):
    limits = PoolLimits(max_per_kind={"knowledge/tokens": 3, "lookup/calls": 1})
    pool = AgentPool(
        {kind: Numbering() for kind in ("knowledge", "reason", "lookup")}, limits
    )
    kinds = ("knowledge", "knowledge", "knowledge", "reason", "lookup", "lookup")
    told = "the run's budget for agents is spent: {}"
    said = texts(
        [
            run_sync(pool.consult(replace(request(str(n)), kind=k)))
            for n, k in enumerate(kinds)
        ]
    )
    assert said == [
        "reply 1",
        "reply 2",
        told.format("knowledge/tokens=3"),
        "reply 1",
        "reply 1",
        told.format("lookup/calls=1"),
    ]
    assert pool.spent["calls"] == 3
    assert len(caplog.messages) == 2


def test_replies_of_an_episode_have_a_budget():
    rules = {"reply_budget": {"tokens": 3}, "consult_budget": 5, "max_turns": 9}
    scenario = build_scenario(agents=Numbering(), rules=rules)
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    episode = ScriptedPolicy(["<knowledge>a</knowledge>"] * 3 + ["\\boxed{1}"]).run(
        session
    )
    assert [consult.status for consult in episode.consults] == [
        "answered",
        "answered",
        "denied",
    ]


def test_a_role_has_a_budget_of_its_own_and_failures_take_none_of_it():
    rules = DialogueRules(reply_budget={"verify/usd": 0.1}, consult_budget=9)
    dialogue = Dialogue(
        Task(id="t", prompt="p", answer="1"), rules, build_scenario().codec, aided=True
    )
    call = {"kind": "verify", "query": "x", "call_id": 0, "turn": 1, "agent_id": "v"}
    failed = Consult(**call, status="failed", reply="")
    right = Consult(**call, status="answered", reply="right", cost_usd=0.1)
    for consult, may_ask in ((failed, True), (right, False)):
        dialogue.receive(Completion("<verify>x</verify>"))
        dialogue.reply([consult])
        assert dialogue.may_consult("verify") is may_ask
    assert dialogue.may_consult("reason")


def test_a_budget_of_an_episode_in_calls_is_named_otherwise():
    with pytest.raises(
        ConfigError, match="reply_budget has 'verify/calls'. Valid: tokens, usd"
    ):
        DialogueRules(reply_budget={"verify/calls": 1})


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"hedge_s": -1.0}, "hedge_s=-1.0 must be a number, at least 0"),
        (
            {"hedge_quantile": 1.0},
            "hedge_quantile=1.0 must be a number from 0 to 0.999",
        ),
        ({"batch_s": -1.0}, "batch_s=-1.0 must be a number, at least 0"),
        (
            {"max_per_kind": 5},
            'max_per_kind=5 must be an object like {"verify/tokens": 1000}',
        ),
        (
            {"max_per_kind": {"verify/token": 5}},
            "max_per_kind has 'verify/token'.*Did you mean 'tokens'",
        ),
        ({"max_per_kind": {"verify/usd": "5"}}, "'5' must be a number, at least 0"),
        (
            {"max_per_kind": {"/calls": 9}},
            "max_per_kind has '/calls'. Valid: calls, tokens, usd",
        ),
        (
            {"max_per_kind": {"calls": 9}},
            "max_per_kind has 'calls'; write 'verify/calls', or use max_calls",
        ),
    ],
)
def test_limits_out_of_range_are_refused(limits: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        PoolLimits(**limits)


def test_a_reply_comes_back_from_disk_with_its_tokens(tmp_path: Path):
    reply = AgentReply(text="fine", tokens=2, token_ids=(7, 8), logprobs=(-0.5, -1.0))
    journal = Journal(tmp_path / "journal.jsonl")
    journal.put(request(), Outcome(reply=reply))
    journal.close()
    read = Journal(tmp_path / "journal.jsonl")
    assert read.get(request()) == Outcome(reply=reply)


@pytest.mark.parametrize(
    "fields",
    [
        {"token_ids": (1.0,)},
        {"token_ids": (True,)},
        {"token_ids": (-1,)},
        {"token_ids": (1, 2), "logprobs": (-1.0,)},
        {"token_ids": (1,), "logprobs": (float("nan"),)},
        {"token_ids": (1,), "logprobs": (float("-inf"),)},
        {"logprobs": (-1.0,)},
    ],
)
def test_tokens_that_are_none_are_refused(fields: dict):
    with pytest.raises(
        AgentError, match="an agent's reply has (token_ids|logprobs) that are"
    ):
        AgentReply(text="fine", **fields)


def test_a_text_that_is_changed_is_no_longer_what_was_sampled():
    class Long:
        agent_id = "long"

        async def reply(self, request: AgentRequest) -> AgentReply:
            return AgentReply(text="x" * 30_000, token_ids=(7,), logprobs=(-1.0,))

    outcome = run_sync(AgentPool({"knowledge": Long()}).consult(request()))
    assert outcome.reply == AgentReply(text="x" * 20_000)
