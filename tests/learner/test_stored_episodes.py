"""Training on a file of episodes: what is completed, in which order it is read, and
imitation.
"""

import copy
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from aipo_env import (
    Author,
    Completion,
    ConfigError,
    Consult,
    DataError,
    Environment,
    Episode,
    Scenario,
    TokenRecord,
    Verdict,
    build_scenario,
    read_episodes,
    run_sync,
    write_episodes,
)
from aipo_learner.learn.agent_free_rows import agent_free_row
from aipo_learner.learn.rows import episode_row
from aipo_learner.learn.training_rows import imitation_row
from aipo_learner.policy.load import load_policy, policy_folder, save_policy
from aipo_learner.rollout.sampled import SampledBatches, play_groups
from aipo_learner.rollout.stored import StoredBatches, tokenised
from aipo_learner.run.interrupt import InterruptFlag
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


def config(out: Path, **changes: Any) -> TrainConfig:
    defaults = {
        "out": out,
        "num_steps": 1,
        "groups_per_step": 1,
        "group_size": 8,
        "num_threads": 1,
        "lr": 1e-3,
        "episodes_every": 1,
        "independence": "mixed",
        "seed": 5,
    }
    named = {
        name: changes.pop(name)
        for name in list(changes)
        if name in EpisodeSource.__dataclass_fields__
    }
    return TrainConfig(**{**defaults, **changes}, source=EpisodeSource(**named))


def spoken(
    scenario: Scenario, tokenizer: Any, turns: list[str], aided: bool = True
) -> Episode:
    """An episode whose policy says `turns`, through the real template and tokenizer."""
    session = scenario.session(
        scenario.source.task("train", 0), aided=aided, key=(0,), group_id="g"
    )
    chat = ChatFormat(tokenizer)
    pieces = chat.prompt(session.open())
    for text in turns:
        for token_ids, span in pieces:
            session.show([(token_ids, span)])
        ids = tokenizer.encode(text, add_special_tokens=False)
        ended = not text.endswith(">")
        ids += [tokenizer.eos_token_id] * ended
        message = run_sync(
            session.advance(Completion(text, tuple(ids), (-0.5,) * len(ids)))
        )
        if message is None:
            break
        pieces = chat.suffix(message, ended=ended)
    return session.episode()


def answer(scenario: Scenario) -> str:
    return str(scenario.source.world.problem("train", 0).answer)


def stored(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def batches(
    path: Path, scenario: Scenario, tokenizer: Any, **changes: Any
) -> StoredBatches:
    settings = config(path, episodes=str(path), **changes)
    return StoredBatches(settings.source, settings.rollouts, scenario, tokenizer)


@pytest.mark.parametrize("has_tokens", [False, True])
def test_an_episode_that_is_longer_than_the_policy_reads_is_named(
    has_tokens: bool, scenario, tokenizer, tmp_path: Path
):
    short, long = (
        spoken(scenario, tokenizer, [f"{'so ' * number}\\boxed{{1}}"])
        for number in (1, 300)
    )
    if not has_tokens:
        short, long = (
            replace(each, tokens=TokenRecord.join([])) for each in (short, long)
        )
    path = tmp_path / "made.jsonl"
    write_episodes(path, [short, short, long], reveal=True)
    num_tokens = len(tokenised(long, scenario, tokenizer))
    settings = config(path, episodes=str(path))
    build = partial(
        StoredBatches, settings.source, settings.rollouts, scenario, tokenizer
    )
    message = (
        f"line 3: the episode has {num_tokens} tokens, and the policy reads at most"
    )
    with pytest.raises(DataError, match=message):
        build(max_tokens=num_tokens - 1)
    assert len(build(max_tokens=num_tokens).take(0)) == 1
    assert len(build().take(0)) == 1


def test_stored_episodes_are_compared_with_the_positions_of_the_policy(
    tokenizer, tmp_path: Path
):
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=32,
        n_layer=1,
        n_head=2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    save_policy(GPT2LMHeadModel(shape), tokenizer, tmp_path / "policy")
    rows = [
        {
            "task": {"id": f"t{number}", "prompt": "What is 2 + 2?", "answer": "4"},
            "reward": 1.0,
            "messages": [
                {"role": "user", "content": "What is 2 + 2?"},
                {"role": "assistant", "content": "x " * number + "\\boxed{4}"},
            ],
        }
        for number in (1, 2, 100)
    ]
    path = stored(tmp_path, *rows)
    settings = config(
        tmp_path / "run", sft_episodes=str(path), policy=str(tmp_path / "policy")
    )
    with pytest.raises(DataError, match=r"line 3: .* the policy reads at most 64\."):
        train(settings, Console(quiet=True))


def test_a_text_becomes_the_tokens_that_the_policy_would_have_had(scenario, tokenizer):
    name = scenario.source.world.problem("train", 0).operators[0].name
    turns = [
        "a code",
        f"first <knowledge>{name}</knowledge>",
        f"so \\boxed{{{answer(scenario)}}}",
    ]
    for aided, said in ((True, turns[1:]), (True, turns), (False, turns[2:])):
        episode = spoken(scenario, tokenizer, said, aided=aided)
        made = tokenised(episode, scenario, tokenizer)
        unknown = replace(
            episode.tokens, behaviour_logprobs=np.full(len(made), np.nan, np.float32)
        )
        assert made == unknown
    assert made.policy_mask.sum() > 0


def test_a_turn_that_was_cut_off_gets_no_end_token(scenario, tokenizer):
    episode = spoken(scenario, tokenizer, ["so \\boxed{12}"], aided=False)
    cut = replace(episode, turns=(replace(episode.turns[0], finish_reason="length"),))
    end = tokenizer.eos_token_id
    assert tokenised(episode, scenario, tokenizer).token_ids[-1] == end
    assert tokenised(cut, scenario, tokenizer).token_ids[-1] != end


def test_half_a_surrogate_pair_is_tokenised_as_a_replacement(
    scenario, tokenizer, tmp_path
):
    messages = [
        {"role": "user", "content": "x \ud800"},
        {"role": "assistant", "content": "\udfff \\boxed{1}"},
    ]
    row = {"task": {"id": "t", "prompt": "x", "answer": "1"}, "messages": messages}
    [[episode]] = batches(stored(tmp_path, row), scenario, tokenizer).take(0)
    assert len(episode.tokens) > 5


def test_a_missing_reward_is_verified_and_a_failed_episode_stays_without(
    scenario, tokenizer, tmp_path
):
    gold = answer(scenario)
    right = spoken(scenario, tokenizer, [f"\\boxed{{{gold}}}"], aided=False).to_dict()
    wrong = spoken(scenario, tokenizer, ["\\boxed{1}"], aided=False).to_dict()
    lacking = [{**row, "reward": None, "verdict": None} for row in (right, wrong)]
    failed = {**lacking[0], "stop_reason": "policy_error"}
    graded = {name: value for name, value in right.items() if name != "verdict"} | {
        "reward": 0.25
    }
    path = stored(tmp_path, *lacking, failed, graded)
    [group] = batches(path, scenario, tokenizer).take(0)
    assert [episode.reward for episode in group] == [1.0, 0.0, None, 0.25]
    assert [episode.correct for episode in group] == [True, False, False, True]


def test_every_epoch_reads_every_group_once(scenario, tokenizer, tmp_path):
    row = spoken(scenario, tokenizer, ["\\boxed{1}"], aided=False).to_dict()
    rows = [{**row, "group_id": f"g{number % 6}"} for number in range(12)]
    made = batches(stored(tmp_path, *rows), scenario, tokenizer, groups_per_step=3)
    read = [[group[0].group_id for group in made.take(step)] for step in range(8)]
    assert all(len(group) == 2 for group in made.take(0))
    names = [f"g{number}" for number in range(6)]
    assert [sorted(read[step] + read[step + 1]) for step in (0, 2, 4, 6)] == [names] * 4
    assert read[:2] != read[2:4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tokens": {"token_ids": [1, 10**6], "author": [0, 1]}},
            "line 1: token id 1000000 is not among",
        ),
        ({"aided": 1}, "line 1: not an episode: aided is 1"),
    ],
)
def test_what_the_policy_cannot_learn_from_is_named(
    scenario, tokenizer, tmp_path, change, message
):
    row = spoken(scenario, tokenizer, ["\\boxed{1}"], aided=False).to_dict()
    with pytest.raises(DataError, match=message):
        batches(stored(tmp_path, {**row, **change}), scenario, tokenizer)


def test_an_empty_file_and_one_whose_text_was_withheld_are_refused(
    scenario, tokenizer, tmp_path
):
    with pytest.raises(DataError, match=r"made\.jsonl: holds no episode"):
        batches(stored(tmp_path), scenario, tokenizer)
    episode = spoken(scenario, tokenizer, ["\\boxed{1}"], aided=False)
    secret = replace(episode, task=replace(episode.task, meta={"no_republish": True}))
    with pytest.raises(
        DataError, match="line 1: the text was withheld when it was written"
    ):
        batches(stored(tmp_path, secret.to_dict()), scenario, tokenizer)


def test_turns_that_the_tokens_do_not_have_are_harmless(scenario, tokenizer, tmp_path):
    row = spoken(scenario, tokenizer, ["\\boxed{1}"], aided=False).to_dict()
    path = stored(
        tmp_path,
        {
            **row,
            "turns": (
                [{"completion": "<reason>x</reason>", "finish_reason": "stop"}] * 3
            ),
        },
    )
    [[episode]] = batches(path, scenario, tokenizer).take(0)
    consult = Consult(
        kind="knowledge",
        agent_id="",
        query="x",
        reply="y",
        status="answered",
        call_id=0,
        turn=1,
    )
    verdict = Verdict(correct=True, reward=1.0, status="correct")
    solved = replace(episode, consults=(consult,), verdict=verdict, reward=1.0)
    row = agent_free_row(solved, 1.0, [], scenario.codec, tokenizer)
    assert len(row.token_ids) <= len(episode.tokens)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of one step, and a file of the very episodes that it was trained on."""
    folder = tmp_path_factory.mktemp("sampled")
    train(config(folder / "run"), Console(quiet=True))
    return folder / "run", folder / "run" / "episodes" / "step-000001.jsonl"


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(policy_folder(str(out))) / "model.safetensors")


def test_training_on_the_episodes_of_a_run_repeats_it_bit_for_bit(sampled, tmp_path):
    run, episodes = sampled
    assert len({episode.reward for episode in read_episodes(episodes)}) == 2
    train(
        config(
            tmp_path / "run",
            episodes=str(episodes),
            environment=Environment(agents="none"),
        ),
        Console(quiet=True),
    )
    before, after = weights(run), weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    [row] = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert row["effective_sample_size"] == pytest.approx(1.0)
    assert "staleness" not in row


def test_versions_of_tokens_in_a_file_tell_their_staleness(sampled, tmp_path):
    episodes = list(read_episodes(sampled[1]))
    own = [episode.tokens.policy_mask for episode in episodes]
    # Each episode's second half is of the next version; the last episode does not say.
    versions = [
        np.where(mask, np.cumsum(mask) > mask.sum() // 2, -1).astype(np.int32)
        for mask in own
    ]
    dated = [
        replace(episode, tokens=replace(episode.tokens, policy_version=column))
        for episode, column in zip(episodes[:-1], versions[:-1], strict=True)
    ]
    write_episodes(tmp_path / "mixed.jsonl", [*dated, episodes[-1]], reveal=True)
    settings = config(
        tmp_path / "run",
        episodes=str(tmp_path / "mixed.jsonl"),
        environment=Environment(agents="none"),
        num_steps=2,
    )
    train(settings, Console(quiet=True))
    new = sum(int(mask.sum()) - int(mask.sum()) // 2 for mask in own[:-1])
    share = new / sum(int(mask.sum()) for mask in own[:-1])
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["staleness"] for row in rows] == pytest.approx([-share, 1 - share])
    assert [row["staleness_max"] for row in rows] == [0, 1]


def test_ray_workers_have_nothing_to_do_where_episodes_are_stored(sampled, tmp_path):
    with pytest.raises(
        ConfigError,
        match="ray=2: stored episodes leave nothing to sample. Leave --ray out.",
    ):
        train(
            config(tmp_path / "run", episodes=str(sampled[1])), Console(quiet=True), 2
        )


def test_without_log_probabilities_the_policy_at_the_update_counts_as_the_sampler(
    sampled, tmp_path
):
    rows = [episode.to_dict() for episode in read_episodes(sampled[1])]
    for row in rows:
        del row["tokens"]["behaviour_logprobs"]
    train(
        config(tmp_path / "run", episodes=str(stored(tmp_path, *rows))),
        Console(quiet=True),
    )
    [row] = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert "effective_sample_size" not in row
    before, after = weights(sampled[0]), weights(tmp_path / "run")
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before)


def test_a_row_of_imitation_holds_the_policys_tokens_and_if_wanted_the_agents(
    scenario, tokenizer
):
    name = scenario.source.world.problem("train", 0).operators[0].name
    episode = spoken(
        scenario, tokenizer, [f"<knowledge>{name}</knowledge>", "\\boxed{1}"]
    )
    plain, both = (imitation_row(episode, agent_tokens=flag) for flag in (False, True))
    tokens = episode.tokens
    assert (plain.policy_mask == tokens.policy_mask).all()
    assert (both.policy_mask == (tokens.policy_mask | tokens.agent_mask)).all()
    assert both.policy_mask.sum() > plain.policy_mask.sum()
    for row in (plain, both):
        assert not row.agent_mask.any()
        assert np.isnan(row.sampler_logprobs).all()
        assert row.advantage == 1.0


@pytest.mark.parametrize("agent_tokens", [False, True])
def test_imitation_descends_the_cross_entropy_of_the_correct_episodes(
    sampled, tmp_path, agent_tokens
):
    settings = config(
        tmp_path / "sft",
        sft_episodes=str(sampled[1]),
        sft_agent_tokens=agent_tokens,
        num_steps=3,
        group_size=4,
        warmup_steps=0,
        updates_per_step=2,
        objective={"base": "gspo"},
    )
    settings = TrainConfig.from_dict(settings.to_dict())
    train(settings, Console(quiet=True))
    losses = [row["loss"] for row in read_metrics(tmp_path / "sft" / "metrics.jsonl")]

    model, tokenizer = load_policy(policy_folder("tiny"))
    scenario = build_scenario("toy", "none", seed=5)
    batches = StoredBatches(settings.source, settings.rollouts, scenario, tokenizer)
    groups = batches.take(0)
    assert all(episode.correct for [episode] in groups)
    assert len(groups) == 4
    total, count = 0.0, 0
    for [episode] in groups:
        ids = torch.tensor(episode.tokens.token_ids.astype(np.int64))
        wanted = episode_row(episode, 1.0).policy_mask | (
            agent_tokens & episode.tokens.agent_mask
        )
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        each = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        total, count = (
            total + each[torch.tensor(wanted[1:])].sum().item(),
            count + int(wanted.sum()),
        )
    assert losses[0] == pytest.approx(total / count, rel=1e-4)
    # The policy's own words are near certain already; the agents' are not.
    assert losses[0] < 1e-3 if not agent_tokens else losses[2] < 0.9 * losses[0]


def test_only_one_source_of_episodes_may_be_named(tmp_path):
    for two in (
        {"episodes": "a", "sft_episodes": "b"},
        {"episodes": "a", "max_staleness": 1},
    ):
        with pytest.raises(
            ConfigError, match="of episodes, sft_episodes and max_staleness only one"
        ):
            config(tmp_path, **two)


def test_sampled_batches_can_be_written_and_trained_on(scenario, tmp_path):
    model, tokenizer = load_policy(policy_folder("tiny"))
    settings = config(tmp_path)
    sampler = HFSampler(model.eval(), tokenizer)
    play = partial(play_groups, settings.rollouts, scenario, sampler)
    batches_of_run = SampledBatches(settings.rollouts, play, InterruptFlag())
    [group] = batches_of_run.take(0)
    write_episodes(tmp_path / "one.jsonl", group, reveal=True)
    [again] = batches(tmp_path / "one.jsonl", scenario, tokenizer).take(0)
    assert again == group


def test_turns_that_a_template_numbers_are_numbered(scenario, tokenizer):
    numbered = copy.deepcopy(tokenizer)
    numbered.chat_template = (
        "{% for m in messages %}{{ loop.index }} {{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}{{ messages | length + 1 }} {% endif %}"
    )
    name = scenario.source.world.problem("train", 0).operators[0].name
    turns = [f"<knowledge>{name}</knowledge>"] * 2 + ["\\boxed{12}"]
    episode = spoken(scenario, tokenizer, turns)
    made = tokenised(episode, scenario, numbered)
    text = numbered.decode(made.token_ids[made.author == Author.TEMPLATE])
    # A system's, a user's; then turns of the policy and replies by turns.
    assert re.findall(r"[0-9]+", text) == ["1", "2", "3", "4", "5", "6", "7"]
