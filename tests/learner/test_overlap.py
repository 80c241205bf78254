"""Sampling during the update, by an engine whose weights are its own: order, versions,
resuming, faults.
"""

import asyncio
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import aipo_learner.build as build_module
import aipo_learner.training as train_module
from aipo_env import Environment, Episode, PolicyError, Terminated, read_episodes
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.samplers.vllm.engine import Sampled
from aipo_learner.samplers.vllm.sampler import VLLMSampler
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

NUM_STEPS = 4


class FolderEngine:
    """Samples with the weights in the folder that it was handed, one request after
    another.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer, self.events, self.served = (
            tokenizer,
            list[str](),
            threading.Semaphore(0),
        )
        self.num_running, self.is_held, self.fault = 0, False, ""

    async def start(self, folder: Path) -> None:
        await self.reload(folder)

    async def reload(self, folder: Path) -> None:
        assert self.num_running == 0
        self.events.append("sync")
        self.turn = asyncio.Lock()
        # Written untied, which transformers reads from one file only.
        model = AutoModelForCausalLM.from_pretrained(folder, tie_word_embeddings=True)
        self.sampler = HFSampler(model.eval(), self.tokenizer)

    async def generate(
        self, token_ids: Sequence[int], sampling: Mapping[str, Any]
    ) -> Sampled:
        self.num_running += 1
        try:
            async with self.turn:
                while self.is_held:
                    await asyncio.sleep(0.01)
                if self.fault:
                    raise PolicyError(self.fault)
                conversation = self.sampler.voice((sampling["seed"],))
                conversation.token_ids += token_ids
                done = await conversation.complete(
                    sampling["stop"], sampling["max_tokens"]
                )
                conversation.close()
                self.events.append("turn")
                self.served.release()
                return (
                    list(done.token_ids),
                    list(done.logprobs),
                    done.finish_reason == "length",
                )
        finally:
            self.num_running -= 1

    async def close(self) -> None:
        self.events.append("closed")


@pytest.fixture
def engine(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> FolderEngine:
    made = FolderEngine(tokenizer)

    def build(**fixed: Any) -> VLLMSampler:
        return VLLMSampler(engine=made, **fixed)

    monkeypatch.setitem(build_module.SAMPLERS, "folder", build)
    return made


def config(out: Path) -> TrainConfig:
    return TrainConfig(
        out=out,
        sampler="folder",
        num_steps=NUM_STEPS,
        groups_per_step=1,
        group_size=4,
        checkpoint_every=1,
        keep_checkpoints=NUM_STEPS + 1,
        episodes_every=1,
        num_threads=1,
        lr=1e-3,
        warmup_steps=0,
        loggers="",
        source=EpisodeSource(max_staleness=1),
        environment=Environment(rules={"max_policy_tokens": 64}),
        anneal_from=1.0,
    )


def around_updates(
    monkeypatch: pytest.MonkeyPatch, engine: FolderEngine, during: Any
) -> None:
    """Have `during` called, with the number of the update, while an update is made."""
    real, numbers = train_module.update, iter(range(100))

    def noted(*arguments: Any, **settings: Any) -> Any:
        number = next(numbers)
        engine.events.append(f"update {number}")
        during(number)
        telemetry = real(*arguments, **settings)
        engine.events.append("updated")
        return telemetry

    monkeypatch.setattr(train_module, "update", noted)


def outcome(out: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    rows = [
        {k: v for k, v in row.items() if "seconds" not in k}
        for row in read_metrics(out / "metrics.jsonl")
    ]
    return rows, load_file(
        out / "checkpoints" / f"step-{NUM_STEPS:06d}" / "policy" / "model.safetensors"
    )


def logprob_gap(episode: Episode, policy: Path) -> float:
    """Return how far the log-probabilities of the policy's tokens are from those of a
    checkpoint's.
    """
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    token_ids = torch.tensor(episode.tokens.token_ids.astype("int64"))
    with torch.no_grad():
        scores = model(token_ids[None]).logits[0, :-1].log_softmax(-1)
    own = torch.tensor(episode.tokens.policy_mask[1:])
    gaps = scores.gather(1, token_ids[1:, None])[:, 0] - torch.tensor(
        episode.tokens.behaviour_logprobs[1:]
    )
    return gaps[own].abs().max().item()


def test_the_next_batch_is_sampled_during_the_update_by_the_weights_it_names(
    engine: FolderEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def wait_for_a_turn(number: int) -> None:
        while engine.served.acquire(blocking=False):
            pass
        if number < NUM_STEPS - 1:
            assert engine.served.acquire(timeout=120), (
                "nothing was sampled during the update"
            )

    around_updates(monkeypatch, engine, wait_for_a_turn)
    train(config(tmp_path / "run"), Console(quiet=True))
    names = [event for event in engine.events if event not in ("turn", "closed")]
    assert names == [
        name for n in range(NUM_STEPS) for name in ("sync", f"update {n}", "updated")
    ]
    begun = [engine.events.index(f"update {n}") for n in range(NUM_STEPS)]
    assert [engine.events[place + 1] for place in begun] == ["turn"] * 3 + ["updated"]
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(row["staleness"], row["staleness_max"]) for row in rows] == [
        (0, 0),
        (1, 1),
        (1, 1),
        (1, 1),
    ]
    policies = [
        Path(build_module.policy_folder("tiny")),
        *(
            tmp_path / "run" / "checkpoints" / f"step-{n:06d}" / "policy"
            for n in range(1, NUM_STEPS)
        ),
    ]
    for step, version in enumerate([0, 0, 1, 2], 1):
        episodes = list(
            read_episodes(tmp_path / "run" / "episodes" / f"step-{step:06d}.jsonl")
        )
        assert {episode.policy_version for episode in episodes} == {version}
        gaps = [logprob_gap(episodes[-1], policy) for policy in policies]
        assert [gap < 1e-4 for gap in gaps] == [n == version for n in range(NUM_STEPS)]


def test_a_resumed_run_equals_an_uninterrupted_one(
    engine: FolderEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    train(config(tmp_path / "whole"), Console(quiet=True))

    def stop(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        around_updates(patched, engine, stop)
        with pytest.raises(KeyboardInterrupt):
            train(config(tmp_path / "cut"), Console(quiet=True))
    assert engine.num_running == 0
    assert (
        len(
            list(
                read_episodes(
                    tmp_path / "cut" / "checkpoints" / "step-000002" / "queue.jsonl"
                )
            )
        )
        == 4
    )
    train(config(tmp_path / "cut"), Console(quiet=True))
    (rows, weights), (again, others) = (
        outcome(tmp_path / "whole"),
        outcome(tmp_path / "cut"),
    )
    assert rows == again
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_sigterm_gives_up_what_is_sampled_ahead_and_saves_the_step(
    engine: FolderEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def terminate(number: int) -> None:
        if number == 1:
            engine.is_held = True
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        around_updates(patched, engine, terminate)
        with pytest.raises(Terminated, match="stopped after step 2 of 4"):
            train(config(tmp_path / "run"), Console(quiet=True))
    assert engine.num_running == 0
    assert "ahead" not in [thread.name for thread in threading.enumerate()]
    assert not (
        tmp_path / "run" / "checkpoints" / "step-000002" / "queue.jsonl"
    ).exists()
    engine.is_held = False
    train(config(tmp_path / "run"), Console(quiet=True))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["staleness"] for row in rows] == [0, 1, 0, 1]


def test_a_fault_while_sampling_ahead_ends_the_run(
    engine: FolderEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def fail(number: int) -> None:
        engine.fault = "the engine refuses" if number == 1 else ""

    around_updates(monkeypatch, engine, fail)
    with pytest.raises(PolicyError, match="the engine refuses"):
        train(config(tmp_path / "run"), Console(quiet=True))
    assert engine.num_running == 0
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [
        "step-000001"
    ]
