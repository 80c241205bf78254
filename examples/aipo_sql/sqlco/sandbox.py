"""SQL that a model wrote, run where it can reach no file, run for long or grow
large.
"""

import re
import sqlite3

MAX_QUERY_CHARS = 1000
MAX_STEPS = 300_000
"""Instructions of SQLite's virtual machine that a query may take."""
LIMITS = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_COLUMN: 50,
    sqlite3.SQLITE_LIMIT_LENGTH: 1000,  # bytes of a value and of a row
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 5000,
}
ALLOWED = {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_DROP_TABLE,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_UPDATE,
}
"""Not PRAGMA, ATTACH and VACUUM, which reach files, and no views: those that stand on
each other double the work of reading a query with each.
"""
FORBIDDEN = ("load_extension", "fts3_tokenizer")
"""Functions that load code and that tell where in memory something is."""


def restrict(connection: sqlite3.Connection) -> None:
    """Let a connection do from now on only what cannot harm."""
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA max_page_count = 1000")
    for limit, value in LIMITS.items():
        connection.setlimit(limit, value)
    connection.set_progress_handler(lambda: 1, MAX_STEPS)
    connection.set_authorizer(_authorize)


def run(
    connection: sqlite3.Connection, query: str, limit: int
) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return the names of the columns and the first rows; no columns if it reads
    nothing.

    Raises:
        ValueError: The query is refused or fails; the message is for the policy.
    """
    if len(query) > MAX_QUERY_CHARS:
        raise ValueError(f"a query has at most {MAX_QUERY_CHARS} characters")
    # SQLite copies the text of a name that WITH gives wherever it is used, which a few
    # names that stand on each other make endless before any limit counts.
    if re.search(r"\bwith\b", query, re.IGNORECASE):
        raise ValueError("WITH is not allowed; CREATE TABLE name AS SELECT is")
    try:
        cursor = connection.execute(query)
        rows = cursor.fetchmany(limit)
    except MemoryError as error:
        raise ValueError("the query is too large") from error
    except (sqlite3.Error, sqlite3.Warning) as error:
        told = str(error)
        if told == "interrupted":
            told = f"stopped: the query takes more than {MAX_STEPS} steps"
        raise ValueError(told) from error
    columns = [column[0] for column in cursor.description or ()]
    cursor.close()
    return columns, rows


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    is_function = action == sqlite3.SQLITE_FUNCTION
    if action not in ALLOWED or (is_function and second in FORBIDDEN):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
