"""The policy and the tasks that every learner gets, for `learner.py`.

Imported by programs in other virtual environments: torch, transformers and tokenizers
are all it needs. The policy is a real Qwen3 with random weights, except that its
embeddings and head outweigh the layers and make it a small Markov chain over a few
tokens: it consults or not, thinks for a random time, and answers right or wrong, all by
its own sampling. So every system's policy does the same kind and amount of work, from
the first step on.
"""

import argparse
import json
import math
import platform
import random
import resource
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SHAPES = {
    # hidden size, layers, inner size, heads, size of the vocabulary
    "3m": (192, 6, 512, 3, 2048),
    "0.5b": (1024, 24, 2816, 16, 151_936),
}
QUERY_TOKENS = 24
"""Mean length of what the policy asks an agent."""
ANSWER_TOKENS = 64
"""Mean length of what it thinks before it answers."""
MAX_TOKENS = 512
"""Tokens of an episode."""
BUDGET = 3
"""Consultations of an episode."""
HEAD_DIM = 64
CONSULT_SHARE = 0.5
"""The share of the turns that consult, in the scene `consulting`."""
BASE_LOGIT = 20.0
"""Of a token that is sure to follow: all others, at about 0, then never do."""
EMBEDDING_SCALE = 100.0
"""So much do the embeddings outweigh what the layers add to them."""
FIRST_RANDOM_TOKEN = 100
"""Lower ids may be control tokens."""
H100_FLOPS = 989e12
"""Of bfloat16, by the data sheets of the H100 and the H200."""
A100_FLOPS = 312e12
"""The same of the A100."""
PRODUCT_SIZE = 2048
"""Rows and columns of the matrices that tell how fast a CPU is."""
REPLY = (
    "It holds if the sum of both sides is even, so look at the last digit of each"
    " first."
)
CALLS = {
    "aipo": ("<knowledge>", "</knowledge>"),
    "trl": (
        '<tool_call>\n{"name": "consult", "arguments": {"query": "',
        '"}}\n</tool_call>',
    ),
}
ANSWERS = ("\\boxed{1}", "\\boxed{2}")


@dataclass(frozen=True)
class Load:
    """What to do: scene, sizes and seed, from the command line."""

    scene: str
    shape: str
    samples: int
    group_size: int
    steps: int
    row_tokens: int
    seed: int
    threads: int


def parse_load() -> Load:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--scene", choices=("consulting", "plain", "update"), default="consulting"
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="3m")
    parser.add_argument("--samples", type=int, default=64, help="episodes of a step")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="the first only warms up")
    parser.add_argument(
        "--row-tokens", type=int, default=256, help="longest row of the scene update"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return Load(**vars(parser.parse_args()))


SYSTEM = (
    "Solve the problem step by step. Give the final answer in the form that the problem"
    " asks for, or in \\boxed{} if it asks for none."
)
"""What our environment tells the policy; TRL's policy is told the same."""
VOCABULARY = """
When you are stuck you may consult an agent, at most 3 times, by ending your turn with
one of: asks for a fact or definition; write a self-contained question. asks for the
next step. asks whether a claim of yours is right. The reply comes in your next turn.
Use it, then go on. # Tools You may call one or more functions to assist with the user
query. You are provided with function signatures within <tools></tools> XML tags:
{"type": "function", "function": {"name": "consult", "description": "Consult an
agent.", "parameters": {"type": "object", "properties": {"query": {"type": "string",
"description": "What to ask."}}, "required": ["query"]}}} For each function call,
return a json object with function name and arguments within <tool_call></tool_call>
XML tags: {"name": <function-name>, "arguments": <args-json-object>} <tool_response>
system user assistant
"""
"""What either system says of consultations: the tokenizer keeps these words whole, as a
real one would.
"""


def task(index: int) -> str:
    """Return the text of a task; the answer is always 1."""
    rng = random.Random(index)
    return (
        f"Is the sum of {rng.randint(10, 99)} and {rng.randint(10, 99)} even? Write 1"
        " for yes in a box."
    )


def rows(load: Load) -> list[tuple[list[int], int]]:
    """Return token ids and prompt length of each sample of the scene `update`.

    Lengths are lognormal, as those of episodes are, about.
    """
    rng = random.Random(load.seed)
    vocabulary = SHAPES[load.shape][-1]
    lengths = []
    for _ in range(load.samples):
        share = min(1.0, rng.lognormvariate(-0.9, 0.5))
        lengths.append(share * load.row_tokens)
    samples = []
    for length in lengths:
        num_tokens = max(16, int(length))
        token_ids = [
            rng.randrange(FIRST_RANDOM_TOKEN, vocabulary) for _ in range(num_tokens)
        ]
        prompt_length = max(4, int(length / 8))
        samples.append((token_ids, prompt_length))
    return samples


def write_policy(folder: Path, load: Load, system: str, chat_template: str) -> None:
    """Write the policy's folder, for a system that calls in its own way."""
    tokenizer = _tokenizer(chat_template)
    torch.manual_seed(load.seed)
    hidden, layers, inner, heads, vocabulary = SHAPES[load.shape]
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=HEAD_DIM,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )
    _make_chain(model, tokenizer, load, system)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def _make_chain(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, load: Load, system: str
) -> None:
    """Write the chain's transition probabilities into embeddings and head."""
    opened, closed = CALLS[system]
    consult = CONSULT_SHARE if load.scene == "consulting" else 0.0
    # A token that repeats itself but for one time in n stands n times in the mean.
    query = 1 / QUERY_TOKENS
    answer = 1 / ANSWER_TOKENS
    chain = {
        "\n": {opened: consult, "b": 1 - consult},
        opened: {"a": 1.0},
        "a": {"a": 1 - query, closed: query},
        closed: {"<|im_end|>": 1.0},
        "b": {"b": 1 - answer, ANSWERS[0]: answer / 2, ANSWERS[1]: answer / 2},
        ANSWERS[0]: {"<|im_end|>": 1.0},
        ANSWERS[1]: {"<|im_end|>": 1.0},
    }
    ids: dict[str, int] = {}
    for text in [*chain, "<|im_end|>"]:
        pieces = tokenizer.encode(text, add_special_tokens=False)
        assert len(pieces) == 1, (text, pieces)
        ids[text] = pieces[0]
    width = model.config.hidden_size
    embeddings = model.model.embed_tokens.weight
    head = model.lm_head.weight
    head[list(ids.values())] = 0.0
    # Orthogonal directions, so that one token's successors say nothing of another's.
    columns, _ = torch.linalg.qr(torch.randn(width, len(chain)))
    for direction, (text, successors) in zip(columns.T, chain.items(), strict=True):
        embeddings[ids[text]] = direction * EMBEDDING_SCALE
        for successor, share in successors.items():
            if share:
                logit = BASE_LOGIT + math.log(share)
                # The last normalisation makes the direction as long as sqrt(width).
                head[ids[successor]] += direction * logit / math.sqrt(width)


def _tokenizer(chat_template: str) -> PreTrainedTokenizerFast:
    """Build a tokenizer with most words of the prompts, and of the chain all, whole."""
    tokenizer = Tokenizer(models.BPE())
    # A word or a digit with the blank before it, one blank, or a run of other marks.
    pieces = Regex(r" ?[A-Za-z]+| ?\d|\s|[^\sA-Za-z\d]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1900,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tasks = [task(index) for index in range(100)]
    tokenizer.train_from_iterator([SYSTEM, VOCABULARY, REPLY, *tasks], trainer)
    for texts in (*CALLS.values(), ANSWERS):
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text in texts])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def report(
    load: Load, seconds: list[float], counts: dict[str, float], num_weights: int
) -> None:
    """Print one JSON object: what a step took (the first left out), and what it did."""
    step_s = statistics.median(seconds[1:])
    row: dict[str, Any] = {
        "step_s": step_s,
        "samples_per_s": load.samples / step_s,
        "peak_gib": _peak_bytes() / 2**30,
        **counts,
    }
    if "policy_tokens" in counts:
        row["policy_tokens_per_s"] = counts["policy_tokens"] / step_s
    if "update_s" in counts:
        # Two operations per weight and token forward, four backward; attention itself
        # is left out.
        operations = 6 * num_weights * counts["row_tokens"]
        row["mfu"] = operations / counts["update_s"] / peak_flops()
        row["update_tokens_per_s"] = counts["row_tokens"] / counts["update_s"]
    print(json.dumps(row))


def _peak_bytes() -> int:
    """Return the most memory there was at once: the GPU's, or this process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS tells bytes, others KiB.
    return peak if platform.system() == "Darwin" else peak * 1024


def peak_flops() -> float:
    """Return the device's operations per second.

    Of a GPU by its data sheet, of a CPU as a large product of matrices takes them.
    """
    if torch.cuda.is_available():
        is_hopper = "H" in torch.cuda.get_device_name()
        return H100_FLOPS if is_hopper else A100_FLOPS
    return max(_product_flops())


def _product_flops() -> Iterator[float]:
    import time

    matrix = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE)
    num_operations = 2 * PRODUCT_SIZE**3  # a product and a sum for each pair
    for _ in range(3):
        start = time.perf_counter()
        matrix @ matrix
        yield num_operations / (time.perf_counter() - start)
