"""What the objective says when a setting or an argument is wrong."""

import math

import pytest
import torch

from aipo_learner.learn.objective import aipo_loss
from aipo_learner.settings.objective import ObjectiveConfig

FLOATS = torch.zeros(3, 13, dtype=torch.float64)
POLICY_MASK = torch.zeros(3, 13, dtype=torch.bool)
POLICY_MASK[1, 4:6] = True
BATCH = {
    "logprobs": FLOATS,
    "old_logprobs": FLOATS,
    "advantages": FLOATS[:, 0],
    "policy_mask": POLICY_MASK,
    "agent_mask": ~POLICY_MASK,
    "ref_logprobs": FLOATS,
}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "base",
            "ppo",
            (
                "base='ppo'. Valid: cispo, dapo, dr_grpo, gppo, grpo, gspo, rloo. Did"
                " you mean '.*po'"
            ),
        ),
        (
            "agent_rule",
            "",
            (
                "agent_rule=''. Valid: floored, luffy, masked, mixture, on_policy,"
                " plain_is"
            ),
        ),
        ("floor", -0.1, "floor=-0.1 must be a finite number, 0 or more"),
        ("floor", 1.1, "floor=1.1 must be at most ceiling=1.0"),
        ("floor", math.nan, "floor=nan"),
        ("floor", "0.1", "floor='0.1'"),
        ("ceiling", 0.0, "ceiling=0.0 must be a finite number above 0"),
        ("agent_weight", -1.0, "agent_weight=-1.0 must be a finite number, 0 or more"),
        ("negative_weight", math.inf, "negative_weight=inf"),
        ("clip_low", 1.5, "clip_low=1.5 must be a number from 0 to 1"),
        ("clip_high", -0.2, "clip_high=-0.2"),
        ("kl_coef", -1e-3, "kl_coef=-0.001"),
        ("kl_coef", None, "kl_coef=None"),
        ("luffy_gamma", 0.0, "luffy_gamma=0.0"),
        (
            "max_policy_tokens",
            0,
            "max_policy_tokens=0 must be a whole number, 1 or more",
        ),
        ("max_policy_tokens", 2.5, "max_policy_tokens=2.5"),
        ("sampler_ratio_cap", 0.0, "sampler_ratio_cap=0.0"),
        (
            "sampler_ratio",
            "mean",
            "sampler_ratio='mean'. Valid: geometric, sequence, token",
        ),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: object, message: str):
    with pytest.raises(ValueError, match=f"config: objective.{message}"):
        ObjectiveConfig(**{field: value})


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("logprobs", torch.zeros(3), r"logprobs is torch.float32 of shape \[3\]"),
        ("logprobs", torch.zeros(3, 13).bfloat16(), "logprobs is torch.bfloat16"),
        (
            "old_logprobs",
            torch.zeros(3, 2).double(),
            r"old_logprobs has shape \[3, 2\].*\[3, 13\]",
        ),
        (
            "ref_logprobs",
            torch.zeros(1, 13).double(),
            r"ref_logprobs has shape \[1, 13\]",
        ),
        (
            "sampler_logprobs",
            torch.zeros(3, 13),
            "sampler_logprobs is torch.float32.*float64",
        ),
        ("agent_logprobs", torch.zeros(3, 13), "agent_logprobs is torch.float32"),
        (
            "advantages",
            torch.zeros(13).double(),
            r"advantages has shape \[13\].*\[3\].*\[3, 13\]",
        ),
        ("advantages", torch.zeros(3), "advantages is torch.float32"),
        (
            "policy_mask",
            torch.zeros(3, 13),
            "policy_mask is torch.float32: it must be torch.bool",
        ),
        ("agent_mask", torch.zeros(3, 9).bool(), r"agent_mask has shape \[3, 9\]"),
        (
            "agent_mask",
            POLICY_MASK,
            r"both \[3, 13\], overlap at 2 tokens, the first in row 1 at token 4:",
        ),
        ("ref_logprobs", None, "kl_coef is 0.1: pass ref_logprobs"),
        ("policy_normalizer", -1.0, "policy_normalizer is -1.0"),
        ("agent_normalizer", math.nan, "agent_normalizer is nan"),
    ],
)
def test_a_wrong_argument_is_named(name: str, wrong: object, message: str):
    with pytest.raises(ValueError, match=message):
        aipo_loss(**{**BATCH, name: wrong}, config=ObjectiveConfig(kl_coef=0.1))
