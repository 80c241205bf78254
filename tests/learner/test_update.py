"""What an update makes of a step's rows, and what it says of it."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from aipo_env import ConfigError
from aipo_learner.learn.base_algorithms import BASE_ALGORITHMS
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.normalizers import Normalizers, batch_normalizers
from aipo_learner.learn.objective import aipo_loss
from aipo_learner.learn.rows import Row, collate
from aipo_learner.learn.update import (
    minibatch_rows,
    rows_with_gradient,
    share_passes,
    update,
)
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.objective import AGENT_RULES, ObjectiveConfig
from aipo_learner.settings.stages import UpdateSettings
from aipo_learner.settings.train import TrainConfig

NO_LIMIT = math.inf


@pytest.fixture(scope="module")
def policy() -> PreTrainedModel:
    """One layer, double precision."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(shape).double().eval()


def row(advantage: float, seed: int, group: int = 0, **changes: Any) -> Row:
    """Two tokens of the prompt, four of the policy, two of an agent, one more."""
    rng = np.random.default_rng(seed)
    authors = np.array(list("..ppppaap"))
    own = authors == "p"
    agents = authors == "a"
    logprobs = np.float32(-rng.uniform(1, 6, len(authors)))
    nan = np.float32(np.nan)
    fields = {
        "token_ids": rng.integers(2, 32, len(authors)),
        "policy_mask": own,
        "agent_mask": agents,
        "sampler_logprobs": np.where(own, logprobs, nan),
        "agent_logprobs": np.where(agents, logprobs, nan),
        "advantage": advantage,
    }
    return Row(**{**fields, "group": group, **changes})


ROWS = (row(1.0, 1), row(0.0, 2), row(-0.5, 3), row(0.0, 4), row(0.25, 5))


def settings(objective: ObjectiveConfig | None = None, **changes: Any) -> Any:
    fields = {
        "objective": objective or ObjectiveConfig(),
        "updates_per_step": 1,
        "max_grad_norm": NO_LIMIT,
        "microbatch_tokens": 20,
    }
    return UpdateSettings(**{**fields, **changes})


def moved(
    policy: PreTrainedModel,
    rows: Sequence[Row],
    told: Any,
    lr: float = 1.0,
    key: tuple[int, ...] = (),
) -> tuple[Tensor, dict[str, float]]:
    """Update a copy by plain descent; return by how much it moved, and the metrics."""
    twin = copy.deepcopy(policy)
    optimizer = torch.optim.SGD(twin.parameters(), lr=lr)
    forward = LearnerForward(twin)
    telemetry = update(forward, optimizer, rows, told, pad_token_id=0, key=key)
    pairs = zip(twin.parameters(), policy.parameters(), strict=True)
    return torch.cat([(new - old).detach().flatten() for new, old in pairs]), telemetry


def descent(
    policy: PreTrainedModel, rows: Sequence[Row], objective: ObjectiveConfig
) -> Tensor:
    """Return minus the gradient of the loss of all rows, computed in one pass."""
    twin = copy.deepcopy(policy)
    batch = collate(rows, 0)
    logprobs, _ = microbatch_logprobs(LearnerForward(twin), batch)
    loss, _ = aipo_loss(
        logprobs,
        logprobs.detach(),
        batch.advantages,
        batch.policy_mask,
        batch.agent_mask,
        objective,
        agent_logprobs=batch.agent_logprobs,
        sampler_logprobs=batch.sampler_logprobs,
    )
    loss.backward()
    return -torch.cat([weight.grad.flatten() for weight in twin.parameters()])


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
@pytest.mark.parametrize("rule", AGENT_RULES)
def test_rows_without_an_advantage_change_nothing_but_the_normalizer(
    policy: PreTrainedModel, base: str, rule: str
):
    objective = ObjectiveConfig(base, agent_rule=rule, negative_weight=0.5)
    step, telemetry = moved(policy, ROWS, settings(objective))
    torch.testing.assert_close(
        step, descent(policy, ROWS, objective), atol=1e-6, rtol=0
    )
    assert telemetry["rows/without_gradient"] == 2
    assert telemetry["policy_tokens"] == 15
    fewer, _ = moved(policy, rows_with_gradient(ROWS, objective), settings(objective))
    assert not torch.allclose(step, fewer, atol=1e-6)


def test_only_rows_with_a_gradient_are_passed_through_the_model(
    policy: PreTrainedModel,
):
    class Counting(LearnerForward):
        num_rows = 0

        def __call__(self, token_ids: Tensor, *masks: Tensor) -> tuple[Tensor, Tensor]:
            self.num_rows += len(token_ids)
            return super().__call__(token_ids, *masks)

    def num_rows(objective: ObjectiveConfig) -> int:
        twin = copy.deepcopy(policy)
        forward = Counting(twin)
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.0)
        reference = LearnerForward(policy) if objective.kl_coef else None
        told = settings(objective)
        update(forward, optimizer, ROWS, told, pad_token_id=0, reference=reference)
        return forward.num_rows

    assert num_rows(ObjectiveConfig()) == 3
    # The distance from the reference has no advantage.
    assert num_rows(ObjectiveConfig(kl_coef=0.1)) == 5


def test_a_row_without_a_token_in_the_loss_has_no_gradient():
    nobodys = np.zeros(9, bool)
    empty = row(1.0, 6, policy_mask=nobodys, agent_mask=nobodys)
    assert rows_with_gradient([empty, ROWS[0]], ObjectiveConfig()) == [ROWS[0]]
    # One is left, for a step of the optimiser.
    assert rows_with_gradient([ROWS[1], ROWS[3]], ObjectiveConfig()) == [ROWS[1]]


def test_an_advantage_that_is_no_number_is_not_left_out(policy: PreTrainedModel):
    assert len(rows_with_gradient([row(math.nan, 1)], ObjectiveConfig())) == 1


def test_ratio_and_clip_are_those_of_all_updates_of_a_step(policy: PreTrainedModel):
    _, one = moved(policy, ROWS, settings(), lr=2.0)
    _, four = moved(policy, ROWS, settings(updates_per_step=4), lr=2.0)
    assert (one["clip_fraction"], one["ratio_max"], one["ratio_mean"]) == (0, 1, 1)
    assert one["grad_norm_max"] == one["grad_norm"]
    assert four["clip_fraction"] > 0.05
    assert four["ratio_max"] > 1.2
    assert four["ratio_mean"] != pytest.approx(1.0, abs=1e-3)
    assert four["grad_norm_max"] >= four["grad_norm"]
    # What is of the first update stays what it is.
    for name in ("loss", "grad_norm", "entropy", "kl_sampler", "policy_tokens"):
        assert four[name] == one[name]


def test_the_sampler_is_judged_by_rows_in_the_context_it_saw(policy: PreTrainedModel):
    # In its own context the sampler says what the learner says; the other row's
    # numbers are of another prompt.
    batch = collate(ROWS[:1], 0)
    logprobs, _ = microbatch_logprobs(LearnerForward(policy), batch)
    same = logprobs[0].detach().float().numpy()
    known = replace(
        ROWS[0], sampler_logprobs=np.where(ROWS[0].policy_mask, same, np.nan)
    )
    rewritten = replace(ROWS[2], is_rewritten=True)
    _, telemetry = moved(policy, [known, rewritten], settings())
    assert telemetry["kl_sampler"] == pytest.approx(0, abs=1e-6)
    assert telemetry["effective_sample_size"] == pytest.approx(1)
    assert telemetry["kl_sampler/agent_free"] > 0.1
    assert telemetry["effective_sample_size/agent_free"] < 0.99
    _, own = moved(policy, [known, ROWS[2]], settings())
    assert own["kl_sampler"] > 0.05
    assert "kl_sampler/agent_free" not in own
    # Names apart from one another; all else is as before.
    assert own["loss"] == telemetry["loss"]


GROUPED = tuple(
    row(advantage, seed, group)
    for group, seeds in enumerate([(1, 2, 3), (4, 5), (6, 7, 8), (9, 10)])
    for seed, advantage in zip(seeds, (1.0, 0.0, -0.5), strict=False)
)
KEY = (7, 3)


def test_minibatches_keep_groups_whole_and_are_drawn_by_the_key():
    parts = minibatch_rows(GROUPED, 2, KEY)
    groups = [{row.group for row in part} for part in parts]
    assert [len(part) for part in groups] == [2, 2]
    assert set.union(*groups) == {0, 1, 2, 3}
    assert sorted(map(id, GROUPED)) == sorted(id(row) for part in parts for row in part)
    # Within a minibatch the order is that of the step.
    places = {id(row): place for place, row in enumerate(GROUPED)}
    for part in parts:
        of_part = [places[id(row)] for row in part]
        assert of_part == sorted(of_part)

    def drawn(key: tuple[int, ...]) -> list[list[int]]:
        return [[row.group for row in part] for part in minibatch_rows(GROUPED, 2, key)]

    assert drawn(KEY) == drawn(KEY)
    assert len({str(drawn((7, step))) for step in range(20)}) > 2


def test_one_minibatch_is_the_whole_batch_as_it_is():
    assert minibatch_rows(GROUPED, 1, KEY) == [GROUPED]


def test_minibatches_without_a_group_are_left_out_and_counted(policy: PreTrainedModel):
    assert len(minibatch_rows(GROUPED, 6, KEY)) == 4
    _, telemetry = moved(policy, GROUPED, settings(num_minibatches=6), key=KEY)
    assert telemetry["minibatches/empty"] == 2
    _, telemetry = moved(policy, GROUPED, settings(num_minibatches=4), key=KEY)
    assert telemetry["minibatches/empty"] == 0


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
@pytest.mark.parametrize("times", [1, 2])
def test_each_minibatch_is_a_step_with_its_own_normalizers_from_the_same_old_weights(
    policy: PreTrainedModel, base: str, times: int
):
    objective = ObjectiveConfig(base)
    told = settings(objective, num_minibatches=2, updates_per_step=times)
    step, telemetry = moved(policy, GROUPED, told, lr=0.5, key=KEY)
    twin = copy.deepcopy(policy)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
    batches = [collate(part, 0) for part in minibatch_rows(GROUPED, 2, KEY)]
    with torch.no_grad():
        old = [
            microbatch_logprobs(LearnerForward(policy), batch)[0] for batch in batches
        ]
    losses = []
    for _ in range(times):
        for batch, old_logprobs in zip(batches, old, strict=True):
            optimizer.zero_grad()
            logprobs, _ = microbatch_logprobs(LearnerForward(twin), batch)
            # Without normalizers it computes those of the rows that it is given.
            loss, _ = aipo_loss(
                logprobs,
                old_logprobs,
                batch.advantages,
                batch.policy_mask,
                batch.agent_mask,
                objective,
                agent_logprobs=batch.agent_logprobs,
                sampler_logprobs=batch.sampler_logprobs,
            )
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    pairs = zip(twin.parameters(), policy.parameters(), strict=True)
    expected = torch.cat([(new - was).detach().flatten() for new, was in pairs])
    torch.testing.assert_close(step, expected, atol=1e-6, rtol=0)
    assert telemetry["loss"] == pytest.approx(sum(losses[:2]) / 2, rel=1e-4)
    # The second minibatch is measured at weights that have moved already.
    assert telemetry["ratio_max"] > 1


def test_more_minibatches_than_groups_are_refused():
    with pytest.raises(
        ConfigError, match=r"num_minibatches=3 is more than\s*groups_per_step=2"
    ):
        TrainConfig(num_minibatches=3, groups_per_step=2)
    with pytest.raises(ConfigError, match=r"num_minibatches=2 with sft_episodes"):
        TrainConfig(num_minibatches=2, source=EpisodeSource(sft_episodes="a.jsonl"))
    assert TrainConfig(num_minibatches=2, groups_per_step=2).update.num_minibatches == 2


def test_an_entropy_bonus_raises_the_entropy_of_all_rows(policy: PreTrainedModel):
    flat = [replace(row, advantage=0.0) for row in ROWS]
    measured = []
    for coef in (0.0, 1.0):
        twin = copy.deepcopy(policy)
        forward = LearnerForward(twin, entropy_gradient=coef > 0)
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
        told = settings(ObjectiveConfig(entropy_coef=coef), updates_per_step=3)
        made = [
            update(forward, optimizer, flat, told, pad_token_id=0) for _ in range(2)
        ]
        assert made[0]["rows/without_gradient"] == (0 if coef else 4)
        measured.append(made[1]["entropy"] - made[0]["entropy"])
    assert measured[0] == 0
    assert measured[1] > 1e-4


def test_a_bonus_for_an_entropy_without_a_gradient_is_refused(policy: PreTrainedModel):
    with pytest.raises(ValueError, match="entropy_gradient=True"):
        moved(policy, ROWS, settings(ObjectiveConfig(entropy_coef=0.1)))


ECHO = ObjectiveConfig(observation_weight=0.5)
SEEN = np.array(list("........x")) == "x"
"""The last token of a row, which no other mask may have then."""


def seen_row(advantage: float, seed: int, **changes: Any) -> Row:
    own = np.array(list("..ppppaa.")) == "p"
    return row(advantage, seed, policy_mask=own, observation_mask=SEEN, **changes)


NOBODYS = np.zeros(9, bool)
ONLY_SEEN = replace(
    seen_row(0.0, 9), policy_mask=NOBODYS, agent_mask=NOBODYS, is_only_observed=True
)
"""As of a group without a gradient."""


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
def test_rows_that_are_only_observed_change_no_other_term(
    policy: PreTrainedModel, base: str
):
    objective = ObjectiveConfig(base, observation_weight=0.5)
    learned = [seen_row(1.0, 1), seen_row(-0.5, 3)]
    _, alone = moved(policy, learned, settings(objective))
    step, told = moved(policy, [*learned, ONLY_SEEN], settings(objective))
    for name in ("policy_loss", "agent_loss", "policy_tokens", "entropy"):
        assert told[name] == pytest.approx(alone[name], rel=1e-9)
    assert (alone["observation_tokens"], told["observation_tokens"]) == (2, 3)
    assert told["loss"] == pytest.approx(
        told["policy_loss"] + told["agent_loss"] + told["observation_loss"]
    )
    # One token of each row: the mean is that of all three rows.
    twin = copy.deepcopy(policy)
    batch = collate([*learned, ONLY_SEEN], 0)
    logprobs, _ = microbatch_logprobs(LearnerForward(twin), batch)
    mean = logprobs[:, -1].mean()
    assert told["observation_loss"] == pytest.approx(-0.5 * mean.item())
    (0.5 * mean).backward()
    echo_step = torch.cat([weight.grad.flatten() for weight in twin.parameters()])
    without, _ = moved(policy, learned, settings(ObjectiveConfig(base)))
    torch.testing.assert_close(step, without + echo_step, atol=1e-6, rtol=0)


def test_normalizers_of_a_batch_leave_out_what_is_only_observed():
    rows = [seen_row(1.0, 1), row(0.5, 2, observation_mask=NOBODYS), ONLY_SEEN]
    assert batch_normalizers(rows, ECHO) == Normalizers(
        policy=2, agent=4, observation=2
    )
    assert batch_normalizers([], ECHO) == Normalizers(policy=0, agent=0, observation=0)


def test_a_row_is_passed_for_its_observation_tokens_alone():
    assert rows_with_gradient([ONLY_SEEN, ROWS[1]], ECHO) == [ONLY_SEEN]


def test_a_step_of_observations_alone_is_one(policy: PreTrainedModel):
    step, told = moved(policy, [ONLY_SEEN], settings(ECHO))
    assert step.abs().max() > 0
    assert (told["policy_loss"], told["agent_loss"], told["policy_tokens"]) == (0, 0, 0)
    assert told["observation_tokens"] == 1


def test_microbatches_and_minibatches_of_observations(policy: PreTrainedModel):
    rows = [seen_row(1.0, 1, group=0), seen_row(-0.5, 3, group=1), ONLY_SEEN]
    whole, told = moved(policy, rows, settings(ECHO, microbatch_tokens=1000))
    split, told_split = moved(policy, rows, settings(ECHO, microbatch_tokens=9))
    torch.testing.assert_close(split, whole, atol=1e-6, rtol=0)
    assert told_split["observation_loss"] == pytest.approx(told["observation_loss"])
    _, twice = moved(policy, rows, settings(ECHO, num_minibatches=2), lr=0.0, key=KEY)
    parts = [
        moved(policy, part, settings(ECHO), lr=0.0)[1]["observation_loss"]
        for part in minibatch_rows(rows, 2, KEY)
    ]
    assert twice["observation_loss"] == pytest.approx(sum(parts) / 2)


def only_seen(*groups: int) -> list[Row]:
    return [replace(ONLY_SEEN, group=group) for group in groups]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("observed", [(4,), (4, 5), (4, 5, 6, 7, 8), (-1, 9)])
def test_groups_that_are_only_observed_take_no_places_in_minibatches(
    number: int, observed: tuple[int, ...]
):
    seen = only_seen(*observed)
    for step in range(5):
        without = minibatch_rows(GROUPED, number, (7, step))
        parts = minibatch_rows([*seen, *GROUPED], number, (7, step))
        learned = [[row for row in part if not row.is_only_observed] for part in parts]
        assert [list(map(id, part)) for part in learned] == [
            list(map(id, part)) for part in without
        ]
        dealt = [row.group for part in parts for row in part if row.is_only_observed]
        assert sorted(dealt) == sorted(observed)
        sizes = [len(part) - len(own) for part, own in zip(parts, learned, strict=True)]
        assert max(sizes) - min(sizes) <= 1


def test_groups_that_are_only_observed_are_split_where_there_are_no_others():
    parts = minibatch_rows(only_seen(0, 1, 2, 3, 4), 2, KEY)
    assert [len(part) for part in parts] == [3, 2]
    parts = minibatch_rows([*only_seen(0, 0, 1), GROUPED[0]], 3, KEY)
    # It shares a group, and so the only minibatch that has something to learn.
    assert [[row.group for row in part] for part in parts] == [[0, 0, 0, 1]]


def test_minibatches_of_other_terms_are_what_they_are_without_observed_groups(
    policy: PreTrainedModel,
):
    learned = [seen_row(1.0, seed, group=seed) for seed in (1, 2, 3)]
    told = settings(ECHO, num_minibatches=3)
    _, alone = moved(policy, learned, told, lr=0.0, key=KEY)
    rows = [*learned, *only_seen(5, 6, 7, 8)]
    _, with_seen = moved(policy, rows, told, lr=0.0, key=KEY)
    for name in ("policy_loss", "agent_loss", "policy_tokens", "minibatches/empty"):
        assert with_seen[name] == pytest.approx(alone[name], rel=1e-6)


def test_a_filler_of_ranks_observes_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aipo_learner.learn.update.rank", lambda: 1)
    monkeypatch.setattr("aipo_learner.learn.update.world_size", lambda: 2)
    mine, filler = share_passes([[seen_row(1.0, 1)]])
    assert mine == []
    assert not filler[0][0].observation_mask.any()


def test_rows_that_were_made_without_the_objective_are_named(policy: PreTrainedModel):
    with pytest.raises(ValueError, match=r"a row has no\s+observation_mask: pass the"):
        moved(policy, [seen_row(1.0, 1), *ROWS], settings(ECHO))
