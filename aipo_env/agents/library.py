"""A Knowledge Agent with a library: it quotes your own .txt and .md files.

Each passage comes with its file and line.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import finalize

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.roles import version_hash
from aipo_env.errors import ConfigError, DataError, check_whole

MAX_PASSAGE_CHARS = 1_000
"""A longer paragraph is split at a line, or here."""
MAX_WORDS = 40
"""Words of a query that are looked for; each costs a look into the index."""
MAX_SEARCHED_CHARS = 4_000
"""Only this much of a query is read."""
_BEST_PASSAGES = (
    "SELECT place, text FROM passages WHERE passages MATCH ? ORDER BY rank,"
    " rowid LIMIT ?"
)
"""Equal ranks in the order of the files, so that equal queries get equal replies."""
_WORD = re.compile(r"\w+")


@dataclass(eq=False)
class Library:
    """Answers with the passages that match a query best.

    The rarest of its words count most.

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
        # One pool may be used from several event loops, each in a thread; none writes.
        self._index = sqlite3.connect(":memory:", check_same_thread=False)
        finalize(self, self._index.close)
        # "porter" finds "groups" for "group"; a place is stored, and not searched.
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
        words = _WORD.findall(request.query[:MAX_SEARCHED_CHARS])
        # Each once, in the order of the query.
        distinct = dict.fromkeys(word.lower() for word in words)
        # Quoted, so that no word is an operator of the query language.
        terms = [f'"{word}"' for word in list(distinct)[:MAX_WORDS]]
        # An empty pattern would be an error, an empty term matches nothing.
        pattern = " OR ".join(terms) or '""'
        rows = self._index.execute(_BEST_PASSAGES, (pattern, self.num)).fetchall()
        quotations = [f"[{place}] {passage}" for place, passage in rows]
        text = "\n\n".join(quotations) or "unknown"
        return AgentReply(text=text, tokens=len(text.split()))


def _passages(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the paragraphs of all files, with "file:line"."""
    # Sorted, so that the version in the agent's id is the same on every machine.
    for path in sorted(root.rglob("*")):
        is_text = path.suffix.lower() in (".txt", ".md")
        if not is_text or not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(
                f"agent 'library': {path} cannot be read as UTF-8 text: {error}."
            ) from error
        name = path.relative_to(root).as_posix()
        for number, passage in _paragraphs(lines):
            yield f"{name}:{number}", passage


def _paragraphs(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of a file, each with the number of its first line."""
    start = 1
    passage = ""
    # An empty line more ends the last paragraph.
    for number, line in enumerate([*lines, ""], 1):
        is_full = len(passage) + len(line) > MAX_PASSAGE_CHARS
        if passage and (not line.strip() or is_full):
            # A single line may be longer than a passage can be.
            yield start, passage[:MAX_PASSAGE_CHARS]
            passage = ""
        if passage:
            passage += "\n"
        else:
            start = number
        passage += line.strip()
