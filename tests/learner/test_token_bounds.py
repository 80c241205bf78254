"""Where tokens begin and end in the text of all, whatever a tokenizer cuts."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

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
        assert counting.num_tokens < 24 * len(token_ids)


def byte_fallback() -> Tokenizer:
    """As SentencePiece's: a run of bytes that is not whole is shown byte by byte."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"a": 256}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return backend


def straddling() -> tuple[Tokenizer, list[int]]:
    """A tokenizer, and tokens of it of which none ends where a character does."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pair = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    [(letters, _)] = pair.pre_tokenize_str("é")
    # The last byte of one character and the first of the next.
    merge = (letters[1], letters[0])
    vocabulary = {letter: place for place, letter in enumerate(sorted(alphabet))}
    vocabulary["".join(merge)] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, [merge]))
    backend.pre_tokenizer = pair
    backend.decoder = decoders.ByteLevel()
    return backend, backend.encode("é" * 2_000).ids


RUNS = [
    "你好",
    "ก",
    "🙂",
    "é",
    "你🙂é",
    "aก",
    "🙂👩‍👩‍👧你",
    "\u0301",
    "한국어 ",
    "\ufffd你",
]


@pytest.mark.parametrize("run", RUNS)
def test_the_work_is_in_proportion_in_any_script(tokenizer, run: str):
    token_ids = tokenizer.encode(run * (4_000 // len(run)), add_special_tokens=False)
    length = len(tokenizer.decode(token_ids))
    counting = Counting(tokenizer)
    token_bounds(np.array(token_ids, np.int64), counting, [0, length // 2, length])
    assert counting.num_tokens < 24 * len(token_ids)


@pytest.mark.parametrize("run", ["你好", "🙂", "你🙂é"])
@pytest.mark.parametrize("last", [b"", b"\xff"])
def test_the_work_is_in_proportion_where_bytes_are_tokens(run: str, last: bytes):
    token_ids = list((run * 500).encode() + last)
    counting = Counting(byte_fallback())
    token_bounds(np.array(token_ids, np.int64), counting, [0, 5, 500])
    assert counting.num_tokens < 30 * len(token_ids)


def test_the_work_is_in_proportion_where_no_token_ends_with_a_character():
    backend, token_ids = straddling()
    assert len(token_ids) == 2_001
    counting = Counting(backend)
    bounds = token_bounds(np.array(token_ids, np.int64), counting, [0, 999, 2_000])
    assert counting.num_tokens < 60 * len(token_ids)
    # The first has the first byte of the first character alone, the last one the last.
    assert bounds[0][990:1_010].tolist() == list(range(990, 1_010))
    assert bounds[1][990:1_010].tolist() == list(range(991, 1_011))
    assert (bounds[0][-1], bounds[1][-1]) == (2_000, 2_000)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_are_those_of_growing_prefixes_in_runs_of_one_script(
    tokenizer, seed: int
):
    rng = random.Random(seed)
    text = "".join(rng.choice(RUNS) * rng.randrange(40) for _ in range(8))
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    # A cut is shown as one character as well.
    del token_ids[rng.randrange(len(token_ids)) :: 97]
    length = len(tokenizer.decode(token_ids))
    assert_as_good(token_ids, tokenizer, [rng.randrange(length + 1) for _ in range(5)])
    assert_as_good(token_ids, tokenizer, list(range(length + 1)))


def test_bytes_that_a_tokenizer_shows_singly_are_one_character():
    backend = byte_fallback()
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
