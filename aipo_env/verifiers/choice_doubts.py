"""What makes a statement that names an option none: around it, doubt and denial.

In front of it stand a condition, a denial, somebody else who says so, another question;
behind it a condition, a verdict, another option that is as good, a taking back. All
texts are `blanked`; all repeats are bounded.
"""

import re

TAKEN_BACK = "the answer was taken back"
_MAX_BEHIND = 2_000
"""Only so much of what follows an answer is searched for what undoes it."""
_MAX_TAIL = 80
"""Characters behind another letter that are searched for "also correct"."""
_MAX_SAME = 16
"""Only so many mentions of the option's own text are looked at."""

_CLAUSE_START = re.compile(r"[.!?;:\n。]")
_SENTENCE_START = re.compile(r"[.!?;\n。]")
_PART = re.compile(
    r",|\b(?:but|yet|while|so|thus|hence|therefore|because|since|then)\b|[–—]",
    re.IGNORECASE,
)
"""What parts a clause: A is not correct, but B is correct."""
_BUT = re.compile(r",\s{0,3}but\b", re.IGNORECASE)
"""What ends a condition: if it were so, it would fit, but B is correct."""
_OWN = re.compile(
    r"""
    # The reply itself says it.
    \b (?: i | we ) (?: ['’]d | ['’]ll )?
    (?: \s (?: would | will | can | do | \w{1,9}ly ) )?
    \s (?: say | think | believe | conclude | claim | argue | guess | know ) \b
    |
    # A denial, a condition and a "may" that are none.
    \b (?: no | without (?: \s (?: a | any ) )? | beyond )
    \s (?: \w{1,12} \s )? doubt \b
    |
    \b not \s (?: only | surprisingly ) \b
    |
    \b if \s (?: i | we ) \s (?: had | have | must | need | were )
    \s (?: to \s )? \w{1,9} \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CONDITION = re.compile(
    r"""
    \b (?: if | whether | suppose | supposing | assum\w{1,4} | unless | imagine
       | provided | in\ case | were | claims? | otherwise
       | (?: everything | anything | all | any | every\ \w{1,12} ) \s but ) \b
    |   否则 | 否則 | 不然 | 如果 | 假如 | 假设 | 假設 | 若 | もし | 만약
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What makes no statement of the rest of its clause."""
_DENIAL = re.compile(
    r"""
    \b (?: not | nor | neither | never | cannot | unlikely | impossible | hardly
       | doubt\w{0,4} | deny | denies | denied | disagree\w{0,2} | refute\w{0,1}
       | reject\w{0,2} | nobody | nothing | thought | except | explain | prove\ that
       | no\ (?: one | evidence | reason | way | proof | sign | indication
               | guarantee | basis )
       | (?: wrong | incorrect | false | untrue | mistake\w{0,2} | error | trap )
         \s (?: to | that )
       | would | could | might | may | when | only\ when
       | (?: chance | possibility | probability | likelihood | odds ) \s that
       ) \b
    |   n['’]t \b
    |   (?<! is\s ) (?<! ['’]s\s ) (?<! reason\s ) \b why \b
    |   [≠不别別勿未] [^,。\n]{0,4} $
    |   \\neq? \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What denies or doubts the rest of its part of a clause."""
_SOURCE = re.compile(
    r"""
    \b (?: rumou?r | teacher | tutor | textbook | book | answer\ key | manual
       | colleague
       | friend | classmate | partner | professor | website | forum | blog | internet
       | wikipedia | chatgpt | bot | others | people | everyone | everybody | somebody
       | someone | students? | experts? | consensus | majority )
    (?: ['’]s )? \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Who says the rest of a part of a clause, if not the reply."""
_HEARSAY = re.compile(
    r"""
    \b according \s{1,3} to \b
    (?! [^,\n]{0,60} \b (?: law | rule | equation | theorem | formula | principle
        | definition | table | graph | data | passage | text | figure | calculation
        | above | this | these ) s? \b )
    |
    \b (?: for \s example | for \s instance | such \s as
       | you \s (?: might | may | could | can | should ) ) \b
    |
    \b (?: says? | said | thinks? | believes? | believed | claims? | claimed
       | argues? | argued | insists? | told \s \w{1,12} | tells \s \w{1,12} | guess
       | guessed | lists? | heard | writes? | wrote | reply | respond | states )
    (?: \s{1,3} that )? (?: \s{1,3} the )? (?: \s{1,3} \w{1,12} )? \s{0,3} $
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Somebody else says it, or somebody could."""
_HEARSAY_ELSEWHERE = re.compile(
    r"""
    (?: (?<! 我 ) (?<! 我们 ) (?<! 我們 )
        (?: 认为 | 認為 | 觉得 | 覺得 | 以为 | 以為 | 声称 | 说 | 說 )
      | 可能 | 也许 | 也許 | 或许 | 或許 | 似乎 )
    [^,。\n]{0,8} $
    """,
    re.VERBOSE,
)
"""The same in Chinese."""
_OTHER_ANSWER = re.compile(
    r"""
    # A wrong answer, my first answer: another than the one that is given.
    \b (?: wrong | incorrect | false | bad | common | popular | usual | tempting
       | obvious | naive | expected | earlier | previous | initial | first | old
       | original | alternative | another | other | possible | plausible | an
       | worst | weakest | rejected | eliminated | opposite | example | sample
       | draft | tentative | second | runner-up
       | (?: second | third | next ) -? \s? best
       | (?: least | less ) (?: \s \w{1,14} )?
       )
    \s{0,3} $
    |
    # Somebody else's.
    (?: \b (?: his | her | their | your | whose | student | user )
    |   (?<! \b it ) (?<! \b that ) (?<! \b here ) (?<! \b what ) (?<! \b question )
        (?<! \b problem ) \w ['’] s
    )
    \s{1,3} (?: (?! (?: my | the | our ) \b ) \w{1,12} \s{1,3} )? $
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What before "answer" makes it none that the reply gives."""
_OTHER_QUESTION = re.compile(
    r"\b(?:previous|earlier|other|another|next|first|second|third|last|part|example"
    r"|sample|follow)\b",
    re.IGNORECASE,
)
_ELSEWHERE = re.compile(
    r"""
    \b (?: si | se | wenn | falls | если | якщо | als | jeśli | eğer | jika | nếu | jos
       | om | pokud
       | sinon | sonst | ansonsten | altrimenti | contrario | contrário | иначе
       | no | non | não | nicht | nie | inte | niet | не | jamais | nunca | jamás | ei
       | bukan
       | dice | dicen | dijo | dit | disent | dici\w{0,4} | sagt | sagte | meint
       | glaubt
       | говорит | считает | diz | dizem | zegt | mówi | säger | cree | croit | segundo
       | según | selon | laut
       | creen | piensan? | dirían? | denken | glauben | meinen | pensent | croient
       | pensano | credono | acham | pensam | думают | считают | думает | san\u0131yor
       | viele | muchos | muitos | molti | beaucoup | многие | certains | algunos
       | alumn\w{1,4} | schüler\w{0,4} | élèves? | étudiant\w{0,3} | estudiante\w?
       | alun\w{1,3} | учени\w{1,4} | студент\w{0,3} | öğrenci\w{0,5}
       | student\w{0,4} | professor\w{0,2} | falsche\w? | incorrecta | fausse
       | неправильн\w{1,3} | неверн\w{1,3} | anterior | précédente | vorige\w?
       ) \b
    |   n['’] \s? $
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A condition, a denial or hearsay in other languages."""

_SUPPOSED = re.compile(
    r"""
    \b (?: normally | usually | ordinarily | originally | initially | naively
       | intuitively | instinctively | at \s (?: first | a \s glance ) | tempted
       ) \b
    |
    \A [\s,]{0,9} (?: (?: and | but ) \s )?
    (?: (?: had | when | where | once ) \b
    |   in \s (?! (?: this | these | the | my | our | short | conclusion | summary | sum
           | light | view | total | fact | all | any | comparison | other \s words
           ) \b )
    |   in \s the \s other \b
    |   (?: for | with | under | without ) \s
        (?! (?: this | that | these | those | the | all )
            (?: , | \s (?: \w{1,12} \s )? (?: reasons? | in \s mind | said ) \b ) )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What makes of "I would choose" a choice in another case, or an earlier one."""
_SUPPOSITION = re.compile(
    r"\s{0,9}(?:suppose|supposing|imagine|assume|assuming|say)\b", re.IGNORECASE
)
_SO = re.compile(r"\b(?:so|thus|hence|therefore|consequently)\b", re.IGNORECASE)

_VERB = (
    r"(?: is | was | seems | looks | would\ be | must\ be | should\ be | can\ be"
    r" | could\ be | may\ be | might\ be )"
)
_BAD = r"(?: wrong | incorrect | false | untrue | impossible | invalid | mistaken )"
_DENIED = re.compile(
    rf"""
    \s{{0,40}} [)\]]? \s{{0,40}}
    (?:
        {_VERB} \s (?: \w{{1,12}}ly \s )?
        (?: not | never | unlikely | hardly | {_BAD} ) \b
    |   (?: isn | wasn | can | couldn | doesn ) ['’]t \b
    |   cannot \b
    |   [:,;(–—-]? \s{{0,9}} (?: (?: which | that | and ) \s {_VERB} \s )?
        (?: {_BAD} | not\ (?: correct | right | true ) )
        \s{{0,9}} (?: [).,!;\n] | $ )
    |   is \s what
        \s (?: an? | the | some | many | most | people | one | you | students )
        \s [^.,;\n]{{0,40}} \b (?: would | might | may | could | say | think | pick ) \b
    |   [:,;(–—-]? \s{{0,9}} (?<! \n ) [❌✗✘]         # not that of the next line
    |   不 | 错 | 錯 | [,。] 不对
    |   (?: では? | じゃ ) (?: あり | な ) | [가이]\ ?아[닙니]
    |   だ?と (?: 言 | いう | 思う ) | (?: 이 )? 라고\ ?(?: 하는 | 말 | 생각하는 )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind a letter or a text denies it there."""
_DENIED_LATER = re.compile(
    rf"""
    \s{{0,3}} [)\]]? \s{{0,3}}
    (?:
        {_VERB} \s (?: \w{{1,12}}ly \s )?
        (?: (?: not | never ) \s
            (?: the | right | correct | true | possible | valid | it | what
            | an?\ option
            | supported ) \b
        |   {_BAD} \b
        )
    |   (?: isn | wasn ) ['’]t \s (?: the | right | correct | true | possible | valid
            | it ) \b
    |   (?: cannot | can['’]t | couldn['’]t ) \s be \s (?: the | right | correct | true
            | it ) \b
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""The same in a later sentence: B is never given to infants denies nothing."""
_SENTENCE_END = re.compile(r"(?<![.…])\.(?![.\d\w])|[!?\n。]")
_REASON = re.compile(
    r"\b(?:because|since|as|given|due|which|that|where|so)\b|:", re.IGNORECASE
)
"""Behind it, a condition or another letter does not concern the answer itself."""
_ON_CONDITION = re.compile(
    r"""
    \b (?: if | unless | provided | providing | assuming | when | whenever | otherwise
       | as\ long\ as | so\ long\ as | in\ case | depending | until
       | only\ (?: for | if | in | at | under | after | with | by )
       | in\ part | partly | partially | mostly | mainly
       | à\ moins | sauf\ si | wenn | если | a\ menos | salvo | eğer | jika | jeśli
       | si\ (?: el | la | los | las | le | les | on | il | se | x )
       ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SAID_BY_OTHERS = re.compile(
    r"""
    [^,;:.\n]{0,40} , \s{1,3}
    (?: some | people | they | others | many | he | she | students? ) \s
    (?: would \s | might \s | may \s )?
    (?: say | says | said | claim | claimed | think | thought | argue | believe )
    \s{0,3} $
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""The end of a sentence that somebody else says: it is B, some say."""
_LONG_AS = re.compile(r"\b(?:as|so)\ long\ as\b|\bin\ case\b", re.IGNORECASE)
_ASKED = re.compile(r"\b(?:why|how so|how come)\s{0,3}$", re.IGNORECASE)
_NO_RIVAL = re.compile(
    r"""
    \b (?: not | nor | neither | never | than | unlike | instead | over | cannot
       | if | unless | wrong | incorrect | false | without | out | only | un\w{1,12}
       | in\w{1,12}ble
       ) \b
    |   n['’]t \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_JOINED = re.compile(
    r"""
    \b (?: or | otherwise | alternatively | else | as\ well\ as | along\ with
       | together\ with | plus | and\ also | and\ maybe )
    \b [^A-Z.\n]{0,24} [(\[]? ([A-Z]) (?! [\w'’] )
    |
    (?: \b (?: and | but ) \s | , \s{0,3} ) [(\[]? ([A-Z]) [)\]]?
    (?: \s{1,3} \( [^()\n]{1,60} \) )?
    \s (?: for | in | to | if | when | otherwise ) \b
    |
    # A (n even); C (n odd)
    ^ \s? \( [^()\n]{1,60} \) \s? (?: [;,] | (?: , \s )? (?: and | or ) ) \s?
    [(\[]? ([A-Z]) [)\]]? \s? \( [^()\n]{1,60} \) (?= \s{0,3} (?: [.;] | $ ) )
    """,
    re.VERBOSE,
)
"""Another option that is chosen beside, in the same sentence."""
_INSTEAD = re.compile(
    r"""
    (?: [.!?…\n] \s{0,9} | ^ \s{0,9} )
    (?: [Oo]r | [Aa]lternatively | [Oo]therwise | [Mm]aybe | [Pp]erhaps | [Pp]ossibly )
    ,? \s{0,3}
    (?: (?: it\ is | it['’]s | is\ it | it\ (?: could | might | may )\ be | maybe | even
        | perhaps | possibly | option | choice | the\ answer\ is ) \s ){0,2}
    [(\[]? ([A-Z]) (?! [\w'’] )
    """,
    re.VERBOSE,
)
_POSSIBLE = re.compile(
    r"""
    \b (?: might | could | may | should ) \s
    (?: (?: \w{1,9} \s ){0,4}? be | have\ been | read ) \s
    (?: option \s | choice \s )? [(\[]? ([A-Z]) (?! [\w'’] )
    """,
    re.VERBOSE,
)
"""Another option that is not ruled out."""
_ALSO = re.compile(
    r"\b(?:also|too|as well|equally|just as|likewise|as good|similarly|both)\b",
    re.IGNORECASE,
)
_GOOD = re.compile(
    r"""
    \b (?: correct | right | plausible | possible | acceptable | valid | works? | true
       | likely | defensible | fits? | do | okay | answers? | justified | reasonable
       | good | counts? | qualif\w{1,4} | appl(?: y | ies ) | holds? )
    \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CAPITAL = re.compile(r"(?<![\w'’\\])[A-Z](?![\w'’-])")
_TAKEN_BACK = re.compile(
    r"""
    (?: ^ | [.!?…:;\n(–—] | \s- | \b(?: oh | but | ah | oops ) \b ,? )
    \s{0,9}
    (?: wait \b
    |   actually \s{0,3} [,:]? \s{0,3}
        (?: (?: no | it | it['’]s | that | that['’]s | this\ is | let | i | scratch
            | wait | hm{1,9} | not | option | never\ mind | the\ (?: correct | right
            | answer | best ) ) \b
        |   (?-i: [B-Z] ) \b
        )
    |   correction \s{0,3} (?: [:,.!–—-] | $ )
    |   (?: edit | update | erratum | typo ) \s{0,3} [:–—-]
    |   hmm{0,9} \b
    |   scratch\ that
    |   on\ second\ thoughts? \b
    |   on\ reflection ,? \s (?: it | i | that | no ) \b
    |   hold\ on \b (?! \s to \b )
    |   oops \b
    |   (?: i['’]m \s | i\ am \s )? sorry \s{0,3}
        (?: [,.!:–—-] (?! \s for ) | $ | \n | i\ (?: was | made | mis ) )
    |   no \s{0,3}
        (?: \. | [!:,] (?! \s (?: the \s )? (?: others? | rest | none | neither ) \b ) )
    |   no\ wait \b
    |   never\ mind \b
    |   ignore\ that \b
    |   (?: the\ question\ has\ | there\ (?: is | are ) \ )?
        no\ (?: valid | correct | right ) \ (?: answers? | options? | choices? ) \b
    |   none\ of\ (?: the | these ) \ (?: given\ )? (?: options | choices | answers )
        \ (?: is | are | fits? | match(?: es )? | works? ) \b
    |   (?: i\ was | that\ is | that['’]s | that\ was | this\ is )
        \ (?: wrong | incorrect | mistaken | a\ mistake | not\ (?: right | correct ) )
    |   (?: this | that | my | the ) \ (?: answer | choice | option )
        \ (?: is | was | seems | may\ be | must\ be )
        \ (?: wrong | incorrect | false | mistaken | a\ mistake
            | not\ (?: right | correct ) )
    |   i\ take\ (?: it | that | this ) \ back
    |   i\ made\ (?: a | an ) \ (?: mistake | error )
    )
    |
    (?: [,–—] | -- ) \s{0,3} (?: no \s{0,2} [,:;.–—-] | wait \b | sorry \s{0,2} [,.] )
    |
    (?: ^ | [。,.!?…\n] ) \s{0,3} (?: 不对 | 不對 | 等等 | 等一下 )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind an answer takes it back, at the start of a sentence."""


def is_doubted(before: str) -> bool:
    """Return whether what stands in front of a statement makes it none.

    Args:
        before: What stands before it; only its last clause is read.
    """
    *others, clause = _CLAUSE_START.split(before)
    clause = _OWN.sub(" ", _BUT.split(clause)[-1])
    is_hearsay = _HEARSAY.search(clause) or _HEARSAY_ELSEWHERE.search(clause)
    if _CONDITION.search(clause) or is_hearsay:
        return True
    # Suppose that it is so. Then …
    is_then = clause.split()[:1] in (["Then"], ["then"])
    if is_then and others and _CONDITION.match(others[-1].lstrip(" ,")):
        return True
    part = _PART.split(clause)[-1]
    if _DENIAL.search(part):
        return True
    # The consensus: the answer is B.
    said = _PART.split(_SENTENCE_START.split(_OWN.sub(" ", before))[-1])[-1]
    return _SOURCE.search(said) is not None


def is_doubted_elsewhere(before: str) -> bool:
    """Return whether a statement in another language than English is none."""
    return _ELSEWHERE.search(_CLAUSE_START.split(before)[-1]) is not None


def is_supposed(before: str) -> bool:
    """Return whether what "I would" is for another case, by what precedes it."""
    *others, clause = _CLAUSE_START.split(before)
    if others and _SUPPOSITION.match(others[-1]):
        return True
    return _SUPPOSED.search(_SO.split(_BUT.split(clause)[-1])[-1]) is not None


def is_other_answer(before: str) -> bool:
    """Return whether "answer" is one that is not the reply's, by what precedes it."""
    return _OTHER_ANSWER.search(_CLAUSE_START.split(before)[-1]) is not None


def is_other_question(said: str) -> bool:
    """Return whether "the answer to …" is one to another question."""
    return _OTHER_QUESTION.search(said) is not None


def is_denied(rest: str, start: int = 0) -> bool:
    """Return whether what follows an option at once denies it."""
    return _DENIED.match(rest, start) is not None


def fault_behind(letter: str, text: str, letters: str, rest: str) -> str:
    """Return why what follows an answer undoes it, "" if it does not.

    Args:
        letter: The answer's.
        text: The text of its option.
        letters: Those of all options.
        rest: What follows the answer.
    """
    rest = rest[:_MAX_BEHIND]
    end = _SENTENCE_END.search(rest)
    sentence = rest[: end.start()] if end else rest
    if end and end[0] == "?" and not _ASKED.search(sentence):
        return "the answer is asked"
    if _SAID_BY_OTHERS.match(sentence):
        return "it is said by others"
    if _is_conditional(sentence):
        return "the answer holds on a condition"
    if is_taken_back(rest) or _is_denied_later(letter, text, rest):
        return TAKEN_BACK
    if _has_rival(letter, letters, sentence, rest):
        return "several options are named"
    return ""


def is_taken_back(rest: str) -> bool:
    """Return whether a sentence that follows an answer takes it back."""
    return _TAKEN_BACK.search(rest) is not None


def _is_conditional(sentence: str) -> bool:
    """Return whether an answer holds on a condition, by the rest of its sentence."""
    if _LONG_AS.match(sentence.lstrip(" ,(")):
        return True
    return _ON_CONDITION.search(_REASON.split(sentence)[0]) is not None


def _is_denied_later(letter: str, text: str, rest: str) -> bool:
    """Return whether what follows an answer says that its letter or text is wrong."""
    if is_denied(rest):
        return True
    for found in _CAPITAL.finditer(rest):
        if found[0] == letter and _DENIED_LATER.match(rest, found.end()):
            return True
    if not text:
        return False
    folded = rest.casefold()
    position = 0
    for _ in range(_MAX_SAME):
        position = folded.find(text.casefold(), position)
        if position < 0:
            return False
        position += len(text)
        if _DENIED_LATER.match(folded, position):
            return True
    return False


def _has_rival(letter: str, letters: str, sentence: str, rest: str) -> bool:
    """Return whether another option is said to be as good."""
    others = letters.replace(letter, "")
    joined = _JOINED.search(_REASON.split(sentence)[0])
    is_joined = joined is not None and joined[joined.lastindex or 0] in others
    if joined and is_joined and not _NO_RIVAL.search(sentence[: joined.start()]):
        return True
    for pattern in (_INSTEAD, _POSSIBLE):
        if any(found[1] in others for found in pattern.finditer(rest)):
            return True
    for found in _CAPITAL.finditer(rest):
        if found[0] not in others:
            continue
        tail = rest[found.end() : found.end() + _MAX_TAIL]
        tail = _CLAUSE_START.split(tail)[0]
        is_good = _ALSO.search(tail) and _GOOD.search(tail)
        if is_good and not _NO_RIVAL.search(tail):
            before = rest[max(0, found.start() - _MAX_TAIL) : found.start()]
            if not _NO_RIVAL.search(_CLAUSE_START.split(before)[-1]):
                return True
    return False
