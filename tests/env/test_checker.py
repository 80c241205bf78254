"""The conformance kit accepts what keeps to its protocol, and names the rule that
anything else breaks.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from aipo_env import (
    AgentReply,
    AgentRequest,
    Call,
    CannedAgent,
    EpisodeView,
    FaultyAgent,
    MathVerifier,
    Parsed,
    PoolLimits,
    Span,
    Split,
    TagsCodec,
    Task,
    Verdict,
    checker,
)
from aipo_env.checker import (
    check_agent,
    check_codec,
    check_task_source,
    check_tool,
    check_verifier,
)
from aipo_env.codecs.hermes import HermesCodec
from aipo_env.codecs.macro import MacroCodec
from aipo_env.codecs.openai_calls import OpenAICodec


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is found at once."""
    monkeypatch.setattr(checker, "LIMITS", PoolLimits(deadline_s=0.3, retries=0))


class Agent:
    """Keeps to the protocol; each test breaks one thing."""

    agent_id = "librarian"

    def __init__(self, way: str = "") -> None:
        self.way, self.count = way, itertools.count()
        self.is_deterministic = way in ("", "moody")

    async def reply(self, request: AgentRequest) -> AgentReply:
        if self.way == "blocks":
            time.sleep(0.15)
        if self.way == "deaf":
            await self.shielded()
        if self.way == "exits" and not request.query:
            sys.exit(1)
        if self.way == "hangs" and len(request.query) > 50_000:
            await asyncio.Event().wait()
        if not request.query.strip():
            raise ValueError("no query")
        return AgentReply(
            text=f"It is {next(self.count) if self.way == 'moody' else 42}."
        )

    async def shielded(self) -> None:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()


def test_agents_that_keep_to_the_protocol():
    check_agent(Agent())
    check_agent(CannedAgent("fine"), kind="verify")
    check_agent("scripted", query="mele")
    check_agent({"type": "scripted", "wrong": 0.5}, kind="reason", query="zura")


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (
            Agent("moody"),
            "equal requests get unequal replies. Draw from `request.seed` alone",
        ),
        (Agent("deaf"), "goes on when cancelled. Let asyncio.CancelledError pass"),
        (Agent("exits"), "asked '': SystemExit: 1. Reply, or raise an Exception"),
        (
            Agent("hangs"),
            "asked '99999999999999999999': no reply within 0.3 s. Reply, or raise",
        ),
        (CannedAgent("fine", agent_id=""), "agent_id is ''. Give it a text"),
        (
            FaultyAgent("raise"),
            (
                "asked 'What is 6 times 7.': ValueError: boom. Check it with a query"
                " that it answers"
            ),
        ),
        (FaultyAgent("hang"), "no reply within 0.3 s"),
        (FaultyAgent("junk"), "no AgentReply, but dict"),
        (FaultyAgent("cancel"), "the agent cancelled itself"),
    ],
    # No addresses: the tests are collected by several processes.
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_agents_that_break_a_rule(agent: Any, message: str):
    with pytest.raises(AssertionError, match=message):
        check_agent(agent)


def test_an_agent_that_blocks_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checker, "MAX_BLOCKED_S", 0.1)
    message = (
        r"blocks the event loop for 0.\d s. Await what takes time, or run it by"
        r" asyncio.to_thread"
    )
    with pytest.raises(AssertionError, match=message):
        check_agent(Agent("blocks"))


def half(number: int) -> float:
    """Half of an even number."""
    if number % 2:
        raise ValueError("odd")
    return number / 2


def unjson(number: int) -> set:
    """A set."""
    return {number}


def leave(number: int) -> None:
    """Leave."""
    sys.exit(number)


async def linger(number: int) -> None:
    """Wait."""
    await asyncio.Event().wait()


class Shelf:
    """Books of one episode."""

    def __init__(self, task: Task) -> None:
        self.prompt = task.prompt
        if task.prompt == "lost":
            raise ValueError("no shelf")

    def take(self, title: Literal["red", "blue"], copies: int | None = None) -> str:
        """Take a book."""
        if title == "blue":
            raise ValueError("gone")
        return f"{title} {copies} {self.prompt}"

    def count(self) -> int:
        """How many there are."""
        return 2


class Set:
    """One method that returns what has no JSON form."""

    def all(self) -> set:
        """Everything."""
        return {1}


def test_tools_that_keep_to_the_protocol():
    check_tool(Shelf)
    check_tool(f"{__name__}:Shelf", method="take", arguments={"title": "red"})
    check_tool(half)
    check_tool(half, arguments={"number": 4})
    check_tool(f"{__name__}:half")


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        (
            half,
            {"number": 3},
            r"given {'number': 3}: error: ValueError: odd. Answer them",
        ),
        (
            half,
            {"numbr": 4},
            "there is no argument 'numbr'. Valid: number.* Answer them",
        ),
        (
            unjson,
            None,
            "Object of type set is not JSON serializable. Return text or what JSON has",
        ),
        (leave, None, "SystemExit: 1. Return in time, or raise an Exception"),
        (linger, None, "no reply within 0.3 s. Return in time"),
    ],
)
def test_tools_that_break_a_rule(tool: Any, arguments: dict | None, message: str):
    with pytest.raises(AssertionError, match=message):
        check_tool(tool, arguments=arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tool": Shelf, "method": "take", "arguments": {"title": "blue"}},
            (
                "tool 'take': given {'title': 'blue'}: error: ValueError: gone. Answer"
                " them"
            ),
        ),
        (
            {"tool": Shelf, "arguments": {"title": "red"}},
            "'' is none of take, count. Name the method",
        ),
        ({"tool": Set}, "tool 'all': .* set is not JSON serializable"),
        (
            {"tool": Shelf, "task": Task(id="t", prompt="lost", answer="1")},
            (
                "tool class 'Shelf': it could not be made for task 't': ValueError: no"
                " shelf"
            ),
        ),
    ],
)
def test_classes_that_break_a_rule(options: dict, message: str):
    with pytest.raises(AssertionError, match=message):
        check_tool(options.pop("tool"), **options)


class Source:
    """Three tasks to train on and two to test; each test breaks one thing."""

    def __init__(self, **ways: Any) -> None:
        self.ways, self.count = ways, itertools.count()

    def num_tasks(self, split: Split) -> Any:
        return self.ways.get("sizes", {"train": 3, "test": 2})[split]

    def task(self, split: Split, index: int) -> Any:
        if "junk" in self.ways:
            return {"id": "1"}
        size = self.num_tasks(split) or 10**9
        number = index % (size + self.ways.get("extra", 0))
        draw = f", draw {next(self.count)}" if "random" in self.ways else ""
        return Task(
            id=self.ways.get("id", f"{split}-{number}"),
            prompt=f"{self.ways.get('prefix', split)} {number}{draw}",
            answer="1",
            meta=self.ways.get("meta", {}),
        )


def test_sources_that_keep_to_the_protocol():
    check_task_source(Source())
    check_task_source(Source(sizes={"train": None, "test": 0}), num=10)
    check_task_source(Source(sizes={"train": 1, "test": 1}))
    check_task_source("toy:difficulty=2")


@pytest.mark.parametrize(
    ("ways", "message"),
    [
        ({"junk": True}, r"task\('train', 0\) is dict. Return a Task"),
        (
            {"random": True},
            r"task\('train', 0\) differs from call to call. Draw by the index alone",
        ),
        ({"id": "same"}, "the id 'same' comes twice. Make ids unique"),
        ({"prefix": "both"}, "task 'test-0' is in both splits. Keep the splits apart"),
        ({"extra": 1}, "task 3 of train is not task 0. Count round and round"),
        (
            {"sizes": {"train": 3, "test": 1.5}},
            r"num_tasks\('test'\) is 1.5. Return a fixed count, or None",
        ),
        ({"sizes": {"train": -1, "test": 2}}, r"num_tasks\('train'\) is -1"),
        ({"sizes": {"train": 0, "test": 0}}, "neither split has a task"),
        (
            {"meta": {"when": Source}},
            "meta has no JSON form: .* Keep plain values in it",
        ),
        ({"meta": {"x": float("nan")}}, "meta has no JSON form"),
    ],
)
def test_sources_that_break_a_rule(ways: dict, message: str):
    with pytest.raises(AssertionError, match=message):
        check_task_source(Source(**ways))


class Judge:
    """Keeps to the protocol; each test breaks one thing."""

    def __init__(self, way: str) -> None:
        self.way, self.count = way, itertools.count()

    async def verify(self, task: Task, text: str) -> Any:
        verdict = await MathVerifier().verify(task, text)
        if self.way == "raises" and "\ud83d" in text:
            text.encode()
        if self.way == "junk":
            return True
        if self.way == "moody":
            return Verdict(
                correct=True, reward=1.0, status="correct", reason=str(next(self.count))
            )
        if self.way in ("yes", "no"):
            correct = self.way == "yes"
            return Verdict(
                correct=correct,
                reward=float(correct),
                status="correct" if correct else "wrong",
            )
        return verdict


def test_verifiers_that_keep_to_the_protocol():
    check_verifier("math")
    check_verifier(
        Judge(""),
        task=Task(id="a", prompt="?", answer="x"),
        right="\\boxed{x}",
        wrong=["x"],
    )


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (
            "raises",
            (
                r"given 'half \\ud83d pair', it raises UnicodeEncodeError.* Return a"
                r" Verdict that says so"
            ),
        ),
        ("junk", "it returns True. Return a Verdict"),
        ("moody", "its verdicts differ. Decide by the arguments alone"),
        (
            "yes",
            (
                r"given '.*43}', it says Verdict\(correct=True.* Refuse what is not the"
                r" gold answer"
            ),
        ),
        (
            "no",
            r"given '.*42}', it says Verdict\(correct=False.* Accept the gold answer",
        ),
    ],
)
def test_verifiers_that_break_a_rule(way: str, message: str):
    with pytest.raises(AssertionError, match=message):
        check_verifier(Judge(way))


def half_right(task: Task, text: str) -> dict[str, float]:
    boxed = text.partition("boxed{")[2]
    return {"answer": 1.0 if boxed == task.answer + "}" else 0.0, "boxed": bool(boxed)}


def test_reward_functions_that_keep_to_the_protocol():
    def exact(task: Task, text: str) -> bool:
        return text == task.answer

    def penal(task: Task, text: str, episode: EpisodeView) -> dict[str, Any]:
        assert [message.content for message in episode.messages] == [task.prompt, text]
        assert (episode.task, episode.answer) == (task, text)
        return {"loss": -0.5 if text == "42" else -1.0, "correct": text == "42"}

    check_verifier(exact, right="42")
    check_verifier(penal, right="42")
    check_verifier({"type": f"{__name__}:half_right", "threshold": 2.0})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda task, text: float(text),
            (
                r"given '.*43}', it fails with status 'error': reward function"
                r" '<lambda>' raised ValueError.*Verdict. Judge every text"
            ),
        ),
        (
            lambda task, text: {"r": 1.0, "correct": text == "42"},
            (
                "given '.*43}', the reward is 1.0, and 1.0 for the gold answer. Reward"
                " what is not the gold answer less"
            ),
        ),
        (
            lambda task, text: 2.0 if text == "42" else 1.0,
            "given '.*43}', it says Verdict.*correct=True.* Refuse what is not",
        ),
        (
            lambda task, text: 0.3,
            "it says Verdict.*correct=False.*Accept the gold answer",
        ),
        (lambda task, text: None, "it fails with status 'error': .* returned None"),
    ],
)
def test_reward_functions_that_break_a_rule(function: Any, message: str):
    with pytest.raises(AssertionError, match=message):
        check_verifier(function, right="42")


def hermes_call(kind: str, query: str) -> str:
    call = {"name": "consult", "arguments": {"kind": kind, "query": query}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


def openai_call(kind: str, query: str) -> str:
    function = {
        "name": "consult",
        "arguments": json.dumps({"kind": kind, "query": query}),
    }
    return json.dumps(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "function": function}],
        }
    )


def test_our_codecs_keep_to_the_protocol():
    check_codec("tags")
    check_codec("macro")
    check_codec(MacroCodec())
    check_codec("hermes", write_call=hermes_call)
    check_codec(HermesCodec(), write_call=hermes_call)
    check_codec(OpenAICodec(), write_call=openai_call)


class Tags(TagsCodec):
    """Breaks one thing."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def macros(self, kinds: Sequence[Any]) -> Mapping[str, tuple[str, str]]:
        return {} if self.way == "no macros" else super().macros(kinds)

    def stop_strings(self, kinds: Sequence[Any]) -> tuple[str, ...]:
        return ("<stop>",) if self.way == "no stop" else super().stop_strings(kinds)

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        spans = super().call_spans(text)
        return (
            [(begin + 1, end) for begin, end in spans] if self.way == "spans" else spans
        )

    def parse(self, text: str) -> Parsed:
        parsed = super().parse(text)
        if self.way == "raises":
            text.encode()
        if self.way == "strips":
            return Parsed(
                tuple(
                    Call(call.kind, call.query.replace("\n", " "))
                    for call in parsed.calls
                )
            )
        if self.way == "greedy" and "boxed" in text:
            return Parsed((Call("verify", text),))
        return (
            Parsed(parsed.calls, parsed.malformed) if self.way == "forged" else parsed
        )

    def instructions(self, kinds: Sequence[Any], budget: int) -> str:
        told = super().instructions(kinds, budget)
        return f"{told} Or look words up." if self.way == "talkative" else told

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        opening, inner, closing = super().render_reply(kind, body)
        if self.way == "open wrapper":
            return opening, body, closing
        if self.way == "anonymous":
            return opening, Span(inner.text, inner.author, is_content=True), closing
        if self.way == "unnumbered":
            return opening, inner, replace(closing, call_id=-1)
        return opening, inner, closing


class KnowsAll(TagsCodec):
    """Reads calls to roles that it was not made for."""

    def __init__(self, tools: Sequence[Any] = (), kinds: Sequence[Any] = ()) -> None:
        super().__init__(tools)


def test_a_codec_that_reads_calls_to_roles_it_was_not_made_for():
    message = r"made with kinds=\(\), it reads Parsed\(calls=\(Call\(kind='verify'"
    with pytest.raises(AssertionError, match=message):
        check_codec(f"{__name__}:KnowsAll")


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("no macros", "has no macros to write a call with. Give `write_call`"),
        ("no stop", "none of .* ends the call '<knowledge>.*'. Stop where a call ends"),
        ("spans", r"spans \[\(1, 41\)\]. Span it whole"),
        ("strips", r"is read as Parsed.* It must be Call"),
        ("greedy", "a plain answer is read as .* Leave text without marks alone"),
        (
            "forged",
            "a reply that the policy writes is read as Parsed.* Set num_forged alone",
        ),
        ("open wrapper", "a reply that holds '</reply>' ends there. Break the mark up"),
        ("anonymous", "Keep the body's marks; the wrapper is Author.ENV"),
        ("unnumbered", "the wrapper is Author.ENV, with the body's call_id"),
        ("talkative", "instructions without agents are '.*'. Explain how to consult"),
        ("raises", "parse raises UnicodeEncodeError.* Call it malformed"),
    ],
)
def test_codecs_that_break_a_rule(way: str, message: str):
    with pytest.raises(AssertionError, match=message):
        check_codec(Tags(way))


def test_a_codec_whose_time_grows_with_the_square(monkeypatch: pytest.MonkeyPatch):
    clock = SimpleNamespace(process_time=lambda: clock.now, now=0.0)

    class Quadratic(TagsCodec):
        def parse(self, text: str) -> Parsed:
            clock.now += len(text) ** 2 / 2**31
            return super().parse(text)

    monkeypatch.setattr(checker, "time", clock)
    with pytest.raises(
        AssertionError, match=r"131072 characters of .* take 8 s. Scan the text once"
    ):
        check_codec(Quadratic())
