"""How the answer of a reply is read."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from aipo_env import MathVerifier, Task, Verdict, run_sync
from aipo_env.verifiers.extract import extract, joins, marked_answer, read_gold
from aipo_env.verifiers.reading.prose import formula_end
from aipo_env.verifiers.reading.retraction import taken_back

CASES = [
    json.loads(line)
    for line in (
        (Path(__file__).parent / "data" / "replies.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
]


def verify(gold: str, text: str) -> Verdict:
    task = Task(id="t", prompt="p", answer=gold)
    return run_sync(MathVerifier().verify(task, text))


def test_answers_as_they_are_written_are_read_and_no_wrong_one_is_paid():
    async def all_verdicts() -> list[Verdict]:
        tasks = [Task(id="t", prompt="p", answer=case["gold"]) for case in CASES]
        verifier = MathVerifier()
        return await asyncio.gather(
            *(
                verifier.verify(task, case["pred"])
                for task, case in zip(tasks, CASES, strict=True)
            )
        )

    verdicts = run_sync(all_verdicts())
    pairs = list(zip(CASES, verdicts, strict=True))
    paid = [case["id"] for case, verdict in pairs if verdict.correct]
    right = {case["id"] for case in CASES if case["expected"]}
    assert set(paid) <= right
    assert len(paid) >= 0.99 * len(right)
    assert not [verdict for verdict in verdicts if verdict.correct is None]


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        ("2.5", "2,5 Stunden", True),
        ("\\frac{5}{2}", "2,5", True),
        ("0.125", "0,125", True),
        ("1234.5", "1.234,5", True),
        ("7.5\\%", "7,5 %", True),
        ("125", "0,125", False),
        ("2500", "2,5", False),
        ("2500", "2,500", True),
        ("2.5", "1,5", False),
        ("2,5", "2,5", True),
        ("2.4", "2.4 km/h", True),
        ("5", "5 dollars/hour", True),
        ("5", "5 kW·h", True),
        ("72 km/h", "20 m/s", True),
        ("60 km/h", "60 mph", False),
        ("5", "5 x/y", False),
        ("2.5 h", "2,5 Stunden", True),
        ("2.4 hours", "2 hours 24 minutes", True),
        ("2 hours", "2 hours 24 minutes", False),
        ("5 ft 3 in", "63 inches", True),
        ("5\\ \\Omega", "5\\ \\text{k}\\Omega", False),
        ("5000 \\Omega", "5 k\\Omega", True),
        ("3 MPa", "3 kPa", False),
        ("1.5\\times10^{11}\\ \\text{m}", "1.5\\cdot10^{8}\\,\\mathrm{km}", True),
        ("2.5\\text{ m/s}^2", "a = 2.5\\ \\mathrm{m\\,s^{-2}}", True),
        ("150000", "Rs. 1,50,000", True),
        ("£12.40", "\\pounds 12.40", True),
        ("£12.40", "$12.40", False),
        ("242", "two hundred and forty-two", True),
        ("3.5", "three and a half", True),
        ("5", "five apples", True),
        ("40", "two forty", False),
        ("March 15, 2023", "15 March 2023", True),
        ("March 15", "the 15th of March", True),
        ("March 15, 2023", "15 March 2024", False),
        ("0.375", "0.375 or 37.5%", True),
        ("3/8", "3/8 or 5/8", False),
        ("\\ln 2", "x = \\ln(2) \\approx 0.693", True),
        ("\\ln 2", "\\ln(3) \\approx 0.693", False),
        ("4.2 kJ", "Q = 4200 J", True),
        ("2{,}5", "x = 2.5", True),
        ("x \\equiv 3 \\pmod{7}", "x ≡ 10 (mod 7)", True),
        ("x \\equiv 3 \\pmod{7}", "x \\equiv 4 \\pmod 7", False),
        ("3:45 PM", "3{:}45\\text{ PM}", True),
        ("3:45 PM", "3{:}45\\text{ AM}", False),
        ("3/5", "\\frac{3}{5}, or 60\\%", True),
        ("6.28", "\\approx 6.28\\ \\text{s}", True),
        ("(a) 3, (b) 4", "(3, 4)", True),
        ("(a) 3, (b) 4", "(4, 3)", False),
    ],
)
def test_decimal_commas_and_compound_units(gold: str, answer: str, is_right: bool):
    assert verify(gold, f"\\boxed{{{answer}}}").correct is is_right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 35\n\nQuestion: How many?\nAnswer: 42\n#### 42", "35"),
        ("The answer is 8.\n\n## Similar question\nAnd if?\n\nThe answer is 9.", "8"),
        ("The answer is 2.\n\nExercise 4.8. Find it.\n\nAnswer: 6", "2"),
        ("The answer is 2.\n\nQ: And now?\nA: The answer is 6.", "2"),
        ("Answer: 5\n\n**Bonus:** with 3 more, the answer is 8.", "5"),
        ("Problem 1: Answer: 4\nProblem 2: Answer: 6", "6"),
        ("Question: How many?\nThe answer is 9.", "9"),
    ],
)
def test_problems_that_a_reply_goes_on_to_make_are_not_read(text: str, answer: str):
    assert extract(text).answer == answer


@pytest.mark.parametrize(
    "text",
    [
        "It gave \\boxed{46}.\n\nBut the fee is monthly, so that figure is wrong.",
        "The answer is 46. I can't say whether that holds.",
        "Final Answer: [your answer here]",
        'You want me to end with "The answer is <number>", but the problem is missing.',
        "\\boxed{43}. It isn't divisible by 3, so it is out as well.",
        "\\boxed{43}\n\nI have to withdraw this.",
        "Die Antwort ist 14. Moment, das stimmt nicht: die Ecken zählten doppelt.",
        "La respuesta es 14. Pero me equivoqué al contar las esquinas.",
        "Answer: no idea",
        "n even: \\boxed{4}\n\nn odd: \\boxed{6}\n\nBoth cases are possible.",
        "The number of roots, and therefore the answer, is equal",
    ],
)
def test_what_is_no_answer_is_none(text: str):
    assert extract(text).answer is None


def test_the_cases_are_many_distinct_and_half_of_them_wrong():
    assert len(CASES) >= 1_300
    assert len({(case["gold"], case["pred"]) for case in CASES}) == len(CASES)
    assert 0.4 < sum(case["expected"] for case in CASES) / len(CASES) < 0.6


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("### Final Answer\n**58**", "58"),
        ("**Final Answer**\n\\[42\\]", "42"),
        ("Final Answer\n------------\n42", "42"),
        ("## Final answer\n$$\n42\n$$", "42"),
        ("The answer:\n\n> 42", "42"),
        ("**Final Answer:** **58** residents", "58 residents"),
        ("Result: 42", "42"),
        ("#### 1,080", "1,080"),
        ("<ANSWER>42</ANSWER>", "42"),
        ("<final_answer>So there are 42 apples.</final_answer>", "42 apples"),
        ("So \\boxed 29.", "29"),
        ("So $\\framebox{29}$.", "29"),
        ("\\boxed{\\text{The answer is 29.}}", "29"),
        ('The answer is "42".', "42"),
        ("The answer is: 42 🎉", "42"),
        ("The answer is 12 m².", "12\\text{ m}^2"),
        ("The answer is 3:45 p.m.", "3:45 p.m"),
        ("Answer: forty-two (42)", "42"),
        ("Answer: half a dozen (6)", "6"),
        ("The answer is minus 6.", "-6"),
        ("## Answer\n\nx = 1\ny = 2", "x = 1, y = 2"),
        ("### Respuesta final\n**21**", "21"),
        ("**Risposta finale: 40**", "40"),
        ("Réponse finale : 12", "12"),
        ("Правильный ответ: 58", "58"),
        ("**Odpowiedź końcowa:** 12", "12"),
        ("Answer: 2.4 km/h (slower than the mean)", "2.4 km/h"),
        ("Answer: 3 kg/m^3", "3 kg/m^3"),
        ("Answer: 72 beats/minute.", "72 beats/minute"),
        ("The answer is 12 cm^2, as above.", "12 cm^2"),
        ("Answer: $\\frac{7}{3}$ m", "$\\frac{7}{3}$\\text{ m}"),
        ("Answer: 3 x 10^8 m/s", "3 × 10^8\\text{ m/s}"),
        ("**Roots (final answer):**\n\n3 and 5", "3 and 5"),
        ("Answer: 1600 m, i.e. four laps", "1600\\text{ m}"),
        ("Answer: There are 17 primes below 60.", "17 primes"),
        ("Resposta: restam 26 bombons.", "26"),
        ("Antwort: 1.250 €", "1250"),
        ("Stimmt so. **Antwort:** x = −7 (nicht 7)", "x = −7"),
        ("答案:$x=3$ 或 $x=-3$", "$x=3$ 或 $x=-3$"),
        ('{"answers": 2,\n"final_answer": "2/5"}', "2/5"),
        ("Answer: Rs. 1,50,000/-", "Rs. 1,50,000"),
        ("Answer: 2 hours and 24 minutes.", "2 hours and 24 minutes"),
        ("The answer is (a) 3 and (b) 4.", "(3, 4)"),
        ("Answer:\n(a) x = 3\n(b) 12", "(x = 3, 12)"),
        ("The answer is (B) 12.", "12"),
        ("The answer is 5 kΩ.", "5 kΩ"),
        ("Answer: 3/8 (or 37.5%)", "3/8 or 37.5%"),
        ("<answer>At first I thought it was 15, but it is 18.</answer>", "18"),
        ("Answer: 150 (compare Problem 12, where it was 210).", "150"),
        ("La risposta è 340 euro, non 400.", "340 euro"),
        (
            "Answer: It is larger with probability **5/12**, a bit less than 1/2.",
            "5/12",
        ),
        ("The answer is 55. Hmm, five pairs of 11. My answer stands: 55.", "55"),
        ("Three shelves of 6. #### 18\n\nQ: And four?\nA: 24. #### 24", "18"),
        ("**Respuesta:** 3/8, porque 3 de los 8 casos tienen dos.", "3/8"),
        ("A resposta é 180, pois 90 + 60 + 30 = 180.", "180"),
        ("Resposta: 11\n\nConferindo: 11 + 12 + 13 = 36.", "11"),
        ("Answer: ~~2.2~~ 2.4", "2.4"),
        ("<answer>After 3 days the pond holds 120 litres.</answer>", "120 litres"),
        ("**Answer.** $2^n-1$", "2^n-1"),
        ("Answer: 6 legs :D", "6 legs"),
        ("Answer: 45 (since C(10,2) = 10*9/2 and so on)", "45"),
        ("Answer: 0.6 m/s, less than half of the first 1.5 m/s.", "0.6\\text{ m/s}"),
        ("Hence the required value is 27.", "27"),
        ("This gives a final answer of 12 N.", "12 N"),
        ("So, to answer the question: Maya has 17 stickers left.", "17 stickers left"),
        ("The ratio of boys to girls is 5:3. That is my final answer.", "5:3"),
        ("Q = 4200 J  ← final answer", "Q = 4200\\text{ J}"),
        (
            "## Final Answer\n\nThe bakery bakes **96 loaves** per week.",
            "96 loaves per week",
        ),
        ("<answer>There are 7 pens in each box.</answer>", "7 pens"),
        ("Final answer: 15 March 2023.", "15 March 2023"),
        ("Die Lösung und damit die Antwort ist x = 7.", "x = 7"),
        ("Vậy đáp số cuối cùng là 4 cm.", "4 cm"),
        ("La respuesta final es 1/6. ¡Espero que te sirva!", "1/6"),
        ("Portanto, a resposta é R$ 360,00.", "R$ 360.00"),
        ("```yaml\nsteps: 3\nfinal_answer: 45\n```", "45"),
        ("Jibu ni 45.", "45"),
        ("উত্তর: ৩০", "30"),
        ("คำตอบคือ 12", "12"),
        ("答案是58。", "58"),
        ("42 is the answer.", "42"),
        ("La respuesta es 10.", "10"),
        ("Die Antwort lautet 10.", "10"),
        ("La réponse est donc 10.", "10"),
        ("$3 + \\boxed{4} = 7$", "4"),
    ],
)
def test_answers_stand_behind_words_in_headings_tags_and_boxes(text: str, answer: str):
    assert extract(text).answer == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42, not 41.", "42"),
        ("The answer is 42, by equation 3.", "42"),
        ("The answer is 42 because 6*7=42.", "42"),
        ("The answer is 42: 40 + 2.", "42"),
        ("The answer is 42: the sum of 40 and 2.", "42"),
        ("The answer is 42, and the check passes: 42 = 42.", "42"),
        ("The answer is 3, 4 and 5.", "3, 4 and 5"),
        ("The answer is 42 whereas 41 would miss one.", "42"),
        ("The answer to problem 12 is 50.", "50"),
        ("Answer: for n = 4 the count is 6", "6"),
        ("Answer: from 8 rows of 5 we get 40 seats.", "40 seats"),
        ("Answer: 41 is tempting, but the answer is 42.", "42"),
        ("The answer is not 41 but 42.", "42"),
        ("The answer is 41. No wait, the answer is 42.", "42"),
        ("\\boxed{42}\n\nThe answer is easy to check: 6 * 7 = 42.", "42"),
    ],
)
def test_a_value_ends_with_its_clause_and_the_last_statement_decides(
    text: str, answer: str
):
    assert extract(text).answer == answer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The answer is not 42.", "it is denied"),
        ("The answer isn't 42.", "it is denied"),
        ("The answer is 42. Wait, I misread it.", "it is taken back: 'Wait'"),
        ("\\boxed{42} is wrong.", "it is taken back: 'is wrong'"),
        ("The answer is 42. The answer cannot be 42.", "it is denied afterwards"),
        ("\\boxed{17}. So finally \\boxed{", "the last box is never closed"),
        ("<answer>17</answer> better: <answer>18", "the last tag is never closed"),
        ("Corrected: \\boxed{}", "the box is empty"),
        ("The answer is 42, or maybe 43.", "an alternative is named"),
        ("The answer is 42 dozen.", "'dozen' changes it"),
        ("The answer is 42 for even n only.", "it holds in one case of several"),
        ("The answer is 42!.", "it is not understood"),
        ("The answer is 42 – 1 = 41.", "another value is named"),
        ("答えは42ではない。", "it is not understood"),
        ("답은 42가 아닙니다.", "it is not understood"),
        ("答案是42。不对。", "it is taken back"),
        ("The answer is 42; 43 would be better.", "is not understood"),
        ("\\boxed{42}^2", "the box is part of a formula"),
        ("2\\boxed{42}", "the box is part of a formula"),
        ("-\\boxed{42}", "the box is part of a formula"),
        ("$\\frac{\\boxed{42}}{5}$", "the box is part of a formula"),
        ("\\boxed{42} \\cdot 3", "the box is part of a formula"),
        ("The answer is 42:x.", "it is part of a ratio"),
        ("The answer is 42: 1.", "it is part of a ratio"),
        ("The answer is 42\uff1a1", "it is part of a ratio"),
        ("The answer is $42$:$1$.", "it is part of a ratio"),
        ("The ratio is $\\boxed{42}:1$.", "it is part of a ratio"),
        ("The answer is 42 if n is even and 43 if n is odd.", "one case of several"),
        ("The answer is 42 with remainder 3.", "it has a remainder"),
        ("The answer is about 42.", "the value is said to be near only"),
        ("Answer: 41 would be too large.", "it is a subject"),
        ("The answer might be 42.", "it is a guess"),
        ("Answer: 42 ❌", "it is said to be wrong"),
    ],
)
def test_what_is_denied_taken_back_or_not_understood_is_no_answer(
    text: str, reason: str
):
    verdict = verify("42", text)
    assert (verdict.status, verdict.reward) == ("no_answer", 0.0)
    assert reason in verdict.reason


def test_the_verdict_keeps_the_words_that_decide():
    verdict = verify("42", "Therefore the answer is not 42. Good luck!")
    assert verdict.extracted == "answer is not 42"
    verdict = verify("42", "The answer is 42 apples.")
    assert (verdict.status, verdict.extracted, verdict.stage) == (
        "correct",
        "42 apples",
        "value",
    )


@pytest.mark.parametrize(
    "text",
    [
        "Some say the answer is 42.",
        "If the answer is 42, we are done.",
        "There is no way the answer is 42.",
        "A wrong answer is 42.",
        "Is the answer 42?",
        "People often answer 42.",
        "#### 42. Check\nThe total is 40.",
        "La respuesta no es 42.",
        "如果答案是42\uff0c那么x是偶数。",
        "他说答案是42。",
        "错误的答案是42。",
        "The answer to the bonus question is 42.",
        "Si n = 2, la respuesta es 42.",
        "La respuesta es 42 o 43.",
        "Mon ami dit que la réponse est 42.",
        "Die Antwort ist 42, wenn n gerade ist.",
    ],
)
def test_what_is_not_the_authors_own_last_word_states_nothing(text: str):
    assert extract(text) == (None, "end", "", "")


@pytest.mark.parametrize(
    ("gold", "text", "status"),
    [
        ("42", "The answer is 42!", "correct"),
        ("120", "The answer is $5!$.", "correct"),
        ("120", "The answer is 5! = 120.", "correct"),
        ("120", "The answer is 5!", "wrong"),
        ("120", "\\boxed{5!}", "correct"),
        ("120", "<answer>5!</answer>", "no_answer"),
    ],
)
def test_a_factorial_is_one_only_in_mathematics(gold: str, text: str, status: str):
    assert verify(gold, text).status == status


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("42, not 41", "42"),
        ("42 - because", "42"),
        ("42 – 6 times 7", "42"),
        ("(42).", "(42)"),
        ("x = 3 and y = 5.", "x = 3 and y = 5"),
        ("[2, 5) is", "[2, 5)"),
        ("]0, 1[ is", "]0, 1["),
        ("1 000 000 people", "1 000 000"),
        ("2 1/2 cups", "2 1/2"),
        ("$3$ and $5$.", "$3$ and $5$"),
        ("$5 plus tax and $7", "$5"),
        ("\\frac{1}{2} \\pi because", "\\frac{1}{2} \\pi"),
        ("sqrt(2)/2, so", "sqrt(2)/2"),
        ("a triangle", ""),
        ("I got 42", ""),
        ("eval(42)", ""),
    ],
)
def test_a_formula_in_prose_ends_before_the_prose(text: str, formula: str):
    assert text[: formula_end(text, 0, len(text))] == formula


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (". Wait, no", "Wait"),
        (". That is incorrect.", "That is incorrect"),
        (". It should be 43.", "It should be"),
        (" (wrong)", "wrong"),
        (". It is not 42", "not 42"),
        (". In fact it's 43.", "it's 43"),
        (". It is not 41.", ""),
        (". No further step is needed.", ""),
        (". Don't forget the unit.", ""),
        (". It's wrong to count 0 twice.", ""),
        (", which is not a prime", ""),
    ],
)
def test_words_that_take_an_answer_back(rest: str, words: str):
    found = taken_back(f"42{rest}", 2, "42")
    assert found.startswith(words) if words else found == ""


@pytest.mark.parametrize(
    ("gap", "joined"),
    [
        (" and ", True),
        ("$\n- $x = ", True),
        ("\nSecond root: ", True),
        (" for part (a) and ", True),
        (". Then ", False),
        ("\nSecond try: ", False),
    ],
)
def test_boxes_that_make_one_answer(gap: str, joined: bool):
    assert joins(gap) is joined


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("So $\\fbox{7}$.", "7"),
        ("It is $\\boxed 5$.", "5"),
        ("She has 3 + 4 apples.\n#### 7", "7"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
        ("", ""),
        ("First \\boxed{3}, then \\boxed{", ""),
    ],
)
def test_a_gold_is_read_as_a_reply_is(gold: str, answer: str):
    assert read_gold(gold) == answer


def test_a_text_that_marks_no_answer_has_none():
    assert marked_answer("It is 7.") is None


def test_a_gold_that_is_a_whole_solution_is_read():
    assert verify("3 + 4 = 7\n#### 7", "\\boxed{7}").status == "correct"
    assert verify("3 + 4 = 7\n#### 7", "\\boxed{4}").status == "wrong"


def test_a_small_number_may_be_a_word():
    assert verify("4", "Answer: four").status == "correct"
    assert verify("four", "\\boxed{4}").status == "correct"
    assert verify("5", "Answer: four").status == "wrong"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("{ !\\choose a A", "\\choose a A"),
        ("( 1", "1"),
        ("[ x + ", "[ x +"),
        ("{ {a}", "{ {a}"),
        ("answer is not } ( 1", None),
    ],
)
def test_a_bracket_that_is_never_closed_is_read_once(text: str, answer: str | None):
    assert extract(text, unmarked=True).answer == answer


def test_no_arrangement_of_marks_breaks_the_reader():
    draw = random.Random(11)
    atoms = (
        *"{}[]()|$!,;:^_=√'%€ aA12\n",
        *("\\{", "\\}", "\\choose", "\\frac", "\\sqrt", "\\begin{a}", "\\end{a}"),
        *("\\(", "\\)", "\\boxed{", "<answer>", "</answer>", "answer is", "not", "**"),
    )
    # An error would be the verifier's, and a policy could ask for it.
    for _ in range(6_000):
        text = "".join(draw.choices(atoms, k=draw.randint(1, 12)))
        extract(text, unmarked=True)
