"""Loading policies: what a user gets wrong, and models that are not ours."""

import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from aipo_env import Environment, PolicyError
from aipo_learner.policy.load import load_policy, policy_folder, save_policy
from aipo_learner.run.metrics import read_metrics
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


def test_no_such_folder():
    with pytest.raises(PolicyError, match="policy './nowhere': no such folder"):
        load_policy("./nowhere")


def test_a_model_without_tokenizer(foreign_policy: Path):
    for path in foreign_policy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(PolicyError, match="no usable tokenizer"):
        load_policy(str(foreign_policy))


def test_a_tokenizer_without_chat_template(foreign_policy: Path):
    (foreign_policy / "chat_template.jinja").unlink()
    with pytest.raises(PolicyError, match="has no chat template"):
        load_policy(str(foreign_policy))


def test_a_folder_without_weights(foreign_policy: Path):
    (foreign_policy / "model.safetensors").unlink()
    with pytest.raises(PolicyError, match="no usable model"):
        load_policy(str(foreign_policy))


def test_pickled_weights_are_refused(foreign_policy: Path):
    model = AutoModelForCausalLM.from_pretrained(foreign_policy)
    torch.save(model.state_dict(), foreign_policy / "pytorch_model.bin")
    (foreign_policy / "model.safetensors").unlink()
    with pytest.raises(PolicyError, match="no usable model"):
        load_policy(str(foreign_policy))


def test_saving_replaces_a_folder_only_when_all_is_written(
    foreign_policy: Path, monkeypatch
):
    model, tokenizer = load_policy(str(foreign_policy))
    before = (foreign_policy / "model.safetensors").read_bytes()
    monkeypatch.setattr(
        tokenizer,
        "save_pretrained",
        lambda path: (_ for _ in ()).throw(OSError(28, "full")),
    )
    with pytest.raises(OSError, match="full"):
        save_policy(model, tokenizer, foreign_policy)
    assert (foreign_policy / "model.safetensors").read_bytes() == before


def test_any_causal_lm_trains_with_its_own_tokenizer_and_template(
    foreign_policy: Path, tmp_path: Path
):
    out = tmp_path / "run"
    config = TrainConfig(
        policy=str(foreign_policy),
        out=out,
        num_steps=2,
        groups_per_step=2,
        group_size=4,
        num_threads=1,
        overlong_buffer=40,
        environment=Environment(rules={"max_policy_tokens": 40}),
        lr=1e-3,
        objective=ObjectiveConfig(base="rloo"),
    )
    train(config, Console(quiet=True))
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1]
    assert all(abs(row.get("kl_sampler", 0.0)) < 1e-3 for row in rows)
    model = AutoModelForCausalLM.from_pretrained(policy_folder(str(out)))
    assert model.config.model_type in ("llama", "qwen2")
    shutil.rmtree(out)
