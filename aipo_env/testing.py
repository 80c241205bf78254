"""Public test doubles: a policy, agents and an endpoint that do as they are told.

See also `ScriptedAgent`.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from threading import Event, Thread
from typing import Any, Literal

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.episode import Episode, TokenRecord
from aipo_env.event_loop import run_sync
from aipo_env.records import (
    Author,
    Call,
    Completion,
    Consult,
    Message,
    Span,
    StopReason,
    Task,
    Turn,
    Verdict,
)
from aipo_env.rollout.drive import play
from aipo_env.rollout.session import Session
from aipo_env.rollout.voice import TextVoice


def example_tokens(**columns: Sequence[Any]) -> TokenRecord:
    """Return the record of three tokens: of the prompt, the policy and an agent.

    Args:
        columns: Those in place of the example's; all of one length.
    """
    example: dict[str, Sequence[Any]] = {
        "token_ids": [5, 6, 7],
        "author": [Author.PROMPT, Author.POLICY, Author.AGENT],
        "call_id": [-1, -1, 0],
        "turn": [0, 0, 1],
        "behaviour_logprobs": [None, -0.5, None],
        "is_content": [False, False, True],
    }
    return TokenRecord.build({**example, **columns})


def example_episode(text: str = "hello", **changes: Any) -> Episode:
    """Return a finished episode of two turns: the policy consulted, and was right.

    Each span of text is one token.

    Args:
        text: What everybody said.
        changes: Fields in place of the example's.
    """
    consult = Consult(
        kind="verify",
        agent_id="k",
        query=text,
        reply=text,
        status="answered",
        call_id=0,
        turn=1,
    )
    task = changes.pop("task", Task(id="t", prompt="p", answer="1"))
    said = Message("assistant", (Span(text, Author.POLICY),))
    reply = Span(text, Author.AGENT, "k", 0, is_content=True)
    episode = Episode(
        task=task,
        aided=True,
        messages=(
            Message("system", (Span(text, Author.PROMPT),)),
            Message("user", (Span(task.prompt, Author.PROMPT),)),
            said,
            Message("user", (Span(text, Author.ENV, call_id=0), reply)),
            said,
        ),
        turns=(
            Turn(text, "stop", (Call("verify", text),), feedback=text + text),
            Turn(text, "stop"),
        ),
        consults=(consult,),
        tokens=_example_tokens_of_two_turns(),
        verdict=Verdict(correct=True, reward=1.0, status="correct", extracted=text),
        reward=1.0,
        reward_parts={"verdict": 1.0},
        stop_reason=StopReason.COMPLETED,
        group_id="3-1",
    )
    return replace(episode, **changes)


def _example_tokens_of_two_turns() -> TokenRecord:
    """Return the tokens of `example_episode`: its spans, in the order of its messages.

    A reply, with what stands around it, belongs to the turn that it is shown for.
    """
    return TokenRecord.build(
        {
            "token_ids": [4, 5, 6, 7, 8, 9],
            "author": [
                *(Author.PROMPT, Author.PROMPT),
                Author.POLICY,
                *(Author.ENV, Author.AGENT),
                Author.POLICY,
            ],
            "call_id": [-1, -1, -1, 0, 0, -1],
            "turn": [0, 0, 0, 1, 1, 1],
            "behaviour_logprobs": [None, None, -0.5, None, None, -0.25],
            "is_content": [False, False, False, False, True, False],
        }
    )


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """Says the given texts, one a turn, whatever it is shown; its tokens are bytes."""

    texts: Sequence[str]

    def run(self, session: Session) -> Episode:
        """Play a session to its end, with texts left over or none.

        Raises:
            RuntimeError: The texts ran out before the episode ended.
        """
        return run_sync(play(session, _ScriptedVoice(self.texts)))

    async def say(
        self, messages: Sequence[Message], stop: Sequence[str], max_tokens: int
    ) -> str:
        """Return the text of this turn: what an `EpisodeRunner` wants of a policy."""
        num_said = sum(message.role == "assistant" for message in messages)
        return self.texts[num_said]


class _ScriptedVoice(TextVoice):
    """Writes the given texts, one a turn; its tokens are bytes."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        self._left = iter(texts)

    async def complete(self, stop: Sequence[str], max_tokens: int) -> Completion:
        """Write the next text.

        Raises:
            RuntimeError: There is none. No fault of a policy's: the script is too
                short.
        """
        text = next(self._left, None)
        if text is None:
            raise RuntimeError("the episode is still running")
        return self.said(text, max_tokens)


@dataclass(slots=True)
class CannedAgent:
    """Always gives the same reply, and keeps the `requests` it got."""

    text: str
    agent_id: str = "canned"
    requests: list[AgentRequest] = field(default_factory=list)

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Return the text, one token a word."""
        self.requests.append(request)
        return AgentReply(text=self.text, tokens=len(self.text.split()))


Fault = Literal["raise", "exit", "cancel", "hang", "junk"]


@dataclass(slots=True)
class FaultyAgent:
    """Fails `times` times in one way, then replies "fine".

    It does what an environment has to survive: "raise" raises ValueError, "exit"
    SystemExit, "cancel" CancelledError; "hang" never returns; "junk" returns something
    that is no reply.
    """

    fault: Fault
    times: int = 1_000_000
    agent_id: str = "faulty"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Fail, or reply."""
        self.times -= 1
        if self.times < 0:
            return AgentReply(text="fine")
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.fault == "junk":
            return {"text": 5}  # type: ignore[return-value]
        if self.fault == "exit":
            raise SystemExit("boom")
        if self.fault == "cancel":
            raise asyncio.CancelledError("boom")
        raise ValueError("boom")


_OK = 200
"""Status of HTTP for a request that went well."""
_BACKLOG = 4096
"""Connections that may wait to be accepted: a test opens thousands at once."""
_HUGE_CHARS = 10_000_000
_PROMPT_TOKENS = 10
"""What it says of any prompt: that it has so many tokens."""
_ENDLESS_BYTES = 2**50
"""The length that is announced for a body that never ends."""
_DRIP_S = 0.02
"""Seconds between two bytes of a body that comes slowly."""
_CHUNK_BYTES = 2**16
"""What is sent at once of one that comes fast."""
_HANG_S = 3600.0
_JUNK = {
    "garbage": b"<html>Bad gateway</html>",
    "nothing": b"",
    "utf8": b'{"choices": [{"message": {"content": "caf\xe9"}}]}',
    "nested": b"[" * 200_000,
    "shape": b'{"choices": [{"message": {"content": 5}}]}',
    "empty": (
        b'{"choices": [{"message": {"content": null}}], "usage": {"completion_tokens":'
        b' "many"}}'
    ),
    "cut": b'{"choices": [',
}
"""The body of the response, by what happens to the request."""


class FaultServer:
    """An endpoint for chat completions on loopback that does as it is told.

    with FaultServer(["429", "reply"]) as server:
        agent = ChatAgent("tiny", server.url)

    Args:
        script: What happens to the requests, one after another, over and over: "reply";
            a status such as "429"; "reset" and "cut" end the connection, before a
            response and within one; "hang" keeps silent; "drip" and "endless" never
            end, slowly and fast; "huge" are 10 MB; "garbage", "nothing", "utf8" (which
            it is not), "nested", "shape" and "empty" are no replies; "packed" is
            compressed though nobody asked for it.
        text: What its replies say, or what says it to the JSON body of a request; an
            error repeats the key that it was given.
        delay_s: Seconds before it sends anything.
        headers: Sent with every response.
        choice: Further fields of the choice that a reply is.
        port: Where it listens; 0: at any that is free.

    `requests` keeps the headers and the JSON body of each request; `most_open` counts
    those at once, and `num_connections` over how many connections they came.
    """

    def __init__(
        self,
        script: Sequence[str] = ("reply",),
        text: str | Callable[[dict[str, Any]], str] = "fine",
        delay_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
        choice: Mapping[str, Any] | None = None,
        port: int = 0,
    ) -> None:
        self.text = text
        self.delay_s = delay_s
        self.headers = headers or {}
        self.choice = choice or {}
        self.url = ""
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.num_open = 0
        self.most_open = 0
        self.num_connections = 0
        self._port = port
        self._script = cycle(script)
        self._started = Event()
        self._ended = asyncio.Event()

    def __enter__(self) -> "FaultServer":
        self._thread = Thread(
            target=asyncio.run, args=(self._serve(),), name="fault-server", daemon=True
        )
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *fault: object) -> None:
        # An event of asyncio is set in its own loop alone.
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(
            self._connection, "127.0.0.1", self._port, backlog=_BACKLOG
        )
        _, port = server.sockets[0].getsockname()
        self.url = f"http://127.0.0.1:{port}/v1"
        self._started.set()
        await self._ended.wait()
        server.close()
        await asyncio.sleep(0.01)  # for connections on their way in

    async def _connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.num_connections += 1
        try:
            # One request after the other over a connection, until the client ends it.
            while True:
                headers = await _read_headers(reader)
                length = int(headers["content-length"])
                body = json.loads(await reader.readexactly(length))
                self.requests.append((headers, body))
                self.num_open += 1
                self.most_open = max(self.most_open, self.num_open)
                try:
                    await asyncio.sleep(self.delay_s)
                    text = self.text if isinstance(self.text, str) else self.text(body)
                    await self._respond(next(self._script), text, headers, writer)
                finally:
                    self.num_open -= 1
        except (OSError, EOFError, asyncio.CancelledError):
            # Not closed, which would still send what is buffered.
            writer.transport.abort()

    async def _respond(
        self,
        fault: str,
        text: str,
        headers: Mapping[str, str],
        writer: asyncio.StreamWriter,
    ) -> None:
        if fault == "reset":
            raise ConnectionResetError
        if fault == "hang":
            await asyncio.sleep(_HANG_S)
        if fault == "huge":
            text = "x" * _HUGE_CHARS
        body = _JUNK.get(fault, _completion(text, self.choice))
        status = _OK
        if fault.isdigit():
            status = int(fault)
        if status != _OK:
            # As some servers do, which is why errors are shown without the key.
            body = f"refused: {headers['authorization']}".encode()
        length = len(body)
        if fault in ("cut", "drip", "endless"):
            length = _ENDLESS_BYTES
        response_headers = {
            "Content-Type": "application/json",
            "Content-Length": str(length),
            **self.headers,
        }
        if fault == "packed":
            response_headers["Content-Encoding"] = "gzip"
        lines = [f"HTTP/1.1 {status} Said"]
        lines += [f"{name}: {value}" for name, value in response_headers.items()]
        head = "".join(f"{line}\r\n" for line in lines)
        writer.write(f"{head}\r\n".encode() + body)
        # Blanks may stand behind JSON, so a client has no reason to give up.
        while fault == "drip":
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(_DRIP_S)
        while fault == "endless":
            writer.write(b" " * _CHUNK_BYTES)
            await writer.drain()
            await asyncio.sleep(0)
        await writer.drain()
        if fault == "cut":
            raise ConnectionResetError


def _completion(text: str, choice: Mapping[str, Any]) -> bytes:
    """Return a chat completion, with all that clients may insist on.

    Args:
        text: What it says.
        choice: Further fields of its only choice.
    """
    said = {"role": "assistant", "content": text}
    num_words = len(text.split())
    row = {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": "fault-server",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop", **choice}],
        "usage": {
            "prompt_tokens": _PROMPT_TOKENS,
            "completion_tokens": num_words,
            "total_tokens": _PROMPT_TOKENS + num_words,
        },
    }
    return json.dumps(row).encode()


async def _read_headers(reader: asyncio.StreamReader) -> dict[str, str]:
    """Return the headers of the next request, by their names in small letters."""
    head = await reader.readuntil(b"\r\n\r\n")
    # The first line is the request's, the last one is empty.
    lines = head.decode("latin-1").splitlines()[1:-1]
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return headers
