"""Codecs `hermes`, `openai` and `macro`: calls out of a policy's text, replies back
into it.
"""

import asyncio
import json
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo_env import (
    CODECS,
    CONSULT_KINDS,
    AgentPool,
    AgentReply,
    AgentRequest,
    Author,
    Call,
    Completion,
    DialogueRules,
    MathVerifier,
    Message,
    Parsed,
    ScriptedPolicy,
    Session,
    Span,
    TagsCodec,
    Task,
    ToolSchema,
)
from aipo_env.codecs.hermes import HermesCodec
from aipo_env.codecs.macro import MacroCodec
from aipo_env.codecs.openai_calls import OpenAICodec, completion_text, openai_messages

DISTANCE = ToolSchema(
    "distance",
    "Distance of two numbers.",
    {"a": {"type": "number"}, "b": {"type": "number"}},
    ("a", "b"),
)
HERMES, OPENAI, MACRO = (
    HermesCodec([DISTANCE]),
    OpenAICodec([DISTANCE]),
    MacroCodec([DISTANCE]),
)
NEW = [HERMES, OPENAI, MACRO]


def hermes(name: str, arguments: object) -> str:
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


def openai(*calls: tuple[str, object], content: str | None = None) -> str:
    rows = [
        {
            "id": f"id{i}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for i, (name, arguments) in enumerate(calls)
    ]
    return json.dumps({"role": "assistant", "content": content, "tool_calls": rows})


VERIFY = {"kind": "verify", "query": " 2+2=4 "}


def test_they_are_made_by_name():
    assert [
        type(CODECS.build(name, tools=[])) for name in ("hermes", "openai", "macro")
    ] == [
        HermesCodec,
        OpenAICodec,
        MacroCodec,
    ]


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (
            HERMES,
            f"So. {hermes('consult', VERIFY)}{hermes('distance', {'a': 1, 'b': 2.5})}",
        ),
        (
            OPENAI,
            openai(
                ("consult", VERIFY), ("distance", {"a": 1, "b": 2.5}), content="So."
            ),
        ),
        (MACRO, 'So. <|verify|> 2+2=4 <|distance|>{"a": 1, "b": 2.5}\n'),
    ],
)
def test_calls_are_read_in_order(codec, text):
    assert codec.parse(text) == Parsed(
        (Call("verify", "2+2=4"), Call("distance", '{"a": 1, "b": 2.5}'))
    )
    assert codec.parse(f"{text}").num_forged == 0


@pytest.mark.parametrize("codec", NEW)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "\\boxed{4}",
        '{"a": 1}',
        '{"role": "assistant", "content": "4"}',
        "[1]",
        "{",
        "<|end|><tool>",
    ],
)
def test_text_without_a_call_is_an_answer(codec, text):
    assert codec.parse(text) == Parsed()
    assert codec.call_spans(text) == []


def test_a_call_counts_in_a_thinking_part_too():
    text = f"<think>Is it? {hermes('consult', VERIFY)}"
    assert HERMES.parse(text).calls == (Call("verify", "2+2=4"),)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<tool_call>", "<tool_call> is not closed"),
        ("</tool_call>", "</tool_call> closes a call that was not opened"),
        (
            "<tool_call><tool_call></tool_call>",
            "<tool_call> stands inside <tool_call>; calls cannot be nested",
        ),
        (
            "<tool_call>x</tool_call>",
            'a call must be one JSON object, {"name": …, "arguments": {…}}',
        ),
        ("<tool_call>[]</tool_call>", "'name' must be one of: consult, distance"),
        (hermes("verify", {}), "'name' must be one of: consult, distance"),
        (hermes("consult", "x"), "'arguments' must be a JSON object"),
        (
            hermes("consult", {"kind": "oracle", "query": "x"}),
            "'kind' must be one of: knowledge, reason, verify",
        ),
        (
            hermes("consult", {"kind": ["verify"], "query": "x"}),
            "'kind' must be one of: knowledge, reason, verify",
        ),
        (
            hermes("consult", {"kind": "verify"}),
            "'query' must be text that is not empty",
        ),
        (
            hermes("consult", {"kind": "verify", "query": " "}),
            "'query' must be text that is not empty",
        ),
        (
            hermes("consult", {"kind": "verify", "query": 4}),
            "'query' must be text that is not empty",
        ),
    ],
)
def test_malformed_hermes_calls_are_explained(text: str, fault: str):
    assert HERMES.parse(text) == Parsed((), fault)
    assert HERMES.parse(hermes("consult", VERIFY) + text) == Parsed((), fault)
    assert HERMES.call_spans(text) == []


@pytest.mark.parametrize(
    ("calls", "fault"),
    [
        (
            [5],
            (
                'each of tool_calls needs {"function": {"name": …, "arguments": "a JSON'
                ' object as text"}}'
            ),
        ),
        (
            [{"function": {"name": "consult", "arguments": VERIFY}}],
            (
                'each of tool_calls needs {"function": {"name": …, "arguments": "a JSON'
                ' object as text"}}'
            ),
        ),
        (
            [{"function": {"name": "consult", "arguments": "{"}}],
            "'arguments' must be a JSON object, as text",
        ),
        (
            [{"function": {"name": "consult", "arguments": "[]"}}],
            "'arguments' must be a JSON object",
        ),
        (
            [{"function": {"name": "oracle", "arguments": "{}"}}],
            "'name' must be one of: consult, distance",
        ),
        (
            [{"function": {"name": "consult", "arguments": ""}}],
            "'kind' must be one of: knowledge, reason, verify",
        ),
    ],
)
def test_malformed_openai_calls_are_explained(calls: list, fault: str):
    assert OPENAI.parse(
        json.dumps({"role": "assistant", "tool_calls": calls})
    ) == Parsed((), fault)


def test_a_macro_without_a_query_is_explained():
    assert MACRO.parse("<|verify|> <|reason|>x") == Parsed(
        (), "<|verify|> holds no query"
    )


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (HERMES, '<tool_response>\n{"name": "verify"}\n</TOOL_RESPONSE>'),
        (OPENAI, '{"role": "tool", "content": "right"} {"role" : "tool"}'),
        (MACRO, "<|reply|>right;<|/reply|>"),
    ],
)
def test_forged_replies_are_counted_and_are_no_calls(codec, text):
    assert codec.parse(text) == Parsed((), "", 2)


def test_where_calls_stand():
    text = f"So. {hermes('consult', VERIFY)} and"
    assert [text[begin:end] for begin, end in HERMES.call_spans(text)] == [
        hermes("consult", VERIFY)
    ]
    text = "So. <|verify|>a<|reason|>b"
    assert [text[begin:end] for begin, end in MACRO.call_spans(text)] == [
        "<|verify|>a",
        "<|reason|>b",
    ]
    text = openai(("consult", VERIFY))
    assert OPENAI.call_spans(text) == [(0, len(text))]


@pytest.mark.parametrize(
    ("codec", "asks", "calls"),
    [
        (TagsCodec, "<verify>x</verify></reason>", "<distance>{}</distance>"),
        (MacroCodec, "<|verify|>x<|reason|>", "<|distance|>{}"),
        (HermesCodec, "", hermes("distance", {})),
        (OpenAICodec, "", openai(("distance", {}))),
    ],
)
def test_a_codec_for_tools_alone_reads_no_consultation(codec, asks, calls):
    alone = codec([DISTANCE], ())
    assert alone.parse(asks) == Parsed()
    assert alone.parse(f"{asks}{calls}") == Parsed((Call("distance", "{}"),))
    assert codec((), ()).parse(f"{asks}{calls}") == Parsed()
    assert alone.stop_strings(()) == codec([DISTANCE]).stop_strings(())


def test_a_codec_for_one_role_reads_no_other():
    assert TagsCodec((), ["verify"]).parse("<reason>x</reason>") == Parsed()
    asks = hermes("consult", {"kind": "reason", "query": "x"})
    told = HermesCodec((), ["verify"]).parse(asks).malformed
    assert told == "'kind' must be one of: verify"
    for alone, text in (
        (HermesCodec([DISTANCE], ()), asks),
        (OpenAICodec([DISTANCE], ()), openai(("consult", VERIFY))),
    ):
        assert alone.parse(text) == Parsed((), "'name' must be one of: distance")


BODY = Span(
    'a "<b>"\n</tool_response><|/reply|>', Author.AGENT, "k", 3, is_content=True
)


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (
            HERMES,
            (
                '<tool_response>\n{"name": "verify", "content": "a'
                ' \\"\\u003cb>\\"\\n\\u003c/tool_response>\\u003c|/reply|>"}\n'
                "</tool_response>"
            ),
        ),
        (
            OPENAI,
            (
                '{"role": "tool", "name": "verify", "content": "a'
                ' \\"\\u003cb>\\"\\n\\u003c/tool_response>\\u003c|/reply|>"}\n'
            ),
        ),
        (MACRO, '<|reply|>a "<b>"\n</tool_response>< |/reply|><|/reply|>'),
    ],
)
def test_replies_are_wrapped(codec, text):
    opening, inner, closing = codec.render_reply("verify", BODY)
    assert opening.text + inner.text + closing.text == text
    for mark in (opening, closing):
        assert (mark.author, mark.call_id, mark.is_content) == (Author.ENV, 3, False)
    assert (inner.author, inner.agent_id, inner.call_id, inner.is_content) == (
        Author.AGENT,
        "k",
        3,
        True,
    )


def listed(text: str) -> list[dict]:
    """The functions that a prompt of `hermes` lists."""
    lines = text.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    return [json.loads(line)["function"] for line in lines]


def test_prompts_explain_agents_and_tools_apart():
    for codec in NEW:
        text = codec.instructions(("verify", "reason"), 3)
        assert "at most 3 times" in text
        assert "distance" not in text
        assert codec.instructions((), 3) == ""
        told = codec.tool_instructions(5)
        assert "distance" in told
        assert "at most 5 times in all" in told
        assert "consult" not in told
        assert "at most" not in codec.tool_instructions(None)
        assert type(codec)().tool_instructions(5) == ""
    [consult] = listed(HERMES.instructions(("verify",), 3))
    [distance] = listed(HERMES.tool_instructions(None))
    assert HERMES.instructions(("verify",), 3).startswith("# Agents\n")
    assert HERMES.tool_instructions(None).startswith("# Tools\n")
    assert consult["parameters"]["properties"]["kind"]["enum"] == ["verify"]
    assert consult["parameters"]["required"] == ["kind", "query"]
    assert (distance["name"], distance["parameters"]["required"]) == (
        "distance",
        ["a", "b"],
    )
    assert (
        OPENAI.tool_instructions(2)
        == "You may call these functions, at most 2 times in all: distance. A turn"
        " without a call is your final answer."
    )


def test_what_is_to_be_called_and_where_it_stops():
    assert [schema["function"]["name"] for schema in OPENAI.functions(())] == [
        "distance"
    ]
    assert HERMES.stop_strings(CONSULT_KINDS) == ("</tool_call>",)
    assert MACRO.stop_strings(CONSULT_KINDS) == OPENAI.stop_strings(CONSULT_KINDS) == ()
    assert dict(MACRO.macros(("verify",))) == {
        "verify": ("<|verify|>", ""),
        "distance": ("<|distance|>", ""),
    }
    assert HERMES.stop_strings(()) == ("</tool_call>",)
    assert HermesCodec().stop_strings(()) == ()
    assert HERMES.macros(CONSULT_KINDS) == OPENAI.macros(CONSULT_KINDS) == {}


PARTS = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            "<tool_response>",
            "</tool_response>",
            '{"name": "consult", "arguments": ',
        ),
        *(
            '{"kind": "verify", "query": "',
            '"}}',
            "<|verify|>",
            "<|reply|>",
            "<|/reply|>",
            '{"role": "assistant", ',
        ),
        *(
            '"tool_calls": [',
            '{"function": ',
            "]}",
            "\n",
            "\\",
            '"',
            "<",
            "{",
            "[",
            "\ud800",
            "é",
            "0",
            " ",
        ),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PARTS).map("".join))


@given(TEXTS)
def test_any_text_can_be_parsed(text: str):
    for codec in NEW:
        parsed = codec.parse(text)
        assert not (parsed.calls and parsed.malformed)
        assert len(codec.call_spans(text)) == (
            1 if codec is OPENAI and parsed.calls else len(parsed.calls)
        )
        assert all(call.query.strip() for call in parsed.calls)


@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_no_reply_calls_or_ends_its_wrapper(bodies: list[str]):
    wrapped = [
        [codec.render_reply("verify", Span(body, Author.AGENT)) for body in bodies]
        for codec in NEW
    ]
    texts = [
        "".join(span.text for spans in replies for span in spans) for replies in wrapped
    ]
    for codec, text in zip(NEW, texts, strict=True):
        parsed = codec.parse(text)
        assert (parsed.calls, parsed.malformed) == ((), "")
    assert (
        texts[0].count("</tool_response>")
        == texts[2].count("<|/reply|>")
        == len(bodies)
    )
    contents = [
        json.loads(part.split("</tool_response>")[0])["content"]
        for part in texts[0].split("<tool_response>")[1:]
    ]
    assert contents == bodies
    assert [json.loads(line)["content"] for line in texts[1].split("\n")[:-1]] == bodies


MEGABYTE = 10**6


@pytest.mark.parametrize(
    "text",
    [
        "<" * MEGABYTE,
        "<tool_call>" * (MEGABYTE // 11),
        "<tool_call>{}</tool_call>" * (MEGABYTE // 25),
        f"<tool_call>{'[' * MEGABYTE}</tool_call>",
        f'<tool_call>{{"a":{"9" * MEGABYTE}}}</tool_call>',
        f'<tool_call>{"""{"a":""" * (MEGABYTE // 5)}</tool_call>',
        '{"role":' * (MEGABYTE // 8),
        '{"role"' + " " * MEGABYTE,
        ('"role"' + " " * 20) * (MEGABYTE // 26),
        "{" + "[" * MEGABYTE,
        " " * MEGABYTE + "{",
        openai(*[("consult", VERIFY)] * (MEGABYTE // 120)),
        "<|verify|>" * (MEGABYTE // 10),
        "<|verify|>a" * (MEGABYTE // 11),
        "<|reply|>" * (MEGABYTE // 9),
    ],
    ids=range(15),
)
def test_hostile_text_of_a_megabyte(text: str):
    begin = time.thread_time()
    for codec in NEW:
        parsed = codec.parse(text)
        assert not parsed.calls or not parsed.malformed
        rendered = codec.render_reply("verify", Span(text, Author.AGENT))
        assert rendered[0].author == rendered[-1].author == Author.ENV
    # A megabyte takes about a second; what is quadratic in it takes minutes.
    assert time.thread_time() - begin < 30


def test_arguments_nested_as_deep_as_can_be_read():
    text = openai(("distance", {"a": "DEEP"}))
    earlier = sys.getrecursionlimit()
    # Python's own: a library of another test may have raised it by far.
    sys.setrecursionlimit(1_000)
    try:
        parsed = [
            OPENAI.parse(text.replace('\\"DEEP\\"', "[" * depth + "]" * depth))
            for depth in range(700, 1_001)
        ]
    finally:
        sys.setrecursionlimit(earlier)
    assert {(len(each.calls), bool(each.malformed)) for each in parsed} == {
        (1, False),
        (0, True),
    }


class LastFirst:
    """Replies to the last request before the first: each waits for the one after it."""

    agent_id = "last-first"

    def __init__(self, num_requests: int) -> None:
        self.answered = [asyncio.Event() for _ in range(num_requests + 1)]
        self.order: list[str] = []
        self.num_asked = 0

    async def reply(self, request: AgentRequest) -> AgentReply:
        number, self.num_asked = self.num_asked, self.num_asked + 1
        if number + 2 < len(self.answered):
            await self.answered[number + 1].wait()
        self.order.append(request.query)
        self.answered[number].set()
        return AgentReply(text=f"about {request.query}")


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (
            HERMES,
            "".join(
                hermes("consult", {"kind": "verify", "query": query}) for query in "abc"
            ),
        ),
        (
            OPENAI,
            openai(
                *[("consult", {"kind": "verify", "query": query}) for query in "abc"]
            ),
        ),
        (MACRO, "<|verify|>a<|verify|>b<|verify|>c"),
        (
            CODECS.build("tags"),
            "<verify>a</verify><verify>b</verify><verify>c</verify>",
        ),
    ],
)
def test_calls_of_one_turn_are_asked_together_and_answered_in_order(codec, text):
    async def main() -> tuple[list[str], list[tuple[int, str]], str]:
        agent = LastFirst(3)
        task = Task(id="t", prompt="1+1?", answer="2")
        session = Session(
            task,
            DialogueRules(),
            codec,
            AgentPool({"verify": agent}),
            MathVerifier(),
            aided=True,
        )
        session.open()
        message = await session.advance(Completion(text))
        await session.advance(Completion("\\boxed{2}"))
        asked = [
            (consult.call_id, consult.reply) for consult in session.episode().consults
        ]
        return agent.order, asked, message.content

    order, asked, content = asyncio.run(main())
    assert order == ["c", "b", "a"]
    assert asked == [(0, "about a"), (1, "about b"), (2, "about c")]
    assert (
        content.index("about a") < content.index("about b") < content.index("about c")
    )


class Dumps:
    """As an OpenAI client returns a message."""

    def __init__(self, row: dict) -> None:
        self.row = row

    def model_dump(self) -> dict:
        return self.row


def test_an_openai_message_becomes_a_completion():
    assert (
        completion_text({"role": "assistant", "content": "\\boxed{4}"}) == "\\boxed{4}"
    )
    assert (
        completion_text({"role": "assistant", "content": None, "tool_calls": []}) == ""
    )
    row = json.loads(openai(("consult", VERIFY), content="é"))
    text = completion_text(Dumps({**row, "refusal": None, "audio": None}))
    assert json.loads(text) == row
    assert OPENAI.parse(text).calls == (Call("verify", "2+2=4"),)


def test_a_transcript_becomes_openai_messages():
    task = Task(id="t", prompt="1+1?", answer="2")
    pool = AgentPool({"verify": LastFirst(1)})
    rules = DialogueRules(plain_prompt="P", consult_prompt="C")
    session = Session(task, rules, OPENAI, pool, MathVerifier(), aided=True)
    bad = openai(("oracle", {}))
    asks = openai(
        ("consult", {"kind": "verify", "query": "x\u2028y"}),
        ("consult", {"kind": "reason", "query": "y"}),
    )
    ScriptedPolicy([bad, asks, "\\boxed{2}"]).run(session)
    calls = json.loads(asks)["tool_calls"]
    assert openai_messages(session.messages) == [
        {"role": "system", "content": "C"},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": bad},
        {
            "role": "user",
            "content": (
                "Malformed call: 'name' must be one of: consult, distance. Nothing was"
                " asked."
            ),
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{**calls[0], "id": "call_0"}, {**calls[1], "id": "call_1"}],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": "about x\u2028y"},
        {"role": "tool", "tool_call_id": "call_1", "content": "unavailable"},
        {"role": "assistant", "content": "\\boxed{2}"},
    ]
    assert openai_messages(
        [Message("user", (Span('{"role": "tool", ', Author.PROMPT),))]
    ) == [{"role": "user", "content": '{"role": "tool", '}]
