"""Replies on disk: the journal of a run, and the cassette from which a whole run can be
repeated.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call came to: a reply, or the error of the last attempt. `seconds` covers
    all attempts.
    """

    reply: AgentReply | None
    error: str = ""
    retries: int = 0
    seconds: float = 0.0

    @classmethod
    def of_row(cls, reply: Any, **account: Any) -> "Outcome":
        """Return what a line of a file says, if it says what a live call could have
        come to.

        Raises:
            AgentError, TypeError, ValueError: It does not.
        """
        said = taken(AgentReply(**reply)) if reply is not None else None
        outcome = cls(reply=said, **account)
        if not isinstance(outcome.error, str) or (said is None and not outcome.error):
            raise ValueError("neither a reply nor an error")
        if type(outcome.retries) is not int or not 0 <= outcome.retries < 2**31:
            raise ValueError("no number of retries")
        if not 0 <= finite("seconds", outcome.seconds) < 2**31:
            raise ValueError("no time")
        return replace(outcome, error=outcome.error[:MAX_ERROR_CHARS])


_LOSS = b'{"lost": '
"""How the line of an agent that is lost begins."""


def request_hash(request: AgentRequest) -> str:
    """Return 16 hexadecimal digits that name what an agent was shown, and which version
    of which agent.
    """
    parts = (
        request.kind,
        request.query,
        request.problem,
        request.trace,
        str(request.seed),
        request.agent_id,
    )
    shown = "\x1f".join(parts)
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Journal:
    """Replies on disk by key. A line cut short by a crash is dropped; the call is made
    again.

    Raises:
        ConfigError: There is no folder for the file, or what is there is a pipe or a
            device.
    """

    keeps_failures = False
    is_replay = False
    """Whether nobody is asked what is not in the file."""

    def __init__(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise ConfigError(
                f"{path}: there is no folder {path.parent}. Make it first."
            )
        if path.exists() and not path.is_file():
            raise ConfigError(
                f"{path}: no file, so replies cannot be kept in it and read again. Name"
                " another."
            )
        self.path = path
        self._kept: dict[tuple[str, str], Outcome] = {}
        self._losses: dict[tuple[str, str], str] = {}
        if path.is_file():
            with path.open("rb") as file:
                for line in bounded_lines(file):
                    self._read(line)

    def _read(self, line: bytes) -> None:
        """Take up a line; one that is none of ours, or was cut short, is passed
        over.
        """
        if self._read_loss(line):
            return
        try:
            row = read_line(line)
            name = str(row.pop("key")), str(row.pop("hash"))
            self._kept[name] = Outcome.of_row(row.pop("reply"), **row)
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
        fields = [row.get(name) for name in ("lost", "agent_id", "error")]
        if not all(isinstance(field, str) and field for field in fields):
            return False
        kind, agent_id, error = fields
        self._losses[kind, agent_id] = error[:MAX_ERROR_CHARS]
        return True

    @cached_property
    def _file(self) -> FileIO:
        """The file, opened at the first write, so that one that is only read need not
        be writable.
        """
        # Unbuffered: each line is one write, so that environments of one process or
        # several may share it.
        file = self.path.open("ab", buffering=0)
        finalize(self, file.close)
        if self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n"):
            file.write(b"\n")
        return file

    def get(self, request: AgentRequest) -> Outcome | None:
        """Return what this very request came to before."""
        return self._kept.get((str(request.key), request_hash(request)))

    def put(self, request: AgentRequest, outcome: Outcome) -> None:
        """Keep a reply; it is on its way to the disk when this returns. A failure is
        not kept.
        """
        if not outcome.reply and not self.keeps_failures:
            return
        key, digest = str(request.key), request_hash(request)
        self._kept[key, digest] = outcome
        row = {"key": key, "hash": digest, **asdict(outcome)}
        self._file.write(json.dumps(row).encode() + b"\n")

    def size(self) -> int:
        """Return the bytes on disk, those of other processes that share the file
        included.
        """
        return self.path.stat().st_size if self.path.is_file() else 0

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
        self._kept.clear()

    def clear(self, num_bytes: int) -> None:
        """Forget every reply, and drop the file's first bytes: the steps that asked
        have been committed.

        What names a lost agent stays, also if another process that shares the file
        wrote it.
        """
        self.forget()
        content = self.path.read_bytes()
        for line in content[:num_bytes].splitlines():
            self._read_loss(line)
        losses = [self._loss_line(*place) for place in self._losses]
        left = b"".join(losses) + content[num_bytes:]
        if os.fstat(self._file.fileno()).st_nlink > 1:
            # The file has another name, a backup's for example: there it stays whole.
            self.close()
            write_anew(self.path, left)
            return
        self._file.truncate(0)
        self._file.write(left)

    def close(self) -> None:
        """Close the file, if it was written to; the next write opens it again."""
        if "_file" in vars(self):
            self._file.close()
            del self._file


class Cassette(Journal):
    """Everything that agents and tools were asked in a run, and what it came to,
    failures and times included.

    A rerun with the same seeds gives byte-equal episodes. Requests marked private are
    not kept.

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
        self.is_replay, path = name != spec, Path(name).expanduser()
        if self.is_replay and not path.is_file():
            raise DataError(
                f"cassette {path}: no such file. Record it: cassette={name!r}."
            )
        super().__init__(path)

    def get(self, request: AgentRequest) -> Outcome | None:
        """Return what this very request came to before; in a replay, a failure when it
        was never made.
        """
        kept = super().get(request)
        if kept or not self.is_replay:
            return kept
        return Outcome(
            reply=None,
            error=f"cassette {self.path} holds no reply to this request: record it",
        )
