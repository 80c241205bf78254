"""What a run says and keeps when a step fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import aipo_learner.build as build_module
import aipo_learner.training as train_module
from aipo_env import ConfigError, Environment, PolicyError, read_episodes
from aipo_learner.learn.guards import check_bounds
from aipo_learner.policy.memory import out_of_memory_explained
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


def config(out: Path, **changes: Any) -> TrainConfig:
    fields = {
        "num_steps": 3,
        "groups_per_step": 2,
        "group_size": 4,
        "num_threads": 1,
        "loggers": "",
    }
    return TrainConfig(out=out, **{**fields, **changes})


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            {"entropy": [0.1, None]},
            r"entropy is 0.05, out of its bounds 0.1 to None. Lower lr",
        ),
        ({"kl_ref": [None, 1]}, "kl_ref is 3, out of its bounds None to 1"),
        ({"loss": [None, 1]}, "loss is nan, out of its bounds None to 1"),
    ],
)
def test_a_metric_out_of_bounds_stops_the_run(bounds: dict[str, Any], message: str):
    telemetry = {"entropy": 0.05, "kl_ref": 3.0, "loss": float("nan")}
    with pytest.raises(PolicyError, match=message):
        check_bounds(telemetry, bounds)


def test_metrics_within_bounds_and_unknown_ones():
    check_bounds({"entropy": 0.5}, {"entropy": [0.5, 0.5]})
    with pytest.raises(
        ConfigError,
        match="bounds has 'entopy', which no update reports.*Did you mean 'entropy'",
    ):
        check_bounds({"entropy": 0.5}, {"entopy": [0, None]})


@pytest.mark.parametrize(
    "bad",
    [{"entropy": 1}, {"entropy": [1]}, {"entropy": ["a", None]}, {"entropy": "12"}],
)
def test_bounds_are_pairs(bad: dict[str, Any], tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"bounds has .* for 'entropy'; write \[low, high\]"
    ):
        config(tmp_path, bounds=bad)


def test_a_collapse_keeps_the_batch_for_inspection(tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(PolicyError) as caught:
        train(config(out, bounds={"entropy": [50, None]}), Console(quiet=True))
    assert "step 1: entropy is " in str(caught.value)
    assert f"aipo view {out}/failed/step-000001.jsonl" in str(caught.value)
    episodes = list(read_episodes(out / "failed" / "step-000001.jsonl"))
    kept = torch.load(out / "failed" / "step-000001.pt", weights_only=True)
    assert len(episodes) == 8
    assert kept["step"] == 1
    lengths = {len(row["token_ids"]) for row in kept["rows"]}
    assert lengths & {len(episode.tokens.token_ids) for episode in episodes}
    assert any(row["advantage"].item() for row in kept["rows"])
    assert kept["rows"][0]["policy_mask"].dtype == torch.bool
    # The bounds may be changed, and the run goes on.
    train(config(out, bounds={"entropy": [0, None]}), Console(quiet=True))
    assert (out / "checkpoints" / "step-000003").is_dir()


def test_a_gradient_that_is_not_finite_keeps_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def infinite(*args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.tensor(float("inf"))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", infinite)
    with pytest.raises(
        PolicyError, match=r"step 1: the gradient is not finite \(norm inf\).*aipo view"
    ):
        train(config(tmp_path / "run"), Console(quiet=True))
    assert (tmp_path / "run" / "failed" / "step-000001.pt").is_file()


def too_large(*args: Any, **kwargs: Any) -> Any:
    return torch.empty(1 << 50)


def refused_by_the_gpu(*args: Any, **kwargs: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("failing", [too_large, refused_by_the_gpu])
def test_want_of_memory_in_an_update_names_the_knob(
    failing: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train_module, "update", failing)
    with pytest.raises(
        ConfigError, match="--microbatch-tokens 8192; 4096 needs 50% less"
    ):
        train(config(tmp_path / "run"), Console(quiet=True))
    with pytest.raises(
        ConfigError,
        match="longest row, [0-9]+ tokens, alone .*--compute.gradient-checkpointing",
    ):
        train(config(tmp_path / "other", microbatch_tokens=8), Console(quiet=True))
    compute = ComputeConfig(gradient_checkpointing=True)
    with pytest.raises(
        ConfigError,
        match="Lower --environment.rules.max-context-tokens to [0-9]+, which halves it",
    ):
        train(
            config(tmp_path / "third", microbatch_tokens=8, compute=compute),
            Console(quiet=True),
        )


def test_want_of_memory_in_sampling_names_the_knob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build_module.SampledBatches, "take", too_large)
    with pytest.raises(
        ConfigError,
        match="tried to allocate .* bytes.*--sampler transformers:max_rows=4",
    ):
        train(config(tmp_path / "run"), Console(quiet=True))


def test_other_errors_pass():
    with (
        pytest.raises(RuntimeError, match="something else"),
        out_of_memory_explained(lambda: "advice"),
    ):
        raise RuntimeError("something else")


def test_a_mean_over_nothing_is_within_bounds():
    check_bounds(
        {"entropy": 0.5},
        {"agent_p_mean": [0.1, None], "effective_sample_size": [0.1, None]},
    )
    with pytest.raises(
        ConfigError, match="bounds has 'kl_ref', which no update reports"
    ):
        check_bounds({"entropy": 0.5}, {"kl_ref": [None, 1]})


@pytest.mark.parametrize("name", ["observation_p_mean", "observation_gradient_share"])
def test_a_bound_of_observations_needs_their_term(name: str):
    check_bounds({"loss": 1.0, "observation_tokens": 0.0}, {name: [0.1, None]})
    with pytest.raises(ConfigError, match=f"bounds has '{name}', which no update rep"):
        check_bounds({"loss": 1.0}, {name: [0.1, None]})


def test_a_prompt_that_fills_the_context_is_named_before_the_first_step(
    tmp_path: Path,
):
    settings = config(
        tmp_path,
        num_steps=1,
        environment=Environment(rules={"max_context_tokens": 12}),
    )
    with pytest.raises(ConfigError, match="leaves the policy no token behind the pr"):
        train(settings, Console(quiet=True))
