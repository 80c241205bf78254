"""What makes a step of a gradient, its rate, and its state on disk."""

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aipo_env import ConfigError
from aipo_learner.learn.learning_rate import learning_rate
from aipo_learner.learn.optimizer import build_optimizer
from aipo_learner.run.optimizer_state import load_optimizer, save_optimizer
from aipo_learner.settings.optimizer import OptimizerConfig
from aipo_learner.settings.stages import OptimizerSettings
from aipo_learner.settings.train import TrainConfig


def settings(**changes: Any) -> OptimizerSettings:
    told = TrainConfig(lr=0.1, optimizer=OptimizerConfig(**changes))
    return told.optimizer_settings


def steps(made: torch.optim.Optimizer, model: nn.Module, number: int = 3) -> None:
    for count in range(number):
        made.zero_grad()
        model(torch.full((1, 4), count + 1.0)).square().sum().backward()
        made.step()


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def test_the_default_is_torchs_adamw(model: nn.Module):
    twin = copy.deepcopy(model)
    steps(build_optimizer(model.parameters(), settings()), model)
    steps(torch.optim.AdamW(twin.parameters(), lr=0.1, weight_decay=0.0), twin)
    assert torch.equal(model.weight, twin.weight)


def test_betas_are_those_that_are_set(model: nn.Module):
    made = build_optimizer(model.parameters(), settings(beta1=0.5, beta2=0.75))
    assert made.defaults["betas"] == (0.5, 0.75)
    with pytest.raises(ConfigError, match=r"beta1=1.0 must be a number from 0 to less"):
        settings(beta1=1.0)


def test_the_fused_kernel_makes_the_same_steps_up_to_rounding(model: nn.Module):
    twin = copy.deepcopy(model)
    steps(build_optimizer(model.parameters(), settings()), model)
    fused = build_optimizer(twin.parameters(), settings(name="adamw_fused"))
    assert fused.defaults["fused"] is True
    steps(fused, twin)
    torch.testing.assert_close(model.weight, twin.weight)


def test_where_there_is_no_kernel_the_setting_is_named():
    weights = [nn.Parameter(torch.zeros(2, dtype=torch.complex64))]
    with pytest.raises(
        ConfigError, match="config: optimizer.name='adamw_fused'.*Use 'adam"
    ):
        build_optimizer(weights, settings(name="adamw_fused"))


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is not None, reason="it is installed"
)
def test_eight_bits_need_a_package_that_is_named(model: nn.Module):
    with pytest.raises(ConfigError, match="pip install.*bitsandbytes"):
        build_optimizer(model.parameters(), settings(name="adamw_8bit"))


class Quantised(torch.optim.Optimizer):
    """Keeps its state as 8-bit optimisers do: bytes, a scale, a plain number."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Callable[[], float] | None = None) -> None:
        for weight in self.param_groups[0]["params"]:
            state = self.state[weight]
            state.setdefault("step", 0)
            state.setdefault("state1", torch.zeros(weight.shape, dtype=torch.uint8))
            state.setdefault("absmax1", torch.zeros(2))
            state["step"] += 1
            state["state1"] += 7
            state["absmax1"] += 0.5


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_fused"])
def test_a_resumed_optimiser_goes_on_where_it_was(
    model: nn.Module, tmp_path: Path, optimizer: str
):
    made = build_optimizer(model.parameters(), settings(name=optimizer))
    steps(made, model)
    twin = copy.deepcopy(model)
    save_optimizer(tmp_path / "optimizer", model, made).result()
    again = build_optimizer(twin.parameters(), settings(name=optimizer))
    load_optimizer(tmp_path / "optimizer", twin, again)
    steps(made, model)
    steps(again, twin)
    assert torch.equal(model.weight, twin.weight)


def test_the_state_of_an_optimiser_in_8_bits_is_kept_as_it_is(
    model: nn.Module, tmp_path: Path
):
    made = Quantised(model.parameters())
    steps(made, model)
    save_optimizer(tmp_path / "optimizer", model, made).result()
    again = Quantised(model.parameters())
    load_optimizer(tmp_path / "optimizer", model, again)
    state = again.state[model.weight]
    assert state["step"] == 3
    assert type(state["step"]) is int
    assert state["state1"].dtype == torch.uint8
    assert state["state1"].tolist() == [[21] * 4] * 3
    assert state["absmax1"].tolist() == [1.5, 1.5]
    assert set(again.state[model.bias]) == {"step", "state1", "absmax1"}


@pytest.mark.parametrize(
    ("decay", "end_share", "rates"),
    [
        ("linear", 0.0, [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ("linear", 1.0, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", 0.0, [0.5, 1.0, 0.853553, 0.5, 0.146447, 0.0]),
        ("cosine", 0.5, [0.5, 1.0, 0.926777, 0.75, 0.573223, 0.5]),
        ("constant", 1.0, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_rises_and_then_falls_as_it_is_told(
    decay: str, end_share: float, rates: list[float]
):
    made = [
        learning_rate(
            step,
            peak=1.0,
            warmup_steps=2,
            num_steps=6,
            end_share=end_share,
            decay=decay,
        )
        for step in range(6)
    ]
    assert made == pytest.approx(rates, abs=1e-6)


def test_a_rate_that_falls_and_stays_at_once_is_refused():
    with pytest.raises(
        ConfigError, match=r"optimizer.decay='constant' with lr_end=0.1"
    ):
        TrainConfig(optimizer=OptimizerConfig(decay="constant"), lr_end=0.1)
    with pytest.raises(ConfigError, match=r"optimizer.decay='cosine' with lr_end=1.0"):
        TrainConfig(optimizer=OptimizerConfig(decay="cosine"))
    with pytest.raises(
        ConfigError, match=r"optimizer.decay='cosin'.*Did you mean 'cosine'"
    ):
        OptimizerConfig(decay="cosin")
