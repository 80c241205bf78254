"""The conformance checks of every component, SQL that means harm, and played
episodes.
"""

import gymnasium as gym
import pytest
from sqlco import Database, Glossary, SqlTasks, SqlVerifier

from aipo_env import check_agent, check_task_source, check_tool, check_verifier

ID = "sqlco:Co/AIPO-Sql-Turn-v0"
TASK = SqlTasks().task("train", 0)


def answer(query: str) -> str:
    return f"Here it is:\n```sql\n{query}\n```"


def test_the_tasks():
    check_task_source("sql")
    assert (SqlTasks().num_tasks("train"), SqlTasks().num_tasks("test")) == (12, 3)


def test_the_tool():
    check_tool("database", **Database.check_with)


def test_the_agent():
    check_agent("glossary", **Glossary.check_with)


def test_the_verifier():
    check_verifier("sql", **SqlVerifier.check_with)


def test_no_right_answer_is_empty():
    for split in ("train", "test"):
        for index in range(SqlTasks().num_tasks(split)):
            task = SqlTasks().task(split, index)
            assert len(Database(task).run_sql(task.answer).splitlines()) > 1


FOUR = "staff a, staff b, staff c, staff d"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("ATTACH 'stolen.db' AS other", "not authorized"),
        ("VACUUM INTO 'stolen.db'", "authorization denied"),
        ("SELECT load_extension('evil')", "not authorized"),
        ("PRAGMA writable_schema = 1", "not authorized"),
        ("SELECT * FROM pragma_database_list", "not authorized"),
        (f"SELECT count(*) FROM {FOUR}", "more than 300000 steps"),
        (f"CREATE TABLE t AS SELECT hex(zeroblob(400)) FROM {FOUR}", "full"),
        ("SELECT zeroblob(1000000000)", "too big"),
        ("WITH a AS (SELECT 1) SELECT 1 FROM a, a", "WITH is not allowed"),
        (f"SELECT '{'a' * 1000}'", "at most 1000 characters"),
        ("SELECT 1; DROP TABLE staff", "one statement"),
        ("SELECT '\ud83d'", "surrogates"),
    ],
)
def test_sql_that_means_harm_is_an_error(query: str, message: str):
    database = Database(TASK)
    with pytest.raises(ValueError, match=message):
        database.run_sql(query)
    assert database.run_sql("SELECT count(*) FROM staff") == "count(*)\n60"


def test_a_query_may_be_repeated():
    database = Database(TASK)
    query = "SELECT count(*) FROM staff a, staff b"
    replies = [database.run_sql(query) for _ in range(100)]
    assert replies == ["count(*)\n3600"] * 100


def test_an_episode():
    env = gym.make(ID, observation="delta")
    prompt, _ = env.reset(seed=0, options={"index": 0})
    assert prompt.endswith("Name the active customers in region north.")
    assert "<knowledge>" in prompt
    for turn, reply in (
        ("<knowledge>What is active?</knowledge>", "An active customer has status 2."),
        ("<describe_table>customer</describe_table>", "status INTEGER"),
        ("<describe_table>client</describe_table>", "there are customer, orders"),
        ('<run_sql>{"query": "SELECT * FROM staff", "limit": 2}</run_sql>', "2 | s2"),
    ):
        assert reply in env.step(turn)[0]
    _, reward, terminated, _, _ = env.step(answer(TASK.answer))
    assert (reward, terminated) == (1.0, True)


@pytest.mark.parametrize(
    ("text", "reward", "reason"),
    [
        (answer("SELECT name FROM customer"), 0.2, "completed"),
        (answer("SELECT nothing"), 0.0, "completed"),
        (answer("DELETE FROM customer"), 0.0, "completed"),
        ("I do not know.", 0.0, "no_answer"),
    ],
)
def test_what_other_answers_earn(text: str, reward: float, reason: str):
    env = gym.make(ID)
    env.reset(seed=0, options={"index": 0})
    _, earned, _, _, info = env.step(text)
    assert (earned, info["stop_reason"]) == (reward, reason)


def test_an_answer_may_use_the_tables_of_its_episode_and_not_change_what_is_right():
    env = gym.make(ID)
    env.reset(seed=0, options={"index": 0})
    env.step(f"<run_sql>CREATE TABLE mine AS {TASK.answer}</run_sql>")
    assert env.step(answer("SELECT name FROM mine"))[1] == 1.0
    env.reset(seed=0, options={"index": 0})
    env.step("<run_sql>DELETE FROM customer</run_sql>")
    assert env.step(answer(TASK.answer))[1] == 0.2
