"""Public test doubles: a policy, agents and an endpoint that do as they are told. See
also `ScriptedAgent`.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from threading import Event, Thread
from typing import Any, Literal

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.drive import begin, take_turn
from aipo_env.episode import Episode
from aipo_env.event_loop import run_sync
from aipo_env.records import Message
from aipo_env.session import Session
from aipo_env.voice import TextVoice


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """Says the given texts, one a turn, whatever it is shown; its tokens are bytes."""

    texts: Sequence[str]

    def run(self, session: Session) -> Episode:
        """Play a session to its end, with texts left over or none.

        Raises:
            RuntimeError: The texts ran out before the episode ended.
        """
        voice = TextVoice()
        run_sync(session.prepare())
        begin(session, voice)
        for text in self.texts:
            if session.stop_reason is None:
                turn = voice.said(text, session.dialogue.token_limit())
                run_sync(take_turn(session, voice, turn))
        return session.episode()

    async def say(
        self, messages: Sequence[Message], stop: Sequence[str], max_tokens: int
    ) -> str:
        """Return the text of this turn: what an `EpisodeRunner` wants of a policy."""
        num_said = sum(message.role == "assistant" for message in messages)
        return self.texts[num_said]


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
    """Fails `times` times in one way, then replies "fine": what an environment has to
    survive.

    "raise" raises ValueError, "exit" SystemExit, "cancel" CancelledError; "hang" never
    returns; "junk" returns something that is no reply.
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
        raise {"exit": SystemExit, "cancel": asyncio.CancelledError}.get(
            self.fault, ValueError
        )("boom")


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


class FaultServer:
    """An endpoint for chat completions on loopback that does as it is told, request by
    request.

    with FaultServer(["429", "reply"]) as server:
        agent = ChatAgent("tiny", server.url)

    Args:
        script: What befalls the requests in turn, over and over: "reply"; a status such
            as "429"; "reset" and "cut" end the connection, before a response and within
            one; "hang" keeps silent; "drip" and "endless" never end, slowly and fast;
            "huge" are 10 MB; "garbage", "nothing", "utf8" (which it is not), "nested",
            "shape" and "empty" are no replies; "packed" is compressed though nobody
            asked for it.
        text: What its replies say; an error repeats the key that it was given.
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
        text: str = "fine",
        delay_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
        choice: Mapping[str, Any] | None = None,
        port: int = 0,
    ) -> None:
        self.text, self.delay_s, self.headers, self.url = (
            text,
            delay_s,
            headers or {},
            "",
        )
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.num_open = self.most_open = self.num_connections = 0
        self.choice, self._port = choice or {}, port
        self._script, self._started, self._ended = (
            cycle(script),
            Event(),
            asyncio.Event(),
        )

    def __enter__(self) -> "FaultServer":
        self._thread = Thread(
            target=asyncio.run, args=(self._serve(),), name="fault-server", daemon=True
        )
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *fault: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(
            self._connection, "127.0.0.1", self._port, backlog=4096
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._started.set()
        await self._ended.wait()
        server.close()
        await asyncio.sleep(0.01)  # for connections on their way in

    async def _connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.num_connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = (line.partition(": ") for line in head.splitlines()[1:-1])
                headers = {name.lower(): value for name, _, value in lines}
                body = json.loads(
                    await reader.readexactly(int(headers["content-length"]))
                )
                self.requests.append((headers, body))
                self.num_open += 1
                self.most_open = max(self.most_open, self.num_open)
                try:
                    await asyncio.sleep(self.delay_s)
                    await self._respond(next(self._script), headers, writer)
                finally:
                    self.num_open -= 1
        except (OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()

    async def _respond(
        self, fault: str, headers: Mapping[str, str], writer: asyncio.StreamWriter
    ) -> None:
        if fault == "reset":
            raise ConnectionResetError
        if fault == "hang":
            await asyncio.sleep(3600)
        text = "x" * 10_000_000 if fault == "huge" else self.text
        message = {
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            **self.choice,
        }
        usage = {"prompt_tokens": 10, "completion_tokens": len(text.split())}
        body = json.dumps({"choices": [message], "usage": usage}).encode()
        status = int(fault) if fault.isdigit() else 200
        body = (
            _JUNK.get(fault, body)
            if status == 200
            else f"refused: {headers['authorization']}".encode()
        )
        length = 2**50 if fault in ("cut", "drip", "endless") else len(body)
        sent = {
            "Content-Type": "application/json",
            "Content-Length": str(length),
            **self.headers,
        }
        if fault == "packed":
            sent["Content-Encoding"] = "gzip"
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)
        while fault in ("drip", "endless"):
            writer.write(b" " if fault == "drip" else b" " * 65536)
            await writer.drain()
            await asyncio.sleep(0.02 if fault == "drip" else 0)
        await writer.drain()
        if fault == "cut":
            raise ConnectionResetError
