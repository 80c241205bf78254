"""Where tokens begin and end in the text of all, whatever a tokenizer cuts."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from aipo_learner.learn.token_bounds import token_bounds

WORDS = (
    "so",
    " the",
    " Größe",
    " 3,5 €",
    "\n",
    " 数字",
    "🙂",
    " 👩‍👩‍👧",
    "</knowledge>",
    "  ",
)


def by_prefixes(token_ids: list[int], tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """What the bounds are by definition: the lengths of growing prefixes."""
    lengths = [
        len(tokenizer.decode(token_ids[: number + 1]))
        for number in range(len(token_ids))
    ]
    return np.array([0, *lengths[:-1]]), np.array(lengths)


def assert_as_good(token_ids: list[int], tokenizer, places: list[int]) -> None:
    starts, ends = token_bounds(np.array(token_ids, np.int64), tokenizer, places)
    true_starts, true_ends = by_prefixes(token_ids, tokenizer)
    for place in places:
        assert ((starts < place) == (true_starts < place)).all(), place
        assert ((starts >= place) == (true_starts >= place)).all(), place
        assert ((ends <= place) == (true_ends <= place)).all(), place
        assert ((ends > place) == (true_ends > place)).all(), place


@pytest.mark.parametrize("seed", range(8))
def test_bounds_are_those_of_growing_prefixes(tokenizer, seed: int):
    rng = random.Random(seed)
    text = "".join(rng.choice(WORDS) for _ in range(40))
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(token_ids) > len(text) / 2
    length = len(tokenizer.decode(token_ids))
    places = [rng.randrange(length + 1) for _ in range(3)]
    assert_as_good(token_ids, tokenizer, places)
    assert_as_good(token_ids, tokenizer, [0, length])
    assert_as_good(token_ids, tokenizer, list(range(length + 1)))


@pytest.mark.parametrize("seed", range(8))
def test_tokens_that_make_no_text_have_bounds_too(tokenizer, seed: int):
    rng = random.Random(seed)
    token_ids = [rng.randrange(len(tokenizer)) for _ in range(90)]
    length = len(tokenizer.decode(token_ids))
    assert_as_good(token_ids, tokenizer, list(range(length + 1)))


def test_a_character_cut_in_two_ends_with_its_first_token(tokenizer):
    token_ids = tokenizer.encode("a🙂b", add_special_tokens=False)
    starts, ends = token_bounds(np.array(token_ids, np.int64), tokenizer, [1, 2])
    assert len(token_ids) == 6
    assert starts.tolist() == [0, 1, 2, 2, 2, 2]
    assert ends.tolist() == [1, 2, 2, 2, 2, 3]


def test_there_are_no_bounds_without_tokens(tokenizer):
    starts, ends = token_bounds(np.zeros(0, np.int64), tokenizer, [0])
    assert starts.tolist() == ends.tolist() == []


class Counting:
    """Counts the tokens that a tokenizer is asked to decode."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.num_tokens = 0

    def decode(self, token_ids: np.ndarray) -> str:
        self.num_tokens += len(token_ids)
        return self.tokenizer.decode(token_ids.tolist())


@pytest.mark.parametrize("num_words", [500, 2_000])
@pytest.mark.parametrize("every", [1, 500])
def test_the_work_is_in_proportion_to_the_tokens(tokenizer, num_words: int, every: int):
    token_ids = tokenizer.encode(" the €" * num_words, add_special_tokens=False)
    counting = Counting(tokenizer)
    places = range(0, 6 * num_words, every)
    token_bounds(np.array(token_ids, np.int64), counting, places)
    assert counting.num_tokens < 120 * len(token_ids)
    if every > 1:
        assert counting.num_tokens < 20 * len(token_ids)


def test_bytes_that_a_tokenizer_shows_singly_are_one_character():
    """SentencePiece's fallback: a run of bytes that is not whole is shown byte by
    byte.
    """
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"a": 256}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    token_ids = [256, *"€€🙂".encode() * 12, 256]
    starts, ends = token_bounds(
        np.array(token_ids, np.int64), Counting(backend), range(39)
    )
    assert len(backend.decode(token_ids)) == 38
    assert (np.diff(ends) >= 0).all()
    # The bytes of each character end where it does.
    assert ends[:12].tolist() == [1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5]
    assert ends[-1] == 38
    assert starts[-1] == 37
