"""The policy as its own agent, and tokens of agents whose probability is known."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import (
    OWN_POLICY,
    AgentReply,
    AgentRequest,
    Author,
    Completion,
    Episode,
    Message,
    OwnPolicyAgent,
    Span,
    StopReason,
    build_scenario,
    data_folder,
    run_sync,
)
from aipo_learner.learn.rows import collate, episode_row
from aipo_learner.policy.load import load_policy
from aipo_learner.rollout.waves import play_wave
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.samplers.own_policy import lend_voice

RULES = {"max_context_tokens": 900, "consult_budget": 3}


@pytest.fixture(scope="module")
def tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy that ships: it knows how to consult."""
    model, tokenizer = load_policy(str(data_folder("tiny_policy")))
    return model.eval(), tokenizer


def rollouts(tiny, agents="self:max_tokens=6", **pool) -> list[Episode]:
    scenario = build_scenario("toy", agents, rules=RULES, pool=pool, seed=5)
    sampler = HFSampler(*tiny)
    sessions = [
        scenario.session(scenario.source.task("train", i), aided=True, key=(9, 0, i, 0))
        for i in range(16)
    ]
    return asyncio.run(play_wave(scenario, sessions, sampler))


def test_its_words_are_an_agents_and_their_probabilities_are_exact(tiny):
    model, tokenizer = tiny
    episodes = rollouts(tiny)
    answered = [
        (e, c)
        for e in episodes
        for c in e.consults
        if (c.status, c.kind) == ("answered", "knowledge")
    ]
    assert len(answered) >= 4
    prompts, chat, num_exact = OwnPolicyAgent()._prompts, ChatFormat(tokenizer), 0
    for episode, consult in answered:
        tokens = episode.tokens
        mine = (tokens.call_id == consult.call_id) & tokens.agent_mask
        assert (tokens.author[mine] == Author.AGENT).all()
        assert consult.agent_id.startswith("knowledge/self#")
        if np.isnan(tokens.behaviour_logprobs[mine]).any():
            continue  # it wrote a token that is no text
        said = tokens.token_ids[mine].tolist()
        assert tokenizer.decode(said) == consult.reply
        system, user = prompts[consult.kind], f"Question:\n{consult.query}"
        asked = [
            Message("system", (Span(system, Author.PROMPT),)),
            Message("user", (Span(user, Author.PROMPT),)),
        ]
        before = [token_id for ids, _ in chat.prompt(asked) for token_id in ids]
        with torch.no_grad():
            logits = model(torch.tensor([before + said])).logits[
                0, len(before) - 1 : -1
            ]
        expected = torch.log_softmax(logits.float(), -1).gather(
            -1, torch.tensor(said)[:, None]
        )[:, 0]
        assert np.allclose(tokens.behaviour_logprobs[mine], expected.numpy(), atol=2e-4)
        num_exact += 1
    assert num_exact >= 2
    batch = collate(
        [episode_row(episode, 1.0) for episode in episodes], tokenizer.pad_token_id
    )
    assert (~batch.agent_logprobs.isnan() & batch.agent_mask).sum() >= 5
    assert batch.agent_logprobs[~batch.agent_mask].isnan().all()


def test_a_run_is_repeatable_and_no_episode_waits_for_another(tiny):
    first = rollouts(tiny)
    assert rollouts(tiny) == first
    assert {c.status for e in rollouts(tiny, concurrency=2) for c in e.consults} >= {
        "answered"
    }
    mixed = rollouts(tiny, {"type": "mix", "agents": ["self:max_tokens=6", "scripted"]})
    assert {
        c.agent_id.partition("#")[0] for e in mixed for c in e.consults if c.reply
    } == {
        "self",
        "scripted",
    }


def test_an_environment_alone_has_no_policy():
    with pytest.raises(
        Exception, match="agent 'self': an environment alone has no policy"
    ):
        run_sync(OwnPolicyAgent().reply(AgentRequest(kind="reason", query="q")))


class Sampled:
    """Replies with given tokens."""

    agent_id = "sampled"

    def __init__(self, text: str, token_ids: list[int]) -> None:
        logprobs = [-0.5 * n for n in range(len(token_ids))]
        self.said = AgentReply(
            text=text, token_ids=tuple(token_ids), logprobs=tuple(logprobs)
        )

    async def reply(self, request: AgentRequest) -> AgentReply:
        return self.said


def record(tokenizer, agent: Sampled) -> tuple[list[int], list[float]]:
    """Return tokens and log-probabilities of a reply in the record of an episode that
    got it.
    """
    scenario = build_scenario("toy", agent, rules=RULES)
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    chat = ChatFormat(tokenizer)
    for ids, span in chat.prompt(session.open()):
        session.show([(ids, span)])

    message = run_sync(
        session.advance(Completion("<knowledge>zelo</knowledge>", (1, 2), (-1.0, -1.0)))
    )
    for ids, span in chat.suffix(message, ended=False):
        session.show([(ids, span)])
    session.abort(StopReason.CANCELLED)
    episode = session.episode()
    assert Episode.from_dict(episode.to_dict()) == episode
    mine = episode.tokens.agent_mask
    return (
        episode.tokens.token_ids[mine].tolist(),
        episode.tokens.behaviour_logprobs[mine].tolist(),
    )


def test_tokens_enter_the_record_as_they_were_sampled(tokenizer):
    whole = tokenizer.encode("zelo=#1#2;", add_special_tokens=False)
    pieces = [
        i for c in "zelo=#1#2;" for i in tokenizer.encode(c, add_special_tokens=False)
    ]
    assert pieces != whole  # another way to write the same
    assert record(tokenizer, Sampled("zelo=#1#2;", pieces)) == (
        pieces,
        [-0.5 * n for n in range(len(pieces))],
    )
    end = tokenizer.eos_token_id
    assert record(tokenizer, Sampled("zelo=#1#2;", [*pieces, end]))[0] == pieces


@pytest.mark.parametrize("fault", ["text", "special", "beyond", "changed"])
def test_tokens_that_are_not_the_text_do_not(tokenizer, fault: str):
    text = "zelo"
    ids = tokenizer.encode(text, add_special_tokens=False)
    special = tokenizer.eos_token_id
    said = {
        "text": Sampled(text, tokenizer.encode("#", add_special_tokens=False)),
        "special": Sampled(tokenizer.decode([special, *ids]), [special, *ids]),
        "beyond": Sampled(text, [2**31 - 1]),
        "changed": Sampled(
            "</reply>", tokenizer.encode("</reply>", add_special_tokens=False)
        ),
    }[fault]
    token_ids, logprobs = record(tokenizer, said)
    assert special not in token_ids
    assert np.isnan(logprobs).all()
    if fault != "changed":
        assert tokenizer.decode(token_ids) == said.said.text


def test_a_consultation_that_is_cancelled_before_it_speaks_does_not_silence_the_next(
    tiny,
):
    async def second() -> Sequence[Completion]:
        lend_voice(HFSampler(*tiny))
        speak, asked = (
            OWN_POLICY.get(),
            [[Message("user", (Span("2+2", Author.PROMPT),))]],
        )
        first = asyncio.create_task(speak([(1,)], asked, 6))
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.wait_for(speak([(2,)], asked, 6), 60)

    [said] = asyncio.run(second())
    assert 1 <= len(said.token_ids) <= 6
