"""Lists and tables in which a reply judges one option after the other.

The option that alone is found right is chosen, if all are listed and all others are
found wrong, or nothing is said of them. Texts are `blanked`; all repeats are bounded.
"""

import re
from typing import NamedTuple

from aipo_env.verifiers.choice_doubts import fault_behind, is_doubted
from aipo_env.verifiers.choice_options import LETTERS, blanked, without_dress

_MAX_BODY_CHARS = 1_000
"""Only so much of what is said of an option is read."""

_MAX_BEFORE = 160
"""Characters before a list that are searched for what makes it doubtful."""

_ENTRY = re.compile(
    r"""
    ^ [^\S\n]{0,9} (?: [>•*#|-] [^\S\n]{0,3} ){0,3}
    (?: \d{1,2} \. [^\S\n]{1,3} )?
    (?P<mark> [✅✔✓☑❌✗✘✖☒] \ufe0f? [^\S\n]{0,3} )?
    (?: (?: option | choice | statement | answer | antwort | aussage | opción | opcion
          | opção | opzione | optie | alternativa | réponse | proposition | respuesta
          | risposta | resposta | letra | вариант | opcja | phương\ án | đáp\ án
          | 选项 | 選項 | 選択肢 | 선택지 ) [^\S\n]{0,2} )?
    [(\[]? (?P<letter> [A-Z] ) (?! [\w'’] )
    [^\S\n]{0,3} (?: [)\].:|\uff1a–—→⇒✅✔✓☑❌✗✘✖☒] | [=-]> | - (?= [^\S\n] )
                   | \( | 项 | 項 | $ )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""How what is said of an option begins, on a line of its own."""
_AT = r"""
    (?: ^ | [–—:|→⇒(.,;?] | [=-]> | (?<= \s ) - (?= \s ) | \n )
    [\s>•*-]{0,9}
    (?: (?: this | it | that | which ) (?: \ (?: option | choice | statement | one ) )?
        \ (?: is | would\ be ) \s{1,3} | thus \s | so \s | 所以 | 故
      | is \s | verdict \s? : \s? )?
    (?: (?: clearly | also | therefore | simply | factually | definitely ) \s )?
"""
_END = r"""
    (?: \s (?: here | too | again | either ) )?
    (?= \s{0,3} (?: [.,;:!|)(–—。、\n-] | $ | because\b | since\b | as\b | for\b ) )
"""
_TRUE = re.compile(
    rf"""
    [✅✔✓☑] | (?<! \w ) ○
    | {_AT}
      (?P<word> correct | right | yes | valid
        | (?: the | our ) \ (?: correct\ | right\ | best\ )?
          (?: answer | choice | option )
        | richtig | korrekt | correct[ao]s? | correcte | cert[ao] | corrett[ao]
        | giust[ao] | juist | goed | poprawn[aey] | prawidłow[aey] | верно
        | правильно | doğru | đúng | 正确 | 正確 | 对 | 符合 (?: 题意 | 題意 )?
        | 正しい | 正解 | 맞음 | 맞다 | 정답 | 옳다 | صحيحة? | صح
        | (?P<truth> true | wahr | verdader[ao] | verdadeir[ao] | vrai | ver[ao]
            | waar | prawda | правда ) )
      {_END}
    | {_AT} (?: this\ | it\ )? (?P<verb> works | fits | matches ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What says that an option is right, at the head of a clause."""
_FALSE = re.compile(
    rf"""
    [❌✗✘✖☒×]
    | {_AT}
      (?: incorrect | wrong | false | no | invalid | untrue
        | not\ (?: correct | right | true | valid | the\ answer | possible | it | this
            | that | him | her | them )
        | eliminated? | excluded | ruled\ out | rejected | impossible
        | falsch | nicht\ (?: richtig | korrekt ) | incorrect[ao]s? | incorrecte
        | fals[ao] | faux | fausse | errad[ao] | sbagliat[ao] | errat[ao] | onjuist
        | fout | niet\ (?: juist | correct ) | błędn[aey] | niepoprawn[aey]
        | nieprawidłow[aey] | fałsz | неверно | неправильно | нет | yanl\u0131ş | sai
        | 错误 | 錯誤 | 错 | 不正确 | 不正確 | 不对 | 不符合? (?: 题意 | 題意 )?
        | 誤り | 間違い | 틀림 | 틀리다 | 오답 | 옳지\ 않다 | خاطئة? | خطأ )
      {_END}
    | {_AT}
      (?: this\ | it\ | that\ )?
      (?: does\ not | doesn['’]t | do\ not | don['’]t | is\ not | isn['’]t | cannot
        | can['’]t | fails\ to | not ) \s{{1,3}} (?P<verb> [a-z]{{2,20}} ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What says that one is wrong, and the verb that is denied of it."""
_LEADS = " \t).:]"
"""Marks between a letter and what is said of its option."""
_PARAGRAPH_END = re.compile(r"\n[^\S\n]{0,9}\n")


class _Judged(NamedTuple):
    """What is said of an option: what says it is right, or wrong; where that ends."""

    rights: list[re.Match[str]]
    wrongs: list[re.Match[str]]
    body: str
    end: int


def of_verdicts(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the option that alone is judged right, and why what follows undoes it."""
    plain = blanked(text)
    letters = LETTERS[: len(choices)]
    judged, begin = _judged(plain, choices)
    if "".join(sorted(judged)) != letters:
        return "", ""
    # A student went through them like this: …
    before = plain[max(0, begin - _MAX_BEFORE) : begin]
    if is_doubted(before.rstrip(" \n:")):
        return "", ""
    rights = [letter for letter in letters if _is_right(letter, judged)]
    if len(rights) != 1:
        return "", ""
    letter = rights[0]
    others = [each for name, each in judged.items() if name != letter]
    if not all(each.wrongs for each in others):
        # Of a question what is not true, that which is marked may be what is.
        is_truth = any(mark["truth"] or mark["verb"] for mark in judged[letter].rights)
        is_marked = not any(each.wrongs or each.rights for each in others)
        if is_truth or not is_marked:
            return "", ""
    # Of two statements, the false one may be asked for.
    if len(choices) < 3 and any(mark["truth"] for mark in judged[letter].rights):
        return "", ""
    own_text = without_dress(choices[letters.index(letter)])
    rest = plain[max(each.end for each in judged.values()) :]
    fault = fault_behind(letter, own_text, letters, "\n" + rest)
    return ("", fault) if fault else (letter, "")


def _is_right(letter: str, judged: dict[str, _Judged]) -> bool:
    """Return whether an option is right, or alone does what others do not."""
    own = judged[letter]
    if own.rights or own.wrongs:
        return bool(own.rights) and not own.wrongs
    others = [each for name, each in judged.items() if name != letter]
    verbs = {mark["verb"] for each in others for mark in each.wrongs} - {None}
    if len(verbs) != 1 or not all(each.wrongs for each in others):
        return False
    verb = re.escape(verbs.pop())
    said = re.compile(
        rf"(?:[–—:→⇒.,\n]|[=-]>|\s-)\s{{0,3}}(?:is |can |does )?{verb}(?:s|es)?\b",
        re.IGNORECASE,
    )
    return said.search(own.body) is not None


def _judged(plain: str, choices: tuple[str, ...]) -> tuple[dict[str, _Judged], int]:
    """Return what the last list says of each option, and where the list begins."""
    letters = LETTERS[: len(choices)]
    entries = [
        entry for entry in _ENTRY.finditer(plain) if entry["letter"].upper() in letters
    ][-len(letters) :]
    judged: dict[str, _Judged] = {}
    for number, entry in enumerate(entries):
        is_last = number + 1 == len(entries)
        end = len(plain) if is_last else entries[number + 1].start()
        end = min(end, entry.end() + _MAX_BODY_CHARS)
        # A tick may stand before the letter, or take the place of a colon.
        begin = entry.end("letter")
        body = plain[begin:end]
        if is_last:
            gap = _PARAGRAPH_END.search(body)
            body = body[: gap.start()] if gap else body
        size = _own_size(body, choices[letters.index(entry["letter"].upper())])
        said = body[size:]
        rights = list(_TRUE.finditer(said))
        wrongs = list(_FALSE.finditer(said))
        mark = entry["mark"] or ""
        rights += list(_TRUE.finditer(mark))
        wrongs += list(_FALSE.finditer(mark))
        judged[entry["letter"].upper()] = _Judged(
            rights, wrongs, said, begin + len(body)
        )
    return judged, entries[0].start() if entries else 0


def _own_size(body: str, choice: str) -> int:
    """Return how much of what is said of an option is but its text."""
    lead = len(body) - len(body.lstrip(_LEADS))
    own = blanked(choice).strip().rstrip(".")
    is_own = bool(own) and body[lead:].casefold().startswith(own.casefold())
    return lead + len(own) if is_own else lead
