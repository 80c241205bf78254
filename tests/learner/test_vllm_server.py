"""A real `vllm serve` on CPU: ids in, ids and the learner's probabilities out, new
weights, deaths, agents.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from aipo_env import (
    Environment,
    Episode,
    HermesCodec,
    PolicyError,
    Scenario,
    build_scenario,
)
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import collate, episode_row
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.policy.teacher import ForwardTeacher, TeacherContext
from aipo_learner.rollout.waves import play_wave
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.vllm.sampler import VLLMSampler, served_sampler
from aipo_learner.samplers.vllm.teacher import VLLMTeacher
from aipo_learner.samplers.weight_sync import sampler_gap, sync_weights
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.slow

CALL = (
    '<tool_call>\n{"name": "consult", "arguments": {"kind": "knowledge", "query":'
    ' "mele"}}\n</tool_call>'
)


@pytest.fixture(scope="module")
def sampler(vllm_python: Path) -> Iterator[VLLMSampler]:
    """The shipped policy behind a server of ours, with room for prompts that are
    spelled in bytes.
    """
    model, tokenizer = load_policy(policy_folder("tiny"))
    model.config.max_position_embeddings = 4096
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        sampler = served_sampler(
            model.eval(),
            tokenizer,
            command=str(vllm_python.with_name("vllm")),
            enforce_eager=True,
            max_num_batched_tokens=8192,
            enable_auto_tool_choice=True,
            tool_call_parser="hermes",
        )
        with closing(sampler):
            yield sampler


@pytest.fixture(autouse=True)
def shipped_weights(sampler: VLLMSampler) -> Iterator[None]:
    """Begin with the shipped policy's weights in the learner and in the server."""
    kept = {name: value.clone() for name, value in sampler.model.state_dict().items()}
    sync_weights(sampler, sampler.model, 1e-3)
    yield
    sampler.model.load_state_dict(kept)


def shaken(sampler: VLLMSampler) -> None:
    """Move the learner's weights far away."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in sampler.model.parameters():
            weight += 0.1 * torch.randn_like(weight)


def episodes_of(sampler: VLLMSampler, scenario: Scenario, count: int) -> list[Episode]:
    sessions = [
        scenario.session(scenario.source.task("train", i), aided=True, key=(9, 0, i, 0))
        for i in range(count)
    ]
    return asyncio.run(play_wave(scenario, sessions, sampler))


def ids_of(episodes: list[Episode]) -> list[list[int]]:
    return [episode.tokens.token_ids.tolist() for episode in episodes]


def test_turns_are_ids_with_the_learners_probabilities(sampler: VLLMSampler):
    episodes = episodes_of(sampler, build_scenario("toy", seed=5), 12)
    assert max(len(episode.turns) for episode in episodes) >= 2
    batch = collate(
        [episode_row(episode, 1.0) for episode in episodes],
        sampler.tokenizer.pad_token_id,
    )
    with torch.no_grad():
        learner, _ = microbatch_logprobs(LearnerForward(sampler.model), batch)
    own = batch.policy_mask
    assert own.sum() > 40
    assert torch.allclose(learner[own], batch.sampler_logprobs[own], atol=1e-4)
    consulting = [turn for episode in episodes for turn in episode.turns[:-1]]
    assert all(
        turn.completion.endswith(("</knowledge>", "</verify>", "</reason>"))
        for turn in consulting
    )
    final = [
        sampler.tokenizer.decode(episode.tokens.token_ids[-1:]) for episode in episodes
    ]
    assert set(final) == {"<|end|>"}


def test_a_server_scores_what_it_did_not_write_as_the_learner_does(
    sampler: VLLMSampler,
):
    episodes = episodes_of(sampler, build_scenario("toy", seed=5), 6)
    rows = [episode_row(episode, 1.0) for episode in episodes]
    contexts = [TeacherContext(row.token_ids, row.policy_mask) for row in rows]
    with closing(VLLMTeacher(sampler.tokenizer, sampler.engine.url)) as teacher:
        assert teacher.max_tokens == 4095
        [scores] = teacher.score([contexts])
    [expected] = ForwardTeacher(LearnerForward(sampler.model)).score([contexts])
    for made, of_learner in zip(scores, expected, strict=True):
        np.testing.assert_allclose(made, of_learner, atol=1e-4)


def test_equal_keys_give_equal_episodes(sampler: VLLMSampler):
    shaken(sampler)
    sync_weights(sampler, sampler.model, 1e-3)
    scenario = build_scenario("toy", seed=5, rules={"max_policy_tokens": 12})
    many, few = episodes_of(sampler, scenario, 9), episodes_of(sampler, scenario, 3)
    assert ids_of(few) == ids_of(many)[:3]
    assert len({tuple(ids[-12:]) for ids in ids_of(many)}) > 5
    assert max(int(episode.tokens.policy_mask.sum()) for episode in many) == 12


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_new_weights_replace_all_the_old_ones(
    sampler: VLLMSampler, monkeypatch: pytest.MonkeyPatch, temperature: float
):
    monkeypatch.setattr(sampler, "temperature", temperature)
    shaken(sampler)
    assert sampler_gap(sampler, sampler.model) > 0.5
    assert 0 < sync_weights(sampler, sampler.model, 0.5)["kl_sampler/max_gap"] < 1e-3


def test_a_server_that_keeps_its_weights_stops_the_run(
    sampler: VLLMSampler, monkeypatch: pytest.MonkeyPatch
):
    async def nothing(folder: Path) -> None:
        return None

    shaken(sampler)
    monkeypatch.setattr(sampler.engine, "reload", nothing)
    with pytest.raises(
        PolicyError, match="from the learner's; max_sampler_gap allows 0.5"
    ):
        sync_weights(sampler, sampler.model, 0.5)


def test_what_a_server_refuses_is_told(sampler: VLLMSampler):
    with pytest.raises(PolicyError, match=r"/v1/completions refuses: .*max_model_len"):
        asyncio.run(sampler.sample([5, 6], seed=1, max_tokens=5000))


def test_a_killed_server_is_replaced_and_its_turns_are_sampled_again(
    sampler: VLLMSampler,
):
    shaken(sampler)
    sync_weights(sampler, sampler.model, 1e-3)
    scenario = build_scenario("toy", seed=5, rules={"max_policy_tokens": 150})
    calm, starts = episodes_of(sampler, scenario, 48), sampler.num_starts
    killer = threading.Timer(
        0.4, os.kill, (sampler.engine._process.pid, signal.SIGKILL)
    )
    killer.start()
    episodes = episodes_of(sampler, scenario, 48)
    killer.join()
    assert sampler.num_starts == starts + 1
    assert [episode.task.id for episode in episodes] == [
        episode.task.id for episode in calm
    ]
    # Rounding depends on what shares a batch, and may turn a draw.
    assert sum(map(list.__eq__, ids_of(episodes), ids_of(calm))) >= 46
    assert sampler_gap(sampler, sampler.model) < 1e-3


def test_a_chat_model_behind_the_server_is_consulted_in_a_training_step(
    sampler: VLLMSampler, tmp_path: Path
):
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for kind in ("knowledge", "reason", "verify"):
        (prompts / f"{kind}.md").write_text("Say something.")
    url = sampler.engine.url
    config = TrainConfig(
        out=tmp_path / "run",
        sampler=f"vllm:{url}",
        environment=Environment(
            agents={
                "type": "openai",
                "model": "policy",
                "url": f"{url}/v1",
                "prompts": str(prompts),
                "max_tokens": 16,
            }
        ),
        num_steps=2,
        groups_per_step=2,
        group_size=4,
        num_threads=1,
        lr=1e-3,
        episodes_every=1,
    )
    train(config, Console(quiet=True))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 < row["kl_sampler/max_gap"] < 1e-3 for row in rows)
    assert all(abs(row["kl_sampler"]) < 1e-3 for row in rows if "kl_sampler" in row)
    assert any(row["reply_tokens"] > 1 for row in rows if "reply_tokens" in row)


def test_the_servers_tool_calls_are_those_of_the_hermes_codec(
    sampler: VLLMSampler, monkeypatch: pytest.MonkeyPatch
):
    scenario = build_scenario(
        "toy", codec="hermes", seed=5, rules={"max_policy_tokens": 120}
    )
    session = scenario.session(
        scenario.source.task("train", 0), aided=True, key=(9, 0, 0, 0)
    )
    chat = ChatFormat(sampler.tokenizer)
    asked = [{"role": "user", "content": "Ask."}]
    plain = sampler.tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_dict=False
    )
    prompts = [
        [i for piece, _ in chat.prompt(session.open()) for i in piece],
        list(plain),
    ]
    teach(
        sampler,
        prompts,
        sampler.tokenizer.encode(CALL + "<|end|>", add_special_tokens=False),
    )
    monkeypatch.setattr(sampler, "temperature", 0.1)
    sync_weights(sampler, sampler.model, 1e-3)

    [episode] = episodes_of(sampler, scenario, 1)
    assert episode.turns[0].completion == CALL
    assert (episode.consults[0].kind, episode.consults[0].query) == (
        "knowledge",
        "mele",
    )

    client = openai.OpenAI(base_url=f"{sampler.engine.url}/v1", api_key="none")
    schema = {
        "type": "function",
        "function": {"name": "consult", "parameters": {"type": "object"}},
    }
    with client:
        message = client.chat.completions.create(
            model="policy", messages=asked, tools=[schema], temperature=0
        )
    [call] = message.choices[0].message.tool_calls
    [ours] = HermesCodec().parse(CALL).calls
    assert (call.function.name, call.function.arguments) == (
        "consult",
        '{"kind": "knowledge", "query": "mele"}',
    )
    assert (ours.kind, ours.query) == ("knowledge", "mele")


def teach(sampler: VLLMSampler, prompts: list[list[int]], answer: list[int]) -> None:
    """Have the model write `answer` after each of `prompts`, nearly always."""
    optimizer = torch.optim.Adam(sampler.model.parameters(), lr=2e-3)
    for step in range(200):
        prompt = prompts[step % len(prompts)]
        ids = torch.tensor([prompt + answer])
        logits = sampler.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.03
