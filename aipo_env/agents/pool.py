"""The only way to an agent: limits calls in flight, gives each a deadline, retries, keeps a journal.

The journal is a JSON-lines file of replies already paid for, each under the key of its call. A step that
is sampled again after a crash takes them from there; another request under the same key is asked afresh.
A cassette is a journal of everything that was asked, from which a whole run can be repeated.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from io import FileIO
from pathlib import Path
from weakref import WeakKeyDictionary, finalize

from aipo_env.agents.base import Agent, AgentReply, AgentRequest
from aipo_env.errors import AgentError, ConfigError, DataError

MAX_REPLY_CHARS = 20_000
"""A reply is cut here: no agent may flood an episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Limits of an agent pool.

    Args:
        concurrency: Calls in flight at once, over all agents.
        deadline_s: Seconds a single attempt may take.
        retries: Further attempts after a failed one.
        backoff_s: Seconds before the first retry; doubled for each further one.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    concurrency: int = 64
    deadline_s: float = 60.0
    retries: int = 2
    backoff_s: float = 0.5

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"agent pool: concurrency={self.concurrency} must be at least 1.")
        if not self.deadline_s > 0:
            raise ConfigError(f"agent pool: deadline_s={self.deadline_s} must be positive.")
        for name in ("retries", "backoff_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"agent pool: {name}={getattr(self, name)} must not be negative.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call came to: a reply, or the error of the last attempt. `seconds` covers all attempts."""

    reply: AgentReply | None
    error: str = ""
    retries: int = 0
    seconds: float = 0.0


def request_hash(request: AgentRequest) -> str:
    """Return 16 hexadecimal digits that name what an agent was shown."""
    shown = "\x1f".join((request.kind, request.query, request.problem, request.trace, str(request.seed)))
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Journal:
    """Replies on disk by key. A line cut short by a crash is dropped; the call is made again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[tuple[str, str], Outcome] = {}
        lines = path.read_bytes().splitlines() if path.is_file() else []
        for line in lines:
            try:
                row = json.loads(line)
                name, reply = (row.pop("key"), row.pop("hash")), row.pop("reply")
                self._kept[name] = Outcome(reply=reply and AgentReply(**reply), **row)
            except (ValueError, KeyError, TypeError, AttributeError, AgentError):
                continue

    @cached_property
    def _file(self) -> FileIO:
        """The file, opened at the first write, so that one that is only read need not be writable."""
        # Unbuffered: each line is one write, so that environments of one process or several may share it.
        file = self.path.open("ab", buffering=0)
        finalize(self, file.close)
        if self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n"):
            file.write(b"\n")
        return file

    def get(self, request: AgentRequest) -> Outcome | None:
        """Return what this very request came to before."""
        return self._kept.get((str(request.key), request_hash(request)))

    def put(self, request: AgentRequest, outcome: Outcome) -> None:
        """Keep a reply; it is on its way to the disk when this returns. A failure is not kept."""
        if outcome.reply:
            self._keep(request, outcome)

    def _keep(self, request: AgentRequest, outcome: Outcome) -> None:
        key, digest = str(request.key), request_hash(request)
        self._kept[key, digest] = outcome
        row = {"key": key, "hash": digest, **asdict(outcome)}
        self._file.write(json.dumps(row).encode() + b"\n")

    def clear(self) -> None:
        """Forget everything: the step that asked has been committed."""
        self._kept.clear()
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Cassette(Journal):
    """Everything that agents and tools were asked in a run, and what it came to, failures and times included.

    A rerun with the same seeds gives byte-equal episodes.

    Args:
        spec: A file. What is in it is not asked again; anything else is asked, and added. "replay:FILE" asks
            nobody: a call that is not in the file fails.

    Raises:
        DataError: The file to replay does not exist. ConfigError: there is no folder for a new one.
    """

    def __init__(self, spec: str) -> None:
        mode, _, name = spec.partition(":")
        self.is_replay = mode == "replay"
        path = Path(name if self.is_replay else spec).expanduser()
        if self.is_replay and not path.is_file():
            raise DataError(f"cassette {path}: no such file. Record it: cassette={name!r}.")
        if not path.parent.is_dir():
            raise ConfigError(f"cassette {path}: there is no folder {path.parent}. Make it first.")
        super().__init__(path)

    def get(self, request: AgentRequest) -> Outcome | None:
        """Return what this very request came to before; in a replay, a failure when it was never made."""
        kept = super().get(request)
        if kept or not self.is_replay:
            return kept
        return Outcome(reply=None, error=f"cassette {self.path} holds no reply to this request: record it")

    def put(self, request: AgentRequest, outcome: Outcome) -> None:
        """Keep an outcome."""
        self._keep(request, outcome)


class AgentPool:
    """The agents of a run by role, and its tools by name, behind shared limits."""

    def __init__(
        self,
        agents: Mapping[str, Agent],
        limits: PoolLimits | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.agents = dict(agents)
        self.limits = limits or PoolLimits()
        self.journal = journal
        # A semaphore belongs to the event loop it first waited in, a pool outlives loops.
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    def agent_id(self, kind: str) -> str:
        """Return the name of the agent behind a role, or of a tool."""
        agent = self.agents.get(kind)
        return agent.agent_id if agent else ""

    async def consult(self, request: AgentRequest) -> Outcome:
        """Ask an agent. Never raises for what an agent does: a failure is an outcome."""
        agent = self.agents.get(request.kind)
        if agent is None:
            return Outcome(reply=None, error=f"no agent for {request.kind!r}")
        outcome = self.journal.get(request) if self.journal else None
        if outcome is None:
            outcome = await self._ask(agent, request)
            if self.journal:
                self.journal.put(request, outcome)
        return outcome

    async def _ask(self, agent: Agent, request: AgentRequest) -> Outcome:
        start, error = time.monotonic(), ""
        for attempt in range(self.limits.retries + 1):
            if attempt:
                await asyncio.sleep(self.limits.backoff_s * 2 ** (attempt - 1))
            reply, error = await self._attempt(agent, request)
            if reply is not None:
                return Outcome(reply=reply, retries=attempt, seconds=time.monotonic() - start)
        return Outcome(reply=None, error=error, retries=self.limits.retries, seconds=time.monotonic() - start)

    async def _attempt(self, agent: Agent, request: AgentRequest) -> tuple[AgentReply | None, str]:
        """Make one attempt; return the reply, or None and what went wrong."""
        slots = self._slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.limits.concurrency))
        try:
            async with slots, asyncio.timeout(self.limits.deadline_s) as deadline:
                reply: object = await agent.reply(request)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            return None, "the agent cancelled itself"
        except (Exception, SystemExit) as error:  # an agent may be somebody else's program
            if deadline.expired():
                return None, f"no reply within {self.limits.deadline_s} s"
            return None, f"{type(error).__name__}: {error}"
        if not isinstance(reply, AgentReply):
            return None, f"no AgentReply, but {type(reply).__name__}"
        # Half a surrogate pair, as a JSON API may return it, is no text that a tokenizer takes.
        text = reply.text[:MAX_REPLY_CHARS].encode("utf-8", "replace").decode()
        if not text.strip():
            return None, "the reply is empty"
        return reply if text == reply.text else replace(reply, text=text), ""
