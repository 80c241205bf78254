"""Does a plug-in keep to its protocol? Functions to call in its tests.

def test_librarian():
    check_agent("my_package:Librarian", query="What is a torsor?")

Each takes a component or a spec that names one, and raises AssertionError that says
which rule is broken and how to keep it. What cannot be built at all raises ConfigError.
The pytest plug-in calls them as well.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from aipo_env.agents.base import Agent, AgentRequest
from aipo_env.agents.pool.agent_pool import AgentPool
from aipo_env.agents.pool.limits import PoolLimits
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
"""Of the pool in which agents and tools are asked: each failure is to be seen."""
MAX_BLOCKED_S = 1.0
"""So long an agent may keep the event loop from everybody else."""
MAX_PARSE_S = 5.0
"""Processor time for a text. A quadratic parser needs hours for a megabyte, so shorter
ones come first.
"""
PARSE_SIZES = (2**14, 2**17, 2**20)
"""Lengths of the texts whose parsing is timed, in characters."""
_POLL_S = 0.02
"""How often it is looked whether the event loop still runs."""
_CANCEL_S = 1.0
"""How long a cancelled call may take to end."""
_SHOWN_CHARS = 40
"""What a message shows of a long text."""
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
_SHOWN_ODD_CHARS = 20
"""What a message shows of one of them."""
LOOKUP = ToolSchema(
    "lookup", "Look a word up.", {"word": {"type": "string"}}, ("word",)
)
"""The tool that a codec explains and reads calls to."""
SUM = Task(id="sum", prompt="What is 6 times 7?", answer="42")
"""The task where a caller names none."""


def _require(holds: object, fault: str, advice: str) -> None:
    """Raise AssertionError with the fault and the advice, unless something holds."""
    if not holds:
        raise AssertionError(f"{fault}. {advice}")


def check_agent(
    agent: Spec | Agent,
    *,
    kind: ConsultKind = "knowledge",
    query: str = SUM.prompt,
    source: Spec | TaskSource = "toy",
) -> None:
    """Check an agent.

    It has a name, replies in time without blocking the event loop, can be cancelled,
    and takes any text for a query: it may raise, but not hang, exit or return junk.
    With an attribute `is_deterministic = True`, equal requests get equal replies.

    Args:
        agent: The agent, or a spec that names one.
        kind: The role it is asked in.
        query: What it answers.
        source: The tasks that are given to an agent that asks for them.

    Raises:
        AssertionError: It breaks a rule.
        ConfigError: It cannot be built.
    """
    built = AGENTS.build(agent, source=build_source(source, 0))
    who = f"agent {agent!r}"
    agent_id = getattr(built, "agent_id", None)
    _require(
        isinstance(agent_id, str) and agent_id,
        f"{who}: agent_id is {agent_id!r}",
        "Give it a text.",
    )
    pool = AgentPool({kind: built}, LIMITS)
    request = AgentRequest(kind=kind, query=query, problem=SUM.prompt)
    run_sync(_check_replies(who, pool, request))
    # How the pool reports what no agent may do; an Exception is told otherwise.
    faults = (
        "no AgentReply",
        "no reply within",
        "SystemExit",
        "the agent cancelled",
    )
    for odd in ODD_TEXTS:
        request = AgentRequest(kind=kind, query=odd, problem=odd, trace=odd)
        error = run_sync(pool.consult(request)).error
        _require(
            not error.startswith(faults),
            f"{who}: asked {odd[:_SHOWN_ODD_CHARS]!r}: {error}",
            "Reply, or raise an Exception.",
        )


async def _check_replies(who: str, pool: AgentPool, request: AgentRequest) -> None:
    call = asyncio.ensure_future(pool.consult(request))
    blocked_s = 0.0
    while not call.done():
        start = time.monotonic()
        await asyncio.wait({call}, timeout=_POLL_S)
        # A wait that took longer than it should: somebody else held the loop.
        late_s = time.monotonic() - start - _POLL_S
        blocked_s = max(blocked_s, late_s)
    outcome = call.result()
    _require(
        outcome.reply,
        f"{who}: asked {request.query!r}: {outcome.error}",
        "Check it with a query that it answers.",
    )
    _require(
        blocked_s < MAX_BLOCKED_S,
        f"{who}: blocks the event loop for {blocked_s:.1f} s",
        "Await what takes time, or run it by asyncio.to_thread.",
    )
    if getattr(pool.agents[request.kind], "is_deterministic", False):
        again = await pool.consult(request)
        _require(
            again.reply == outcome.reply,
            f"{who}: is_deterministic, but equal requests get unequal replies",
            "Draw from `request.seed` alone, or drop is_deterministic.",
        )
    call = asyncio.ensure_future(pool.consult(request))
    await asyncio.sleep(0)  # let it begin
    if call.cancel():
        await asyncio.wait({call}, timeout=_CANCEL_S)
        _require(
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
"""A value of each of JSON's types."""


def check_tool(
    tool: Any,
    *,
    arguments: Mapping[str, Any] | None = None,
    method: str = "",
    task: Task = SUM,
) -> None:
    """Check a tool.

    It can be told to a policy, answers in text or JSON, and neither hangs nor exits. Of
    a class, every method is checked, each on an instance of its own.

    Args:
        tool: A function, a class, or a spec that names one.
        arguments: What it answers without an error; by default some value of each type,
            which it may refuse.
        method: Of a class, the method that `arguments` are for; it need not be named
            where there is only one.
        task: What instances of a class are made for.

    Raises:
        AssertionError: It breaks a rule.
        ConfigError: It is no tool.
    """
    box = build_tools([tool])
    names = box.names
    own = names[0] if len(names) == 1 else method
    if arguments or method:
        _require(
            own in names,
            f"tool {tool!r}: {method!r} is none of {', '.join(names)}",
            "Name the method that the arguments are for: method=….",
        )
    for schema in box.schemas:
        own_arguments = arguments if schema.name == own else None
        run_sync(_check_calls(box, schema, own_arguments, task))


async def _check_calls(
    box: Toolbox, schema: ToolSchema, arguments: Mapping[str, Any] | None, task: Task
) -> None:
    """Check one of a box's tools, as an episode would have it."""
    tools = box.open(task)
    try:
        await tools.start(LIMITS.deadline_s)
    except ToolError as error:
        raise AssertionError(str(error)) from error
    try:
        await _check_answers(tools.tools[schema.name], schema, arguments)
    finally:
        await tools.close()


async def _check_answers(
    tool: Agent, schema: ToolSchema, arguments: Mapping[str, Any] | None
) -> None:
    name = schema.name
    who = f"tool {name!r}"
    pool = AgentPool({name: tool}, LIMITS)
    right = arguments
    if not right:
        right = {key: _right_value(part) for key, part in schema.parameters.items()}
    # Of the wrong ones, each differs from the right ones in one argument.
    wrong = []
    for key, part in schema.parameters.items():
        for value in _wrong_values(part):
            wrong.append({**right, key: value})
    for values in (right, *wrong):
        request = AgentRequest(kind=name, query=json.dumps(values))
        outcome = await pool.consult(request)
        _require(
            outcome.reply,
            f"{who}: given {values}: {outcome.error}",
            "Return in time, or raise an Exception.",
        )
        text = outcome.reply.text if outcome.reply else ""
        is_error = text.startswith("error:")
        _require(
            "JSON serializable" not in text,
            f"{who}: {text}",
            "Return text or what JSON has.",
        )
        # Arguments that were made up here may be refused, those of the caller not.
        is_callers = values is arguments
        _require(
            not (is_callers and is_error),
            f"{who}: given {values}: {text}",
            "Answer them.",
        )
        is_wrong = values is not right
        _require(
            not is_wrong or is_error,
            f"{who}: takes {values}",
            "Tell wrong arguments by an error.",
        )


def _right_value(schema: Mapping[str, Any]) -> Any:
    """Return a value that a parameter takes: its default if it has one."""
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _right_value(schema["anyOf"][0])
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    return _VALUES[kind]


def _wrong_values(schema: Mapping[str, Any]) -> list[Any]:
    """Return a value that a parameter does not take; none if it takes all of these."""
    candidates = (None, {"no": [["such"]]}, "no such value", 0.5)
    unfit = [value for value in candidates if not fits(value, schema)]
    return unfit[:1]


def check_task_source(source: Spec | TaskSource, *, num: int = 100) -> None:
    """Check a source of tasks.

    Equal indices give equal tasks, ids are unique, no task is in both splits, `meta`
    has a JSON form, and the indices of a finite split go round.

    Args:
        source: The source, or a spec that names one.
        num: How many tasks of each split are looked at, its first ones.

    Raises:
        AssertionError: It breaks a rule.
        ConfigError: It cannot be built.
    """
    built = build_source(source, 0)
    who = f"task source {source!r}"
    ids: set[str] = set()
    split_of: dict[str, Split] = {}
    for split in get_args(Split):
        size = built.num_tasks(split)
        # Asked a second time, it says the same.
        is_count = isinstance(size, int) and size >= 0
        is_fixed = size is None or (is_count and size == built.num_tasks(split))
        _require(
            is_fixed,
            f"{who}: num_tasks({split!r}) is {size!r}",
            "Return a fixed count, or None.",
        )
        num_checked = num if size is None else min(num, size)
        for index in range(num_checked):
            task = built.task(split, index)
            again = built.task(split, index)
            place = f"({split!r}, {index})"
            _require(
                isinstance(task, Task),
                f"{who}: task{place} is {type(task).__name__}",
                "Return a Task.",
            )
            _require(
                task == again,
                f"{who}: task{place} differs from call to call",
                "Draw by the index alone.",
            )
            _require(
                task.id not in ids,
                f"{who}: the id {task.id!r} comes twice",
                "Make ids unique.",
            )
            # One prompt under two ids would be in both splits all the same.
            first_split = split_of.setdefault(task.prompt, split)
            _require(
                first_split == split,
                f"{who}: task {task.id!r} is in both splits",
                "Keep the splits apart.",
            )
            ids.add(task.id)
            try:
                json.dumps(dict(task.meta), allow_nan=False)
            except (TypeError, ValueError) as error:
                fault = f"{who}: task{place}: meta has no JSON form: {error}"
                raise AssertionError(f"{fault}. Keep plain values in it.") from error
        if size:
            _require(
                _goes_round(built, split, size),
                f"{who}: task {size} of {split} is not task 0",
                "Count round and round.",
            )
    _require(ids, f"{who}: neither split has a task", "Add tasks.")


def _goes_round(source: TaskSource, split: Split, size: int) -> bool:
    """Return whether the first task follows the last one; one alone follows itself."""
    following = source.task(split, size)
    first = source.task(split, 0)
    if following != first:
        return False
    # Not because every index gives the same task.
    return first != source.task(split, size - 1) or size == 1


def check_verifier(
    verifier: Spec | Verifier | Callable[..., Any],
    *,
    task: Task = SUM,
    right: str = "\\boxed{42}",
    wrong: Sequence[str] = ("\\boxed{43}", "I do not know."),
) -> None:
    """Check a verifier or a reward function.

    Equal answers get equal verdicts, and no text makes it raise or fail. One that names
    `episode` is given the view of an episode of one turn.

    Args:
        verifier: It, or a spec that names one.
        task: What the answers are to.
        right: The one answer that is correct.
        wrong: Answers that are not, and that earn less.

    Raises:
        AssertionError: It breaks a rule.
        ConfigError: It cannot be built.
    """
    built = build_verifier(verifier)
    who = f"verifier {verifier!r}"
    best = _check_verdict(built, f"{who}: given {right[:_SHOWN_CHARS]!r}", task, right)
    _require(
        best.correct,
        f"{who}: given {right[:_SHOWN_CHARS]!r}, it says {best}",
        "Accept the gold answer.",
    )
    for text in (*wrong, *ODD_TEXTS):
        where = f"{who}: given {text[:_SHOWN_CHARS]!r}"
        verdict = _check_verdict(built, where, task, text)
        _require(
            not verdict.correct,
            f"{where}, it says {verdict}",
            "Refuse what is not the gold answer.",
        )
        _require(
            (verdict.reward or 0.0) < (best.reward or 0.0),
            f"{where}, the reward is {verdict.reward}, and {best.reward} for the gold"
            " answer",
            "Reward what is not the gold answer less.",
        )


def _check_verdict(verifier: Verifier, where: str, task: Task, text: str) -> Verdict:
    """Return the verdict on a text: one with a reward, and the same each time."""
    prompt = Message("user", (Span(task.prompt, Author.PROMPT),))
    answer = Message("assistant", (Span(text, Author.POLICY),))
    view = EpisodeView(task=task, answer=text, messages=(prompt, answer))

    async def ask() -> Any:
        return await call_with_episode(verifier.verify, task, text, view)

    try:
        verdict = run_sync(ask())
        again = run_sync(ask())
    except (Exception, SystemExit) as error:
        raise AssertionError(
            f"{where}, it raises {error!r}. Return a Verdict that says so."
        ) from error
    _require(
        isinstance(verdict, Verdict),
        f"{where}, it returns {verdict!r}",
        "Return a Verdict.",
    )
    _require(
        verdict == again,
        f"{where}, its verdicts differ",
        "Decide by the arguments alone.",
    )
    _require(
        verdict.reward is not None,
        f"{where}, it fails with status {verdict.status!r}:"
        f" {verdict.reason.rstrip('.')}",
        "Judge every text: what cannot be read is wrong, or no answer.",
    )
    checked: Verdict = verdict
    return checked


def check_codec(
    codec: Spec | Codec, *, write_call: Callable[[str, str], str] | None = None
) -> None:
    """Check a codec.

    Calls are read as they were written, no reply ends its wrapper, and parsing is
    linear. The prompt explains agents and tools apart. Of a codec that a spec names,
    one that is made for no role reads no call to any.

    Args:
        codec: The codec, or a spec that names one.
        write_call: Writes a call from its kind and query; by default they stand between
            the codec's macros.

    Raises:
        AssertionError: It breaks a rule.
        ConfigError: It cannot be built.
    """
    built = CODECS.build(codec, tools=[LOOKUP])
    who = f"codec {codec!r}"
    macros = built.macros(CONSULT_KINDS)
    _require(
        write_call or macros,
        f"{who}: has no macros to write a call with",
        "Give `write_call`.",
    )

    def write_between_macros(kind: str, query: str) -> str:
        start, end = macros[kind]
        return f"{start}{query}{end}"

    write = write_call or write_between_macros
    tools = [name for name in macros if name not in CONSULT_KINDS]
    text = ""
    for kind in (*CONSULT_KINDS, *tools):
        for query in (SUM.prompt, 'Is "x" =\n{1, é}?'):
            text = write(kind, query)
            _check_call(who, built, Call(kind, query), text)
    _check_prompts(who, built)
    if isinstance(codec, str | Mapping):
        alone = CODECS.build(codec, tools=[LOOKUP], kinds=())
        parsed = _parse(who, alone, write("verify", SUM.prompt))
        _require(
            not parsed.calls,
            f"{who}: made with kinds=(), it reads {parsed}",
            "Read calls to the roles it was made for, and to tools.",
        )
        instructions = alone.tool_instructions(None)
        _require(
            LOOKUP.name in instructions,
            f"{who}: told of a tool, it says {instructions!r}",
            "Explain each tool in tool_instructions.",
        )
    plain = _parse(who, built, "So it is \\boxed{42}.")
    _require(
        plain == Parsed(),
        f"{who}: a plain answer is read as {plain}",
        "Leave text without marks alone.",
    )
    _check_wrapper(who, built)
    # Beginnings of marks, over and over, are what a parser that starts anew at each of
    # them is slow on: the last text above, which has those of this codec, also cut
    # short at either end, and common ones.
    pieces = [text, text[:-1], text[1:], *"<{[\\\ud800\0 \na", '{"', "</"]
    for piece in pieces:
        for size in PARSE_SIZES:
            _check_speed(who, built, piece, size)


def _check_call(who: str, codec: Codec, call: Call, text: str) -> None:
    """Check that a codec reads a call, and nothing else, in the text of that call."""
    stops = codec.stop_strings(CONSULT_KINDS)
    parsed = _parse(who, codec, text)
    spans = codec.call_spans(text)
    _require(
        parsed.calls == (call,),
        f"{who}: {text!r} is read as {parsed}",
        f"It must be {call}.",
    )
    _require(
        spans == [(0, len(text))],
        f"{who}: the call {text!r} spans {spans}",
        "Span it whole.",
    )
    # Generation stops at the first stop string, which must not cut the call short.
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    is_stopped = not stops or min(ends, default=0) == len(text)
    _require(
        is_stopped,
        f"{who}: none of {stops} ends the call {text!r}",
        "Stop where a call ends.",
    )


def _check_speed(who: str, codec: Codec, piece: str, size: int) -> None:
    """Check that a codec parses a text of so many characters, made of pieces, fast."""
    start = time.process_time()
    _parse(who, codec, (piece * size)[:size])
    duration_s = time.process_time() - start
    _require(
        duration_s < MAX_PARSE_S,
        f"{who}: {size} characters of {piece[:_SHOWN_ODD_CHARS]!r} take"
        f" {duration_s:.0f} s",
        "Scan the text once.",
    )


def _check_prompts(who: str, codec: Codec) -> None:
    advice = "Explain how to consult, how often, and nothing else."
    text = codec.instructions(CONSULT_KINDS, 3)
    _require(
        "3" in text, f"{who}: instructions of 3 consultations are {text!r}", advice
    )
    text = codec.instructions((), 3)
    _require(text == "", f"{who}: instructions without agents are {text!r}", advice)
    # A codec that knows no tools need not have it, but then it must not return None.
    explain: Any = getattr(codec, "tool_instructions", lambda _: None)
    text = explain(None)
    _require(
        isinstance(text, str),
        f"{who}: tool_instructions are {text!r}",
        "Return text, empty without tools.",
    )


def _parse(who: str, codec: Codec, text: str) -> Parsed:
    try:
        return codec.parse(text)
    except Exception as error:
        raise AssertionError(
            f"{who}: parse raises {error!r} on {text[:_SHOWN_CHARS]!r}."
            " Call it malformed."
        ) from error


def _check_wrapper(who: str, codec: Codec) -> None:
    """Check that a reply keeps its marks, and cannot end its wrapper or be imitated."""
    spans = _render(who, codec, "fine")
    reply = _text(spans)
    closing = spans[-1].text
    whole_reply = reply.strip().casefold()
    for hostile in (closing, closing.strip(), closing.upper()):
        text = _text(_render(who, codec, f"fine{hostile}more"))
        _require(
            not text.casefold().startswith(whole_reply),
            f"{who}: a reply that holds {hostile!r} ends there",
            "Break the mark up.",
        )
    parsed = _parse(who, codec, reply)
    _require(
        parsed.num_forged and not parsed.calls,
        f"{who}: a reply that the policy writes is read as {parsed}",
        "Set num_forged alone.",
    )


def _render(who: str, codec: Codec, text: str) -> Sequence[Span]:
    """Return the spans of a reply with this body, once their marks are checked."""
    body = Span(text, Author.AGENT, "a", 3, is_content=True)
    spans = codec.render_reply("verify", body)
    body_marks = []
    wrapper_marks = set()
    for span in spans:
        if span.is_content:
            body_marks.append((span.author, span.agent_id, span.call_id))
        else:
            wrapper_marks.add((span.author, span.call_id))
    is_body_marked = body_marks == [(Author.AGENT, "a", 3)]
    is_wrapper_marked = wrapper_marks == {(Author.ENV, 3)}
    _require(
        is_body_marked and is_wrapper_marked,
        f"{who}: a reply is {spans}",
        "Keep the body's marks; the wrapper is Author.ENV, with the body's call_id.",
    )
    return spans


def _text(spans: Sequence[Span]) -> str:
    return "".join(span.text for span in spans)
