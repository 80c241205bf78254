"""Where tokens begin and end in the text that all of them make."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

TokenIds = NDArray[np.signedinteger[Any]]
_STRETCH_TOKENS = 64
"""Tokens that are decoded together: few, since near a place each of them is decoded
once more with those before it.
"""
_NUM_ENDS = 8
"""Ends of a stretch that are tried one after another: twice as many as a character has
bytes, of which each may be a token.
"""
_CUT = "\N{REPLACEMENT CHARACTER}"
"""What is shown of a character whose last bytes are missing."""


@dataclass(frozen=True)
class _Stretch:
    """Tokens that follow each other, and the text that is theirs.

    Args:
        context: Number of the token from which on it is decoded. What a token becomes
            may depend on those before it, though never on those before a stretch.
        first: Number of its first token.
        last: Number of the token behind it.
        start: Where its text begins.
        end: Where it ends.
    """

    context: int
    first: int
    last: int
    start: int
    end: int


def token_bounds(
    token_ids: TokenIds,
    tokenizer: PreTrainedTokenizerBase,
    places: Iterable[int],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each token begins and ends in the text of all: int64[T], int64[T].

    A token decoded alone may lose a blank or half a character. So it ends where the
    text of all tokens up to it does, and begins where the one before it ends; a
    character cut in two ends with the first of its tokens.

    Bounds are exact next to `places`. Elsewhere they are those of some tokens around,
    among which there is no place: compared with any of the places, they are as good.
    The time it takes is in proportion to T, in any script. It is not where a decoder
    shows bytes of ASCII as such only if all of their run are characters, and they are
    not.

    Args:
        token_ids: Integers, [T].
        tokenizer: Decodes them.
        places: In the text, in characters: what bounds are compared with.
    """
    sought = sorted(places)
    starts = np.zeros(len(token_ids), np.int64)
    ends = np.zeros(len(token_ids), np.int64)
    for stretch in _stretches(token_ids, tokenizer):
        tokens = slice(stretch.first, stretch.last)
        nearest = bisect_left(sought, stretch.start)
        if nearest < len(sought) and sought[nearest] <= stretch.end:
            ends[tokens] = _ends_within(stretch, token_ids, tokenizer)
            starts[tokens] = np.concatenate([[stretch.start], ends[tokens][:-1]])
        else:
            starts[tokens] = stretch.start
            ends[tokens] = stretch.end
    return starts, ends


def _stretches(
    token_ids: TokenIds, tokenizer: PreTrainedTokenizerBase
) -> Iterator[_Stretch]:
    """Yield the stretches of some tokens, whose texts make up the text of all."""
    text = _decoded(token_ids, tokenizer)
    context = first = start = 0
    while first < len(token_ids):
        last, piece = _next_piece(token_ids, tokenizer, context, first, text[start:])
        end = start + len(piece)
        if last == len(token_ids):
            end = len(text)
            if piece != text[start:]:
                # What tokens become depends on all before them: they are decoded too.
                context = 0
        yield _Stretch(context, first, last, start, end)
        context, first, start = first, last, end


def _next_piece(
    token_ids: TokenIds,
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    first: int,
    rest: str,
) -> tuple[int, str]:
    """Return the number of the token behind the next stretch, and the stretch's text.

    Args:
        token_ids: Integers, [T].
        tokenizer: Decodes them.
        context: As of the stretch.
        first: As of the stretch.
        rest: The text of all tokens from where the stretch begins.
    """
    num_before = len(_decoded(token_ids[context:first], tokenizer))

    def piece_up_to(last: int) -> str:
        return _decoded(token_ids[context:last], tokenizer)[num_before:]

    nearest = min(first + _STRETCH_TOKENS, len(token_ids))
    last = nearest
    # It may end within a character, or with a blank that a later token takes away.
    # One by one, since steps that grow may miss the end of every character there is.
    for last in range(nearest, min(nearest + _NUM_ENDS, len(token_ids) + 1)):
        piece = piece_up_to(last)
        if rest.startswith(piece):
            return last, piece
    # Or no token ends where a character does. Where the part is shown as one character,
    # the stretch ends within it.
    piece = piece_up_to(nearest)
    if rest.startswith(piece.removesuffix(_CUT)):
        return nearest, piece
    num_further = _NUM_ENDS
    while last < len(token_ids) and not rest.startswith(piece):
        last = min(last + num_further, len(token_ids))
        num_further *= 2
        piece = piece_up_to(last)
    return last, piece


def _ends_within(
    stretch: _Stretch,
    token_ids: TokenIds,
    tokenizer: PreTrainedTokenizerBase,
) -> NDArray[np.int64]:
    """Return where each token of a stretch ends in the text of all."""
    context = stretch.context
    num_before = len(_decoded(token_ids[context : stretch.first], tokenizer))
    lengths = [
        len(_decoded(token_ids[context : number + 1], tokenizer))
        for number in range(stretch.first, stretch.last)
    ]
    ends = stretch.start - num_before + np.array(lengths, np.int64)
    # Some tokenizers show each byte of a character that is not whole yet as one of its
    # own: no token ends behind a later one.
    return np.minimum.accumulate(ends[::-1])[::-1]


def _decoded(token_ids: TokenIds, tokenizer: PreTrainedTokenizerBase) -> str:
    # As an array: a list's items would be looked at one by one, in Python.
    return str(tokenizer.decode(token_ids)) if len(token_ids) else ""
