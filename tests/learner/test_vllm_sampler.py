"""The vLLM sampler without vLLM: specs, the folder it hands over, and an engine that
dies.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aipo_env import ConfigError, PolicyError
from aipo_learner.build import build_sampler
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.samplers.vllm.engine import EngineFault, Sampled
from aipo_learner.samplers.vllm.sampler import VLLMSampler
from aipo_learner.samplers.vllm.weights import export_weights
from aipo_learner.samplers.weight_sync import sync_weights


class DyingEngine:
    """Answers with the seed it was given, and dies under every `each`-th request."""

    def __init__(self, each: int) -> None:
        self.each, self.num_asked, self.is_alive = each, 0, False
        self.folders: list[Path] = []

    async def start(self, folder: Path) -> None:
        assert (folder / "config.json").is_file()
        self.folders.append(folder)
        await asyncio.sleep(0.01)
        self.is_alive = True

    async def generate(
        self, token_ids: Sequence[int], sampling: Mapping[str, Any]
    ) -> Sampled:
        await asyncio.sleep(0)
        self.num_asked += 1
        self.is_alive = self.is_alive and self.num_asked % self.each != 0
        if not self.is_alive:
            raise EngineFault("gone")
        return [sampling["seed"]], [-0.5], False

    async def reload(self, folder: Path) -> None:
        raise EngineFault("gone")

    async def close(self) -> None:
        self.is_alive = False


def draw(sampler: VLLMSampler, count: int) -> list[Sampled]:
    async def together() -> list[Sampled]:
        return await asyncio.gather(
            *(sampler.sample([1], seed=n, max_tokens=4) for n in range(count))
        )

    return asyncio.run(together())


@pytest.mark.parametrize("each", [7, 40])
def test_every_turn_is_answered_once_however_the_engine_dies(
    model, tokenizer, each: int
):
    engine = DyingEngine(each)
    with closing(VLLMSampler(model, tokenizer, engine)) as sampler:
        sampler.take_weights()
        if each == 40:
            assert [ids for ids, _, _ in draw(sampler, 60)] == [[n] for n in range(60)]
            assert (
                sampler.num_starts
                == len(engine.folders)
                == 2 + (engine.num_asked >= 80)
            )
            sampler.take_weights()
            assert sampler.num_starts == len(engine.folders)
        else:
            with pytest.raises(
                PolicyError, match="vLLM died 4 times under one turn: gone"
            ):
                draw(sampler, 60)
    assert not engine.is_alive
    assert not engine.folders[0].exists()


def test_a_handed_over_folder_is_the_model_with_a_head_of_its_own(
    model, tokenizer, tmp_path: Path
):
    assert model.config.tie_word_embeddings
    export_weights(model, tokenizer, tmp_path / "policy", untie=True)
    config = json.loads((tmp_path / "policy" / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["model_type"]) == (False, "qwen3")
    head = load_file(tmp_path / "policy" / "lm_head.safetensors")
    assert list(head) == ["lm_head.weight"]
    assert torch.equal(head["lm_head.weight"], model.model.embed_tokens.weight)
    assert "model.embed_tokens.weight" in load_file(
        tmp_path / "policy" / "model.safetensors"
    )
    assert model.config.tie_word_embeddings


def test_without_a_gpu_auto_is_the_transformers_sampler_which_needs_no_sync(
    model, tokenizer
):
    sampler = build_sampler("auto", model, tokenizer)
    assert isinstance(sampler, HFSampler)
    assert sync_weights(sampler, model, 0.5) == {}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vllm", "sampler vllm cannot import vLLM"),
        ("vllm-serve:command=no-such-vllm", "there is no program 'no-such-vllm'"),
        (
            {"type": "vllm", "url": "http://h:8000", "max_model_len": 9},
            "options .*max_model_len.* for a server of ours",
        ),
        (
            "vllm:http://127.0.0.1:9,weights=nvlink",
            "weights='nvlink' must be 'file', 'ipc' or 'nccl'",
        ),
        ("sglang", "there is no 'sglang'. Valid: transformers, vllm, vllm-serve"),
    ],
)
def test_what_a_spec_cannot_have_is_told(
    model, tokenizer, monkeypatch: pytest.MonkeyPatch, spec: Any, message: str
):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=message):
        build_sampler(spec, model, tokenizer)


def test_a_server_that_is_not_there_is_told(model, tokenizer):
    spec = "vllm:http://127.0.0.1:9,startup_s=0.1"
    sampler = build_sampler(spec, model, tokenizer)
    with (
        closing(sampler),
        pytest.raises(
            PolicyError, match=r"no vLLM serves at http://127.0.0.1:9 within 0.1 s"
        ),
    ):
        sync_weights(sampler, model, 0.5)
