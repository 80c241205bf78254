"""An agent that fails for good is not asked again, is named, and stops the run, or
leaves it unaided.
"""

import asyncio
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aipo_env import (
    AgentLost,
    AgentPool,
    AgentReply,
    AgentRequest,
    Cassette,
    ChatAgent,
    ConfigError,
    FaultServer,
    Journal,
    Outcome,
    PermanentFailure,
    PoolLimits,
    RequestRefused,
    ToySource,
    World,
    build_agents,
    run_sync,
)
from aipo_env.agents.mixed import MixedAgent, WrongAgent

pytest.importorskip("openai")

KEY = "sk-test-4f7a91"
SOURCE = ToySource(World())
UNAIDED = {"when_lost": "unaided"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def request(kind: str = "verify", number: int = 0, **fields: Any) -> AgentRequest:
    return AgentRequest(kind=kind, query=f"claim {number}", key=(0, number), **fields)


def make_pool(agent: Any, journal: Journal | None = None, **limits: Any) -> AgentPool:
    chosen = {"deadline_s": 30.0, "retries": 2, "backoff_s": 0.0, **limits}
    return AgentPool(build_agents(agent, SOURCE), PoolLimits(**chosen), journal)


def ask(pool: AgentPool, kind: str = "verify", number: int = 0) -> Outcome:
    asked = request(kind, number, agent_id=pool.agent_id(kind))
    return run_sync(pool.consult(asked))


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "405", "410", "422"])
def test_a_refusal_for_good_stops_the_run_after_one_request(status: str):
    with FaultServer([status]) as server:
        pool = make_pool(ChatAgent("tiny", server.url))
        with pytest.raises(AgentLost) as lost:
            ask(pool)
        with pytest.raises(AgentLost):
            ask(pool, "reason", 1)
    assert len(server.requests) == 1
    told = str(lost.value)
    name = ChatAgent("tiny", server.url).agent_id
    fault = f"{name} at {server.url}: HTTP {status}: 'refused: Bearer [key]'"
    assert told.startswith(f"no answer can come from {fault}. Start the server, ")
    assert "set pool.when_lost to 'unaided'" in told
    assert KEY not in told


@pytest.mark.parametrize("status", ["302", "408", "409", "425", "429", "500", "503"])
def test_what_may_pass_stops_no_run(status: str):
    with FaultServer([status]) as server:
        outcome = ask(make_pool(ChatAgent("tiny", server.url)))
    assert outcome.error == f"AgentError: HTTP {status}: 'refused: Bearer [key]'"
    assert outcome.retries == 2
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_what_one_request_may_have_done_is_that_requests_failure(status: str):
    with FaultServer(["reply", status, "reply"]) as server:
        pool = make_pool(ChatAgent("tiny", server.url), break_after=1)
        outcomes = [ask(pool, number=number) for number in range(3)]
    refused = f"RequestRefused: HTTP {status}: 'refused: Bearer [key]'"
    assert [outcome.error for outcome in outcomes] == ["", refused, ""]
    assert [outcome.retries for outcome in outcomes] == [0, 0, 0]
    assert len(server.requests) == 3


def test_an_agent_that_answered_is_known_by_another_pool():
    with FaultServer(["reply", "400"]) as server:
        ask(make_pool(ChatAgent("tiny", server.url)))
        outcome = ask(make_pool(ChatAgent("tiny", server.url)))
    assert outcome.error.startswith("RequestRefused: HTTP 400")


def test_a_key_that_expires_stops_the_run_though_there_were_replies():
    with FaultServer(["reply", "401"]) as server:
        pool = make_pool(ChatAgent("tiny", server.url))
        assert ask(pool).reply == AgentReply(text="fine", tokens=1)
        with pytest.raises(AgentLost, match="HTTP 401"):
            ask(pool, number=1)


def test_calls_that_wait_for_their_turn_are_not_made():
    async def ask_all(pool: AgentPool) -> list[Outcome]:
        asked = (request(number=number) for number in range(9))
        return await asyncio.gather(*map(pool.consult, asked))

    with FaultServer(["401"]) as server:
        agent = ChatAgent("tiny", server.url)
        pool = make_pool(agent, concurrency=1, **UNAIDED)
        outcomes = asyncio.run(ask_all(pool))
    assert len(server.requests) == 1
    assert all(outcome.error.startswith("lost: ") for outcome in outcomes)
    assert pool.spent["calls"] == 1


def test_a_run_without_the_agent_says_so_once_and_stays_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    journal = Journal(tmp_path / "journal.jsonl")
    with FaultServer(["reply", "404", "reply"]) as server:
        agent = ChatAgent("tiny", server.url)
        pool = make_pool(agent, journal, **UNAIDED)
        first = [ask(pool, kind, n) for n, kind in enumerate(("verify",) * 2)]
        first.append(ask(pool, "reason", 2))
        assert len(server.requests) == 2
        fault = f"{agent.agent_id} at {server.url}: HTTP 404: 'refused: Bearer [key]'"
        errors = ["", f"lost: {fault}", f"lost: {fault}"]
        assert [outcome.error for outcome in first] == errors
        assert caplog.messages == [f"lost: {fault}; the run goes on unaided"]
        journal.close()

        again = Journal(tmp_path / "journal.jsonl")
        resumed = make_pool(ChatAgent("tiny", server.url), again, **UNAIDED)
        second = [ask(resumed, kind, n) for n, kind in enumerate(("verify",) * 2)]
        second.append(ask(resumed, "knowledge", 2))
        assert len(server.requests) == 2
    assert [outcome.error for outcome in second] == errors
    assert second[0] == first[0]
    assert KEY not in (tmp_path / "journal.jsonl").read_text()
    again.close()


def test_a_run_that_is_to_stop_asks_an_agent_that_an_unaided_one_lost(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    with FaultServer(["401", "reply"]) as server:
        ask(make_pool(ChatAgent("tiny", server.url), journal, **UNAIDED))
        stopping = make_pool(ChatAgent("tiny", server.url), journal)
        assert ask(stopping).error == ""
    journal.close()


def test_the_loss_outlives_the_steps_and_journals_of_other_processes(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    kept, other = Journal(path), Journal(path)
    kept.put(request(number=0), Outcome(reply=AgentReply(text="old")))
    other.lose("verify", "verify/a", "HTTP 401")
    other.lose("verify", "verify/a", "HTTP 401")
    num_bytes = kept.size()
    kept.put(request(number=1), Outcome(reply=AgentReply(text="new")))
    kept.forget()
    other.forget()
    assert other.loss("verify", "verify/a") == "HTTP 401"
    kept.clear(num_bytes)
    kept.clear(0)
    read = Journal(path)
    assert read.loss("verify", "verify/a") == "HTTP 401"
    assert read.loss("reason", "verify/a") is None
    assert read.loss("verify", "verify/b") is None
    assert read.get(request(number=0)) is None
    assert read.get(request(number=1)) == Outcome(reply=AgentReply(text="new"))
    kept.clear(kept.size())
    assert Journal(path).loss("verify", "verify/a") == "HTTP 401"
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"lost": "verify", "agent_id": "verify/a", "error": "HTTP 401"}
    ]
    kept.close()
    other.close()


def test_lines_that_name_no_lost_agent(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    good = {"lost": "verify", "agent_id": "a", "error": "x" * 1000}
    lines = [
        {"lost": "verify", "agent_id": "b"},
        {"lost": ["verify"], "agent_id": "b", "error": "e"},
        {"lost": "verify", "agent_id": "b", "error": ""},
        {"lost": "verify", "agent_id": "b", "error": 5},
        {"lost": {"lost": "verify", "agent_id": "b", "error": "e"}},
    ]
    reply = AgentReply(text='\n{"lost": "verify", "agent_id": "b", "error": "e"}\n')
    journal = Journal(path)
    journal.put(request(), Outcome(reply=reply))
    journal.close()
    rubbish = [b'{"lost": ' + b"[" * 100_000, b'{"lost": NaN}', b'{"lost": \xff']
    torn = json.dumps(good).encode()[:-9]
    told = [json.dumps(line).encode() for line in [*lines, good]]
    with path.open("ab") as file:
        file.write(b"\n".join([*rubbish, *told, torn]))
    journal = Journal(path)
    assert journal.loss("verify", "a") == "x" * 500
    assert journal.loss("verify", "b") is None
    assert journal.get(request()) == Outcome(reply=reply)
    journal.lose("reason", "a", "after a torn line")
    journal.close()
    assert Journal(path).loss("reason", "a") == "after a torn line"


def test_a_worker_that_reads_the_journal_anew_writes_the_loss_again(tmp_path: Path):
    with FaultServer(["401"]) as server:
        pool = make_pool(ChatAgent("tiny", server.url), **UNAIDED)
        ask(pool)
        pool.journal = Journal(tmp_path / "journal.jsonl")
        ask(pool)
        assert len(server.requests) == 1
        pool.journal.close()
        kinds = ("knowledge", "reason", "verify")
        read = Journal(tmp_path / "journal.jsonl")
        assert all(read.loss(kind, pool.agent_id(kind)) for kind in kinds)


def test_a_cassette_repeats_the_loss_and_asks_nobody(tmp_path: Path):
    path = tmp_path / "cassette.jsonl"
    with FaultServer(["401"]) as server:
        cassette = Cassette(str(path))
        first = ask(make_pool(ChatAgent("tiny", server.url), cassette, **UNAIDED))
        cassette.close()
        replay = Cassette(f"replay:{path}")
        second = ask(make_pool(ChatAgent("tiny", server.url), replay))
        assert len(server.requests) == 1
    assert second == first


def test_what_is_private_is_not_told():
    with FaultServer(["422"]) as server:
        pool = make_pool(ChatAgent("tiny", server.url))
        with pytest.raises(AgentLost) as lost:
            run_sync(pool.consult(request(is_private=True)))
    assert f"{server.url}: HTTP 422. Start" in str(lost.value)


@pytest.mark.parametrize(
    "pass_on",
    [
        lambda agent: MixedAgent(SOURCE, ["scripted", agent], [1e-9, 1]),
        lambda agent: WrongAgent(SOURCE, agent),
    ],
    ids=["mix", "wrong"],
)
def test_who_passes_requests_on_is_lost_with_the_one_behind(pass_on: Any):
    with FaultServer(["401"]) as server:
        behind = ChatAgent("tiny", server.url)
        agent = pass_on(behind)
        with pytest.raises(AgentLost) as lost:
            ask(make_pool(agent))
    told = f"{agent.agent_id}: {behind.agent_id} at {server.url}: HTTP 401"
    assert f"no answer can come from {told}" in str(lost.value)


def test_another_agent_goes_on():
    with FaultServer(["401"]) as bad, FaultServer() as good:
        spec = {
            "verify": ChatAgent("tiny", bad.url),
            "reason": ChatAgent("tiny", good.url),
        }
        pool = make_pool(spec, **UNAIDED)
        assert ask(pool, "verify").error.startswith("lost: ")
        assert ask(pool, "reason").error == ""


@dataclass
class Raising:
    """Raises what it is told to, and counts the requests."""

    error: BaseException
    agent_id: str = "raising"
    num_asked: int = 0

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.num_asked += 1
        raise self.error


@pytest.mark.parametrize("error", [ConfigError("no key"), ImportError("no module")])
@pytest.mark.parametrize("limits", [{}, {"hedge_s": 0.01}, {"cache": "memory"}])
def test_what_is_wrongly_set_or_not_installed_ends_the_run(
    error: Exception, limits: dict
):
    agent = Raising(error)
    with pytest.raises(type(error), match=str(error)):
        ask(make_pool(agent, **limits))
    assert agent.num_asked == 1


def test_a_library_that_is_imported_by_name_and_not_installed_ends_the_run():
    class Importing:
        agent_id = "importing"

        async def reply(self, request: AgentRequest) -> AgentReply:
            importlib.import_module("no_such_module_9")
            raise NotImplementedError

    with pytest.raises(ModuleNotFoundError, match="no_such_module_9"):
        ask(make_pool(Importing()))


@dataclass
class Running:
    """Runs a program, as no agent should."""

    program: str
    agent_id: str = "running"

    async def reply(self, request: AgentRequest) -> AgentReply:
        exec(self.program, {})
        return AgentReply(text="ran")


@pytest.mark.parametrize(
    "program",
    [
        "import no_such_module_9",
        "import importlib; importlib.import_module('no_such_module_9')",
        "from aipo_env import ConfigError; raise ConfigError('boom')",
    ],
)
def test_a_program_that_a_policy_wrote_ends_no_run(program: str):
    outcome = ask(make_pool(Running(program), retries=1))
    assert outcome.reply is None
    assert outcome.retries == 1
    assert ("no_such_module_9" in outcome.error) or ("boom" in outcome.error)


def test_a_permanent_failure_of_anybodys_agent_is_named():
    agent = Raising(PermanentFailure("out of order"))
    with pytest.raises(AgentLost, match="from raising: out of order. Start"):
        ask(make_pool(agent, hedge_s=0.01))
    assert agent.num_asked == 1


@dataclass
class Stateful:
    """A tool that counts its calls; some raise."""

    errors: Sequence[BaseException | None] = ()
    is_stateful: bool = True
    agent_id: str = "counter"
    asked: list[str] = field(default_factory=list)

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.asked.append(request.query)
        number = len(self.asked)
        error = self.errors[number - 1] if number <= len(self.errors) else None
        if error:
            raise error
        return AgentReply(text=f"call {number}", tokens=1)


def use(pool: AgentPool, tool: Any, number: int = 0) -> Outcome:
    return run_sync(pool.consult(request("counter", number), tool))


def test_a_tool_of_an_episodes_own_is_asked_anew_when_a_step_is_played_again(
    tmp_path: Path,
):
    path = tmp_path / "journal.jsonl"
    for _ in range(2):
        pool = make_pool(Raising(ValueError()), Journal(path), cache="memory")
        tool = Stateful()
        outcomes = [use(pool, tool, number) for number in (0, 0, 1)]
        said = [outcome.reply.text for outcome in outcomes if outcome.reply]
        assert said == ["call 1", "call 2", "call 3"]
        assert pool.spent["counter/calls"] == 3
        assert pool.spent["calls"] == 0
    assert not path.exists()


def test_a_tool_without_a_state_is_taken_from_the_journal(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl")
    pool, tool = make_pool(Raising(ValueError()), journal), Stateful(is_stateful=False)
    assert use(pool, tool) == use(pool, tool)
    assert len(tool.asked) == 1
    journal.close()


@pytest.mark.parametrize(
    "error",
    [ValueError("boom"), SystemExit("boom"), PermanentFailure("boom")],
)
def test_a_tool_that_fails_is_not_asked_again_and_stops_nobody(error: BaseException):
    tool = Stateful([error] * 9)
    pool = make_pool(Raising(ValueError()), hedge_s=0.001, break_after=2)
    outcomes = [use(pool, tool, number) for number in range(3)]
    assert [outcome.error for outcome in outcomes] == [
        f"{type(error).__name__}: boom"
    ] * 3
    assert [outcome.retries for outcome in outcomes] == [0, 0, 0]
    assert len(tool.asked) == 3


def test_the_pools_own_tools_are_neither_retried_nor_hedged():
    @dataclass
    class Slow(Stateful):
        async def reply(self, request: AgentRequest) -> AgentReply:
            self.asked.append(request.query)
            await asyncio.sleep(0.05)
            raise PermanentFailure("boom")

    tool = Slow()
    limits = PoolLimits(hedge_s=0.001, retries=3, backoff_s=0.0)
    pool = AgentPool({"counter": tool}, limits)
    outcome = run_sync(pool.consult(request("counter")))
    assert (outcome.error, outcome.retries) == ("PermanentFailure: boom", 0)
    assert len(tool.asked) == 1


def test_a_tool_has_a_deadline_limits_and_a_budget():
    class Long(Stateful):
        async def reply(self, request: AgentRequest) -> AgentReply:
            if request.query == "claim 0":
                await asyncio.Event().wait()
            return AgentReply(text="x" * 30_000)

    limits = {"deadline_s": 0.05, "max_per_kind": {"counter/calls": 2}}
    pool, tool = make_pool(Raising(ValueError()), **limits), Long()
    assert use(pool, tool, 0).error == "no reply within 0.05 s"
    assert use(pool, tool, 1).reply == AgentReply(text="x" * 20_000)
    spent = "the run's budget for agents is spent: counter/calls=2"
    assert use(pool, tool, 2).error == spent


def test_a_tool_needs_no_name():
    class Nameless:
        async def reply(self, request: AgentRequest) -> AgentReply:
            return AgentReply(text="here")

    pool = make_pool(Raising(ValueError()))
    assert use(pool, Nameless()).reply == AgentReply(text="here")


def test_a_cancelled_call_of_a_tool_stays_cancelled():
    async def cancel() -> None:
        class Hanging(Stateful):
            async def reply(self, request: AgentRequest) -> AgentReply:
                await asyncio.Event().wait()
                raise NotImplementedError

        pool = make_pool(Raising(ValueError()))
        call = asyncio.create_task(pool.consult(request("counter"), Hanging()))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())


def test_a_refused_request_is_not_made_again():
    agent = Raising(RequestRefused("too long"))
    outcome = ask(make_pool(agent))
    assert (outcome.error, outcome.retries) == ("RequestRefused: too long", 0)
    assert agent.num_asked == 1
