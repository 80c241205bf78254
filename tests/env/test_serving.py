"""What clients of a served environment are told, and what they may ask for."""

import asyncio
import copy
import json
import logging
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gymnasium.error import ResetNeeded

from aipo_env import (
    AgentReply,
    AgentRequest,
    CannedAgent,
    ConfigError,
    DataError,
    Environment,
    Task,
    TaskTable,
    TurnEnv,
    cli,
    with_limits,
)
from aipo_env.serving.by_mcp import MAX_EPISODES, NO_SESSION, Clients, _session_id
from aipo_env.serving.episodes import (
    LONGEST_TURN,
    Allowance,
    ServerFault,
    check_length,
    check_split,
    leave_all,
    leave_in_time,
    num_tasks_told,
    start_told,
    task_told,
    tasks_told,
    turn_told,
)
from aipo_env.serving.server import _counted, public_name
from aipo_env.tools.mcp_tools import need_mcp

ASK = "<knowledge>mele</knowledge>"
REPLY = '<reply from="knowledge">mele=#78#25;</reply>'
PROMPT = [
    {"text": "Solve. You may consult.", "author": "prompt", "is_content": False},
    {"text": "Apply mele to 0808.", "author": "prompt", "is_content": False},
]


def toy(**options: Any) -> TurnEnv:
    return TurnEnv(
        environment=Environment(id="AIPO-Toy-Turn-v0"), observation="delta", **options
    )


def leaky(reply: str, answer: str = "8674133127") -> TurnEnv:
    """An environment of one task, whose agents say one thing."""
    task = Task(id="t", prompt="What is it?", answer=answer, meta={"note": answer})
    return TurnEnv(
        source=TaskTable("one", {"train": [task], "test": [task]}),
        agents=CannedAgent(reply),
        observation="delta",
    )


def begun(env: TurnEnv, seed: int | None = 0, **options: Any) -> dict[str, Any]:
    return asyncio.run(start_told(env, seed, options))


def taken(env: TurnEnv, text: str) -> dict[str, Any]:
    return asyncio.run(turn_told(env, text))


def test_a_client_is_told_who_wrote_what():
    env = toy()
    first = begun(env, index=0)
    assert first == {
        "observation": "Solve. You may consult.\n\nApply mele to 0808.",
        "messages": [
            {"role": "system", "content": "Solve. You may consult."},
            {"role": "user", "content": "Apply mele to 0808."},
        ],
        "spans": PROMPT,
        "stop": ["</knowledge>", "</reason>", "</verify>"],
        "info": {
            "task_id": "toy-0-train-0",
            "turn": 0,
            "num_policy_tokens": 0,
            "consults_used": 0,
        },
    }
    asked = taken(env, ASK)
    reply = '<reply from="knowledge">mele=#78#25;</reply>'
    assert asked["observation"] == reply
    assert asked["messages"] == [{"role": "user", "content": reply}]
    assert asked["spans"] == [
        {"text": '<reply from="knowledge">', "author": "env", "is_content": False},
        {"text": "mele=#78#25;", "author": "agent", "is_content": True},
        {"text": "</reply>", "author": "env", "is_content": False},
    ]
    ended = taken(env, "\\boxed{7623}")
    assert (ended["reward"], ended["terminated"], ended["truncated"]) == (
        1.0,
        True,
        False,
    )
    assert (ended["messages"], ended["spans"], ended["observation"]) == ([], [], "")
    assert sorted(ended["info"]) == [
        "consults_used",
        "num_policy_tokens",
        "reward_parts",
        "stop_reason",
        "task_id",
        "turn",
    ]


def test_all_that_is_told_is_json():
    env = toy()
    told = [begun(env, index=0), taken(env, ASK), taken(env, "<verify>")]
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("codec", ["tags", "hermes", "openai"])
def test_spans_joined_are_the_messages_joined(codec: str):
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    env = TurnEnv(codec=codec, tools=[add], observation="delta")
    told = [begun(env)]
    query = '{"a": 1, "b": 2}'
    function = {"name": "add", "arguments": query}
    turns = {
        "tags": f"<add>{query}</add>",
        "hermes": f'<tool_call>{{"name": "add", "arguments": {query}}}</tool_call>',
        "openai": json.dumps(
            {"role": "assistant", "tool_calls": [{"function": function}]}
        ),
    }
    told.append(taken(env, turns[codec]))
    for seen in told:
        spans = "".join(span["text"] for span in seen["spans"])
        assert spans == "".join(message["content"] for message in seen["messages"])
    assert {"text": "3", "author": "tool", "is_content": True} in told[1]["spans"]


def test_a_client_chooses_split_task_seed_and_aid_of_each_episode():
    env = toy()
    train, test = begun(env, index=3), begun(env, split="test", index=3)
    assert (train["info"]["task_id"], test["info"]["task_id"]) == (
        "toy-0-train-3",
        "toy-0-test-3",
    )
    alone = begun(env, index=3, aided=False)
    assert alone["info"]["task_id"] == "toy-0-train-3"
    assert alone["spans"][0]["text"] == "Solve."
    assert alone["stop"] == []
    # It is text there, and so the answer.
    assert taken(env, ASK)["info"]["stop_reason"] == "no_answer"
    again = begun(env, index=3)
    assert again["spans"][0]["text"] == "Solve. You may consult."
    assert again == {**train, "info": again["info"]}
    assert begun(env, seed=5) == begun(toy(), seed=5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"spilt": "test"}, "reset: option='spilt'. Valid: aided, index, split. Did"),
        ({"split": "tests"}, "split='tests'. Valid: test, train."),
        ({"split": ["test"]}, r"split=\['test'\]"),
        ({"split": 1}, "split=1"),
        ({"index": -1}, "reset: index=-1 must be a whole number from 0"),
        ({"index": "3"}, "reset: index='3' must be a whole number"),
        ({"index": 1.0}, "reset: index=1.0 must be a whole number"),
        ({"index": True}, "reset: index=True must be a whole number"),
        ({"index": 10**4000}, "reset: index=10"),
        ({"aided": 1}, "reset: aided=1 must be true or false"),
        ({"aided": "false"}, "reset: aided='false' must be true or false"),
        ({"aided": {}}, "reset: aided={} must be true or false"),
        ({"seed": -1}, "reset: seed=-1 must be a whole number"),
        ({"seed": "x" * 10**6}, "reset: seed='xxx"),
    ],
)
def test_what_a_reset_cannot_have_is_refused_by_name(
    options: dict[str, Any], told: str
):
    with pytest.raises(ConfigError, match=told) as refused:
        begun(toy(), **options)
    assert len(str(refused.value)) < 500


def test_a_server_without_agents_gives_nobody_one():
    env = toy(aided=False)
    assert begun(env)["spans"][0]["text"] == "Solve."
    assert begun(env, aided=False)["stop"] == []
    for wanted in (True, 1, "yes"):
        with pytest.raises(ConfigError, match="this server offers no agents"):
            begun(env, aided=wanted)


def test_a_split_without_tasks_is_refused_and_names_no_file(tmp_path: Path):
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"id": "sum", "prompt": "What is 2 + 2?", "answer": "4"}\n')
    env = TurnEnv(source=f"file:{file}", observation="delta")
    assert begun(env, split="train")["info"]["task_id"] == "sum"
    with pytest.raises(ConfigError) as refused:
        begun(env, split="test")
    assert str(refused.value) == "split='test' has no tasks."
    assert cli.main(["serve", "--mcp", f"file:{file}", "--split", "test"]) == 2


def test_the_gold_answer_stays_here():
    told: list[Any] = []
    for reply in ("The answer is 8674133127.", "It is 8,674,133,127, surely."):
        env = leaky(reply)
        told += [begun(env), taken(env, ASK)]
        withheld = told[-1]["spans"][1]
        assert withheld == {"text": "unknown", "author": "env", "is_content": False}
        told.append(taken(env, "\\boxed{2}"))
        told += [task_told(env, "train", 0), task_told(env, "test", 0)]
    assert "8674133127" not in json.dumps(told)
    assert "8,674" not in json.dumps(told)
    assert task_told(env, "train", 0) == {
        "index": 0,
        "id": "t",
        "prompt": "What is it?",
    }


def test_what_a_verifier_says_that_failed_stays_here(caplog: pytest.LogCaptureFixture):
    def verify(task: Task, text: str) -> float:
        raise ValueError(f"cannot compare with {task.answer}")

    env = toy(verifier=verify)
    begun(env, index=0)
    told = taken(env, "\\boxed{1}")
    assert (told["truncated"], told["info"]["stop_reason"]) == (True, "verifier_error")
    assert told["reward"] is None
    assert told["info"]["error"] == "failed on the server, whose log says why."
    assert "7623" not in json.dumps(told)
    assert "cannot compare with 7623" in caplog.text


def test_an_episode_whose_tool_cannot_be_made_has_no_reward():
    class Broken:
        def __init__(self) -> None:
            raise OSError("secret/place is gone")

        def ready(self) -> str:
            """Say so."""
            return "ready"

    env = toy(tools=[Broken])
    begun(env, index=0)
    told = taken(env, "\\boxed{7623}")
    assert told["info"]["stop_reason"] == "tool_error"
    assert (told["reward"], told["terminated"], told["truncated"]) == (
        None,
        False,
        True,
    )
    assert "secret" not in json.dumps(told)


def test_what_ends_a_run_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture):
    def verify(task: Task, text: str) -> float:
        raise ConfigError(f"no such judge for {task.answer}")

    env = toy(verifier=verify)
    begun(env, index=0)
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(ServerFault) as fault,
    ):
        taken(env, "\\boxed{1}")
    assert str(fault.value) == "step failed on the server, whose log says why."
    assert "no such judge for 7623" in caplog.text


class Broken:
    """A source that fails in one of its two methods."""

    default_agents = "none"

    def __init__(self, method: str, error: Exception) -> None:
        self.method = method
        self.error = error

    def num_tasks(self, split: str) -> int:
        if self.method == "num_tasks":
            raise self.error
        return 3

    def task(self, split: str, index: int) -> Task:
        raise self.error


@pytest.mark.parametrize("method", ["num_tasks", "task"])
@pytest.mark.parametrize(
    "kind", [OSError, ConfigError, DataError, KeyError, IndexError, ResetNeeded]
)
def test_a_task_that_cannot_be_had_is_told_to_the_log_alone(
    caplog: pytest.LogCaptureFixture, method: str, kind: type[Exception]
):
    error = kind("secret/place.jsonl, row 3: answer='8674133127'")
    env = TurnEnv(source=Broken(method, error), observation="delta")
    asked = (
        lambda: begun(env),
        lambda: begun(env, index=1, split="test"),
        lambda: task_told(env, "train", 0),
    )
    for ask in asked:
        with pytest.raises(ServerFault) as fault:
            ask()
        assert str(fault.value).endswith(" failed on the server, whose log says why.")
    assert caplog.text.count("secret/place.jsonl, row 3") == 3


def test_who_serves_is_told_what_is_wrong_with_the_tasks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "aipo_env.tasks.toy.ToySource.num_tasks",
        Broken("num_tasks", ConfigError("tasks.jsonl, row 3")).num_tasks,
    )
    assert cli.main(["serve", "--mcp"]) == 2
    assert "tasks.jsonl, row 3" in capsys.readouterr().err


def test_making_a_tools_state_holds_up_no_other_client():
    others_are_served = threading.Event()

    class Slow:
        """Made when all others are served."""

        def __init__(self) -> None:
            others_are_served.wait(10)

        def ready(self) -> str:
            """Say so."""
            return "ready"

    async def play() -> list[str]:
        ended: list[str] = []

        async def start(name: str, env: TurnEnv) -> None:
            await start_told(env, 0, {})
            ended.append(name)
            others_are_served.set()

        await asyncio.gather(start("slow", toy(tools=[Slow])), start("quick", toy()))
        return ended

    assert asyncio.run(play()) == ["quick", "slow"]


def test_tools_that_a_client_did_not_wait_for_are_closed():
    may_be_made = threading.Event()
    seen: list[str] = []

    class Slow:
        """Made when its client has gone."""

        def __init__(self) -> None:
            may_be_made.wait(10)
            seen.append("made")

        def ready(self) -> str:
            """Say so."""
            return "ready"

        def close(self) -> None:
            seen.append("closed")

    async def play() -> None:
        resetting = asyncio.create_task(start_told(toy(tools=[Slow]), 0, {}))
        await asyncio.sleep(0.05)
        resetting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await resetting
        assert seen == []
        may_be_made.set()
        for _ in range(500):
            if "closed" in seen:
                return
            await asyncio.sleep(0.01)

    asyncio.run(play())
    assert seen == ["made", "closed"]


def test_an_episode_is_left_though_whoever_leaves_it_is_cancelled():
    async def play() -> None:
        held: list[Any] = [Holding(), Holding()]
        leaving = asyncio.create_task(leave_all(held))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert [env.is_left for env in held] == [False, False]
        await asyncio.sleep(0.05)
        assert [env.is_left for env in held] == [True, True]

    asyncio.run(play())


def test_leaving_holds_up_no_event_loop_and_is_waited_for_elsewhere():
    async def play() -> None:
        held: Any = Holding()
        leave_in_time(held)
        assert not held.is_left
        await asyncio.sleep(0.05)
        assert held.is_left

    asyncio.run(play())
    elsewhere: Any = Holding()
    leave_in_time(elsewhere)
    assert elsewhere.is_left


def test_a_turn_without_an_episode_is_refused():
    env = toy()
    with pytest.raises(ResetNeeded):
        taken(env, "x")
    begun(env)
    taken(env, "x")
    with pytest.raises(ResetNeeded):
        taken(env, "x")


def test_a_turn_that_is_too_long_is_refused_unread():
    check_length("x" * LONGEST_TURN)
    with pytest.raises(ConfigError, match="step: text has 1,000,001 characters"):
        check_length("x" * (LONGEST_TURN + 1))


def test_tasks_are_told_by_number():
    env = toy()
    assert num_tasks_told(env, "train") == 2**31
    assert task_told(env, "test", 2) == {
        "index": 2,
        "id": "toy-0-test-2",
        "prompt": begun(env, split="test", index=2)["messages"][1]["content"],
    }
    table = leaky("x")
    assert num_tasks_told(table, "test") == 1
    for index in (-1, 1, 10**30):
        with pytest.raises(IndexError):
            task_told(table, "test", index)
    with pytest.raises(ConfigError, match="split='dev'"):
        check_split(table, "dev")


def test_more_tasks_than_are_told_at_once_are_refused_and_none_left_out():
    task = Task(id="t", prompt="What is it?", answer="1")
    rows = {"train": [task] * 100, "test": [task] * 101}
    env = TurnEnv(source=TaskTable("many", rows), observation="delta")
    assert [told["index"] for told in tasks_told(env, "train")] == list(range(100))
    assert [told["index"] for told in tasks_told(env, "test", 98, 500)] == [98, 99, 100]
    assert tasks_told(env, "test", 7, 7) == []
    with pytest.raises(ConfigError) as refused:
        tasks_told(env, "test")
    assert str(refused.value) == (
        "task_range: 101 tasks; at most 100 are told at once, from start to before"
        " stop."
    )


def test_tokens_are_counted_by_the_tokenizer_that_is_named():
    pytest.importorskip("tiktoken")
    text = "Let us think about it. " * 10
    counts = {}
    for tokenizer in ("byte", "tiktoken:aipo"):
        env = toy(tokenizer=tokenizer)
        begun(env)
        counts[tokenizer] = taken(env, text)["info"]["num_policy_tokens"]
    assert counts["byte"] == len(text)
    assert counts["tiktoken:aipo"] < len(text) / 2
    env = toy(tokenizer="tiktoken:aipo", rules={"max_policy_tokens": 5})
    begun(env)
    cut = taken(env, text)
    assert cut["info"]["stop_reason"] == "max_sampled_tokens"
    assert cut["info"]["num_policy_tokens"] == 5


def test_a_served_policy_may_think_at_length():
    env = TurnEnv(environment=with_limits(Environment(), "byte"), observation="delta")
    assert _counted(env, "byte") == (
        "An episode may have 262,144 bytes of UTF-8 (about 4 to a token), of which"
        " the policy writes 131,072 at most."
    )
    begun(env, index=0)
    told = taken(env, "Let me think. " * 640 + "\\boxed{7623}")
    assert (told["reward"], told["info"]["stop_reason"]) == (1.0, "completed")


def test_the_folder_of_a_tokenizer_is_told_to_nobody():
    assert "tokens of Qwen," in _counted(toy(), "hf:data/private/Qwen")


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (Environment(id="AIPO-Toy-Turn-v0"), "AIPO-Toy-Turn-v0"),
        (Environment(id="package:Mine/Chemistry-Turn-v0"), "Chemistry-Turn-v0"),
        (Environment(), "toy"),
        (Environment(source="toy:difficulty=2,seed=7"), "toy:difficulty=2"),
        (Environment(source="file:data/private/tasks.jsonl,test=1"), "tasks.jsonl"),
        (Environment(source=r"file:C:\data\tasks.jsonl"), "tasks.jsonl"),
        (Environment(source={"type": "file", "path": "private/a.jsonl"}), "file"),
        (Environment(source="file:data/"), "environment"),
    ],
)
def test_an_environment_is_called_by_its_id_or_its_source(
    environment: Environment, name: str
):
    assert public_name(environment) == name


class Resting:
    """Stands for an environment whose episode waits."""

    def __init__(self) -> None:
        self.is_left = False

    async def leave(self) -> None:
        self.is_left = True


class Holding(Resting):
    """One that takes a while to leave."""

    async def leave(self) -> None:
        await asyncio.sleep(0.01)
        self.is_left = True


def request(version: str, **headers: str) -> Any:
    """Stands for what a tool of MCP is told of a request over HTTP."""
    asked = SimpleNamespace(headers=headers)
    return SimpleNamespace(
        request_context=SimpleNamespace(protocol_version=version, request=asked)
    )


def resting(count: int) -> Iterator[Any]:
    return (Resting() for _ in range(count))


def test_a_client_has_its_own_episodes_and_budget():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=60.0, max_clients=4)
        one, other = await clients.of("one"), await clients.of("other")
        assert await clients.of("one") is one
        first, second = resting(2)
        await clients.put_back(one, "a", first)
        await clients.put_back(other, "b", second)
        one.allowance.num_left = 0
        assert other.allowance.num_left == 7
        assert clients.take("b") == (other, second)
        assert clients.take("b") is None  # its turn is being answered
        assert clients.take("c") is None

    asyncio.run(play())


def test_a_clients_many_episodes_drop_none_of_anothers():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=60.0, max_clients=4)
        one, other = await clients.of("one"), await clients.of("other")
        [kept] = resting(1)
        await clients.put_back(other, "kept", kept)
        many: list[Any] = list(resting(MAX_EPISODES + 2))
        for number, env in enumerate(many):
            await clients.put_back(one, str(number), env)
        assert [env.is_left for env in many[:3]] == [True, True, False]
        assert clients.take("kept") == (other, kept)

    asyncio.run(play())


def test_whoever_was_silent_for_longest_makes_room():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=60.0, max_clients=2)
        first, second = await clients.of("first"), await clients.of("second")
        [left, late] = resting(2)
        await clients.put_back(second, "left", left)
        first.last, second.last = 2.0 * 10**9, 10**9
        await clients.of("third")
        assert left.is_left
        assert clients.take("left") is None
        # A turn that was being answered meanwhile is nobody's any more.
        await clients.put_back(second, "late", late)
        assert late.is_left

    asyncio.run(play())


def test_whoever_is_silent_is_forgotten():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=0.01, max_clients=9)
        one = await clients.of("one")
        [env] = resting(1)
        await clients.put_back(one, "a", env)
        await asyncio.sleep(0.03)
        await clients.of("two")
        assert env.is_left
        assert await clients.of("one") is not one

    asyncio.run(play())


def test_a_client_is_known_by_nothing_but_a_session_that_the_server_gave():
    made_up = {"mcp-session-id": "mine"}
    assert _session_id(request("2025-11-25", **made_up)) == "mine"  # it was looked up
    assert _session_id(request("2026-07-28", **made_up)) == NO_SESSION
    assert _session_id(request("2027-01-01", **made_up)) == NO_SESSION
    assert _session_id(request("2026-07-28")) == NO_SESSION
    over_stdio = request("2025-11-25")
    over_stdio.request_context.request = None
    assert _session_id(over_stdio) == NO_SESSION


def test_all_without_a_session_share_a_budget_and_take_no_sessions_place():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=60.0, max_clients=1)
        session, nobody = await clients.of("session"), await clients.of(NO_SESSION)
        [kept] = resting(1)
        await clients.put_back(session, "kept", kept)
        assert await clients.of(NO_SESSION) is nobody
        many: list[Any] = list(resting(MAX_EPISODES + 1))
        for number, env in enumerate(many):
            await clients.put_back(nobody, str(number), env)
        assert [env.is_left for env in many[:2]] == [True, False]
        assert clients.take("kept") == (session, kept)
        # Nor does a session take theirs.
        await clients.of("another")
        assert clients.take("1") == (nobody, many[1])

    asyncio.run(play())


def test_clients_without_a_session_have_room_for_as_many_as_there_may_be():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=60.0, max_clients=3)
        nobody = await clients.of(NO_SESSION)
        many: list[Any] = list(resting(3 * MAX_EPISODES + 1))
        for number, env in enumerate(many):
            await clients.put_back(nobody, str(number), env)
        assert [env.is_left for env in many[:2]] == [True, False]

    asyncio.run(play())


def test_an_episode_that_waits_too_long_is_dropped_where_its_client_goes_on():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=60.0, max_clients=9)
        nobody = await clients.of(NO_SESSION)
        old, new = resting(2)
        await clients.put_back(nobody, "old", old)
        nobody.resting["old"] = -(10.0**9), old
        await clients.put_back(nobody, "new", new)
        assert await clients.of(NO_SESSION) is nobody
        assert (old.is_left, new.is_left) == (True, False)
        assert clients.take("old") is None
        assert clients.take("new") == (nobody, new)

    asyncio.run(play())


def test_a_client_that_waits_for_an_answer_is_not_silent():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=0.01, max_clients=9)
        one = await clients.of("one")
        with one.answered():
            await asyncio.sleep(0.03)
            await clients.of("two")
            assert await clients.of("one") is one

    asyncio.run(play())


def test_clients_that_come_side_by_side_forget_a_silent_one_once():
    async def play() -> None:
        clients = Clients(max_consults=7, idle_s=0.01, max_clients=9)
        held: list[Any] = [Holding(), Holding()]
        for number, env in enumerate(held):
            client = await clients.of(f"silent {number}")
            await clients.put_back(client, str(number), env)
        await asyncio.sleep(0.03)
        came = await asyncio.gather(*(clients.of(name) for name in "abc"))
        assert len({id(client) for client in came}) == 3
        assert [env.is_left for env in held] == [True, True]

    asyncio.run(play())


DENIED = '<reply from="knowledge">no consultations left</reply>'


def test_beyond_a_clients_budget_calls_are_denied_and_its_episodes_come_to_an_end():
    async def play() -> list[Any]:
        allowance, env = Allowance(1), toy()
        await start_told(env, 0, {"index": 0})
        asked = [await allowance.charged_turn(env, ASK) for _ in range(2)]
        ended = await allowance.charged_turn(env, "\\boxed{7623}")
        assert allowance == Allowance(0, 0, allowance.is_freed)
        return [each["observation"] for each in asked] + [ended["reward"]]

    assert asyncio.run(play()) == [REPLY, DENIED, 1.0]


def test_a_turn_of_more_calls_than_are_left_has_as_many_as_are_left():
    async def play() -> None:
        allowance, env = Allowance(2), toy()
        await start_told(env, 0, {"index": 0})
        told = await allowance.charged_turn(env, 3 * ASK)
        assert told["observation"] == REPLY + REPLY + DENIED
        assert allowance.num_left == 0

    asyncio.run(play())


def test_whose_budget_is_spent_may_play_without_agents():
    spent, env = Allowance(0), toy()
    for aided in (None, True):
        with pytest.raises(ConfigError, match="budget of consultations is spent"):
            spent.check(env, aided)
    spent.check(env, False)
    spent.check(toy(aided=False), None)
    Allowance(1).check(env, None)


class Gate:
    """An agent that answers when it may, and counts who waits."""

    agent_id = "gate"

    def __init__(self) -> None:
        self.num_waiting = 0
        self.may_answer = asyncio.Event()

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.num_waiting += 1
        await self.may_answer.wait()
        self.num_waiting -= 1
        return AgentReply(text="mele=#78#25;")

    async def wait_for(self, count: int) -> None:
        """Wait until so many wait, and a little for those that should not."""
        async with asyncio.timeout(20):
            while self.num_waiting < count:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("num_left", "num_at_once", "num_answered"),
    # An episode may consult three times.
    [(30, 4, 4), (12, 4, 4), (11, 3, 4), (3, 1, 3), (1, 1, 1), (0, 0, 0)],
)
def test_turns_of_a_client_go_side_by_side_within_its_budget(
    num_left: int, num_at_once: int, num_answered: int
):
    async def play() -> None:
        gate, allowance = Gate(), Allowance(num_left)
        env = toy(agents=gate, rules={"consult_budget": 3})
        envs = [copy.copy(env) for _ in range(4)]
        for one in envs:
            await start_told(one, 0, {"index": 0})
        turns = [asyncio.create_task(allowance.charged_turn(one, ASK)) for one in envs]
        await gate.wait_for(num_at_once)
        assert gate.num_waiting == num_at_once
        gate.may_answer.set()
        for turn in turns:
            await turn
        assert sum(one.num_consults for one in envs) == num_answered
        assert allowance.num_left == num_left - num_answered
        assert allowance.num_reserved == 0

    asyncio.run(play())


def test_a_turn_that_is_cancelled_gives_back_what_it_did_not_spend():
    async def play() -> None:
        gate, allowance = Gate(), Allowance(2)
        env = toy(agents=gate, rules={"consult_budget": 3})
        first, second = copy.copy(env), copy.copy(env)
        for one in (first, second):
            await start_told(one, 0, {"index": 0})
        given_up = asyncio.create_task(allowance.charged_turn(first, ASK))
        await gate.wait_for(1)
        waits = asyncio.create_task(allowance.charged_turn(second, ASK))
        await gate.wait_for(1)
        given_up.cancel()
        gate.may_answer.set()
        await waits
        assert (allowance.num_left, allowance.num_reserved) == (0, 0)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        (
            "1.30.0",
            (
                "aipo serve --mcp needs mcp 2.3 or a later 2.x, and 1.30.0 is"
                ' installed: pip install "aipo-rl[mcp]", in an environment without the'
                " extras openenv and verifiers. The extras mcp, openenv and verifiers"
                " exclude each other: the first needs mcp 2.3 or later, openenv one"
                " below 2, and verifiers 2.0.0 alone."
            ),
        ),
        ("2.2.9", "aipo serve --mcp needs mcp 2.3 or a later 2.x, and 2.2.9 is"),
        ("3.0.0rc1", "aipo serve --mcp needs mcp 2.3 or a later 2.x, and 3.0.0rc1 is"),
        (None, "aipo serve --mcp needs mcp, which is not installed: pip install"),
    ],
)
def test_another_mcp_names_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, told: str
):
    find = metadata.version

    def version(name: str) -> str:
        if name != "mcp":
            return find(name)
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("aipo_env.tools.mcp_tools.version", version)
    with pytest.raises(ConfigError) as refused:
        need_mcp("aipo serve --mcp")
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--openenv", "--stdio"), "serve: --stdio is for --mcp alone."),
        (("--mcp", "--openenv"), "serve: choose --mcp or --openenv."),
        ((), "serve: choose --mcp or --openenv."),
        (("--mcp", "--tokenizer", "words"), "tokenizer: 'words' is unknown."),
    ],
)
def test_what_cannot_be_served_is_said(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], told: str
):
    assert cli.main(["serve", *flags]) == 2
    assert told in capsys.readouterr().err
