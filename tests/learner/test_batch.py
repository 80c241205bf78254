"""Rows, microbatches and the agent-free form."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aipo_env import (
    AgentReply,
    AgentRequest,
    Author,
    Completion,
    Episode,
    Scenario,
    Session,
    StopReason,
    build_scenario,
    run_sync,
)
from aipo_learner.learn.agent_free_rows import agent_free_row, agent_free_rows
from aipo_learner.learn.objective import policy_normalizer
from aipo_learner.learn.rows import Row, collate, episode_row, split_rows
from aipo_learner.learn.training_rows import (
    TrainingRows,
    imitation_rows,
    training_rows,
)
from aipo_learner.learn.update import update
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.rollout.independence import aided_flags, aided_share, anneal
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig


def row(length: int, advantage: float = 1.0) -> Row:
    own = np.arange(length) >= 2
    return Row(
        token_ids=np.arange(length) + 5,
        policy_mask=own,
        agent_mask=np.zeros(length, bool),
        sampler_logprobs=np.where(own, np.float32(-1), np.float32(np.nan)),
        agent_logprobs=np.full(length, np.nan, np.float32),
        advantage=advantage,
    )


def test_collate_pads_on_the_right():
    batch = collate([row(3), row(5, -2.0)], pad_token_id=0)
    assert batch.token_ids.tolist() == [[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.policy_mask.tolist() == [
        [False, False, True, False, False],
        [False, False, True, True, True],
    ]
    assert batch.sampler_logprobs[0].isnan().tolist() == [True, True, False, True, True]
    assert batch.advantages.tolist() == [1.0, -2.0]


def test_split_rows_keeps_to_the_budget_and_loses_nothing():
    rows = [row(n) for n in (9, 3, 30, 4, 3, 8)]
    parts = split_rows(rows, max_tokens=16)
    assert [[len(r.token_ids) for r in part] for part in parts] == [
        [3, 3],
        [4],
        [8],
        [9],
        [30],
    ]


def spoken(
    scenario: Scenario, tokenizer, turns: list[str], index: int, aided: bool = True
):
    """Run an episode whose policy says `turns`, through the real template and
    tokenizer.
    """
    session: Session = scenario.session(
        scenario.source.task("train", index), aided=aided, key=(0, 0, 0, 0)
    )
    chat = ChatFormat(tokenizer)
    pieces = chat.prompt(session.open())
    for text in turns:
        for token_ids, span in pieces:
            session.show([(token_ids, span)])
        ids = tokenizer.encode(text, add_special_tokens=False)
        if "</" not in text:
            ids += [tokenizer.eos_token_id]
        message = run_sync(
            session.advance(Completion(text, tuple(ids), (-0.5,) * len(ids)))
        )
        if message is None:
            break
        pieces = chat.suffix(message, ended=False)
    return session.episode()


def solved(scenario: Scenario, tokenizer):
    """A correct episode that consulted the Knowledge Agent."""
    problem = scenario.source.world.problem("train", 0)
    name = problem.operators[0].name
    turns = [f"<knowledge>{name}</knowledge>", f"so \\boxed{{{problem.answer}}}"]
    return spoken(scenario, tokenizer, turns, index=0), problem


def test_agent_free_form_keeps_the_reply_and_drops_the_markup(scenario, tokenizer):
    episode, problem = solved(scenario, tokenizer)
    assert episode.correct
    plain = tokenizer.encode("<|system|>Solve.<|end|>", add_special_tokens=False)
    made = agent_free_row(episode, 1.0, plain, scenario.codec, tokenizer)
    statement = problem.operators[0].statements()[0]
    assert (
        tokenizer.decode(made.token_ids)
        == f"<|system|>Solve.<|end|>{statement}so \\boxed{{{problem.answer}}}<|end|>"
    )
    assert tokenizer.decode(made.token_ids[made.agent_mask]) == statement
    assert (
        tokenizer.decode(made.token_ids[made.policy_mask])
        == f"so \\boxed{{{problem.answer}}}<|end|>"
    )
    assert not np.isnan(made.sampler_logprobs[made.policy_mask]).any()
    assert np.isnan(made.sampler_logprobs[~made.policy_mask]).all()


def test_only_correct_consulting_episodes_with_an_advantage_are_internalised(
    scenario, tokenizer
):
    episode, problem = solved(scenario, tokenizer)
    alone = spoken(scenario, tokenizer, [f"\\boxed{{{problem.answer}}}"], index=0)
    wrong = spoken(
        scenario, tokenizer, ["<knowledge>x</knowledge>", "\\boxed{1}"], index=0
    )
    assert agent_free_row(episode, 0.0, [1], scenario.codec, tokenizer) is None
    assert agent_free_row(alone, 1.0, [1], scenario.codec, tokenizer) is None
    assert agent_free_row(wrong, 1.0, [1], scenario.codec, tokenizer) is None


def test_the_words_before_a_call_stay(scenario, tokenizer):
    problem = scenario.source.world.problem("train", 0)
    name = problem.operators[0].name
    turns = [f"a code <knowledge>{name}</knowledge>", f"\\boxed{{{problem.answer}}}"]
    episode = spoken(scenario, tokenizer, turns, index=0)
    made = agent_free_row(episode, 1.0, [], scenario.codec, tokenizer)
    statement = problem.operators[0].statements()[0]
    text = tokenizer.decode(made.token_ids)
    assert text == f"a code {statement}\\boxed{{{problem.answer}}}<|end|>"


def half(number: int) -> int:
    """Halve a number."""
    return number // 2


TOOL = '<half>{"number": 8}</half>'


def with_tool(tokenizer, first: str, **rules: object):
    """A correct episode in a toy world with a tool: a first turn, then the answer."""
    made = build_scenario("toy", tools=[half], rules={**LIMITS, **rules}, seed=5)
    problem = made.source.world.problem("train", 0)
    call = first.format(name=problem.operators[0].name)
    episode = spoken(made, tokenizer, [call, f"\\boxed{{{problem.answer}}}"], index=0)
    assert episode.correct
    return made, episode, problem


LIMITS = {"max_policy_tokens": 500, "max_context_tokens": 4000}


def test_calls_of_tools_stay_in_the_agent_free_form(tokenizer):
    made, episode, problem = with_tool(
        tokenizer,
        "hm <knowledge>{name}</knowledge> so "
        + TOOL.replace("{", "{{").replace("}", "}}"),
    )
    row = agent_free_row(episode, 1.0, [], made.codec, tokenizer)
    statement = problem.operators[0].statements()[0]
    text = tokenizer.decode(row.token_ids)
    before, after = text.split(TOOL)
    assert before == f"hm  so {statement}"
    assert '<reply from="half">4</reply>' in after
    assert '<reply from="knowledge">' not in text
    assert after.endswith(f"\\boxed{{{problem.answer}}}<|end|>")
    assert tokenizer.decode(row.token_ids[row.agent_mask]) == statement
    result = np.flatnonzero(episode.tokens.author == Author.TOOL)
    assert len(result) == 1
    assert not row.agent_mask[
        row.token_ids == episode.tokens.token_ids[result[0]]
    ].any()


def test_an_episode_that_only_called_tools_consulted_nobody(tokenizer):
    call = TOOL.replace("{", "{{").replace("}", "}}")
    made, episode, _ = with_tool(tokenizer, call)
    assert [consult.is_agents for consult in episode.consults] == [False]
    assert agent_free_row(episode, 1.0, [], made.codec, tokenizer) is None


def test_tools_that_go_away_with_the_agents_are_rewritten_too(tokenizer):
    call = "<knowledge>{name}</knowledge>" + TOOL.replace("{", "{{").replace("}", "}}")
    made, episode, problem = with_tool(tokenizer, call, tools_when="aided")
    row = agent_free_row(episode, 1.0, [], made.codec, tokenizer, keeps_tools=False)
    statement = problem.operators[0].statements()[0]
    text = tokenizer.decode(row.token_ids)
    assert text == f"{statement}\\boxed{{{problem.answer}}}<|end|>"


@pytest.mark.parametrize("fault", ["num_invalid", "num_forged"])
def test_malformed_and_forged_turns_are_never_taught(scenario, tokenizer, fault: str):
    episode, _ = solved(scenario, tokenizer)
    assert agent_free_row(episode, 1.0, [1], scenario.codec, tokenizer) is not None
    broken = replace(episode, **{fault: 1})
    assert agent_free_row(broken, 1.0, [1], scenario.codec, tokenizer) is None


def test_masks_of_a_row_follow_the_authors(scenario, tokenizer):
    episode, _ = solved(scenario, tokenizer)
    made = episode_row(episode, 0.5)
    assert (made.policy_mask == (episode.tokens.author == Author.POLICY)).all()
    assert (made.policy_mask & made.agent_mask).sum() == 0
    assert made.agent_mask.sum() == 5  # kelo = #NN #NN ;


def echo(*authors: str, **changes: object) -> ObjectiveConfig:
    settings = {"observation_weight": 0.05, "observation_authors": authors}
    return ObjectiveConfig(agent_rule="masked", **{**settings, **changes})


WITH_BOTH = "hm <knowledge>{name}</knowledge> so " + TOOL.replace("{", "{{").replace(
    "}", "}}"
)
"""Asks an agent, then calls a tool."""


@pytest.mark.parametrize(
    ("authors", "expected"),
    [
        (("tool",), "4"),
        (("agent",), "{statement}"),
        (("env",), '<reply from="knowledge"></reply><reply from="half"></reply>'),
        (
            ("env", "tool", "agent"),
            '<reply from="knowledge">{statement}</reply><reply from="half">4</reply>',
        ),
    ],
)
def test_observation_tokens_are_their_authors_words_without_wrappers(
    tokenizer, authors: tuple[str, ...], expected: str
):
    _, episode, problem = with_tool(tokenizer, WITH_BOTH)
    statement = problem.operators[0].statements()[0]
    row = episode_row(episode, 1.0, objective=echo(*authors))
    observed = tokenizer.decode(row.token_ids[row.observation_mask])
    # Between two replies the environment puts a line break.
    assert observed.replace("\n", "") == expected.format(statement=statement)
    assert not (row.observation_mask & row.policy_mask).any()


CLAIM = "the seventeenth code of the old box must be nine thousand and four"
"""Words of the policy that an agent quotes."""


class Quoting:
    """An agent that repeats what it was asked."""

    agent_id = "quoting"

    async def reply(self, request: AgentRequest) -> AgentReply:
        return AgentReply(text=f'You say "{request.query}", which is wrong.', tokens=9)


def quoted(tokenizer, kind: str) -> tuple[Scenario, Episode]:
    """A correct episode in which an agent of a kind quotes the policy."""
    made = build_scenario("toy:kinds=knowledge", Quoting(), rules=LIMITS, seed=5)
    answer = made.source.world.problem("train", 0).answer
    turns = [f"I think {CLAIM}. <{kind}>{CLAIM}</{kind}>", f"\\boxed{{{answer}}}"]
    episode = spoken(made, tokenizer, turns, index=0)
    assert episode.correct
    return made, episode


@pytest.mark.parametrize("kind", ["verify", "knowledge"])
@pytest.mark.parametrize(
    ("authors", "expected", "expected_agent_free"),
    [
        (("env",), '<reply from="{kind}"></reply>', ""),
        (
            ("agent",),
            'You say "", which is wrong.',
            'You say "", which is wrong.',
        ),
        (
            ("env", "tool", "agent"),
            '<reply from="{kind}">You say "", which is wrong.</reply>',
            'You say "", which is wrong.',
        ),
    ],
)
def test_what_an_agent_quotes_of_the_policy_is_observed_of_nobody(
    tokenizer,
    kind: str,
    authors: tuple[str, ...],
    expected: str,
    expected_agent_free: str,
):
    made, episode = quoted(tokenizer, kind)
    row = episode_row(episode, 1.0, objective=echo(*authors))
    observed = tokenizer.decode(row.token_ids[row.observation_mask])
    assert observed == expected.format(kind=kind)
    [row] = agent_free_rows(made, tokenizer, [episode], [1.0], objective=echo(*authors))
    observed = tokenizer.decode(row.token_ids[row.observation_mask])
    assert observed == expected_agent_free
    assert CLAIM in tokenizer.decode(row.token_ids)


def test_rows_have_no_observation_tokens_unless_the_loss_has_a_term_of_them(tokenizer):
    _, episode, _ = with_tool(tokenizer, WITH_BOTH)
    off = ObjectiveConfig(observation_authors=("tool", "env"))
    for objective in (None, ObjectiveConfig(), off):
        row = episode_row(episode, 1.0, objective=objective)
        assert row.observation_mask is None
        assert collate([row], 0).observation_mask is None


def test_of_wrong_episodes_nothing_is_observed_where_correct_ones_are_asked_for(
    tokenizer,
):
    _, episode, _ = with_tool(tokenizer, WITH_BOTH)
    wrong = replace(episode, verdict=replace(episode.verdict, correct=False))
    unknown = replace(episode, verdict=replace(episode.verdict, correct=None))
    told = echo("tool", observation_episodes="correct")
    masks = [
        episode_row(each, 1.0, objective=told).observation_mask
        for each in (episode, wrong, unknown)
    ]
    assert [mask.sum() for mask in masks] == [1, 0, 0]
    assert episode_row(wrong, 1.0, objective=echo("tool")).observation_mask.sum() == 1


def test_agent_free_forms_observe_what_stays_in_them(tokenizer):
    made, episode, problem = with_tool(tokenizer, WITH_BOTH)
    told = echo("env", "tool", "agent")
    [row] = agent_free_rows(made, tokenizer, [episode], [1.0], objective=told)
    statement = problem.operators[0].statements()[0]
    observed = tokenizer.decode(row.token_ids[row.observation_mask])
    assert observed == f'{statement}<reply from="half">4</reply>'
    [row] = agent_free_rows(made, tokenizer, [episode], [1.0])
    assert row.observation_mask is None


def test_padding_and_rows_without_a_mask_observe_nothing():
    seen = replace(row(5), observation_mask=np.array([True, *[False] * 4]))
    batch = collate([row(3), seen, row(7)], pad_token_id=0)
    assert batch.observation_mask.tolist() == [
        [False] * 7,
        [True, *[False] * 6],
        [False] * 7,
    ]
    assert batch.read_mask[1].tolist() == [True, False, *[True] * 3, False, False]


def test_a_constant_group_is_left_out_but_for_its_observations(tokenizer):
    _, episode, _ = with_tool(tokenizer, WITH_BOTH)
    failed = replace(episode, verdict=None, reward=None)
    groups = [[episode, episode], [failed, episode]]

    def rows(objective: ObjectiveConfig | None) -> TrainingRows:
        return training_rows(
            groups,
            lambda each: float(each.reward),
            base="grpo",
            baseline="split",
            objective=objective,
        )

    assert rows(None).rows == []
    assert rows(None).counts == {"groups/partial": 1, "groups/constant": 1, "rows": 0}
    assert rows(ObjectiveConfig()).counts == rows(None).counts
    made = rows(echo("tool", "agent"))
    assert made.counts == {**rows(None).counts, "rows": 2, "rows/only_observed": 2}
    for each in made.rows:
        assert each.is_only_observed
        assert (each.advantage, each.group) == (0.0, 0)
        assert not each.policy_mask.any()
        assert not each.agent_mask.any()
        assert each.observation_mask.sum() == 6


def config(**changes) -> TrainConfig:
    defaults = {
        "independence": "mixed",
        "group_size": 4,
        "groups_per_step": 1,
        "num_steps": 10,
        "lr": 1e-2,
    }
    return TrainConfig(**{**defaults, **changes})


@pytest.mark.parametrize(
    ("mode", "share", "step", "expected"),
    [
        ("mixed", 0.5, 0, [True, True, False, False]),
        ("mixed", 0.5, 9, [False] * 4),
        ("internalised", 0.25, 0, [True, False, False, False]),
        ("prompt_switch", 0.5, 9, [True] * 4),
        ("accept_anneal", 0.5, 9, [True] * 4),
        ("prompt_switch", 0.0, 0, [False] * 4),
    ],
)
def test_who_may_consult(mode, share, step, expected):
    assert aided_flags(config(independence=mode).rollouts, share, step) == expected


def test_nobody_consults_where_nobody_answers():
    alone = build_scenario("toy", "none")
    helped = build_scenario("toy")
    assert aided_share(config().rollouts, alone) == 0.0
    assert aided_share(config().rollouts, helped) == 0.5
    assert aided_share(config(aid="share:0.25").rollouts, helped) == 0.25
    assert aided_share(config(aid="all_wrong").rollouts, helped) == 0.5


def test_annealing_falls_from_one_to_zero_over_the_last_part():
    values = [
        round(anneal(config(anneal_from=0.5).rollouts, step), 3) for step in range(10)
    ]
    assert values == [1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


def test_a_group_with_a_failed_episode_is_left_out_whole(scenario, tokenizer):
    import dataclasses

    episode, _ = solved(scenario, tokenizer)
    wrong = spoken(scenario, tokenizer, ["\\boxed{1}"], index=0, aided=False)
    failed = dataclasses.replace(wrong, reward=None)
    whole, partial = [episode, wrong, wrong, wrong], [episode, wrong, wrong, failed]
    made = training_rows(
        [whole, partial], lambda e: float(e.correct), base="grpo", baseline="split"
    )
    assert len(made.rows) == 4
    assert made.counts == {"groups/partial": 1, "groups/constant": 0, "rows": 4}
    made = training_rows(
        [[wrong] * 4], lambda e: float(e.correct), base="grpo", baseline="split"
    )
    assert made.rows == []
    assert made.counts["groups/constant"] == 1


def test_episodes_that_were_cut_off_are_masked_on_request(scenario, tokenizer):
    right, _ = solved(scenario, tokenizer)
    wrong = spoken(scenario, tokenizer, ["\\boxed{1}"], index=0, aided=False)
    cut = replace(wrong, stop_reason=StopReason.MAX_SAMPLED_TOKENS)

    def made(group: list[Episode], mask_truncated: bool) -> TrainingRows:
        return training_rows(
            [group],
            lambda episode: float(episode.correct),
            base="dr_grpo",
            baseline="union",
            mask_truncated=mask_truncated,
        )

    assert len(made([right, wrong, cut, cut], False).rows) == 4
    masked = made([right, wrong, cut, cut], True)
    # In the baseline, a quarter; in no row, and so in no normalizer.
    assert [row.advantage for row in masked.rows] == [0.75, -0.25]
    assert masked.counts == {
        "groups/partial": 0,
        "groups/constant": 0,
        "rows": 2,
        "rows/truncated": 2,
    }
    nothing_left = made([replace(right, stop_reason=cut.stop_reason), cut], True)
    assert nothing_left.rows == []
    assert nothing_left.counts["groups/constant"] == 1
    masks = torch.ones(len(masked.rows), 1, dtype=torch.bool)
    assert policy_normalizer(masks, ObjectiveConfig("grpo")) == 2


def test_a_masked_episode_is_not_imitated(scenario, tokenizer):
    right, _ = solved(scenario, tokenizer)
    cut = replace(right, stop_reason=StopReason.MAX_SAMPLED_TOKENS)
    rows = imitation_rows([[right], [cut]], agent_tokens=True, mask_truncated=True).rows
    assert len(rows) == 1
    assert len(imitation_rows([[right], [cut]], agent_tokens=True).rows) == 2


def test_the_update_does_not_depend_on_the_microbatches(model, tokenizer, scenario):
    import copy

    episode, _ = solved(scenario, tokenizer)
    wrong = spoken(scenario, tokenizer, ["a code \\boxed{1}"], index=0, aided=False)
    rows = [
        episode_row(episode, 1.0),
        episode_row(wrong, -0.5),
        episode_row(episode, 0.25),
    ]
    weights = []
    for budget in (10_000, 1):
        twin = copy.deepcopy(model).double()
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
        settings = config(
            microbatch_tokens=budget, objective=ObjectiveConfig(base="dapo")
        )
        telemetry = update(
            LearnerForward(twin), optimizer, rows, settings.update, pad_token_id=0
        )
        weights.append(torch.cat([p.detach().flatten() for p in twin.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    assert telemetry["agent_tokens"] == 10.0
    assert telemetry["kl_sampler"] > 0
