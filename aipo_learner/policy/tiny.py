"""The tiny policy: a real Hugging Face causal LM, small enough to train on two cores.

Qwen3 architecture with heads of 64 dimensions, tied embeddings, about a million
parameters; a byte-level BPE tokenizer that reads any text, keeps every word and every
two-digit constant of the toy world whole, and holds the consult markup as single
tokens; a chat template that only appends.
"""

from collections.abc import Iterator

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

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_WORDS = (
    "Solve You may consult Apply to first then wrong at right unknown unavailable no"
    " consultations left reply from the answer a code is of and"
)


def _vocabulary() -> Iterator[str]:
    """Yield every word that must be one token."""
    for words in (_WORDS.split(), MOVES, *OPERATOR_NAMES.values()):
        yield from words
    yield from (f"#{pair:02d}" for pair in range(100))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer of the tiny policy; the same vocabulary in every run."""
    tokenizer = Tokenizer(models.BPE())
    pieces = Regex(r"[A-Za-z]+|#\d{2}|\d|\s|[^\sA-Za-z\d]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_vocabulary(), trainer)
    markup = [*TagsCodec().markup(CONSULT_KINDS), "\\boxed{"]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in markup])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """Build the model with random weights drawn from `seed`, in float32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)
