"""The tiny policy: a real Hugging Face causal LM, small enough to train on two cores.

Qwen3 architecture with heads of 64 dimensions, tied embeddings, about a million
parameters; a byte-level BPE tokenizer that reads any text, keeps every word and every
two-digit constant of the toy world whole, and holds the consult markup as single
tokens; a chat template that only appends.
"""

import math
from collections.abc import Iterable, Iterator

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

from aipo_env import CONSULT_KINDS, MOVES, OPERATOR_NAMES, TagsCodec

# Nothing in it depends on what follows a message: a conversation that goes on begins
# with the very tokens that it had before.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_END = "<|end|>"
_WORDS = (
    "Solve You may consult Apply to first then wrong at right unknown unavailable no"
    " consultations left reply from the answer a code is of and"
)
"""Words of the toy world's prompts, replies and answers."""
_NUM_CONSTANTS = 100
"""The constants of the toy world are #00 to #99."""
# A word (Solve), a constant (#07), any other digit, one blank, any other character (é,
# or # before no two digits). It stands in tokenizer.json as it is: hence in one line.
_PIECES = r"[A-Za-z]+|#\d{2}|\d|\s|[^\sA-Za-z\d]"
"""Pieces of text whose borders no token crosses."""
_MAX_VOCABULARY = 2048
"""More than what is merged: the bytes, and the words with the steps on the way."""
_CONTEXT_TOKENS = 4096
"""What the model says it has positions for: as many as the rules allow by default. They
are rotary, and it is trained on the toy world's, which are at most 400.
"""
_VOCABULARY_MULTIPLE = 64
"""Rows of the embedding are rounded up to a multiple, which matrix products like."""
_HEAD_SIZE = 64
_NUM_HEADS = 2


def _toy_words() -> Iterator[str]:
    """Yield every word of the toy world that must be one token."""
    yield from _WORDS.split()
    yield from MOVES
    for names in OPERATOR_NAMES.values():
        yield from names
    yield from (f"#{number:02d}" for number in range(_NUM_CONSTANTS))


def build_tokenizer(words: Iterable[str] | None = None) -> PreTrainedTokenizerFast:
    """Build the tokenizer of the tiny policy; the same vocabulary in every run.

    Args:
        words: What must be one token, beside digits, signs and markup; the words of the
            toy world if not given.
    """
    vocabulary = _toy_words() if words is None else words
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            # Every byte becomes a character, so that no text is unknown.
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_MAX_VOCABULARY,
        # Every word comes once.
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(vocabulary, trainer)
    markup = [*TagsCodec().markup(CONSULT_KINDS), "\\boxed{"]
    # Added but not special: the policy writes them, as text.
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in markup])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_END,
        pad_token=_END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=_CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """Build the model with random weights drawn from `seed`, in float32."""
    torch.manual_seed(seed)
    num_blocks = math.ceil(len(tokenizer) / _VOCABULARY_MULTIPLE)
    config = Qwen3Config(
        vocab_size=num_blocks * _VOCABULARY_MULTIPLE,
        hidden_size=_NUM_HEADS * _HEAD_SIZE,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=_NUM_HEADS,
        num_key_value_heads=_NUM_HEADS,
        head_dim=_HEAD_SIZE,
        max_position_embeddings=_CONTEXT_TOKENS,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)
