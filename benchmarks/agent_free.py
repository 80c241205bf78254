"""Agent-free rows of long episodes: how long they take beside decoding their tokens.

    python benchmarks/agent_free.py

makes 64 correct episodes that consulted, each with a first turn of 8,000 tokens, and
the agent-free row of each; the peer is one pass of the tokenizer over the same tokens,
in the same run. A row is to take at most 50 ms of a processor.
"""

import argparse
import random
import time
from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from aipo_env import Completion, Episode, Scenario, build_scenario, run_sync
from aipo_learner.learn.agent_free_rows import agent_free_row
from aipo_learner.policy.load import policy_folder
from aipo_learner.policy.tiny import build_tokenizer
from aipo_learner.samplers.chat_format import ChatFormat

WORDS = ("so", "the", "rate", "of", "change", "is", "12", "naïve", "数字", "🙂", "3 €")
"""What the policy thinks in: multi-byte characters are cut between tokens."""


def loader(policy: str) -> PreTrainedTokenizerBase:
    """Return a policy's tokenizer."""
    if policy == "tiny":
        return build_tokenizer()
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        policy_folder(policy), trust_remote_code=False
    )
    return tokenizer


def episode(
    scenario: Scenario,
    tokenizer: PreTrainedTokenizerBase,
    num_tokens: int,
    number: int,
) -> Episode:
    """Play an episode whose first turn thinks at length and then consults."""
    rng = random.Random(number)
    task = scenario.source.task("train", number)
    session = scenario.session(task, aided=True, key=(0, 0, 0, number))
    problem = scenario.source.world.problem("train", number)
    call = f"<knowledge>{problem.operators[0].name}</knowledge>"
    thought = " ".join(rng.choices(WORDS, k=num_tokens))
    ids = tokenizer.encode(thought, add_special_tokens=False)
    text = tokenizer.decode(ids[:num_tokens]) + call
    chat = ChatFormat(tokenizer)
    pieces = chat.prompt(session.open())
    for written in (text, f"\\boxed{{{problem.answer}}}"):
        session.show(pieces)
        ids = tokenizer.encode(written, add_special_tokens=False)
        completion = Completion(written, tuple(ids), (-0.5,) * len(ids))
        message = run_sync(session.advance(completion))
        if message is not None:
            pieces = chat.suffix(message, ended=False)
    return session.episode()


def seconds(work: Callable[[], object]) -> float:
    """Return how long a processor works on it: others may be using the machine."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", default="tiny", help="whose tokenizer")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    tokenizer = loader(options.policy)
    rules = {"max_policy_tokens": 10**6, "max_context_tokens": 2 * 10**6}
    scenario = build_scenario("toy", "scripted", rules=rules)
    episodes = [
        episode(scenario, tokenizer, options.tokens, number)
        for number in range(options.episodes)
    ]
    lengths = [len(played.tokens) for played in episodes]
    token_ids = [played.tokens.token_ids.tolist() for played in episodes]

    def make_rows() -> None:
        for played in episodes:
            row = agent_free_row(played, 1.0, [], scenario.codec, tokenizer)
            assert row is not None

    def decode() -> None:
        for ids in token_ids:
            tokenizer.decode(ids)

    for _ in range(options.repeats):
        # They take turns, so that a slow moment of the machine meets both.
        decoding = seconds(decode)
        making = seconds(make_rows)
        print(
            f"{len(episodes)} episodes of {sum(lengths) // len(lengths)} tokens:"
            f" {1000 * making / len(episodes):.1f} ms per row,"
            f" {1000 * decoding / len(episodes):.1f} ms per decoding,"
            f" ratio {making / decoding:.1f}"
        )


if __name__ == "__main__":
    main()
