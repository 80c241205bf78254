"""Write `envs_data/tokenizer/aipo.tiktoken`: byte-pair ranks trained on our own
generated tasks and prompts.

python -m envs_data.prepare.tokenizer && python -m envs_data.prepare.manifest

One line per token, as tiktoken has it: the token's bytes in base64, then its rank. The
first 256 are the bytes.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
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
NUM_MERGES = 1000
NUM_TOY_TASKS = 500


def texts() -> Iterator[str]:
    """Yield what a policy and its agents read and write."""
    for name in ("tags", "hermes", "openai", "macro"):
        told = CODECS.build(name, tools=()).instructions(CONSULT_KINDS, 3)
        # Token ids are stored with episodes, so the ranks are not to change with the
        # wording of a heading.
        told = told.replace("# Agents", "# Tools")
        yield f"{DialogueRules().plain_prompt}\n\n{told}"
    for folder in ("code", "science"):
        for line in (
            (ROOT / folder / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
        ):
            row = json.loads(line)
            yield row["prompt"]
            for term, definition in row["meta"]["notes"].items():
                yield f"{term}: {definition}"
            yield row["meta"]["hint"]
    world = World(seed=0)
    yield from (f"{move}=#{shift_of(move)[:2]}#{shift_of(move)[2:]};" for move in MOVES)
    for operator in world.operators.values():
        yield from operator.statements()
    for index in range(NUM_TOY_TASKS):
        task = ToySource(world).task("train", index)
        yield f"{task.prompt} \\boxed{{{task.answer}}}"


def train(num_merges: int) -> list[bytes]:
    """Return the tokens in the order of their ranks; of equally frequent ones the
    greater comes first.
    """
    counts = Counter(
        word for text in texts() for word in re.findall(AIPO_PATTERN, text)
    )
    words = [
        ([bytes([byte]) for byte in word.encode()], count)
        for word, count in sorted(counts.items())
    ]
    tokens = {bytes([byte]): None for byte in range(256)}
    for _ in range(num_merges):
        found: Counter[bytes] = Counter()
        for parts, count in words:
            for left, right in pairwise(parts):
                found[left + right] += count
        best = max(
            (token for token in found if token not in tokens),
            key=lambda token: (found[token], token),
        )
        tokens[best] = None
        words = [(merged(parts, best), count) for parts, count in words]
    return list(tokens)


def merged(parts: list[bytes], token: bytes) -> list[bytes]:
    """Return a word's parts with each two neighbours that make up a token made one."""
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
