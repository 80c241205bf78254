"""An answer against a gold as far as no algebra is needed: alike in every process."""

import re
from typing import NamedTuple

from aipo_env.verifiers.math.compare import equivalent
from aipo_env.verifiers.math.forms import Form, read
from aipo_env.verifiers.math.text import MAX_CHARS, clean, number, screen
from aipo_env.verifiers.math.times import is_clock, same_time
from aipo_env.verifiers.math.units import Unit, contradicts, in_first_unit, unit_of
from aipo_env.verifiers.reading.dates import read_date

_MAX_EQUAL_CHARS = 20_000
"""Longer texts are not compared, even as texts."""
_LN = re.compile(r"\\ln(?![A-Za-z])")
_BARE_LOG = re.compile(r"\\log(?![A-Za-z]|\s*_)")
_RATIO = re.compile(r"[0-9)}]\s*:\s*[-0-9({\\.]")


_COMPOUND = re.compile("[/·⋅]")
"""What joins the units of a compound one: `km/h`, `kW·h`."""
_CONGRUENCE = re.compile(
    r"""
    (?: (?P<name> [A-Za-z] ) [ ]? (?: \\equiv | ≡ | = ) [ ]? )?
    (?P<residue> -?[0-9]{1,18} ) [ $]{0,2} \\? [,;:]? [ ]?
    (?: \\pmod [ ]? \{?
      | \(? [ ]? \\? (?: text | mathrm )? \{? b? (?: mod | MOD ) \}? [ ~]? )
    [ ]? (?P<modulus> [0-9]{1,18} ) [ ]? [)}]{0,2}
    """,
    re.VERBOSE,
)
"""A residue and its modulus: `x \\equiv 3 \\pmod{7}`, `3 (mod 7)`."""
_BRACED_COMMA = re.compile(r"(?<=[0-9])\{,\}(?=[0-9]{1,2}(?![0-9])|[0-9]{4})")
"""A decimal comma in LaTeX, behind which there are not three digits: `2{,}5`."""
_EUROPEAN = re.compile(
    r"""
    (?P<before> [\s$€£\\(]{0,4} (?: R\$ \s? )? (?: [a-zA-Z] \s? = \s? )? [-+−]? )
    (?: (?P<whole> [0-9]{1,9} (?= ,(?: [0-9]{1,2} | [0-9]{4,20} ) (?![0-9]) )   # 2,5
                 | 0 (?= ,[0-9] )                                              # 0,125
                 | [0-9]{1,3} (?: \.[0-9]{3} ){1,5} (?= ,[0-9] ) )             # 1.234,5
    ) , (?P<decimals> [0-9]{1,20} )
    (?= [^0-9,;]* \Z )
    """,
    re.VERBOSE,
)
"""A number, the only one of a text, with a comma for a decimal point."""


class Grade(NamedTuple):
    """What an answer is, which stage says so, and why.

    The status is "correct", "wrong", "no_answer" or "refused"; "error" is the gold's.
    """

    status: str
    stage: str
    reason: str = ""


class Undecided(Exception):
    """Only algebra can tell."""


class _NoAlgebra:
    """A judge that knows none."""

    def scalars(self, first: str, second: str, rename: bool) -> bool:
        """Tell nothing."""
        raise Undecided

    def relations(self, first: Form, second: Form) -> bool:
        """Tell nothing."""
        raise Undecided

    def sets(self, first: Form, second: Form) -> bool | None:
        """Tell nothing."""
        raise Undecided


def without_algebra(gold: str, answer: str) -> Grade:
    """Return what an answer is, by value or by form.

    Raises:
        Undecided: Only algebra can tell, and it may look at the answer.
    """
    if _are_one_text(gold, answer):
        return Grade("correct", "value")
    if len(gold) > MAX_CHARS:
        reason = f"the gold holds more than {MAX_CHARS} characters"
        return Grade("error", "screen", reason)
    if is_empty(gold):
        reason = f"the gold {gold[:80]!r} is empty, so nothing equals it"
        return Grade("error", "value", reason)
    if len(answer) > MAX_CHARS:
        return Grade("refused", "screen", _holds(f"more than {MAX_CHARS} characters"))
    try:
        gold = _BRACED_COMMA.sub(".", gold)
        answer = _BRACED_COMMA.sub(".", answer)
        gold, answer = gold.replace("{:}", ":"), answer.replace("{:}", ":")
        is_congruent = same_congruence(gold, answer)
        if is_congruent is not None:
            return Grade("correct" if is_congruent else "wrong", "value")
        is_same_day = _is_same_day(gold, answer)
        if is_same_day is not None:
            return Grade("correct" if is_same_day else "wrong", "value")
        answer = with_decimal_point(gold, _one_of_equals(answer))
        gold, answer = in_first_unit(gold), in_first_unit(answer)
        gold, answer, fault = in_one_unit(gold, answer)
        if fault:
            return Grade("wrong", "value", fault)
        answer = clean(answer)
    except Exception:
        return Grade("no_answer", "value", "the answer cannot be read")
    if not answer:
        return Grade("no_answer", "", "an empty answer")
    try:
        gold = clean(gold)
        read(gold)
    except Exception:
        return Grade("error", "value", f"the gold {gold[:80]!r} cannot be read")
    gold, answer = in_one_logarithm(gold, answer)
    if _is_ratio_for_whole(gold, answer):
        return Grade("wrong", "value", "a ratio is no whole number")
    if is_clock(gold) and is_clock(answer):
        return Grade("correct" if same_time(gold, answer) else "wrong", "value")
    try:
        is_same = equivalent(gold, answer, _NoAlgebra())
    except Undecided:
        # Only what algebra is to read can harm it.
        reason = screen(answer)
        if reason:
            return Grade("refused", "screen", _holds(reason))
        raise
    except Exception:
        return Grade("wrong", "value", "the answer cannot be compared")
    return Grade("correct" if is_same else "wrong", "value")


def in_one_logarithm(gold: str, answer: str) -> tuple[str, str]:
    """Return two clean texts, a bare `\\log` being natural if the other says `\\ln`.

    One that says `\\ln` itself means something else by its `\\log`.
    """
    is_natural = [_LN.search(text) is not None for text in (gold, answer)]
    if is_natural == [True, False]:
        return gold, _BARE_LOG.sub(r"\\ln", answer)
    if is_natural == [False, True]:
        return _BARE_LOG.sub(r"\\ln", gold), answer
    return gold, answer


def _is_ratio_for_whole(gold: str, answer: str) -> bool:
    """Return whether an answer is a ratio, and its gold a whole number.

    A gold that is a ratio, `2:1`, may be answered by its value.
    """
    if not _RATIO.search(answer) or _RATIO.search(gold):
        return False
    value = number(read(gold).text)
    return value is not None and value.denominator == 1


def _are_one_text(gold: str, answer: str) -> bool:
    """Return whether two long texts are the same but for blanks.

    Shorter ones are read: an answer that is the same text may be empty, or a bomb.
    """
    if not MAX_CHARS < len(gold) <= _MAX_EQUAL_CHARS or len(answer) > _MAX_EQUAL_CHARS:
        return False
    return gold.split() == answer.split()


def in_one_unit(gold: str, answer: str) -> tuple[str, str, str]:
    """Return both texts without units, and why the answer's contradicts the gold's.

    An answer in another unit of the gold's kind is converted. Texts whose units say
    nothing are returned as they are.
    """
    gold_unit = unit_of(gold)
    if gold_unit is None:
        return gold, _beside_a_number(gold, answer), ""
    answer_unit = unit_of(answer)
    if answer_unit is None:
        return _beside_a_number(answer, gold), answer, ""
    if gold_unit.is_letter and answer_unit.is_letter:
        return gold, answer, ""  # both may be variables
    if contradicts(gold_unit, answer_unit):
        return gold, answer, "its unit is not that of the right answer"
    if not gold_unit.measures or gold_unit.measures != answer_unit.measures:
        return gold, answer, ""
    if gold_unit.size == answer_unit.size:
        return gold_unit.value, answer_unit.value, ""
    return gold_unit.value, _scaled(answer_unit, gold_unit), ""


def same_congruence(gold: str, answer: str) -> bool | None:
    """Return whether two congruences are one; None where the gold is none.

    `x \\equiv 3 \\pmod{7}` is `x = 10 (mod 7)`, and no answer without its modulus.
    """
    ours = _CONGRUENCE.fullmatch(" ".join(gold.split()).strip(" .$"))
    if ours is None:
        return None
    theirs = _CONGRUENCE.fullmatch(" ".join(answer.split()).strip(" .$"))
    if theirs is None or int(ours["modulus"]) == 0:
        return False
    modulus = int(ours["modulus"])
    names = {ours["name"], theirs["name"]} - {None}
    is_same = (int(ours["residue"]) - int(theirs["residue"])) % modulus == 0
    return is_same and modulus == int(theirs["modulus"]) and len(names) < 2


def _is_same_day(gold: str, answer: str) -> bool | None:
    """Return whether two dates are one; None unless both are dates.

    A year that only one of them names says nothing.
    """
    gold_date = read_date(gold)
    answer_date = read_date(answer) if gold_date else None
    if gold_date is None or answer_date is None:
        return None
    years = {gold_date[0], answer_date[0]} - {0}
    return len(years) < 2 and gold_date[1:] == answer_date[1:]


def _one_of_equals(answer: str) -> str:
    """Return the first of two forms of one number: `0.375 or 37.5%` is `0.375`."""
    first, _, second = answer.partition(" or ")
    if not second:
        return answer
    value = number(clean(first.rstrip(", ")))
    if value is None or value != number(clean(second)):
        return answer
    # Behind a comma a whole number is rather one of two.
    is_afterthought = first.endswith(",") and value.denominator == 1
    return answer if is_afterthought else first.rstrip(", ")


def with_decimal_point(gold: str, answer: str) -> str:
    """Return an answer with a decimal point if it has a comma for one: `2,5` is 2.5.

    That is so in most of Europe. A comma before three digits parts thousands, unless
    they follow a 0; where the gold has commas itself, or is a whole number, one in the
    answer may part a list.
    """
    if "," not in answer or "," in gold:
        return answer
    european = _EUROPEAN.match(answer)
    if european is None:
        return answer
    whole = european["whole"].replace(".", "")
    value = number(clean(gold))
    if value is not None and value.denominator == 1 and whole != "0":
        return answer
    point = f"{european['before']}{whole}.{european['decimals']}"
    return point + answer[european.end() :]


def _beside_a_number(number_alone: str, text: str) -> str:
    """Return a text without its unit if it is compared with a number that has none.

    One letter may be a variable, and words that name no unit are not read here, unless
    they are joined: `dollars/hour`.
    """
    unit = unit_of(text)
    if unit is None or number(clean(number_alone)) is None:
        return text
    is_compound = _COMPOUND.search(text, len(unit.value)) is not None
    is_unit = bool(unit.measures) and not unit.is_letter
    return unit.value if is_compound or is_unit else text


def _scaled(answer: Unit, gold: Unit) -> str:
    """Return an answer's value in the gold's unit."""
    factor = answer.size / gold.size
    # Without what it is called: `Q = 4200 J`.
    value = number(clean(answer.value.rpartition("=")[2]))
    if value is not None:
        return str(value * factor)
    return (
        rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot ({answer.value})"
    )


def is_empty(gold: str) -> bool:
    """Return whether a gold answer is nothing but markup, such as an empty box."""
    if len(gold) > MAX_CHARS:
        return False
    try:
        return not clean(gold)
    except Exception:  # it holds something, which cannot be read
        return False


def gold_fault(gold: str) -> str | None:
    """Return why a gold cannot be used, "" if it can; None: only algebra can tell."""
    if len(gold) > MAX_CHARS:
        return f"it holds more than {MAX_CHARS} characters"
    if read_date(gold) or _CONGRUENCE.fullmatch(" ".join(gold.split()).strip(" .$")):
        return ""
    text = clean(gold)
    if not text:
        return "it is empty"
    reason = screen(text)
    if reason:
        return f"it holds {reason}"
    is_number = number(text) is not None
    return "" if is_number else None


def _holds(what: str) -> str:
    return f"the answer holds {what}"
