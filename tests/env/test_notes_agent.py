"""The agent that answers from notes, and its check of arithmetic."""

import time
from dataclasses import dataclass

import pytest

from aipo_env import AgentRequest, ConfigError, Task, ToySource, World, run_sync
from aipo_env.agents.notes import NotesAgent, check_arithmetic
from aipo_env.records import ConsultKind, Split


@dataclass(frozen=True)
class TwoTasks:
    """One task in each split."""

    def num_tasks(self, split: Split) -> int:
        return 1

    def task(self, split: Split, index: int) -> Task:
        meta = {
            "notes": {f"{split} term": f"what {split} means", "pH": "a logarithm"},
            "hint": f"begin {split}",
            "mistakes": {"24": "the order was counted", "\\frac{2}{3}": "not halved"},
        }
        return Task(id=split, prompt=f"problem {split}", answer="secret", meta=meta)


def say(kind: ConsultKind, query: str, problem: str = "") -> str:
    return run_sync(
        NotesAgent(TwoTasks()).reply(
            AgentRequest(kind=kind, query=query, problem=problem)
        )
    ).text


def test_knowledge_explains_the_terms_of_a_query_from_all_tasks():
    assert say("knowledge", "what is a Train Term?") == "train term: what train means"
    assert (
        say("knowledge", "test term and pH")
        == "pH: a logarithm\ntest term: what test means"
    )
    assert say("knowledge", "train terms, alpha") == "unknown"
    assert say("knowledge", "") == "unknown"


def test_reason_gives_the_hint_of_the_problem():
    assert say("reason", "how do I begin?", "problem test") == "begin test"
    assert say("reason", "how do I begin?", "problem") == "unknown"


def test_verify_checks_arithmetic():
    assert say("verify", "is 3 * 4 = 13?") == "wrong at 3 * 4 = 13;"


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("The result is \\boxed{24}.", "wrong at 24; the order was counted"),
        ("4! = 24 ways", "wrong at 24; the order was counted"),
        ("4 * 6 = 24", "wrong at 24; the order was counted"),
        ("4 * 6 = 25", "wrong at 4 * 6 = 25;"),
        ("So x = 4/6.", "wrong at \\frac{2}{3}; not halved"),
        ("24 is divided by 2, so \\boxed{12}", "unsure"),
        ("2 * 6 = 12", "right;"),
        ("I have no idea", "unsure"),
    ],
)
def test_verify_knows_the_result_of_a_typical_mistake(claim: str, said: str):
    assert say("verify", claim, "problem train") == said


def test_another_problem_has_other_mistakes():
    assert say("verify", "The result is 24.", "problem") == "unsure"


def test_a_reply_counts_its_words():
    agent = NotesAgent(TwoTasks())
    reply = run_sync(agent.reply(AgentRequest(kind="verify", query="3 * 4 = 13")))
    assert (agent.agent_id, reply.tokens) == ("notes", 7)


@pytest.mark.parametrize("kind", ["num_tasks", "meta"])
def test_a_source_without_notes_is_refused(kind: str):
    @dataclass(frozen=True)
    class Plain(TwoTasks):
        def task(self, split: Split, index: int) -> Task:
            return Task(id="x", prompt="x", answer="x")

    with pytest.raises(ConfigError, match="this source has neither. Use agents='none'"):
        NotesAgent(Plain() if kind == "meta" else ToySource(World()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3*4 = 12", "right;"),
        ("so 3 × 4 = 12 N.", "right;"),
        ("1/2 = 0.5", "right;"),
        ("0.1 + 0.2 = 0.3", "right;"),
        ("((1 + 2) * 3) / 9 = 1", "right;"),
        ("1,000 * 2 = 2,000", "right;"),
        ("5 - 7 = -2", "right;"),
        ("3 * 4 = 12 = 24 / 2", "right;"),
        ("v2 = 3*4 = 12", "right;"),
        ("3*4=12. 5*6=30", "right;"),
        ("3 * 4 = 13", "wrong at 3 * 4 = 13;"),
        ("3*4=12, then 5 * 6 = 31 and 7 * 8 = 5", "wrong at 5 * 6 = 31;"),
        ("3 * 4 = 12 = 24 / 3", "wrong at 12 = 24 / 3;"),
        ("10 / 3 = 3.33", "wrong at 10 / 3 = 3.33;"),
        ("2 * 3 = -6", "wrong at 2 * 3 = -6;"),
        (
            "0.1234567890123456789 * 1 = 0.1234567890123456788",
            "wrong at 0.1234567890123456789 * 1 = 0.1234567890123456788;",
        ),
        ("", "unsure"),
        ("x = 5", "unsure"),
        ("2x + 3*1 = 7", "unsure"),
        ("x - 3 * 1 = 7", "unsure"),
        ("x^2 = 3 * 4", "unsure"),
        ("3 * 4 = 12^2", "unsure"),
        ("3 * 4 = 12x", "unsure"),
        ("5 * 2 = 10%", "unsure"),
        ("10 / 3 ≈ 3.33", "unsure"),
        ("10 / 0 = 3", "unsure"),
        ("9 ** 9 ** 9 = 1", "unsure"),
        ("007 * 1 = 7", "unsure"),
        ("3 * 4 == 13", "unsure"),
        ("__import__('os') = 1 + 1", "unsure"),
    ],
)
def test_check_arithmetic(text: str, said: str):
    assert check_arithmetic(text) == said


@pytest.mark.parametrize(
    "unit", ["(", "1 ", "1+", "9", "1=", "1 = ", "((1)", ") ", "1.", "1*1=1 ", "1,000"]
)
def test_long_hostile_queries_take_no_time(unit: str):
    start = time.process_time()
    assert say("verify", unit * (1_000_000 // len(unit))) in ("right;", "unsure")
    assert time.process_time() - start < 5
