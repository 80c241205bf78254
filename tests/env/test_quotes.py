"""What stands word for word in another text, found in linear time."""

import random
import time

import pytest

from aipo_env.rollout.quotes import MIN_QUOTE_CHARS, Quotable

SOURCE = "0123456789" * 3 + "the quick brown fox jumps over the lazy dog" + "!" * 30


@pytest.mark.parametrize("size", [0, 5, MIN_QUOTE_CHARS - 1])
def test_short_agreement_is_none(size: int):
    text = f"<{SOURCE[40 : 40 + size]}>"
    assert list(Quotable(SOURCE).parts(text)) == [(text, False)]


@pytest.mark.parametrize("start", range(16))
@pytest.mark.parametrize("size", [MIN_QUOTE_CHARS, MIN_QUOTE_CHARS + 9])
def test_a_quotation_is_found_wherever_it_begins(start: int, size: int):
    quoted = SOURCE[24 + start : 24 + start + size]
    text = f"<{quoted}>"
    assert list(Quotable(SOURCE).parts(text)) == [
        ("<", False),
        (quoted, True),
        (">", False),
    ]


def test_parts_are_the_text():
    draw = random.Random(3)
    for _ in range(300):
        source = "".join(draw.choices("ab ", k=draw.randint(0, 200)))
        pieces = [
            source[draw.randrange(200) :][: draw.randint(0, 60)] for _ in range(4)
        ]
        text = "<>".join(pieces)
        assert "".join(part for part, _ in Quotable(source).parts(text)) == text
        for part, is_quoted in Quotable(source).parts(text):
            assert not is_quoted or part in source
    assert list(Quotable("x" * 100).parts("")) == []


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a" * 20_000, "a" * 50_000),
        ("a" * 20_000, "b" + "a" * 15 + "b" + "a" * 15),
        (("a" * 15 + "b") * 1_250, "a" * 50_000),
        ("ab" * 10_000, "ba" * 25_000),
        ("x" * 20_000, "".join(map(str, range(9_000)))),
    ],
    ids=range(5),
)
def test_it_is_quick(text: str, source: str):
    begin = time.thread_time()
    list(Quotable(source).parts(text))
    # Some 0.02 s; what is quadratic takes minutes.
    assert time.thread_time() - begin < 0.15


WORDS = "first add 1,000 and 2,000, then halve what comes; so x = 1500 it is"


@pytest.mark.parametrize(
    "quoted",
    [
        WORDS.replace(" ", "\n"),
        WORDS.replace(" ", "  "),
        WORDS.replace(",", ""),
        WORDS.replace(" = ", "="),
        "> " + WORDS.replace("; ", ";\n> "),
        "    " + WORDS.replace(" then ", "\n    then "),
        WORDS.replace("halve", "**halve**"),
        WORDS.replace("x", "`x`"),
    ],
)
def test_a_quotation_that_was_set_anew_is_found(quoted: str):
    said = list(Quotable(WORDS).parts(f"You say: {quoted}. No!"))
    assert said[0] == ("You say: " + quoted[: quoted.index("f")], False)
    assert "".join(part for part, is_quoted in said if is_quoted).endswith("is")
    assert said[-1] == (". No!", False)


def test_few_characters_between_blanks_are_no_quotation():
    assert list(Quotable(WORDS).parts("so x = 1500 it is, then")) == [
        ("so x = 1500 it is, then", False)
    ]


def test_every_source_may_be_quoted_up_to_its_own_end():
    long = "".join(map(str, range(20_000)))
    both = Quotable(WORDS, long)
    assert [is_quoted for _, is_quoted in both.parts(WORDS)] == [True]
    assert [is_quoted for _, is_quoted in both.parts(long[-400:])] == [True]
