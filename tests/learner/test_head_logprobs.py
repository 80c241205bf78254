"""Log-probabilities from hidden states: equal to those from full logits, in a fraction
of their memory.
"""

import json
import subprocess
import sys

import pytest
import torch

import aipo_learner.policy.head as head_logprobs
from aipo_learner.policy.head import token_logprobs_from_hidden


def drawn(
    tokens: int, width: int, vocabulary: int, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(head_logprobs._CHUNK, "cpu", chunk)
    monkeypatch.setattr(head_logprobs, "_CHUNK_TOKENS", 3)
    hidden, weight, targets = drawn(tokens=11, width=8, vocabulary=29)
    logprobs, entropy = token_logprobs_from_hidden(hidden, weight, targets)
    pull = torch.linspace(-1, 2, 11)
    got = torch.autograd.grad((logprobs * pull).sum(), (hidden, weight))

    full = torch.log_softmax(hidden @ weight.T, -1)
    wanted = torch.autograd.grad(
        (full.gather(-1, targets[:, None])[:, 0] * pull).sum(), (hidden, weight)
    )
    torch.testing.assert_close(
        logprobs, full.gather(-1, targets[:, None])[:, 0], rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        entropy, -(full.exp() * full).sum(-1), rtol=1e-4, atol=1e-5
    )
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_worked_value():
    hidden, weight = (
        torch.tensor([[1.0]]),
        torch.tensor([[0.0], [torch.tensor(3.0).log()]]),
    )
    logprobs, entropy = token_logprobs_from_hidden(hidden, weight, torch.tensor([1]))
    assert logprobs.item() == pytest.approx(-0.287682, abs=1e-6)  # log(3/4)
    assert entropy.item() == pytest.approx(0.562335, abs=1e-6)
    assert not entropy.requires_grad


def test_huge_logits_and_half_precision():
    hidden, weight, targets = drawn(tokens=5, width=4, vocabulary=9)
    logprobs, entropy = token_logprobs_from_hidden(hidden * 1e4, weight, targets)
    assert torch.isfinite(logprobs).all()
    assert torch.isfinite(entropy).all()
    half, head = (
        hidden.detach().bfloat16().requires_grad_(),
        weight.detach().bfloat16().requires_grad_(),
    )
    logprobs, _ = token_logprobs_from_hidden(half, head, targets)
    full = torch.log_softmax(half.float() @ head.float().T, -1).gather(
        -1, targets[:, None]
    )[:, 0]
    torch.testing.assert_close(logprobs, full, rtol=1e-5, atol=1e-5)
    logprobs.sum().backward()
    assert half.grad.dtype == head.grad.dtype == torch.bfloat16


MEASURE = """
import json, resource, torch
from aipo_learner.policy.head import token_logprobs_from_hidden
torch.set_num_threads(1)
T, D, V = 256, 32, 151_936
hidden = torch.randn(T, D, requires_grad=True)
weight = torch.randn(V, D, requires_grad=True)
targets = torch.randint(V, (T,))
def step(hidden, weight, targets):
    token_logprobs_from_hidden(hidden, weight, targets)[0].sum().backward()
few, narrow = hidden[:2].detach(), weight[:64].detach()
step(few.requires_grad_(), narrow.requires_grad_(), targets[:2] % 64)  # warm up
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(hidden, weight, targets)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gradient = weight.grad.numel() * 4
print(json.dumps({"extra": (after - before) * 1024 - gradient, "full": 3 * T * V * 4}))
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="ru_maxrss is counted in KiB on Linux only"
)
def test_peak_memory_is_at_most_an_eighth_of_full_logits():
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    measured = json.loads(run.stdout)
    assert measured["extra"] <= measured["full"] / 8
