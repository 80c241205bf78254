"""The transformers sampler reproduces models of other kinds, or refuses them by
name.
"""

import asyncio
import runpy
from contextlib import closing
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from aipo_env import Author, Completion, Message, PolicyError, Scenario, Span
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import collate, episode_row
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import save_policy
from aipo_learner.policy.tiny import build_tokenizer
from aipo_learner.rollout.waves import play_wave
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.samplers.weight_sync import check_sampler, probe_tokens
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = runpy.run_path(str(ROOT / "benchmarks" / "families.py"))
"""The script that makes the table in docs/families.md."""

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
        learner, _ = microbatch_logprobs(LearnerForward(model), batch)
    own = batch.policy_mask
    assert own.sum() > 40
    assert torch.allclose(learner[own], batch.sampler_logprobs[own], atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "afmoe",
        "bloom",
        "cohere2",
        "ctrl",
        "deepseek_v3",
        "exaone4",
        "falcon",
        "falcon alibi",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gemma4",
        "glm4",
        "gpt2",
        "gpt_neo",
        "gpt_oss",
        "gptj",
        "granite",
        "llama4",
        "llama4_text",
        "ministral",
        "mistral sliding eager",
        "mixtral sliding",
        "modernbert-decoder",
        "mpt",
        "olmo3",
        "opt",
        "phi3 sliding",
        "qwen2 sliding",
        "qwen3_moe",
        "smollm3",
        "starcoder2 sliding",
    ],
)
def test_what_a_family_samples_has_the_log_probabilities_of_whole_sequences(name: str):
    assert FAMILIES["compare_sampler"](FAMILIES["build"](name)) < 2e-4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deepseek_v32", "its layers keep more than keys and values"),
        ("jamba", "its layers keep more than keys and values"),
        ("kimi_linear", "its layers keep more than keys and values"),
        ("lfm2", "its layers keep more than keys and values"),
        ("mamba", "it keeps no keys and values in a cache"),
        ("minimax", "it fails on a prompt (ValueError: MiniMax uses cache of its own"),
        ("openai-gpt", "it keeps no keys and values in a cache"),
        ("qwen3_5_text", "its layers keep more than keys and values"),
        ("recurrent_gemma", "it fails on a prompt (IndexError"),
        ("roformer", "after a prompt of 128 tokens its log-probabilities are"),
        ("rwkv", "it keeps no keys and values in a cache"),
    ],
)
def test_a_family_that_cannot_be_sampled_is_refused_by_name(name: str, reason: str):
    model = FAMILIES["build"](name)
    sampler = HFSampler(model, FAMILIES["TOKENIZER"])
    with closing(sampler), pytest.raises(PolicyError) as refusal:
        check_sampler(sampler, model, 0.5)
    said = str(refusal.value)
    assert said.startswith(f"the transformers sampler cannot run {name}: {reason}")
    assert said.endswith("Sample with vLLM: --sampler vllm.")


@pytest.mark.parametrize("name", ["mistral sliding", "gemma3"])
def test_a_window_that_the_sampler_overlooks_is_found(name: str):
    model, other = FAMILIES["build"](name), FAMILIES["build"](name)
    model.config.get_text_config().sliding_window = 200
    # Longer than any of the prompts: as if there were none.
    other.config.get_text_config().sliding_window = 100_000
    with closing(HFSampler(other, FAMILIES["TOKENIZER"])) as sampler:
        with pytest.raises(PolicyError, match="after a prompt of 328 tokens"):
            check_sampler(sampler, model, 0.5)
        # Where no episode leaves the window it does not matter.
        gap = check_sampler(sampler, model, 0.5, max_tokens=190)
    assert 0 < gap["kl_sampler/max_gap"] < 1e-4


@pytest.mark.parametrize(
    ("config", "max_tokens", "length"),
    [
        (LlamaConfig(), None, 128),
        (LlamaConfig(max_position_embeddings=100), None, 36),
        (LlamaConfig(max_position_embeddings=16), None, 1),
        (MistralConfig(sliding_window=300), None, 428),
        (MistralConfig(sliding_window=300), 400, 336),
        (MistralConfig(sliding_window=100_000), None, 4352),
        (GPTNeoConfig(window_size=256), None, 384),
        (Llama4TextConfig(attention_chunk_size=1000), None, 1128),
        (Gemma3Config(text_config={"sliding_window": 700}), None, 828),
    ],
)
def test_the_prompt_is_longer_than_any_window_and_than_no_episode(
    config: PreTrainedConfig, max_tokens: int | None, length: int
):
    assert probe_tokens(config, max_tokens) == length


def test_rows_that_are_over_take_no_position_from_the_others():
    """As many columns as the longest row has would be more than there are positions."""
    config = GPTNeoConfig(
        vocab_size=2112,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
        max_position_embeddings=64,
    )
    torch.manual_seed(2)
    model = GPTNeoForCausalLM(config).eval()
    sampler = HFSampler(model, FAMILIES["TOKENIZER"])
    sampler.stops.end_ids = set()

    async def turns() -> list[Completion]:
        voices = [sampler.voice((number,)) for number in range(3)]
        for voice, words in zip(voices, (48, 1, 1), strict=True):
            text = " ".join("a" * words)
            voice.open([Message("user", (Span(text, Author.PROMPT),))])
            voice.token_ids = voice.token_ids[-words - 2 :]
        # One of three is over: decoding does not pause for it, and goes on.
        limits = (4, 40, 40)
        jobs = [v.complete((), n) for v, n in zip(voices, limits, strict=True)]
        return await asyncio.gather(*jobs)

    with closing(sampler):
        assert [len(turn.token_ids) for turn in asyncio.run(turns())] == [4, 40, 40]


def test_a_run_is_refused_before_its_first_step(tmp_path: Path):
    policy, out = tmp_path / "policy", tmp_path / "run"
    save_policy(FAMILIES["build"]("rwkv"), FAMILIES["TOKENIZER"], policy)
    with pytest.raises(PolicyError, match="cannot run rwkv: .*--sampler vllm"):
        train(TrainConfig(policy=str(policy), out=out), Console(quiet=True))
    assert read_metrics(out / "metrics.jsonl") == []
    assert list((out / "checkpoints").iterdir()) == []
    assert list((out / "episodes").iterdir()) == []


def test_the_check_is_of_episodes_as_long_as_those_of_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Checked(Exception):
        pass

    def refuse(_sampler: object, _model: object, _gap: float, max_tokens: int):
        raise Checked(max_tokens)

    monkeypatch.setattr("aipo_learner.build.check_sampler", refuse)
    # The toy environment's episodes are shorter than those of the science tasks.
    config = TrainConfig(
        out=tmp_path,
        environment={"source": "toy", "rules": {"max_context_tokens": 400}},
        evaluation=EvaluationSchedule(every=1, environment="AIPO-Science-v0"),
    )
    with pytest.raises(Checked, match="4096"):
        train(config, Console(quiet=True))


@pytest.mark.slow
def test_the_page_says_what_every_family_does():
    page = FAMILIES["PAGE"].read_text(encoding="utf-8")
    cells = [line.strip("| ").split(" | ") for line in page.splitlines()]
    rows = {row[0]: row[1:] for row in cells if len(row) == 4 and row[0] != "family"}
    assert list(rows) == list(FAMILIES["FAMILIES"])
    for name, said in rows.items():
        found = FAMILIES["row_of"](name)[1:]
        # How exact it is differs from machine to machine.
        signs = [cell.split()[0] for cell in found]
        assert [name, *signs] == [name, *(cell.split()[0] for cell in said)]


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
