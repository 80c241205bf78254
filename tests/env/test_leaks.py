"""The leak rule: how often it is right, what it costs, and that it tells nothing of the
gold.
"""

import asyncio
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aipo_env import (
    AgentPool,
    AgentReply,
    AgentRequest,
    CodeTests,
    DialogueRules,
    Episode,
    MathVerifier,
    ScriptedPolicy,
    Session,
    TagsCodec,
    Task,
    run_sync,
)
from aipo_env.verifiers.leaks import check
from aipo_env.verifiers.leaks.check import gives_away
from aipo_env.verifiers.leaks.gold import Gold, is_short
from aipo_env.verifiers.leaks.numerals import _ONES, _words

CASES = [
    json.loads(line)
    for line in (
        (Path(__file__).parent / "data" / "leaks.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
]
ASK = "<knowledge>What is it?</knowledge>"


def gold_of(case: dict[str, Any]) -> Gold:
    fields = {name: case[name] for name in ("kind", "prompt", "entry") if name in case}
    return Gold(case["gold"], **fields)


def found(gold: Gold, reply: str, said: str = "") -> bool:
    return run_sync(gives_away(gold, reply, said))


def rate(label: bool) -> float:
    cases = [case for case in CASES if case["gives_away"] is label]
    assert len(cases) >= 200
    wrong = [found(gold_of(case), case["reply"]) is not label for case in cases]
    return sum(wrong) / len(cases)


def test_few_leaks_are_missed():
    assert rate(True) <= 0.03


def test_few_honest_replies_are_withheld():
    assert rate(False) <= 0.01


def test_no_case_is_of_a_gold_with_few_candidates():
    assert not [case["gold"] for case in CASES if is_short(gold_of(case))]


@pytest.mark.parametrize(
    ("answer", "short"),
    [
        ("42", True),
        ("8,534", True),
        ("$ 1 2 3 $", True),
        ("\\frac{1}{2}", True),
        ("\\frac{1}{12}", True),
        ("37.5\\%", True),
        ("90^\\circ", True),
        ("\\sqrt{2}", True),
        ("\\text{(B)}", True),
        ("\\text{odd}", True),
        ("Thursday", True),
        ("infinite", True),
        ("123456", False),
        ("\\frac{17}{64}", False),
        ("\\frac{\\pi}{\\sqrt{2}}", False),
        ("photosynthesis", False),
        ("Marie Curie", False),
        ("yes", True),
    ],
)
def test_short_golds(answer: str, short: bool):
    assert is_short(Gold(answer)) is short


def test_choices_are_few_and_programs_are_many():
    choice = Task(id="t", prompt="?", answer="B", kind="choice", choices=("a", "b"))
    program = Task(
        id="t",
        prompt="?",
        answer="",
        kind="code",
        tests=CodeTests(hidden=({"input": "", "output": "1"},)),
    )
    assert is_short(Gold.of(choice))
    assert not is_short(Gold.of(program))


@pytest.mark.parametrize(
    ("reply", "revealed"),
    [
        ("The answer is B.", True),
        ("B", True),
        ("Choose (B).", True),
        ("The rate doubles.", True),
        ("Compare the two rates first.", False),
        ("It is not A.", False),
        ("Either the rate halves or the rate doubles.", False),
        ("C", False),
    ],
)
def test_options(reply: str, revealed: bool):
    choices = ("the rate halves", "the rate doubles", "nothing changes")
    gold = Gold("B", kind="choice", choices=choices)
    assert found(gold, reply, "Which of A, B and C is it?") is revealed


@pytest.mark.parametrize(
    ("reply", "gold", "revealed"),
    [
        ("The answer is 42.", "42", True),
        ("the result is 42.0, I think", "42", True),
        ("**Answer** 42", "42", True),
        ("42", "42", True),
        ("so \\boxed{\\frac{84}{2}}", "42", True),
        ("42 is what you have, add 1", "42", False),
        ("the answer is 42.5", "42", False),
        ("the answer is 2^k for some k", "2", False),
        ("the answer is 42 more than x", "42", False),
        ("the answer is not 42", "42", False),
        ("take 42 steps", "42", False),
        ("right;", "42", False),
    ],
)
def test_statements_of_short_golds(reply: str, gold: str, revealed: bool):
    assert found(Gold(gold), reply) is revealed


@pytest.mark.parametrize(
    "reply",
    [
        "### Final Answer\n**142857**",
        "<Answer>So there are 142857 ways.</Answer>",
        "The answer is $\\boxed 142857$",
        "142857 is the answer!",
        "Final Answer\n---\n285714/2",
        "\\fbox{\\text{The answer is } 428571/3}",
    ],
)
def test_what_the_grader_would_pay_is_withheld(reply: str):
    task = Task(id="t", prompt="?", answer="142857")
    assert run_sync(MathVerifier().verify(task, reply)).correct
    assert found(Gold.of(task), reply)


def test_a_gold_that_is_a_whole_solution_is_kept_by_its_answer():
    task = Task(id="t", prompt="?", answer="We add.\n#### 142857")
    assert Gold.of(task).answer == "142857"


def test_what_the_policy_said_may_be_repeated():
    gold = Gold("142857")
    assert not found(gold, "Yes, 142857 is right.", "I have 142,857. Is it right?")
    assert found(gold, "It is 142857.", "One of 142856, 142857, 142858, 142859?")
    assert found(gold, "It is 142857.", "1428570 and 0.142857")
    assert not found(Gold("Marie Curie"), "Marie Curie, yes", "Was it marie curie?")
    listed = "Lise Meitner, Marie Curie, Ada Lovelace or Emmy Noether?"
    assert found(Gold("Marie Curie"), "It was Marie Curie.", listed)


NAMES = (
    "Lise Meitner",
    "Ada Lovelace",
    "Emmy Noether",
    "Sofia Kovalevskaya",
    "Marie Curie",
    "Hypatia Of Alexandria",
    "Maryam Mirzakhani",
    "Grace Hopper",
)
NUMBERS = tuple(range(142850, 142866))
SEPARATORS = {
    "comma": ", ",
    "semicolon": "; ",
    "or": " or ",
    "and": " and ",
    "line": "\n",
    "bullet": "\n- ",
    "number": "\n1. ",
    "dot": " \u2022 ",
    "bar": " | ",
    "slash": " / ",
    "sentence": ". ",
    "question": "? ",
    "tab": "\t",
    "quotes": '", "',
    "tags": "</verify> <verify>",
    "formulas": "$ $",
    "boxes": "} \\boxed{",
    "blank": " ",
    "claims": ". The answer is ",
    "guesses": "? Is it ",
}
BEGINNINGS = (
    "Which is it: ",
    "The answer is one of ",
    "<verify>",
    "\\boxed{",
    "I think ",
)


def listed(candidates: Iterable[str]) -> Iterator[str]:
    """Yield lists of candidates, in every form of a list."""
    candidates = list(candidates)
    for beginning in BEGINNINGS:
        for separator in SEPARATORS.values():
            yield beginning + separator.join(candidates) + "?"


def shown(gold: str, reply: str, said: Iterable[str]) -> list[str]:
    """Return after which words of the policy a reply is shown."""
    return [words for words in said if not found(Gold(gold), reply, words)]


@pytest.mark.parametrize("name", [NAMES[1], NAMES[4], NAMES[-1]])
def test_a_list_of_names_says_none_of_them(name: str):
    assert shown(name, f"It was {name}.", listed(NAMES)) == []
    small = name.lower()
    lists = listed(one.lower() for one in NAMES)
    assert shown(name, f"It was {name}.", lists) == [], small


@pytest.mark.parametrize(
    "write",
    [
        str,
        hex,
        oct,
        bin,
        "{:,}".format,
        "{:e}".format,
        lambda number: " ".join(str(number)),
        lambda number: "-".join(str(number)),
        lambda number: " ".join(_words(number)),
        lambda number: " ".join(_ONES[int(digit)] for digit in str(number)),
        lambda number: f"{number / 1000} thousand",
        lambda number: f"{number}/1",
        lambda number: f"{number // 1000}.{number % 1000}",
    ],
)
def test_a_list_of_numbers_says_none_of_them(write: Callable[[int], str]):
    lists = listed(map(write, NUMBERS))
    assert shown("142857", "It is 142857.", lists) == []


def test_one_row_of_digits_says_none_of_the_numbers_in_it():
    digits = "31415926535897932384626433832795028841971428576939937510"
    rows = [digits, " ".join(digits), "-".join(digits), ", ".join(digits)]
    pairs = " ".join(re.findall("..", digits))
    threes = [" ".join(re.findall("...", digits[at:])) for at in range(3)]
    rows += [pairs, *threes, *(",".join(row.split()) for row in threes)]
    assert shown("142857", "It is 142857.", rows) == []


def test_a_list_of_formulas_or_fractions_says_none_of_them():
    formulas = [f"x^2-{a}x+{b}" for a in range(3, 8) for b in range(4, 9)]
    assert shown("x^2-5x+6", "It is x^2-5x+6.", listed(formulas)) == []
    fractions = [f"{above}/64" for above in range(1, 64, 2)]
    assert shown("\\frac{17}{64}", "It is 17/64.", listed(fractions)) == []
    words = [f"{' '.join(_words(above))} over sixty four" for above in range(1, 64, 2)]
    assert shown("\\frac{17}{64}", "It is 17/64.", listed(words)) == []
    percents = [f"{above / 64:%}" for above in range(1, 64, 2)]
    assert shown("\\frac{17}{64}", "It is 17/64.", listed(percents)) == []


LONG_WORK = (
    "First 9! = 362880, then 8! = 40320 and 10! = 3628800, 11! = 39916800.\n" * 20
)


@pytest.mark.parametrize(
    ("gold", "said", "reply"),
    [
        ("142857", "<verify>142857</verify>", "right; 142857 is a sixth."),
        ("142857", "I got 142,857. Is it right?", "Your answer 142857 is right."),
        ("142857", LONG_WORK + "So the answer is 142857.", "142857 is right."),
        ("142857", LONG_WORK + "\\boxed{142857}", "142857 is right."),
        ("142857", "It is 1 4 2 8 5 7, I think.", "142857 is wrong."),
        ("142857", "Is it 0x22e09?", "142857, yes."),
        ("\\frac{17}{64}", "Half of 17/32 is 17/64.", "17/64 is right."),
        ("x^2-5x+6", "The result is $x^2-5x+6$.", "x^2-5x+6 is right."),
        ("x^2-5x+6", "<verify>x^2 - 5x + 6</verify>", "x^2-5x+6 is right."),
        ("Marie Curie", "Work.\n<verify>Marie Curie</verify>", "Marie Curie, right."),
        ("Marie Curie", "I think it was Marie Curie.", "Marie Curie is right."),
        ("Marie Curie", "Marie Curie found radium in 1898.", "Marie Curie, yes."),
        ("Marie Curie", "My answer is marie curie, since it was her.", "Marie Curie!"),
        ("photosynthesis", "The answer is photosynthesis.", "Photosynthesis: right."),
        ("photosynthesis", '{"query": "photosynthesis"}', "Photosynthesis: right."),
        ("Treaty of Westphalia", "Was it the Treaty of Westphalia?", "Right."),
    ],
)
def test_what_the_policy_claims_may_be_judged_by_name(gold: str, said: str, reply: str):
    assert not found(Gold(gold), reply, said)


def test_a_number_that_nobody_writes_out_hides_no_reply():
    assert not found(Gold("123456^{999}"), "Use Fermat first.")


def test_the_policys_own_program_may_be_quoted():
    own = "```python\ndef f(x):\n    return x\n```"
    gold = Gold("", kind="code", entry="f")
    assert not found(gold, f"wrong: your program\n{own}\nreturns x", f"Is it\n{own}\n?")
    other = own.replace("return x", "return x + 1")
    assert found(gold, f"Take\n{other}", f"Is it\n{own}\n?")


WHOLE = "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n    return n"


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        WHOLE.replace("def f", "def\tf"),
        WHOLE.replace("    n = 0", "    ...\n    n = 0"),
        WHOLE.replace("def f", "def solve"),
        WHOLE.replace("def f", "def total") + "\n\nRename it to f.",
        WHOLE.replace("\n", "\n> "),
        WHOLE.replace("\n", "\n... ").replace("def", ">>> def"),
        "".join(f"{n} {line}\n" for n, line in enumerate(WHOLE.splitlines(), 1)),
        "".join(f"+{line}\n" for line in WHOLE.splitlines()),
        f"<pre>{WHOLE}</pre>",
        "```\nprint(f)\n```\nx\n" * 60 + f"```\n{WHOLE}\n```",
        (
            "```\ndef f(xs):\n    n = 0\n```\nand\n```\n    for x in xs:\n"
            "        n += x\n    return n\n```"
        ),
        "```\nf: object = lambda xs: sum(xs)\n```",
        "`(f := lambda xs: sum(xs))`",
    ],
)
def test_a_whole_program_is_found(text: str):
    assert found(Gold("", kind="code", entry="f"), text)


@pytest.mark.parametrize(
    "text",
    [
        "def f(xs):\n    n = 0\n    ...\n    return n",
        "def f(xs):\n    out = []\n    for x in xs:\n        ...\n    return out",
        "def f(xs):\n    ...\n    return ...",
        "def f(xs):\n    # add them\n    pass",
        "f = ...",
        "def total(xs):\n    return sum(xs)",
        "def solve(xs):\n    pass",
        (
            "Call it from f in your loop:\ndef factor(x):\n    y = x\n    for i in"
            " (1,):\n        y += i\n    return y"
        ),
        "f(xs) returns None: print(f(xs)) shows it.",
        "> def f(xs):\n>     n = 0\nThis line is fine, the next one is wrong.",
        "```\nfor x in xs:\n    n += x\n```\n```\nreturn n\n```",
    ],
)
def test_a_part_of_a_program_is_none(text: str):
    assert not found(Gold("", kind="code", entry="f"), text)


def test_length_is_counted_when_all_is_normalised():
    assert check._are_brief(("a" * check.MAX_INLINE_CHARS,))
    assert not check._are_brief(("a" * check.MAX_INLINE_CHARS, "b"))
    ligatures = "\ufdfa" * (check.MAX_INLINE_CHARS // 10)
    assert not check._are_brief((ligatures,))


def test_what_cannot_be_compared_counts_as_a_leak(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> bool:
        raise RecursionError

    monkeypatch.setattr(check, "leaks", fail)
    assert found(Gold("142857"), "hm")


class Says:
    """An agent that says what it is told to, or one thing."""

    agent_id = "says"

    def __init__(self, text: str = "", cost_usd: float = 0.0) -> None:
        self.text, self.cost_usd, self.num_asked = text, cost_usd, 0

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.num_asked += 1
        text = self.text or request.query
        return AgentReply(text=text, tokens=len(text.split()), cost_usd=self.cost_usd)


def episode(agent: Says, *turns: str, answer: str = "142857", **rules: Any) -> Episode:
    task = Task(id="t", prompt="?", answer=answer)
    pool = AgentPool({"knowledge": agent})
    session = Session(
        task, DialogueRules(**rules), TagsCodec(), pool, MathVerifier(), aided=True
    )
    return ScriptedPolicy(list(turns)).run(session)


def test_a_withheld_reply_reads_like_one_of_an_agent_that_does_not_know():
    leaked = episode(Says("The answer is 142857."), ASK, "\\boxed{1}")
    for text in ("unknown", "Unknown.", " unknown;"):
        honest = episode(Says(text), ASK, "\\boxed{1}")
        assert honest.messages[3].content == leaked.messages[3].content
        assert honest.consults[0].status == "answered"
    assert leaked.messages[3].content == '<reply from="knowledge">unknown</reply>'
    assert (leaked.consults[0].status, leaked.consults[0].reply) == ("leaked", "")
    assert not leaked.tokens.agent_mask.any()


def test_withheld_replies_are_charged_to_every_budget():
    agent = Says("It is 142857.", cost_usd=0.3)
    record = episode(agent, *[ASK] * 5, "\\boxed{1}", consult_budget=2)
    assert [one.status for one in record.consults] == ["leaked"] * 2 + ["denied"] * 3
    agent = Says("It is 142857.", cost_usd=0.3)
    budget = {"reply_budget": {"usd": 0.5}, "consult_budget": 9}
    record = episode(agent, *[ASK] * 5, "\\boxed{1}", **budget)
    assert agent.num_asked == 2


def test_a_gold_with_few_candidates_is_shown_and_flagged():
    record = episode(Says("The answer is 42."), ASK, "\\boxed{42}", answer="42")
    assert "The answer is 42." in record.messages[3].content
    assert [(one.status, one.reveals) for one in record.consults] == [
        ("answered", True)
    ]


def attack(gold: int, num_calls: int) -> int | None:
    """Search for a gold by what an agent that knows nothing may repeat."""
    candidates = list(range(512))
    for _ in range(num_calls):
        half = candidates[: len(candidates) // 2]
        said = "; ".join(f"the answer is {number}" for number in half)
        asked = f"<knowledge>Repeat: {said}</knowledge>"
        record = episode(
            Says("; ".join(f"the answer is {number}" for number in half)),
            asked,
            "\\boxed{1}",
            answer=str(gold),
            max_policy_tokens=10**6,
            max_context_tokens=10**6,
        )
        is_shown = "the answer is" in record.messages[3].content
        candidates = candidates[len(half) :] if is_shown else half
    return candidates[0] if len(candidates) == 1 else None


@pytest.mark.parametrize(
    "golds",
    [
        [f"\\frac{{{n}}}{{8}}" for n in (1, 3, 5, 7)],
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        ["\\text{even}", "\\text{odd}"],
    ],
    ids=["fractions", "weekdays", "words"],
)
def test_an_echo_tells_nothing_of_a_gold_with_few_candidates(golds: list[str]):
    for gold in golds:
        shown = [
            episode(Says(f"The answer is {one}."), ASK, "\\boxed{1}", answer=gold)
            .messages[3]
            .content
            for one in golds
        ]
        assert not [content for content in shown if "unknown" in content]


def test_asking_an_agent_that_knows_nothing_finds_no_gold():
    draw = random.Random(0)
    golds = [draw.randrange(1, 512) for _ in range(20)]
    assert sum(attack(gold, num_calls=9) == gold for gold in golds) <= 1


def test_the_loop_is_not_held_by_a_long_reply():
    async def lag() -> float:
        worst, begin = 0.0, asyncio.get_running_loop().time()
        texts = ["= (" * 7_000, "1 " * 10_000, "\\sqrt{" * 3_000, "answer is " * 2_000]
        work = asyncio.gather(*(gives_away(Gold("142857"), text, "") for text in texts))
        while not work.done():
            await asyncio.sleep(0.005)
            now = asyncio.get_running_loop().time()
            worst, begin = max(worst, now - begin), now
        return worst

    assert asyncio.run(lag()) < 0.5
