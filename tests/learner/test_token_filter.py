"""Evaluation with a part of the distribution: greedy, top-k, top-p, min-p."""

import asyncio
import math
from contextlib import closing

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import ConfigError, Scenario
from aipo_learner.evaluation.evaluate import Scores, evaluate, majority_share
from aipo_learner.rollout.waves import play_wave
from aipo_learner.samplers.hf.filtering import filtered
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.settings.eval_options import EvalOptions
from aipo_learner.settings.token_filter import LIKELIEST_TOKEN, TokenFilter

PROBABILITIES = (0.1, 0.4, 0.2, 0.3)


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({}, (0, 1, 2, 3)),
        ({"top_k": 1}, (1,)),
        ({"top_k": 3}, (1, 2, 3)),
        ({"top_k": 9}, (0, 1, 2, 3)),
        ({"top_p": 0.4}, (1,)),
        ({"top_p": 0.41}, (1, 3)),
        ({"top_p": 0.7}, (1, 3)),
        ({"top_p": 0.89}, (1, 2, 3)),
        ({"min_p": 0.5}, (1, 2, 3)),
        ({"min_p": 0.6}, (1, 3)),
        ({"min_p": 1.0}, (1,)),
        # Of what the top 2 leave, 0.4 and 0.3, the first has 4 parts of 7.
        ({"top_k": 2, "top_p": 0.57}, (1,)),
        ({"top_k": 2, "top_p": 0.58}, (1, 3)),
    ],
)
def test_what_each_filter_keeps(cut: dict[str, float], kept: tuple[int, ...]):
    scores = torch.tensor([PROBABILITIES, PROBABILITIES[::-1]]).log()
    result = filtered(scores, TokenFilter(**cut))
    is_kept = result > -math.inf
    assert tuple(is_kept[0].nonzero()[:, 0].tolist()) == kept
    assert tuple(is_kept[1].flip(0).nonzero()[:, 0].tolist()) == kept
    assert torch.equal(result[is_kept], scores[is_kept])


def test_of_equally_likely_tokens_the_first_stays():
    scores = torch.zeros(1, 5).log_softmax(-1)
    assert (filtered(scores, LIKELIEST_TOKEN)[0] > -math.inf).tolist() == [
        True,
        False,
        False,
        False,
        False,
    ]


def ids(sampler: HFSampler, scenario: Scenario, seed: int) -> list[list[int]]:
    task = scenario.source.task("test", 0)
    sessions = [
        scenario.session(task, aided=False, key=(seed, 0, 0, sample))
        for sample in range(6)
    ]
    episodes = asyncio.run(play_wave(scenario, sessions, sampler))
    return [episode.tokens.token_ids.tolist() for episode in episodes]


def test_greedy_decoding_draws_nothing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, scenario: Scenario
):
    with closing(HFSampler(model, tokenizer)) as sampler:
        assert len(set(map(tuple, ids(sampler, scenario, 1)))) > 1
        sampler.token_filter = LIKELIEST_TOKEN
        assert sampler.beside().token_filter is LIKELIEST_TOKEN
        [first, *others] = ids(sampler, scenario, 1) + ids(sampler, scenario, 2)
        assert all(other == first for other in others)


def test_options_name_the_filter():
    assert EvalOptions().token_filter.is_open
    assert EvalOptions(temperature=0.0).token_filter == LIKELIEST_TOKEN
    qwen = EvalOptions(temperature=0.6, top_p=0.95, top_k=20)
    assert qwen.token_filter == TokenFilter(top_k=20, top_p=0.95)
    for name, value in (("top_p", 0.0), ("top_p", 1.5), ("top_k", -1), ("min_p", 2.0)):
        with pytest.raises(ConfigError, match=f"eval: {name}="):
            EvalOptions(**{name: value})


def test_the_vote_of_a_tasks_samples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, scenario: Scenario
):
    with closing(HFSampler(model, tokenizer)) as sampler:
        sizes = {"num_tasks": 2, "num_samples": 2, "aided": False, "seed": 0}
        scores, _ = evaluate(sampler, scenario, **sizes)
    # A random policy gives no answer to vote on.
    assert scores.majority is None
    voted = Scores(
        task_ids=("a", "b"),
        bottlenecks=("", ""),
        num_correct=np.array([1, 2]),
        num_samples=3,
        majority=np.array([0.5, 1.0]),
    ).to_dict()
    assert voted["maj@3"] == 0.75
    assert list(voted["intervals"]) == ["pass@1", "pass@2", "maj@3"]


@pytest.mark.parametrize(
    ("num_correct", "wrong", "vote"),
    [
        (3, {"7": 2}, 1.0),
        (2, {"7": 2}, 0.5),
        (2, {"7": 2, "8": 2}, 1 / 3),
        (1, {"7": 2}, 0.0),
        (0, {}, 0.0),
        (1, {}, 1.0),
    ],
)
def test_how_a_vote_goes(num_correct: int, wrong: dict[str, int], vote: float):
    assert majority_share(num_correct, wrong) == vote
