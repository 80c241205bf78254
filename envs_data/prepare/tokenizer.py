"""Write `envs_data/tokenizer/aipo.tiktoken`: byte-pair ranks of our own texts.

python -m envs_data.prepare.tokenizer && python -m envs_data.prepare.manifest

They are trained on our generated tasks and prompts. The file has one line per token,
as tiktoken has it: the token's bytes in base64, then its rank. The first 256 are the
bytes.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Container, Iterator
from itertools import pairwise
from pathlib import Path

from aipo_env import (
    CODECS,
    CONSULT_KINDS,
    MOVES,
    DialogueRules,
    ToySource,
    World,
    shift_of,
)
from aipo_env.tokenizers.bpe import AIPO_PATTERN

ROOT = Path(__file__).parent.parent
NUM_BYTES = 256
"""Tokens of one byte, so that any text can be written in tokens."""
NUM_MERGES = 1000
"""Tokens of more bytes."""
NUM_TOY_TASKS = 500
"""Problems of the toy world among the texts."""
CONSULT_BUDGET = 3
"""Consultations that the instructions among them allow."""


def texts() -> Iterator[str]:
    """Yield what a policy and its agents read and write."""
    for name in ("tags", "hermes", "openai", "macro"):
        codec = CODECS.build(name, tools=())
        instructions = codec.instructions(CONSULT_KINDS, CONSULT_BUDGET)
        # Token ids are stored with episodes, so the ranks are not to change with the
        # wording of a heading.
        instructions = instructions.replace("# Agents", "# Tools")
        yield f"{DialogueRules().plain_prompt}\n\n{instructions}"
    for folder in ("code", "science", "math"):
        text = (ROOT / folder / "tasks.jsonl").read_text(encoding="utf-8")
        for line in text.splitlines():
            row = json.loads(line)
            yield row["prompt"]
            for term, definition in row["meta"]["notes"].items():
                yield f"{term}: {definition}"
            yield row["meta"]["hint"]
            yield from row["meta"].get("mistakes", {}).values()
    world = World(seed=0)
    for move in MOVES:
        shift = shift_of(move)
        yield f"{move}=#{shift[:2]}#{shift[2:]};"
    for operator in world.operators.values():
        yield from operator.statements()
    source = ToySource(world)
    for index in range(NUM_TOY_TASKS):
        task = source.task("train", index)
        yield f"{task.prompt} \\boxed{{{task.answer}}}"


def train(num_merges: int) -> list[bytes]:
    """Return the tokens in the order of their ranks.

    Of equally frequent ones the greater comes first, so that the same texts give the
    same ranks.
    """
    word_counts: Counter[str] = Counter()
    for text in texts():
        word_counts.update(re.findall(AIPO_PATTERN, text))
    # Each word once, in its parts so far: at first its bytes.
    words: list[tuple[list[bytes], int]] = []
    for word, count in sorted(word_counts.items()):
        parts = [bytes([byte]) for byte in word.encode()]
        words.append((parts, count))
    # A dict with nothing in it: it keeps the order, and is fast to look in.
    tokens = {bytes([byte]): None for byte in range(NUM_BYTES)}
    for _ in range(num_merges):
        pair_counts: Counter[bytes] = Counter()
        for parts, count in words:
            for left, right in pairwise(parts):
                pair_counts[left + right] += count
        best = _most_frequent(pair_counts, tokens)
        tokens[best] = None
        words = [(merged(parts, best), count) for parts, count in words]
    return list(tokens)


def _most_frequent(counts: Counter[bytes], tokens: Container[bytes]) -> bytes:
    """Return the most frequent pair, of equals the greatest, that is no token yet.

    Two neighbours may make up a token that other neighbours made: "a" "bc" of "ab" "c".
    """
    candidates = [pair for pair in counts if pair not in tokens]
    return max(candidates, key=lambda pair: (counts[pair], pair))


def merged(parts: list[bytes], token: bytes) -> list[bytes]:
    """Return a word's parts with every two neighbours joined that make up a token."""
    result: list[bytes] = []
    for part in parts:
        if result and result[-1] + part == token:
            result[-1] = token
        else:
            result.append(part)
    return result


def main() -> None:
    """Train and write."""
    lines = [
        f"{base64.b64encode(token).decode()} {rank}\n"
        for rank, token in enumerate(train(NUM_MERGES))
    ]
    (ROOT / "tokenizer").mkdir(exist_ok=True)
    (ROOT / "tokenizer" / "aipo.tiktoken").write_text("".join(lines), encoding="ascii")


if __name__ == "__main__":
    main()
