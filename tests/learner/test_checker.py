"""Rules and base algorithms of one's own: how they are found, and what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from aipo_env import ConfigError, registry
from aipo_env.cli import main
from aipo_learner.build import open_run
from aipo_learner.learn.advantages import group_advantages
from aipo_learner.learn.agent_rules import AGENT_RULES, AgentTokens
from aipo_learner.learn.base_algorithms import (
    BASE_ALGORITHMS,
    BaseAlgorithm,
    PolicyTokens,
    Surrogate,
    token_ratio,
)
from aipo_learner.learn.checker import (
    PROBABILITIES,
    check_agent_rule,
    check_base,
)
from aipo_learner.learn.objective import aipo_loss, policy_normalizer
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.objective import AGENT_TOKEN_RULES, BASES, ObjectiveConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

GRPO = BASE_ALGORITHMS["grpo"]
LOSSES = '''
"""Somebody's own."""

from aipo_learner import BASE_ALGORITHMS

TWICE = BASE_ALGORITHMS["dapo"]._replace(clip=(0.4, 0.5), divides_by_std=False)
NUMBER = 3


def halved(tokens):
    return tokens.agent_ratio.clamp(max=1) / 2


def one_number(tokens):
    return tokens.p.sum()
'''


@pytest.fixture
def losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of somebody's that can be imported, by its name."""
    (tmp_path / "own_losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    return "own_losses"


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")


@pytest.mark.parametrize("rule", AGENT_RULES)
def test_our_rules_hold_what_is_asked_of_others(rule: str):
    pushes = check_agent_rule(rule)
    assert list(pushes) == list(PROBABILITIES)
    assert check_agent_rule(AGENT_TOKEN_RULES.component(rule)) == pushes


def test_the_table_of_pushes_is_that_of_the_documentation():
    pushes = {rule: check_agent_rule(rule) for rule in ("floored", "luffy")}
    assert [two_digits(push) for push in pushes["floored"].values()] == [
        *(0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.6, 0.9, 0.99)
    ]
    assert [two_digits(push) for push in pushes["luffy"].values()] == [
        *(0.001, 0.0098, 0.083, 0.22, 0.25, 0.19, 0.12, 0.09, 0.083)
    ]


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
def test_our_bases_hold_what_is_asked_of_others(base: str):
    assert check_base(base) == dict.fromkeys(PROBABILITIES, 1.0)
    assert BASES.component(base) is BASE_ALGORITHMS[base]


WEIGHT = torch.ones((), requires_grad=True)
CALLS: list[int] = []


def counting(tokens: AgentTokens) -> Tensor:
    CALLS.append(1)
    return tokens.p.clamp(max=1) / len(CALLS)


def leaving(tokens: AgentTokens) -> Tensor:
    raise SystemExit(3)


def writing(tokens: AgentTokens) -> Tensor:
    return tokens.p.clamp_(max=0.5)


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (lambda tokens: 1.0, "its coefficient is float. Return a tensor."),
        (lambda tokens: tokens.p.mean(), r"its coefficient has shape \[\]"),
        (lambda tokens: tokens.p[0], "its coefficient has shape"),
        (lambda tokens: tokens.p > 0.5, "its coefficient is torch.bool"),
        (lambda tokens: tokens.p.float(), "is torch.float32. Return torch.float64"),
        (lambda tokens: tokens.p.detach() * WEIGHT, "carries a gradient"),
        (lambda tokens: 1 / (1 - tokens.p.clamp(max=1)), "a token that a mask hides"),
        (lambda tokens: 1 / tokens.p, "coefficient is inf at"),
        (lambda tokens: tokens.agent_ratio.pow(40), "coefficient is inf at"),
        (lambda tokens: (1 - tokens.p).sqrt(), "coefficient is nan at"),
        (
            lambda tokens: tokens.p / tokens.p.sum(-1, keepdim=True).clamp(min=1),
            "padding changes the coefficients of the tokens before it",
        ),
        (
            lambda tokens: tokens.p / tokens.p.amax(-1, keepdim=True).clamp(min=1e-30),
            "depends on the tokens beside it",
        ),
        (lambda tokens: tokens.p.cummax(-1).values, "depends on the tokens beside it"),
        (
            lambda tokens: tokens.p - tokens.p.mean(0, keepdim=True) + tokens.floor,
            "depends on the tokens beside it",
        ),
        (counting, "equal tokens get unequal coefficients"),
        (leaving, "raises SystemExit: 3"),
        (writing, "it changes the tokens that it is given"),
        (lambda tokens, power: tokens.p**power, "raises TypeError: .*power"),
        (lambda tokens: tokens.probability, "raises AttributeError: .*probability"),
    ],
)
def test_a_broken_rule_is_refused_by_what_is_broken(
    rule: Callable[..., Tensor], fault: str
):
    with pytest.raises(AssertionError, match=fault):
        check_agent_rule(rule)


def plain(tokens: PolicyTokens) -> Surrogate:
    """Return r A."""
    objective = token_ratio(tokens) * tokens.advantages
    return Surrogate(objective, objective.detach(), torch.zeros_like(tokens.mask))


def changed(**parts: Callable[[PolicyTokens, Surrogate], Tensor]) -> BaseAlgorithm:
    """Return a base whose surrogate is r A with other parts."""

    def surrogate(tokens: PolicyTokens) -> Surrogate:
        made = plain(tokens)
        return made._replace(
            **{name: part(tokens, made) for name, part in parts.items()}
        )

    return GRPO._replace(surrogate=surrogate)


def scaled(factor: Callable[[PolicyTokens], Tensor]) -> BaseAlgorithm:
    """Return a base whose surrogate is r A times a factor, its push included."""

    def surrogate(tokens: PolicyTokens) -> Surrogate:
        objective, push, clipped = plain(tokens)
        return Surrogate(objective * factor(tokens), push * factor(tokens), clipped)

    return GRPO._replace(surrogate=surrogate)


def unbounded(tokens: PolicyTokens) -> Surrogate:
    ratio = (tokens.logprobs - tokens.old_logprobs).float().exp().to(tokens.mask.device)
    objective = ratio.to(tokens.logprobs.dtype) ** 2 * tokens.advantages
    return Surrogate(objective, 2 * objective.detach(), torch.zeros_like(tokens.mask))


def test_a_base_without_a_fault_passes():
    assert check_base(GRPO._replace(surrogate=plain))[0.1] == 1.0


@pytest.mark.parametrize(
    ("base", "fault"),
    [
        (GRPO._replace(surrogate=lambda tokens: tokens.logprobs), "returns Tensor"),
        (changed(objective=lambda tokens, made: made.objective.sum()), "has shape"),
        (changed(push=lambda tokens, made: made.push.half()), "push is torch.float16"),
        (changed(clipped=lambda tokens, made: made.push), "clipped is torch.float"),
        (changed(push=lambda tokens, made: made.objective), "push carries a gradient"),
        (
            changed(objective=lambda tokens, made: made.objective.detach()),
            "objective has no gradient",
        ),
        (
            changed(objective=lambda tokens, made: made.objective - 0.1),
            "objective is not 0 where a mask hides a token",
        ),
        (
            changed(
                objective=lambda tokens, made: made.objective + tokens.logprobs,
                push=lambda tokens, made: made.push + 1,
            ),
            "push is not 0 where a mask hides a token",
        ),
        (
            changed(
                objective=lambda tokens, made: (
                    made.objective + torch.where(tokens.mask, tokens.logprobs, 0.0)
                ),
                push=lambda tokens, made: made.push + tokens.mask,
            ),
            "objective is not 0 where the advantage is",
        ),
        (
            changed(push=lambda tokens, made: 2 * made.push),
            "push is not the gradient of objective",
        ),
        (GRPO._replace(surrogate=unbounded), "is inf at"),
        (
            scaled(lambda tokens: tokens.mask.double().mean(1, keepdim=True).float()),
            "padding changes the values",
        ),
        (
            scaled(lambda tokens: 1 / tokens.mask.sum().to(tokens.logprobs.dtype)),
            "depend on the episodes beside it",
        ),
        (scaled(lambda tokens: torch.rand(())), "equal tokens get unequal values"),
        (
            GRPO._replace(
                surrogate=lambda tokens: plain(
                    tokens._replace(advantages=tokens.advantages.mul_(2))
                )
            ),
            "it changes the tokens that it is given",
        ),
        (
            GRPO._replace(normalizer=lambda mask, places: mask.sum()),
            "its normalizer returns tensor",
        ),
        (
            GRPO._replace(normalizer=lambda mask, places: float(mask.numel())),
            "with padding",
        ),
        (
            GRPO._replace(normalizer=lambda mask, places: float(len(mask)) ** 0.5),
            "when those of its rows are added up",
        ),
        (GRPO._replace(normalizer=lambda mask: 1.0), "its normalizer raises TypeError"),
        (GRPO._replace(normalizer=lambda mask, places: 0.0), "is 0 of a batch"),
        (GRPO._replace(clip=(0.2,)), r"clip is \(0.2,\)"),
        (GRPO._replace(clip=(1.5, 0.2)), r"clip is \(1.5, 0.2\)"),
        (GRPO._replace(sampler_ratio="tokens"), "sampler_ratio is 'tokens'"),
        (GRPO._replace(divides_by_std="no"), "divides_by_std is 'no'"),
    ],
)
def test_a_broken_base_is_refused_by_what_is_broken(base: BaseAlgorithm, fault: str):
    with pytest.raises(AssertionError, match=fault):
        check_base(base)


def test_rules_and_bases_are_found_by_spec_name_and_entry_point(
    losses: str, monkeypatch: pytest.MonkeyPatch
):
    offered = EntryPoint("half", f"{losses}:halved", "aipo_learner.agent_rules")
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group: [offered] if group == offered.group else [],
    )
    assert two_digits(check_agent_rule("half")[0.6]) == 0.3
    assert two_digits(check_agent_rule(f"{losses}:halved")[0.6]) == 0.3
    assert ObjectiveConfig(agent_rule="half").agent_rule == "half"
    assert check_base(f"{losses}:TWICE")[0.1] == 1.0
    monkeypatch.setattr(BASES, "_added", {})
    BASES.register("mine")(GRPO)
    assert ObjectiveConfig(base="mine").base == "mine"
    assert check_base("mine")[0.1] == 1.0


def test_a_base_of_ones_own_says_its_clip_its_advantages_and_its_normalizer(
    losses: str,
):
    spec = f"{losses}:TWICE"
    mask = torch.ones(1, 2, dtype=torch.bool)
    logprobs = torch.full((1, 2), -1.0, dtype=torch.float64, requires_grad=True)
    ratios = torch.tensor([[1.45, 1.6]], dtype=torch.float64)
    loss, metrics = aipo_loss(
        logprobs,
        logprobs.detach() - ratios.log(),
        torch.ones(1, dtype=torch.float64),
        mask,
        ~mask,
        ObjectiveConfig(base=spec),
    )
    assert loss.item() == pytest.approx(-(1.45 + 1.5) / 2)
    assert metrics["clip_count"].item() == 1
    assert policy_normalizer(mask, ObjectiveConfig(base=spec)) == 2
    assert group_advantages([1.0, 0.0], [False] * 2, base=spec) == [0.5, -0.5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent_rule": "flored"}, "Did you mean 'floored'"),
        ({"agent_rule": "no_such_module_here:rule"}, "objective.agent_rule="),
        ({"agent_rule": 3}, "objective.agent_rule=3"),
        ({"agent_rule": None}, "objective.agent_rule=None"),
        ({"agent_rule": ["floored"]}, "objective.agent_rule="),
        ({"agent_rule": "floored,masked"}, "objective.agent_rule="),
        ({"base": "grop"}, "Did you mean 'grpo'"),
        ({"base": "no_such_module_here:BASE"}, "objective.base="),
        ({"base": ""}, "objective.base=''"),
    ],
)
def test_a_name_that_names_nothing_is_refused_where_it_is_set(
    settings: dict[str, object], message: str
):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent_rule": "own_losses:halvd"}, "has no attribute 'halvd'"),
        ({"agent_rule": "own_losses:NUMBER"}, "is int: it must be a function"),
        ({"agent_rule": "own_losses:one_number"}, r"its coefficient has shape \[\]"),
        ({"agent_rule": "own_losses:halved:power=2"}, "it takes no options"),
        ({"agent_rule": "floored:power=2"}, "it takes no options"),
        ({"agent_rule": "own_losses.rules:halved"}, "cannot be loaded: ModuleNotFound"),
        ({"base": "own_losses:halved"}, "is function: it must be a BaseAlgorithm"),
        ({"base": "own_losses:GONE"}, "has no attribute 'GONE'"),
    ],
)
def test_what_a_run_names_is_checked_before_its_folder_or_its_policy(
    losses: str, tmp_path: Path, settings: dict[str, str], message: str
):
    objective = ObjectiveConfig(**settings)
    config = TrainConfig(
        out=tmp_path / "run", policy="no/such-policy", objective=objective
    )
    with pytest.raises(ConfigError, match=message), open_run(config):
        pass
    assert not (tmp_path / "run").exists()


def test_a_wrong_shape_is_named_by_the_loss_too(losses: str):
    ones = torch.ones(2, 3)
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ConfigError, match=r"has shape|of shape \[\]"):
        aipo_loss(
            -ones,
            -ones,
            torch.ones(2),
            ~mask,
            mask,
            ObjectiveConfig(agent_rule=f"{losses}:one_number"),
        )


def test_a_run_keeps_the_specs_resumes_with_them_and_is_reported_without_them(
    losses: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "run"
    config = TrainConfig(
        out=out,
        num_steps=1,
        groups_per_step=2,
        group_size=4,
        num_threads=1,
        lr=1e-3,
        warmup_steps=0,
        loggers="",
        objective=ObjectiveConfig(
            base=f"{losses}:TWICE", agent_rule=f"{losses}:halved"
        ),
    )
    train(config, Console(quiet=True))
    kept = json.loads((out / "config.json").read_text())["objective"]
    assert (kept["base"], kept["agent_rule"]) == (
        "own_losses:TWICE",
        "own_losses:halved",
    )
    train(replace(config, num_steps=2), Console(quiet=True))
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == [1, 2]
    # A report of somebody else's run imports nothing that it names.
    (tmp_path / "own_losses.py").write_text('raise SystemExit("I was imported")')
    monkeypatch.delitem(sys.modules, "own_losses")
    assert main(["report", str(out)]) == 0
    assert "own_losses" not in sys.modules


@pytest.mark.slow
def test_pytest_checks_the_rules_and_bases_that_a_package_offers(
    losses: str, tmp_path: Path
):
    info = tmp_path / "own_losses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: own-losses\nVersion: 1"
    )
    (info / "entry_points.txt").write_text(
        "[aipo_learner.agent_rules]\nhalved = own_losses:halved\nsum ="
        " own_losses:one_number\n[aipo_learner.bases]\ntwice = own_losses:TWICE\n"
    )
    options = ["-p", "aipo_env.pytest_plugin", "-p", "no:cacheprovider", "-v"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--aipo-plugins", "own-losses"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "agent_rule halved PASSED" in done.stdout, done.stdout + done.stderr
    assert "base twice PASSED" in done.stdout
    assert "1 failed, 2 passed" in done.stdout
    assert "agent_rule 'sum': its coefficient has shape []" in done.stdout
