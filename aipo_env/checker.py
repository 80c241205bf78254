"""Does a plug-in keep to its protocol? Functions to call in its tests; the pytest
plug-in calls them as well.

def test_librarian():
    check_agent("my_package:Librarian", query="What is a torsor?")

Each takes a component or a spec that names one, and raises AssertionError that says
which rule is broken and how to mend it. What cannot be built at all raises ConfigError.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from aipo_env.agents.base import Agent, AgentRequest
from aipo_env.agents.pool import AgentPool, PoolLimits
from aipo_env.codecs.base import Codec, Parsed, ToolSchema
from aipo_env.errors import ToolError
from aipo_env.event_loop import run_sync
from aipo_env.records import (
    CONSULT_KINDS,
    Author,
    Call,
    ConsultKind,
    Message,
    Span,
    Split,
    Task,
    Verdict,
)
from aipo_env.registry import AGENTS, CODECS, Spec
from aipo_env.tasks.base import TaskSource, build_source
from aipo_env.tools.hints import fits
from aipo_env.tools.toolbox import Toolbox, build_tools
from aipo_env.verifiers.base import EpisodeView, Verifier, call_with_episode
from aipo_env.verifiers.build import build_verifier

LIMITS = PoolLimits(deadline_s=20.0, retries=0, when_lost="unaided")
MAX_BLOCKED_S = 1.0
MAX_PARSE_S = 5.0
"""Processor time for a text. A quadratic parser needs hours for a megabyte, so shorter
ones come first.
"""
ODD_TEXTS = (
    "",
    " \n",
    "\0\x1b[2J",
    "half \ud83d pair",
    "{" * 5_000,
    "\\boxed{" * 5_000,
    "9" * 100_000,
)
"""What models write when they go astray."""
LOOKUP = ToolSchema(
    "lookup", "Look a word up.", {"word": {"type": "string"}}, ("word",)
)
SUM = Task(id="sum", prompt="What is 6 times 7?", answer="42")


def _rule(holds: object, broken: str, mend: str) -> None:
    if not holds:
        raise AssertionError(f"{broken}. {mend}")


def check_agent(
    agent: Spec | Agent,
    *,
    kind: ConsultKind = "knowledge",
    query: str = SUM.prompt,
    source: Spec | TaskSource = "toy",
) -> None:
    """Check an agent that answers `query` in the role `kind`; `source` is given to one
    that asks for it.

    It has a name, replies in time without blocking the event loop, can be cancelled,
    and takes any text for a query: it may raise, but not hang, exit or return junk.
    With an attribute `is_deterministic = True`, equal requests get equal replies.
    """
    built, who = AGENTS.build(agent, source=build_source(source, 0)), f"agent {agent!r}"
    agent_id = getattr(built, "agent_id", None)
    _rule(
        isinstance(agent_id, str) and agent_id,
        f"{who}: agent_id is {agent_id!r}",
        "Give it a text.",
    )
    pool = AgentPool({kind: built}, LIMITS)
    run_sync(
        _check_replies(
            who, pool, AgentRequest(kind=kind, query=query, problem=SUM.prompt)
        )
    )
    for odd in ODD_TEXTS:
        error = run_sync(
            pool.consult(AgentRequest(kind=kind, query=odd, problem=odd, trace=odd))
        ).error
        is_bad = error.startswith(
            ("no AgentReply", "no reply within", "SystemExit", "the agent cancelled")
        )
        _rule(
            not is_bad,
            f"{who}: asked {odd[:20]!r}: {error}",
            "Reply, or raise an Exception.",
        )


async def _check_replies(who: str, pool: AgentPool, request: AgentRequest) -> None:
    call, blocked_s = asyncio.ensure_future(pool.consult(request)), 0.0
    while not call.done():
        start = time.monotonic()
        await asyncio.wait({call}, timeout=0.02)
        blocked_s = max(blocked_s, time.monotonic() - start - 0.02)
    reply, error = call.result().reply, call.result().error
    _rule(
        reply,
        f"{who}: asked {request.query!r}: {error}",
        "Check it with a query that it answers.",
    )
    mend = "Await what takes time, or run it by asyncio.to_thread."
    _rule(
        blocked_s < MAX_BLOCKED_S,
        f"{who}: blocks the event loop for {blocked_s:.1f} s",
        mend,
    )
    if getattr(pool.agents[request.kind], "is_deterministic", False):
        mend = "Draw from `request.seed` alone, or drop is_deterministic."
        is_equal = (await pool.consult(request)).reply == reply
        _rule(
            is_equal,
            f"{who}: is_deterministic, but equal requests get unequal replies",
            mend,
        )
    call = asyncio.ensure_future(pool.consult(request))
    await asyncio.sleep(0)
    if call.cancel():
        await asyncio.wait({call}, timeout=1.0)
        _rule(
            call.cancelled(),
            f"{who}: goes on when cancelled",
            "Let asyncio.CancelledError pass.",
        )


_VALUES = {
    "string": "a",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}


def check_tool(
    tool: Any,
    *,
    arguments: Mapping[str, Any] | None = None,
    method: str = "",
    task: Task = SUM,
) -> None:
    """Check a tool: it can be told to a policy, answers in text or JSON, and neither
    hangs nor exits.

    Of a class, every method is checked, each on an instance of its own that is made for
    `task`.

    Args:
        arguments: What it answers without an error; by default some value of each type,
            which it may refuse.
        method: Of a class, the method that `arguments` are for; it need not be named
            where there is only one.
    """
    box = build_tools([tool])
    names = box.names
    own = names[0] if len(names) == 1 else method
    _rule(
        not (arguments or method) or own in names,
        f"tool {tool!r}: {method!r} is none of {', '.join(names)}",
        "Name the method that the arguments are for: method=….",
    )
    for schema in box.schemas:
        given = arguments if schema.name == own else None
        run_sync(_check_calls(box, schema, given, task))


async def _check_calls(
    box: Toolbox, schema: ToolSchema, arguments: Mapping[str, Any] | None, task: Task
) -> None:
    opened = box.open(task)
    try:
        await opened.start(LIMITS.deadline_s)
    except ToolError as error:
        raise AssertionError(str(error)) from error
    try:
        await _check_answers(opened.tools[schema.name], schema, arguments)
    finally:
        await opened.close()


async def _check_answers(
    tool: Agent, schema: ToolSchema, arguments: Mapping[str, Any] | None
) -> None:
    who, name, parameters = f"tool {schema.name!r}", schema.name, schema.parameters
    pool = AgentPool({name: tool}, LIMITS)
    given = arguments or {key: _right_value(part) for key, part in parameters.items()}
    wrong = [
        {**given, key: value}
        for key, part in parameters.items()
        for value in _wrong_values(part)
    ]
    for asked in (given, *wrong):
        request = AgentRequest(kind=name, query=json.dumps(asked))
        outcome = await pool.consult(request)
        mend = "Return in time, or raise an Exception."
        _rule(outcome.reply, f"{who}: given {asked}: {outcome.error}", mend)
        text = outcome.reply.text if outcome.reply else ""
        is_error = text.startswith("error:")
        _rule(
            "JSON serializable" not in text,
            f"{who}: {text}",
            "Return text or what JSON has.",
        )
        _rule(
            asked is not arguments or not is_error,
            f"{who}: given {asked}: {text}",
            "Answer them.",
        )
        _rule(
            asked is given or is_error,
            f"{who}: takes {asked}",
            "Tell wrong arguments by an error.",
        )


def _right_value(schema: Mapping[str, Any]) -> Any:
    """Return a value that a parameter takes: its default if it has one."""
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    choice = schema.get("anyOf", [schema])[0]
    kinds = choice.get("type", "string")
    if choice is not schema:
        return _right_value(choice)
    return _VALUES[kinds if isinstance(kinds, str) else kinds[0]]


def _wrong_values(schema: Mapping[str, Any]) -> list[Any]:
    """Return a value that a parameter does not take; none if it takes all of these."""
    odd = (None, {"no": [["such"]]}, "no such value", 0.5)
    return [value for value in odd if not fits(value, schema)][:1]


def check_task_source(source: Spec | TaskSource, *, num: int = 100) -> None:
    """Check the first `num` tasks of each split, and that the indices of a finite split
    go round.

    Equal indices give equal tasks, ids are unique, no task is in both splits, `meta`
    has a JSON form.
    """
    built, who = build_source(source, 0), f"task source {source!r}"
    ids: set[str] = set()
    split_of: dict[str, Split] = {}
    for split in get_args(Split):
        size = built.num_tasks(split)
        is_size = size is None or (
            isinstance(size, int) and size >= 0 and size == built.num_tasks(split)
        )
        _rule(
            is_size,
            f"{who}: num_tasks({split!r}) is {size!r}",
            "Return a fixed count, or None.",
        )
        for index in range(num if size is None else min(num, size)):
            task, again, place = (
                built.task(split, index),
                built.task(split, index),
                f"({split!r}, {index})",
            )
            _rule(
                isinstance(task, Task),
                f"{who}: task{place} is {type(task).__name__}",
                "Return a Task.",
            )
            _rule(
                task == again,
                f"{who}: task{place} differs from call to call",
                "Draw by the index alone.",
            )
            _rule(
                task.id not in ids,
                f"{who}: the id {task.id!r} comes twice",
                "Make ids unique.",
            )
            other = split_of.setdefault(task.prompt, split)
            _rule(
                other == split,
                f"{who}: task {task.id!r} is in both splits",
                "Keep the splits apart.",
            )
            ids.add(task.id)
            try:
                json.dumps(dict(task.meta), allow_nan=False)
            except (TypeError, ValueError) as error:
                fault = f"{who}: task{place}: meta has no JSON form: {error}"
                raise AssertionError(f"{fault}. Keep plain values in it.") from error
        is_round = not size or built.task(split, size) == built.task(
            split, 0
        ) != built.task(split, size - 1)
        _rule(
            is_round or size == 1,
            f"{who}: task {size} of {split} is not task 0",
            "Count round and round.",
        )
    _rule(ids, f"{who}: neither split has a task", "Add tasks.")


def check_verifier(
    verifier: Spec | Verifier | Callable[..., Any],
    *,
    task: Task = SUM,
    right: str = "\\boxed{42}",
    wrong: Sequence[str] = ("\\boxed{43}", "I do not know."),
) -> None:
    """Check a verifier or a reward function: `right` is correct, and nothing else is or
    earns as much.

    Equal answers get equal verdicts, and no text makes it raise or fail. One that names
    `episode` is given the view of an episode of one turn.
    """
    built, who = build_verifier(verifier), f"verifier {verifier!r}"
    best = _check_verdict(built, f"{who}: given {right[:40]!r}", task, right)
    _rule(
        best.correct,
        f"{who}: given {right[:40]!r}, it says {best}",
        "Accept the gold answer.",
    )
    for text in (*wrong, *ODD_TEXTS):
        where = f"{who}: given {text[:40]!r}"
        verdict = _check_verdict(built, where, task, text)
        _rule(
            not verdict.correct,
            f"{where}, it says {verdict}",
            "Refuse what is not the gold answer.",
        )
        _rule(
            (verdict.reward or 0.0) < (best.reward or 0.0),
            f"{where}, the reward is {verdict.reward}, and {best.reward} for the gold"
            " answer",
            "Reward what is not the gold answer less.",
        )


def _check_verdict(verifier: Verifier, where: str, task: Task, text: str) -> Verdict:
    """Return the verdict on a text, which is one with a reward, and the same each
    time.
    """
    view = EpisodeView(
        task=task,
        answer=text,
        messages=(
            Message("user", (Span(task.prompt, Author.PROMPT),)),
            Message("assistant", (Span(text, Author.POLICY),)),
        ),
    )

    async def ask() -> Any:
        return await call_with_episode(verifier.verify, task, text, view)

    try:
        verdict, again = (run_sync(ask()) for _ in range(2))
    except (Exception, SystemExit) as error:
        raise AssertionError(
            f"{where}, it raises {error!r}. Return a Verdict that says so."
        ) from error
    _rule(
        isinstance(verdict, Verdict),
        f"{where}, it returns {verdict!r}",
        "Return a Verdict.",
    )
    _rule(
        verdict == again,
        f"{where}, its verdicts differ",
        "Decide by the arguments alone.",
    )
    _rule(
        verdict.reward is not None,
        f"{where}, it fails with status {verdict.status!r}:"
        f" {verdict.reason.rstrip('.')}",
        "Judge every text: what cannot be read is wrong, or no answer.",
    )
    decided: Verdict = verdict
    return decided


def check_codec(
    codec: Spec | Codec, *, write_call: Callable[[str, str], str] | None = None
) -> None:
    """Check that calls are read as they were written, no reply ends its wrapper, and
    parsing is linear.

    The prompt explains agents and tools apart. Of a codec that a spec names, one that
    is made for no role reads no call to any.

    Args:
        write_call: Writes a call from its kind and query; by default they stand between
            the codec's macros.
    """
    built, who = CODECS.build(codec, tools=[LOOKUP]), f"codec {codec!r}"
    macros = built.macros(CONSULT_KINDS)
    _rule(
        write_call or macros,
        f"{who}: has no macros to write a call with",
        "Give `write_call`.",
    )
    write = write_call or (lambda kind, query: query.join(macros[kind]))
    tools = [name for name in macros if name not in CONSULT_KINDS]
    for call in (
        Call(kind, query)
        for kind in (*CONSULT_KINDS, *tools)
        for query in (SUM.prompt, 'Is "x" =\n{1, é}?')
    ):
        text, stops = write(call.kind, call.query), built.stop_strings(CONSULT_KINDS)
        parsed, spans = _parse(who, built, text), built.call_spans(text)
        _rule(
            parsed.calls == (call,),
            f"{who}: {text!r} is read as {parsed}",
            f"It must be {call}.",
        )
        _rule(
            spans == [(0, len(text))],
            f"{who}: the call {text!r} spans {spans}",
            "Span it whole.",
        )
        ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
        is_stopped = not stops or min(ends, default=0) == len(text)
        _rule(
            is_stopped,
            f"{who}: none of {stops} ends the call {text!r}",
            "Stop where a call ends.",
        )
    _check_prompts(who, built)
    if isinstance(codec, str | Mapping):
        alone = CODECS.build(codec, tools=[LOOKUP], kinds=())
        parsed = _parse(who, alone, write("verify", SUM.prompt))
        _rule(
            not parsed.calls,
            f"{who}: made with kinds=(), it reads {parsed}",
            "Read calls to the roles it was made for, and to tools.",
        )
        text = alone.tool_instructions(None)
        mend = "Explain each tool in tool_instructions."
        _rule(LOOKUP.name in text, f"{who}: told of a tool, it says {text!r}", mend)
    plain = _parse(who, built, "So it is \\boxed{42}.")
    _rule(
        plain == Parsed(),
        f"{who}: a plain answer is read as {plain}",
        "Leave text without marks alone.",
    )
    _check_wrapper(who, built)
    for piece in (text, text[:-1], text[1:], *"<{[\\\ud800\0 \na", '{"', "</"):
        for size in (2**14, 2**17, 2**20):
            start = time.process_time()
            _parse(who, built, (piece * size)[:size])
            taken_s = time.process_time() - start
            slow = f"{who}: {size} characters of {piece[:20]!r} take {taken_s:.0f} s"
            _rule(taken_s < MAX_PARSE_S, slow, "Scan the text once.")


def _check_prompts(who: str, codec: Codec) -> None:
    told = codec.instructions(CONSULT_KINDS, 3)
    mend = "Explain how to consult, how often, and nothing else."
    _rule("3" in told, f"{who}: instructions of 3 consultations are {told!r}", mend)
    told = codec.instructions((), 3)
    _rule(told == "", f"{who}: instructions without agents are {told!r}", mend)
    explain: Any = getattr(codec, "tool_instructions", lambda _: None)
    told = explain(None)
    mend = "Return text, empty without tools."
    _rule(isinstance(told, str), f"{who}: tool_instructions are {told!r}", mend)


def _parse(who: str, codec: Codec, text: str) -> Parsed:
    try:
        return codec.parse(text)
    except Exception as error:
        raise AssertionError(
            f"{who}: parse raises {error!r} on {text[:40]!r}. Call it malformed."
        ) from error


def _check_wrapper(who: str, codec: Codec) -> None:
    def render(text: str) -> tuple[str, str]:
        """Return the whole reply and what ends it."""
        spans = codec.render_reply(
            "verify", Span(text, Author.AGENT, "a", 3, is_content=True)
        )
        marks = [
            (span.author, span.agent_id, span.call_id)
            for span in spans
            if span.is_content
        ]
        around = {(span.author, span.call_id) for span in spans if not span.is_content}
        is_kept = marks == [(Author.AGENT, "a", 3)] and around == {(Author.ENV, 3)}
        _rule(
            is_kept,
            f"{who}: a reply is {spans}",
            "Keep the body's marks; the wrapper is Author.ENV, with the body's"
            " call_id.",
        )
        return "".join(span.text for span in spans), spans[-1].text

    reply, closing = render("fine")
    for hostile in (closing, closing.strip(), closing.upper()):
        forged = (
            render(f"fine{hostile}more")[0]
            .casefold()
            .startswith(reply.strip().casefold())
        )
        _rule(
            not forged,
            f"{who}: a reply that holds {hostile!r} ends there",
            "Break the mark up.",
        )
    parsed = _parse(who, codec, reply)
    is_counted = parsed.num_forged and not parsed.calls
    _rule(
        is_counted,
        f"{who}: a reply that the policy writes is read as {parsed}",
        "Set num_forged alone.",
    )


CHECKS: Mapping[str, Callable[..., None]] = {
    "agent": check_agent,
    "tool": check_tool,
    "task": check_task_source,
    "verifier": check_verifier,
    "codec": check_codec,
}
"""The check of each kind of plug-in, by the name of its registry."""
