"""Multiple choice: which option an answer settles on."""

import json
import time
from pathlib import Path

import pytest

from aipo_env import Task, VerifierError, run_sync
from aipo_env.verifiers.choice import ChoiceVerifier, read_choice
from aipo_env.verifiers.extract import without_thinking

DATA = Path(__file__).parent / "data"
CHOICES = ("12 m/s", "24 m/s", "48 m/s", "A force of 6 N")
TASK = Task(id="q", prompt="How fast?", answer="B", kind="choice", choices=CHOICES)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        # boxes
        ("so \\boxed{B}.", "B"),
        ("\\boxed{(B)}", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{\\textbf{(B)}}", "B"),
        ("$\\boxed{ b }$", "B"),
        ("\\boxed{B) 24 m/s}", "B"),
        ("\\boxed{\\text{(B) } 24\\,\\text{m/s}}", "B"),
        ("\\boxed{24 m/s}", "B"),
        ("\\boxed{Option C}", "C"),
        ("\\boxed{A}, no: \\boxed{C}", "C"),
        ("\\boxed{42} \\boxed{C} \\boxed{7}", "C"),
        ("\\boxed{\U0001d401}", "B"),
        ("\\fbox{D}", "D"),
        ("<answer>C</answer>", "C"),
        ("\\boxed{C}, not B", "C"),
        ("\\boxed{B} and \\boxed{24 m/s}", "B"),
        ("<answer>A</answer>, so \\boxed{B}", "B"),
        # answer lines
        ("Answer: B", "B"),
        ("ANSWER: (b)", "B"),
        ("**Answer:** B", "B"),
        ("**Answer: B**", "B"),
        ("Final answer:\n\nB.", "B"),
        ("The correct answer is B.", "B"),
        ("The answer is option B, since it is so.", "B"),
        ("The correct option is [B]", "B"),
        ("Answer: 24 m/s", "B"),
        ("Answer: B (24 m/s)", "B"),
        ("Answer: B. 24 m/s", "B"),
        ("Answer: A force of 6 N", "D"),
        ("Answer: A", "A"),
        ("The answer is A because it is slow.", "A"),
        ("Answer: A\nLet me look again.\nAnswer: C", "C"),
        ("Answer: C, and so this answer is right.", "C"),
        ("Answer: \uff22", "B"),
        ("\u7b54\u6848\uff1aB", "B"),
        ("\u7b54\u6848\u662f B", "B"),
        ("\u6545\u9009\uff1aB", "B"),
        # the last line, if it is an option and nothing else
        ("B", "B"),
        ("(b)", "B"),
        ("It follows that\n\n**B**", "B"),
        ("It follows that\n24 m/s.", "B"),
        ("B) 24 m/s", "B"),
        # the clause of a statement ends before reasons and other options
        ("Answer: B because A is slower", "B"),
        ("Answer: A rather than B", "A"),
        # places count in their order, whatever marks them
        ("\\boxed{B}\nThe answer is C.", "C"),
        # thinking
        ("<think>Answer: A</think>Answer: B", "B"),
        ("Answer: A</think>B", "B"),
    ],
)
def test_what_an_answer_settles_on(text: str, letter: str):
    assert read_choice(text, CHOICES) == (letter, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no option was chosen"),
        ("I like B best", "no option was chosen"),
        ("<think>Answer: B", "no option was chosen"),
        ("<think>Answer: B</think>", "no option was chosen"),
        ("\\boxed{}", "no option was chosen"),
        ("\\boxed{A, B}", "several options are named"),
        ("\\boxed{B} or \\boxed{A}", "several options are named"),
        ("$\\boxed{A}$, or maybe $\\boxed{B}$", "several options are named"),
        ("\\boxed{A} or \\boxed{B} or \\boxed{B}", "several options are named"),
        ("\\boxed{A}/\\boxed{B}", "several options are named"),
        ("<answer>A</answer> or <answer>B</answer>", "several options are named"),
        ("Answer: A or Answer: B", "several options are named"),
        ("\\boxed{A or B}", "several options are named"),
        ("\\boxed{B} \\boxed{A and B}", "several options are named"),
        ("Answer: A/B", "several options are named"),
        ("Answer: between A and B", "several options are named"),
        ("The answer is neither A nor B", "several options are named"),
        ("\\boxed{not B}", "an option is denied"),
        ("The answer is not B", "an option is denied"),
        ("The answer isn't B", "no option was chosen"),
        ("\\boxed{\\neq B}", "an option is denied"),
        ("\\boxed{E}", "E is no option"),
        ("Answer: K", "K is no option"),
        ("\\boxed{B) 48 m/s}", "the letter and the text name different options"),
        ("Answer: A (24 m/s)", "the letter and the text name different options"),
        ("B) 12 m/s", "the letter and the text name different options"),
        ("Answer: B\nWait, that is wrong.", "the answer was taken back"),
        ("\\boxed{B} Hmm, no.", "the answer was taken back"),
        ("Answer: Boron", "no option was chosen"),
        ("Answer: A force of 7 N", "several options are named"),
        ("Answer: A force of seven newtons", "no option was chosen"),
        ("Answer: none of the above", "no option was chosen"),
        ("Options: A) 12 m/s B) 24 m/s C) 48 m/s", "no option was chosen"),
    ],
)
def test_what_settles_nothing(text: str, reason: str):
    assert read_choice(text, CHOICES) == ("", reason)


CAPITALS = ("Paris", "London", "Berlin", "Madrid")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("<ANSWER>B</ANSWER>", "B"),
        ("<answer>A</answer>\n<Answer>B</Answer>", "B"),
        ("Put it in <answer> tags. The answer is B.", "B"),
        # the last line is one by its place, not by its words
        ("B\nWait, let me check this once more.\nYes.\nB", "B"),
        ('{"reason": "so the answer is A", "choice": "B"}', "B"),
        ("That leaves C.", "C"),
        ("It's Berlin.", "C"),
        ("Doğru cevap C'dir.", "C"),
        ("सही उत्तर C है।", "C"),
        ("La respuesta correcta es la opción C.", "C"),
        ("Правильный ответ: \u0421.", "C"),
        ("The answer is B. No, the other options are elsewhere.", "B"),
        ("The answer is B. Sorry for the long explanation!", "B"),
        ("The answer is B. B is never warm.", "B"),
        ("That is why the answer is B.", "B"),
    ],
)
def test_more_ways_to_settle(text: str, letter: str):
    assert read_choice(text, CAPITALS)[0] == letter


@pytest.mark.parametrize(
    "text",
    [
        'My friend said "the answer is C".',
        "The consensus: the answer is B.",
        "I doubt that B is correct.",
        "Everything but A is correct.",
        "The answer is not \\boxed{B}.",
        "La respuesta no es B",
        "不能选B",
        "不应选B",
        "如果选B,则矛盾",
        "B正确吗?",
        "正解はBではありません。",
        "答えはBかCです。",
        "答案是B或者C。",
        "$B_{1}$",
        "\\boxed{A_{2}}",
        "\\boxed{D'}",
        "The answer is C-reactive protein.",
        "The answer is E. coli.",
        "The answer is B(3).",
        "~~B~~",
        "Answer: B (incorrect)",
        "The answer is B, right?",
        "The answer is B for adults and C for children.",
        "The answer is B. But C is also correct.",
        "The answer is London or maybe Paris",
        "The answer is London. London is wrong.",
        "The second-best answer is B.",
        "The answer to the previous question is B.",
        "So the distractor is B.",
    ],
)
def test_what_only_seems_to_settle(text: str):
    assert read_choice(text, CAPITALS)[0] == ""


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("So does the third: D) Madrid.", CAPITALS),
        ("I think II is false, so only I is right: option A.", CAPITALS),
        ("B. False — although many think otherwise.", ("True", "False")),
        ("I first thought A, but on reflection it's B.", CAPITALS),
        ("Among A, B, C and D, only D is warm.", CAPITALS),
        ("The answer is option #4: D", CAPITALS),
        ("Choosing between A and C: A.", CAPITALS),
        ("The city that is the capital of France is A.", CAPITALS),
        ("The city whose river is the Spree is Berlin.", CAPITALS),
        ("B\n\nWhich is it?\nA. Paris\nB. London\nC. Berlin\nAnswer: C", CAPITALS),
        ("C) It. Nowhere else is the Reichstag.", CAPITALS),
        ("The best explanation is offered by option B.", CAPITALS),
        ("The city in question is London.", CAPITALS),
        ("Among the cities listed, the one on the Thames is London.", CAPITALS),
        ("Thus we conclude that he stayed in London.", CAPITALS),
    ],
)
def test_what_is_still_missed(text: str, choices: tuple[str, ...]):
    assert read_choice(text, choices)[0] == ""


ORGANELLES = ("Mitochondria", "Ribosomes", "Golgi apparatus", "Nucleus")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is the third one.", "C"),
        ("The answer is the second one, not the first.", "B"),
        ("The answer is option 3.", "C"),
        ("Best answer: 2. Ribosomes", "B"),
        ("The answer is the second or the third.", ""),
        ("The answer is option 5.", ""),
        ("Best answer: 2. Nucleus", ""),
        ("The second is wrong.", ""),
    ],
)
def test_options_may_be_counted(text: str, letter: str):
    assert read_choice(text, ORGANELLES)[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Nucleus is the answer.", "D"),
        ("So Golgi apparatus is the correct option.", "C"),
        ("I doubt that Nucleus is the answer.", ""),
        ("Nucleus is not the answer.", ""),
        ("Nucleus is the answer, some say.", ""),
        ("It is often claimed that Nucleus is the answer.", ""),
        ("The third option is correct.", "C"),
        ("The plant is the answer.", ""),
    ],
)
def test_an_option_that_is_named_by_its_text_may_be_said_to_be_the_answer(
    text: str, letter: str
):
    assert read_choice(text, ORGANELLES)[0] == letter


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Answer: B\n\nTherefore, C.", "several options are named"),
        ("Answer: B\n\nC", "several options are named"),
        ("Answer: A\nAnswer: B\nAnswer: C", "several options are named"),
        (
            "Question 1\nAnswer: A\n\nQuestion 2\nAnswer: B",
            "several questions are answered",
        ),
        (
            "The answer is B. The correct answer is close to D.",
            "another option is spoken of afterwards",
        ),
        ("\\boxed{A} is what a naive reader would say.", "the answer was taken back"),
        ("\\boxed{A}. There is no valid option.", "the answer was taken back"),
        ("Answer: B\nEdit: should be A.", "the answer was taken back"),
        (
            "The answer is A (x) for cells and B (y) for plants.",
            "several options are named",
        ),
    ],
)
def test_what_follows_an_answer_may_undo_it(text: str, reason: str):
    assert read_choice(text, ORGANELLES) == ("", reason)


def test_an_options_text_is_no_denial_of_its_letter():
    assert read_choice("The answer is (B) False.", ("True", "False")) == ("B", "")
    assert read_choice("The answer is (B), false.", ORGANELLES)[0] == ""


@pytest.mark.parametrize(
    ("text", "choices", "letter"),
    [
        ("\\boxed{x}", ("x", "y", "z", "w"), "A"),
        ("Answer: N", ("C", "N", "O", "H"), "B"),
        ("Answer: C", ("C", "N", "O", "H"), ""),
        ("(C)", ("C", "N", "O", "H"), "C"),
        ("The answer is Aa.", ("AA", "Aa", "aa", "none"), "B"),
        ("The answer is london.", CAPITALS, "B"),
        ("The answer is −5.", ("5", "-5"), "B"),
        ("\\boxed{2*3}", ("23", "2*3"), "B"),
        ("\\boxed{\\textrm{Paris}}", CAPITALS, "A"),
    ],
)
def test_texts_of_options(text: str, choices: tuple[str, ...], letter: str):
    assert read_choice(text, choices)[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A: incorrect\nB: correct\nC: incorrect\nD: incorrect", "B"),
        ("- A) Mitochondria ❌\n- B) Ribosomes ❌\n- C) ❌\n- D) Nucleus ✅", "D"),
        ("A. Mitochondria\nB. Ribosomes ✅\nC. Golgi apparatus\nD. Nucleus", "B"),
        ("| A | ❌ | x |\n| B | ❌ | x |\n| C | ✅ | x |\n| D | ❌ | x |", "C"),
        ("A → does not fit it\nB → does not fit\nC → fits\nD → does not fit", "C"),
        ("A ✖ – x.\nB ✖ – x.\nC ✖ – x.\nD ✔️ – x.", "D"),
        ("A: Is it? No.\nB: Is it? Yes.\nC: Is it? No.\nD: Is it? No.", "B"),
        (
            "**Option A: Mitochondria**\nSmall. Does not match it.\n\n"
            "**Option B: Ribosomes**\nSmall. Matches it.\n\n"
            "**Option C: Golgi apparatus**\nLarge. Does not match it.\n\n"
            "**Option D: Nucleus**\nLarge. Does not match it.",
            "B",
        ),
        ("A student says:\n\nA: wrong\nB: correct\nC: wrong\nD: wrong", ""),
        # two, none, an answer that is taken back, one that is missing
        ("A: correct\nB: correct\nC: incorrect\nD: incorrect", ""),
        ("A: incorrect\nB: incorrect\nC: incorrect\nD: incorrect", ""),
        ("A: false\nB: true\nC: false\nD: false\n\nWait, that is wrong.", ""),
        ("A: incorrect\nB: correct\nC: incorrect", ""),
        ("| A | ✅ | ❌ |\n| B | ✅ | ❌ |\n| C | ❌ | ✅ |\n| D | ❌ | ❌ |", ""),
        # of what is not true, the false one may be asked for
        ("A: true\nB: possible\nC: possible\nD: possible", ""),
        # what the last line comes to is another
        ("A: wrong\nB: correct\nC: wrong\nD: wrong\n\nThat leaves C.", ""),
    ],
)
def test_the_one_option_of_a_list_that_is_judged_to_be_right_is_chosen(
    text: str, letter: str
):
    assert read_choice(text, ORGANELLES)[0] == letter


NEXT = "Question: Which gas is it?\nA. Oxygen\nB. Helium\nAnswer: B"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (f"D\n\n{NEXT}", "D"),
        (f"The answer is D.\n\n{NEXT}\n\n{NEXT}", "D"),
        (f"I cannot tell that from what I know of cells.\n\n{NEXT}", ""),
        ("Answer: D\n\nWhich is it?\nA. Oxygen\nB. Helium\nAnswer: B", "D"),
        ("D</s>\n<|user|>\nWhat makes proteins?\n<|assistant|>\nB", "D"),
        ("D\n\nIt consists of\nA. atoms\nB. cells\nAnswer: B", "D"),
        # the task's own, told again
        ("**Given:** a cell.\n\n**Question:** What reads?\n\n**Answer:** B", "B"),
        ("Given that it reads, D.\n\nQuestion: What sorts?\nAnswer: C", ""),
        ("Let me see.\n\nQuestion: Which makes proteins?\nAnswer: B", "B"),
        ("It is small.\n\nProblem:\nA. Mitochondria\nB. Ribosomes\nAnswer: B", "B"),
        ("**Question:** Which makes proteins?\n\n**Answer:** B", "B"),
    ],
)
def test_what_a_reply_writes_from_another_question_on_does_not_count(
    text: str, letter: str
):
    assert read_choice(text, ORGANELLES)[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B – these make proteins out of amino acids. Others do not.", "B"),
        ("B – the ribosomes make proteins.\n\nThey stand in the cytoplasm.", "B"),
        ("D. The nucleus keeps the DNA. It is the largest part.", "D"),
        ("B – the nucleus keeps the DNA of a cell. Others do not.", ""),
        ("B – is that what makes proteins in a cell? Perhaps.", ""),
        ("B – this is what a beginner would choose, as proteins are known.", ""),
        ("B – I can't decide this without knowing what the cell does.", ""),
        ("A: the cell burns sugar here, and the nucleus keeps the rest.", ""),
        ("B – wrong, as these make proteins out of amino acids.", ""),
        ("B – these make proteins. D keeps the DNA of a cell.", ""),
        ("C – the concentration of the acid in the cell\nV – its volume", ""),
        ("A – the area of the cell – and its volume tell how fast it grows.", ""),
        ("B. First of all, we look at what a cell is made of.", ""),
    ],
)
def test_a_reply_may_begin_with_an_option_and_say_it_in_its_own_words(
    text: str, letter: str
):
    assert read_choice(text, ORGANELLES)[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A and C go too, and the remaining option, B, is the answer.", "B"),
        ("So only (B) works.", "B"),
        ("If it were a plant, only B works.", ""),
        (
            "The one that explains why proteins are made is B, as the others do not.",
            "B",
        ),
        ("The option that is wrong is B.", ""),
        ("The option that does not burn sugar is B.", ""),
        ("The option that mentions proteins is B.", ""),
        ("I first said B. I change my answer to A: that is what burns sugar.", "A"),
        ("I change my answer from B to A.", "A"),
        ("The switch is changed to A, and the lamp is lit.", ""),
        ("I correct this to A: that is what burns sugar.", "A"),
        ("If it burnt sugar, I would change my answer to A.", ""),
        ("Hence A, C and D can be crossed out, and we are left with B.", "B"),
        ("Hence A and C can be crossed out.", ""),
        ("It can't be A. By process of elimination, B.", "B"),
        ("I'd eliminate A, C and D. That only leaves option B.", "B"),
        ("A, C and D are too large. Leaves B.", "B"),
        ("It reads, so C. Wait, it makes proteins. So B.", "B"),
        ("It reads, so C. So B. Wait, that is wrong.", ""),
        ("The answer is not A. So it must be B.", "B"),
        ("Answer: A. Wait, that is wrong. That leaves B.", "B"),
        ("Answer: A. Wait, that is wrong. That leaves B or C.", ""),
    ],
)
def test_what_is_concluded_from_what_was_ruled_out(text: str, letter: str):
    assert read_choice(text, ORGANELLES)[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Antwort C ist richtig, denn sie sortiert.", "C"),
        ("Die richtige Option ist C.", "C"),
        ("A alternativa correta é a letra D.", "D"),
        ("La opción B es la correcta.", "B"),
        ("La réponse B est la bonne, car elle lit.", "B"),
        ("L'opzione B è corretta.", "B"),
        ("Antwoord B is juist.", "B"),
        ("Odpowiedź B jest poprawna.", "B"),
        ("Вариант B правильный.", "B"),
        ("B ş\u0131kk\u0131 doğrudur.", "B"),
        ("Phương án B là đúng.", "B"),
        ("答えはAではなくBです。", "B"),
        ("したがって、Bが正解です。", "B"),
        ("따라서 B가 정답입니다.", "B"),
        ("الخيار B هو الصحيح.", "B"),
        ("Deshalb ist B die richtige Antwort.", "B"),
        ("Es bleibt also nur Antwort D übrig.", "D"),
        ("C'est donc la réponse B qui est correcte.", "B"),
        ("La opción correcta es: C) Golgi apparatus", "C"),
        ("Doğru cevap B seçeneğidir.", "B"),
        ("Option C is also correct, as is D.", ""),
        ("Ce n'est pas la réponse B.", ""),
        ("有的同学认为B正确。", ""),
        ("Die Antwort lautet daher B.", "B"),
        ("Il faut donc choisir la réponse D.", "D"),
        ("É o núcleo. Letra D.", "D"),
        ("Muchos creen que la opción B es correcta.", ""),
        ("Bが正解だと言う人もいます。", ""),
        ("Bが正しいと考えられます。", "B"),
        ("B가 정답이라고 하는 학생도 있습니다.", ""),
        ("Поэтому верным является вариант B.", "B"),
        ("如果它合成蛋白质,选B;否则选A。", ""),
        ("Antwort C ist nicht richtig.", ""),
        ("Wenn es Zucker ist, ist Antwort C richtig.", ""),
        ("La opción B no es la correcta.", ""),
        ("B가 정답이 아닙니다.", ""),
        ("Bが正解ではありません。", ""),
    ],
)
def test_options_are_said_to_be_right_in_other_languages(text: str, letter: str):
    assert read_choice(text, ORGANELLES)[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: A\n\nOr else Answer: B\n\nBoth are equally right.", ""),
        ("The answer is A.\n\nThe answer is C.\n\nEither may be correct.", ""),
        ("\\boxed{A}\n\n\\boxed{C}\n\nEach of them holds.", ""),
        ("The answer is A.\n\nThe answer is B.\n\nI cannot decide.", ""),
        ("Both readings are possible: the answer is A. The answer is B.", ""),
        ("Case 1 (n even): $\\boxed{A}$\n\nCase 2 (n odd): $\\boxed{C}$", ""),
        ("Case 1: n is even.\n\nAnswer: A\n\nCase 2: n is odd.\n\nAnswer: C", ""),
        ("For even n: \\boxed{A}. For odd n: \\boxed{C}.", ""),
        ("If n is even:\n\\boxed{A}\n\nIf n is odd:\n\\boxed{C}", ""),
        ("With the first the answer is A, with the second the answer is C.", ""),
        ("n even → A\nn odd → C", ""),
        ("For n = 3 the answer is B.\n\nFor n = 4 the answer is C.", ""),
        ("Answer: A\n\nAnswer: D\n\nI believe both readings are valid.", ""),
        ("* For plants: **A**\n* For animals: **C**", ""),
        ("Answer: A (n even); C (n odd)", ""),
        # one of them is chosen
        ("Case 1: the answer is A.\nCase 2: the answer is C.\n\nn is odd, so C.", "C"),
        ("Case 1: 2 works. Case 2: 3 works. So the answer is C.", "C"),
        ("Statement I holds, and so does II. The answer is C. Both are true.", "C"),
        ("The answer is A? II holds as well. The answer is C, as both hold.", "C"),
    ],
)
def test_two_answers_that_both_stand_settle_nothing(text: str, letter: str):
    assert read_choice(text, ORGANELLES)[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("they make proteins.\n\nso it's option b", "B"),
        ("that leaves option c", "C"),
        ("i think it's c", "C"),
        ("must be option c", "C"),
        ("option b is right", "B"),
        ("so a is the answer", "A"),
        ("b it is", "B"),
        ("so i pick b", "B"),
        ("so it's b or c", ""),
        ("so it's not b", ""),
        ("so the speed is c", ""),
        ("so statement a is correct", ""),
        ("is option b right?", ""),
        ("so option b is right if n is even", ""),
    ],
)
def test_small_letters_are_concluded(text: str, letter: str):
    assert read_choice(text, ORGANELLES)[0] == letter


SUBSTANCES = ("enzyme", "catalyst", "the solvent", "mitochondrion")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is a catalyst.", "B"),
        ("It is the mitochondrion.", "D"),
        ("It's an enzyme.", "A"),
        ("An enzyme.", "A"),
        ("It is a solvent.", "C"),
        ("\\boxed{\\text{a catalyst}}", "B"),
        ("A catalyst is the correct answer.", "B"),
        ("The answer is B, the catalyst.", "B"),
        ("The answer is A, the catalyst.", ""),
        ("The answer is not a catalyst.", ""),
        ("The answer is a catalyst or an enzyme.", ""),
        ("It is the mitochondrion that makes it.", ""),
        ("A Catalyst", ""),
    ],
)
def test_an_options_text_may_stand_behind_an_article(text: str, letter: str):
    assert read_choice(text, SUBSTANCES)[0] == letter


def test_articles_tell_options_apart():
    choices = ("a dog", "the dog", "dog", "dogs")
    assert read_choice("The answer is the dog.", choices)[0] == "B"
    assert read_choice("The answer is dog.", choices)[0] == "C"
    assert read_choice("The answer is an dog.", choices)[0] == ""
    assert read_choice("The answer is the.", ("a", "an", "the", "none"))[0] == "C"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The true statement is B.", "B"),
        ("The only valid inference is D.", "D"),
        ("The most accurate summary is C.", "C"),
        ("The flaw is described by C).", "C"),
        ("The passage is best summarised by (D).", "D"),
        ("His mistake is best explained by option A.", "A"),
        ("The conclusion is most strongly supported by B.", "B"),
        ("The sequence is given by (B).", "B"),
        ("The sequence is correctly shown in (B).", "B"),
        ("The description corresponds best to B.", "B"),
        ("The most appropriate next step is D.", "D"),
        ("B is the one.", "B"),
        ("The data are shown in Table B.", ""),
        ("The best next step is to give B.", ""),
        ("B is the one that fails.", ""),
        ("B best describes what he does.", "B"),
        ("B is the most accurate description of the passage.", "B"),
        ("The velocity is given by B.", ""),
        ("The field is represented by B.", ""),
        ("So the current is C.", ""),
        ("The right angle is B.", ""),
        ("What is best described by B?", ""),
        ("A common mistake is described by C.", ""),
        ("The least accurate summary is C.", ""),
        ("The passage is not best described by B.", ""),
        ("The passage might be best described by B.", ""),
        ("Some say the passage is best described by B.", ""),
        ('He says "the passage is best described by B".', ""),
        ("The passage is best described by B or C.", ""),
        ("The flaw is described by B, but that is not asked.", ""),
        ("A and B best describes it.", ""),
        ("B best describes what he does not do.", ""),
    ],
)
def test_what_is_asked_for_may_be_said_to_be_told_by_an_option(text: str, letter: str):
    assert read_choice(text, ORGANELLES)[0] == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I would therefore choose (C).", "C"),
        ("I would, therefore, choose C.", "C"),
        ("I will go for B", "B"),
        ("We should select D", "D"),
        ("I'd therefore pick A", "A"),
        ("For these reasons, I would choose B (Ribosomes).", "B"),
        ("It is found in plants, so I would choose B.", "B"),
        ("Of the four options, I'd go for D.", "D"),
        ("In this case I would choose B.", "B"),
        ("In children I would choose B.", ""),
        ("For an older cell I would choose B.", ""),
        ("If n were even I would choose C", ""),
        ("Had n been even, I would choose C.", ""),
        ("For even n, I would choose C.", ""),
        ("In that case I would choose C.", ""),
        ("Suppose n is even. I would choose C.", ""),
        ("At first I would go for B.", ""),
        ("one would choose B", ""),
        ("I first chose B", ""),
        ("I had to choose B.", ""),
        ("I'd also pick B.", ""),
        ("I would therefore not choose (C).", ""),
        ("I'd pick A, or maybe B.", ""),
    ],
)
def test_what_the_reply_would_choose(text: str, letter: str):
    assert read_choice(text, ORGANELLES)[0] == letter


def answers() -> list[tuple[str, str, tuple[str, ...]]]:
    lines = (DATA / "choice_answers.jsonl").read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    return [(row["response"], row["letter"], tuple(row["choices"])) for row in rows]


def test_answers_as_they_are_written():
    misread = {
        text: (read_choice(text, choices)[0], letter)
        for text, letter, choices in answers()
        if read_choice(text, choices)[0] != letter
    }
    assert misread == {}


def test_an_answer_that_never_closes_settles_nothing():
    reason = ("", "the last box or answer tag never closes")
    assert read_choice("\\boxed{B}. So finally \\boxed{C", CHOICES) == reason
    assert read_choice("Answer: B\n<answer>C", CHOICES) == reason
    assert read_choice("\\boxed{C} \\boxed{\\text{B}}", CHOICES)[1] != reason[1]


def test_there_are_as_many_options_as_letters():
    choices = tuple(f"option {number}" for number in range(26))
    assert read_choice("Answer: Z", choices) == ("Z", "")
    assert read_choice("Answer: K", choices[:11]) == ("K", "")
    assert read_choice("The answer is I because I computed it.", choices)[0] == "I"
    assert read_choice("The answer is A bit unclear.", choices)[0] == ""
    task = Task(id="q", prompt="?", answer="A", kind="choice", choices=("x",) * 27)
    with pytest.raises(VerifierError, match="it has 27 choices; 26 have a letter"):
        run_sync(ChoiceVerifier().verify(task, "A"))


def test_equal_options_are_named_by_letter_only():
    assert read_choice("\\boxed{5}", ("5", "5.", "6")) == ("", "no option was chosen")
    assert read_choice("\\boxed{A) 5}", ("5", "5.", "6")) == ("A", "")
    assert read_choice("Answer: H₂O", ("CO2", "H2O")) == ("B", "")


@pytest.mark.parametrize(
    ("text", "status", "reward"),
    [
        ("\\boxed{B}", "correct", 1.0),
        ("\\boxed{C}", "wrong", 0.0),
        ("\\boxed{A or B}", "no_answer", 0.0),
    ],
)
def test_verdicts(text: str, status: str, reward: float):
    verdict = run_sync(ChoiceVerifier().verify(TASK, text))
    assert (verdict.status, verdict.reward, verdict.correct) == (
        status,
        reward,
        reward == 1.0,
    )


@pytest.mark.parametrize(
    ("gold", "choices"), [("E", CHOICES), ("b", CHOICES), ("A", ()), ("AB", CHOICES)]
)
def test_a_gold_that_is_no_option_is_an_error(gold: str, choices: tuple[str, ...]):
    task = Task(id="q", prompt="?", answer=gold, kind="choice", choices=choices)
    with pytest.raises(
        VerifierError,
        match=f"task 'q': the answer '{gold}' is no letter of its {len(choices)}",
    ):
        run_sync(ChoiceVerifier().verify(task, "\\boxed{A}"))


@pytest.mark.parametrize(
    "unit",
    [
        "\\boxed{",
        "\\boxed{{{}",
        "answer is ",
        "A ",
        "(((((",
        "<answer>",
        "选",
        "ﷺ",
        "answer::::",
        "</think>",
    ],
)
def test_long_hostile_texts_take_no_time(unit: str):
    start = time.process_time()
    assert read_choice(unit * (1_000_000 // len(unit)), CHOICES)[0] == ""
    assert time.process_time() - start < 5


def test_without_thinking():
    assert without_thinking("a<think>b</think>c</think>d") == "d"
    assert without_thinking("a<think>b") == "a"
    assert without_thinking("a</think>b<think>c") == "b"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<|channel|>analysis<|message|>a<|end|>", ""),
        ("<|channel|>analysis<|message|>a<|channel|>final<|message|>b", "b"),
        ("<|channel|>final<|message|>b<|channel|>analysis<|message|>c", "b"),
        ("analysisLet me see: a.assistantfinalb", "b"),
        ("analysisLet me see: a.", ""),
        ("analysis of a text", "analysis of a text"),
    ],
)
def test_what_is_written_in_another_channel_than_the_last_is_thought(
    text: str, answer: str
):
    assert without_thinking(text) == answer
