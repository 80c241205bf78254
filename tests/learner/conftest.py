"""Small real models, made here: no download."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from aipo_env import Scenario, build_scenario
from aipo_learner.policy.load import save_policy
from aipo_learner.policy.runtime import prepare
from aipo_learner.policy.tiny import build_model, build_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content']"
    " }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{%"
    " endif %}"
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    prepare(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The tiny architecture with random weights."""
    return build_model(tokenizer, seed=0).eval()


@pytest.fixture
def scenario() -> Scenario:
    return build_scenario("toy", seed=5)


@pytest.fixture(scope="session")
def chatml_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Another vocabulary of special tokens and another template: newlines, an end token
    of its own.
    """
    other = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer()._tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )
    return other


@pytest.fixture(params=["llama", "qwen2"])
def foreign_policy(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    chatml_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """A folder with a tiny random Llama or Qwen2 and its own tokenizer and template."""
    torch.manual_seed(1)
    sizes = {
        "vocab_size": len(chatml_tokenizer) + 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "eos_token_id": chatml_tokenizer.eos_token_id,
        "pad_token_id": chatml_tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    makers: dict[str, Callable[[], PreTrainedModel]] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**sizes)),
    }
    save_policy(makers[request.param](), chatml_tokenizer, tmp_path / "policy")
    return tmp_path / "policy"
