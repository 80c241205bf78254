"""What stands behind a value in its clause: whether the value stands, and its unit.

The value is over at a full stop, a comma, a reason. What changes it ("42 million"), an
alternative, a condition, or an objection leaves it open, and a verb makes it the
subject of something else that is said.
"""

import re
from typing import Literal

from aipo_env.verifiers.reading.prose import formula_end
from aipo_env.verifiers.reading.words import sentence_end, skip, vocabulary

SaidKind = Literal["value", "denied", "unclear", "nothing"]
"""A value is given, or denied, or not understood; "nothing": none is spoken of."""
Finding = tuple[SaidKind, str]
"""What is said, and why there is no value."""

_STANDS: Finding = ("value", "")
_MAX_WORDS = 10
"""So many words may follow a value before its clause is taken to be over."""
_MAX_UNIT_WORDS = 3
_MAX_NOTE_CHARS = 200
"""Only so much of a bracket behind a value is read."""

_ALTERING = vocabulary("altering")
"""Words behind a value that make it another."""
_COUNTED = vocabulary("counted")
"""Nouns of which a range may be named behind a value: `17 primes below 60`."""
_RANGES = frozenset(("below", "above", "under", "over", "between", "less", "greater"))
"""Words that name a range of them."""
_WRONG = vocabulary("wrong")
"""Words behind a value that take it back."""
_VERBS = vocabulary("verbs")
"""Words behind a value that make it the subject of something."""
_REASONS = vocabulary("reasons")
"""Words behind a value at which its clause ends."""
_CONTRASTS = vocabulary("contrasts")
_QUANTIFIED = vocabulary("quantified")
"""Words that change a value if a number follows: `3 of 5`, `3 to 4`."""
_CASES = vocabulary("cases")
"""Words behind which a value may be one of several."""
_BEHIND_COMMAS = vocabulary("read behind commas")
"""Words behind a comma that are read as if there were none."""

_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['’-](?=[^\W\d_]))*")
CLOSING = re.compile(
    r"""
      [\s*_"“”»`)}\]$]
    | ['’](?![A-Za-z])
    | \\[)\];,:.!\ ]
    | \\q?quad(?![a-z])
    """,
    re.VERBOSE,
)
"""What may stand behind a value and is none of it."""
_STOPS = ".!\u3002\uff01"
_COLONS = ":\uff1a\u2236"
_COMMAS = ",\uff0c\u3001"
_SEMICOLONS = ";\uff1b"
_QUESTION_MARKS = "?\uff1f"
_DASHES = "-–—→⇒➜"
_CROSSES = "❌✗✘"
_OPERATORS = "+*/^×÷·><≥≤\\%±"
_VALUE_BEGINS = tuple("0123456789.-$\\√")
_ENDS_OF_ALL = " *_\"'”’.)\n$?"
_EDGES = " $*_\\()[]{}.,"
"""What may stand around the sides of an equation, and is none of their values."""
_EQUALS = re.compile(r"[=≈> ]")
_OPEN_TAG = re.compile(r"<(?:[/|A-Za-z]|\Z)")
_ORDINAL = re.compile(r"[0-9](?:st|nd|rd|th)\Z")
_ORDINAL_CHARS = 3
_STRANGE_END = re.compile(r"!(?:\.(?!\.)|[A-Za-z0-9])")
"""What behind a value may be a factorial's end: `12!.`"""
_RATIO = re.compile(
    r"""
    .
    (?: [$\\*]{0,3} (?: [0-9] | \.[0-9] | [a-z] (?![a-z]) | \\?[dt]?frac )
    |   [ ][$*]{0,3} [0-9][0-9.,]{0,20} [$*]{0,3}
        (?: [.!,;)\n] | \Z | [ ](?: to | for | in )\b )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A colon and the second term: `26:1`, `26: 1.`; not `42: 40 + 2`."""
_UNIT_GOES_ON = re.compile(
    r"""
      (?: [ ]?/[ ]? | [·⋅*] )
      [A-Za-zµμΩ]{1,20}
      (?: \^\{?-?[123]\}? | [23²³](?![0-9A-Za-z]) )?
    | [$ ]{0,2} \^ \{?-?[123]\}? (?![0-9A-Za-z])
    """,
    re.VERBOSE,
)
"""What belongs to a unit behind its first word: `km/h`, `kg/m^3`, `kW·h`, `ft^2`."""
_CURRENCIES = "€£¥₹$"
_FURTHER_UNIT = re.compile(
    r"[0-9]{1,9}(?:\.[0-9]{1,9})? ?(?:h|hours?|hrs?|min|mins|minutes?|s|secs?|seconds?"
    r"|days?|weeks?|months?|cm|mm|m|g|grams?|in|inch(?:es)?|oz|ounces?|cents?"
    r"|Stunden?|Minuten?|Sekunden?|minutos?|segundos?|minuti|secondes?)(?![A-Za-z])",
    re.IGNORECASE,
)
"""What goes on with a quantity in a smaller unit: `24 minutes` behind `2 hours`."""
_SHILLINGS = re.compile(r"/-(?![0-9A-Za-z])")
"""What ends a sum of rupees: `1,50,000/-`."""
_EMOTICON = re.compile(r"[:;]-?[DPOp)(](?![A-Za-z0-9])")
_CLAUSE_OVER = re.compile(r"[ *_\"')]{0,4}(?:[.!?,;\n]|\Z)")
_NEXT_LINE_CHANGES = re.compile(
    r"\n\s*(?:or\b|million|billion|thousand|percent|%)", re.IGNORECASE
)
_FOREIGN_DOUBT = re.compile(
    "不|或|吗|吧|错|錯|もしくは|または|では?な|では?あり|じゃな|아니|아닙"
)
"""What behind a value denies it, asks or names an alternative, in other languages."""
_VARIABLE_FIRST = re.compile(r"\s*\$?\s*\\?[A-Za-z]")
_DIGIT_IN_CLAUSE = re.compile(r"(?<!not )(?<!n't )(?<![0-9.])[-$\\(]{0,2}[0-9]")
_OBJECTION = re.compile(
    r"""
      \b(?: fails? | wrong | incorrect | mistaken | ignores? | misses | forgets?
        | violates? | overcounts? | contradicts? | impossible | invalid | false
        | neglects? | too[ ]
        | not[ ](?: right | correct | possible | true | valid | allowed | the[ ]answer
          | it\b ) )
    | n['’]t[ ](?: work | fit | right | correct | hold | possible | true | valid )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind "but" speaks against a value."""
_RULED_OUT = re.compile(
    r"""
    [ ] (?: would | does | is ) [ ] (?: already[ ] | clearly[ ] )?
    (?: not | fail | miss | exceed | violate | overshoot | contradict | too )
    (?![A-Za-z])
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind another value rules it out: `42, whereas 41 would miss one`."""
_MAYBE = re.compile(
    r"\s*(?:or|maybe|perhaps|possibly|alternatively|otherwise|else)(?![a-z])",
    re.IGNORECASE,
)
_RESTATED = re.compile(
    r"\s*,?\s*(?:equivalently|simply|in other words|that is|just|if you)\b",
    re.IGNORECASE,
)
"""What behind "or" says the same again."""
_GUESSED = re.compile(
    r"""
    \s* (?: i | we | they | some | people | he | she | you ) [ ] (?: had[ ] )?
    (?: thought | say | says | said | claim | claimed | believed | guessed | assumed
      | hoped | expected ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"""
    \s* (?: plus | minus | times | less (?![ ]than) | later | followed
          | give[ ]or[ ]take
          | up[ ]to | down[ ]to | through | remainder | rem | together | along
          | as[ ](?: well | is | are ) | of[ ](?: which | whom | these | those )
          | then[ ](?= [-$\\(]{0,2}[0-9] ) )
    (?![a-z])
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind a comma continues a value."""
_ADDED = re.compile(
    r"""
    \s* (?: the[ ] | an?[ ] )?
    (?: other | second | another | half | third | quarter | fifth | negative | one[ ]
      | change\b | then[ ]some | also\b | maybe | perhaps )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind "and" adds something: `3 and a half`, `3 and the other root`."""
_SURE = re.compile(r" (?:matter|doubt|question)\b", re.IGNORECASE)
"""What makes "no" harmless: `no matter`."""
_IS_ANSWER = re.compile(
    r"""
    \s (?: therefore | thus | then | indeed | hence )? \s?
    (?: (?: the | our | my )
        (?: \s (?: final | correct | right | desired | required ) ){0,2}
        \s (?: answer | solution )
    |   what \s we \s (?: get | obtain | find | want | need | wanted | needed )
        (?= \s? (?: [,.;!] | $ ) )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind "is" makes its subject the answer."""
_BOUND = re.compile(
    r" (?:the )?(?:least|most|minimum|maximum|best|worst)\b", re.IGNORECASE
)
"""What makes "at" a bound."""
_TOGETHER = re.compile(r" (?:well as|with|is|are)\b", re.IGNORECASE)
_WHICH = re.compile(r" (?:which|whom|these|those)\b", re.IGNORECASE)
_REMAINDER = re.compile(r" (?:a )?remainder\b", re.IGNORECASE)
_QUANTITY = re.compile(
    r"""
    \s* (?: [-$\\]? [0-9]
      | (?: one | two | three | four | five | six | seven | eight | nine | ten | twelve
          | every | each | thousands? | hundreds? | millions? | billions? | dozens?
          | binary | hex\w* | octal | base | the[ ]power ) (?![a-z]) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_EACH = re.compile(r"\s(?:each|every)\s[a-z]", re.IGNORECASE)
"""Of what there are so many: `7 pens in each box`."""
_PRECISION = re.compile(
    r"\s*[0-9]{1,2} (?:decimal|significant|d\.?p|s\.?f|places|digits|sig)",
    re.IGNORECASE,
)
"""How far a value was rounded: `to 2 decimal places`."""
_OTHER_CASE = re.compile(
    r"""
      \b(?: otherwise | else | respectively )\b
    | \b only (?= \s* (?: [.,;)] | \Z ) )
    | (?: \b(?: and | or | but ) | , ) \s [^\s,]{1,20} \s
      (?: if | when | for | where | on | in | at | after )\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What shows that a value holds in one case of several."""
_NOTE = re.compile(
    r"""
    \s*
    (?: [?\uff1f×x*+]
      | (?: no | nope | wrong | incorrect | false | or | mod | base | in | times | plus
          | minus | not | thousand | million | billion | remainder | maybe | perhaps
          | possibly | alternatively | else )\b )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What in brackets behind a value changes it: `42 (in thousands)`."""
_OTHER_FORM = re.compile(r"\s*or,? (?:equivalently,? |simply )?(?=[-$\\(0-9.])")
_HARMLESS_NOTE = re.compile(
    r"""
    \s* (?: not\b
          | in\b (?! \s* (?: thousand | million | billion | hundred | base | binary
                           | hex | dozen | units?\sof ) ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Tail:
    """Reads what stands behind a value in its clause.

    After `read`, `at` is where the clause ends, `unit` what the value counts, and
    `other_form` what a bracket gives beside it: `3/8 (or 37.5%)`.

    Args:
        text: The whole text.
        at: Where the value ends.
        limit: Where the text that is read ends.
    """

    def __init__(self, text: str, at: int, limit: int) -> None:
        self.at = at
        self._text = text
        self._limit = limit
        self._start = at
        self._unit_start = at
        self._unit_end = at
        self.other_form = ""
        self._has_note = False
        self._num_words = 0

    @property
    def unit(self) -> str:
        """The words directly behind the value."""
        return self._text[self._unit_start : self._unit_end]

    @property
    def unit_end(self) -> int:
        """Where in the text the unit ends."""
        return self._unit_end

    def read(self) -> Finding:
        """Return whether the value stands, and why it does not.

        "nothing": it is the subject of something else that is said.
        """
        while self.at < self._limit:
            if self._text[self.at] == "\n":
                return self._behind_line()
            closing = CLOSING.match(self._text, self.at, self._limit)
            if closing:
                self.at = closing.end()
                continue
            outcome = self._behind_mark()
            if outcome is not None:
                return outcome
        return _STANDS

    def _match(self, pattern: re.Pattern[str], at: int) -> re.Match[str] | None:
        return pattern.match(self._text, at, self._limit)

    def _char(self, at: int) -> str:
        return self._text[at : at + 1] if at < self._limit else ""

    def _next(self, at: int) -> int:
        """Return the next place that is no blank."""
        while at < self._limit and self._text[at] in " *_":
            at += 1
        return at

    def _behind_line(self) -> Finding:
        if self._match(_NEXT_LINE_CHANGES, self.at):
            return "unclear", "the value goes on in the next line"
        return _STANDS

    def _behind_mark(self) -> Finding | None:
        """Return what the next mark or word settles; None if nothing, read over."""
        mark = self._text[self.at]
        if mark in _QUESTION_MARKS:
            rest = self._text[self.at + 1 : self._limit].strip(_ENDS_OF_ALL)
            return ("unclear", "it is asked") if rest else _STANDS
        if mark == "!" and self._match(_STRANGE_END, self.at):
            return "unclear", "it is not understood"
        if mark in _STOPS:
            return _STANDS
        if self._match(_EMOTICON, self.at):
            return _STANDS
        if mark in _COLONS:
            is_ratio = self._match(_RATIO, self.at)
            return ("unclear", "it is part of a ratio") if is_ratio else _STANDS
        if mark in _SEMICOLONS:
            return self._unless_value(self.at + 1)
        if mark in _COMMAS:
            return self._behind_comma(self.at + 1)
        if mark in _DASHES:
            return self._behind_dash(mark)
        if mark in "([":
            return self._behind_bracket(mark)
        if mark in "=≈":
            return self._behind_equals()
        if mark in "'’":
            return "unclear", "it is part of a word"  # 42's
        if mark in _CROSSES:
            return "unclear", "it is said to be wrong"
        if self._match(_OPEN_TAG, self.at):
            return _STANDS
        if self._match(_SHILLINGS, self.at):
            return _STANDS
        more_of_unit = self._rest_of_unit()
        if more_of_unit:
            self.at = self._unit_end = more_of_unit.end()
            return None
        if mark == "<" or mark in _OPERATORS:
            return "unclear", "the formula behind it is not understood"
        if mark.isdigit():
            further = self._match(_FURTHER_UNIT, self.at) if self.unit else None
            if further is None or self._text[self._unit_end : self.at].strip(" ,"):
                return "nothing", "several numbers"
            self.at = self._unit_end = further.end()
            return None
        return self._behind_letter()

    def _rest_of_unit(self) -> re.Match[str] | None:
        """Return what goes on with the unit that ends here: `/h` behind `km`."""
        between = self._text[self._unit_end : self.at]
        ends_here = self.unit != "" and not between.strip(" $")
        is_price = self.unit == "" and self._text[self.at - 1] in _CURRENCIES
        if not (ends_here or is_price):
            return None
        return self._match(_UNIT_GOES_ON, self.at)

    def _behind_letter(self) -> Finding | None:
        word = self._match(_WORD, self.at)
        if word is None:
            self.at += 1
            return None
        if not word[0][0].isascii():
            if _FOREIGN_DOUBT.search(word[0]):
                return "unclear", "it is not understood"
            self.at = word.end()
            return None
        return self._behind_word(word)

    def _unless_value(self, at: int) -> Finding:
        """Return that a value stands, unless another one follows."""
        at = self._next(at)
        begins_value = self._char(at) in _VALUE_BEGINS
        if begins_value and self._is_other_value(at):
            return "unclear", "another value is named"
        return _STANDS

    def _is_other_value(self, at: int) -> bool:
        """Return whether a value follows that is no check of the first: `6*7 = 42`."""
        end = formula_end(self._text, at, self._limit)
        if end == at or self._match(_RULED_OUT, end):
            return False
        formula = self._text[at:end]
        if "=" not in formula or _VARIABLE_FIRST.match(formula):
            return True
        value = self._text[: self._start].rstrip(_EDGES)
        first, *_, last = formula.split("=")
        return not value.endswith((first.strip(_EDGES), last.strip(_EDGES)))

    def _names_alternative(self, at: int) -> bool:
        maybe = self._match(_MAYBE, at)
        return maybe is not None and not self._match(_RESTATED, maybe.end())

    def _behind_comma(self, at: int) -> Finding:
        if self._names_alternative(at):
            return "unclear", "an alternative is named"
        word = self._match(_WORD, self._next(at))
        if word and word[0].lower() in _BEHIND_COMMAS:
            return self._behind_word(word) or _STANDS
        if self._match(_GUESSED, at):
            return "unclear", "it is somebody's guess"
        if self._match(_GOES_ON, at):
            return "unclear", "the value goes on"
        return self._unless_value(at)

    def _behind_dash(self, mark: str) -> Finding:
        at = self._next(self.at + 1)
        is_joined = mark == "-" and at == self.at + 1
        if is_joined and self._char(at).isalpha():
            return "unclear", "it is part of a word"  # 9-digit
        if mark == "-" and self._char(at) in (">", "-"):
            at = self._next(at + 1)
        if self._names_alternative(at):
            return "unclear", "an alternative is named"
        return self._unless_value(at)

    def _behind_bracket(self, mark: str) -> Finding | None:
        closing = ")" if mark == "(" else "]"
        end = self._note_end(mark, closing)
        if end < 0:
            return _STANDS
        note = self._text[self.at + 1 : end]
        other = _OTHER_FORM.match(note)
        if other and formula_end(note, other.end(), len(note)) == len(note):
            self.other_form = note[other.end() :]
            self.at = end + 1
            self._has_note = True
            return None
        if _NOTE.match(note) and not _HARMLESS_NOTE.match(note):
            return "unclear", "the note behind it is not understood"
        self.at = end + 1
        self._has_note = True
        return None

    def _note_end(self, opening: str, closing: str) -> int:
        """Return where the bracket that opens here is closed; -1 if nowhere near."""
        limit = min(self._limit, self.at + _MAX_NOTE_CHARS)
        depth = 0
        for at in range(self.at, limit):
            if self._text[at] == opening:
                depth += 1
            elif self._text[at] == closing:
                depth -= 1
                if depth == 0:
                    return at
        return -1

    def _behind_equals(self) -> Finding:
        at = skip(_EQUALS, self._text, self.at, self._limit)
        is_over = self._char(at) in ("", ".", "\n", "<")
        if is_over or self._match(_WORD, at):
            return _STANDS
        return "unclear", "it is not understood"

    def _behind_word(self, word: re.Match[str]) -> Finding | None:
        name = word[0].lower()
        at = word.end()
        if name in _RANGES and self.unit.rpartition(" ")[2].lower() in _COUNTED:
            return _STANDS
        if name in _ALTERING:
            return "unclear", f"{word[0]!r} changes it"
        if name in _WRONG:
            return "unclear", "it is taken back"
        if name in ("not", "never"):
            is_over = self._match(_CLAUSE_OVER, at)
            return ("unclear", "it is denied") if is_over else _STANDS
        if name == "no":
            is_sure = self._match(_SURE, at)
            return _STANDS if is_sure else ("unclear", "it is not understood")
        if name == "and":
            return self._behind_and(at)
        if name == "or":
            is_same = self._match(_RESTATED, at)
            return _STANDS if is_same else ("unclear", "an alternative is named")
        if name in _CONTRASTS:
            return self._behind_contrast(at)
        if name in _VERBS:
            is_answer = name in ("is", "are") and self._match(_IS_ANSWER, at)
            return _STANDS if is_answer else ("nothing", "it is a subject")
        if name == "out" and self._text.startswith(" of", at):
            return self._behind_reason("of", at + len(" of"))
        if name in _REASONS:
            return self._behind_reason(name, at)
        return self._behind_noun(word)

    def _behind_and(self, at: int) -> Finding | None:
        further = self._match(_FURTHER_UNIT, self._next(at)) if self.unit else None
        if further and not self._text[self._unit_end : at - len("and")].strip():
            self.at = self._unit_end = further.end()
            return None
        if self._match(_ADDED, at):
            return "unclear", "something is added"
        if self._is_other_value(self._next(at)):
            return "unclear", "another value is named"
        return _STANDS

    def _behind_contrast(self, at: int) -> Finding:
        other_end = formula_end(self._text, self._next(at), self._limit)
        if self._match(_RULED_OUT, other_end):
            return _STANDS
        clause = self._text[at : sentence_end(self._text, at, self._limit)]
        if _DIGIT_IN_CLAUSE.search(clause):
            return "unclear", "another value is named"
        if _OBJECTION.search(clause):
            return "unclear", "something speaks against it"
        return _STANDS

    def _behind_reason(self, name: str, at: int) -> Finding:
        if name == "at" and self._match(_BOUND, at):
            return "unclear", "it is a bound"
        if name == "as" and self._match(_TOGETHER, at):
            return "unclear", "another value is named"
        if name == "of" and self._match(_WHICH, at):
            return "unclear", "only a part is meant"
        if name == "with" and self._match(_REMAINDER, at):
            return "unclear", "it has a remainder"
        if name in ("unless", "provided"):
            return "unclear", "it holds on a condition"
        if name == "from" and self._num_words and self._match(_QUANTITY, at):
            return "unclear", "the number behind it changes it"  # 2 steps from 5
        if name in ("in", "of") and self.unit and self._match(_EACH, at):
            return _STANDS
        is_quantity = name in _QUANTIFIED and self._match(_QUANTITY, at)
        if is_quantity and not self._match(_PRECISION, at):
            return "unclear", "the number behind it changes it"
        if name in _CASES:
            end = sentence_end(self._text, at, self._limit)
            if _OTHER_CASE.search(self._text, at, end):
                return "unclear", "it holds in one case of several"
        return _STANDS

    def _behind_noun(self, word: re.Match[str]) -> Finding | None:
        ordinal_at = max(0, self._start - _ORDINAL_CHARS)
        if _ORDINAL.search(self._text, ordinal_at, self._start):
            return "unclear", "it numbers something"  # the 5th term
        self._num_words += 1
        if self._num_words > _MAX_WORDS:
            return _STANDS
        is_first = self._unit_end == self._start
        between = self._text[self._unit_end : word.start()]
        is_next = not self._has_note and not between.strip(" *_$)}\\")
        if is_next and self._num_words <= _MAX_UNIT_WORDS:
            if is_first:
                self._unit_start = word.start()
            self._unit_end = word.end()
        self.at = word.end()
        return None
