"""What a sentence states as its answer.

It is the value that stands at once behind "the answer is", up to the end of its clause,
or the one value that the main clause leads to: "so there are 42 apples". What the
sentence says besides – a reason, a comparison, a reference – does not count. A sentence
that denies, changes or doubts its value, or that is not understood, states none. All of
it is linear in the text.
"""

import re
from itertools import islice, zip_longest
from typing import NamedTuple

from aipo_env.verifiers.reading.clause import CLOSING, SaidKind, Tail
from aipo_env.verifiers.reading.dates import DATES
from aipo_env.verifiers.reading.prose import fence_end, formula_end, is_prose
from aipo_env.verifiers.reading.words import (
    SENTENCE_END,
    sentence_end,
    skip,
    vocabulary,
)

_MAX_STATEMENT_CHARS = 2000
"""Only this much behind "the answer is" is read."""
_MAX_CLAUSE_CHARS = 400
"""Only this much of a sentence that does not begin with its value."""
_MAX_BEFORE_CHARS = 20
"""Only this much of what stands before a value in its clause."""
_MAX_FILLERS = 6
_MAX_ENTRIES = 16
"""So many lines below a heading may each be an entry of the answer."""
_MAX_ANSWER_WORDS = 6
"""An answer of more words is a sentence that was not understood."""


class Said(NamedTuple):
    """What a sentence says of the answer.

    Args:
        kind: It gives a value, denies one, is not understood, or says nothing of it.
        value: The value that it gives or denies.
        end: Where in the text its clause ends.
        reason: Why it gives none.
        is_direct: Its value stands where it is looked for, without other words before.
        value_end: Where in the text its value ends; 0 where that is not known.
    """

    kind: SaidKind
    value: str
    end: int
    reason: str = ""
    is_direct: bool = False
    value_end: int = 0


# Patterns of a value that stands where it is looked for

_OPENING = re.compile(
    r"""
      [\s*_"“”'\u2018’«`|:=→⇒\uff1a}]
    | (?<=\n)> | (?<=\n\ )>          # a quotation of Markdown's
    | \#(?=\#|\s)
    | -(?=-|>) | (?<=\n)-(?=\ )      # a dash, an entry of a list; no minus
    | \\(?:quad|[;,:\ ])
    """,
    re.VERBOSE,
)
"""What may stand before a value and is none of it."""
_RULE = re.compile(r"\n[-=*_]{3,80}(?=\n)")
"""A line below a heading: `------`."""
_FILLER = re.compile(
    r"""
    (?:
      (?: exactly | precisely | simply | just | only | indeed | therefore | thus | then
        | hence | so | now | still | again | also | clearly | obviously | evidently
        | definitely | certainly | surely | actually | really | truly | finally | always
        | probably | likely | perhaps | maybe | possibly | naturally | of[ ]course
        | in[ ]fact | as[ ]follows | follows | given[ ]by | found[ ]to[ ]be | known
        | equal[ ]to | equals? | is | are | be | was | to[ ]be | as | namely | that
        | a[ ]total[ ]of | in[ ]total | it | we[ ]get | we[ ]have | there[ ]are
        | there[ ]is
        | (?: the | a | an | this )
          (?: [ ](?: final | exact | correct | single | ordered | whole | simple
                   | unique | positive | natural | real | mixed | simplified | reduced
                   | prime | square | rational | two-digit | three-digit ) ){0,2}
          [ ](?: number | value | integer | fraction | ratio | sum | product | result
               | quantity | expression | point | pair | triple | tuple | interval | set
               | equation | function | formula | matrix | vector | total | decimal
               | polynomial | percentage | amount | constant | answer | range | solution
               | union | count | prime | variable | line | probability | area | length )
          s? (?: [ ]of | [ ]is | [ ]: )?
        | the | an? (?=[ ][0-9$\\])
      )
      (?![A-Za-z'’])
    | [,:]
    )
    [\s*_"“”'\u2018’:=]{1,9}
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Words before a value that do not change it."""
_DENIAL = re.compile(
    r"""
    (?: not | never | neither | nor | no[ ]longer | cannot[ ]be | can't[ ]be
      | anything[ ](?: but | except | other[ ]than ) | other[ ]than | except
      | unequal[ ]to | different[ ]from | far[ ]from | nowhere[ ]near | n['’]t | unlike
      | (?: definitely | clearly | certainly | obviously | surely )[ ]not | hardly
      | \\neq? (?![a-z]) | ≠ | != | 不是 | 并非 | 並非 )
    [\s*_"“'\u2018]*
    (?: (?: be | equal[ ]to | the | an? | in[ ]fact | really | actually | simply
          | just | quite ) (?![a-z]) [\s*_"“'\u2018]* ){0,3}
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What before a value says that it is not the answer."""
_INSTEAD = re.compile(
    r"""
    [\s*_"”'’)$.]* [,;:–—-]? \s*
    (?: but | rather | instead
      | (?: but[ ] )? (?: it | that | this ) (?: ['’]s | [ ]is ) )
    (?: [ ](?: rather | instead | actually | really | it['’]s | it[ ]is | is ) ){0,2}
    [\s*_"“'\u2018,:]+
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What leads from a value that is denied to the right one: `not 41 but 42`."""
_BOUND = re.compile(
    r"""
    (?: more | less | greater | fewer | larger | smaller | bigger | higher | lower
      | at[ ]least | at[ ]most | over | under | above | below | between | beyond
      | up[ ]to | no[ ](?: more | less | fewer ) | almost | nearly | half | twice
      | double | triple | thrice | within | outside | any | some | every | each | one
      | two | three | square | cube | minimum | maximum | close | near | divisible
      | congruent | slightly | just[ ](?: under | over | below | above | about ) )
    (?![A-Za-z])
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What before a value makes it another: `more than 42`, `half of 42`."""
_ROUGHLY = re.compile(
    r"(?:about|approximately|approx\.?|around|roughly|circa|≈|\\approx|~)"
    r"(?![A-Za-z])[\s*_:]*",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"""
      [<\[{(] [^\]\[<>{}()\n]{0,30}
      \b (?: your | insert | answer | here | value | number | letter ) \b
      [^\]\[<>{}()\n]{0,30} [>\]})]
    | (?: \.{3,9} | _{3,40} | \?{1,9} ) (?= [ ]{0,3} (?: \n | \Z ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What a template has in the place of an answer: `[your answer here]`."""
_OPTION = re.compile(r"(?:\([A-J]\)|[A-J]\))[ ]?[:.]?[ ](?=[-−$\\(]{0,3}[0-9])")
"""The letter of an option before its value: `(B) 12`."""
_PART_LABEL = re.compile(r"\((?P<name>[a-h]|i{1,3}|iv)\)[ ]?(?=[-−$\\(0-9A-Za-z])")
"""What begins the answer to a part of a problem: `(a) 3`."""
_BETWEEN_PARTS = re.compile(r"[$ ]{0,2}(?:[,;.]|\.?\n)?[ ]?(?:and[ ])?")
_MINUS = re.compile(r"(?:negative|minus) +(?=[0-9$\\.])", re.IGNORECASE)
_DECIMALS = re.compile(r"[0-9]?\.[0-9]")
_ORDINAL = re.compile(r"[0-9](?:st|nd|rd|th)\Z")
_CLOCK = re.compile(r" ?(?:[ap]\.? ?m\.?(?![A-Za-z])|o['’]clock)", re.IGNORECASE)
"""What makes a number a time of day."""
_HOURS = re.compile(r"[0-9]{1,2}(?::[0-9]{2}){0,2}")
_SUFFIX = re.compile(
    r"""
      [ ]? (?: percent (?:age[ ]points)? | pct | per[ ]cent ) (?![a-z])
    | [ ] (?: hundred | thousand | lakhs? | million | crores? | billion | trillion )
      (?![A-Za-z-])
    | [ ] \(? (?: in[ ] )? base[- ] (?: [0-9]{1,2} | two | three | five | eight | ten
      | sixteen ) \)? (?![A-Za-z0-9])
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Words behind a value that are part of it, and which are understood."""
_UNIT_LETTER = re.compile(
    r"(?:(?<=[0-9]) ?|(?<=[$}]) )(?P<unit>(?:[mghsLVWJK]|km|cm|mm|kg)(?:/(?:s|h|min))?)"
    r"(?P<power>\^?[23]|[²³])?\Z"
)
_POWERS = {"²": "2", "³": "3"}

# Patterns of a value that the rest of a sentence leads to

_CONCLUSION = re.compile(
    r"""
    (?: ^ | [,;:.]? \s )
    (?: so (?![ ]that) | thus | hence | therefore | then | giving | in[ ]total
      | altogether | consequently )
    [,:]? \s
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SUBORDINATE = re.compile(
    r"""
      ,? \s (?: because | since | which | whereas | while | not | rather | instead
              | given | if | when | unless | where | than | unlike
              | as[ ](?: we | it | the | a | this | there | can | shown | required ) )
      (?![a-z])
    | \s \( (?= [^()]{0,200} [A-Za-z]{2} ) (?! [^()]{0,60} \) \s? (?: is | = ) )
    | ;
    | \s [–—] \s
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Where the main clause of a sentence ends."""
_BUT_IT_IS = re.compile(
    r"(?P<but>,? but )(?:in fact |actually |really )?"
    r"(?:it|that|this|the (?:answer|value|result|number|total)) (?:is|equals) ",
    re.IGNORECASE,
)
"""What leads from what was thought to what is: `I thought 15, but it is 18`."""
_LEADING = re.compile(
    r"""
    \s* (?: since | because | as | if | when | for | with | given | after | where | by
          | from | in | assuming | using | let )
    [ ] [^,]{0,200} , \s
  | \s* (?: after | in | within | for | on | by | at | every ) [ ] [$]? [0-9.]{1,9} [$]?
    [ ] [a-z]{1,20} [ ] (?= (?: the | she | he | it | they | we | there | you ) [ ] )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What goes before the main clause: `Since 6*7 = 42, `."""
_LINK = re.compile(
    r"""
      \b (?: is | are | was | were | equals? | be | becomes? | gives? | yields? | gets?
           | got | obtains? | find | found | have | has | totals? | makes? | leaves?
           | holds? | with[ ](?: an? [ ] )? probability (?:[ ]of)?
           | leaving | contains? | needs? | costs? | it['’]s | that['’]s )
      (?![A-Za-z'’])
    | =
    | : (?=\s)
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What leads to a value."""
_PUT_IN = re.compile(
    r"""
    \b (?: for | with | when | where | at | if | since | as | because | given | let
         | and | substituting | put | setting | using | take | taking | by )
    [ ] \$? \\? [A-Za-z] (?: _\w )? \$? [ ]? \Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What before `=` shows that a variable is given a value: `for n = 5`."""
_EQUATED = re.compile(
    r"""
    (?: ^ | [\s$(,] )
    (?: \\?[A-Za-z] (?: _\{?\w{1,9}\}? )?
      | [A-Z]{2,3}
      | [a-zA-Z] \([a-zA-Z0-9]{1,3}\)
      | [A-Za-z]{3,20}
      | [0-9] [0-9 .+*/^()×·-]{0,80} )
    [\s$]{0,2} \Z
    """,
    re.VERBOSE,
)
"""What before `=` is given a value by it, rather than in an equation: `x`, `6*7`."""
_DOUBT = re.compile(
    r"""
      \b(?: not | no | never | neither | nor | cannot | without | wrong | incorrect
        | except | unlike | more | less | least | most | between | greater | fewer
        | half | twice | double | triple | times | million | billion | thousand
        | hundred | dozen | squared | cubed | almost | nearly | percent | either | if
        | or | divisible | congruent | coprime | exceeds? | exceeding | bounded | larger
        | smaller | bigger | higher | lower | longer | shorter | older | younger
        | further | additional | extra | another | first | next | previous | every
        | each | per | within | outside | up[ ]to | over | under | above | below
        | beyond | near | about | around | close | roots? | square | cube | inverse
        | reciprocal | negative | minus | plus | multiples? | factors? | divisors?
        | powers? | logarithm | unless | some | any | other | guess(?:es|ed)? | say
        | says | said | maybe | perhaps | suppose | assum\w+ | example | such | like
        | including | instance | multiplied | divided | digits? | e\.g )\b
    | n['’]t\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What in a clause may make its only number another, or no answer."""
_PER_EACH = re.compile(
    r"(?<=[a-z*$]) (?:per|in each|in every|for each|for every) [a-z]{1,20}\b",
    re.IGNORECASE,
)
"""What behind a value and its noun says of what: `96 loaves per week`."""
_HEARSAY = re.compile(
    r"(?<!as )\b(?:supposed|said|thought|believed|claimed|alleged|rumou?red|reported"
    r"|assumed|impossible|unlikely|hoped|guessed)\b"
    r"|(?<!\b[iI])(?<!\b[wW]e) (?:say|claim|think|believe|argue|guesse)s?\b",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"(?:if|suppose|assum(?:e|ing)|unless|imagine|provided)\b", re.IGNORECASE
)
_IN_WORDS = re.compile(
    r"""
    (?: (?: minus | negative | zero | one | two | three | four | five | six | seven
          | eight | nine | ten | eleven | twelve | \w{3,5}teen | twenty | thirty | forty
          | fifty | sixty | seventy | eighty | ninety | hundred | thousand | million
          | and | a | dozen | half | halves
          | thirds? | quarters? | \w{3,8}ths? | over | point )
        [ -] ){1,12}
    \( (?= [^()]{1,40} \) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A number in words before the same in digits: `forty-two (42)`."""
_NO_IDEA = re.compile(
    r"(?:i have )?no idea|(?:i am |i'm )?(?:not sure|unsure)|idk|n/a|tbd"
    r"|i (?:do not|don['’]t) know|no clue|(?:i )?give up",
    re.IGNORECASE,
)
_REASON = re.compile(r",?\s(?:because|since)(?![a-z])", re.IGNORECASE)
_CODE = re.compile(
    r"(?<!\\)\b(?!(?:arc)?(?:sin|cos|tan|log|ln|sqrt|exp)\b)[A-Za-z_]{3,}\("
)
"""What shows that a text is a program: `eval(`."""
_REFERENCE = re.compile(
    r"""
    \b (?: equations? | eqs? | steps? | parts? | cases? | problems? | questions?
         | examples? | theorems? | lemmas? | figures? | lines? | sections? | chapters?
         | pages? | items? | exercises? | formulas? | options? | propositions?
         | claims? | versions? | methods? | attempts? | number(?=[ ][0-9]) )
    [. ]{0,2} [(\[]? \Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What before a number makes it a reference: `equation 3`."""
_PART = re.compile(
    r"""
    (?: (?<!total)(?<!value)(?<!answer)(?<!number)(?<!result)(?<!sum) [ ]of
      | \b(?: with | having | has | than | aged | containing | no\. | number ) )
    [ ] \$? \Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What before a value makes it part of another thing: `the square of`, `with`."""
_VALUE_BEGINS = re.compile(r"(?<![\w.^_{\\])(?=[-−]?[0-9.$√π]|[-−]?\\)")
_WORDS = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_EDGES = " *_\"'“”\u2018’`.!"
_NO_ANSWERS = vocabulary("no answers")
"""Words of sentences, which no answer in words has."""
_WORDS_END = re.compile(
    r"[,;:]|\s[-–—(]"
    r"|\s(?:because|since|as|for|by|when|if|which|where|due|so)(?![a-z])",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\$|\\[(\[]")
_POLITE_END = re.compile(r"\s*I hope (?:it|this) (?:is correct|helps)\W{0,3}\Z")
_QUESTION_MARKS = ("?", "\uff1f")


def read_statement(
    text: str, start: int, end: int, *, is_sentence: bool = True
) -> Said:
    """Return what is stated from a place on.

    Args:
        start: What follows "the answer is", or the beginning of a sentence.
        end: What stands there and behind is not read.
        is_sentence: It is a sentence of its own, as behind a colon, and no part of one,
            as behind "the answer is".
    """
    limit = min(end, start + _MAX_STATEMENT_CHARS)
    rule = _RULE.match(text, start, limit)
    at = skip(_OPENING, text, rule.end() if rule else start, limit)
    said = _direct(text, at, limit)
    if said is None or said.kind == "nothing":
        said = _derived(text, at, limit, is_sentence)
    if said.kind == "value" and said.is_direct:
        return _with_next_lines(text, said, limit)
    return said


def read_value(text: str) -> Said:
    """Return the value of a short text by itself, such as what stands in a tag."""
    return read_statement(text, 0, len(text))


def read_whole_line(text: str, start: int, end: int) -> Said:
    """Return the value that a line consists of; "nothing" if it is more than that."""
    limit = min(end, start + _MAX_STATEMENT_CHARS)
    at = skip(_OPENING, text, start, limit)
    said = _direct(text, at, limit)
    if said is None or said.kind != "value" or not said.is_direct:
        return Said("nothing", "", at)
    line_end = text.find("\n", said.end, limit)
    rest = text[said.end : line_end if line_end >= 0 else limit]
    if skip(CLOSING, rest, 0, len(rest)) < len(rest.rstrip(" .!")):
        return Said("nothing", "", at)
    return said


def read_end(text: str) -> Said:
    """Return what the last sentence of a text says, marked by nothing."""
    text = _POLITE_END.sub("", text).rstrip()
    if text.rstrip(" *_$\"'").endswith(_QUESTION_MARKS):
        return Said("nothing", "", len(text), "it is asked")
    start = text.rfind("\n") + 1
    # The last line may be the end of a formula that is set apart.
    for opening, closing in (("\\[", "\\]"), ("$$", "$$")):
        if text.endswith(closing):
            formula_at = text.rfind(opening, 0, len(text) - len(closing))
            start = min(start, formula_at) if formula_at >= 0 else start
    for end in SENTENCE_END.finditer(text, start):
        if text[end.end() :].strip():
            start = end.end()
    return read_statement(text, max(start, len(text) - _MAX_CLAUSE_CHARS), len(text))


def is_bare(text: str) -> bool:
    """Return whether a text is formulas without prose around them."""
    at = 0
    bare: list[str] = []
    for fence in _FENCE.finditer(text):
        if fence.start() < at:
            continue
        bare.append(text[at : fence.start()])
        at = max(fence_end(text, fence.start(), len(text)), fence.start() + 1)
    bare.append(text[at:])
    return not is_prose(" ".join(bare))


# A value that stands where it is looked for


def _direct(text: str, at: int, limit: int) -> Said | None:
    """Return what is said by a value that begins here; None where none does."""
    at, is_rough = _skip_fillers(text, at, limit)
    if _PLACEHOLDER.match(text, at, limit):
        return Said("unclear", "", at, "it is a placeholder")
    option = _OPTION.match(text, at, limit)
    if option:
        at = option.end()
    elif _PART_LABEL.match(text, at, limit):
        return _parts(text, at, limit)
    denial = _DENIAL.match(text, at, limit)
    if denial:
        return _denied(text, denial.end(), limit)
    if _BOUND.match(text, at, limit):
        return None
    minus = _MINUS.match(text, at, limit)
    start = minus.end() if minus else at
    dates = (pattern.match(text, at, limit) for pattern in DATES)
    date = next(filter(None, dates), None)
    if date:
        return _with_tail(text, at, date.end(), limit)
    end = formula_end(text, start, limit)
    if end == start:
        return None
    value = text[start:end]
    if _ORDINAL.search(value) and text[max(0, start - 2) : start] == "a ":
        return Said("unclear", value, end, "it is a part")  # a 20th
    if is_rough and not _DECIMALS.search(value):
        return Said("unclear", value, end, "the value is said to be near only")
    said = _with_tail(text, start, end, limit)
    return said._replace(value=f"-{said.value}") if minus else said


def _parts(text: str, at: int, limit: int) -> Said:
    """Return what is said by "(a) 3 and (b) 4": the tuple (3, 4)."""
    labels = [*islice(_PART_LABEL.finditer(text, at, limit), _MAX_ENTRIES)]
    values: list[str] = []
    end = at
    for label, following in zip_longest(labels, labels[1:]):
        between = _BETWEEN_PARTS.match(text, end, limit)
        is_next = not values or (between and between.end() == label.start())
        if not is_next:
            break
        value_limit = following.start() if following else limit
        end = formula_end(text, label.end(), value_limit)
        if end == label.end():
            return Said("unclear", "", end, "it is not understood")
        values.append(_unfenced(text[label.end() : end]))
    rest = Tail(text, end, limit)
    kind, reason = rest.read()
    # In brackets, for their order says which is which.
    value = f"({', '.join(values)})" if len(values) > 1 else values[0]
    return Said(kind, value, rest.at, reason, True, end)


def _skip_fillers(text: str, at: int, limit: int) -> tuple[int, bool]:
    """Return what follows words of no consequence, and whether they say "about"."""
    is_rough = False
    for _ in range(_MAX_FILLERS):
        rough = _ROUGHLY.match(text, at, limit)
        filler = _FILLER.match(text, at, limit)
        if rough:
            is_rough = True
            at = rough.end()
        elif filler and formula_end(text, at, limit) <= filler.end():
            at = filler.end()
        else:
            break
    return at, is_rough


def _denied(text: str, at: int, limit: int) -> Said:
    """Return what is said by "not 41", or by "not 41 but 42"."""
    end = formula_end(text, at, limit)
    value = text[at:end]
    if not value:  # not even
        end = sentence_end(text, at, limit)
        return Said("denied", text[at:end].strip(), end, "it is denied")
    instead = _INSTEAD.match(text, end, limit)
    if instead is None:
        return Said("denied", value, end, "it is denied")
    said = _direct(text, instead.end(), limit)
    if said and said.kind == "value":
        return said
    return Said("unclear", value, end, "it is not understood")


def _with_tail(text: str, start: int, end: int, limit: int) -> Said:
    """Return what a value says by what stands behind it in its clause."""
    value = text[start:end]
    clock = _CLOCK.match(text, end, limit)
    if clock and _HOURS.fullmatch(value):
        time = text[start : clock.end()].rstrip(".")
        return Said("value", time, clock.end(), "", True, clock.end())
    suffix = _SUFFIX.match(text, end, limit)
    if suffix:
        end = suffix.end()
        value = text[start:end]
    tail = Tail(text, end, limit)
    kind, reason = tail.read()
    if kind != "value":
        return Said(kind, value, tail.at, reason, True, end)
    if tail.unit:
        value = f"{value} {tail.unit}"
    else:
        value = _UNIT_LETTER.sub(_as_unit, _unfenced(value))
    if any(map(str.isdigit, tail.unit)):
        end = tail.unit_end  # 2 hours and 24 minutes
    if tail.other_form:
        # Whether it is the same value is for the grader to say.
        value = f"{value} or {tail.other_form}"
        end = tail.at
    return Said("value", value, tail.at, "", True, end)


def _as_unit(unit: re.Match[str]) -> str:
    """Return a unit of one letter in LaTeX's text, where it is no variable."""
    power = (unit["power"] or "").lstrip("^")
    power = _POWERS.get(power, power)
    return rf"\text{{ {unit['unit']}}}" + (f"^{power}" if power else "")


def _unfenced(value: str) -> str:
    """Return what stands in a formula's dollar signs, if they hold all of a value."""
    if value[:1] not in ("$", "\\") or fence_end(value, 0, len(value)) < len(value):
        return value
    size = 2 if value.startswith(("$$", "\\")) else 1
    return value[size:-size].strip()


def _with_next_lines(text: str, said: Said, limit: int) -> Said:
    """Add the values of the lines below: `x = 3`, then `y = 5`."""
    entries = [said.value]
    end = said.end
    while len(entries) < _MAX_ENTRIES and text[end : end + 1] == "\n":
        at = skip(_OPENING, text, end, limit)
        entry = _direct(text, at, limit)
        if entry is None or entry.kind != "value":
            break
        line_end = text.find("\n", at, limit)
        is_whole = entry.end >= (limit if line_end < 0 else line_end)
        is_alike = ("=" in entry.value) == ("=" in said.value)
        if not is_whole or not is_alike:
            break
        entries.append(entry.value)
        end = entry.end
    if len(entries) == 1:
        return said
    return said._replace(value=", ".join(entries), end=end, value_end=end)


# A value that the rest of a sentence leads to


def _derived(text: str, at: int, limit: int, is_sentence: bool) -> Said:
    """Return what a sentence says in which the value does not stand first."""
    end = sentence_end(text, at, limit)
    sentence = text[at:end]
    if len(sentence) > _MAX_CLAUSE_CHARS:
        return Said("unclear", sentence[:_MAX_CLAUSE_CHARS], end, "it is too long")
    if text.startswith(_QUESTION_MARKS, end):
        return Said("nothing", "", end, "it is asked")
    reason = _REASON.search(sentence)
    stated = sentence[: reason.start()] if reason else sentence
    if not _VALUE_BEGINS.search(stated):
        return _in_words(sentence, end)
    number = _IN_WORDS.match(sentence)
    if number:
        said = _direct(text, at + number.end(), end)
        if said and said.kind == "value":
            return said
    said = _of_clauses(sentence, is_sentence)
    if said.kind == "value":
        return Said("value", said.value, end)
    return Said(said.kind, sentence, end, said.reason)


def _of_clauses(sentence: str, is_sentence: bool) -> Said:
    if _SUPPOSED.match(sentence):
        return Said("unclear", "", 0, "it holds on a condition")
    main = _main_clause(sentence)
    if _HEARSAY.search(main):
        return Said("unclear", "", 0, "it is said by others")
    said = _linked(main)
    if said is None and is_sentence:
        said = _alone(main)
    return said or Said("unclear", "", 0, "it is not understood")


def _main_clause(sentence: str) -> str:
    """Return the clause of a sentence that says what follows."""
    objection = _BUT_IT_IS.search(sentence)
    if objection and _VALUE_BEGINS.search(sentence, objection.end()):
        sentence = sentence[objection.end("but") :]
    for conclusion in reversed(list(_CONCLUSION.finditer(sentence))):
        if _VALUE_BEGINS.search(sentence, conclusion.end()):
            sentence = sentence[conclusion.end() :]
            break
    leading = _LEADING.match(sentence)
    if leading and _VALUE_BEGINS.search(sentence, leading.end()):
        sentence = sentence[leading.end() :]
    subordinate = _SUBORDINATE.search(sentence, 1)
    return sentence[: subordinate.start()] if subordinate else sentence


def _linked(clause: str) -> Said | None:
    """Return what "is", "=" and their like lead to; None if they lead to no value."""
    found: list[Said] = []
    read_to = 0
    for link in _LINK.finditer(clause):
        before = clause[: link.start()]
        if link.start() < read_to or (link[0] in "=:" and _PUT_IN.search(before)):
            continue
        at = skip(_OPENING, clause, link.end(), len(clause))
        said = _direct(clause, at, len(clause))
        if said is None or said.kind == "nothing":
            continue
        if link[0] == "=" and not _EQUATED.search(before):
            said = said._replace(kind="unclear")
        found.append(said)
        read_to = said.value_end or said.end
    if not found:
        return None
    values = {said.value.strip() for said in found}
    if len(values) > 1 or any(said.kind != "value" for said in found):
        return Said("unclear", "", 0, "several values are named")
    return found[-1]


def _alone(clause: str) -> Said:
    """Return the only value of a clause, if there is but one."""
    if _DOUBT.search(_PER_EACH.sub(" ", clause)) or _CODE.search(clause):
        return Said("unclear", "", 0, "it is not understood")
    found: list[str] = []
    read_to = 0
    for place in _VALUE_BEGINS.finditer(clause):
        start = place.start()
        end = formula_end(clause, start, len(clause))
        if start < read_to or end == start:
            continue
        before_at = max(0, start - _MAX_BEFORE_CHARS)
        if _REFERENCE.search(clause, before_at, start):
            continue
        if _PART.search(clause, before_at, start):
            return Said("unclear", "", 0, "it is not understood")
        said = _with_tail(clause, start, end, len(clause))
        if said.kind != "value":
            return said._replace(kind="unclear")
        read_to = said.value_end
        found.append(said.value)
    if len(found) != 1:
        return Said("unclear", "", 0, "several values are named")
    return Said("value", found[0], 0)


def _in_words(sentence: str, end: int) -> Said:
    """Return what a sentence without any number or formula says: `even`, `Evelyn`."""
    cut = _WORDS_END.search(sentence)
    clause = (sentence[: cut.start()] if cut else sentence).strip(_EDGES)
    filler = _FILLER.match(f"{clause} ")
    if filler and filler.end() < len(clause):
        clause = clause[filler.end() :].strip(_EDGES)
    if _NO_IDEA.fullmatch(clause):
        return Said("unclear", clause, end, "it names no value")
    words = {word.lower() for word in _WORDS.findall(clause)}
    is_name = 0 < len(words) <= _MAX_ANSWER_WORDS and words.isdisjoint(_NO_ANSWERS)
    if not is_name:
        return Said("nothing", sentence, end, "it names no value")
    return Said("value", clause, end, "", True)
