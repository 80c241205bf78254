"""Replies on disk: the journal of a run, and the cassette that a run is repeated from.

A journal is a JSON-lines file of replies already paid for, each under the key of its
call. A step that is sampled again after a crash takes them from there; another request
under the same key is asked afresh. A cassette is a journal of everything that was
asked.

Beside the replies, a journal names the agents that the run has lost and goes on
without:

    {"lost": "verify", "agent_id": "verify/openai:tiny#1f2e3d4c", "error": "…"}

Such a line is the run's, not a step's: it stays when the steps that asked have been
committed.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any
from weakref import finalize

from aipo_env.agents.base import AgentReply, AgentRequest, taken
from aipo_env.errors import AgentError, ConfigError, DataError
from aipo_env.files import bounded_lines, write_anew
from aipo_env.records import finite
from aipo_env.tasks.rows import read_line

MAX_ERROR_CHARS = 500
"""More of an error is not kept."""
_HASH_DIGITS = 16
"""Hexadecimal digits of a request's hash: within one key there are few requests."""
_END = 2**31
"""Numbers in a line are below it: no live call is tried so often, or lasts so long."""
_SEPARATOR = "\x1f"
"""ASCII's unit separator, so that no two requests are the same text put together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call came to.

    Args:
        reply: What was replied; None after a failure.
        error: Of the last attempt; empty where there is a reply.
        retries: Attempts after the first.
        seconds: Of all attempts.
    """

    reply: AgentReply | None
    error: str = ""
    retries: int = 0
    seconds: float = 0.0

    @classmethod
    def of_row(cls, reply: Any, **account: Any) -> "Outcome":
        """Return what a line of a file says, if a live call could have come to that.

        Raises:
            AgentError, TypeError, ValueError: It does not.
        """
        agent_reply = None if reply is None else taken(AgentReply(**reply))
        outcome = cls(reply=agent_reply, **account)
        # The file may be anybody's: its fields have any type.
        if not isinstance(outcome.error, str):
            raise ValueError("neither a reply nor an error")
        if agent_reply is None and not outcome.error:
            raise ValueError("neither a reply nor an error")
        is_number = type(outcome.retries) is int  # True is an instance of int
        if not is_number or not 0 <= outcome.retries < _END:
            raise ValueError("no number of retries")
        if not 0 <= finite("seconds", outcome.seconds) < _END:
            raise ValueError("no time")
        return replace(outcome, error=outcome.error[:MAX_ERROR_CHARS])


_LOSS = b'{"lost": '
"""How the line of an agent that is lost begins."""


def request_hash(request: AgentRequest) -> str:
    """Return 16 hexadecimal digits that name a request and the agent that it is put to.

    They are of all that the agent is shown, and of its version.
    """
    parts = (
        request.kind,
        request.query,
        request.problem,
        request.trace,
        str(request.seed),
        request.agent_id,
    )
    content = _SEPARATOR.join(parts)
    # A policy may write half a surrogate pair, which UTF-8 has no bytes for.
    data = content.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]


class Journal:
    """Replies on disk by key.

    A line cut short by a crash is dropped, and its call made again.

    Raises:
        ConfigError: There is no folder for the file, or what is there is a pipe or a
            device.
    """

    keeps_failures = False
    """Whether a call that failed stays in the file, and is not made again."""
    is_replay = False
    """Whether nobody is asked what is not in the file."""

    def __init__(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise ConfigError(
                f"{path}: there is no folder {path.parent}. Make it first."
            )
        # What goes into the null device is kept in memory all the same.
        is_null = path == Path(os.devnull)
        if path.exists() and not path.is_file() and not is_null:
            raise ConfigError(
                f"{path}: no file, so replies cannot be kept in it and read again. Name"
                " another."
            )
        self.path = path
        self._outcomes: dict[tuple[str, str], Outcome] = {}
        self._losses: dict[tuple[str, str], str] = {}
        if path.is_file():
            with path.open("rb") as file:
                for line in bounded_lines(file):
                    self._read(line)

    def _read(self, line: bytes) -> None:
        """Take up a line; one that is none of ours, or cut short, is passed over."""
        if self._read_loss(line):
            return
        try:
            row = read_line(line)
            name = (str(row.pop("key")), str(row.pop("hash")))
            reply = row.pop("reply")
            self._outcomes[name] = Outcome.of_row(reply, **row)
        except (ValueError, KeyError, TypeError, AttributeError, AgentError):
            return

    def _read_loss(self, line: bytes) -> bool:
        """Take up a line if it names an agent that is lost; return whether it does."""
        # Most lines are replies, and long: they are not parsed for this.
        if not line.startswith(_LOSS):
            return False
        try:
            row = read_line(line)
        except ValueError:
            return False
        kind = row.get("lost")
        agent_id = row.get("agent_id")
        error = row.get("error")
        for field in (kind, agent_id, error):
            is_filled = isinstance(field, str) and field != ""
            if not is_filled:
                return False
        self._losses[kind, agent_id] = error[:MAX_ERROR_CHARS]
        return True

    @cached_property
    def _file(self) -> FileIO:
        """The file, opened at the first write: one to read need not be writable."""
        # Unbuffered: each line is one write, so that environments of one process or
        # several may share it.
        file = self.path.open("ab", buffering=0)
        finalize(self, file.close)
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            file.write(b"\n")  # behind a line that a crash cut short
        return file

    def get(self, request: AgentRequest) -> Outcome | None:
        """Return what this very request came to before."""
        name = (str(request.key), request_hash(request))
        return self._outcomes.get(name)

    def put(self, request: AgentRequest, outcome: Outcome) -> None:
        """Keep a reply, which is on its way to the disk when this returns.

        A failure is kept where `keeps_failures` says so.
        """
        if not outcome.reply and not self.keeps_failures:
            return
        key = str(request.key)
        digest = request_hash(request)
        self._outcomes[key, digest] = outcome
        row = {"key": key, "hash": digest, **asdict(outcome)}
        self._file.write(json.dumps(row).encode() + b"\n")

    def size(self) -> int:
        """Return the bytes on disk, also those of others that share the file."""
        if not self.path.is_file():
            return 0
        return self.path.stat().st_size

    def lose(self, kind: str, agent_id: str, error: str) -> None:
        """Keep that the agent behind a role is lost to this run, unless it is known."""
        if (kind, agent_id) in self._losses:
            return
        self._losses[kind, agent_id] = error[:MAX_ERROR_CHARS]
        self._file.write(self._loss_line(kind, agent_id))

    def loss(self, kind: str, agent_id: str) -> str | None:
        """Return why the agent behind a role is lost to this run; None: it is not."""
        return self._losses.get((kind, agent_id))

    def _loss_line(self, kind: str, agent_id: str) -> bytes:
        error = self._losses[kind, agent_id]
        row = {"lost": kind, "agent_id": agent_id, "error": error}
        return json.dumps(row).encode() + b"\n"

    def forget(self) -> None:
        """Forget the replies in memory: the steps that asked are made."""
        self._outcomes.clear()

    def clear(self, num_bytes: int) -> None:
        """Forget every reply, and drop the file's first bytes.

        The steps that asked have been committed. What names a lost agent stays, also if
        another process that shares the file wrote it.

        Args:
            num_bytes: How many, up to the end of a line.
        """
        self.forget()
        content = self.path.read_bytes()
        for line in content[:num_bytes].splitlines():
            self._read_loss(line)
        losses = [self._loss_line(kind, agent_id) for kind, agent_id in self._losses]
        # What another process wrote since the steps were counted stays.
        left = b"".join(losses) + content[num_bytes:]
        num_names = os.fstat(self._file.fileno()).st_nlink
        if num_names > 1:
            # The file has another name, a backup's for example: there it stays whole.
            self.close()
            write_anew(self.path, left)
            return
        self._file.truncate(0)
        self._file.write(left)

    def close(self) -> None:
        """Close the file, if it was written to; the next write opens it again."""
        # Where a cached property keeps its value, which to ask for would open the file.
        if "_file" in vars(self):
            self._file.close()
            del self._file


class Cassette(Journal):
    """Everything that agents and tools were asked in a run, and what it came to.

    Failures and times are included. A rerun with the same seeds gives byte-equal
    episodes. Requests marked private are not kept.

    Args:
        spec: A file. What is in it is not asked again; anything else is asked, and
            added. "replay:FILE" asks nobody: a call that is not in the file fails.

    Raises:
        DataError: The file to replay does not exist. ConfigError: there is no folder
            for a new one.
    """

    keeps_failures = True

    def __init__(self, spec: str) -> None:
        name = spec.removeprefix("replay:")
        self.is_replay = name != spec
        path = Path(name).expanduser()
        if self.is_replay and not path.is_file():
            raise DataError(
                f"cassette {path}: no such file. Record it: cassette={name!r}."
            )
        super().__init__(path)

    def get(self, request: AgentRequest) -> Outcome | None:
        """Return what this very request came to before, or None.

        In a replay one that was never made is a failure.
        """
        outcome = super().get(request)
        if outcome or not self.is_replay:
            return outcome
        return Outcome(
            reply=None,
            error=f"cassette {self.path} holds no reply to this request: record it",
        )
