"""The learner's forward pass: equal to full logits for every kind of model, layout and
way of computing it.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

import aipo_learner.policy.forward as forward_module
from aipo_env import ConfigError, PolicyError
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import Microbatch, Row, collate, split_rows
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


def tiny(kind: str, **settings: object) -> PreTrainedModel:
    """A model of another kind, as it is initialised."""
    torch.manual_seed(3)
    known = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, **settings}
    config = AutoConfig.for_model(kind, **{**SIZES, **known})
    return AutoModelForCausalLM.from_config(config).eval()


OLD_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64}
LINEAR = {
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
SPARSE = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "head_dim": 8,
    "first_k_dense_replace": 2,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    **EXPERTS,
}
"""Attention that reads the 4 tokens which an indexer chooses."""


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
    model: PreTrainedModel, batch: Microbatch, temperature: float
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
    logprobs, entropy = microbatch_logprobs(
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


@pytest.mark.parametrize("name", CONFIGS)
def test_chunks_are_used_where_a_head_is_capped_scaled_or_biased(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forward_module, "_FEW_LOGITS", 0)
    model = build(name)
    forward = LearnerForward(model)
    widths: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, args, out: widths.append(out.shape[-1])
    )
    microbatch_logprobs(forward, collate(ROWS, pad_token_id=0))
    assert widths == [2]


HEADS: dict[str, dict[str, object]] = {
    "gemma2": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 16},
    "gemma3_text": {"final_logit_softcapping": 0.5, "query_pre_attn_scalar": 16},
    "vaultgemma": {"final_logit_softcapping": 30.0, "query_pre_attn_scalar": 16},
    "gemma3n_text": {
        "final_logit_softcapping": 2.0,
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": {
        "final_logit_softcapping": 2.0,
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "global_head_dim": 16,
    },
    "nanochat": {},
    "cohere": {"logit_scale": 0.0625},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 8},
    "granite": {"logits_scaling": 3.0},
    "granitemoe": {"logits_scaling": 6.0, "num_local_experts": 4, **EXPERTS},
    "hyperclovax": {"logits_scaling": 4.0},
    "falcon_h1": {"lm_head_multiplier": 0.25, **MAMBA},
    "recurrent_gemma": {"lru_width": 32, "block_types": ["recurrent", "attention"]},
    "phi": {},
    "gptj": {**OLD_SIZES, "rotary_dim": 8},
    "codegen": {**OLD_SIZES, "n_ctx": 128, "rotary_dim": 8, "num_attention_heads": 4},
    "modernbert-decoder": {},
}
"""Models that cap, scale or shift their logits."""


@pytest.mark.parametrize("name", HEADS)
def test_a_head_in_chunks_gives_what_all_of_its_logits_give(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    model, batch = tiny(name, **HEADS[name]), collate(ROWS, pad_token_id=0)
    head = model.get_output_embeddings()
    with torch.no_grad():
        # Far enough from uniform that a cap or a bias tells.
        head.weight.mul_(20.0)
        if head.bias is not None:
            head.bias.normal_()
    forward = LearnerForward(model, temperature=0.7)
    assert forward.takes_chunks
    results = []
    for few_logits in (0, 1 << 22):
        monkeypatch.setattr(forward_module, "_FEW_LOGITS", few_logits)
        logprobs, entropy = microbatch_logprobs(forward, batch)
        results.append((logprobs, entropy, gradients(model, logprobs)))
    (logprobs, entropy, gradient), (all_logprobs, all_entropy, all_gradient) = results
    largest = all_gradient.abs().max().item()
    torch.testing.assert_close(logprobs, all_logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, all_entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, all_gradient, rtol=1e-5, atol=1e-5 * largest)


class LargestTensor(TorchDispatchMode):
    """Sees how many numbers the largest tensor has that anything makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.numbers = max(self.numbers, *sizes, 0)
        return out


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere", "phi"])
def test_no_tensor_is_larger_than_an_eighth_of_all_logits(name: str):
    num_tokens, num_ids = 512, 16_384
    config = copy.deepcopy(CONFIGS[name])
    config.vocab_size = num_ids
    model = AutoModelForCausalLM.from_config(config).eval()
    token_ids = torch.arange(num_tokens)[None]
    ones = torch.ones_like(token_ids)
    forward = LearnerForward(model)
    with LargestTensor() as largest:
        logprobs, _ = forward(token_ids, ones, ones.bool())
        logprobs.sum().backward()
    # Its own weights and what attention holds are smaller: 16,384 x 32, 2 x 512 x 512.
    assert largest.numbers <= num_tokens * num_ids / 8


def with_other_logits(model: PreTrainedModel, change) -> PreTrainedModel:
    """A model that does to its logits what `change` does."""
    whole = model.forward

    def changed(*args, **kwargs):
        out = whole(*args, **kwargs)
        out.logits = change(out.logits)
        return out

    model.forward = changed
    return model


@pytest.mark.parametrize(
    ("change", "scale", "cap"),
    [
        (lambda logits: logits.mul_(0.5), 0.5, None),
        (lambda logits: logits / 3, 1 / 3, None),
        (lambda logits: -logits, -1.0, None),
        (lambda logits: 7 * torch.tanh(logits * 0.3 / 7), 0.3, 7.0),
    ],
)
def test_what_a_model_does_to_its_logits_is_told_by_what_it_returns(
    change, scale: float, cap: float | None
):
    forward = LearnerForward(with_other_logits(build("qwen3"), change))
    assert forward._logit_change.scale == pytest.approx(scale, rel=1e-7)
    assert forward._logit_change.cap == (cap and pytest.approx(cap, rel=1e-6))


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits[..., :-1],
        lambda logits: logits.clamp(-30, 30),
        lambda logits: logits + 1e-3 * (torch.arange(logits.shape[-1]) == 5),
        lambda logits: logits.index_fill(-1, torch.tensor([7]), -torch.inf),
        lambda logits: logits.roll(1, dims=-1),
        lambda logits: logits.log_softmax(-1),
        lambda logits: logits / (1 + logits.abs() / 30),
        lambda logits: logits * torch.linspace(1, 1.001, logits.shape[-1]),
        lambda logits: logits / logits.norm(dim=-1, keepdim=True),
        lambda logits: logits.bfloat16().float(),
    ],
)
def test_logits_that_are_not_only_scaled_and_capped_are_held(change):
    forward = LearnerForward(with_other_logits(build("qwen3"), change))
    assert not forward.takes_chunks


@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_tokens_that_a_model_rules_out_add_nothing_to_the_entropy(
    entropy_gradient: bool, temperature: float, lowest: float
):
    model = with_other_logits(
        build("llama"), lambda logits: logits.index_fill(-1, torch.tensor([5]), lowest)
    )
    forward = LearnerForward(
        model, temperature=temperature, entropy_gradient=entropy_gradient
    )
    token_ids = torch.arange(6, 18)[None]
    mask = torch.ones_like(token_ids)
    logprobs, entropy = forward(token_ids, mask, mask.bool())
    logits = model(token_ids).logits[0, :-1] / temperature
    few = torch.cat([logits[:, :5], logits[:, 6:]], -1).double().log_softmax(-1)
    wanted = -(few.exp() * few).sum(-1)
    torch.testing.assert_close(entropy[0, 1:], wanted.float())
    value = (logprobs + entropy).sum() if entropy_gradient else logprobs.sum()
    of_all = gradients(model, value)
    assert of_all.isfinite().all()
    if entropy_gradient:
        picked = few.gather(-1, token_ids[0, 1:, None] - 1)[:, 0]
        wanted_gradients = gradients(model, (picked + wanted).sum())
        torch.testing.assert_close(of_all, wanted_gradients, rtol=1e-3, atol=1e-5)


def test_logits_that_a_learned_number_scales_are_held():
    model = build("qwen3")
    model.logit_scale = nn.Parameter(torch.tensor(1.0))
    with_other_logits(model, lambda logits: logits * model.logit_scale)
    assert not LearnerForward(model).takes_chunks


class UnitRows(nn.Linear):
    """A head whose rows have the length 1, whatever its weight."""

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, nn.functional.normalize(self.weight))


class Adapted(nn.Linear):
    """A head with an adapter that has learned nothing yet."""

    def __init__(self, *args: int, bias: bool) -> None:
        super().__init__(*args, bias=bias)
        self.adapter = nn.Linear(*args, bias=False)
        nn.init.zeros_(self.adapter.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) + self.adapter(hidden)


@pytest.mark.parametrize("kind", [UnitRows, Adapted])
def test_a_head_that_is_more_than_a_product_holds_its_logits(kind: type[nn.Linear]):
    model = build("llama")
    model.set_output_embeddings(kind(32, VOCABULARY, bias=False))
    forward = LearnerForward(model, temperature=0.7)
    assert not forward.takes_chunks
    batch = collate(ROWS, pad_token_id=0)
    logprobs, _ = microbatch_logprobs(forward, batch)
    wanted, _ = by_full_logits(model, batch, 0.7)
    torch.testing.assert_close(logprobs, wanted, rtol=1e-4, atol=1e-5)


def test_a_model_that_does_not_call_its_head_is_refused():
    model = build("qwen3")
    model.get_output_embeddings = lambda: nn.Linear(32, VOCABULARY)
    with pytest.raises(PolicyError, match="a qwen3 does not call the module of its"):
        LearnerForward(model)


def test_the_model_is_left_as_it_was():
    model = build("qwen3")
    forward = LearnerForward(model, ComputeConfig(gradient_checkpointing=True))
    microbatch_logprobs(forward, collate(ROWS, pad_token_id=0))
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
            logprobs, _ = microbatch_logprobs(LearnerForward(model, compute), batch)
        kept.append(len(sizes))
        results.append(gradients(model, logprobs))
    assert torch.equal(results[0], results[1])
    assert kept[1] < kept[0] / 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own parts
def test_compiled_layers_give_the_same():
    model, batch = build("qwen3"), collate(ROWS, pad_token_id=0)
    compute = ComputeConfig(compile_layers=True, gradient_checkpointing=True)
    logprobs, _ = microbatch_logprobs(LearnerForward(model, compute), batch)
    plain, _ = microbatch_logprobs(LearnerForward(model), batch)
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
    logprobs, _ = microbatch_logprobs(
        LearnerForward(model, ComputeConfig(precision="bfloat16")), batch
    )
    assert seen == {"layer": torch.bfloat16, "head": torch.float32}
    logprobs.sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    exact, _ = microbatch_logprobs(LearnerForward(model), batch)
    torch.testing.assert_close(logprobs, exact, rtol=0.1, atol=0.2)
    assert not torch.equal(logprobs, exact)


ROWS_SEE_EACH_OTHER: dict[str, dict[str, object]] = {
    # Recurrent or convolutional.
    "mamba": {"state_size": 4},
    "jamba": {"mamba_d_state": 8, "use_mamba_kernels": False, "num_experts": 2},
    "falcon_h1": MAMBA,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": {**LINEAR, **EXPERTS, "shared_expert_intermediate_size": 24},
    "recurrent_gemma": {"lru_width": 32, "block_types": ["recurrent", "attention"]},
    # ALiBi, which takes no position ids.
    "bloom": {"n_layer": 2, "n_head": 2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 128},
    # Masks of its own.
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ROWS_SEE_EACH_OTHER)
def test_rows_that_see_each_other_are_not_packed(name: str, precision: str):
    model = tiny(name, **ROWS_SEE_EACH_OTHER[name])
    with pytest.raises(
        PolicyError,
        match=f"'packed': packed rows of a {name} see each other. Use padded.",
    ):
        LearnerForward(model, ComputeConfig(layout="packed", precision=precision))
    assert not LearnerForward(model).is_packed


ROWS_STAY_APART: dict[str, dict[str, object]] = {
    # Deep enough that bfloat16 is far from float32.
    "qwen2": {"num_hidden_layers": 24},
    "gemma2": {"sliding_window": 4, "query_pre_attn_scalar": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    # Experts, whose products are rounded by how many tokens each is given.
    "mixtral": {"num_local_experts": 4, **EXPERTS},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24},
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ROWS_STAY_APART)
def test_rows_that_stay_apart_are_packed(name: str, precision: str):
    model = tiny(name, **ROWS_STAY_APART[name])
    compute = ComputeConfig(layout="packed", precision=precision)
    assert LearnerForward(model, compute).is_packed


def test_a_model_that_fails_when_rows_are_packed_is_named():
    # Packed rows are longer than its positions.
    blocks = {"num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]}
    model = tiny("gpt_neo", **blocks, max_position_embeddings=64)
    with pytest.raises(
        PolicyError,
        match=r"packed rows of a gpt_neo cannot be computed \(RuntimeError: .* padded",
    ):
        LearnerForward(model, ComputeConfig(layout="packed"))
    assert not LearnerForward(model).is_packed


def test_rows_that_stand_at_other_positions_when_packed_are_not_packed():
    model = build("gpt2")
    whole = model.forward

    def shifted(input_ids, position_ids=None, **kwargs):
        if position_ids is not None:
            number = (position_ids == 0).cumsum(-1) - 1
            position_ids = position_ids + 2 * number
        return whole(input_ids, position_ids=position_ids, **kwargs)

    model.forward = shifted
    for precision in ("float32", "bfloat16"):
        with pytest.raises(
            PolicyError, match="rows of a gpt2 get other values than each gets alone"
        ):
            LearnerForward(model, ComputeConfig(layout="packed", precision=precision))


def test_a_model_that_sees_padding_is_given_a_mask():
    model, batch = build("qwen3"), collate(ROWS, pad_token_id=0)
    whole = model.forward

    def with_mean(input_ids, attention_mask=None, **kwargs):
        embedded = model.get_input_embeddings()(input_ids)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        total = (embedded * real[..., None]).sum(1, keepdim=True)
        embedded = embedded + total / real.sum(-1)[:, None, None]
        return whole(inputs_embeds=embedded, attention_mask=attention_mask, **kwargs)

    model.forward = with_mean
    logprobs, _ = microbatch_logprobs(LearnerForward(model), batch)
    wanted, _ = by_full_logits(model, batch, 1.0)
    torch.testing.assert_close(logprobs, wanted, rtol=1e-4, atol=1e-5)
    ours, theirs = gradients(model, logprobs), gradients(model, wanted)
    torch.testing.assert_close(
        ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item()
    )


@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
def test_a_model_that_no_mask_keeps_from_padding_is_refused(kind: str):
    # Of tokens that its few heads rate alike, it reads others when there are more.
    indexer = {"index_topk": 4, "index_n_heads": 2, "index_head_dim": 16}
    model = tiny(kind, **SPARSE, **indexer)
    with pytest.raises(
        PolicyError, match=f"a {kind} computes other log-probabilities for a row when"
    ):
        LearnerForward(model)


def test_a_broken_model_is_not_blamed_on_padding():
    model = build("qwen3")
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    assert not LearnerForward(model).is_packed


def test_models_in_training_are_told_apart_without_their_dropout():
    model = build("gpt2").train()
    assert LearnerForward(model, ComputeConfig(layout="packed")).is_packed
    assert LearnerForward(model).takes_chunks
    assert all(module.training for module in model.modules())


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
