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


@pytest.mark.parametrize("lowest", [-torch.inf, torch.finfo(torch.float32).min, -1e35])
@pytest.mark.parametrize("scale", [1.0, 1 / 0.7, 2.0])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_tokens_that_a_bias_rules_out_add_nothing(
    chunk: int, scale: float, lowest: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(head_logprobs._CHUNK, "cpu", chunk)
    monkeypatch.setattr(head_logprobs, "_CHUNK_TOKENS", 3)
    hidden, weight, targets = drawn(tokens=11, width=8, vocabulary=29)
    # The first chunks, one in the midst, and the last.
    is_out = torch.zeros(29, dtype=torch.bool)
    is_out[[*range(9), 15, 27, 28]] = True
    targets = torch.where(is_out[targets], 10, targets)
    bias = torch.linspace(-2, 2, 29).masked_fill(is_out, lowest).requires_grad_()
    logprobs, entropy = token_logprobs_from_hidden(
        hidden, weight, targets, bias=bias, scale=scale
    )
    got = torch.autograd.grad(logprobs.sum(), (hidden, weight, bias))
    # As if there were no such tokens.
    others = torch.arange(29)[~is_out]
    places = (~is_out).cumsum(0)[targets] - 1
    few = [weight[others].detach().requires_grad_(), bias[others].detach()]
    wanted, wanted_entropy = token_logprobs_from_hidden(
        hidden, few[0], places, bias=few[1].requires_grad_(), scale=scale
    )
    wanted_gradients = torch.autograd.grad(wanted.sum(), (hidden, *few))
    torch.testing.assert_close(logprobs, wanted)
    torch.testing.assert_close(entropy, wanted_entropy)
    torch.testing.assert_close(got[0], wanted_gradients[0])
    torch.testing.assert_close(got[1][others], wanted_gradients[1])
    torch.testing.assert_close(got[2][others], wanted_gradients[2])
    assert not got[1][is_out].any()
    assert not got[2][is_out].any()


@pytest.mark.parametrize(
    ("scale", "cap"), [(1.0, None), (0.25, None), (1.0, 2.0), (3.0, 5.0), (-1.0, 9.0)]
)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_chunks_change_nothing(
    chunk: int,
    has_bias: bool,
    scale: float,
    cap: float | None,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(head_logprobs._CHUNK, "cpu", chunk)
    monkeypatch.setattr(head_logprobs, "_CHUNK_TOKENS", 3)
    hidden, weight, targets = drawn(tokens=11, width=8, vocabulary=29)
    bias = torch.linspace(-2, 2, 29).requires_grad_() if has_bias else None
    learned = (hidden, weight, bias) if has_bias else (hidden, weight)
    logprobs, entropy = token_logprobs_from_hidden(
        hidden, weight, targets, bias=bias, scale=scale, cap=cap
    )
    pull = torch.linspace(-1, 2, 11)
    got = torch.autograd.grad((logprobs * pull).sum(), learned)

    logits = torch.nn.functional.linear(hidden, weight, bias) * scale
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    full = torch.log_softmax(logits, -1)
    wanted = torch.autograd.grad(
        (full.gather(-1, targets[:, None])[:, 0] * pull).sum(), learned
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


def test_a_worked_value_of_a_capped_head():
    # Logits 0 and 2 tanh(3 / 2) = 1.8103.
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight, bias = torch.tensor([[0.0], [4.0]]), torch.tensor([0.0, 2.0])
    logprobs, entropy = token_logprobs_from_hidden(
        hidden, weight, torch.tensor([0]), bias=bias, scale=0.5, cap=2.0
    )
    assert logprobs.item() == pytest.approx(-1.961820, abs=1e-6)
    assert entropy.item() == pytest.approx(0.406055, abs=1e-6)
    logprobs.sum().backward()
    # -p(1) (1 - tanh(3 / 2)^2) * 0.5 * 4 = -0.859397 * 0.180707 * 2.
    assert hidden.grad.item() == pytest.approx(-0.310598, abs=1e-6)


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, targets = drawn(tokens=5, width=4, vocabulary=9)
    weight.requires_grad_(False)
    token_logprobs_from_hidden(hidden, weight, targets)[0].sum().backward()
    assert weight.grad is None
    assert hidden.grad.shape == (5, 4)


@pytest.mark.parametrize("cap", [0.0, -2.0, float("nan")])
def test_a_cap_that_is_none_is_named(cap: float):
    hidden, weight, targets = drawn(tokens=5, width=4, vocabulary=9)
    with pytest.raises(ValueError, match=f"cap={cap} must be more than 0, or None"):
        token_logprobs_from_hidden(hidden, weight, targets, cap=cap)


def test_a_bias_of_another_vocabulary_is_named():
    hidden, weight, targets = drawn(tokens=5, width=4, vocabulary=9)
    with pytest.raises(ValueError, match=r"bias has the shape \[4\], weight \[9, 4\]"):
        token_logprobs_from_hidden(hidden, weight, targets, bias=torch.zeros(4))


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
    bias = torch.randn(len(weight), requires_grad=True)
    token_logprobs_from_hidden(
        hidden, weight, targets, bias=bias, scale=0.25, cap=30.0
    )[0].sum().backward()
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
