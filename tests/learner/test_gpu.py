"""What only a GPU shows: its attention kernels, its precision, its sampler."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from aipo_env import build_scenario, run_sync
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.rollout.waves import play_wave
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.samplers.weight_sync import sync_weights
from aipo_learner.settings.compute import ComputeConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LENGTHS = (300, 17, 129, 64)


@pytest.fixture
def qwen() -> Iterator[Qwen2ForCausalLM]:
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    yield Qwen2ForCausalLM(shape).cuda()
    torch.cuda.empty_cache()


def padded() -> tuple[Tensor, Tensor, Tensor]:
    """Rows of different lengths: ids, mask, and which tokens are wanted."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(LENGTHS), max(LENGTHS))
    ids = torch.randint(0, 2048, shape, generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return ids.cuda(), mask.long().cuda(), mask.cuda()


@pytest.mark.parametrize(
    ("precision", "apart"), [("float32", 2e-3), ("bfloat16", 0.15)]
)
def test_packed_rows_are_padded_rows_to_rounding(
    qwen: Qwen2ForCausalLM, precision: str, apart: float
):
    ids, mask, wanted = padded()
    logprobs = {}
    for layout in ("padded", "packed"):
        config = ComputeConfig(precision=precision, layout=layout)
        logprobs[layout], _ = LearnerForward(qwen, config)(ids, mask, wanted)
    difference = (logprobs["packed"] - logprobs["padded"]).abs().max().item()
    assert 0 <= difference < apart


def test_the_layers_compute_as_on_the_cpu(qwen: Qwen2ForCausalLM):
    ids, mask, wanted = padded()
    config = ComputeConfig(precision="float32", layout="padded")
    on_gpu, _ = LearnerForward(qwen, config)(ids, mask, wanted)
    on_cpu, _ = LearnerForward(qwen.cpu(), config)(ids.cpu(), mask.cpu(), wanted.cpu())
    # The head's products are in TF32 there, with 10 bits of mantissa.
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=2e-2, rtol=0)


def test_gradients_are_those_of_full_logits(qwen: Qwen2ForCausalLM):
    ids, mask, wanted = padded()
    gradients = []
    for few_logits in (0, 1 << 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("aipo_learner.policy.forward._FEW_LOGITS", few_logits)
            qwen.zero_grad(set_to_none=True)
            forward = LearnerForward(qwen, ComputeConfig(precision="float32"))
            logprobs, _ = forward(ids, mask, wanted)
            logprobs.sum().backward()
        gradients.append([p.grad.clone() for p in qwen.parameters()])
    for one, other in zip(*gradients, strict=True):
        scale = other.abs().max().item()
        assert (one - other).abs().max().item() < 2e-2 * scale


def test_the_sampler_and_the_learner_agree():
    model, tokenizer = load_policy(policy_folder("tiny"))
    assert model.device.type == "cuda"
    sampler = HFSampler(model.eval(), tokenizer)
    scenario = build_scenario("toy", seed=3)
    sync_weights(sampler, model, 0.5)
    sessions = [
        scenario.session(scenario.source.task("train", n), aided=True, key=(0, n))
        for n in range(8)
    ]
    episodes = run_sync(play_wave(scenario, sessions, sampler))
    sampler.close()
    forward = LearnerForward(model, ComputeConfig(precision="float32"))
    for episode in episodes:
        ids = torch.tensor(episode.tokens.token_ids[None].astype(np.int64)).cuda()
        own = torch.tensor(episode.tokens.policy_mask[None]).cuda()
        logprobs, _ = forward(ids, torch.ones_like(ids), own)
        sampled = episode.tokens.behaviour_logprobs[episode.tokens.policy_mask]
        gap = np.abs(logprobs[own].detach().cpu().numpy() - sampled).max()
        assert gap < 0.05
