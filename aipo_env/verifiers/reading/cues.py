"""Words that state an answer: "the answer is", headings, `#### 42`, "42 is the answer".

They are the author's own words for the final answer, or nothing: not those of a case
that is supposed, of somebody else, of another question, or of a question.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from aipo_env.verifiers.reading.clause import SaidKind
from aipo_env.verifiers.reading.sentence import (
    Said,
    read_end,
    read_statement,
    read_value,
    read_whole_line,
)
from aipo_env.verifiers.reading.words import sentence_end, skip, vocabulary

MAX_CUES = 16
"""So many of the last statements of a text are read."""
_MAX_BEFORE_CHARS = 80
"""Only this much of what stands before a cue is read."""
_MAX_SENTENCE_CHARS = 160
"""Only this much of what stands before "is the answer"."""
_MAX_REPORT_CHARS = 20
"""Only this much before a clause is searched for whoever it quotes."""


MarkKind = Literal["box", "tag", "line"]


class Mark(NamedTuple):
    """A place that may hold the answer.

    Args:
        start: Where in the text it begins.
        said: What it says.
        kind: A box, an answer tag, or words.
        is_final: It is called the final answer.
        is_case: It holds if something else does.
    """

    start: int
    said: Said
    kind: MarkKind = "line"
    is_final: bool = False
    is_case: bool = False


_ANSWER = re.compile(
    r"""
      (?<![A-Za-z_<\\/-]) (?: answers? | ans ) (?![A-Za-z_>-])
    | (?<=["']) final[ _-]?answer (?=["'][ ]?:)      # a field of JSON
    | (?<![A-Za-z_-]) final_answer (?=:)             # and of YAML
    | (?<=\bthe[ ]) (?: required | desired | requested | sought | final )
      [ ](?: value | number | quantity | result | sum | ratio | probability | area
        | count | product | length | amount | total ) (?= [ ](?: is | equals | = ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ABOUT = r"""
    (?: [ ]?\([^()\n]{0,40}\) )?                             # (a), (in cm)
    (?: [ ]? [0-9]{1,2} (?=[ ]?[:=]) )?                      # Answer 3:
    (?: [ ](?: to | for | of | in | here | given | we | you | that | this | then
          | therefore | thus | by | on | from | should | i )
        \b (?: [^\n:=.?!"“] | "[^"\n]{0,80}" | “[^”\n]{0,80}” ){0,100}?
    | ,[ ][a-z] [^\n:=.?!"“]{0,60}? (?=,) )?               # , after rounding,
"""
"""What may stand between "answer" and its verb: `to the question`."""
_ADVERB = r"""
    [ ] (?: (?: therefore | thus | then | hence | now | simply | actually ) [ ] )?
"""
_LEAD = re.compile(
    rf"""
    {_ABOUT}
    (?: \) (?=[*_ ]{{0,4}}[:=]) )?                         # x (final answer): 5
    [*_"'’”]{{0,4}} ,?
    (?:
      [ ]? (?: : | = | ≈ | → | \uff1a | \|[ ] | -{{1,2}}> | [–—-](?=[ \n]) )
      (?: [ ]is\b )?
    | {_ADVERB} (?P<hedge> (?: could | may | might | may[ ]well )[ ]be )
    | {_ADVERB}
      (?: (?: is | are | was | equals? | must[ ]be | should[ ]be | will[ ]be
          | would[ ]be | has[ ]to[ ]be | can[ ]only[ ]be | becomes
          | (?: comes | came ) (?: [ ]out )? [ ](?: to[ ]be | to | as )
          | turns[ ]out[ ](?: to[ ]be | as ) | turned[ ]out[ ]to[ ]be
          | (?: stands | remains | holds ) (?= [ ]?[:=] | [ ][-$\\(]{{0,3}}[0-9] ) [:=]?
          | works[ ]out[ ](?: to[ ]be | to | as | at )
          ) (?![A-Za-z])
        | (?P<denial>
            (?= \w{{1,8}}n['’]t[ ] | \w{{1,8}}[ ]not[ ] | cannot[ ] | never[ ] ) ) )
    | \s (?= \$ | \\[(\[] )                                   # the answer $5$
    | [ ]of[ ] (?= [$\\(*]{{0,4}} [-−]?[0-9.√π\\] )              # an answer of 5
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What leads from "answer" to its value."""
_ELSEWHERE = re.compile(
    r"\b(?:previous|earlier|other|another|different|old|former|original|bonus|follow"
    r"|next|extra)\b",
    re.IGNORECASE,
)
"""What makes it the answer to another question."""
_DENIAL = re.compile(
    r"(?:\w{1,8}?n['’]t|\w{1,8} not|cannot|never|can['’]t)(?: (?:be|equal))? ",
    re.IGNORECASE,
)
_HEADING_END = re.compile(
    r"(?: (?:to|for|of)\b[^\n:.?!]{0,60})?(?: ?\([^()\n]{0,40}\))?[ :*_#.]{0,6}(?=\n)"
)
_HEADING_BEGIN = re.compile(
    r"(?:^|\n)[ #>*_=|0-9.)-]{0,12}(?:(?:the|my|our) )?"
    r"(?:(?:final|correct|short|full|numerical|exact) )?\Z",
    re.IGNORECASE,
)
_LINE_BEGIN = re.compile(
    r"(?:^|\n)[ #>*_=|-]{0,12}(?:(?:final|correct|short) )?\Z", re.IGNORECASE
)
_BARE_VALUE = re.compile(r"\.? (?=[-+−]?[0-9.√π(\[$\\])")
"""What may stand between "Answer" and its value where no verb does: `Answer 42`."""
_OWN = vocabulary("own")
"""Words before "answer" with which it is the author's own and last one."""
_FOREIGN = vocabulary("foreign")
"""Words before "Answer" with which it is not."""
_WORD_BEFORE = re.compile(r"([A-Za-z][A-Za-z'’-]*)[ *_\"'“\u2018]{0,4}\Z")
_CLAUSE_BEGIN = re.compile(
    r"[.!?;:,\n–—]|\b(?:so|thus|therefore|hence|and|then|but|because|yet)\b",
    re.IGNORECASE,
)
_NOT_OWN = re.compile(
    r"""
      \b(?: if | suppose | supposing | assum(?:e|es|ed|ing) | whether | unless | imagine
        | pretend | had | were )\b
    | \b(?: might | may | would | could | can | will ) [ ] (?: \w{1,12}[ ] )?
      (?: think | guess | say | believe | expect | suppose | conclude | claim | answer
        | assume | hope )\b
    | \btempt
    | \b(?: not | no | never | nobody | none | neither | nor | hardly | cannot | without
        | doubt | deny | denies | refuse | false | wrong | incorrect | untrue | unlikely
        | impossible | mistake | mistaken | mistakenly )\b
    | n['’]t\b
    | (?<! \b[iI] ) (?<! \b[wW]e ) [ ]
      (?: says? | said | claim(?: s | ed )? | thinks? | believes? | argue[sd]?
        | guess(?:es)? | wrote | answered | suggest(?: s | ed )? | report(?: s | ed )
        | gives?[ ]as | expect(?: s | ed )? | insist(?: s | ed )? | pretends? )\b
    | \b(?: thought | believed | guessed | expected )\b
    | \b(?: people | some | others | someone | students? | many | they )\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What in the clause before "answer" makes it supposed, denied, or somebody else's."""
_REPORTS = re.compile(
    r"""
    (?<! \b[iI] ) (?<! \b[wW]e ) [ ]
    (?: says? | said | claims? | claimed | wrote | writes | answered | answers
      | thinks? )
    [ ]? [:,] [ ]? ["'“\u2018]? [ ]?
    (?: the | my | our | final | correct | [ ] ){0,4} \Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ASKING = re.compile(
    r"(?:^|[.?!\n] ?)(?:is|was|could|would|can|might|what|so is) [^.?!\n]{0,40}\Z",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|otherwise|unless|had|were|in that case|without)\b[^.!?\n]*\Z",
    re.IGNORECASE,
)
"""What before "answer" makes it that of one case."""
_IF = re.compile(r"\b(?:if|had|were|unless)\b", re.IGNORECASE)
_FINAL = re.compile(r"(?:final|required|desired)[ *_]{0,4}\Z", re.IGNORECASE)
_TO_ANSWER = re.compile(
    r"\bto answer (?:the|your|this) (?:\w{1,12} )?(?:question|problem)"
    r"(?: asked| posed)? ?[,:–—-]",
    re.IGNORECASE,
)
"""What states an answer behind it: `So, to answer the question: …`."""
_THAT_IS_ANSWER = re.compile(
    r"""
      \b (?: that | this | which | it ) (?: [ ]is | ['’]s )
      (?: [ ](?: therefore | thus | then | indeed | hence ) )?
      [ ](?: the | our | my ) [ ]final [ ]answer (?= [ ]?[.!)*_] | [ ]?\Z | [ ]?\n )
    | [ ]{0,3} (?: ← | <-{1,3} | ⟵ ) [ ]? (?: the[ ] | our[ ] | my[ ] )?
      (?: final[ ] )? answer (?![A-Za-z])
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What says that the sentence before it is the answer: `That is my final answer.`"""
_COMMENT = re.compile(
    r"""
    [\s*_:"]{0,4}
    (?: (?: also | therefore | thus | now | clearly | indeed | obviously | then | simply
          | quite | of[ ]course | easily | readily | just | always | the ) [ ] ){0,2}
    (?: correct | right | verified | confirmed | checked | consistent | reasonable
      | unique | easy | clear | obvious | valid | complete | done | found | obtained
      | computed | calculated | derived | given[ ](?: in | as | below | above )
      | in[ ](?: the | a | its | terms ) | sensible | plausible | expected
      | well[ ]known | known | independent | based | supported | shown | boxed | above
      | below | same[ ]as
      | not[ ](?: unique | needed | required | affected | obvious | easy | clear
        | surprising | trivial ) )
    (?![A-Za-z]) (?! [ ]?: )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What is said of an answer that is none: `the answer is easy to check`."""
_FOREIGN_ANSWERS = (
    *("respuesta", "réponse", "reponse", "antwort", "risposta", "resposta"),
    *("antwoord", "odpowiedź", "svar", "vastaus", "odpověď", "răspuns", "cevap"),
    *("yan\u0131t", "jawaban", "jawapan", "sagot", "jibu", "ответ", "відповідь"),
    *("απάντηση", "정답", "답", "đáp án", "đáp số", "উত্তর", "उत्तर", "సమాధానం"),
    *("பதில்", "คำตอบ", "الجواب", "الإجابة", "پاسخ", "جواب", "תשובה"),
)
"""What an answer is called in other languages."""
_FOREIGN_RESULTS = (
    *("lösung", "solución", "soluzione", "solução", "résultat", "ergebnis"),
    *("resultado", "risultato", "resultaat", "wynik"),
)
"""What a result is, which may be one on the way."""
_FOREIGN_NOUNS = (*_FOREIGN_ANSWERS, *_FOREIGN_RESULTS)
_FOREIGN_NOUN = "|".join(noun.replace(" ", "[ ]") for noun in _FOREIGN_NOUNS)
_FOREIGN_BEFORE = r"""
    (?: (?: die | la | le | el | il | a | o | het | de | unsere | notre | nuestra ) [ ]
      | l['’] )?
    (?: (?: endgültige | finale | richtige | korrekte | definitieve | juiste | bonne
          | правильный | итоговый | окончательный | верный | правильна | остаточна
          | końcowa | ostateczna | slutligt | lopullinen | konečná | nihai | doğru | son
          | 최종 )
        [ ] )?
"""
"""What may stand before such a noun at the beginning of a line."""
_FOREIGN_BEHIND = r"""
    (?: final | finale | correcta? | correcte | corretta | exacta | exacte | definitiva
      | définitive | końcowa | ostateczna | akhir | cuối[ ]cùng )
"""
"""What may stand behind it."""
_LABEL = re.compile(
    rf"""
    (?: ^ | \n ) [ >*_#|-]{{0,8}}
    (?: (?: final | end ) [ ] (?= result | solution ) | {_FOREIGN_BEFORE} )?
    (?: result | solution | {_FOREIGN_NOUN} )
    (?: [ ] {_FOREIGN_BEHIND} )?
    (?: [ ]? [*_]{{0,3}} [ ]? [:=\uff1a] | (?=[ *_:]{{0,4}}\n) )
    | (?: ^ | \n ) [ >*_#|-]{{0,8}} {_FOREIGN_BEFORE} (?: {_FOREIGN_NOUN} )
      [*_]{{0,3}} [ ] (?=[*_$\\(]{{0,4}}[-−]?[0-9])
    | (?<=[.!?]) [ ] {_FOREIGN_BEFORE} (?: {_FOREIGN_NOUN} ) [ ]?[:\uff1a]
    | (?: ^ | \n | (?<=[.!?]) ) [ ]? \#{{4}} (?=[ ]?[^#\s])
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What states an answer where nothing but it follows: `Result: 42`, `#### 42`."""
_FOREIGN_ANSWER = re.compile(
    r"""
      (?: 答案 | 答え | 답 ) \s? (?: 是 | 为 | 為 | は | 은 | 는 )? \s? [:\uff1a]? \s?
    | คำตอบ (?: สุดท้าย )? \s? (?: คือ | : ) \s?
    | (?: উত্তর | উত্তরটি ) \s? (?: হল | হলো | : ) \s?
    | उत्तर \s? (?: है | : ) \s?
    """,
    re.VERBOSE,
)
_ASIAN_HEDGE = re.compile(
    r"(?:如果|假如|假设|假設|若|要是|说|說|认为|認為|以为|以為|猜|错误|錯誤|もし|만약|틀린)"
    r"[^。\uff01\uff1f.!?\n]*\Z"
)
"""What before such an answer makes it supposed, wrong, or somebody else's."""
_FOREIGN_STATEMENT = re.compile(
    rf"""
    \b (?: {_FOREIGN_NOUN} ) \b
    (?: [ ] {_FOREIGN_BEHIND} )?
    [ ](?: es | est | ist | lautet | è | é | is | to | là | jest | adalah | ni
      | равен | равна | равно | [=—–] )
    (?: [ ](?: igual[ ]a | donc | pues | quindi | portanto | also | dus ) )?
    (?= [ ]?:? [ ] )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What states an answer in other languages: `La respuesta es 10`."""
_FOREIGN_HEDGE = re.compile(
    r"""
    \b (?: не | или | если | около | больше | меньше | nie | lub | albo | około
      | si | se | wenn | falls | no | non | não | nicht | kein\w{0,2} | niet | als
      | nunca | jamás | jamais | dice | dicen | dit | disent | sagt | meint | diz
      | según | selon | segundo | laut | o | ou | oder | of | y | et | und | e | en
      | para | pour | für | per | voor | falsche? | fausse | errada | incorrecta
      | más | mehr | plus | mas | mais | più | menos | moins | weniger | ungefähr
      | environ | circa | aproximadamente ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What around such a statement leaves it open."""
_EUROPEAN = re.compile(
    r"""
    (?<![0-9.,])
    (?: (?P<whole> [0-9]{1,3} (?: \.[0-9]{3} ){1,5} ) (?P<decimals> ,[0-9]{1,20} )?
      | (?P<small> [0-9]{1,9} ) (?P<cents> ,[0-9]{1,2} ) )
    (?![0-9]|[.,][0-9])
    """,
    re.VERBOSE,
)
"""A number whose thousands a point parts, or whose decimals a comma does."""
_CLAUSE_OF_ONE_NUMBER = re.compile(
    r"""
    (?: [^\W\d_]{1,20} [ ] ){0,8}
    (?P<value> -? [0-9] (?: [0-9.,]{0,20} [0-9] )? )
    (?: [ ] [^\W\d_]{1,20} ){0,8}
    [ .!*]{0,4}
    """,
    re.VERBOSE,
)
_NOT_ANOTHER = re.compile(
    r"""
    ,? [ ] (?: (?: e | et | y | und | и | \u0430 ) [ ] )?
    (?: non | nicht | no | não | pas | не | niet | nie ) [ ]
    [^,.;\n]{1,40} (?: (?=[.!]) | \Z )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What denies another value behind the right one: `340 euro, non 400`."""
_FOREIGN_REASON = re.compile(
    r"""
    (?: ,[ ] | [ ]\( | [ ] ) (?: porque | pues | ya[ ]que | puesto[ ]que | es[ ]decir
      | pois | já[ ]que | isto[ ]é | ou[ ]seja | denn | weil | da[ ](?= \w)
      | das[ ]heißt
      | d\.[ ]?h\. | car | puisque | parce[ ]que | c['’]est-à-dire | soit[ ]
      | perché | poiché | cioè | ossia | omdat | want[ ] | ponieważ | bo[ ]
      | потому | так[ ]как | то[ ]есть | поскольку | çünkü ) (?!\w)
    | [\uff0c,]? (?: 因为 | 因為 | 由于 | 即 | なぜなら | 왜냐 )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_AND_SO = re.compile(
    r"\b(?:und (?:damit|somit|also)|et donc|y por (?:lo )?tanto|e (?:portanto|quindi)"
    r"|por lo tanto)\b",
    re.IGNORECASE,
)
"""What leads on to a statement, and leaves nothing open."""
_FOREIGN_CONDITION = re.compile(
    r"\b(?:si|se|wenn|falls|als|jeśli)\b[^.!?\n]*\Z", re.IGNORECASE
)
"""What before it makes it that of one case."""
_IS_ANSWER = re.compile(
    r"""
    [ ] (?: is | are | can(?=['’n ]) )
    (?P<denial> [ ]?not(?:[ ]be)? | n['’]t | ['’]t[ ]be )?
    (?: [ ](?: therefore | thus | then | indeed | hence ) )?
    [ ](?: the | our | my )
    (?: [ ](?: final | correct | right | desired | required ) ){0,2}
    [ ](?: answer | solution )
    (?= [ ]?[.!,;*_)] | [ ]?\Z | \n | [ ]to[ ]th | [ ]because )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What states an answer behind it: `42 is the answer`."""
_SENTENCE_BEGIN = re.compile(r"(?:[.!?]\s|\n)(?!.*(?:[.!?]\s|\n))", re.DOTALL)
_DIGIT = re.compile(r"[0-9]")
_LINE_BREAK = re.compile(r"[\n ]")


def stated_marks(text: str, limit_of: Callable[[int], int]) -> Iterator[Mark]:
    """Yield what a text's words state, the last first.

    Args:
        limit_of: Tells how far a statement at a place may reach; to the place itself
            where nothing may be stated.
    """
    num_read = 0
    for start, end, read in reversed(_cues(text)):
        limit = limit_of(start)
        if limit <= start:
            continue
        mark = read(text, start, end, limit)
        if mark is None:
            continue
        yield mark
        num_read += 1
        if num_read == MAX_CUES:
            return


def read_text(text: str) -> Said:
    """Read a short text that is an answer, or states one."""
    for word in reversed(list(_ANSWER.finditer(text))):
        lead = _LEAD.match(text, word.end())
        if lead:
            return read_statement(text, lead.end(), len(text))
    return read_value(text)


_Reader = Callable[[str, int, int, int], Mark | None]
"""Reads what a cue states: `read(text, start of the cue, its end, limit)`."""


def _cues(text: str) -> list[tuple[int, int, _Reader]]:
    """Return where something may be stated, in order, and what reads it."""
    readers = {
        _ANSWER: _behind_answer,
        _LABEL: _behind_label,
        _FOREIGN_ANSWER: _behind_foreign_answer,
        _IS_ANSWER: _before_answer,
        _TO_ANSWER: _behind_foreign_answer,
        _THAT_IS_ANSWER: _sentence_before,
    }
    # To look for one word after the other is faster than for any of them.
    folded = text.lower()
    if any(noun in folded for noun in _FOREIGN_NOUNS):
        readers[_FOREIGN_STATEMENT] = _behind_foreign_statement
    places = [
        (cue.start(), cue.end(), reader)
        for pattern, reader in readers.items()
        for cue in pattern.finditer(text)
    ]
    return sorted(places, key=lambda place: place[:2])


def _before(text: str, start: int) -> str:
    return text[max(0, start - _MAX_BEFORE_CHARS) : start]


def _behind_answer(text: str, start: int, end: int, limit: int) -> Mark | None:
    """Read "the answer is 42", and a heading "Answer"."""
    before = _before(text, start)
    is_final = _FINAL.search(before) is not None
    heading_end = _HEADING_END.match(text, end, limit)
    if heading_end and _HEADING_BEGIN.search(before):
        said = read_statement(text, heading_end.end(), limit)
        return Mark(start, said, "line", is_final)
    lead = _LEAD.match(text, end, limit)
    if lead is None:
        return _bare_line(text, start, end, limit)
    if not _is_own(before, text[start].isupper()) or _ASKING.search(before):
        return None
    if _ELSEWHERE.search(lead[0]) or _COMMENT.match(text, lead.end(), limit):
        return None
    is_case = _CONDITION.search(before) is not None
    is_imagined = "would" in lead[0].lower()
    if is_imagined and is_case:
        return None
    if is_imagined:
        line_end = text.find("\n", lead.end(), limit)
        line_end = limit if line_end < 0 else line_end
        is_case = _IF.search(text, lead.end(), line_end) is not None
    said = _behind_lead(text, lead, limit)
    return Mark(start, said, "line", is_final, is_case)


def _behind_lead(text: str, lead: re.Match[str], limit: int) -> Said:
    """Return what stands behind "answer is"."""
    at = lead.end()
    if lead["hedge"]:
        return Said("unclear", "", at, "it is a guess")
    denial = _DENIAL.match(text, at, limit)
    if denial:
        at = denial.end()
        denied = f"not {text[at:limit]}"
        said = read_statement(denied, 0, len(denied))
        shift = at - len("not ")
        return said._replace(end=said.end + shift, value_end=0)
    if lead["denial"] is not None:
        return Said("unclear", "", at, "it is denied")
    # "Answer:" begins a sentence of its own.
    is_sentence = not lead[0].rstrip()[-1:].isalpha()
    return read_statement(text, at, limit, is_sentence=is_sentence)


def _bare_line(text: str, start: int, end: int, limit: int) -> Mark | None:
    """Read a line "Answer 42"."""
    bare = _BARE_VALUE.match(text, end, limit)
    if bare is None or not _LINE_BEGIN.search(_before(text, start)):
        return None
    return Mark(start, read_whole_line(text, bare.end(), limit))


def _is_own(before: str, is_capital: bool) -> bool:
    """Return whether what stands before "answer" makes it the author's own one."""
    clause_at = 0
    for begin in _CLAUSE_BEGIN.finditer(before):
        clause_at = begin.end()
    # What is reported stands behind a colon or a comma, too: `He says: the answer`.
    report_at = max(clause_at - _MAX_REPORT_CHARS, 0)
    if _NOT_OWN.search(before, clause_at) or _REPORTS.search(before, report_at):
        return False
    word = _WORD_BEFORE.search(before)
    if word is None or word[1].lower() in _OWN:
        return True
    # A capital begins a statement, whatever stands before it.
    return is_capital and word[1].lower() not in _FOREIGN


def _behind_label(text: str, start: int, end: int, limit: int) -> Mark | None:
    """Read `Result: 42` and `#### 42`, if nothing with a number follows."""
    line_at = skip(_LINE_BREAK, text, end, limit)
    line_end = text.find("\n", line_at, limit)
    line_end = limit if line_end < 0 else line_end
    folded = text[start:end].lower()
    is_answer = any(noun in folded for noun in _FOREIGN_ANSWERS)
    if not is_answer and _DIGIT.search(text, line_end, limit):
        return None
    if not any(noun in folded for noun in _FOREIGN_NOUNS):
        return Mark(start, read_whole_line(text, end, limit))
    said = read_whole_line(text, end, _value_end(text, line_at, line_end, limit))
    if said.kind == "nothing":
        said = _only_number(text, line_at, line_end)
    return Mark(start, _with_decimal_point(said))


def _value_end(text: str, at: int, line_end: int, limit: int) -> int:
    """Return where a reason or an explanation in another language begins.

    Without one, values may go on in the next lines, up to the limit.
    """
    reason = _FOREIGN_REASON.search(text, at, line_end)
    if reason is None:
        return limit
    before = text[at : reason.start()]
    # Within brackets it is none of the sentence's.
    is_inside = before.count("(") > before.count(")")
    return limit if is_inside else reason.start()


def _in_english(number: re.Match[str]) -> str:
    whole = number["whole"] or number["small"]
    decimals = number["decimals"] or number["cents"] or ""
    return whole.replace(".", "") + decimals.replace(",", ".")


def _with_decimal_point(said: Said) -> Said:
    """Return what is said with `1.234,5`, as most of Europe writes it, as 1234.5."""
    value = _EUROPEAN.sub(_in_english, said.value)
    return said._replace(value=value)


def _only_number(text: str, at: int, end: int) -> Said:
    """Return the number of a clause in another language: "restam 26 bombons"."""
    clause = _CLAUSE_OF_ONE_NUMBER.fullmatch(
        text, at, min(end, at + _MAX_SENTENCE_CHARS)
    )
    if clause is None or _FOREIGN_HEDGE.search(clause[0]):
        return Said("nothing", "", end)
    return Said("value", clause["value"], end, value_end=clause.end("value"))


def _behind_foreign_answer(text: str, start: int, end: int, limit: int) -> Mark | None:
    if _ASIAN_HEDGE.search(_before(text, start)):
        return None
    return Mark(start, read_statement(text, end, limit))


def _behind_foreign_statement(
    text: str, start: int, end: int, limit: int
) -> Mark | None:
    """Read "La respuesta es 10", if nothing else stands in its line."""
    line_end = text.find("\n", end, limit)
    line_end = limit if line_end < 0 else line_end
    line_end = min(line_end, end + _MAX_SENTENCE_CHARS)
    line_end = min(line_end, sentence_end(text, end, line_end) + 1)
    before = _before(text, start)
    denial = _NOT_ANOTHER.search(text, end, line_end)
    line_end = denial.start() if denial else line_end
    line_end = _value_end(text, end, line_end, line_end)
    clause = _AND_SO.sub(" ", _CLAUSE_BEGIN.split(before)[-1])
    if _FOREIGN_HEDGE.search(clause) or _FOREIGN_HEDGE.search(text, end, line_end):
        return None
    if _FOREIGN_CONDITION.search(before):
        return None
    said = read_whole_line(text, end, line_end)
    if said.kind != "value":
        return None
    return Mark(start, _with_decimal_point(said))


def _sentence_before(text: str, start: int, end: int, limit: int) -> Mark | None:
    """Read "It is 42. That is my final answer."."""
    before = text[max(0, start - _MAX_SENTENCE_CHARS) : start].rstrip(" *_\n(—–-,")
    said = read_end(before)
    if said.kind != "value":
        return None
    return Mark(start, said._replace(end=end, value_end=end), "line", is_final=True)


def _before_answer(text: str, start: int, end: int, limit: int) -> Mark | None:
    """Read "42 is the answer"."""
    before = text[max(0, start - _MAX_SENTENCE_CHARS) : start]
    begin = _SENTENCE_BEGIN.search(before)
    said = read_value(before[begin.end() :] if begin else before)
    if said.kind != "value":
        return None
    cue = _IS_ANSWER.match(text, start)
    is_denied = cue is not None and cue["denial"] is not None
    kind: SaidKind = "denied" if is_denied else "value"
    said = Said(kind, said.value, end, "it is denied" if is_denied else "", True, end)
    return Mark(start, said)
