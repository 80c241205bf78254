"""A Knowledge Agent with a library: passages of your own .txt and .md files, each with
its file and line.
"""

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from weakref import finalize

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.roles import version_hash
from aipo_env.errors import ConfigError, DataError, check_whole

MAX_PASSAGE_CHARS = 1_000
"""A longer paragraph is split at a line, or here."""
MAX_WORDS = 40
"""Words of a query that are looked for."""
_WORD = re.compile(r"\w+")


@dataclass(eq=False)
class Library:
    """Answers with the passages that match a query best, the rarest of its words
    counting most.

    Args:
        folder: Read whole, sub-folders included, when the agent is made. Nothing is
            written.
        num: Passages in a reply, at most.

    Raises:
        ConfigError: `num` is out of range, or this Python's SQLite has no full-text
            search.
        DataError: There is no such folder, no text in it, or a file that is no UTF-8.
    """

    folder: str
    num: int = 3
    is_deterministic = True

    def __post_init__(self) -> None:
        root = Path(self.folder).expanduser()
        check_whole("agent 'library': num", self.num, 1)
        passages = list(_passages(root))
        if not passages:
            raise DataError(
                f"agent 'library': {root} is no folder with .txt or .md files that hold"
                " text."
            )
        self.agent_id = f"library:{root.resolve().name}#{version_hash(passages)}"
        """The folder's name and a hash of what is in it."""
        self._index = sqlite3.connect(":memory:", check_same_thread=False)
        finalize(self, self._index.close)
        columns = "place UNINDEXED, text, tokenize=porter"
        try:
            self._index.execute(f"CREATE VIRTUAL TABLE passages USING fts5({columns})")
        except sqlite3.OperationalError as error:
            raise ConfigError(
                f"agent 'library': SQLite has no full-text search here: {error}."
            ) from error
        self._index.executemany("INSERT INTO passages VALUES (?, ?)", passages)

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Quote passages, best first, or say "unknown"."""
        # Quoted, so that no word is an operator of the query language.
        words = dict.fromkeys(
            word.lower() for word in _WORD.findall(request.query[:4_000])
        )
        wanted = " OR ".join(f'"{word}"' for word in list(words)[:MAX_WORDS])
        query = (
            "SELECT place, text FROM passages WHERE passages MATCH ? ORDER BY rank,"
            " rowid LIMIT ?"
        )
        found = self._index.execute(query, (wanted or '""', self.num)).fetchall()
        text = (
            "\n\n".join(f"[{place}] {passage}" for place, passage in found) or "unknown"
        )
        return AgentReply(text=text, tokens=len(text.split()))


def _passages(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the paragraphs of all files, with "file:line"."""
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in (".txt", ".md") or not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(
                f"agent 'library': {path} cannot be read as UTF-8 text: {error}."
            ) from error
        start, passage = 1, ""
        for number, line in enumerate([*lines, ""], 1):
            if passage and (
                not line.strip() or len(passage) + len(line) > MAX_PASSAGE_CHARS
            ):
                yield (
                    f"{path.relative_to(root).as_posix()}:{start}",
                    passage[:MAX_PASSAGE_CHARS],
                )
                passage = ""
            start = start if passage else number
            passage += ("\n" if passage else "") + line.strip()
