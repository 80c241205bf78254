"""Adapters: only they are trained, exports are plain models, and a resumed run equals
an uninterrupted one.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from aipo_env import CheckpointError, ConfigError, PolicyError, data_folder
from aipo_learner.policy.load import load_policy, save_policy
from aipo_learner.policy.lora import (
    adapter_state,
    add_adapter,
    merged_state,
    num_adapter_weights,
    save_adapter,
)
from aipo_learner.run.folder import Run
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.checkpoints import CheckpointConfig
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

# That is peft's import of a module of its own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
MODELS: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "llama, tied": SIZES | {"tie_word_embeddings": True},
    "gemma": SIZES | {"head_dim": 8},
    "phi": SIZES,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "qwen3_moe": SIZES | EXPERTS | {"num_experts": 4, "mlp_only_layers": [0]},
    "mixtral": SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": SIZES
    | EXPERTS
    | {
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
}
"""Dense models, some with weights the other way round or a tied head, and ones whose
experts are one tensor.
"""
FALCON_H1 = SIZES | {
    "mamba_d_ssm": 32,
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
}
IDS = torch.arange(20)[None]


def built(name: str, tokenizer: Any, **sizes: Any) -> PreTrainedModel:
    """A random model of a kind, the first word of `name`."""
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    shape = AutoConfig.for_model(
        name.partition(",")[0], vocab_size=len(tokenizer) + 3, **ends, **sizes
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(shape).eval()


def trained(model: PreTrainedModel) -> PreTrainedModel:
    """The model with adapters that add something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.3)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_whatever_the_model_its_exports_compute_the_same(
    name: str, tokenizer, tmp_path: Path
):
    save_policy(built(name, tokenizer, **MODELS[name]), tokenizer, tmp_path / "base")
    model, _ = load_policy(str(tmp_path / "base"))
    names, before = set(model.state_dict()), model(IDS).logits
    add_adapter(model, 4)
    assert torch.equal(model(IDS).logits, before)
    expected = trained(model)(IDS).logits
    assert (expected - before).abs().max() > 0.1
    save_policy(model, tokenizer, tmp_path / "merged")
    merged, _ = load_policy(str(tmp_path / "merged"))
    assert set(merged.state_dict()) == names
    torch.testing.assert_close(merged(IDS).logits, expected, rtol=0, atol=1e-5)
    save_adapter(model, tmp_path / "adapter")
    again, _ = load_policy(str(tmp_path / "base"))
    add_adapter(again, 4, start=str(tmp_path / "adapter"))
    assert torch.equal(again(IDS).logits, expected)
    trainable = {name for name, p in again.named_parameters() if p.requires_grad}
    assert trainable == set(adapter_state(again))


@pytest.mark.parametrize(
    ("of_adapter", "of_policy", "is_told"),
    [
        ("one", "one", False),
        ("owner/Model-1B", "models/Model-1B", False),
        ("owner/Model-1B", "models/Model-1B-Instruct", True),
        ("owner/Model-1B", "owner/Other-1B", True),
        ("gone/run/policy", "here/policy", False),
        ("here/policy", "there/policy", True),
        ("here/policy", "there/../here/policy", False),
        ("", "owner/Other-1B", False),
    ],
)
def test_an_adapter_of_another_model_is_told_of(
    of_adapter: str,
    of_policy: str,
    is_told: bool,
    tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    for folder in ("here/policy", "there/policy"):
        Path(folder).mkdir(parents=True)
    trained = built("llama", tokenizer, **SIZES)
    trained.name_or_path = of_adapter
    add_adapter(trained, 2)
    save_adapter(trained, Path("adapter"))
    model = built("llama", tokenizer, **SIZES)
    model.name_or_path = of_policy
    add_adapter(model, 2, start="adapter")
    assert len(caplog.records) == is_told
    if is_told:
        assert f"was trained on {of_adapter!r}" in caplog.text
        assert f"the policy is {of_policy!r}" in caplog.text


@pytest.mark.parametrize("name", ["llama, tied", "gpt2", "mixtral"])
@pytest.mark.filterwarnings("ignore")  # what peft says while it loads
def test_peft_reads_the_adapter_of_a_checkpoint(name: str, tokenizer, tmp_path: Path):
    from peft import PeftModel

    save_policy(built(name, tokenizer, **MODELS[name]), tokenizer, tmp_path / "base")
    model, _ = load_policy(str(tmp_path / "base"))
    add_adapter(model, 4)
    expected = trained(model)(IDS).logits
    save_adapter(model, tmp_path / "adapter")
    base, _ = load_policy(str(tmp_path / "base"))
    read = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    assert torch.equal(read(IDS).logits, expected)


@pytest.mark.parametrize(
    ("name", "sizes", "targets", "message"),
    [
        (
            "falcon_h1",
            FALCON_H1,
            "all-linear",
            r"this falcon_h1: .*'out_proj' is incompatible.*--compute.lora-targets",
        ),
        (
            "llama4_text",
            SIZES | {"num_local_experts": 4, "head_dim": 8},
            "all-linear",
            r"this llama4_text: 'tuple' object .*--compute.lora-rank 0",
        ),
        ("llama", SIZES, "q_proj,w_proj", r"no layer has the name 'w_proj'. .*up_proj"),
        ("llama", SIZES, "w_proj", "w_proj.* not found in the base model.*up_proj"),
        ("llama", SIZES, "lm_head,q_proj", "embeddings and the head stay as they are"),
        ("gpt2", MODELS["gpt2"], "wte", "embeddings and the head stay as they are"),
        (
            "mixtral",
            MODELS["mixtral"],
            "w1",
            "w1 without also targeting w3 because they are fused",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused_by_name(
    name: str, sizes: dict, targets: str, message: str, tokenizer
):
    with pytest.raises(PolicyError, match=message):
        add_adapter(built(name, tokenizer, **sizes), 4, targets=targets)


def test_layers_that_can_take_an_adapter_may_be_named(tokenizer):
    model = built("falcon_h1", tokenizer, **FALCON_H1)
    add_adapter(model, 2, targets=" q_proj, v_proj")
    assert {name.rpartition(".lora")[0] for name in adapter_state(model)} == {
        f"model.layers.{layer}.self_attn.{name}"
        for layer in (0, 1)
        for name in ("q_proj", "v_proj")
    }
    # 2 layers of 2 * (2 * 32 + 32 * 2) in two products of rank 2.
    other = built("falcon_h1", tokenizer, **FALCON_H1)
    assert num_adapter_weights(other, 2, "q_proj,v_proj") == 2 * 2 * 2 * (32 + 32)


def test_alpha_over_rank_multiplies_what_an_adapter_adds(tokenizer):
    model = built("llama", tokenizer, **SIZES)
    add_adapter(model, 4, alpha=2.0, targets="q_proj")
    name = "model.layers.0.self_attn.q_proj"
    before = model.state_dict()[f"{name}.base_layer.weight"]
    first, second = (
        adapter_state(trained(model))[f"{name}.lora_{which}.default.weight"]
        for which in "AB"
    )
    merged = merged_state(model)
    assert merged is not None
    torch.testing.assert_close(
        merged[f"{name}.weight"], before + 0.5 * second @ first, rtol=0, atol=1e-6
    )
    other = "model.layers.0.self_attn.k_proj.weight"
    # What has no adapter is the model's own, and takes no memory.
    assert merged[other].data_ptr() == model.state_dict()[other].data_ptr()


def test_an_export_that_is_not_the_plain_model_is_refused(tokenizer):
    model = built("llama", tokenizer, **SIZES)
    add_adapter(model, 4)
    # As if a layer of the model had another name, or were not there.
    model.register_parameter("extra", torch.nn.Parameter(torch.zeros(2)))
    message = r"'extra' has the shape None, merged \(2,\)"
    with pytest.raises(PolicyError, match=message):
        merged_state(model)


@pytest.fixture
def adapter(tokenizer, tmp_path: Path) -> Path:
    """The folder of an adapter of `built("llama", …)`, of rank 4."""
    model = built("llama", tokenizer, **SIZES)
    add_adapter(model, 4, targets="q_proj,v_proj")
    save_adapter(trained(model), tmp_path / "adapter")
    return tmp_path / "adapter"


Q_0 = "model.layers.0.self_attn.q_proj.lora_A"


def reshaped(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return weights | {name: torch.zeros(4, 33)}


def spoilt(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return weights | {name: torch.full((4, 32), torch.nan)}


def renamed(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    # One that stands in the order of names behind all others.
    return {"z" * (key == name) + key: value for key, value in weights.items()}


def enlarged(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return weights | {name.replace("q_proj", "a_proj"): torch.zeros(4, 32)}


FAULTS = [
    (reshaped, r"{name}' has the shape \(4, 33\), and the policy has \(4, 32\) there"),
    (spoilt, "{name}' has numbers that are not finite"),
    (renamed, "weight '{name}' is missing"),
    (enlarged, "adapter has no weight '{other}'"),
]
"""Each does something to a weight; what is said of it."""


@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_an_adapter_to_start_from_has_all_weights_and_no_others(
    spoil: Callable[..., dict], message: str, adapter: Path, tokenizer
):
    path = adapter / "adapter_model.safetensors"
    save_file(spoil(load_file(path), f"base_model.model.{Q_0}.weight"), path)
    # Of a file's names, that behind all others has no such beginning.
    name = f"{Q_0}.default.weight"
    expected = message.format(name=name, other=name.replace("q_proj", "a_proj"))
    with pytest.raises(PolicyError, match=f"no adapter of this policy: .*{expected}"):
        add_adapter(built("llama", tokenizer, **SIZES), 4, start=str(adapter))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 8}, "compute.lora_rank=8, but .* to start from has 4"),
        ({"rank": 4, "alpha": 16.0}, "compute.lora_alpha=16.0, but .* from has 8"),
        (
            {"rank": 4, "targets": "q_proj"},
            "lora_targets='q_proj', but .* from has 'q_proj,v_proj'",
        ),
    ],
)
def test_settings_that_are_not_the_adapters_are_named(
    given: dict, message: str, adapter: Path, tokenizer
):
    model = built("llama", tokenizer, **SIZES)
    with pytest.raises(ConfigError, match=message):
        add_adapter(model, **given, start=str(adapter))
    add_adapter(model, 4, alpha=8, targets="v_proj, q_proj", start=str(adapter))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "an adapter of the kind .*IA3, and LORA alone"),
        ({"use_dora": True}, "has use_dora=True, which is not trained here"),
        ({"modules_to_save": ["lm_head"]}, "has modules_to_save=.'lm_head'."),
        ({"bias": "all"}, "has bias='all'"),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights='pissa'"),
        ({"target_modules": ["z_proj"]}, "z_proj.* not found in the base model"),
        ({"peft_type": "NONE"}, "adapter_config.json cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_an_adapter_that_is_not_trained_here_is_named(
    change: dict, message: str, adapter: Path, tokenizer
):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PolicyError, match=message):
        add_adapter(built("llama", tokenizer, **SIZES), 4, start=str(adapter))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_config.json", "is no adapter's folder"),
        ("adapter_model.safetensors", "adapter_model.safetensors cannot be read"),
    ],
)
def test_a_folder_without_an_adapter_is_no_start(
    name: str, message: str, adapter: Path, tokenizer
):
    (adapter / name).unlink()
    with pytest.raises(PolicyError, match=message):
        add_adapter(built("llama", tokenizer, **SIZES), 4, start=str(adapter))


def test_an_adapter_of_another_model_is_no_start(adapter: Path, tokenizer):
    wider = built("llama", tokenizer, **(SIZES | {"hidden_size": 64}))
    with pytest.raises(PolicyError, match=r"the shape \(4, 32\), .* has \(4, 64\)"):
        add_adapter(wider, 4, start=str(adapter))


def test_without_peft_the_message_says_what_to_install(model, monkeypatch):
    monkeypatch.setattr("aipo_learner.policy.lora.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError,
        match=r'compute.lora_rank=4 needs peft: pip install "aipo-rl\[lora\]"',
    ):
        add_adapter(model, 4)


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


def config(out: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        out=out,
        num_steps=2,
        groups_per_step=2,
        group_size=4,
        checkpoint_every=1,
        num_threads=1,
        lr=1e-2,
        loggers="",
        compute=ComputeConfig(lora_rank=4),
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of adapters with checkpoints after both of its steps."""
    out = tmp_path_factory.mktemp("lora") / "whole"
    train(config(out), Console(quiet=True))
    return out


def test_a_resumed_run_equals_an_uninterrupted_one(run: Path, tmp_path: Path):
    resumed = Path(shutil.copytree(run, tmp_path / "resumed"))
    shutil.rmtree(resumed / "checkpoints/step-000002")
    train(config(resumed), Console(quiet=True))
    files = [
        out / "checkpoints/step-000002/policy/model.safetensors"
        for out in (run, resumed)
    ]
    one, other = (load_file(file) for file in files)
    assert all(torch.equal(one[name], other[name]) for name in one)
    initial = load_file(data_folder("tiny_policy") / "model.safetensors")
    changed = {name for name in initial if not torch.equal(initial[name], one[name])}
    assert "model.layers.0.mlp.up_proj.weight" in changed
    assert not any("embed" in name or "norm" in name for name in changed)


def test_a_new_run_starts_from_the_adapter_of_another(run: Path, tmp_path: Path):
    origin = run / "checkpoints/step-000002"
    start = CheckpointConfig(resume_from=str(origin), save_dtype="bfloat16")
    branch = tmp_path / "branch"
    # Hardly a change.
    train(config(branch, num_steps=1, lr=1e-12, checkpoints=start), Console(quiet=True))
    checkpoint = branch / "checkpoints/step-000001"
    name = "adapter_model.safetensors"
    began, ended = (
        load_file(origin / "adapter" / name),
        load_file(checkpoint / "adapter" / name),
    )
    assert began.keys() == ended.keys()
    for key, tensor in began.items():
        torch.testing.assert_close(ended[key], tensor, atol=1e-9, rtol=0)
    # The base is in the policy's folder: nothing more is kept than the adapter.
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    assert "weights" not in state
    merged = load_file(checkpoint / "policy/model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    # The whole state of the optimiser came along: it has made three steps.
    moments = load_file(next((checkpoint / "optimizer").glob("*.safetensors")))
    steps = {int(value) for key, value in moments.items() if key.endswith(".step")}
    assert steps == {3}
    both = ComputeConfig(lora_rank=4, lora_adapter=str(origin / "adapter"))
    with pytest.raises(ConfigError, match="which has an adapter too. Leave one out"):
        train(
            config(tmp_path / "both", compute=both, checkpoints=start),
            Console(quiet=True),
        )


TINY_Q_0 = f"{Q_0}.default.weight"


def tiny_reshaped(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return weights | {name: weights[name][:, :-1]}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(tiny_reshaped, r"{name}' has the shape \(4, 127\)"), *FAULTS[2:]],
)
def test_a_checkpoint_with_other_adapters_is_refused_by_name(
    spoil: Callable[..., dict], message: str, run: Path, tmp_path: Path
):
    copied = Path(shutil.copytree(run, tmp_path / "copy"))
    path = copied / "checkpoints/step-000002/state.pt"
    state = torch.load(path, weights_only=True)
    state["adapter"] = spoil(state["adapter"], TINY_Q_0)
    torch.save(state, path)
    other = TINY_Q_0.replace("q_proj", "a_proj")
    expected = message.format(name=TINY_Q_0, other=other)
    with pytest.raises(
        CheckpointError,
        match=f"state.pt: .*{expected}.* Delete .*one checkpoint earlier",
    ):
        train(config(copied, num_steps=3), Console(quiet=True))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        ({"lora_alpha": 4.0}, r"'lora_alpha': 4.0"),
        ({"lora_targets": "q_proj"}, "'lora_targets': 'q_proj'"),
        ({"lora_adapter": "elsewhere"}, "'lora_adapter': 'elsewhere'"),
    ],
)
def test_a_run_is_resumed_with_the_same_adapters(
    compute: dict, message: str, run: Path
):
    with (
        pytest.raises(CheckpointError, match=f"compute was .*{message}"),
        Run.open(config(run, compute=ComputeConfig(lora_rank=4, **compute))),
    ):
        pass


def test_a_run_starts_from_the_adapter_of_another(run: Path, tmp_path: Path):
    checkpoint = run / "checkpoints/step-000002"
    start = str(checkpoint / "adapter")
    out = tmp_path / "second"
    settings = config(
        out,
        num_steps=1,
        # So little that the weights are those of the start.
        lr=1e-12,
        compute=ComputeConfig(lora_rank=4, lora_adapter=start),
        objective=ObjectiveConfig(kl_coef=0.1),
    )
    train(settings, Console(quiet=True))
    first = load_file(checkpoint / "policy/model.safetensors")
    second = load_file(out / "checkpoints/step-000001/policy/model.safetensors")
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=1e-6)
    [row] = read_metrics(out / "metrics.jsonl")
    # The reference is what the run started from, adapter and all.
    assert abs(row["kl_ref"]) < 1e-9


def test_a_run_without_adapters_has_none_in_its_checkpoints(run: Path, tmp_path: Path):
    assert (run / "checkpoints/step-000002/adapter/adapter_config.json").is_file()
    settings = config(tmp_path / "run", compute=ComputeConfig())
    model, tokenizer = load_policy(str(data_folder("tiny_policy")))
    optimizer = torch.optim.AdamW(model.parameters())
    with Run.open(settings) as plain:
        plain.save(1, model, tokenizer, optimizer)
    checkpoint = tmp_path / "run/checkpoints/step-000001"
    assert {path.name for path in checkpoint.iterdir()} == {
        "policy",
        "optimizer",
        "state.pt",
    }
