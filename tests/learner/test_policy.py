"""Loading policies: what a user gets wrong, and models that are not ours."""

import ast
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from aipo_env import Environment, PolicyError
from aipo_learner.policy import load
from aipo_learner.policy.chat import PLAIN_TEMPLATE
from aipo_learner.policy.load import load_policy, policy_folder, save_policy
from aipo_learner.run.metrics_log import read_metrics
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


def test_a_tokenizer_without_chat_template_gets_a_plain_one_and_says_so(
    foreign_policy: Path, caplog: pytest.LogCaptureFixture
):
    (foreign_policy / "chat_template.jinja").unlink()
    _, tokenizer = load_policy(str(foreign_policy))
    assert tokenizer.chat_template == PLAIN_TEMPLATE
    assert "has no chat template, as those of base models" in caplog.text


def test_a_folder_without_weights(foreign_policy: Path):
    (foreign_policy / "model.safetensors").unlink()
    with pytest.raises(PolicyError, match="no usable model"):
        load_policy(str(foreign_policy))


def test_an_adapter_is_no_policy(foreign_policy: Path):
    row = {"base_model_name_or_path": "somebody/model", "peft_type": "LORA"}
    (foreign_policy / "adapter_config.json").write_text(json.dumps(row))
    with pytest.raises(PolicyError, match="is an adapter .* export the two merged"):
        load_policy(str(foreign_policy))


def test_a_folder_with_a_pipe_is_not_read(foreign_policy: Path):
    (foreign_policy / "model.safetensors").unlink()
    os.mkfifo(foreign_policy / "model.safetensors")
    with pytest.raises(PolicyError, match="model.safetensors is no file"):
        load_policy(str(foreign_policy))


def test_a_folder_without_config(foreign_policy: Path):
    (foreign_policy / "config.json").unlink()
    with pytest.raises(PolicyError, match="there is no config.json in it"):
        load_policy(str(foreign_policy))


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_a_folder_names_no_code_of_the_hub(foreign_policy: Path, name: str):
    path = foreign_policy / "config.json"
    row = json.loads(path.read_text()) | {name: "somebody/kernel"}
    path.write_text(json.dumps(row))
    with pytest.raises(PolicyError, match="names 'somebody/kernel' for attn_impleme"):
        load_policy(str(foreign_policy))


def test_for_a_folder_nothing_is_fetched_and_nobody_asked(
    foreign_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[str, dict[str, Any]]] = []
    for kind in (load.AutoTokenizer, load.AutoConfig, load.AutoModelForCausalLM):
        real = kind.from_pretrained

        def spied(path: str, real: Any = real, kind: Any = kind, **options: Any) -> Any:
            asked.append((kind.__name__, options))
            return real(path, **options)

        monkeypatch.setattr(kind, "from_pretrained", spied)
    load_policy(str(foreign_policy))
    said = {(name, o["trust_remote_code"], o["local_files_only"]) for name, o in asked}
    assert said == {
        ("AutoTokenizer", False, True),
        ("AutoConfig", False, True),
        ("AutoModelForCausalLM", False, True),
    }
    asked.clear()
    # Code that is trusted may be another folder's.
    load_policy(str(foreign_policy), trust_remote_code=True)
    assert asked[0][1] == {"trust_remote_code": True, "local_files_only": False}


def test_every_place_that_loads_a_model_says_whether_its_code_is_trusted():
    root = Path(__file__).resolve().parents[2]
    places = [
        (path.name, node)
        for folder in ("aipo_env", "aipo_learner", "benchmarks", "examples")
        for path in (root / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "from_config")
        and ast.unparse(node.func.value).startswith("Auto")
    ]
    assert len(places) >= 6
    for name, node in places:
        said = [keyword.arg for keyword in node.keywords]
        assert "trust_remote_code" in said, f"{name}:{node.lineno}"


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
