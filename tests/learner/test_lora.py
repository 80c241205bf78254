"""Adapters: only they are trained, exports are plain models, and a resumed run equals
an uninterrupted one.
"""

import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from aipo_env import ConfigError, data_folder
from aipo_learner.policy.load import load_policy, save_policy
from aipo_learner.policy.lora import adapter_state, add_adapter, merged_state
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


def test_without_peft_the_message_says_what_to_install(model, monkeypatch):
    monkeypatch.setattr("aipo_learner.policy.lora.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError,
        match=r'compute.lora_rank=4 needs peft: pip install "aipo-rl\[lora\]"',
    ):
        add_adapter(model, 4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_export_is_the_plain_model_that_computes_the_same(
    foreign_policy: Path, tmp_path: Path
):
    model, tokenizer = load_policy(str(foreign_policy))
    names, ids = set(model.state_dict()), torch.arange(12)[None]
    before = model(ids).logits
    assert merged_state(model) is None
    add_adapter(model, 4)
    assert torch.equal(model(ids).logits, before)  # the second matrices are 0
    adapters = {name for name, p in model.named_parameters() if p.requires_grad}
    assert adapters == set(adapter_state(model))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_B." in name:
                p.normal_(std=0.1)
    trained = model(ids).logits
    assert not torch.allclose(trained, before, atol=1e-3)
    save_policy(model, tokenizer, tmp_path / "exported")
    plain, _ = load_policy(str(tmp_path / "exported"))
    assert set(plain.state_dict()) == names
    torch.testing.assert_close(plain(ids).logits, trained, rtol=1e-4, atol=1e-5)
    assert torch.equal(
        model(ids).logits, trained
    )  # nothing was merged into the model itself


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path):
    def config(out: str) -> TrainConfig:
        return TrainConfig(
            out=tmp_path / out,
            num_steps=4,
            groups_per_step=2,
            group_size=4,
            checkpoint_every=2,
            num_threads=1,
            lr=1e-2,
            compute=ComputeConfig(lora_rank=4),
        )

    train(config("whole"), Console(quiet=True))
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/checkpoints/step-000004")
    train(config("resumed"), Console(quiet=True))
    files = [
        tmp_path / out / "checkpoints/step-000004/policy/model.safetensors"
        for out in ("whole", "resumed")
    ]
    one, other = (load_file(file) for file in files)
    assert all(torch.equal(one[name], other[name]) for name in one)
    initial = load_file(data_folder("tiny_policy") / "model.safetensors")
    changed = {name for name in initial if not torch.equal(initial[name], one[name])}
    assert "model.layers.0.mlp.up_proj.weight" in changed
    assert not any("embed" in name or "norm" in name for name in changed)
