"""Replies on disk: the journal of a run, and the cassette from which a whole run can be repeated.

A journal is a JSON-lines file of replies already paid for, each under the key of its call. A step that is
sampled again after a crash takes them from there; another request under the same key is asked afresh. A
cassette is a journal of everything that was asked.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from weakref import finalize

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.errors import AgentError, ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call came to: a reply, or the error of the last attempt. `seconds` covers all attempts."""

    reply: AgentReply | None
    error: str = ""
    retries: int = 0
    seconds: float = 0.0


def request_hash(request: AgentRequest) -> str:
    """Return 16 hexadecimal digits that name what an agent was shown, and which version of which agent."""
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
    """Replies on disk by key. A line cut short by a crash is dropped; the call is made again.

    Raises:
        ConfigError: There is no folder for the file.
    """

    keeps_failures = False

    def __init__(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise ConfigError(
                f"{path}: there is no folder {path.parent}. Make it first."
            )
        self.path = path
        self._kept: dict[tuple[str, str], Outcome] = {}
        for line in path.read_bytes().splitlines() if path.is_file() else ():
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
        if not outcome.reply and not self.keeps_failures:
            return
        key, digest = str(request.key), request_hash(request)
        self._kept[key, digest] = outcome
        row = {"key": key, "hash": digest, **asdict(outcome)}
        self._file.write(json.dumps(row).encode() + b"\n")

    def size(self) -> int:
        """Return the bytes on disk, those of other processes that share the file included."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def forget(self) -> None:
        """Forget what is in memory: the steps that asked are made."""
        self._kept.clear()

    def clear(self, num_bytes: int) -> None:
        """Forget everything, and drop the file's first bytes: the steps that asked have been committed."""
        self.forget()
        kept = self.path.read_bytes()[num_bytes:]
        self._file.truncate(0)
        self._file.write(kept)

    def close(self) -> None:
        """Close the file, if it was written to."""
        if "_file" in vars(self):
            self._file.close()


class Cassette(Journal):
    """Everything that agents and tools were asked in a run, and what it came to, failures and times included.

    A rerun with the same seeds gives byte-equal episodes. Requests marked private are not kept.

    Args:
        spec: A file. What is in it is not asked again; anything else is asked, and added. "replay:FILE" asks
            nobody: a call that is not in the file fails.

    Raises:
        DataError: The file to replay does not exist. ConfigError: there is no folder for a new one.
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
        """Return what this very request came to before; in a replay, a failure when it was never made."""
        kept = super().get(request)
        if kept or not self.is_replay:
            return kept
        return Outcome(
            reply=None,
            error=f"cassette {self.path} holds no reply to this request: record it",
        )
