"""Two ranks under torchrun, on gloo: the run of one rank, to rounding, and checkpoints
that either resumes.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from aipo_env import AgentReply, AgentRequest, Journal, Outcome, read_episodes
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import Row, collate
from aipo_learner.policy.distributed import gathered, parts, share
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import policy_folder
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

SCRIPT = Path(__file__).parent / "scripts" / "ranks_train.py"
LAUNCH = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(sys.path),
    "OMP_NUM_THREADS": "1",
}


def config(out: Path) -> TrainConfig:
    return TrainConfig(
        out=out,
        num_steps=2,
        groups_per_step=3,
        group_size=3,
        checkpoint_every=1,
        episodes_every=1,
        seed=3,
        num_threads=1,
        lr=1e-3,
        warmup_steps=0,
        updates_per_step=2,
        num_minibatches=2,
        microbatch_tokens=300,
        loggers="",
        objective=ObjectiveConfig(
            kl_coef=0.05,
            agent_rule="floored",
            observation_weight=0.05,
            observation_authors=("env",),
            teacher="self:answer",
            teacher_weight=0.1,
        ),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one` and `two` of so many ranks, and each resumed after its first step by
    the other number of ranks.
    """
    folder = tmp_path_factory.mktemp("ranks")
    train(config(folder / "one"), Console(quiet=True))
    cut_short(folder / "one", folder / "one-two")
    orders = [config(folder / name).to_dict() for name in ("two", "one-two")]
    (folder / "orders.json").write_text(json.dumps(orders))
    done = subprocess.run(
        [*LAUNCH, SCRIPT, folder / "orders.json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    cut_short(folder / "two", folder / "two-one")
    train(config(folder / "two-one"), Console(quiet=True))
    return folder


def cut_short(run: Path, copy: Path) -> None:
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "step-000002")


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(policy_folder(str(out))) / "model.safetensors")


@pytest.mark.parametrize("name", ["two", "one-two", "two-one"])
def test_any_number_of_ranks_makes_the_same_run(runs: Path, name: str):
    alone, others = (
        read_metrics(runs / run / "metrics.jsonl") for run in ("one", name)
    )
    assert [row["step"] for row in others] == [1, 2]
    for author in ("policy", "agent", "observation", "teacher"):
        assert all(row[f"{author}_tokens"] > 0 for row in alone)
    for row, other in zip(alone, others, strict=True):
        names = [name for name in row if "seconds" not in name]
        assert {n: other[n] for n in names} == pytest.approx(
            {n: row[n] for n in names}, rel=1e-3, abs=1e-6
        )
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-5)
    first, second = weights(runs / "one"), weights(runs / name)
    start = weights(Path(policy_folder("tiny")))
    moved = max((first[n] - start[n]).abs().max().item() for n in start)
    gaps = torch.cat([(first[n] - second[n]).abs().flatten() for n in first])
    assert moved > 1e-3
    # Observation tokens that the policy is sure of leave gradients next to nothing to a
    # few weights: these are rounding, and AdamW makes steps of them.
    assert gaps.max() < 1e-4
    assert (gaps > 1e-5).sum() < 10


def test_the_episodes_are_those_of_one_rank(runs: Path):
    for step in (1, 2):
        alone, others = (
            [(e.group_id, [m.content for m in e.messages]) for e in read_episodes(path)]
            for path in (
                runs / run / "episodes" / f"step-00000{step}.jsonl"
                for run in ("one", "two")
            )
        )
        assert alone == others


def test_rank_0_writes_and_every_rank_saves_its_shards(runs: Path):
    checkpoint = runs / "two" / "checkpoints" / "step-000002"
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "optimizer",
        "policy",
        "state.pt",
    ]
    shards = [load_file(path) for path in sorted((checkpoint / "optimizer").iterdir())]
    name = "model.embed_tokens.weight.exp_avg"
    rows = [shard[name].shape[0] for shard in shards]
    assert len(rows) == 2
    assert abs(rows[0] - rows[1]) <= 1
    assert sum(rows) == weights(runs / "two")["model.embed_tokens.weight"].shape[0]
    assert (runs / "two" / "journal.jsonl").read_text() == ""
    assert not list((runs / "two").rglob("*.writing"))


def test_parts_are_contiguous_and_even():
    assert parts(range(7), 3) == [range(2), range(2, 4), range(4, 7)]
    assert parts([1], 2) == [[], [1]]


def test_one_rank_does_everything():
    assert share([1, 2, 3]) == [1, 2, 3]
    assert gathered([1, 2]) == [1, 2]


def test_the_journal_keeps_what_ranks_wrote_after_a_checkpoint_was_begun(
    tmp_path: Path,
):
    first, second = (
        AgentRequest(kind="knowledge", query="q", key=(0, step, 0, 0, 0))
        for step in (1, 2)
    )
    rank_0, rank_1 = (
        Journal(tmp_path / "journal.jsonl"),
        Journal(tmp_path / "journal.jsonl"),
    )
    rank_0.put(first, Outcome(reply=AgentReply(text="a", tokens=1)))
    num_bytes = rank_0.size()
    rank_1.put(second, Outcome(reply=AgentReply(text="b", tokens=1)))
    rank_0.clear(num_bytes)
    rank_1.put(first, Outcome(reply=AgentReply(text="c", tokens=1)))
    again = Journal(tmp_path / "journal.jsonl")
    assert [again.get(request).reply.text for request in (second, first)] == ["b", "c"]
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 2
    for journal in (rank_0, rank_1, again):
        journal.close()


def test_a_model_is_probed_before_ranks_count_their_passes():
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=70_000,
            head_dim=8,
            num_key_value_heads=2,
            final_logit_softcapping=5.0,
            **sizes,
        )
    ).eval()
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    forward = LearnerForward(model)
    num_probes = len(passes)
    token_ids = np.arange(70)
    own = token_ids > 0
    unknown = np.full(70, np.nan, np.float32)
    row = Row(
        token_ids=token_ids,
        policy_mask=own,
        agent_mask=~own,
        sampler_logprobs=unknown,
        agent_logprobs=unknown,
        advantage=1.0,
    )
    microbatch_logprobs(forward, collate([row], 0))
    assert len(passes) == num_probes + 1


@pytest.mark.slow
@pytest.mark.parametrize("hanging", [(0, 1), (1,)])
def test_sigterm_gives_up_the_sampling_of_all_ranks(
    tmp_path: Path, hanging: tuple[int, ...]
):
    """Ranks hang in the sampling of step 2, all of them or one for which the other
    waits.
    """
    out = tmp_path / "run"
    settings = config(out).to_dict() | {"num_steps": 4, "checkpoint_every": 4}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    environment = ENVIRONMENT | {"HANGING": json.dumps(hanging), "HANGS": str(tmp_path)}
    launch = [
        *LAUNCH,
        "--shutdown-timeout",
        "300",
        SCRIPT.with_name("ranks_hang.py"),
        tmp_path / "run.json",
    ]
    with subprocess.Popen(
        launch, env=environment, stderr=subprocess.PIPE, text=True
    ) as ranks:
        while (
            len(list(tmp_path.glob("hangs-*"))) < len(hanging) and ranks.poll() is None
        ):
            time.sleep(0.1)
        ranks.terminate()
        _, errors = ranks.communicate(timeout=300)
    assert f"stopped after step 2 of 4, which is saved in {out}" in errors
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000002"]
    train(replace(config(out), num_steps=4, checkpoint_every=4), Console(quiet=True))
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_one_server_of_vllm_is_not_shared_by_ranks(tmp_path: Path):
    pytest.importorskip("openai")
    done = subprocess.run(
        [
            *LAUNCH,
            "-m",
            "aipo_env.cli",
            "train",
            "--sampler",
            "vllm:http://127.0.0.1:9",
            "--out",
            tmp_path / "run",
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode != 0
    assert (
        "sampler: http://127.0.0.1:9 would be given the weights by each of 2 ranks"
        in done.stderr
    )


@pytest.mark.slow
def test_sigterm_ends_the_step_on_all_ranks_and_saves_it(tmp_path: Path):
    out = tmp_path / "run"
    settings = config(out).to_dict() | {"num_steps": 40, "checkpoint_every": 40}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    launch = [*LAUNCH, "--shutdown-timeout", "300", "-m", "aipo_env.cli"]
    with subprocess.Popen(
        [*launch, "train", "--config", tmp_path / "run.json"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as ranks:
        while len(read_metrics(out / "metrics.jsonl")) < 2 and ranks.poll() is None:
            time.sleep(0.1)
        ranks.terminate()
        _, errors = ranks.communicate(timeout=300)
    last = read_metrics(out / "metrics.jsonl")[-1]["step"]
    assert 2 <= last < 40
    assert f"stopped after step {last} of 40, which is saved in {out}" in errors
    assert [path.name for path in (out / "checkpoints").iterdir()] == [
        f"step-{last:06d}"
    ]
