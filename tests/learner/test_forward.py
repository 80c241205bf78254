"""The learner's forward pass: equal to full logits for every kind of model, layout and
way of computing it.
"""

import copy

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

import aipo_learner.policy.forward as forward_module
from aipo_env import ConfigError, PolicyError
from aipo_learner.learn.logprobs import batch_logprobs, token_logprobs
from aipo_learner.learn.rows import Batch, Row, collate, split_rows
from aipo_learner.learn.update import update
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.train import TrainConfig

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "qwen3": Qwen3Config(**SIZES, tie_word_embeddings=True),
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, pad_token_id=0
    ),
    # Caps its logits, and has layers with a window shorter than the rows.
    "gemma2": Gemma2Config(
        **SIZES, final_logit_softcapping=2.0, sliding_window=4, query_pre_attn_scalar=16
    ),
    # Scales its logits.
    "cohere": CohereConfig(**SIZES, logit_scale=0.25),
    # Has a bias in its head.
    "phi": PhiConfig(**SIZES),
}


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform, so that a cap or a bias tells
        if name == "phi":
            model.lm_head.bias.normal_()
    return model


def drawn_row(length: int, seed: int) -> Row:
    rng = np.random.default_rng(seed)
    author = rng.integers(0, 3, length)
    author[0] = 0
    own, agent = author == 1, author == 2
    return Row(
        token_ids=rng.integers(0, VOCABULARY, length),
        policy_mask=own,
        agent_mask=agent,
        sampler_logprobs=np.where(own, np.float32(-3), np.float32(np.nan)),
        agent_logprobs=np.full(length, np.nan, np.float32),
        advantage=float(rng.normal()),
    )


ROWS = [drawn_row(length, seed) for seed, length in enumerate((9, 14, 12, 5))]


def by_full_logits(
    model: PreTrainedModel, batch: Batch, temperature: float
) -> tuple[torch.Tensor, ...]:
    """Row by row, without padding: what the pass has to equal."""
    wanted = batch.policy_mask | batch.agent_mask
    logprobs, entropy = torch.zeros(wanted.shape), torch.zeros(wanted.shape)
    for row, length in enumerate(batch.attention_mask.sum(-1).tolist()):
        ids = batch.token_ids[row, :length]
        scores = torch.log_softmax(model(ids[None]).logits[0].float() / temperature, -1)
        logprobs[row, 1:length] = scores[:-1].gather(-1, ids[1:, None])[:, 0]
        entropy[row, 1:length] = -(scores.exp() * scores).sum(-1)[:-1]
    return logprobs * wanted, (entropy * wanted).detach()


def gradients(model: PreTrainedModel, value: torch.Tensor) -> torch.Tensor:
    """Return the gradient of all weights, one after another."""
    model.zero_grad()
    (value * torch.linspace(-1, 1, value.numel()).view(value.shape)).sum().backward()
    flat = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(flat)


@pytest.mark.parametrize("few_logits", [0, 1 << 22])
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_model_gives_what_full_logits_give(
    name: str, layout: str, few_logits: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forward_module, "_FEW_LOGITS", few_logits)
    model, batch = build(name), collate(ROWS, pad_token_id=0)
    logprobs, entropy = batch_logprobs(
        LearnerForward(model, ComputeConfig(layout=layout), temperature=0.7), batch
    )
    wanted_logprobs, wanted_entropy = by_full_logits(model, batch, 0.7)
    assert logprobs.dtype == torch.float32
    assert not entropy.requires_grad
    torch.testing.assert_close(logprobs, wanted_logprobs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropy, wanted_entropy, rtol=1e-4, atol=1e-5)
    ours, theirs = gradients(model, logprobs), gradients(model, wanted_logprobs)
    torch.testing.assert_close(
        ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item()
    )


@pytest.mark.parametrize(
    ("name", "is_chunked"), [("qwen3", True), ("gemma2", False), ("phi", False)]
)
def test_the_chunked_head_is_used_where_it_is_exact(
    name: str, is_chunked: bool, monkeypatch
):
    monkeypatch.setattr(forward_module, "_FEW_LOGITS", 0)
    forward = LearnerForward(build(name))
    widths: list[int] = []
    forward.model.lm_head.register_forward_hook(
        lambda module, args, out: widths.append(out.shape[-1])
    )
    batch_logprobs(forward, collate(ROWS, pad_token_id=0))
    assert widths[-1] == (2 if is_chunked else VOCABULARY)


@pytest.mark.parametrize(
    "change", [lambda logits: logits.mul_(0.5), lambda logits: logits[..., :-1]]
)
def test_a_model_that_changes_its_logits_takes_no_chunks(change, monkeypatch):
    model = build("qwen3")
    assert LearnerForward(model).takes_chunks
    whole = model.forward

    def changed(*args, **kwargs):
        out = whole(*args, **kwargs)
        out.logits = change(out.logits)
        return out

    monkeypatch.setattr(model, "forward", changed)
    assert not LearnerForward(model).takes_chunks


def test_the_model_is_left_as_it_was():
    model = build("qwen3")
    forward = LearnerForward(model, ComputeConfig(gradient_checkpointing=True))
    batch_logprobs(forward, collate(ROWS, pad_token_id=0))
    assert not any("forward" in vars(module) for module in model.modules())
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, VOCABULARY)


def test_gradient_checkpointing_keeps_only_the_inputs_of_layers():
    model, batch = build("qwen3"), collate(ROWS, pad_token_id=0)
    results, kept = [], []
    for compute in (ComputeConfig(), ComputeConfig(gradient_checkpointing=True)):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor,
            lambda tensor: tensor,
        ):
            logprobs, _ = batch_logprobs(LearnerForward(model, compute), batch)
        kept.append(len(sizes))
        results.append(gradients(model, logprobs))
    assert torch.equal(results[0], results[1])
    assert kept[1] < kept[0] / 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own parts
def test_compiled_layers_give_the_same():
    model, batch = build("qwen3"), collate(ROWS, pad_token_id=0)
    compute = ComputeConfig(compile_layers=True, gradient_checkpointing=True)
    logprobs, _ = batch_logprobs(LearnerForward(model, compute), batch)
    plain, _ = token_logprobs(model, batch)
    torch.testing.assert_close(logprobs, plain, rtol=1e-4, atol=1e-5)
    ours, theirs = gradients(model, logprobs), gradients(model, plain)
    torch.testing.assert_close(
        ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item()
    )


def test_bfloat16_is_for_layers_and_float32_for_weights_gradients_and_head():
    model, batch = build("qwen3"), collate(ROWS, pad_token_id=0)
    seen: dict[str, torch.dtype] = {}
    model.model.layers[0].mlp.up_proj.register_forward_hook(
        lambda module, args, out: seen.update(layer=out.dtype)
    )
    model.lm_head.register_forward_hook(
        lambda module, args, out: seen.update(head=out.dtype)
    )
    logprobs, _ = batch_logprobs(
        LearnerForward(model, ComputeConfig(precision="bfloat16")), batch
    )
    assert seen == {"layer": torch.bfloat16, "head": torch.float32}
    logprobs.sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    exact, _ = token_logprobs(model, batch)
    torch.testing.assert_close(logprobs, exact, rtol=0.1, atol=0.2)
    assert not torch.equal(logprobs, exact)


def test_a_recurrent_model_is_not_packed():
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 4,
    }
    model = AutoModelForCausalLM.from_config(
        MambaConfig(**sizes, pad_token_id=0)
    ).eval()
    with pytest.raises(PolicyError, match="packed rows of a mamba see each other"):
        LearnerForward(model, ComputeConfig(layout="packed"))
    assert not LearnerForward(model).is_packed


def test_packed_rows_share_a_microbatch_whatever_their_lengths():
    parts = split_rows(ROWS, 26, packed=True)
    assert [[len(row.token_ids) for row in part] for part in parts] == [
        [5, 9, 12],
        [14],
    ]


@pytest.mark.parametrize(
    "compute", [{"layout": "packed"}, {"gradient_checkpointing": True}]
)
def test_an_update_changes_weights_by_the_same_whatever_computes_it(compute: dict):
    weights = []
    for choice in ({}, compute):
        model = copy.deepcopy(build("qwen3")).double()
        forward = LearnerForward(model, ComputeConfig(**choice))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        update(
            forward,
            optimizer,
            ROWS,
            TrainConfig(microbatch_tokens=30).update,
            pad_token_id=0,
        )
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)


def test_a_wrong_choice_is_named():
    with pytest.raises(
        ConfigError,
        match=(
            r"compute.layout='pakced'. Valid: auto, packed, padded. Did you mean"
            r" 'packed'"
        ),
    ):
        TrainConfig.from_dict({"compute": {"layout": "pakced"}})
    with pytest.raises(
        ConfigError, match="compute.lora_rank=-1 must be a whole number, 0 or more"
    ):
        ComputeConfig(lora_rank=-1)
