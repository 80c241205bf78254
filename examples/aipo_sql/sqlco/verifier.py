"""A verifier with partial reward: a query that runs earns something, the right rows the
rest.
"""

import asyncio
from contextlib import closing

from aipo_env import EpisodeView, Task, Verdict
from sqlco import sandbox
from sqlco.database import Database
from sqlco.tasks import SqlTasks

MAX_ROWS = 200
RUNS, RIGHT = 0.2, 0.8


class SqlVerifier:
    """Runs the last ```sql block of an answer and compares its rows with the gold
    query's.
    """

    async def verify(
        self, task: Task, text: str, episode: EpisodeView | None
    ) -> Verdict:
        query = last_query(text)
        if not query:
            reason = "there is no ```sql block"
            return Verdict(correct=False, reward=0.0, status="no_answer", reason=reason)
        # Queries take time; the event loop has other episodes to go on with.
        return await asyncio.to_thread(_judge, task, query, episode)


def last_query(text: str) -> str:
    """Return what stands in the last ```sql block that is closed, or nothing."""
    _, opened, block = text.rpartition("```sql")
    query, closed, _ = block.partition("```")
    return query.strip() if opened and closed else ""


def _judge(task: Task, query: str, episode: EpisodeView | None) -> Verdict:
    with closing(Database(task)) as fresh:
        # What is right does not depend on what the episode did to its own database. The
        # answer is asked there, since it may use tables that the policy made.
        _, right = sandbox.run(fresh.connection, task.answer, MAX_ROWS)
        used = episode.tools.get("Database", fresh) if episode else fresh
        try:
            columns, rows = sandbox.run(used.connection, query, MAX_ROWS)
        except ValueError as error:
            return _verdict(query, str(error), {"runs": 0.0, "rows": 0.0})
    if not columns:
        return _verdict(query, "it reads nothing", {"runs": 0.0, "rows": 0.0})
    if sorted(rows, key=repr) != sorted(right, key=repr):
        return _verdict(query, "other rows are right", {"runs": RUNS, "rows": 0.0})
    return _verdict(query, "", {"runs": RUNS, "rows": RIGHT})


def _verdict(query: str, reason: str, parts: dict[str, float]) -> Verdict:
    is_right = parts["rows"] > 0
    return Verdict(
        correct=is_right,
        reward=sum(parts.values()),
        parts=parts,
        status="correct" if is_right else "wrong",
        extracted=query,
        reason=reason,
    )


SqlVerifier.check_with = {
    "task": SqlTasks().task("train", 0),
    "right": f"```sql\n{SqlTasks().task('train', 0).answer}\n```",
    "wrong": ("```sql\nSELECT 1\n```", "```sql\nSELEKT\n```", "I do not know."),
}
