"""Loading policies: what a user gets wrong, and models that are not ours."""

import ast
import json
import os
import shutil
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)

from aipo_env import (
    ConfigError,
    DialogueRules,
    Environment,
    PolicyError,
    hub_fault,
)
from aipo_env.cli import main
from aipo_learner.cli import evaluate_command
from aipo_learner.dry_run import measure
from aipo_learner.learn.rows import Row, collate
from aipo_learner.policy import load
from aipo_learner.policy.chat import PLAIN_TEMPLATE
from aipo_learner.policy.fitness import check_context
from aipo_learner.policy.forward import LearnerForward
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


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_adapter_is_said_to_be_one_whatever_is_beside_it(
    name: str, foreign_policy: Path
):
    (foreign_policy / name).unlink()
    (foreign_policy / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(
        PolicyError, match="base model as the policy, .*--compute.lora-adapter FOLDER"
    ):
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


one_policy = pytest.mark.parametrize("foreign_policy", ["llama"], indirect=True)
"""Where the kind of model makes no difference."""


def edited(folder: Path, name: str, **changes: Any) -> None:
    """Change fields of a JSON file of a policy."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@one_policy
def test_weights_that_are_pickled_are_named(foreign_policy: Path):
    (foreign_policy / "model.safetensors").rename(foreign_policy / "pytorch_model.bin")
    with pytest.raises(PolicyError, match="in pytorch_model.bin, which runs code when"):
        load_policy(str(foreign_policy))


@one_policy
def test_a_folder_without_any_weights_says_so(foreign_policy: Path):
    (foreign_policy / "model.safetensors").unlink()
    with pytest.raises(PolicyError, match="there are no weights in it"):
        load_policy(str(foreign_policy))


@one_policy
def test_weights_that_were_cut_off_are_refused(foreign_policy: Path):
    path = foreign_policy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(PolicyError, match="has no usable model: "):
        load_policy(str(foreign_policy))


@one_policy
@pytest.mark.parametrize(
    "name", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"]
)
def test_a_weight_that_is_not_in_the_files_is_named(name: str, foreign_policy: Path):
    path = foreign_policy / "model.safetensors"
    weights = load_file(path)
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PolicyError, match=f"lack 1 of the model's .*'{name}'.*random"):
        load_policy(str(foreign_policy))


@one_policy
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, r"'lm_head.weight' has the shape .*, 64\) by its config"),
        ({"intermediate_size": 40}, r"'model.layers.0.mlp.down_proj.weight' has the"),
        ({"num_attention_heads": 5}, "hidden size .32. is not a multiple"),
    ],
)
def test_a_configuration_that_is_not_the_weights_says_what_differs(
    changes: dict, message: str, foreign_policy: Path
):
    edited(foreign_policy, "config.json", **changes)
    with pytest.raises(PolicyError, match=f"has no usable model: .*{message}"):
        load_policy(str(foreign_policy))


@one_policy
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.layers.1.self_attn.v_proj.weight"]
)
def test_a_weight_that_is_not_finite_is_named(
    value: float, name: str, foreign_policy: Path
):
    path = foreign_policy / "model.safetensors"
    weights = load_file(path)
    # The last row: that of no token that comes up, in the embedding.
    weights[name][-1, -1] = value
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PolicyError, match=f"its weight '{name}' has numbers that are"):
        load_policy(str(foreign_policy))


@one_policy
def test_logits_that_are_not_finite_are_named(foreign_policy: Path):
    path = foreign_policy / "model.safetensors"
    weights = load_file(path)
    for name in weights:
        if "proj" in name:
            weights[name] *= 1e30
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PolicyError, match="weights are finite, and its logits are not"):
        load_policy(str(foreign_policy))


@one_policy
@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {"quant_method": "fp8"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization_config": {"quant_method": "awq"}},
        {"compression_config": {"quant_method": "compressed-tensors"}},
    ],
)
def test_quantised_weights_are_refused_with_their_method(
    changes: dict, foreign_policy: Path
):
    edited(foreign_policy, "config.json", **changes)
    [(name, value)] = changes.items()
    message = (
        f"weights are quantised .config.json has {name}: '{value['quant_method']}'"
    )
    with pytest.raises(PolicyError, match=message):
        load_policy(str(foreign_policy))


@one_policy
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "LlamaForSequenceClass",
        ),
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder with a decoder"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMasked"),
    ],
)
def test_a_model_of_another_kind_is_refused_by_name(
    changes: dict, message: str, foreign_policy: Path
):
    edited(foreign_policy, "config.json", **changes)
    with pytest.raises(PolicyError, match=f"{message}.*, does not write text"):
        load_policy(str(foreign_policy))


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def test_a_model_that_sees_later_tokens_is_refused(chatml_tokenizer, tmp_path: Path):
    shape = AutoConfig.for_model("bert", vocab_size=len(chatml_tokenizer) + 3, **SMALL)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shape)
    save_policy(model, chatml_tokenizer, tmp_path / "policy")
    with pytest.raises(PolicyError, match=r"depend on later tokens, .* \(bert\)"):
        load_policy(str(tmp_path / "policy"))


@one_policy
@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoConfig": "own.OwnConfig"}, "model_type": "own"},
        {
            "auto_map": {
                "AutoConfig": "somebody/model--own.OwnConfig",
                "AutoModelForCausalLM": "somebody/model--own.OwnModel",
            },
            "model_type": "own",
        },
    ],
)
def test_a_model_that_brings_code_is_refused_until_that_is_trusted(
    changes: dict, foreign_policy: Path
):
    edited(foreign_policy, "config.json", **changes)
    with pytest.raises(PolicyError, match="model needs code .*--trust-remote-code"):
        load_policy(str(foreign_policy))


@one_policy
def test_a_tokenizer_that_brings_code_is_refused_until_that_is_trusted(
    foreign_policy: Path,
):
    edited(
        foreign_policy,
        "tokenizer_config.json",
        auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]},
        tokenizer_class="OwnTokenizer",
    )
    with pytest.raises(PolicyError, match="tokenizer needs code .*--trust-remote-code"):
        load_policy(str(foreign_policy))


@one_policy
def test_a_tokenizer_without_an_end_token_is_refused(foreign_policy: Path):
    edited(foreign_policy, "tokenizer_config.json", eos_token=None)
    with pytest.raises(PolicyError, match="names no end-of-turn token"):
        load_policy(str(foreign_policy))


@one_policy
@pytest.mark.parametrize(
    ("number", "special", "fits"),
    [(3, False, True), (4, False, False), (4, True, True), (9, False, False)],
)
def test_a_token_without_a_row_is_named_if_a_text_can_become_it(
    number: int, special: bool, fits: bool, foreign_policy: Path
):
    _, tokenizer = load_policy(str(foreign_policy))
    first, num_rows = len(tokenizer), len(tokenizer) + 3
    new = [f"<new {each}>" for each in range(number)]
    tokenizer.add_tokens(new, special_tokens=special)
    tokenizer.save_pretrained(foreign_policy)
    if fits:
        _, again = load_policy(str(foreign_policy))
        assert len(again) == first + number
        return
    with pytest.raises(
        PolicyError,
        match=rf"token '<new 3>' with id {num_rows}, .* {num_rows} rows.* Add rows",
    ):
        load_policy(str(foreign_policy))


@one_policy
@pytest.mark.parametrize("role", ["pad_token", "eos_token"])
def test_an_end_or_padding_token_without_a_row_is_named(
    role: str, foreign_policy: Path
):
    _, tokenizer = load_policy(str(foreign_policy))
    tokenizer.add_tokens([f"<new {each}>" for each in range(3)], special_tokens=True)
    tokenizer.add_special_tokens({role: "<last>"})
    tokenizer.save_pretrained(foreign_policy)
    with pytest.raises(PolicyError, match="token '<last>' with id "):
        load_policy(str(foreign_policy))


@one_policy
def test_padding_by_the_end_token_hides_no_end_token(foreign_policy: Path):
    """Neither from the loss nor from what is learned, and no row beside it matters."""

    def gradients(pad_token: str) -> tuple[list[float], torch.Tensor]:
        edited(foreign_policy, "tokenizer_config.json", pad_token=pad_token)
        pad_token_id = AutoTokenizer.from_pretrained(foreign_policy).pad_token_id
        edited(foreign_policy, "config.json", pad_token_id=pad_token_id)
        model, tokenizer = load_policy(str(foreign_policy))
        assert tokenizer.pad_token == pad_token
        end = int(tokenizer.eos_token_id)
        rows = [
            Row(
                token_ids=np.array([5, end, 7, *further]),
                policy_mask=np.array([False, True, True, *(True for _ in further)]),
                agent_mask=np.zeros(3 + len(further), bool),
                sampler_logprobs=np.zeros(3 + len(further), np.float32),
                agent_logprobs=np.zeros(3 + len(further), np.float32),
                advantage=1.0,
            )
            for further in ([], [end, 9])
        ]
        batch = collate(rows, int(tokenizer.pad_token_id))
        logprobs, _ = LearnerForward(model)(
            batch.token_ids, batch.attention_mask, batch.policy_mask
        )
        logprobs.sum().backward()
        embedding: Any = model.get_input_embeddings()
        return logprobs.detach().tolist(), embedding.weight.grad

    other, other_gradient = gradients("<|pad|>")
    same, same_gradient = gradients("<|im_end|>")
    assert same == other
    assert torch.equal(same_gradient, other_gradient)
    _, tokenizer = load_policy(str(foreign_policy))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert same_gradient[tokenizer.eos_token_id].abs().max() > 0


def shaped(kind: str, **fields: Any) -> PreTrainedModel:
    """A model without memory."""
    shape = AutoConfig.for_model(kind, vocab_size=100, **fields)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(shape)


GPT = {"n_embd": 32, "n_layer": 1, "n_head": 4}
FALCON = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
YARN = LINEAR | {"rope_type": "yarn", "original_max_position_embeddings": 32}
POSITIONS: list[tuple[str, dict[str, Any], int | None]] = [
    ("llama", SMALL | {"max_position_embeddings": 64}, 64),
    ("llama", SMALL | {"max_position_embeddings": 64, "rope_parameters": LINEAR}, 256),
    ("qwen2", SMALL | {"max_position_embeddings": 64, "rope_parameters": YARN}, 128),
    ("gpt2", GPT | {"n_positions": 64}, 64),
    ("gptj", GPT | {"n_positions": 64, "rotary_dim": 4}, 64),
    (
        "opt",
        {
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
        64,
    ),
    ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 1, "max_seq_len": 64}, 64),
    ("falcon", FALCON | {"alibi": True, "max_position_embeddings": 64}, None),
    ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 4}, None),
    ("mamba", {"hidden_size": 32, "num_hidden_layers": 1}, None),
]


@pytest.mark.parametrize(("kind", "fields", "limit"), POSITIONS)
def test_episodes_are_no_longer_than_positions_reach(
    kind: str, fields: dict, limit: int | None
):
    model = shaped(kind, **fields)
    if limit is None:
        check_context(model, 10_000_000)
        return
    check_context(model, limit)
    with pytest.raises(
        ConfigError,
        match=rf"max_context_tokens={limit + 1} .* the {limit} positions .*"
        rf"--environment.rules.max-context-tokens {limit}\)",
    ):
        check_context(model, limit + 1)


@one_policy
def test_a_run_with_longer_episodes_than_the_policy_reads_does_not_begin(
    foreign_policy: Path, tmp_path: Path
):
    rules = {"max_context_tokens": 513}
    config = TrainConfig(
        policy=str(foreign_policy),
        out=tmp_path / "run",
        num_threads=1,
        environment=Environment(rules=rules),
    )
    message = "max_context_tokens=513 .* the 512 positions"
    with pytest.raises(ConfigError, match=message):
        train(config, Console(quiet=True))
    with pytest.raises(ConfigError, match=message):
        measure(AutoConfig.from_pretrained(foreign_policy), config, 513)
    command = ["eval", "--policy", str(foreign_policy), "--num-threads", "1"]
    command += ["--environment.rules.max-context-tokens", "513"]
    with pytest.raises(ConfigError, match=message):
        evaluate_command(command[1:])


def test_the_tiny_policy_reads_what_the_rules_allow_by_default():
    model, _ = load_policy(policy_folder("tiny"))
    check_context(model, DialogueRules().max_context_tokens)


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
    assert [row["step"] for row in rows] == [1, 2]
    assert all(abs(row.get("kl_sampler", 0.0)) < 1e-3 for row in rows)
    model = AutoModelForCausalLM.from_pretrained(policy_folder(str(out)))
    assert model.config.model_type in ("llama", "qwen2")
    shutil.rmtree(out)


class HubThatRefuses(BaseHTTPRequestHandler):
    """Answers every question of a client with one error of the Hub."""

    status = 404
    fault = ""

    def do_GET(self) -> None:
        self.send_response(self.status)
        if self.fault:
            self.send_header("X-Error-Code", self.fault)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def refusing_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that has the Hub's client ask a hub that refuses all."""
    servers = []

    def serve(status: int, fault: str) -> None:
        handler = type("Handler", (HubThatRefuses,), {"status": status, "fault": fault})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        point_at(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    yield serve
    huggingface_hub.close_session()
    for server in servers:
        server.shutdown()
        server.server_close()


def point_at(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = huggingface_hub.constants
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize(
    ("status", "fault", "message"),
    [
        (404, "RepoNotFound", "there is no such repository on the Hub, or it is priv"),
        (401, "", "the Hub refuses it .401.. Check your token, or log in with `hf"),
        (
            403,
            "GatedRepo",
            "nobody/model is gated on the Hub. Accept its terms on its page, http.*"
            "/nobody/model, and log in with `hf auth login` or HF_TOKEN",
        ),
        (403, "", r"the Hub refuses it .403.. Check your token"),
    ],
)
def test_what_the_hub_refuses_is_told_apart(
    refusing_hub, status: int, fault: str, message: str
):
    refusing_hub(status, fault)
    with pytest.raises(PolicyError, match=f"policy 'nobody/model': {message}"):
        load_policy("nobody/model")


def test_without_a_network_that_is_said_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    # Nobody listens at port 1.
    point_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    message = (
        r"policy 'nobody/model': no network: the Hub .http://127.0.0.1:1. cannot be"
        " reached, and it was not downloaded before"
    )
    started = time.monotonic()
    with pytest.raises(PolicyError, match=message):
        load_policy("nobody/model")
    out = tmp_path / "run"
    words = ["--policy", "nobody/model", "--environment", "toy", "--out", str(out)]
    assert main(["train", *words]) == 2
    assert main(["eval", "--policy", "nobody/model", "--environment", "toy"]) == 2
    told = capsys.readouterr().err
    assert told.count("no network: the Hub") == 2
    assert told.count("Or give the folder of a model that is here.") == 2
    assert main(["train", *words, "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert "Or a name whose architecture is known: Qwen/Qwen2.5-0.5B-Instruct" in told
    # The Hub's own client tries for 23 s.
    assert time.monotonic() - started < 8
    assert not out.exists()


def test_a_model_that_was_downloaded_needs_no_network(
    foreign_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    point_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    commit = "a" * 40
    repository = tmp_path / "models--somebody--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(foreign_policy, repository / "snapshots" / commit)
    model, tokenizer = load_policy("somebody/model")
    plain, _ = load_policy(str(foreign_policy))
    assert model.num_parameters() == plain.num_parameters()
    assert tokenizer.eos_token_id is not None


@pytest.mark.parametrize(
    ("kind", "meaning"),
    [
        ("GatedRepoError", "x/y is gated on the Hub"),
        ("RepositoryNotFoundError", "there is no such repository on the Hub"),
        ("RevisionNotFoundError", "the repository has no such revision"),
        ("HfHubHTTPError", "the Hub answers 503. Try again later."),
        ("RemoteEntryNotFoundError", ""),
    ],
)
def test_an_error_of_the_hub_is_found_behind_another(kind: str, meaning: str):
    errors = huggingface_hub.errors
    response = huggingface_hub.get_session().build_request("GET", "http://hub/")
    refusal = SimpleNamespace(status_code=503, headers={}, request=response)
    cause = getattr(errors, kind)("told", response=refusal)
    error = OSError("of a library that asked it")
    error.__cause__ = cause
    assert hub_fault(error, "x/y").startswith(meaning)
    assert bool(hub_fault(error, "x/y")) == bool(meaning)


def test_what_is_no_error_of_the_hub_has_no_such_meaning():
    assert hub_fault(ValueError("a model of another kind"), "x/y") == ""
    assert hub_fault(FileNotFoundError(2, "no such file"), "x/y") == ""
    absent = huggingface_hub.errors.LocalEntryNotFoundError("not here")
    assert hub_fault(absent, "x/y").startswith("no network: ")


def test_a_folder_without_tokenizer_says_where_to_have_one(foreign_policy: Path):
    for path in foreign_policy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(PolicyError, match="no usable tokenizer: .* Copy the"):
        load_policy(str(foreign_policy))
