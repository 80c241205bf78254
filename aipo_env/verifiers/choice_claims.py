"""What a place in a reply says: which option it names, or why it settles nothing."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from aipo_env.verifiers.choice_doubts import is_denied
from aipo_env.verifiers.choice_elsewhere import WORD_CHAR
from aipo_env.verifiers.choice_lines import MISMATCH, SEVERAL
from aipo_env.verifiers.choice_options import (
    LETTERS,
    is_text,
    letter_of_number,
    letters_of,
    without_dress,
)
from aipo_env.verifiers.choice_places import ChoicePlace

MAX_PLACE_CHARS = 500
"""Only this much of the beginning of a place is read."""

_MAX_LEAD_WORDS = 12
"""Words that may stand between "the answer is" and the letter."""
_BEFORE_LEAD = (" ", "\t", ":", "#", ">", "=", ",", ".", "…")
"""Marks that may stand before the letter, or the words that lead to it."""
_MAX_CUTS = 12
"""Ends of clauses up to which a text is compared with those of the options."""
_LEAD_WORDS = frozenset(
    word
    for words in (
        "option options choice letter answer statement alternative item number",
        "the that this it is was be must should would will has to one only just most",
        "so thus therefore hence then indeed clearly definitely certainly obviously",
        "simply probably likely now labelled labeled marked called lettered given by",
        "in fact i we think believe choose pick select chose go with say guess correct",
        "right best final actually really truly instead rather",
        "my opción opcion réponse letra buchstabe lettre вариант",
    )
    for word in words.split()
)
"""What may stand before a letter without changing what is said."""
_NEXT_WORDS = frozenset(
    word
    for words in (
        "is are was as because since and or not but rather instead due for with which",
        "by given so if in from based according therefore hence thus here only that",
        "this these those it its also matches fits correctly though although over",
        "ş\u0131kk\u0131 ş\u0131kk\u0131d\u0131r seçeneği seçeneğidir",
        "qui que car denn weil porque perché übrig over",
        "unlike then when where while would must seems alone we i the there",
    )
    for word in words.split()
)
"""What may follow a letter that is one of an option. Others make a word of it, or of
what it begins: A river, C major, I computed."""
_DENYING = re.compile(
    r"(?: not | neither | never | except | anything\ but ) \b | [≠不非] | \\neq? \b",
    re.VERBOSE | re.IGNORECASE,
)
_BUT = re.compile(
    r"\bbut\b(?: rather| instead)?|[,;–—] (?:it['’]s|it is|rather)\b|而是",
    re.IGNORECASE,
)
_BUT_ELSEWHERE = re.compile(
    r"""
    \s? (?: (?: では | じゃ ) なくて? | [이가]\ ?아니라 | 아니고 | değil )
    \s? [,、]? \s?
    (?= [A-Z] (?! \w{0,2} [ではが] な ) )
    """,
    re.VERBOSE,
)
"""What behind a letter denies it, before the letter that is chosen: AではなくBです."""
_HEAD = re.compile(
    rf"""
    \s{{0,40}} [(\[<]{{0,2}} \s{{0,40}} ([A-Za-z]) \s{{0,40}} [)\]>]{{0,2}}
    (?! {WORD_CHAR} | ['’] (?! [dt][\u0131iuü]r ) )
    """,
    re.VERBOSE,
)
"""A letter that stands alone, in brackets or not."""
_WORD = re.compile(r"[\s,:(\[]{0,40}(\w{1,40})")
_INDEX = re.compile(
    r"\$?[})]{0,3} (?: [_^] \{? \\?[A-Za-z0-9(] | \*[A-Za-z0-9] )", re.VERBOSE
)
"""What makes a letter a variable: an index, a power, a factor."""
_WORD_PART = re.compile(
    r"\( \s? (?: \d | [a-z] \s? \) ) | \s{0,3} [%°] | \s{0,3} / \s{0,3} [\da-z]",
    re.VERBOSE,
)
"""An argument, a unit, a divisor: B(3), C%, D/2."""
_LAST = re.compile(r"\s{0,3}(?:है|です|입니다)?[\s.!,;:।。)\]>]*")
_SPECIES = re.compile(r"\.\s{1,3}([a-z]{2,40})\b")
"""What makes an abbreviation of a letter: E. coli."""
_TEXT_BEHIND = re.compile(r"[.):]{1,2}\s{1,3}([^\n]{1,200}?)[\s.*_]{0,9}(?:\n|\Z)")
"""What stands behind a letter up to the end of its line."""
_FOLLOWING = re.compile(rf"\s{{1,40}}({WORD_CHAR}{{1,40}})")
_FORMULA = re.compile(
    r"\s{0,40} (?: [=+*^<>|\\∝≈≤≥→×·⋅÷] | [-–] \s{0,40} \d ) | [-\u2010\u2011]\w",
    re.VERBOSE,
)
"""What behind a letter makes a formula or a word of it: E = 0.9, D-dimer."""
_MORE = re.compile(
    rf"""
    \s{{0,40}} \(? \s{{0,40}}
    (
        , \s{{0,40}} (?: and | or ) \b
    |   或者 | 或是 | 还是 | 還是 | 以及
    |   [,;/&+、和或及与與跟か와과–—-]
    |   \.{{2,3}} \s{{0,3}} or \b
    |   (?: and | or | nor | oder | ou | o | y | e | et | und | и | или | en | och
        | eller | of | oraz | lub | ve | veya | dan | atau | và | hoặc | ja | tai
        | nebo | plus
        | as\ well\ as | along\ with | together\ with ) \b
    )
    \s{{0,40}}
    (?: (?: maybe | perhaps | possibly | actually | also | even | both | either | else
        | option | is\ it | it\ is | it\ could\ be | it\ might\ be ) \s{{1,40}} ){{0,2}}
    [(\[]? ([A-Z]) [)\]]? (?! {WORD_CHAR} | ['’] )
    ( \s{{0,40}} (?: $ | [.,;:?。/&)\]\n] | and\b | or\b ) )?
    """,
    re.VERBOSE,
)
"""Another letter beside the first, and whether nothing is said of it alone."""
_EITHER = frozenset(
    [
        "or",
        "nor",
        "oder",
        "ou",
        "o",
        "или",
        "atau",
        "veya",
        "lub",
        "或",
        "或者",
        "或是",
        "还是",
        "還是",
        "か",
    ]
)
"""Joints that make a list of whatever follows them."""
_SENTENCE_CUT = re.compile(r"\.(?!\d)|[;!?\n]")
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth"),
    *("sixth", "seventh", "eighth", "ninth", "tenth"),
)
_OTHER_ORDINAL = re.compile(
    rf"(?<!not )(?<!not the )(?<!than the )(?<!of the )\b(?:{'|'.join(_ORDINALS)})\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    rf"""
    \s{{0,9}}
    (?: (?P<ordinal> {"|".join(_ORDINALS)} )
        (?: \s (?: option | choice | one | answer | alternative ) )? (?! \w )
    |   \#? (?P<number> \d{{1,2}} ) (?! \d | [.,]\d )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What counts the options, instead of naming them."""
_COUNTED_NOUN = re.compile(
    r"\b(?:option|choice|alternative|answer)(?:\s{1,3}number)?\s{0,3}$", re.IGNORECASE
)
_CLAUSE_OVER = re.compile(
    r"[)\]]?\s{0,3}(?:[.,;:!?)(\n–—]|$|(?:because|since|as)\b)", re.IGNORECASE
)
_CUT = re.compile(
    r"""
      [.,:] (?!\d)
    | [;!?)(\]\n]
    | \s (?: because | since | as | so | which | where | when | and | or | but | not
        | rather | instead | is | for | with | in ) \b
    | \s [-–—]
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Where a clause may end, and with it an option's text."""
_SEPARATOR = re.compile(r"\s{0,40} [)\]]? \s{0,40} ([.,:=(→–—-])? \s{0,40}", re.VERBOSE)
_CAPITAL = re.compile(r"(?<![\w'’\\])[A-Z](?![\w'’])")
"""A capital that stands alone; not that of `A's`."""
_OPTION_LETTER = re.compile(r"(?<![\w'’\\])(?!I\b|A\s[a-z])[A-Z](?![\w'’-])")
"""One that is neither a pronoun nor an article."""
_LETTER_BEHIND = re.compile(
    r"""
    [\s,(]{0,40} (?: (?: i\.e\.,? | which\ is | that\ is | so | or ) \s{0,40} )?
    (?: the\ )? (?: option | choice | answer )? \s{0,40}
    [(\[]? ([A-Z]) [)\]]? \s{0,40} (?: $ | [.,;:!)] )
    """,
    re.VERBOSE,
)
"""A letter behind an option's text: 2.1 eV (A)."""
_TEXT_JOINT = re.compile(
    r"""
    \s{0,40}
    (?: (?: [,;/&] | \b(?: and | or | plus | as\ well\ as | along\ with )\b ) \s{0,3}
    ){1,4}
    (?: \s{0,3} (?: maybe | perhaps | possibly | also | even | both | else | actually )
        \b ){0,2}
    \s{0,40}
    """,
    re.VERBOSE,
)


class Claim(NamedTuple):
    """What a place says.

    Args:
        letter: The option that it names; "" if none.
        fault: Why it settles nothing, although it speaks of options.
        end: Where what was read of it ends, in the whole text.
        denied: Letters of which it says that they are not the answer.
        mentioned: A letter that it names without saying, as far as it is understood,
            that it is the answer.
    """

    letter: str = ""
    fault: str = ""
    end: int = 0
    denied: str = ""
    mentioned: str = ""


def read_place(
    text: str, plain: str, place: ChoicePlace, choices: tuple[str, ...]
) -> Claim:
    """Return what a place says.

    Args:
        text: The whole answer.
        plain: It, `blanked`.
        place: In it.
        choices: The options.
    """
    if place.dress == "verdict":
        return _verdict(plain, place, choices)
    if place.dress == "named":
        name = text[place.begin : place.end]
        # As a subject, "A catalyst" begins with an article.
        is_noun = name[:2] == "A " and name[2:3].islower()
        letters = letters_of(name[:1].lower() + name[1:] if is_noun else name, choices)
        if not letters:
            bare = plain[place.begin : place.end]
            letters, _ = _counted(name, bare, _skip_lead(bare)[0], choices)
        return Claim(letters, end=place.end) if len(letters) == 1 else Claim()
    end = min(place.end, place.begin + MAX_PLACE_CHARS)
    content = text[place.begin : end]
    bare = plain[place.begin : end]
    letter, size = _named_by_text(content, choices)
    named = without_dress(content[:size])
    if letter and len(named) == 1 and named.upper() in LETTERS[: len(choices)]:
        if named != letter and is_text(named, choices):
            return Claim(fault="a letter that is an option's text as well")
        letter = ""
    if letter:
        return _texted(content, bare, place, letter, size, choices)
    start, has_lead, is_denying = _skip_lead(bare)
    if is_denying:
        return _denial(text, plain, place, start, choices)
    letter, size = _named_by_text(content[start:], choices)
    if letter and len(without_dress(content[start : start + size])) > 1:
        return _texted(content, bare, place, letter, start + size, choices)
    head = _HEAD.match(bare, start)
    is_named = head is not None and (
        _has_own_text(content, head, choices)
        or _is_letter(content, bare, head, has_lead=has_lead)
    )
    if head and is_named:
        return _lettered(content, bare, head, place, choices)
    letter, size = _counted(content, bare, start, choices)
    if letter and is_denied(bare, size):
        return Claim(denied=letter)
    if letter:
        return Claim(letter, end=place.begin + size)
    return _unclear(content, bare, place, choices)


def _counted(
    content: str, bare: str, start: int, choices: tuple[str, ...]
) -> tuple[str, int]:
    """Return the letter of an option that is named by its number, and where that ends.

    The third one; option 3; 3. Ribosomes.
    """
    counted = _COUNTED.match(bare, start)
    if counted is None:
        return "", 0
    ordinal = (counted["ordinal"] or "").lower()
    index = _ORDINALS.index(ordinal) if ordinal else int(counted["number"]) - 1
    if not 0 <= index < len(choices):
        return "", 0
    letter = LETTERS[index]
    end = counted.end()
    named, size = _texts_behind(content[end:], choices)
    if named:
        return (letter, end + size) if letter in named else ("", 0)
    if not _CLAUSE_OVER.match(bare, end) or _OTHER_ORDINAL.search(bare, end):
        return "", 0
    if counted["number"]:
        texts = [without_dress(choice) for choice in choices]
        is_text_too = counted["number"] in texts and texts[index] != counted["number"]
        if is_text_too or not _COUNTED_NOUN.search(bare[:start]):
            return "", 0
    return letter, end


def _verdict(plain: str, place: ChoicePlace, choices: tuple[str, ...]) -> Claim:
    letter = plain[place.begin].upper()
    if place.others and place.others != letter:
        return Claim(fault=SEVERAL)
    # A capital of something else, which happens to be right.
    if letter not in LETTERS[: len(choices)]:
        return Claim()
    return Claim(letter, end=place.end)


def _skip_lead(bare: str) -> tuple[int, bool, bool]:
    """Return where a letter may stand, behind what may stand before it.

    Also whether "option" or its like does, and whether something denies what follows.
    """
    position = 0
    has_lead = False
    for _ in range(_MAX_LEAD_WORDS):
        while bare[position : position + 1] in _BEFORE_LEAD:
            position += 1
        if _DENYING.match(bare, position):
            return position, has_lead, True
        word = _WORD.match(bare, position)
        if word is None:
            break
        name = word[1]
        is_pronoun = name == "I" and _next_word(bare, word.end()) in _LEAD_WORDS
        if len(name) == 1 and not is_pronoun:
            break
        if name.casefold() not in _LEAD_WORDS:
            break
        has_lead = True
        position = word.end()
    return position, has_lead, False


def _next_word(bare: str, position: int) -> str:
    word = _WORD.match(bare, position)
    return word[1].casefold() if word else ""


def _is_letter(content: str, bare: str, head: re.Match[str], *, has_lead: bool) -> bool:
    """Return whether a letter that stands alone is one of an option."""
    letter = head[1]
    has_bracket = head[0].strip()[:1] in "([<" or head[0].strip()[-1:] in ")]>"
    rest = bare[head.end() :]
    # Blanks of `bare` may be dress that only formulas have.
    if _INDEX.match(content, head.end(1)) or _WORD_PART.match(bare, head.end(1)):
        return False
    if rest.lstrip()[:1] in ("?", "吗", "嗎"):
        return False
    word = _SPECIES.match(bare, head.end(1))
    if word and not has_bracket and word[1] not in _NEXT_WORDS:
        return False
    is_last = _LAST.fullmatch(rest) is not None
    if letter.islower() and not (has_bracket or has_lead or is_last):
        return False
    if has_bracket or is_last:
        return True
    # A mark or a number may follow at once; a word only if it can go on from a letter.
    following = _FOLLOWING.match(rest)
    if following is None or following[1][0].isdigit():
        return True
    if len(following[1]) == 1 and following[1].isupper():
        return True
    return following[1].casefold() in _NEXT_WORDS


def _has_own_text(content: str, head: re.Match[str], choices: tuple[str, ...]) -> bool:
    """Return whether an option's own text stands behind a letter: B. blink."""
    text = _TEXT_BEHIND.match(content, head.end(1))
    letter = head[1].upper()
    return text is not None and letters_of(text[1], choices) == letter


def _lettered(
    content: str,
    bare: str,
    head: re.Match[str],
    place: ChoicePlace,
    choices: tuple[str, ...],
) -> Claim:
    """Return what a place says that begins with a letter."""
    letter = head[1].upper()
    end = head.end()
    rest = bare[end:]
    more = _MORE.match(rest)
    if more and more[2] != letter and _is_list(more):
        return Claim(fault=SEVERAL)
    instead = _BUT_ELSEWHERE.match(rest)
    if instead:
        begin = end + instead.end()
        following = _HEAD.match(bare, begin)
        if following and not is_denied(bare, following.end()):
            return _lettered(content, bare, following, place, choices)
    named, size = _texts_behind(content[end:], choices)
    if not named and is_denied(rest):
        return Claim(denied=letter)
    if letter not in LETTERS[: len(choices)] and _FORMULA.match(rest):
        return Claim()
    if named:
        if letter not in named:
            return Claim(fault=MISMATCH)
        end += size
    elif _FORMULA.match(rest):
        return Claim()
    if letter not in LETTERS[: len(choices)]:
        return Claim(fault=f"{letter} is no option")
    return Claim(letter, end=place.begin + end)


def _texted(
    content: str,
    bare: str,
    place: ChoicePlace,
    letter: str,
    size: int,
    choices: tuple[str, ...],
) -> Claim:
    """Return what a place says that begins with an option's text, `size` long."""
    if bare[size:].lstrip()[:1] == "?":
        return Claim()
    if is_denied(bare, size):
        return Claim(denied=letter)
    behind = _LETTER_BEHIND.match(bare, size)
    if behind and behind[1] != letter:
        return Claim(fault=MISMATCH)
    joint = _TEXT_JOINT.match(bare, size)
    if joint:
        other, _ = _named_by_text(content[joint.end() :], choices)
        if other not in ("", letter):
            return Claim(fault=SEVERAL)
    return Claim(letter, end=place.begin + size)


def _is_list(more: re.Match[str]) -> bool:
    """Return whether a second letter is named as the first is."""
    joint = more[1].strip(" ,")
    # "B, A is too slow" and "B and A is wrong" speak of another option.
    if more[3] is not None or "/" in joint or "&" in joint:
        return True
    return joint.strip(". ") in _EITHER


def _texts_behind(rest: str, choices: tuple[str, ...]) -> tuple[str, int]:
    """Return the letters of the options whose text follows a letter, and its end."""
    separator = _SEPARATOR.match(rest)
    # Behind a stop or a comma only a whole sentence is an option's text.
    is_stop = separator is not None and separator[1] in (".", ",")
    start = separator.end() if separator else 0
    cut = _SENTENCE_CUT if is_stop else _CUT
    for part in _parts(rest[start:], cut):
        letters = letters_of(part, choices)
        if letters:
            return letters, start + len(part)
    return "", 0


def _named_by_text(content: str, choices: tuple[str, ...]) -> tuple[str, int]:
    """Return the letter of the option whose text a place is, and how long that is."""
    for part in _parts(content, _CUT):
        letters = letters_of(part, choices)
        if len(letters) == 1:
            return letters, len(part)
        if letters:
            break
    return letter_of_number(content, choices), len(content)


def _parts(text: str, cut: re.Pattern[str]) -> Iterator[str]:
    """Yield what a text is up to each end of a clause, the longest first."""
    ends = [0]
    for found in cut.finditer(text):
        ends.append(found.start())
        if len(ends) > _MAX_CUTS:
            break
    yield text
    for end in reversed(ends):
        if text[:end].strip():
            yield text[:end]


def _denial(
    text: str, plain: str, place: ChoicePlace, start: int, choices: tuple[str, ...]
) -> Claim:
    """Return what a place says that begins with "not": it may go on "but B"."""
    bare = plain[place.begin : place.end]
    stop = _SENTENCE_CUT.search(bare, start)
    clause_end = stop.start() if stop else len(bare)
    denying = _DENYING.match(bare, start)
    instead = _BUT.search(bare, denying.end() if denying else start, clause_end)
    if instead:
        begin = place.begin + instead.end()
        following = ChoicePlace(begin, begin, place.end, "line")
        claim = read_place(text, plain, following, choices)
        if claim.letter:
            return claim
    denied = "".join(_CAPITAL.findall(bare[start:clause_end]))
    if len(set(denied)) > 1:
        return Claim(fault=SEVERAL)
    return Claim(denied=denied)


def _unclear(
    content: str, bare: str, place: ChoicePlace, choices: tuple[str, ...]
) -> Claim:
    """Return what a place names that does not begin with an option.

    Of several letters, the fault.
    """
    # A formula names none.
    if place.dress == "mark" and ("\\" in without_dress(content) or "=" in content):
        return Claim()
    stop = _SENTENCE_CUT.search(bare)
    clause = bare[: stop.start()] if stop else bare
    letters = set(_CAPITAL.findall(clause))
    if len(letters) > 1:
        return Claim(fault=SEVERAL)
    mentioned = _OPTION_LETTER.search(clause) if place.dress == "line" else None
    is_option = mentioned is not None and mentioned[0] in LETTERS[: len(choices)]
    return Claim(mentioned=mentioned[0] if mentioned and is_option else "")
