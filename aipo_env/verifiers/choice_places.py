"""Where a reply says which option it chooses.

Patterns are run on `blanked` text, in which marks of Markdown and LaTeX are blanks, so
that `**Answer:** $\\text{B}$` reads as `Answer: B` and every place stays where it was.
All repeats are bounded: the time is linear in the text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aipo_env.verifiers.choice_doubts import (
    is_doubted,
    is_doubted_elsewhere,
    is_other_answer,
    is_other_question,
    is_supposed,
)
from aipo_env.verifiers.choice_elsewhere import (
    STATED_ELSEWHERE,
    VERDICT_ELSEWHERE,
    WORD_CHAR,
)
from aipo_env.verifiers.choice_options import blanked
from aipo_env.verifiers.extract import boxes

Dress = Literal["mark", "line", "verdict", "named", "conclusion"]
"""A box or an answer tag; what follows "the answer is"; a letter, or something else,
that "is correct"; what a last line concludes.
"""

_OPEN_BOX = re.compile(r"\\f?box(?:ed)? {0,3}\{")
_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.S | re.IGNORECASE)
_OPEN_TAG = re.compile(
    r"(?<![\"'`])<answer>(?![\"'`]|\s{0,3}(?:tags?|and|\.{3}|…))", re.IGNORECASE
)
"""Not one that is only spoken of: put it in <answer> tags."""
_CLOSED_TAG = re.compile(r"</answer>", re.IGNORECASE)

_ANSWER = r"""
    (?: \b answer s? | \b ans | \b my \s (?: choice | pick )
    |   \b (?: correct | right | best | proper | final )
        \s (?: option | choice | letter | response | alternative | statement | one )
    )
    ( \s (?: to | for | of ) \b (?! \s (?-i: [A-Z] ) \s? [:–—] )
      [^.\n:?!]{1,80}? )?                                # to this question
"""
"""What is said to be something, in English; for verbose patterns that ignore case."""
_IS = r"""
    (?: \s (?: here | in\ this\ (?: case | question | problem ) | then
        | (?: among | from | of ) \ (?: the | these )
          \ (?: options | choices | given\ (?: options | choices ) ) ) )?
    (?: , \s (?: then | therefore | thus | hence ) , )?
    (?: \s{1,3} (?: clearly | therefore | thus | then | hence | indeed | probably )
        ,? )?
    \s{0,9}
    (?: (?: is | (?: must | should | would | will ) \s
          (?: (?: therefore | thus | then | hence | indeed | surely ) \s )? be
          | has\ to\ be | can\ only\ be | remains ) \b
    |   [:=→] | -{1,2}> | -{1,2} (?! [a-z]{2} ) | [–—]
    )
"""
_STATED = re.compile(
    rf"""
    {_ANSWER} {_IS} \s{{0,9}} :? \s{{0,20}}          # the answer is B; ANSWER: B
    |
    # A heading: the answer is on the next line that is not empty.
    ^ [ \t>#]{{0,9}}
    (?: the\ )? (?: final\ | correct\ | my\ )? answer [ \t]{{0,9}} [:.]?
    [ \t]{{0,9}} \n \s{{0,20}}
    |
    ^ [ \t]{{0,9}} \#{{4}} [ \t]{{0,9}}              # #### B
    |
    ^ [ \t]{{0,9}} [✅✔✓☑] \ufe0f? \s{{0,3}}               # a tick
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""What stands before a choice, on its line or on the line before."""
_KEY = re.compile(
    r"""
    " (?: (?: final | correct | selected | chosen | best )_ )?
    (?: choice | option | letter | answer_choice | answer_letter | prediction
      | selection | selected | response )
    " \s{0,3} : \s{0,3}
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A key of JSON that holds a choice; "answer" is a statement like others."""
_LONE_ANSWER = re.compile(
    r"""
    (?i: \b answer | \b option | \b choice )
    \s (?= (?: [(\[] [A-Za-z] [)\]] | [A-Z] ) [.!,;)\s]{0,9} (?: \n | $ ) )
    """,
    re.VERBOSE,
)
"""`Answer B` or `answer (b)`, with nothing between, at the end of a line. Whether an
option is chosen so, or only named, `_is_alone` tells."""
_SELF = r"""
    \b (?: i | we | (?: i | we ) ['’] (?: ll | d | m | re ) | let['’]s | let \s me )
"""
_MODAL = r"""
    (?: would | will | must | can | shall | should | am | are
      | (?: have | need ) \s to )
"""
_ADVERB = r"""
    (?: therefore | thus | hence | accordingly | consequently | clearly | definitely
      | certainly | ultimately | confidently | simply | surely | still | rather
      | probably | instead )
"""
_CHOSEN = re.compile(
    rf"""
    (?: {_SELF}
        (?: ,? \s (?: {_MODAL} | {_ADVERB} ) ,? ){{0,4}}
        \s (?: choose | pick | select | go \s (?: with | for ) | opt \s for
          | settle \s (?: on | for ) | vote \s for
          | going \s (?: with | for ) | choosing | picking | selecting
          | opting \s for | settling \s (?: on | for ) )
    |   \b (?: i | we | i['’]d ) (?: \s (?: therefore | thus ) )?
        \s (?: chose | picked | selected | went \s with )
    )
    \s (?= (?: the\ )? (?: option\ | choice\ | letter\ | answer\ )?
           [(\[]? [a-z] [)\]]?
           (?: \s{{0,3}} [.!,;:\n–—] | \s{{0,3}} $
           |   \s \( [^()\n]{{1,80}} \) \s{{0,3}} (?: [.!,;:\n] | $ )
           |   \s (?: here | because | since | over | rather
                 | instead | not ) \b
           |   \s as \s (?: it | (?: the | my | our ) \s
                  (?: \w{{1,9}} \s )? (?: answer | option | choice ) ) \b
           ) )
    |
    # I change my answer from B to A
    \b (?: chang(?: e | ed | es | ing ) | switch(?: ed | ing )?
       | revis(?: e | ed | ing ) | correct(?: ed | ing )? | updat(?: e | ed | ing )
       | amend(?: ed | ing )? )
    \s (?: my | the | this ) \s (?: final \s | first \s | initial \s )?
    (?: answer | choice | pick | selection | response ) \s
    (?: from \s (?: option \s )? [(\[]? [a-z] [)\]]? \s )? to
    \s (?= (?: option\ | choice\ | answer\ )? [(\[]? (?-i: [A-Z] ) [)\]]?
           (?: \s{{0,3}} [.!,;:(\n–—] | \s{{0,3}} $
           |   \s (?: here | because | since | as | instead | now ) \b ) )
    |
    \b (?: i | we | i['’]ll | i['’]d | i['’]m | let\ me | let['’]s | must | should )
    \s (?: therefore \s | thus \s | now \s | have\ to \s | must \s )?
    (?: chang(?: e | ed | ing ) | switch(?: ed | ing )? | revis(?: e | ed | ing )
      | correct(?: ed | ing )? | amend(?: ed | ing )? )
    \s (?: it \s | this \s | that \s )? to
    \s (?= (?: option\ | choice\ | answer\ )? [(\[]? (?-i: [A-Z] ) [)\]]?
           (?: \s{{0,3}} [.!,;:(\n–—] | \s{{0,3}} $
           |   \s (?: here | because | since | as | instead | now ) \b ) )
    |
    \b (?: making | makes | leaves | leaving )
    \s (?= (?: option\ | choice\ | answer\ )? [(\[]? (?-i: [A-Z] ) [)\]]?
           \s (?: as \s )? (?: the \s )? (?: only \s )?
           (?: correct | right | best | most \s \w{{4,14}} | only | answer )
           (?: \s (?: answer | option | choice | one ) )?
           (?: \s{{0,3}} [.,;!)\n] | $ | \s (?: here | because | since | as ) \b ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""I choose B; making B the best. Not: we choose A to be the origin."""
_WOULD = re.compile(r"\bwould\b|['’]d\b", re.IGNORECASE)
_VERDICT = re.compile(
    rf"""
    (?<! {WORD_CHAR} ) (?<! ['’-] )
    (?: (?: [Oo]ption | [Cc]hoice | [Aa]nswer | [Ss]tatement ) \s
        (?: (?: [(\[] | (?<= tion \s ) | (?<= oice \s ) )
            (?P<small> [a-z] ) [)\]]? (?= \s )
        |   (?= [(\[]? [A-Z] ) ) )?
    (?(small) | [(\[]? (?P<letter> [A-Z] ) [)\]]? )
    (?: ,? \s (?: is | must\ be | has\ to\ be | should\ be )
        (?: \s (?: clearly | indeed | thus | therefore | obviously | definitely ) )?
        \s (?: (?: the | my | our )\ )? (?: only\ )?
        (?: (?: option | choice | one ) \ (?: left | remaining | that \ remains )
        |   (?: correct | right | best | better )
            (?: \ (?: answer | option | choice | one | response ) )?
        |   (?: credited | keyed | required | desired | intended )
            \ (?: answer | option | choice | one | response )
        |   (?: final\ )? answer
        |   (?<= the\ ) one (?= \s{{0,3}} (?: [.!\n] | $ ) )
        )
        \s{{0,3}} (?= [.!,;:(\n–—] | $ | \b (?: here | because | since | as | and ) \b )
    |   \s{{0,3}} (?: 项 | 選項 | 选项 )? \s{{0,3}} 是? (?: 正确 | 正確 )
        (?! \s{{0,3}} [吗嗎] )
    |   \s it\ is (?= \s{{0,3}} (?: [.!\n] | $ ) )          # option B it is
    )
    """,
    re.VERBOSE,
)
_ALONE = re.compile(
    r"""
    \b only \s
    (?: (?: the \s )? (?: option | choice | statement | answer | candidate ) \s )?
    (?: [(\[] (?P<small> [a-z] ) [)\]] | [(\[]? (?P<letter> (?-i: [A-Z] ) ) [)\]]? )
    \s
    (?: works | fits | remains | survives | satisfies | matches | qualifies | holds
      | agrees | (?: is | stands ) \s (?: left | possible | valid | true | consistent )
      | meets | makes \s sense | stands | can \s (?: be \s (?: right | correct | true )
        | work ) )
    \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""The letter of the option that alone is what is asked for: so only (D) works."""
_NAMED = re.compile(
    r"""
    \s (?: is | must\ be | has\ to\ be )
    (?: \s (?: clearly | indeed | thus | therefore | then ) )?
    \s (?: (?: the | our | my ) \s (?: (?: correct | right | final | best ) \s )?
            (?: answer | option | choice )
        |   (?: correct | right )
        )
    \s{0,3} (?= [.!,;\n] | $ | \b (?: here | because | since | as ) \b )
    | \s it \s is (?= \s{0,3} (?: [.!\n] | $ ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What is said of an option that is named by its text: Lyon is the answer."""
_NAME_START = re.compile(
    r"[.!?;:,\n]|\b(?:so|thus|hence|therefore|and|but|that)\s", re.IGNORECASE
)
_BESIDE = re.compile(r"\b([A-Z])[)\]]?\s{0,3}(?:,|/|&|and|or|nor|和|或)\s{0,3}$")
"""Another letter of which the same is said: A and B is correct."""
_QUOTED = re.compile(
    r"""
      " [^"\n]{1,400} "
    | “ [^”\n]{1,400} ”
    | « [^»\n]{1,400} »
    | 「 [^」\n]{1,400} 」
    | ` [^`\n]{1,400} `
    | (?<! \w ) ['\u2018] [^'’\n]{1,400} ['’] (?! \w )
    """,
    re.VERBOSE,
)
_SUPERLATIVE = r"""
    (?: best | correct | right | true | valid | proper | intended | credited | keyed
      | closest | strongest | clearest | likeliest | safest
      | only \s (?: true | valid | correct | possible )
      | most \s (?: likely | probable | appropriate | accurate | suitable | plausible
        | consistent | reasonable | effective | logical | fitting | precise | faithful
        | defensible | complete | natural | convincing | relevant | specific
        | compelling | useful | common ) )
"""
_TOLD_NOUN = r"""
    (?: answer | diagnosis | cause | explanation | treatment | management | test
      | step | statement | conclusion | interpretation | description | term | word
      | response | mechanism | reason | result | value | expression | formula | order
      | sequence | outcome | complication | organism | compound | reaction | product
      | structure | summary | inference | assumption | title | theme | phrase | sentence
      | argument | claim | candidate | match | fit | reading | translation | synonym
      | antonym | definition | example | model | equation | pair | completion
      | paraphrase | analogy | hypothesis | method | approach | strategy | action
      | procedure | measure | therapy | drug | agent | medication | finding | account
      | characteri[sz]ation | rendering | consequence | prediction | solution
      | criticism | objection | evidence | principle | relationship | classification
      | name | site | location | design | diagram )
"""
"""What an option may be said to be: the most accurate summary."""
_CONCLUDED = re.compile(
    rf"""
    (?: (?: ^ | [.!?;:,(–—-] | \b(?: but | and | reflection | so ) \s ) \s{{0,3}}
        (?: (?: so | thus | hence | therefore | consequently ) [,:]? \s{{1,3}}
            (?: (?: it | that | this )
                (?: ['’]s | \s (?: is | must\ be | has\ to\ be ) ) \s{{1,3}}
            |   (?: the | my ) \s (?: \w{{2,15}} \s ){{1,4}}
                (?: is | must\ be ) \s{{1,3}}
            )?
        |   leav(?: ing | es ) \s{{1,3}} (?: (?: us | only | with ) \s{{1,3}} ){{0,3}}
        |   i\.e\.,? \s{{1,3}}
        |   by \s (?: (?: the \s )? process \s of \s )? (?: elimination | exclusion )
            [,:]? \s{{1,3}}
            (?: (?: it | that | this ) \s (?: is | must\ be | has\ to\ be ) \s{{1,3}}
            |   we \s (?: get | have | find | arrive\ at | are\ left\ with ) \s{{1,3}}
            |   (?: this | that | it | which ) \s leaves \s
                (?: (?: us | only | with ) \s ){{0,3}} )?
        |   (?: that | this | which | it ) \s (?: only \s | just \s )? leaves \s{{1,3}}
            (?: (?: us | only | with ) \s{{1,3}} ){{0,3}}
        |   (?: we | i ) (?: \s are | ['’]re | \s am ) \s left \s with \s{{1,3}}
        |   i (?: ['’]d | \s would )? \s say \s{{1,3}}
        |   (?: (?: i['’]m | i\ am ) \s (?: confident | sure | certain )
            |   i \s (?: think | believe ) ) \s (?: that\s )?
            (?: it['’]s | it\ is ) \s{{1,3}}
        |   (?: must | has\ to | gotta | got\ to ) \s be \s{{1,3}}
        |   (?: it | that )
            (?: ['’]s | \s (?: is | must\ be | has\ to\ be | can\ only\ be ) ) \s{{1,3}}
        |   (?: choose | pick | select | go\ with ) \s{{1,3}}
        )
    |
        \b which \s (?: is | corresponds\ to | matches | means ) \s{{1,3}}
    |   \b (?: this | that | it | result | value ) \s
        (?: corresponds\ to | matches | agrees\ with
          | is (?= \s (?: option | choice ) ) )
        \s{{1,3}}
    |
        \b the \s
        (?: (?: (?: correct | right | best | closest | better | remaining | only
                | valid | possible | most \s \w{{4,14}} ) \s ){{1,3}}
            (?: option | choice | one )
        |   (?: (?: only | single | one ) \s )? {_SUPERLATIVE} \s
            (?: next \s | initial \s | underlying \s )? {_TOLD_NOUN}
        |   (?: option | choice | one ) \s (?: that | which | to )
            \s (?: fits | matches | works | remains | is\ left | satisfies | is\ correct
                | is\ right | is\ true | choose | pick | select )
        )
        (?: [^.,:;\n] | \. (?= \d ) ){{0,40}}? \s is \s{{1,3}}
    |
        [,:;(–—-] \s{{0,3}} (?= (?: option | choice ) \s )
    |
        (?: matching | corresponding\ to | pointing\ to ) \s{{1,3}}
    |
        (?: → | ⇒ | [=-]> ) \s{{1,3}}
    )
    (?: the\s )? (?: option | choice | letter )? \s{{0,3}}
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""What stands before a choice that a last line comes to."""
_RELATIVE = re.compile(
    r"""
    \b the \s (?: only \s )?
    (?: option | choice | one | statement | answer | alternative | conclusion
      | explanation | description | inference | expression )
    \s (?P<clause> (?: that | which | who | whose | where ) \s [^.,:;?!\n]{1,120}? )
    \s (?: is | must \s be ) \s{1,3} (?: (?: option | choice ) \s )?
    (?= (?-i: [(\[]? [A-Z] ) [)\]]? \s{0,3} (?: [.,;:!(\n–—] | $ ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""The one that explains why it is so is B."""
_NEXT_STEP = re.compile(
    rf"\b {_SUPERLATIVE} \s next (?: \s step )? \b", re.VERBOSE | re.IGNORECASE
)
"""What is asked for, and no step on the way to it: the most appropriate next step."""
_LETTER_ENDS = r"""
    (?-i: [(\[]? [A-Z] ) [)\]]? \s{0,3}
    (?: [.;:!(\n–—] | $
    |   , (?! \s (?: but | though | although | yet | however | if | or | and ) \b ) )
"""
_TOLD_BY = re.compile(
    rf"""
    (?: \b best \s (?: corresponds \s to | matches | fits | agrees \s with )
    |   \b (?: corresponds | fits | matches | agrees ) \s
        (?: best | most \s \w{{4,14}} | exactly | precisely ) (?: \s (?: to | with ) )?
    )
    \s (?: (?: the \s )? (?: option | choice | answer | statement ) \s )?
    (?= {_LETTER_ENDS} )
    |
    \b (?: is | are ) \s (?: (?: therefore | thus | hence | clearly | then ) \s )?
    (?:
        (?: (?: best | better | most \s \w{{4,14}} | correctly | accurately | precisely
            | properly ) \s )
        (?: described | explained | represented | captured | given | shown | stated
          | summari[sz]ed | answered | supported | expressed | characteri[sz]ed
          | illustrated | defined | conveyed | reflected | completed | paraphrased
          | rendered | accounted \s for | addressed | matched | named )
        \s (?: by | in ) \s
        (?: (?: the \s )? (?: option | choice | answer | statement ) \s )?
    |
        (?: described | explained | captured | summari[sz]ed | answered | paraphrased )
        \s by \s
        (?: (?: the \s )? (?: option | choice | answer | statement ) \s )?
    |
        # What is given by a bare letter may be a quantity.
        (?: represented | given | shown | stated | supported | expressed | illustrated
          | defined | conveyed | reflected | completed | provided ) \s (?: by | in ) \s
        (?: (?: the \s )? (?: option | choice | answer | statement ) \s
          | (?= [(\[] [a-z] [)\]] | [a-z] \) ) )
    )
    (?= {_LETTER_ENDS} )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What stands before the option that says what is asked for: is best described by."""
_TELLS = re.compile(
    rf"""
    (?<! {WORD_CHAR} ) (?<! ['’-] )
    (?: (?: option | choice | answer | statement ) \s )?
    [(\[]? (?P<letter> (?-i: [A-Z] ) ) [)\]]? \s
    (?: (?: therefore | thus | hence | clearly ) \s )?
    (?: (?: best | (?: most | more ) \s \w{{4,14}}ly | correctly | accurately ) \s
        (?: describes | explains | captures | summari[sz]es | represents | fits
          | matches | answers | expresses | reflects | supports | states | completes
          | characteri[sz]es | conveys | accounts \s for | illustrates )
    |   is \s (?: (?: therefore | thus | hence | clearly ) \s )?
        the \s (?: (?: only | single | one ) \s )? {_SUPERLATIVE} \s {_TOLD_NOUN}
    )
    \b [^.,;:!?()\n]{{0,80}} (?= [.!\n] | $ )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""An option that is said to be it: B best describes what he does."""
_SMALL = re.compile(
    r"""
    (?: ^ | [.!?;\n] \s | \b (?: so | thus | hence | therefore ) ,? \s ) \s{0,3}
    (?P<letter> (?-i: [a-z] ) )
    (?: \s it \s is
    |   \s is \s (?: (?: the \s )? (?: correct | right | best ) \s
            (?: answer | option | choice | one )
          | the \s (?: answer | option | choice | one ) | correct | right ) )
    (?= \s{0,3} (?: [.!\n] | $ ) )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""A small letter that is said to be the answer: so c is right."""
_MISTAKE = re.compile(
    r"(?<!common\s)(?<!usual\s)(?<!typical\s)(?<!frequent\s)"
    r"\b(?:mistake|error|misconception|first|second|next)s?\b",
    re.IGNORECASE,
)
"""What may be asked for, and what is no doubt where an option tells it."""
_RESERVED = re.compile(
    r"\b(?:if|unless|when|or|only\s(?:if|for|in)|not|than|whether)\b|n['’]t\b",
    re.IGNORECASE,
)
"""What in a sentence makes it none that tells which option is chosen."""
_ASKING = re.compile(r"\b(?:which|what|who)\b", re.IGNORECASE)
_CROSSED_OUT = re.compile(
    r"""
    (?: [(\[]? [A-Z] [)\]]? (?: \s? , \s (?: and \s )? | \s and \s ) ){0,25}
    [(\[]? [A-Z] [)\]]?
    (?: ,? \s (?: which | that | since | as ) \s [^,.\n]{1,80} , )?
    \s (?: (?: both | all | also | too ) \s )?
    (?: can | are | is | must | have | has | were | was | could | cannot | do | does
      | fail\w? | violat\w{1,2} ) \b
    (?! \s (?: the \s )? (?: correct | right | best | answer ) )
    """,
    re.VERBOSE,
)
"""Options of which something else is said than that they are chosen."""
_TENTATIVE = re.compile(
    r"""
    \b (?: least | worst | weakest | wrong | incorrect | false | eliminated?
       | eliminating | discard\w{0,3} | drop\w{0,4} | remov\w{1,3} | reject\w{0,3}
       | avoid\w{0,3} | ignor\w{1,3} | omit\w{0,4} | fail\w{0,3} | violat\w{1,3}
       | exclud\w{1,3} | rul\w{1,3}\ out | distractor | tempting | contradict\w{0,3}
       | maybe | perhaps | possibly | unsure | uncertain | either | compar\w{1,4}
       | both (?! \s (?: statements? | assertions? | reasons? | conclusions? ) \b )
       | mistakes? | errors? | misconceptions?
       | first | second | next | consider\w{0,3} | except
       | (?: vitamin | hepatitis | type | group | grade | class | point | vertex | angle
           | side | set | event | chord | note | key | constant | figure | table
           | section | column | row | variable | unknown | plan | step ) s? (?= \s is )
       ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What makes a sentence none that concludes; letters that name other things than
options, among it.
"""
_DESCRIBED = re.compile(
    r"""
    \b (?: not | never | no | cannot | seem\w? | look\w? | might | may | could | would
       | people | some | students? | many | mention\w? | contain\w? | includ\w{1,2}
       | talk\w? | lists? | us(?: es | ed ) | close\ to | almost | nearly ) \b
    | n['’]t \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What in a relative clause tells an option apart, and does not choose it."""
_QUANTITY = re.compile(
    r"""
    \b (?: current | charge | capacitance | concentration | speed | velocity | area
       | acceleration | amplitude | field | distance | diameter | density | energy
       | displacement | force | constant | base | height | circumference | capacity )
    \s (?: is | must \s be ) \s{1,3} \Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What a letter may stand for that is no option's: so the current is C."""
_LONE_LETTER = re.compile(r"[A-Za-z](?!\w)")
_LEFT = re.compile(r"leav|left", re.IGNORECASE)
_CYRILLIC = re.compile(
    r"((?:ответ|вариант|відповідь)\b[^\n.]{0,20}[:–—-]\s{0,3}\(?)([АВСавс])"
    r"(?=\s{0,3}(?:[).,!]|$))",
    re.IGNORECASE | re.MULTILINE,
)
_LOOK_ALIKE = {"\u0410": "A", "\u0412": "B", "\u0421": "C"}
_OWN_ALPHABET = re.compile(r"(?<!\w)[БГД]\s{0,3}[).:]")
"""Options that are counted in Cyrillic: there B is the third."""
_CLAUSE_START = re.compile(r"[.!?;:\n]")
_SENTENCE_START = re.compile(r"[.!?]\s|\n")
_MAX_STATEMENTS = 256
"""Only so many statements of one kind are looked at, the last ones."""
_MAX_BEFORE = 160
"""Characters before a statement that are searched for what makes it doubtful."""
_MAX_CONTENT = 300
"""Characters of a line behind "the answer is" that are read."""


@dataclass(frozen=True, slots=True)
class ChoicePlace:
    """A place in a reply that may name an option.

    Args:
        start: Where it begins, in the text.
        begin: Where what it says begins, and `end` where it ends.
        dress: What marks it.
        others: Letters of which the same is said, before this one.
    """

    start: int
    begin: int
    end: int
    dress: Dress
    others: str = ""


def choice_places(text: str) -> list[ChoicePlace]:
    """Return the places of a reply that may name an option, in order.

    None reaches into the next. A box or a tag that holds another place, as in
    `<answer>The answer is B</answer>`, ends where that begins.
    """
    plain = blanked(text)
    quotes = _quotes(text)
    found = [
        *_marked(text, plain),
        *_stated(plain, quotes),
        *_verdicts(plain, quotes),
        *_judged_elsewhere(plain, quotes),
        *_named(plain, quotes),
    ]
    found.sort(key=lambda place: (place.start, place.begin))
    places: list[ChoicePlace] = []
    for number, place in enumerate(found):
        end = place.end
        if number + 1 < len(found) and place.dress != "verdict":
            end = min(end, max(found[number + 1].start, place.begin))
        if plain[place.begin : end].strip():
            places.append(
                ChoicePlace(place.start, place.begin, end, place.dress, place.others)
            )
    return places


def is_open_ended(text: str) -> bool:
    """Return whether the last box or answer tag of a text never closes."""
    for box in _last(_OPEN_BOX, text):
        depth = 0
        for brace in re.finditer(r"[{}]", text[box.start() :]):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                break
        if depth > 0:
            return True
    for tag in _last(_OPEN_TAG, text):
        return _CLOSED_TAG.search(text, tag.end()) is None
    return False


def in_latin(text: str) -> str:
    """Return a text in which Cyrillic letters that look like A, B and C are those.

    Only where they are an answer, and options are not counted in Cyrillic.
    """
    if _OWN_ALPHABET.search(text):
        return text
    return _CYRILLIC.sub(lambda said: said[1] + _LOOK_ALIKE[said[2].upper()], text)


def conclusions(text: str) -> list[ChoicePlace]:
    """Return the places of a reply's last line that may come to an option.

    They are read only where nothing else names one.
    """
    plain = blanked(text)
    begin = plain.rfind("\n", 0, len(plain.rstrip())) + 1
    quotes = _quotes(text)
    places: list[ChoicePlace] = []
    for match in list(_CONCLUDED.finditer(plain, begin))[-_MAX_STATEMENTS:]:
        start, end = match.span()
        if _CROSSED_OUT.match(plain, end):
            continue
        before = plain[max(begin, start - _MAX_BEFORE) : end]
        # Of a letter alone; an option's text may be a quantity.
        if _QUANTITY.search(before) and _LONE_LETTER.match(plain, end):
            continue
        sentence = _SENTENCE_START.split(before)[-1]
        # What is left when others are ruled out.
        is_left = _LEFT.search(match[0]) is not None
        part = sentence.rpartition(",")[2] if is_left else sentence
        part = _NEXT_STEP.sub(" ", part)
        if is_doubted(before) or _TENTATIVE.search(part):
            continue
        if not _is_quoted(start, end, quotes):
            last = min(len(plain), end + _MAX_CONTENT)
            places.append(ChoicePlace(start, end, last, "conclusion"))
    told = _told(plain, begin, quotes)
    return [*places, *_relative(plain, begin, quotes), *told]


def _relative(
    plain: str, begin: int, quotes: list[tuple[int, int]]
) -> Iterator[ChoicePlace]:
    """Yield what is said to be the one that does what is asked for."""
    for match in _RELATIVE.finditer(plain, begin):
        start, end = match.span()
        clause = match["clause"]
        before = plain[max(begin, start - _MAX_BEFORE) : start]
        sentence = _SENTENCE_START.split(before)[-1]
        is_choice = not _DESCRIBED.search(clause) and not _TENTATIVE.search(clause)
        is_doubtful = is_doubted(before) or _TENTATIVE.search(sentence) is not None
        if is_choice and not is_doubtful and not _is_quoted(start, end, quotes):
            last = min(len(plain), end + _MAX_CONTENT)
            yield ChoicePlace(start, end, last, "conclusion")


def _told(
    plain: str, begin: int, quotes: list[tuple[int, int]]
) -> Iterator[ChoicePlace]:
    """Yield what is said to tell, or to be, what is asked for."""
    for pattern in (_TOLD_BY, _TELLS, _SMALL):
        for match in list(pattern.finditer(plain, begin))[-_MAX_STATEMENTS:]:
            start, end = match.span()
            before = plain[max(begin, start - _MAX_BEFORE) : start]
            sentence = _MISTAKE.sub(" ", _SENTENCE_START.split(before)[-1])
            is_doubtful = is_doubted(before) or _TENTATIVE.search(sentence)
            is_asked = _ASKING.search(sentence)
            is_reserved = _RESERVED.search(sentence + match[0])
            if is_doubtful or is_asked or is_reserved or _is_quoted(start, end, quotes):
                continue
            if pattern is _TOLD_BY:
                last = min(len(plain), end + _MAX_CONTENT)
                yield ChoicePlace(start, end, last, "conclusion")
                continue
            beside = _BESIDE.search(_CLAUSE_START.split(before)[-1])
            others = beside[1] if beside else ""
            letter = match.start("letter")
            yield ChoicePlace(start, letter, end, "verdict", others)


def _last(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Return the last match, if there is one."""
    return list(pattern.finditer(text))[-1:]


def _marked(text: str, plain: str) -> Iterator[ChoicePlace]:
    """Yield boxes and answer tags, and keys of JSON."""
    for start, end, _ in boxes(text):
        if not is_doubted(_before(plain, start)):
            inner = text.index("{", start) + 1
            yield ChoicePlace(start, inner, end - 1, "mark")
    for tag in _TAG.finditer(text):
        yield ChoicePlace(tag.start(), tag.start(1), tag.end(1), "mark")
    for key in _KEY.finditer(text):
        end = text.find('"', key.end() + 1)
        if text[key.end() : key.end() + 1] == '"' and end > 0:
            yield ChoicePlace(key.start(), key.end() + 1, end, "mark")


def _stated(plain: str, quotes: list[tuple[int, int]]) -> Iterator[ChoicePlace]:
    """Yield what follows "the answer is", to the end of its line."""
    for pattern in (_STATED, _CHOSEN, _LONE_ANSWER, STATED_ELSEWHERE):
        for match in list(pattern.finditer(plain))[-_MAX_STATEMENTS:]:
            if pattern is _LONE_ANSWER and not _is_alone(plain, match):
                continue
            if pattern is _STATED and is_other_question(match[1] or ""):
                continue
            before = _before(plain, match.start())
            if is_doubted(before) or is_other_answer(before):
                continue
            if _WOULD.search(match[0]) and is_supposed(before):
                continue
            if pattern is STATED_ELSEWHERE and is_doubted_elsewhere(before):
                continue
            if _is_quoted(match.start(), match.end(), quotes):
                continue
            line_end = plain.find("\n", match.end())
            end = len(plain) if line_end < 0 else line_end
            end = min(end, match.end() + _MAX_CONTENT)
            yield ChoicePlace(match.start(), match.end(), end, "line")


def _is_alone(plain: str, match: re.Match[str]) -> bool:
    """Return whether nothing but "so" stands before a match in its sentence."""
    before = _SENTENCE_START.split(_before(plain, match.start()))[-1]
    before = before.strip(" \t#>,.:").casefold()
    last_word = before.rpartition(" ")[2]
    return last_word in ("", "so", "thus", "therefore", "hence", "final", "the", "my")


def _before(plain: str, start: int) -> str:
    """Return the end of what stands before a place."""
    return plain[max(0, start - _MAX_BEFORE) : start]


def _quotes(text: str) -> list[tuple[int, int]]:
    """Return where words are quoted; not where a whole line is, nor in JSON."""
    if text.lstrip("`json \n").startswith("{"):
        return []
    found = []
    for quoted in _QUOTED.finditer(text):
        line_start = text.rfind("\n", 0, quoted.start()) + 1
        line_end = text.find("\n", quoted.end())
        rest = text[quoted.end() : line_end if line_end >= 0 else len(text)]
        if (text[line_start : quoted.start()] + rest).strip(" \t*_#>.`"):
            found.append(quoted.span())
    return found


def _is_quoted(start: int, end: int, quotes: list[tuple[int, int]]) -> bool:
    """Return whether a statement and what it states stand in one pair of quotes."""
    return any(first < start and end < last for first, last in quotes)


def _verdicts(plain: str, quotes: list[tuple[int, int]]) -> Iterator[ChoicePlace]:
    """Yield the letters of which it is said that they are correct."""
    matches = [*_VERDICT.finditer(plain), *_ALONE.finditer(plain)]
    for match in matches:
        before = _before(plain, match.start())
        if is_doubted(before) or _is_quoted(match.start(), match.end(), quotes):
            continue
        beside = _BESIDE.search(_CLAUSE_START.split(before)[-1])
        others = beside[1] if beside else ""
        # Its letter is the first of what it says.
        begin = match.start("small" if match["small"] else "letter")
        yield ChoicePlace(match.start(), begin, match.end(), "verdict", others)


def _judged_elsewhere(
    plain: str, quotes: list[tuple[int, int]]
) -> Iterator[ChoicePlace]:
    """Yield the letters that are said to be correct in other languages."""
    for match in VERDICT_ELSEWHERE.finditer(plain):
        before = _before(plain, match.start())
        if is_doubted(before) or is_doubted_elsewhere(before):
            continue
        if _is_quoted(match.start(), match.end(), quotes):
            continue
        name = next(name for name, said in match.groupdict().items() if said)
        begin = match.start(name)
        yield ChoicePlace(match.start(), begin, match.end(), "verdict")


def _named(plain: str, quotes: list[tuple[int, int]]) -> Iterator[ChoicePlace]:
    """Yield what words are said to be correct, which may be an option's text."""
    for match in _NAMED.finditer(plain):
        before = _before(plain, match.start())
        name = _NAME_START.split(before)[-1]
        begin = match.start() - len(name)
        is_letter = len(name.strip(" ()[]")) == 1
        is_doubtful = is_doubted(before) or is_doubted(_before(plain, begin))
        if is_letter or is_doubtful or _is_quoted(begin, match.end(), quotes):
            continue
        yield ChoicePlace(begin, begin, match.start(), "named")
