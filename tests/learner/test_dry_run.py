"""The rehearsal of a run, and the arithmetic of what the real one takes."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM

from aipo_env import DialogueRules, Environment, PolicyError
from aipo_env.cli import main
from aipo_learner.dry_run import (
    Footprint,
    architecture,
    dry_run,
    estimate,
    measure,
    shrunk,
)
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.recipes import RECIPES
from aipo_learner.settings.train import TrainConfig


@pytest.mark.parametrize(
    ("policy", "num_params"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
    ],
)
def test_known_architectures_have_the_published_number_of_weights(
    policy: str, num_params: int
):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            architecture(TrainConfig(policy=policy))
        )
    assert sum(p.numel() for p in model.parameters()) == num_params


@pytest.mark.parametrize(
    "kind", ["qwen2", "qwen3", "llama", "gemma2", "mistral", "gpt2", "qwen3_moe"]
)
def test_a_shrunk_architecture_is_small_and_works(kind: str):
    small = shrunk(AutoConfig.for_model(kind), 100)
    model = AutoModelForCausalLM.from_config(small)
    assert type(model.config).model_type == kind
    assert sum(p.numel() for p in model.parameters()) < 3e7
    assert model(input_ids=torch.arange(8)[None]).logits.shape == (1, 8, 100)


def test_heads_that_share_keys_still_share_them():
    shape = architecture(TrainConfig(policy="Qwen/Qwen2.5-7B-Instruct"))
    small = shrunk(shape, 100)
    assert (
        small.num_attention_heads,
        small.num_key_value_heads,
        small.num_hidden_layers,
    ) == (4, 2, 2)


def test_an_unknown_policy_is_named(tmp_path: Path, monkeypatch):
    with pytest.raises(
        PolicyError,
        match=r"nowhere' has no readable config.json.*Qwen/Qwen2.5-7B-Instruct",
    ):
        architecture(TrainConfig(policy=str(tmp_path / "nowhere")))


def test_what_a_forward_pass_keeps_grows_with_tokens_and_layers():
    one, two = (
        AutoConfig.for_model(
            "llama",
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=100,
        )
        for layers in (4, 8)
    )
    config = TrainConfig(compute=ComputeConfig(precision="float32"))
    small, large = (measure(shape, config, 1000) for shape in (one, two))
    assert large.activation_bytes == pytest.approx(2 * small.activation_bytes, rel=0.1)
    assert small.cast_bytes < 5000
    assert measure(one, TrainConfig(), 1000).activation_bytes < small.activation_bytes
    # Weights of the layers in bfloat16: 2 bytes of 4 * (64 * (64 + 32 + 32 + 64) + 3 *
    # 64 * 128).
    assert measure(one, TrainConfig(), 1000).cast_bytes == pytest.approx(
        2 * 4 * 36_864, rel=0.05
    )
    # 2 * 2 bytes * 4 layers * 2 heads of 16.
    assert small.cache_bytes == 4 * 4 * 2 * 16
    # 2 * (weights of layers and head + 4 layers * 64 * 1000 of attention to half of
    # 1000 tokens).
    assert small.token_flops == 2 * (4 * 36_864 + 6400 + 256_000)
    adapted = measure(one, TrainConfig(compute=ComputeConfig(lora_rank=8)), 1000)
    assert adapted.num_trained == 8 * 4 * (
        64 + 64 + 2 * (64 + 32) + 64 + 64 + 3 * (64 + 128)
    )
    assert small.num_trained == small.num_params
    assert small.vocabulary == 100


SIZE = Footprint(
    num_params=2**33,
    num_trained=2**33,
    num_layers=32,
    hidden_size=4096,
    cast_bytes=2.0**34,
    activation_bytes=2.0**23,
    cache_bytes=2**17,
    token_flops=2e10,
)
RULES = DialogueRules(max_policy_tokens=8192, max_context_tokens=2**14)


def test_the_table_adds_up():
    config = TrainConfig(
        groups_per_step=8,
        group_size=8,
        microbatch_tokens=4096,
        sampler="transformers",
        compute=ComputeConfig(gradient_checkpointing=True),
    )
    # 128 GiB of state over 8; layer inputs 4096 * 32 * 4096 * 4 = 2 GiB, one layer
    # again 1 GiB, its bfloat16 weights 0.5; 32 GiB to sample from; 8 episodes of 16,384
    # * 128 KiB fill the 16 GiB of 71.3 that they need.
    row = estimate(config, RULES, SIZE, "H100 80 GB", 8)
    assert row[:5] == ("16.0", "3.5", "32.0", "51.5 of 71.3", "8 of 8")
    reading = 8192 * (2 * 2**33 + 8 * 2**13 * 2**17) / (0.6 * 3.35e12) / 60
    computing = 8 * 2**14 * 2e10 * 4 / (0.4 * 989e12) / 60
    assert row[5:] == (f"{reading:.1f}", f"{computing:.1f}")
    assert estimate(config, RULES, SIZE, "H100 80 GB", 1)[3:] == (
        "147.0 of 71.3",
        "does not fit",
        "",
        "",
    )


def test_without_checkpointing_all_activations_and_all_casts_are_held():
    config = TrainConfig(microbatch_tokens=1024, sampler="transformers")
    assert estimate(config, RULES, SIZE, "H200", 1)[:3] == ("128.0", "24.0", "0.0")


def test_an_entropy_bonus_holds_all_logits_of_the_policys_tokens():
    config = TrainConfig(
        microbatch_tokens=1024,
        sampler="transformers",
        objective=ObjectiveConfig(entropy_coef=0.01),
    )
    # Of 1024 tokens half are the policy's: 512 * 5 * 4 * 2^18 bytes are 2.5 GiB.
    size = replace(SIZE, vocabulary=2**18)
    assert estimate(config, RULES, size, "H200", 1)[:3] == ("128.0", "26.5", "0.0")


def test_another_sampler_holds_weights_of_its_own():
    config = TrainConfig(microbatch_tokens=1024, sampler="auto")
    lora = replace(SIZE, num_trained=2**20)
    assert estimate(config, RULES, lora, "H200", 1)[:3] == ("32.0", "24.0", "16.0")


def test_a_rehearsal_makes_a_step_and_does_without_what_is_out_of_reach(
    foreign_policy: Path, tmp_path: Path
):
    console = Console(record=True, width=200, file=io.StringIO())
    config = TrainConfig(
        policy=str(foreign_policy),
        environment=Environment(agents="openai:m@http://127.0.0.1:9/v1"),
        out=tmp_path / "run",
        num_threads=1,
        group_size=4,
        source=EpisodeSource(max_staleness=3),
        overlong_buffer=50,
    )
    dry_run(config, console)
    said = console.export_text()
    assert (
        "The toy world and its agents stand in: no answer can come from openai:m#"
        in said
    )
    assert (
        "One step of sampling, update and checkpoint was made with a random tiny"
        " policy." in said
    )
    assert "8 x H100 80 GB" in said
    assert "A checkpoint takes " in said
    assert not config.out.exists()


def test_the_recipes_rehearse_from_the_command_line(
    capsys, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--recipe", "toy", "--dry-run"]) == 0
    assert "random tiny policy" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_large_recipes_are_the_setting_that_they_name():
    for name in ("math_7b", "math_7b_lora"):
        config = RECIPES[name]()
        assert TrainConfig.from_dict(config.to_dict()) == config
        assert (config.policy, config.environment.rules.consult_budget) == (
            "Qwen/Qwen2.5-7B-Instruct",
            3,
        )
        assert config.objective.clip_bounds() == (0.2, 0.28)
        assert config.objective.kl_coef == 0
    assert (config.groups_per_step, config.group_size, config.compute.lora_rank) == (
        32,
        8,
        32,
    )
    whole = RECIPES["math_7b"]()
    assert (whole.lr, whole.groups_per_step, whole.group_size) == (1e-6, 256, 8)
