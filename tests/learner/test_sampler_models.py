"""The transformers sampler reproduces models of other kinds, or refuses them by
name.
"""

import asyncio

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from aipo_env import PolicyError, Scenario
from aipo_learner.learn.logprobs import token_logprobs
from aipo_learner.learn.rows import collate, episode_row
from aipo_learner.policy.tiny import build_tokenizer
from aipo_learner.rollout.waves import play_wave
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.hf.row_cache import attention_masks
from aipo_learner.samplers.hf.sampler import HFSampler

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
}


def build(kind: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    torch.manual_seed(2)
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": 0,
    }
    if kind == "eager llama":
        return LlamaForCausalLM(
            LlamaConfig(**SIZES, **ids, attn_implementation="eager")
        )
    if kind == "mistral with a window of 8":
        return MistralForCausalLM(MistralConfig(**SIZES, **ids, sliding_window=8))
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, **ids, sliding_window=8))


@pytest.mark.parametrize(
    "kind",
    ["eager llama", "mistral with a window of 8", "gemma2 with two kinds of layer"],
)
def test_the_sampler_agrees_with_the_learner(
    kind: str, tokenizer: PreTrainedTokenizerFast, scenario: Scenario
):
    model = build(kind, tokenizer).eval()
    sampler = HFSampler(model, tokenizer)
    sessions = [
        scenario.session(scenario.source.task("train", i), aided=True, key=(1, 0, i, 0))
        for i in range(4)
    ]
    episodes = asyncio.run(play_wave(scenario, sessions, sampler))
    batch = collate([episode_row(episode, 1.0) for episode in episodes], 0)
    with torch.no_grad():
        learner, _ = token_logprobs(model, batch)
    own = batch.policy_mask
    assert own.sum() > 40
    assert torch.allclose(learner[own], batch.sampler_logprobs[own], atol=1e-4)


def test_other_kinds_of_layer_are_refused_by_name():
    config = LlamaConfig(
        layer_types=["full_attention", "full_attention"], num_hidden_layers=2
    )
    config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(
        PolicyError,
        match=(
            "cannot run llama: it has layers of type full_attention, linear_attention"
        ),
    ):
        attention_masks(config, torch.zeros(1, 1, dtype=torch.long), 1)


def test_the_templates_own_end_token_ends_a_turn():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|user|>{% endfor"
        " %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    chat = ChatFormat(tokenizer)
    closing, end = tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>"])
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|user|>", "<|assistant|>"]}
    )
    assert chat.end_ids() == {closing, end}
