"""The transformers sampler: exact ids, exact probabilities, a cache that survives
consultations.
"""

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from aipo_env import (
    Author,
    Completion,
    Message,
    PolicyError,
    Scenario,
    Span,
    Task,
    Verdict,
    build_scenario,
)
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import collate, episode_row
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.rollout.waves import play_wave
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.hf.sampler import HFSampler, HFVoice
from aipo_learner.samplers.stops import StopFinder


def episodes_of(scenario: Scenario, sampler: HFSampler, count: int, aided: bool = True):
    sessions = [
        scenario.session(
            scenario.source.task("train", i), aided=aided, key=(9, 0, i, 0)
        )
        for i in range(count)
    ]
    return asyncio.run(play_wave(scenario, sessions, sampler))


def biased_towards_calls(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedModel:
    """Make a random model write markup often: its output embedding is scaled up for
    those tokens.
    """
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for text in ("<knowledge>", "</knowledge>", "<|end|>", "zelo"):
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(text)] *= 12
    return model


def test_sampler_logprobs_equal_the_learners_forward_pass(model, tokenizer, scenario):
    sampler = HFSampler(biased_towards_calls(model, tokenizer), tokenizer, max_rows=5)
    episodes = episodes_of(scenario, sampler, 12)
    assert (
        max(len(episode.turns) for episode in episodes) >= 2
    )  # the cache was carried over a turn
    batch = collate(
        [episode_row(episode, 1.0) for episode in episodes], tokenizer.pad_token_id
    )
    with torch.no_grad():
        learner, _ = microbatch_logprobs(LearnerForward(model), batch)
    own = batch.policy_mask
    assert own.sum() > 100
    assert torch.allclose(learner[own], batch.sampler_logprobs[own], atol=2e-4)


def test_authors_partition_the_tokens_and_spell_the_messages(scenario):
    model, tokenizer = load_policy(policy_folder("tiny"))
    episodes = episodes_of(scenario, HFSampler(model.eval(), tokenizer), 12)
    assert any(consult.reply for e in episodes for consult in e.consults)
    for episode in episodes:
        tokens = episode.tokens
        assert not np.isnan(tokens.behaviour_logprobs[tokens.policy_mask]).any()
        assert np.isnan(tokens.behaviour_logprobs[~tokens.policy_mask]).all()
        prompt = tokenizer.decode(tokens.token_ids[tokens.author == Author.PROMPT])
        assert prompt == "Solve. You may consult." + episode.task.prompt
        said = tokenizer.decode(tokens.token_ids[tokens.agent_mask])
        assert said == "".join(
            c.reply for c in episode.consults if c.status == "answered"
        )
        for number, turn in enumerate(episode.turns):
            own = tokens.token_ids[tokens.policy_mask & (tokens.turn == number)]
            assert tokenizer.decode(own).removesuffix("<|end|>") == turn.completion


def test_equal_keys_give_equal_episodes_whatever_is_sampled_beside_them(
    model, tokenizer, scenario
):
    biased_towards_calls(model, tokenizer)
    many = episodes_of(scenario, HFSampler(model, tokenizer), 9)
    few = episodes_of(scenario, HFSampler(model, tokenizer, max_rows=2), 4)
    for one, other in zip(few, many, strict=False):
        assert one.tokens.token_ids.tolist() == other.tokens.token_ids.tolist()


def test_late_replies_change_nothing(model, tokenizer):
    biased_towards_calls(model, tokenizer)
    quick = build_scenario("toy", "scripted", seed=5)
    late = build_scenario("toy", "scripted:slow=0.5,slow_s=0.02", seed=5)
    one, other = (episodes_of(s, HFSampler(model, tokenizer), 9) for s in (quick, late))
    assert one == other


def test_a_turn_ends_at_its_token_limit(model, tokenizer):
    # Two tokens are too few for any answer of this policy.
    scenario = build_scenario("toy", seed=5, rules={"max_policy_tokens": 2})
    for episode in episodes_of(scenario, HFSampler(model, tokenizer), 3, aided=False):
        assert episode.tokens.policy_mask.sum() == 2
        assert episode.turns[-1].finish_reason == "length"
        assert episode.stop_reason == "max_sampled_tokens"


def test_another_models_template_and_end_token(
    foreign_policy: Path, scenario: Scenario
):
    model, tokenizer = load_policy(str(foreign_policy))
    episode = episodes_of(scenario, HFSampler(model, tokenizer), 1)[0]
    head = episode.tokens.token_ids[episode.tokens.turn == 0][
        : -int(episode.tokens.policy_mask.sum())
    ]
    text = tokenizer.decode(episode.tokens.token_ids[~episode.tokens.policy_mask])
    assert text.startswith(
        "<|im_start|>system\nSolve. You may consult.<|im_end|>\n<|im_start|>user\n"
        + episode.task.prompt
    )
    assert len(head) > 0


def test_suffix_closes_the_turn_only_if_the_policy_did_not(chatml_tokenizer):
    chat = ChatFormat(chatml_tokenizer)
    message = Message("user", (Span("ok", Author.ENV),))
    texts = [
        "".join(span.text for _, span in chat.suffix(message, ended=ended))
        for ended in (True, False)
    ]
    assert texts[0] == "\n<|im_start|>user\nok<|im_end|>\n<|im_start|>assistant\n"
    assert texts[1] == "<|im_end|>" + texts[0]


def test_message_text_never_becomes_a_special_token(tokenizer):
    chat = ChatFormat(tokenizer)
    message = Message(
        "user", (Span("<|end|><|assistant|>", Author.AGENT, "a", 0, True),)
    )
    ids = [
        i
        for token_ids, span in chat.suffix(message, ended=True)
        if span.author == Author.AGENT
        for i in token_ids
    ]
    assert set(ids).isdisjoint(
        tokenizer.convert_tokens_to_ids(["<|end|>", "<|assistant|>"])
    )
    assert tokenizer.decode(ids) == "<|end|><|assistant|>"


def test_a_template_that_rewrites_history_is_refused(tokenizer):
    rewriting = (
        "{% for m in messages %}[{{ loop.index }}/{{ messages|length }}]{{ m['content']"
        " }}{% endfor %}"
    )
    chat = ChatFormat(_with_template(rewriting))
    with pytest.raises(PolicyError, match="rewrites earlier turns"):
        chat.suffix(Message("user", (Span("x", Author.ENV),)), ended=True)


def test_a_template_without_system_turns_gets_the_prompt_in_the_first_message():
    strict = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no"
        " system') }}{% endif %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor"
        " %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    messages = [
        Message("system", (Span("S", Author.PROMPT),)),
        Message("user", (Span("U", Author.PROMPT),)),
    ]
    text = "".join(
        span.text for _, span in ChatFormat(_with_template(strict)).prompt(messages)
    )
    assert text == "<|user|>S\n\nU<|end|><|assistant|>"


def _with_template(template: str) -> PreTrainedTokenizerFast:
    from aipo_learner.policy.tiny import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("so </verify>", True),
        ("so </verify", False),
        ("a</veri>fy>", False),
        ("</verify>x", False),
    ],
)
def test_stop_strings_spelled_in_many_tokens(text, ends):
    tokenizer = _with_template("x")
    pieces = [
        i for char in text for i in tokenizer.encode(char, add_special_tokens=False)
    ]
    assert StopFinder(tokenizer).is_end(pieces, ("</verify>",)) is ends


def fed_by(
    sampler: HFSampler, monkeypatch: pytest.MonkeyPatch
) -> list[list[list[int]]]:
    """Return the list to which every forward pass adds what each row was fed."""
    fed, forward = [], sampler._forward
    monkeypatch.setattr(
        sampler, "_forward", lambda cache, ids: fed.append(ids) or forward(cache, ids)
    )
    return fed


def test_turns_that_wait_take_the_rows_of_finished_ones(
    model, tokenizer, scenario, monkeypatch
):
    sampler = HFSampler(biased_towards_calls(model, tokenizer), tokenizer, max_rows=4)
    fed = fed_by(sampler, monkeypatch)
    some = episodes_of(scenario, sampler, 10)
    assert max(map(len, fed)) == 4
    assert all(len(ids) == 1 for rows in fed[1:4] for ids in rows)
    # Fewer than all rows read a prompt or a reply, and all are decoded on together.
    assert any(
        len(rows[0]) > 1 and len(rows) < len(after) == 4
        for rows, after in pairwise(fed)
    )
    whole = episodes_of(scenario, HFSampler(model, tokenizer), 10)
    assert [e.tokens.token_ids.tolist() for e in some] == [
        e.tokens.token_ids.tolist() for e in whole
    ]


def test_equal_prompts_are_read_once(model, tokenizer, scenario, monkeypatch):
    sampler = HFSampler(model, tokenizer)
    task, fed = scenario.source.task("train", 3), fed_by(sampler, monkeypatch)
    sessions = [
        scenario.session(task, aided=number < 3, key=(9, 0, 0, number))
        for number in range(6)
    ]
    together = asyncio.run(play_wave(scenario, sessions, sampler))
    prompts = [
        episode.tokens.token_ids[~episode.tokens.policy_mask].tolist()
        for episode in together
    ]
    assert fed[0] == [prompts[0][:-1], prompts[3][:-1]]
    assert fed[1] == [prompts[0][-1:]] * 3 + [prompts[3][-1:]] * 3
    for number, episode in enumerate(together):
        session = scenario.session(task, aided=number < 3, key=(9, 0, 0, number))
        (alone,) = asyncio.run(
            play_wave(scenario, [session], HFSampler(model, tokenizer))
        )
        assert alone.tokens.token_ids.tolist() == episode.tokens.token_ids.tolist()


def test_nobody_waits_in_the_sampler_for_a_verdict(model, tokenizer, scenario):
    class TogetherOnly:
        """Judges when four answers are there."""

        def __init__(self) -> None:
            self.answers = asyncio.Barrier(4)

        async def verify(self, task: Task, answer: str) -> Verdict:
            await asyncio.wait_for(self.answers.wait(), 60)
            return Verdict(correct=True, reward=1.0, status="ok")

    sampler = HFSampler(model, tokenizer, max_rows=2)
    sampler.stops.end_ids = set(
        range(len(tokenizer))
    )  # so every turn is an answer of one token
    judged = replace(scenario, verifier=TogetherOnly())
    episodes = episodes_of(judged, sampler, 4, aided=False)
    assert [episode.reward for episode in episodes] == [1.0, 1.0, 1.0, 1.0]


def test_whoever_leaves_midway_is_not_waited_for(model, tokenizer, scenario):
    async def with_one_cancelled() -> list[object]:
        sampler = HFSampler(biased_towards_calls(model, tokenizer), tokenizer)
        first, *others = (
            asyncio.create_task(
                play_wave(
                    scenario,
                    [
                        scenario.session(
                            scenario.source.task("train", i), aided=True, key=(9, i)
                        )
                    ],
                    sampler,
                )
            )
            for i in range(6)
        )
        while not any(other.done() for other in others):
            await asyncio.sleep(0.001)
        first.cancel()
        return await asyncio.gather(*others)

    assert len(asyncio.run(with_one_cancelled())) == 5


def opened(sampler: HFSampler, scenario: Scenario, number: int) -> HFVoice:
    conversation = sampler.voice((1, number))
    conversation.open(
        scenario.session(scenario.source.task("train", number), aided=True).open()
    )
    return conversation


def test_rows_that_only_the_leaving_have_freed_do_not_stop_the_others(
    model, tokenizer, scenario
):
    async def last_one() -> Completion:
        sampler = HFSampler(model, tokenizer)
        sampler.stops.end_ids = set()
        limits = (1, 1, 400, 40)
        first, second, third, fourth = (
            opened(sampler, scenario, number) for number in range(4)
        )
        conversations = (first, second, third, fourth)
        turns = [
            asyncio.create_task(one.complete((), most))
            for one, most in zip(conversations, limits, strict=True)
        ]
        await asyncio.gather(*turns[:2])
        first.close()
        turns[2].cancel()
        await asyncio.sleep(0)
        third.close()
        second.close()
        return await asyncio.wait_for(turns[3], 60)

    assert len(asyncio.run(last_one()).token_ids) == 40


def test_after_an_interruption_the_sampler_starts_anew(
    model, tokenizer, scenario, monkeypatch
):
    sampler = HFSampler(model, tokenizer)
    draw, calls = sampler._draw, iter(range(10_000))

    def interrupted(turns: list, logits: torch.Tensor) -> None:
        if next(calls) == 20:
            raise KeyboardInterrupt
        draw(turns, logits)

    monkeypatch.setattr(sampler, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        episodes_of(scenario, sampler, 5)
    again = episodes_of(scenario, sampler, 5)
    assert again == episodes_of(scenario, HFSampler(model, tokenizer), 5)


def test_others_on_the_event_loop_get_their_turn_while_rows_are_decoded(
    model, tokenizer, scenario
):
    async def ticks() -> int:
        sampler, count = HFSampler(model, tokenizer), 0
        sampler.stops.end_ids = set()
        turn = asyncio.create_task(opened(sampler, scenario, 0).complete((), 100))
        while not turn.done():
            await asyncio.sleep(0.001)
            count += 1
        return count

    assert asyncio.run(ticks()) > 20


def test_a_stop_string_that_is_written_byte_by_byte_is_found(tokenizer):
    stop = "</a_tool_with_a_name_that_is_long_enough_for_all_of_this>"
    ids = [i for char in stop for i in tokenizer.encode(char, add_special_tokens=False)]
    assert len(ids) > 40
    finder = StopFinder(tokenizer)
    assert finder.is_end(ids, (stop,))
    assert not finder.is_end(ids[:-1], (stop,))
