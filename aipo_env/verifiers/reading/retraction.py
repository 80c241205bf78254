"""Whether what follows an answer takes it back: `Wait, no`, `that is wrong`.

In doubt it does: an answer that its author doubts earns nothing.
"""

import re

_MAX_NEXT_CHARS = 120
"""Only this far behind a value another one is looked for."""
_MAX_DENIALS = 64

_WRONG = r"""
    (?: wrong | incorrect | false | mistaken | invalid | impossible | erroneous
      | in[ ]error | inadmissible | rejected | extraneous | excluded | unreasonable
      | too[ ](?: big | large | small | low | high ) | ruled[ ]out ) (?![A-Za-z])
"""
_ADVERBS = r"""
    (?: [ ](?: obviously | clearly | actually | just | simply | also | all | quite
      | probably | completely | totally | certainly | definitely | therefore | thus
      | still ) ){0,2}
"""
_NOT_RIGHT = r"""
    not[ ](?: right | correct | it\b | true | valid | possible | the[ ](?: answer
      | solution | right | correct ) | what[ ]we | my[ ]answer | final | admissible
      | allowed | acceptable | an?[ ](?: answer | solution ) )
"""
_VALUE_FOLLOWS = r"(?= ,?[ ][-$\\(]{0,3}[0-9] )"
_INTERJECTION = rf"""
    (?: (?<=[.!?;:,\n(–—-]) | \A | \b(?: but | oh | ah | and | although ) )
    [\s*_"'”’)$\]}}\\]{{0,6}}
    (?: wait | hmm+ | oops | whoops | sorry | apologies | correction | nope
      | (?: scratch | strike )[ ]that | never[ ]?mind | (?: hold | hang )[ ]on
      | on[ ]second[ ]thoughts? | my[ ](?: bad | mistake | apologies | error )
      | i[ ]take[ ](?: it | that )[ ]back | edit: | update: | erratum | typo
      | not[ ]so[ ]fast | (?: wrong | incorrect | false ) (?= [.!,:] )
      | or\b (?! ,?[ ](?: equivalently | simply | in[ ]other | about | roughly ) )
        (?= [^.!?\n]{{0,20}}[0-9] )
      | make[ ](?: that | it ) {_VALUE_FOLLOWS}
      | rather {_VALUE_FOLLOWS}
      | no (?= \s* [,.!:)–—-] | [ ]wait )
      | (?<=\.\.)[ ]?not (?= [.!] )
      | actually ,? [ ] (?: it | that | this | the | i | no | not | we ) \b )
    (?![A-Za-z])
"""
"""`Wait, …`, `Oops.`, `No, that …`."""
_JUDGEMENT = rf"""
    \b (?: that | this | it | which | answer | result | value | solution | above | one
      | guess | attempt | box | calculation | number | figure | total | sum | count
      | claim | conclusion | reasoning ) (?: [ ]above )?
    (?: ['’]s
      | [ ](?: is | was | were | seems? | looks? | must[ ]be | has[ ]to[ ]be
        | turn(?: s | ed )[ ]out[ ]to[ ]be | appears[ ]to[ ]be | isn['’]t | wasn['’]t
        | can(?: not | ['’]t )[ ]be | could(?: [ ]not | n['’]t )[ ]be
        | (?: would | may | might )[ ]be ) )
    {_ADVERBS} [ ]
    (?: {_WRONG} (?! [ ](?: to | that | for | about )[ ] )
      | (?: only[ ] | just[ ] | merely[ ] )? an? [ ](?: \w{{1,20}}[ ] )?
        (?: error | mistake | typo | slip | guess | estimate | bound )
      | {_NOT_RIGHT} )
"""
"""`That is wrong`, `the answer was a typo`."""
_FAILURE = r"""
      \b (?: isn['’]t | wasn['’]t | (?: can | could )(?: not | n['’]t | ['’]t )[ ]be )
      [ ](?: right | correct | true | valid | it\b
        | the[ ](?: right[ ] | correct[ ] )?answer )
    | \b (?: this | that | it | which | answer | value )
      [ ](?: contradicts | violates | ignores | overcounts | double[- ]counts | misses
        | neglects | breaks | fails )
    | \b got[ ](?: it[ ] | that[ ] | this[ ] )? wrong\b
    | \b do(?: esn['’]t | es[ ]not )
      [ ](?: work | satisfy | fit | hold | check(?: [ ]out )? )
    | \b fails[ ](?: the | this | that | to | when | for )
    | \b (?: wrong | incorrect | naive | tempting | mistaken | false )
      [ ](?: answer | guess | attempt | value | result | number | solution ) \b
    | \b (?: it | this | that ) (?: ['’]s | [ ]is )[ ]out (?![ ]of\b) \b
    | [❌✗✘]
"""
"""`This contradicts`, `it does not work`."""
_CONFESSION = r"""
      \b (?: i | we ) [ ] (?: have[ ](?: to[ ] )? | must[ ](?: have[ ] )? | had[ ]
        | seem[ ]to[ ]have[ ] | need[ ]to[ ] )?
      (?: ma[dk]e[ ](?: an? | some | one )[ ](?: \w{1,20}[ ] )?
          (?: mistake | error | slip | typo )
        | (?: was | am | were )[ ](?: wrong | mistaken | in[ ]error )
        | mis(?: read | counted | calculated | computed | took | taken | typed | wrote
          | understood | remembered )
        | mean[t]? \b (?! [ ]by ) | forgot | overlooked | withdraw | retract
        | take[ ](?: it | that )[ ]back )
    | \b apologi[sz]e[ ]for[ ](?: the | my | any | that | this )[ ]
      (?: \w{1,12}[ ] )? (?: mistake | error | confusion )
    | \b (?: let[ ]me | let['’]s | let[ ]us | i['’]ll
        | (?: i | we )[ ](?: will | should | must | need[ ]to ) ) [ ]
      (?: re(?: do | compute | calculate | consider | think | start | vise | examine
          | count | check | -?evaluate | -?do )
        | fix | correct[ ](?: this | that | it | my ) | try[ ]again | start[ ]over
        | think[ ]again | begin[ ]again )
    | (?<! not[ ] )(?<! n['’]t[ ] )(?<! never[ ] )
      \b (?: ignore | disregard | discard | retract | withdraw | forget | cancel )
      [ ](?: that | this | it | the | my | what ) \b
    | \b (?: it | that | this | answer | which | result | value )
      [ ](?: should | must | (?: ought | has | needs )[ ]to )
      (?: [ ](?: actually | rather | really | instead ) )?
      [ ](?: be | have[ ]been | read )[ ](?: rather | instead | actually )? [ ]?
      (?= [-$\\(]{0,3}[0-9] )
    | (?<=;) [ ]? (?: and[ ] )? then ,? [ ](?: we | i | you )
      [ ](?: double | halve | add | subtract | multiply | divide | square )
"""
"""`I made a mistake`, `let me start over`, `it should be 43`."""
_GIVING_UP = r"""
    \b (?: i | we ) [ ] (?: really[ ] | still[ ] | just[ ] | simply[ ] )?
    (?: (?: can(?: not | ['’]t ) | could[ ]not | couldn['’]t | am[ ]unable[ ]to
        | am[ ]not[ ]able[ ]to | do(?: n['’]t | [ ]not )[ ]know[ ]how[ ]to )
        [ ](?: say | tell | determine | give | decide | solve | answer | find
          | be[ ]sure | conclude | know )
      | do(?: n['’]t | [ ]not )[ ]know\b (?! [ ](?: if | whether )[ ]you )
      | am[ ](?: not[ ]sure | unsure | no[ ]longer[ ]sure | lost | stuck )\b )
"""
"""`I can't say`: what gives up."""
_BOTH = r"""
    \b both [ ](?: of[ ](?: them | these )[ ] )?
    (?: (?: cases | answers | values | results | solutions | options ) [ ] )?
    (?: are | is | would[ ]be | could[ ]be | may[ ]be | seem | can[ ]be )
    (?: [ ](?: equally | still | indeed ) )?
    [ ](?: possible | right | correct | valid | acceptable | plausible )
"""
"""`Both cases are possible`: what settles on neither of two."""
_ELSEWHERE = r"""
    (?: \A | [。、.,!?\n\uff0c\uff01\uff1f] ) \s?
    (?: 不对 | 不對 | 错了 | 錯了 | 等等 | 等一下 | 应该是 | 應該是 | 更正
      | いや | 違 | 間違 | 訂正 | 아니 | 잠깐 | 틀렸
      | perdón | mejor[ ]dicho | pardon | plutôt | falsch | quatsch | scusa | desculpe
      | нет (?!\w) | ошиб | moment (?=[ ]?[,!.]) | attendez | espera | aspetta | wacht
      | czekaj | подожди | стоп )
    | \b (?: stimmt[ ]nicht | klopt[ ]niet | (?: ist | war )[ ](?: \w{1,10}[ ])?falsch
      | verrechnet | mich[ ]geirrt | trompée? | c['’]est[ ]faux | est[ ]fausse?
      | n['’]est[ ]pas[ ](?: correcte? | juste | bonne? ) | me[ ]equivoqu[eé]
      | está[ ](?: mal | errad[oa] ) | no[ ]es[ ]correct[oa] | enganei | errei
      | è[ ]sbagliat[oa] | ho[ ]sbagliato | неверн\w{1,3} | неправильн\w{1,3} ) \b
    | 不正确 | 不正確 | 重新 | 错误 | 錯誤 | 잘못
"""
"""`不对`, `違います`, `falsch`: the same in other languages."""
_TAKEN_BACK = re.compile(
    "|".join(
        (
            *(_INTERJECTION, _JUDGEMENT, _FAILURE, _CONFESSION, _GIVING_UP),
            *(_BOTH, _ELSEWHERE),
        )
    ),
    re.VERBOSE | re.IGNORECASE,
)
_DRESS = r"""[\s*_"'”’)$\]}\\.]{0,6}"""
_AT_ONCE = re.compile(
    rf"""
      {_DRESS} [(\[]? (?: wrong | incorrect | mistaken | not[ ]correct ) (?![A-Za-z])
    | {_DRESS} (?: ,[ ] )? (?: which[ ] | but[ ](?: it | that | this )[ ] )?
      (?: is | was | were | would[ ]be | seems | looks | must[ ]be
        | can(?: not | ['’]t )[ ]be | could[ ]not[ ]be | isn['’]t | wasn['’]t )
      {_ADVERBS} [ ]
      (?: {_WRONG} | right[ ]out | {_NOT_RIGHT}
        | an?[ ](?: wrong | incorrect | false | bad | naive | common | tempting | first
          | mere )[ ]
        | the[ ](?: wrong | incorrect | naive | tempting | first | initial | old )[ ]
        | what[ ](?: you | one | people | some | many | we[ ]would )[ ] )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What takes an answer back if it follows at once: `42 is wrong`."""
_RIGHT_ONE = re.compile(
    r"""
    \b (?: correct | right | true | actual | real | proper )
    [ ](?: value | result | number | count | total | sum | solution | one )
    (?: [ ](?: is | was | should[ ]be | must[ ]be | equals | would[ ]be ) | [ ]?[:=] )
    [ ] [$*("'“\\{]{0,4} (?=[-0-9.\\])
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What names the right value, which may be another one."""
_IT_IS = re.compile(
    r"""
    (?: (?<! where[ ] )(?<! when[ ] )(?<! which[ ] )
        \b(?: it | that | this ) (?: ['’]s | [ ](?: is | was | equals ) )
      | \bresult[ ](?: is | becomes )
      | \bin[ ](?: truth | fact | reality ) [ ,]{0,2} )
    [ ] (?: actually[ ] | really[ ] | in[ ]fact[ ] | now[ ] )? [$*("'\\]{0,3}
    (?P<value> -?[0-9][0-9.,/]{0,20} ) [$*)"'\\]{0,3}
    (?= [.!;,](?: \s | \Z ) | \s*\Z | \n )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What gives another value soon after: `in fact it is 28`."""
_NOT = re.compile(
    r"""
    (?: \b(?: not | never | cannot[ ]be | can['’]t[ ]be | neither ) | n['’]t )
    [ ](?: be[ ] | equal[ ]to[ ] )? [$*("'“\\{]{0,4}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TEXT = re.compile(r"\\text(?:bf|it|rm)? ?\{([^{}]*)\}")
_EDGES = " \n$*_\"'“”()[]{}.,;:"


def taken_back(text: str, end: int, value: str) -> str:
    """Return the words that take a value back; "" if none do.

    Args:
        end: Where the value ends.
        value: What the words may deny: "not 42".
    """
    rest = _TEXT.sub(r" \1 ", text[end:])
    found = _AT_ONCE.match(rest) or _TAKEN_BACK.search(rest)
    if found:
        return found[0].strip(_EDGES)
    bare = value.strip(_EDGES)
    return (_other_value(rest, bare) or _denial(rest, bare)) if bare else ""


def _other_value(rest: str, value: str) -> str:
    """Return what names another value as the right one."""
    for right in _RIGHT_ONE.finditer(rest):
        if not rest.startswith(value, right.end()):
            return right[0]
    other = _IT_IS.search(rest, 0, _MAX_NEXT_CHARS)
    if other and not rest.startswith(value, other.start("value")):
        return other[0]
    return ""


def _denial(rest: str, value: str) -> str:
    """Return what denies the same value: "not 42"."""
    for number, denial in enumerate(_NOT.finditer(rest)):
        if number == _MAX_DENIALS:
            break
        following = denial.end() + len(value)
        if rest.startswith(value, denial.end()) and not _goes_on(rest, following):
            return rest[denial.start() : following]
    return ""


def _goes_on(text: str, at: int) -> bool:
    """Return whether a value goes on: 42 is not 421, 42.5 or 42x."""
    mark = text[at : at + 1]
    if mark.isalnum() or mark in ("^", "_", "/", "\\"):
        return True
    return mark in (".", ",") and text[at + 1 : at + 2].isdigit()
