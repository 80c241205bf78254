"""LLM agents behind an endpoint: what they send, what they take, what they keep to
themselves.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from aipo_env import (
    AGENTS,
    AgentError,
    AgentPool,
    AgentRequest,
    ConfigError,
    PoolLimits,
    build_agents,
    run_sync,
)
from aipo_env.agents.chat import whole_sentences
from aipo_env.tasks.toy import ToySource
from aipo_env.testing import FaultServer
from aipo_env.toy.world import World

pytest.importorskip("openai")
from aipo_env.agents.chat import ChatAgent

KEY = "sk-test-4f7a91"
SLOW = PoolLimits(deadline_s=60.0, retries=0, when_lost="unaided")
REQUEST = AgentRequest(
    kind="verify",
    query="So x = 4.",
    problem="What is x?",
    trace="I tried.",
    seed=11,
    key=(0, 1),
)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def ask(server: FaultServer, request: AgentRequest = REQUEST, **options: Any) -> Any:
    return asyncio.run(ChatAgent("tiny", server.url, **options).reply(request))


def test_a_request_is_one_chat_completion_with_the_roles_prompt():
    with FaultServer(text="right, it holds.") as server:
        reply = ask(server, temperature=0.5, max_tokens=99)
    [(headers, body)] = server.requests
    assert (reply.text, reply.tokens, reply.cost_usd) == ("right, it holds.", 3, 0.0)
    assert headers["authorization"] == f"Bearer {KEY}"
    system, user = body.pop("messages")
    assert body == {"model": "tiny", "max_tokens": 99, "temperature": 0.5, "seed": 11}
    assert system["role"] == "system"
    assert system["content"].startswith("You are the Verify Agent.")
    assert user == {
        "role": "user",
        "content": (
            "Problem:\nWhat is x?\n\nWork so far:\nI tried.\n\nClaim:\nSo x = 4."
        ),
    }


@pytest.mark.parametrize(
    ("kind", "begins", "shown"),
    [
        ("knowledge", "You are the Knowledge Agent.", "Question:\nSo x = 4."),
        (
            "reason",
            "You are the Reasoning",
            "Problem:\nWhat is x?\n\nWork so far:\nI tried.\n\nQuestion:\nSo x = 4.",
        ),
    ],
)
def test_each_role_sees_its_part(kind: str, begins: str, shown: str):
    with FaultServer() as server:
        mind = ChatAgent("tiny", server.url)
        roles = build_agents(mind, ToySource(World()))
        request = AgentRequest(
            kind=kind, query="So x = 4.", problem="What is x?", trace="I tried."
        )
        asyncio.run(roles[kind].reply(request))
    [(_, body)] = server.requests
    assert body["messages"][0]["content"].startswith(begins)
    assert body["messages"][1]["content"] == shown


def test_prompts_of_your_own_change_the_version_and_the_hash(tmp_path: Path):
    for kind in ("knowledge", "reason", "verify"):
        (tmp_path / f"{kind}.md").write_text(f"Be brief, {kind}.\n")
    with FaultServer() as server:
        ask(server, prompts=str(tmp_path))
    [(_, body)] = server.requests
    assert body["messages"][0] == {"role": "system", "content": "Be brief, verify."}
    ids = {
        ChatAgent("m", "http://h/v1", **options).agent_id
        for options in (
            {},
            {"prompts": str(tmp_path)},
            {"temperature": 0.0},
            {"max_tokens": 9},
        )
    }
    assert len(ids) == 4
    assert all(name.startswith("openai:m#") for name in ids)
    (tmp_path / "reason.md").unlink()
    with pytest.raises(ConfigError, match=r"the prompt .*reason\.md cannot be read"):
        ChatAgent("m", "http://h/v1", prompts=str(tmp_path))


def test_tokens_have_a_price():
    with FaultServer(text="one two three") as server:
        reply = ask(server, price_in=2.0, price_out=10.0)
    assert reply.cost_usd == pytest.approx((10 * 2.0 + 3 * 10.0) / 1e6)


def test_further_fields_are_added_and_taken_away():
    with FaultServer() as server:
        ask(
            server,
            extra={
                "max_tokens": None,
                "max_completion_tokens": 7,
                "seed": None,
                "top_k": 3,
            },
        )
    [(_, body)] = server.requests
    del body["messages"]
    assert body == {"model": "tiny", "max_completion_tokens": 7, "top_k": 3}


def sampled(token_ids: object, logprobs: object) -> dict:
    return {"token_ids": token_ids, "logprobs": {"content": logprobs}}


def test_what_a_server_sampled_is_kept_if_it_tells():
    choice = sampled(
        [7, 8], [{"token": "fi", "logprob": -0.5}, {"token": "ne", "logprob": -1}]
    )
    with FaultServer(choice=choice) as server:
        reply = ask(server, extra={"logprobs": True, "return_token_ids": True})
    assert (reply.text, reply.token_ids, reply.logprobs) == ("fine", (7, 8), (-0.5, -1))
    assert server.requests[0][1]["return_token_ids"] is True
    with FaultServer(choice=sampled([7, 8], [])) as server:
        assert (ask(server).token_ids, ask(server).logprobs) == ((7, 8), ())
    with FaultServer(choice=sampled(None, [{"logprob": -1}])) as server:
        assert (ask(server).token_ids, ask(server).logprobs) == ((), ())


@pytest.mark.parametrize(
    ("token_ids", "logprobs", "message"),
    [
        ([-1], [{"logprob": -1}], "token_ids that are no token ids"),
        (["7"], [{"logprob": -1}], "token_ids that are no token ids"),
        ([2**31], [{"logprob": -1}], "token_ids that are no token ids"),
        (5, [], "the response is no chat completion"),
        ([7], ["x"], "the response is no chat completion"),
        (
            [7],
            [{"logprob": 0.5}],
            "logprobs that are not one number up to 0 for each token",
        ),
        (
            [7],
            [{"logprob": None}],
            "logprobs that are not one number up to 0 for each token",
        ),
    ],
)
def test_tokens_that_are_none_are_no_reply(
    token_ids: object, logprobs: object, message: str
):
    with (
        FaultServer(choice=sampled(token_ids, logprobs)) as server,
        pytest.raises(AgentError, match=message),
    ):
        ask(server)


def test_thinking_is_no_reply():
    with FaultServer(text="<think>They want 42.</think>\nright.") as server:
        assert ask(server).text == "right."
    with FaultServer(text="<think>They want") as server:
        assert ask(server).text == ""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Add both. Then halve the su", "Add both."),
        ("Take 3.5 of it", "Take 3.5 of it"),
        ("Is it? Yes! Bu", "Is it? Yes!"),
        ("先加。然后", "先加。"),
        ("one line\ntwo li", "one line"),
        ("", ""),
    ],
)
def test_a_reply_that_was_cut_ends_with_a_sentence(text: str, kept: str):
    assert whole_sentences(text) == kept


def test_a_server_that_does_not_count_is_cut_short():
    with FaultServer(text="A step. " * 1_000) as server:
        assert ask(server, max_tokens=2).text == "A step. A step."


@pytest.mark.parametrize(
    ("model", "url"),
    [("Qwen/Qwen3:32b@http://h:8000/v1", ""), ("Qwen/Qwen3:32b", "http://h:8000/v1")],
)
def test_an_address_in_one_or_two_parts(model: str, url: str):
    agent = ChatAgent(model, url)
    assert (agent.model, agent.url) == ("Qwen/Qwen3:32b", "http://h:8000/v1")


def test_a_spec_names_the_factory_and_its_options():
    name = "openai" if "openai" in AGENTS.names() else "aipo_env.agents.chat:ChatAgent"
    agent = AGENTS.build(
        f"{name}:tiny@http://h/v1,temperature=0.7,max_tokens=50", source=None
    )
    assert (agent.model, agent.url, agent.temperature, agent.max_tokens) == (
        "tiny",
        "http://h/v1",
        0.7,
        50,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "m@http://user:secret@h/v1"}, "write openai:MODEL@URL"),
        ({"model": "m", "url": "ftp://secret"}, "write openai:MODEL@URL"),
        ({"model": "m", "url": "http://h/v1?key=secret"}, "write openai:MODEL@URL"),
        (
            {"model": "m@http://h/v1", "max_tokens": 0},
            "max_tokens=0 must be a whole number, at least 1",
        ),
        (
            {"model": "m@http://h/v1", "temperature": "hot"},
            "temperature='hot' must be a number",
        ),
        ({"model": "m@http://h/v1", "price_in": float("nan")}, "price_in=nan must be"),
        (
            {"model": "m@http://h/v1", "key_env": "sk-secret"},
            "key_env must name an environment variable",
        ),
        (
            {"model": "m@http://h/v1", "key_env": "NOT_SET_9"},
            "variable NOT_SET_9 is not set",
        ),
    ],
)
def test_what_cannot_be_used_is_named_without_secrets(options: dict, message: str):
    with pytest.raises(ConfigError, match=message) as refused:
        ChatAgent(**options)
    assert "secret" not in str(refused.value)


def test_a_key_is_needed_where_the_endpoint_has_no_url(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(
        ConfigError, match="the environment variable OPENAI_API_KEY is not set"
    ):
        ChatAgent("gpt")
    with FaultServer() as server:
        assert ask(server).text == "fine"
    assert server.requests[0][0]["authorization"] == "Bearer none"


def test_a_key_of_another_name_and_with_a_newline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "sk-mine\n")
    with FaultServer() as server:
        ask(server, key_env="MY_KEY")
    assert server.requests[0][0]["authorization"] == "Bearer sk-mine"
    monkeypatch.setenv("MY_KEY", "sk-mine\nX-Header: yes")
    with FaultServer() as server:
        ask(server, key_env="MY_KEY")
    assert server.requests[0][0]["authorization"] == "Bearer sk-mine"
    assert "x-header" not in server.requests[0][0]


def test_the_key_is_nowhere(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    said = []
    for fault, text in (("401", ""), ("reply", f"your key is {KEY}"), ("garbage", "")):
        with FaultServer([fault], text=text) as server:
            agent = ChatAgent("tiny", server.url)
            said.append(
                asyncio.run(AgentPool({"verify": agent}, SLOW).consult(REQUEST))
            )
            said += [agent, vars(agent)]
    assert KEY not in repr(said)
    assert KEY not in caplog.text
    assert said[0].error.startswith("lost: openai:tiny#")
    assert said[0].error.endswith("/v1: HTTP 401: 'refused: Bearer [key]'")
    assert said[3].reply.text == "your key is [key]"


def test_a_word_for_a_key_is_no_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with FaultServer(text="none of these") as server:
        assert ask(server).text == "none of these"


def test_connections_are_kept_within_a_loop_and_closed_with_it():
    async def twice() -> None:
        for number in range(2):  # agents at one endpoint share its connections
            await ChatAgent(f"tiny-{number}", server.url).reply(REQUEST)

    with FaultServer() as server:
        for _ in range(2):  # a training run opens a new event loop for every step
            asyncio.run(twice())
        run_sync(twice())
        assert len(server.requests) == 6
        assert server.num_connections == 3


def test_many_calls_at_once_are_limited_by_the_pool():
    async def ask_all(pool: AgentPool) -> list:
        requests = (
            AgentRequest(kind="verify", query=str(number), key=(number, 0))
            for number in range(100)
        )
        return await asyncio.gather(*map(pool.consult, requests))

    with FaultServer(delay_s=0.05) as server:
        limits = PoolLimits(concurrency=8, deadline_s=60.0, retries=0)
        outcomes = asyncio.run(
            ask_all(AgentPool({"verify": ChatAgent("tiny", server.url)}, limits))
        )
    assert {outcome.reply.text for outcome in outcomes} == {"fine"}
    assert len({body["messages"][1]["content"] for _, body in server.requests}) == 100
    assert 1 < server.most_open <= 8
