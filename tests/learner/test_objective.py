"""What the loss promises: who gets a gradient, what may stand in masked places,
errors.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aipo_learner.learn.agent_rules import AGENT_RULES
from aipo_learner.learn.base_algorithms import BASE_ALGORITHMS
from aipo_learner.learn.metrics import merge_metrics, summarize
from aipo_learner.learn.objective import (
    ObjectiveConfig,
    agent_coefficient,
    agent_normalizer,
    aipo_loss,
    observation_normalizer,
    policy_normalizer,
)

# Prompt, own words, the consult's wrapper, reply content, the wrapper's end, own words.
AUTHORS = ["..pp.aaaa.ppp", "..ppppp.aa.p.", "..ppppppppp.."]
TOKENS = len(AUTHORS[0])

every_base = pytest.mark.parametrize("base", BASE_ALGORITHMS)
every_rule = pytest.mark.parametrize("rule", AGENT_RULES)


def mask(letter: str) -> Tensor:
    return torch.tensor([[author == letter for author in line] for line in AUTHORS])


def make_batch(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(3)
    draw = torch.randn(4, 3, TOKENS, generator=rng, dtype=dtype)
    logprobs = -draw[0].abs() - 0.1
    return {
        "logprobs": logprobs,
        "old_logprobs": logprobs + 0.3 * draw[1],
        "advantages": torch.tensor([1.0, 0.5, -1.0], dtype=dtype),
        "policy_mask": mask("p"),
        "agent_mask": mask("a"),
        "agent_logprobs": -draw[2].abs(),
        "sampler_logprobs": logprobs + 0.3 * draw[3],
        "ref_logprobs": logprobs + 0.3 * draw[2],
    }


def run(
    batch: dict[str, Tensor], config: ObjectiveConfig
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    logprobs = batch["logprobs"].clone().requires_grad_()
    loss, metrics = aipo_loss(**{**batch, "logprobs": logprobs}, config=config)
    loss.backward()
    return loss.detach(), logprobs.grad, metrics


def assert_same_bits(
    one: tuple[Tensor, Tensor, dict[str, Tensor]],
    other: tuple[Tensor, Tensor, dict[str, Tensor]],
) -> None:
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


@every_base
@every_rule
def test_other_authors_tokens_get_exactly_no_gradient(base: str, rule: str):
    batch = make_batch()
    _, gradient, _ = run(batch, ObjectiveConfig(base, rule, kl_coef=0.1))
    assert torch.equal(gradient[mask(".")], torch.zeros(13, dtype=torch.float64))
    assert gradient[mask("p")].count_nonzero() > 0
    reached = gradient[:2][mask("a")[:2]] != 0
    assert reached.tolist() == [rule != "masked"] * 6


@every_base
@every_rule
def test_an_agent_weight_of_0_is_masked_bit_for_bit(base: str, rule: str):
    batch = make_batch(torch.float32)
    unweighted = run(batch, ObjectiveConfig(base, rule, agent_weight=0.0))
    assert_same_bits(unweighted, run(batch, ObjectiveConfig(base, "masked")))


@every_base
@every_rule
def test_no_consultation_is_the_base_algorithm_bit_for_bit(base: str, rule: str):
    """A batch without agent tokens loses nothing to the rule, and its agents' term is
    0.
    """
    batch = make_batch(torch.float32)
    alone = {**batch, "agent_mask": torch.zeros(3, TOKENS, dtype=torch.bool)}
    got = run(alone, ObjectiveConfig(base, rule, agent_weight=7.0, negative_weight=1.0))
    assert_same_bits(got, run(batch, ObjectiveConfig(base, "masked")))
    assert got[2]["agent_loss"] == 0


def test_grpo_on_its_own_tokens_in_numbers():
    """Ratios 1.1, 1.5 (clipped at 1.2) and, with A = -1, 0.5 (clipped at 0.8)."""
    ratios = torch.tensor([[1.1, 1.5], [0.5, 0.9]], dtype=torch.float64)
    logprobs = torch.full((2, 2), -1.0, dtype=torch.float64, requires_grad=True)
    everything = torch.ones(2, 2, dtype=torch.bool)
    loss, metrics = aipo_loss(
        logprobs,
        logprobs.detach() - ratios.log(),
        torch.tensor([1.0, -1.0], dtype=torch.float64),
        everything,
        ~everything,
        ObjectiveConfig(),
    )
    loss.backward()
    assert loss.item() == pytest.approx(-((1.1 + 1.2) / 2 - (0.8 + 0.9) / 2) / 2)
    assert logprobs.grad.tolist() == [
        pytest.approx([-0.275, 0]),
        pytest.approx([0, 0.225]),
    ]
    assert summarize(metrics)["clip_fraction"] == 0.5


@pytest.mark.parametrize(("floor", "rule"), [(1.0, None), (0.0, "plain_is")])
def test_the_ends_of_the_floor(floor: float, rule: str | None):
    """Floor 1 is advantage-weighted imitation, floor 0 is plain importance sampling."""
    batch = make_batch()
    batch["policy_mask"] = torch.zeros(3, TOKENS, dtype=torch.bool)
    batch["agent_logprobs"] = torch.full((3, TOKENS), math.nan, dtype=torch.float64)
    loss, gradient, _ = run(batch, ObjectiveConfig(floor=floor))
    if rule:
        assert_same_bits(
            (loss, gradient, {}), run(batch, ObjectiveConfig(agent_rule=rule))
        )
        return
    logprobs = batch["logprobs"].clone().requires_grad_()
    imitation = -(batch["advantages"][:, None] * logprobs)[mask("a")].sum() / 6
    imitation.backward()
    torch.testing.assert_close(loss, imitation.detach())
    torch.testing.assert_close(gradient, logprobs.grad)


@every_base
@every_rule
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf], ids=str)
def test_garbage_in_masked_positions_changes_nothing(
    base: str, rule: str, garbage: float
):
    batch, config = make_batch(), ObjectiveConfig(base, rule, kl_coef=0.1)
    batch["advantages"] = batch["advantages"][:, None].expand(3, TOKENS)
    dirty = dict(batch)
    for name in ("logprobs", "old_logprobs", "advantages"):
        dirty[name] = torch.where(mask("."), garbage, batch[name])
    dirty["agent_logprobs"] = torch.where(mask("a"), batch["agent_logprobs"], garbage)
    for name in ("sampler_logprobs", "ref_logprobs"):
        dirty[name] = torch.where(mask("p"), batch[name], garbage)
    clean = run(batch, config)
    got = run(dirty, config)
    assert_same_bits(got, clean)
    assert {name: value.item() for name, value in got[2].items()} == {
        name: value.item() for name, value in clean[2].items()
    }


@every_base
@every_rule
@pytest.mark.parametrize("log_ratio", [80.0, -80.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_log_ratios_stay_finite(
    base: str, rule: str, log_ratio: float, dtype: torch.dtype
):
    batch = make_batch(dtype)
    batch["logprobs"] = batch["logprobs"] - (80 if log_ratio < 0 else 0)
    others = ("old_logprobs", "agent_logprobs", "sampler_logprobs", "ref_logprobs")
    batch |= dict.fromkeys(others, batch["logprobs"] - log_ratio)
    config = ObjectiveConfig(base, rule, kl_coef=0.1, negative_weight=1.0)
    loss, gradient, metrics = run(batch, config)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert all(value.isfinite() for value in metrics.values())


def test_a_bounded_ratio_still_pushes_back():
    """A token grown by e^80 under a negative advantage is pushed with the bound, not
    with 0.
    """
    logprobs = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.bool)
    loss, _ = aipo_loss(
        logprobs,
        logprobs.detach() - 80,
        -torch.ones(1, dtype=torch.float64),
        one,
        ~one,
        ObjectiveConfig(),
    )
    loss.backward()
    assert logprobs.grad.item() == pytest.approx(math.exp(20))


def test_the_sequence_ratio_of_gspo_ignores_agent_tokens():
    batch, config = make_batch(), ObjectiveConfig("gspo", "masked")
    # Half the clip's width, so that every episode's ratio is inside it.
    batch["old_logprobs"] = batch["logprobs"] - 1.5e-4
    other = {
        **batch,
        "old_logprobs": torch.where(mask("a"), -30.0, batch["old_logprobs"]),
    }
    got = run(other, config)
    assert_same_bits(got, run(batch, config))
    assert got[1][mask("p")].count_nonzero() == mask("p").sum()


def test_a_row_without_policy_tokens_contributes_0():
    for base in BASE_ALGORITHMS:
        batch = make_batch()
        batch["policy_mask"][1] = False
        batch["agent_mask"][1] = False
        _, gradient, metrics = run(batch, ObjectiveConfig(base, kl_coef=0.1))
        assert gradient[1].tolist() == [0.0] * TOKENS
        assert metrics["policy_loss"].isfinite()
        batch["policy_mask"][:] = False
        batch["agent_mask"][:] = False
        loss, gradient, metrics = run(batch, ObjectiveConfig(base, kl_coef=0.1))
        assert loss.item() == 0
        assert gradient.count_nonzero() == 0
        assert summarize(metrics)["loss"] == 0


def test_unknown_sampler_logprobs_weigh_1():
    batch = make_batch()
    batch["sampler_logprobs"] = torch.full((3, TOKENS), math.nan, dtype=torch.float64)
    without = {
        name: value for name, value in batch.items() if name != "sampler_logprobs"
    }
    for base in BASE_ALGORITHMS:
        config = ObjectiveConfig(base)
        got = run(batch, config)
        assert_same_bits(got, run(without, config))
        assert "kl_sampler" not in summarize(got[2])


@every_base
def test_the_sampler_weight_is_capped_and_spares_agent_tokens(base: str):
    batch, config = make_batch(), ObjectiveConfig(base)
    without = {
        name: value for name, value in batch.items() if name != "sampler_logprobs"
    }
    batch["sampler_logprobs"] = batch["old_logprobs"] - math.log(5)
    _, plain, _ = run(without, config)
    _, capped, metrics = run(batch, config)
    assert plain[mask("p")].count_nonzero() > 0
    torch.testing.assert_close(capped[mask("p")], 2.0 * plain[mask("p")])
    assert torch.equal(capped[mask("a")], plain[mask("a")])
    assert summarize(metrics)["kl_sampler"] == pytest.approx(5 - math.log(5) - 1)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("grpo", 3),
        ("dr_grpo", 3 * 50),
        ("dapo", 20),
        ("rloo", 3),
        ("gspo", 3),
        ("cispo", 20),
        ("gppo", 20),
    ],
)
def test_policy_normalizer(base: str, expected: float):
    assert (
        policy_normalizer(mask("p"), ObjectiveConfig(base, max_policy_tokens=50))
        == expected
    )


def test_agent_normalizer_counts_weighted_tokens():
    default, both = ObjectiveConfig(), ObjectiveConfig(negative_weight=0.1)
    assert agent_normalizer(mask("a"), torch.tensor([1.0, -1.0, 1.0]), default) == 4
    assert agent_normalizer(mask("a"), torch.tensor([1.0, -1.0, 1.0]), both) == 6
    assert agent_normalizer(mask("a"), torch.tensor([0.0, 0.5, 1.0]), both) == 2
    assert agent_normalizer(mask("a"), torch.zeros(3), both) == 0
    assert agent_normalizer(mask("a"), torch.where(mask("a"), 1.0, math.nan), both) == 6


def test_advantages_may_be_given_per_token():
    batch, config = make_batch(), ObjectiveConfig("gspo", "luffy")
    per_token = {**batch, "advantages": batch["advantages"][:, None].expand(3, TOKENS)}
    assert_same_bits(run(per_token, config), run(batch, config))


def test_only_logprobs_receive_a_gradient():
    batch = {
        name: value.requires_grad_(value.is_floating_point())
        for name, value in make_batch().items()
    }
    loss, metrics = aipo_loss(**batch, config=ObjectiveConfig(kl_coef=0.1))
    loss.backward()
    with_gradient = [name for name, value in batch.items() if value.grad is not None]
    assert with_gradient == ["logprobs"]
    assert not any(value.requires_grad for value in metrics.values())


def test_summary_in_numbers():
    """One own token at p = 0.5; agent tokens at p = 0.05 and 0.35; A = 2."""
    logprobs = torch.tensor([[0.5, 0.05, 0.35]], dtype=torch.float64).log()
    own = torch.tensor([[True, False, False]])
    _, metrics = aipo_loss(
        logprobs,
        logprobs,
        torch.tensor([2.0], dtype=torch.float64),
        own,
        ~own,
        ObjectiveConfig(agent_weight=3.0),
        ref_logprobs=logprobs + math.log(2),
    )
    policy_push = 2 * (1 - 0.5)
    agent_push = 3 * 2 * (0.1 * (1 - 0.05) + 0.35 * (1 - 0.35)) / 2
    agent_loss = -3 * 2 * (0.1 * math.log(0.05) + 0.35 * math.log(0.35)) / 2
    assert summarize(metrics) == pytest.approx(
        {
            "loss": -2.0 + agent_loss,
            "policy_loss": -2.0,
            "agent_loss": agent_loss,
            "policy_tokens": 1,
            "agent_tokens": 2,
            "ratio_max": 1.0,
            "ratio_mean": 1.0,
            "clip_fraction": 0.0,
            "kl_ref": 2 - math.log(2) - 1,
            "agent_p_mean": 0.2,
            "agent_below_floor_share": 0.5,
            "agent_coefficient_mean": 0.225,
            "agent_gradient_share": agent_push / (agent_push + policy_push),
        }
    )


def test_merged_metrics_are_sums_and_maxima():
    one = {"agent_tokens": torch.tensor(2.0), "ratio_max": torch.tensor(1.5)}
    two = {"agent_tokens": torch.tensor(3.0), "ratio_max": torch.tensor(1.2)}
    merged = merge_metrics([one, two])
    assert {name: round(value.item(), 6) for name, value in merged.items()} == {
        "agent_tokens": 5.0,
        "ratio_max": 1.5,
    }
    assert one["agent_tokens"].item() == 2.0


def test_clips_left_out_are_the_base_algorithms_own():
    bounds = {base: ObjectiveConfig(base).clip_bounds() for base in BASE_ALGORITHMS}
    assert bounds["grpo"] == bounds["dr_grpo"] == (0.2, 0.2)
    assert bounds["dapo"] == bounds["cispo"] == bounds["gppo"] == (0.2, 0.28)
    assert bounds["gspo"] == (3e-4, 4e-4)
    assert ObjectiveConfig("dapo", clip_low=0.0, clip_high=0.5).clip_bounds() == (
        0.0,
        0.5,
    )


def test_the_coefficient_shown_is_the_one_that_pushes():
    batch, config = (
        make_batch(),
        ObjectiveConfig(agent_rule="mixture", agent_weight=2.0),
    )
    coefficient = agent_coefficient(
        batch["logprobs"],
        batch["old_logprobs"],
        batch["agent_logprobs"],
        batch["advantages"],
        config,
    )
    _, gradient, _ = run(batch, config)
    expected = -2.0 * batch["advantages"][:, None] * coefficient / 6
    torch.testing.assert_close(gradient[mask("a")], expected[mask("a")])


@every_base
def test_the_entropy_bonus_has_the_gradient_of_the_entropy(base: str):
    """Four logits a token, of which the second is taken; A = 0, so nothing else has
    one.
    """
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    own = torch.tensor([[True, True, False], [True, False, False]])
    config = ObjectiveConfig(base, entropy_coef=0.5, max_policy_tokens=50)

    def entropies() -> Tensor:
        scores = logits.log_softmax(-1)
        return -(scores.exp() * scores).sum(-1)

    logprobs = logits.log_softmax(-1)[..., 1]
    entropy = torch.where(own, entropies(), math.nan)
    loss, _ = aipo_loss(
        logprobs,
        logprobs.detach(),
        torch.zeros(2, dtype=torch.float64),
        own,
        torch.zeros_like(own),
        config,
        entropy=entropy,
    )
    [gradient] = torch.autograd.grad(loss, logits)
    # An episode's mean over its own tokens where the base averages them, else a sum.
    shares = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    if base in ("grpo", "gspo"):
        shares = shares / torch.tensor([[2.0], [1.0]])
    bonus = (0.5 * shares * entropies()).sum() / policy_normalizer(own, config)
    [expected] = torch.autograd.grad(-bonus, logits)
    torch.testing.assert_close(gradient, expected)
    assert gradient[own].count_nonzero() == 12
    assert gradient[~own].count_nonzero() == 0


def test_a_bonus_without_a_differentiable_entropy_is_refused():
    batch = make_batch()
    with pytest.raises(ValueError, match=r"entropy_coef is 0.1: pass entropy"):
        run(batch, ObjectiveConfig(entropy_coef=0.1))
    batch["entropy"] = torch.ones_like(batch["logprobs"])
    with pytest.raises(ValueError, match=r"entropy_coef is 0.1: pass entropy, with"):
        run(batch, ObjectiveConfig(entropy_coef=0.1))
    # Without a bonus it is nobody's.
    del batch["entropy"]
    without = run(batch, ObjectiveConfig())
    batch["entropy"] = torch.full_like(batch["logprobs"], math.nan)
    assert torch.equal(run(batch, ObjectiveConfig())[1], without[1])


# As AUTHORS, with the wrapper and a tool's result marked as observed.
OBSERVED = ["....o....o...", ".......o..o..", "............."]


def observed_mask() -> Tensor:
    return torch.tensor([[letter == "o" for letter in line] for line in OBSERVED])


def echo(base: str = "grpo", rule: str = "floored") -> ObjectiveConfig:
    return ObjectiveConfig(base, rule, observation_weight=0.05, kl_coef=0.1)


@every_base
@every_rule
def test_observation_tokens_get_minus_the_weight_over_their_number_and_others_nothing(
    base: str, rule: str
):
    batch = make_batch()
    without = run(batch, ObjectiveConfig(base, rule, kl_coef=0.1))
    observed = observed_mask()
    loss, gradient, metrics = run(
        {**batch, "observation_mask": observed}, echo(base, rule)
    )
    assert gradient[observed].tolist() == pytest.approx([-0.05 / 4] * 4, rel=1e-12)
    assert torch.equal(gradient[~observed], without[1][~observed])
    mean = batch["logprobs"][observed].mean()
    assert metrics["observation_loss"].item() == pytest.approx(-0.05 * mean.item())
    assert (loss - without[0]).item() == pytest.approx(-0.05 * mean.item())


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf], ids=str)
def test_garbage_beside_observation_tokens_changes_nothing(garbage: float):
    observed = observed_mask()
    batch = {**make_batch(), "observation_mask": observed}
    batch["advantages"] = batch["advantages"][:, None].expand(3, TOKENS)
    dirty = dict(batch)
    dirty["logprobs"] = torch.where(mask(".") & ~observed, garbage, batch["logprobs"])
    # Of an observation token, only the log-probability is read.
    for name in ("old_logprobs", "advantages", "ref_logprobs"):
        dirty[name] = torch.where(mask("."), garbage, batch[name])
    clean = run(batch, echo())
    got = run(dirty, echo())
    assert_same_bits(got, clean)
    assert {name: value.item() for name, value in got[2].items()} == {
        name: value.item() for name, value in clean[2].items()
    }


@every_base
def test_without_a_weight_of_observations_nothing_is_read_of_them(base: str):
    batch = make_batch(torch.float32)
    config = ObjectiveConfig(base, observation_authors=("tool", "env"))
    got = run({**batch, "observation_mask": observed_mask()}, config)
    assert_same_bits(got, run(batch, ObjectiveConfig(base)))
    assert not any(name.startswith("observation") for name in got[2])
    assert not any(name.startswith("observation") for name in summarize(got[2]))


@every_base
def test_microbatches_of_observation_tokens_add_up(base: str):
    batch = {**make_batch(), "observation_mask": observed_mask()}
    whole = run(batch, echo(base))
    given = {
        "policy_normalizer": policy_normalizer(batch["policy_mask"], echo(base)),
        "agent_normalizer": agent_normalizer(
            batch["agent_mask"], batch["advantages"], echo(base)
        ),
        "observation_normalizer": observation_normalizer(batch["observation_mask"]),
    }
    assert given["observation_normalizer"] == 4
    parts = [
        run({name: value[row] for name, value in batch.items()} | given, echo(base))
        for row in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole[0])
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), whole[1])
    merged = summarize(merge_metrics([part[2] for part in parts]))
    assert merged == pytest.approx(summarize(whole[2]))
    assert merged["observation_tokens"] == 4


def test_a_batch_without_observation_tokens_has_a_term_of_0():
    batch = make_batch(torch.float32)
    nothing = torch.zeros(3, TOKENS, dtype=torch.bool)
    got = run({**batch, "observation_mask": nothing}, echo())
    assert_same_bits(got, run(batch, ObjectiveConfig(kl_coef=0.1)))
    told = summarize(got[2])
    assert told["observation_loss"] == 0
    assert told["observation_tokens"] == 0
    assert "observation_p_mean" not in told


def test_metrics_of_observation_tokens_in_numbers():
    """An own token at p = 0.5 with A = 2; observation tokens at p = 0.25 and 0.75."""
    logprobs = torch.tensor([[0.5, 0.25, 0.75]], dtype=torch.float64).log()
    own = torch.tensor([[True, False, False]])
    loss, metrics = aipo_loss(
        logprobs,
        logprobs,
        torch.tensor([2.0], dtype=torch.float64),
        own,
        torch.zeros_like(own),
        ObjectiveConfig(observation_weight=0.1),
        observation_mask=~own,
    )
    told = summarize(metrics)
    observation_loss = -0.1 * (math.log(0.25) + math.log(0.75)) / 2
    push = 0.1 * (0.75 + 0.25) / 2
    assert told["observation_loss"] == pytest.approx(observation_loss)
    assert told["loss"] == loss.item() == pytest.approx(-2.0 + observation_loss)
    assert told["observation_p_mean"] == pytest.approx(0.5)
    assert told["observation_gradient_share"] == pytest.approx(push / (push + 1.0))


def test_agents_tokens_are_observed_where_no_rule_weighs_them():
    batch = make_batch()
    observed = {**batch, "observation_mask": mask("a")}
    told = ObjectiveConfig(
        agent_rule="masked", observation_weight=0.05, observation_authors=("agent",)
    )
    _, gradient, metrics = run(observed, told)
    assert gradient[mask("a")].tolist() == pytest.approx([-0.05 / 6] * 6)
    assert metrics["agent_tokens"] == metrics["observation_tokens"] == 6
    with pytest.raises(ValueError, match="agent_mask and observation_mask, both"):
        run(observed, echo())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_mask": None}, "observation_weight is 0.05: pass observation"),
        (
            {"observation_mask": torch.zeros(3, 9, dtype=torch.bool)},
            r"observation_mask has shape \[3, 9\]",
        ),
        (
            {"observation_mask": torch.zeros(3, TOKENS)},
            "observation_mask is torch.float32: it must be torch.bool",
        ),
        ({"observation_mask": mask("p")}, "policy_mask and observation_mask, both"),
        ({"observation_normalizer": -1.0}, "observation_normalizer is -1.0"),
        ({"observation_normalizer": math.nan}, "observation_normalizer is nan"),
    ],
)
def test_a_wrong_argument_of_observations_is_named(
    changes: dict[str, object], message: str
):
    batch = {**make_batch(), "observation_mask": observed_mask()}
    with pytest.raises(ValueError, match=message):
        run({**batch, **changes}, echo())


PAGE = Path(__file__).resolve().parents[2] / "docs" / "objective.md"
EXAMPLE = [
    # Episode, author, p, p before, and the advantage of the episode.
    ("1", "policy", 0.5, 0.5, 1.0),
    ("1", "agent", 0.05, 0.05, 1.0),
    ("1", "agent", 0.4, 0.4, 1.0),
    ("1", "tool", 0.5, 0.5, 1.0),
    ("1", "policy", 0.8, 0.5, 1.0),
    ("2", "policy", 0.5, 0.5, -1.0),
    ("2", "tool", 0.25, 0.25, -1.0),
    ("2", "policy", 0.3, 0.5, -1.0),
]


def test_the_worked_example_of_the_documentation():
    """Two episodes of one task, the first right, with all three terms of the loss."""
    tokens = [[line for line in EXAMPLE if line[0] == row] for row in "12"]
    width = len(tokens[0])

    def column(place: int) -> Tensor:
        rows = [[line[place] for line in row] for row in tokens]
        padded = [row + [1.0] * (width - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.float64)

    def written_by(author: str) -> Tensor:
        rows = [[line[1] == author for line in row] for row in tokens]
        return torch.tensor([row + [False] * (width - len(row)) for row in rows])

    logprobs = column(2).log().requires_grad_()
    loss, metrics = aipo_loss(
        logprobs,
        column(3).log(),
        torch.tensor([1.0, -1.0], dtype=torch.float64),
        written_by("policy"),
        written_by("agent"),
        ObjectiveConfig(observation_weight=0.05),
        observation_mask=written_by("tool"),
    )
    loss.backward()
    gradients = logprobs.grad[
        written_by("policy") | written_by("agent") | written_by("tool")
    ]
    assert gradients.tolist() == pytest.approx(
        [-0.25, -0.05, -0.2, -0.025, 0, 0.25, -0.025, 0]
    )
    told = summarize(metrics)
    assert told["policy_loss"] == pytest.approx(-0.1)
    assert told["agent_loss"] == pytest.approx(0.3330, abs=5e-5)
    assert told["observation_loss"] == pytest.approx(0.0520, abs=5e-5)
    assert told["loss"] == pytest.approx(0.2850, abs=5e-5)
    page = PAGE.read_text(encoding="utf-8")
    for (episode, author, p, before, _), gradient in zip(
        EXAMPLE, gradients.tolist(), strict=True
    ):
        shown = f"{gradient:.3f}".replace("-", "\N{MINUS SIGN}").replace("0.000", "0")
        cells = f"| {episode} | {author} | {p} | {before} |"
        [line] = [line for line in page.splitlines() if line.startswith(cells)]
        assert line.endswith(f"| {shown} |")
    for name in ("policy_loss", "agent_loss", "observation_loss", "loss"):
        number = f"{told[name]:.4f}".replace("-", "\N{MINUS SIGN}")
        assert f"`{name}` | {number} |" in page
