"""A tool with state: each episode has an instance, whose public methods the policy
calls.
"""

import sqlite3

from aipo_env import Task
from sqlco import sandbox
from sqlco.company import fill
from sqlco.tasks import SqlTasks

MAX_ROWS = 50
MAX_CHARS = 2000


class Database:
    """The company's database, in memory: what an episode changes, it alone sees."""

    def __init__(self, task: Task) -> None:
        # Calls come one at a time, from different threads. A statement that SQLite
        # keeps would go on counting its steps from call to call.
        self.connection = sqlite3.connect(
            ":memory:",
            check_same_thread=False,
            cached_statements=0,
            isolation_level=None,
        )
        fill(self.connection, task.meta["seed"])
        sandbox.restrict(self.connection)

    def describe_table(self, table: str) -> str:
        """Tell the columns of a table and their types.

        Args:
            table: Its name alone.
        """
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
        _, rows = sandbox.run(self.connection, query, MAX_ROWS)
        tables = {str(name): str(sql) for name, sql in rows}
        if table not in tables:
            raise ValueError(f"no such table; there are {', '.join(tables)}")
        return tables[table]

    def run_sql(self, query: str, limit: int = 20) -> str:
        """Run one SQL statement; tables of your own may be made too.

        Args:
            query: What to run.
            limit: Most rows that are shown, 1 to 50.
        """
        if not 1 <= limit <= MAX_ROWS:
            raise ValueError(f"limit must be from 1 to {MAX_ROWS}, got {limit}")
        columns, rows = sandbox.run(self.connection, query, limit)
        if not columns:
            return "done"
        lines = [" | ".join(map(str, row)) for row in (columns, *rows)]
        return "\n".join(lines)[:MAX_CHARS]

    def close(self) -> None:
        """Called at the end of the episode."""
        self.connection.close()


Database.check_with = {
    "method": "run_sql",
    "arguments": {"query": "SELECT 1"},
    "task": SqlTasks().task("train", 0),
}
