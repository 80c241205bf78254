"""Where a reply says which option it chooses, and where it takes that back.

Patterns are run on `blanked` text, in which marks of Markdown and LaTeX are blanks, so
that `**Answer:** $\\text{B}$` reads as `Answer: B` and every place stays where it was.
All repeats are bounded: the time is linear in the text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aipo_env.verifiers.extract import TAG, boxes

Dress = Literal["mark", "line", "verdict"]
"""A box or an answer tag; what follows "the answer is"; a letter that "is correct"."""
WORD_CHAR = r"[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
"""A letter or digit of a writing that parts words by blanks, for patterns."""

_DRESS = re.compile(
    r"""
      \\(?: text | textbf | textit | textrm | mathrm | mathbf | mathit | bf ) \b
    | \\[()\[\],;:!\ ]         # fences and blanks of LaTeX's
    | \\boxed \b | \\fbox \b
    | </?answer>
    | </s> | <\|\w{1,30}\|>     # what ends a turn for some tokenizers
    | [*_`${}~"“”«»„]          # marks of Markdown, dollar signs, braces, quotes
    | (?<!\w) ['’\u2018] | ['’\u2018] (?!\w)        # quotes, not apostrophes
    """,
    re.VERBOSE | re.IGNORECASE,
)
_OPEN_BOX = re.compile(r"\\f?box(?:ed)? {0,3}\{")
_OPEN_TAG = re.compile(r"<answer>", re.IGNORECASE)
_CLOSED_TAG = re.compile(r"</answer>", re.IGNORECASE)

_ANSWER = r"""
    (?: \b answer s? | \b ans | \b my \s (?: choice | pick )
    |   \b (?: correct | right | best | proper | final )
        \s (?: option | choice | letter | response | alternative | statement | one )
    )
    (?: \s (?: to | for | of ) \b [^.\n:?!]{1,80}? )?      # to this question
"""
"""What is said to be something, in English; for verbose patterns that ignore case."""
_IS = r"""
    (?: \s{1,3} (?: clearly | therefore | thus | then | hence | indeed | probably )
        ,? )?
    \s{0,9}
    (?: (?: is | must\ be | should\ be | would\ be | will\ be | has\ to\ be
          | can\ only\ be | remains ) \b
    |   [:=→] | -{1,2}>? | [–—]
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
    # In other languages.
    \b (?: antwort | lösung | respuesta | réponse | reponse | risposta | resposta
       | antwoord | odpowiedź | odpověď | svar | vastaus | cevap | yan\u0131t
       | ответ | відповідь | απάντηση | đáp\ án | jawaban | उत्तर | الإجابة | الجواب )
    \b
    (?: \s \w{{1,14}} )?                             # resposta correta
    \s{{0,9}}
    (?: (?: ist | lautet | es | est | è | é | is | är | on | jest | là | adalah | है | هي
       | هو ) \b
    |   [:=–—-] )
    \s{{0,9}} :? \s{{0,20}}
    |
    (?: 答案 | 正解 | 答え | 정답 | 답 | 正[确確] 的? [选選] [项項] )
    \s{{0,3}} (?: 应该 | 應該 )? (?: 是 | 为 | 為 | 选 | 選 | は | 은 | 는 | 이 )?
    \s{{0,3}} :? \s{{0,20}}
    |
    (?: 应 | 應 | 故 | 所以 )? [选選] (?: 择 | 擇 )? (?! 项 | 項 )
    \s{{0,3}} :? \s{{0,9}}
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""What stands before a choice, on its line or on the line before."""
_LONE_ANSWER = re.compile(
    r"""
    (?i: \b answer | \b option | \b choice )
    \s (?= (?: [(\[] [A-Za-z] [)\]] | [A-Z] ) [.!,;)\s]{0,9} (?: \n | $ ) )
    """,
    re.VERBOSE,
)
"""`Answer B` or `answer (b)`, with nothing between, at the end of a line. Whether an
option is chosen so, or only named, `_is_alone` tells."""
_CHOSEN = re.compile(
    r"""
    \b (?: i | we | i['’]ll | i['’]d )
    (?: \s (?: would | will | therefore | thus | must | can | shall ) )?
    \s (?: choose | chose | pick | picked | select | selected | go\ with | went\ with
       | opt\ for | am\ going\ with )
    \s (?= (?: the\ )? (?: option\ | choice\ | letter\ | answer\ )?
           [(\[]? [a-z] [)\]]?
           (?: \s{0,3} [.!,;:\n] | \s{0,3} $ | \s (?: because | since | over | rather
                 | instead | not ) \b
           |   \s as \s (?: it | (?: the | my | our ) \s
                  (?: \w{1,9} \s )? (?: answer | option | choice ) ) \b
           ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""I choose B. Not: we choose A to be the origin."""
_VERDICT = re.compile(
    rf"""
    (?<! {WORD_CHAR} ) (?<! ['’-] )
    (?: (?: [Oo]ption | [Cc]hoice | [Aa]nswer | [Ss]tatement ) \s )?
    [(\[]? ([A-Z]) [)\]]?
    (?: \s (?: is | must\ be | has\ to\ be | should\ be )
        (?: \s (?: clearly | indeed | thus | therefore | obviously | definitely ) )?
        \s (?: the\ )? (?: only\ )?
        (?: (?: correct | right | best ) (?: \ (?: answer | option | choice | one ) )?
        |   (?: final\ )? answer
        )
        \s{{0,3}} (?= [.!,;\n] | $ | \b (?: because | since | as | and ) \b )
    |   \s{{0,3}} (?: 项 | 選項 | 选项 )? \s{{0,3}} 是? (?: 正确 | 正確 )
    )
    """,
    re.VERBOSE,
)
_CONDITION = re.compile(
    r"\b(?:if|whether|suppose|assum\w{1,4}|unless|when|claims?)\b", re.IGNORECASE
)
"""What before "B is correct" makes it no statement, in the same clause."""
_DENIAL = re.compile(
    r"\b(?:not|nor|neither|would|could|only\ when)\b | n['’]t\b | 不",
    re.VERBOSE | re.IGNORECASE,
)
"""Likewise, in the same part of the clause."""
_PART = re.compile(r",|\bbut\b|\byet\b|\bwhile\b", re.IGNORECASE)
"""What parts a clause: A is not correct, but B is correct."""
_NOT_MINE = re.compile(
    r"""
    # A wrong answer, my first answer: another than the one that is given.
    \b (?: wrong | incorrect | false | bad | common | popular | usual | tempting
       | obvious | naive | expected | earlier | previous | initial | first | old
       | original | alternative | another | other | possible | plausible | an )
    \s{0,3} $
    |
    # What would follow if; what somebody says.
    \b (?: if | whether | suppose | supposing | assum\w{1,4} | unless | thought ) \b
    |
    \b (?: says? | said | thinks? | believes? | claims? | argues? | guess )
    (?: \s that )? (?: \s the )? (?: \s \w{1,12} )? \s{0,3} $
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What before "answer" makes it none that the reply gives."""
_OWN = re.compile(
    r"\b(?:i|we|i['’]d)\s(?:\w{1,9}\s)?(?:say|think|believe|claim|argue|guess)\b",
    re.IGNORECASE,
)
"""Who says it is the reply itself."""
_BESIDE = re.compile(r"\b([A-Z])[)\]]?\s{0,3}(?:,|/|&|and|or|nor|和|或)\s{0,3}$")
"""Another letter of which the same is said: A and B is correct."""
_CLAUSE_START = re.compile(r"[.!?;:\n]")
_MAX_BEFORE = 60
"""Characters before "B is correct" that are searched for what makes it doubtful."""
_MAX_CONTENT = 300
"""Characters of a line behind "the answer is" that are read."""

_TAKEN_BACK = re.compile(
    r"""
    (?: ^ | [.!?…:;\n(–—] | \s- | \b(?: oh | but | ah | oops ) \b ,? )
    \s{0,9}
    (?: wait \b
    |   actually
        (?: \s? [,:] | \s (?: it | that | this | no | the\ answer | [a-z] ) \b )
    |   correction \b
    |   hmm{0,9} \b
    |   scratch\ that
    |   on\ second\ thoughts? \b
    |   hold\ on \b
    |   oops \b | sorry \b
    |   no [,.!:] | no\ wait \b
    |   (?: i\ was | that\ is | that['’]s | that\ was | this\ is )
        \ (?: wrong | incorrect | mistaken | a\ mistake | not\ (?: right | correct ) )
    |   i\ take\ (?: it | that | this ) \ back
    |   i\ made\ (?: a | an ) \ (?: mistake | error )
    )
    |
    (?: [,–—] | -- ) \s{0,3} (?: no \s{0,2} [,:;.–—-] | wait \b )
    |
    (?: 不对 | 等等 | 等一下 )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind an answer takes it back, at the start of a sentence."""


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


def blanked(text: str) -> str:
    """Return a text of the same length in which marks of Markdown and LaTeX are blanks.

    >>> blanked("**Answer:** $B$")
    '  Answer:    B '
    """
    return _DRESS.sub(lambda mark: " " * len(mark[0]), text)


def choice_places(text: str) -> list[ChoicePlace]:
    """Return the places of a reply that may name an option, in order.

    None reaches into the next. A box or a tag that holds another place, as in
    `<answer>The answer is B</answer>`, ends where that begins.
    """
    plain = blanked(text)
    found = [*_marked(text), *_stated(plain), *_verdicts(plain)]
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


def is_taken_back(text: str) -> bool:
    """Return whether a sentence that follows an answer takes it back.

    Args:
        text: `blanked`.
    """
    return _TAKEN_BACK.search(text) is not None


def _last(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Return the last match, if there is one."""
    return list(pattern.finditer(text))[-1:]


def _marked(text: str) -> Iterator[ChoicePlace]:
    """Yield boxes and answer tags."""
    for start, end, _ in boxes(text):
        inner = text.index("{", start) + 1
        yield ChoicePlace(start, inner, end - 1, "mark")
    for tag in TAG.finditer(text):
        yield ChoicePlace(tag.start(), tag.start(1), tag.end(1), "mark")


def _stated(plain: str) -> Iterator[ChoicePlace]:
    """Yield what follows "the answer is", to the end of its line."""
    for pattern in (_STATED, _CHOSEN, _LONE_ANSWER):
        for match in pattern.finditer(plain):
            if pattern is _LONE_ANSWER and not _is_alone(plain, match):
                continue
            clause = _clause_before(plain, match)
            if _NOT_MINE.search(clause) and not _OWN.search(clause):
                continue
            line_end = plain.find("\n", match.end())
            end = len(plain) if line_end < 0 else line_end
            end = min(end, match.end() + _MAX_CONTENT)
            yield ChoicePlace(match.start(), match.end(), end, "line")


def _is_alone(plain: str, match: re.Match[str]) -> bool:
    """Return whether nothing but "so" or "final" stands before a match on its line."""
    line_start = plain.rfind("\n", 0, match.start()) + 1
    before = plain[line_start : match.start()].strip(" \t#>,.:").casefold()
    last_word = before.rpartition(" ")[2]
    return last_word in ("", "so", "thus", "therefore", "hence", "final", "the", "my")


def _clause_before(plain: str, match: re.Match[str]) -> str:
    """Return what stands before a match in its clause."""
    before = plain[max(0, match.start() - _MAX_BEFORE) : match.start()]
    return _CLAUSE_START.split(before)[-1]


def _verdicts(plain: str) -> Iterator[ChoicePlace]:
    """Yield the letters of which it is said that they are correct."""
    for match in _VERDICT.finditer(plain):
        clause = _clause_before(plain, match)
        if _CONDITION.search(clause) or _DENIAL.search(_PART.split(clause)[-1]):
            continue
        beside = _BESIDE.search(clause)
        others = beside[1] if beside else ""
        # Its letter is the first of what it says.
        begin = match.start(1)
        yield ChoicePlace(match.start(), begin, match.end(), "verdict", others)
