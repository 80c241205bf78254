"""Runs on disk: resumed runs equal uninterrupted ones bit for bit, and nothing whole is
ever lost.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import aipo_learner.run.folder as checkpoint_module
import aipo_learner.training as train_module
from aipo_env import (
    AgentReply,
    AgentRequest,
    CheckpointError,
    ConfigError,
    DataError,
    Journal,
    Outcome,
    data_folder,
)
from aipo_learner.build import open_run
from aipo_learner.evaluation.scheduled import held_out_metrics, held_out_scenario
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.policy.tiny import build_model, build_tokenizer
from aipo_learner.run.folder import Run
from aipo_learner.run.metrics_log import MetricsLog, read_metrics
from aipo_learner.run.optimizer_state import load_optimizer
from aipo_learner.run.scores import SCORE
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.settings.checkpoints import CheckpointConfig
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.optimizer import OptimizerConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

TIMES = ("seconds", "consult_seconds")


def config(out: Path, **changes) -> TrainConfig:
    defaults = {
        "out": out,
        "num_steps": 4,
        "groups_per_step": 2,
        "group_size": 4,
        "checkpoint_every": 2,
        "episodes_every": 2,
        "num_threads": 1,
        "lr": 1e-3,
        "objective": ObjectiveConfig(
            base="dr_grpo", agent_rule="floored", negative_weight=0.5
        ),
    }
    return TrainConfig(**{**defaults, **changes})


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(policy_folder(str(out))) / "model.safetensors")


def same_run(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert untimed(one) == untimed(other)


def untimed(out: Path) -> list[dict[str, float]]:
    rows = read_metrics(out / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train(config(out), Console(quiet=True))
    return out


def test_training_changes_the_weights_and_keeps_every_record(uninterrupted: Path):
    before = load_file(data_folder("tiny_policy") / "model.safetensors")
    assert any(
        not torch.equal(before[name], tensor)
        for name, tensor in weights(uninterrupted).items()
    )
    assert [row["step"] for row in read_metrics(uninterrupted / "metrics.jsonl")] == [
        1,
        2,
        3,
        4,
    ]
    assert sorted(p.name for p in (uninterrupted / "episodes").iterdir()) == [
        "step-000001.coefficients.json",
        "step-000001.jsonl",
        "step-000003.coefficients.json",
        "step-000003.jsonl",
    ]
    assert sorted(p.name for p in (uninterrupted / "checkpoints").iterdir()) == [
        "step-000002",
        "step-000004",
    ]
    assert (uninterrupted / "journal.jsonl").read_text() == ""


def test_a_run_stopped_by_an_error_resumes_bit_equal(
    uninterrupted: Path, tmp_path: Path, monkeypatch
):
    out = tmp_path / "run"
    calls = {"n": 0}
    real = train_module.training_rows

    def failing(*args, **kwargs):
        calls["n"] += 1
        if calls["n"] == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(train_module, "training_rows", failing)
    with pytest.raises(KeyboardInterrupt):
        train(config(out), Console(quiet=True))
    assert len(read_metrics(out / "metrics.jsonl")) == 3
    monkeypatch.undo()
    train(config(out), Console(quiet=True))
    same_run(out, uninterrupted)


def test_a_finished_run_has_nothing_left_to_do(uninterrupted: Path):
    before = (
        (Path(policy_folder(str(uninterrupted))) / "model.safetensors")
        .stat()
        .st_mtime_ns
    )
    train(config(uninterrupted), Console(quiet=True))
    assert (
        Path(policy_folder(str(uninterrupted))) / "model.safetensors"
    ).stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused(uninterrupted: Path):
    with pytest.raises(CheckpointError, match=r"seed was 0, is 1"):
        train(config(uninterrupted, seed=1), Console(quiet=True))


def test_a_run_goes_on_that_knew_fewer_settings(uninterrupted: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["objective"]["observation_weight"]
    del settings["consult_cost"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    train(config(folder), Console(quiet=True))
    with pytest.raises(CheckpointError, match=r"consult_cost was 0.0, is 0.5"):
        train(config(folder, consult_cost=0.5), Console(quiet=True))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch):
    """Have evaluations say what a test wants, one after another."""

    def score(*values: float) -> None:
        left = iter(values)
        monkeypatch.setattr(
            train_module, "held_out_metrics", lambda *_, **__: {SCORE: next(left)}
        )

    return score


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path, scored):
    scored(0.1, 0.5, 0.5, 0.2)
    out = tmp_path / "run"
    train(
        config(out, keep_checkpoints=1, evaluation=EvaluationSchedule(every=1)),
        Console(quiet=True),
    )
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "step-000002",
        "step-000004",
    ]
    assert os.readlink(out / "best") == "checkpoints/step-000002/policy"
    assert load_policy(str(out / "best"))[1].eos_token == "<|end|>"
    assert [row[SCORE] for row in read_metrics(out / "metrics.jsonl")] == [
        0.1,
        0.5,
        0.5,
        0.2,
    ]
    shutil.rmtree(out / "checkpoints" / "step-000002")
    train(
        config(out, keep_checkpoints=1, evaluation=EvaluationSchedule(every=1)),
        Console(quiet=True),
    )


def test_a_run_that_no_longer_gets_better_stops_and_stays_stopped(
    tmp_path: Path, scored
):
    scored(0.5, 0.2, 0.5, 0.9)
    out = tmp_path / "run"
    for patience, expected in ((2, 3), (2, 3), (3, 4)):
        schedule = EvaluationSchedule(every=1, patience=patience)
        train(config(out, evaluation=schedule), Console(quiet=True))
        assert len(read_metrics(out / "metrics.jsonl")) == expected
        assert (out / "checkpoints" / f"step-{expected:06d}").is_dir()
    assert os.readlink(out / "best") == "checkpoints/step-000004/policy"


def test_a_schedule_without_held_out_tasks_is_refused_at_once(tmp_path: Path):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"id": "a", "prompt": "p", "answer": "1", "split": "train"}\n')
    settings = config(
        tmp_path / "run",
        environment=f"file:{tasks}",
        aid="share:0",
        evaluation=EvaluationSchedule(every=1),
    )
    with pytest.raises(
        DataError, match="has no held-out tasks.*--evaluation.environment"
    ):
        train(settings, Console(quiet=True))


def test_what_an_evaluation_measures(model, tokenizer, tmp_path: Path):
    settings = config(
        tmp_path, evaluation=EvaluationSchedule(every=1, num_tasks=3, num_samples=2)
    )
    row = held_out_metrics(
        settings.evaluation,
        held_out_scenario(
            settings.evaluation, settings.environment, seed=settings.seed
        ),
        HFSampler(model, tokenizer),
        seed=settings.seed,
    )
    assert set(row) == {
        "eval/pass_at_1",
        "eval/pass_at_2",
        "eval/truncated",
        "eval/unverified",
    }
    assert row["eval/pass_at_1"] == 0.0
    assert 0.0 <= row["eval/truncated"] <= 1.0


def test_when_an_evaluation_is_due():
    schedule = EvaluationSchedule(every=4)
    assert [step for step in range(11) if schedule.is_due(step, 10)] == [4, 8, 10]
    assert not any(EvaluationSchedule().is_due(step, 10) for step in range(11))


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_a_truncated_checkpoint_says_how_to_go_on(uninterrupted: Path, tmp_path: Path):
    out = copied(uninterrupted, tmp_path)
    state = out / "checkpoints" / "step-000004" / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(
        CheckpointError, match=r"Delete .*step-000004 to resume one checkpoint earlier"
    ):
        train(config(out, num_steps=5), Console(quiet=True))
    shutil.rmtree(state.parent)
    train(config(out), Console(quiet=True))
    same_run(out, uninterrupted)


def test_a_half_written_checkpoint_is_ignored(uninterrupted: Path, tmp_path: Path):
    out = copied(uninterrupted, tmp_path)
    (out / "checkpoints" / "step-000004").rename(
        out / "checkpoints" / "step-000004.writing"
    )
    train(config(out), Console(quiet=True))
    same_run(out, uninterrupted)


def test_a_checkpoint_of_another_format_is_refused(
    uninterrupted: Path, tmp_path: Path, monkeypatch
):
    out = copied(uninterrupted, tmp_path)
    monkeypatch.setattr(checkpoint_module, "FORMAT", 4)
    with pytest.raises(
        CheckpointError, match="a run of another version, in format 3; this .* reads 4"
    ):
        train(config(out), Console(quiet=True))


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path):
    settings = config(tmp_path / "run")
    holder = (
        "import sys; from pathlib import Path; from aipo_learner.run.places import"
        " locked\nwith locked(Path(sys.argv[1])): print('locked', flush=True);"
        " sys.stdin.read()"
    )
    settings.out.mkdir()
    command = [sys.executable, "-c", holder, str(settings.out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with (
            pytest.raises(CheckpointError, match="another process is training here"),
            Run.open(settings),
        ):
            pass
        other.stdin.close()
    with Run.open(settings) as run:
        assert run.step == 0


def test_a_full_disk_leaves_the_previous_checkpoint(
    uninterrupted: Path, tmp_path: Path, monkeypatch
):
    out = copied(uninterrupted, tmp_path)
    settings = config(out)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=3)
    optimizer = torch.optim.AdamW(model.parameters())

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module.torch, "save", full)
    with (
        Run.open(settings) as run,
        pytest.raises(CheckpointError, match="No space left on device"),
    ):
        run.save(5, model, tokenizer, optimizer)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "step-000002",
        "step-000004",
    ]


def test_the_journal_replays_what_was_paid_for(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    request = AgentRequest(kind="knowledge", query="q", key=(0, 1, 2, 3, 0))
    journal = Journal(path)
    journal.put(request, Outcome(reply=AgentReply(text="a", tokens=1)))
    journal.close()
    path.write_text(path.read_text() + '{"key": "(0, 1', encoding="utf-8")
    again = Journal(path)
    assert again.get(request) == Outcome(reply=AgentReply(text="a", tokens=1))
    assert (
        again.get(AgentRequest(kind="knowledge", query="other", key=(0, 1, 2, 3, 0)))
        is None
    )
    again.clear(again.size())
    assert again.get(request) is None
    again.close()
    assert path.read_text() == ""


def test_the_best_so_far_is_kept_until_the_new_best_is_whole(tmp_path: Path):
    run = Run(TrainConfig(out=tmp_path, keep_checkpoints=1))
    for step in (25, 50, 75):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        (folder / "policy").mkdir(parents=True)
        (folder / "state.pt").touch()
        if step == 25:
            run.mark_best(25)
    run.mark_best(100)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-000025", "step-000075"]
    assert (
        tmp_path / "best"
    ).resolve() == tmp_path / "checkpoints" / "step-000025" / "policy"


@pytest.mark.parametrize(
    "changes",
    [
        {"microbatch_tokens": 512},
        {"compute": ComputeConfig(gradient_checkpointing=True)},
    ],
)
def test_a_resumed_run_may_take_less_memory(changes: dict, tmp_path: Path):
    with Run.open(TrainConfig(out=tmp_path)):
        pass
    (tmp_path / "checkpoints" / "step-000001" / "policy").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-000001" / "state.pt").touch()
    with Run.open(TrainConfig(out=tmp_path, **changes)) as run:
        assert run.step == 1


@pytest.mark.parametrize(
    "name",
    [
        "journal.jsonl",
        "metrics.jsonl",
        "config.json",
        "lock",
        "run_id",
        "checkpoints",
        "checkpoints/old.writing",
        "checkpoints/step-000001",
        "episodes",
        "episodes/step-000001.jsonl",
        "episodes/step-000001.coefficients.json",
        "failed",
        "failed/step-000001.pt",
        "tensorboard",
        "tensorboard/events",
        "wandb",
    ],
)
def test_a_run_writes_through_no_link(tmp_path: Path, name: str):
    victim, folder = tmp_path / "victim", tmp_path / "run"
    (victim / "old.writing").mkdir(parents=True)
    (victim / "old.writing" / "file").write_text("mine")
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(victim)
    with pytest.raises(CheckpointError, match=f"{name}: a link, which is not followed"):
        train(config(folder), Console(quiet=True))
    assert [path.name for path in victim.iterdir()] == ["old.writing"]
    assert (victim / "old.writing" / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["lock", "journal.jsonl", "metrics.jsonl", "run_id"])
def test_a_run_hangs_at_no_pipe(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    with pytest.raises(
        CheckpointError, match=f"{name}: a pipe, where a file is needed"
    ):
        train(config(tmp_path), Console(quiet=True))


def test_a_folder_that_stands_for_the_best_policy_is_left_alone(tmp_path: Path):
    (tmp_path / "best").mkdir()
    with pytest.raises(CheckpointError, match="best: no link, which a run puts there"):
        train(config(tmp_path), Console(quiet=True))


def test_names_that_are_free_to_guess_lead_nowhere(tmp_path: Path):
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    folder.mkdir()
    for name in ("config.writing", "metrics.writing", "best.writing"):
        (folder / name).symlink_to(victim)
    os.link(victim, folder / "journal.jsonl")
    os.link(victim, folder / "metrics.jsonl")
    victim.write_text("")
    with Run.open(TrainConfig(out=folder)) as run:
        checkpoint = folder / "checkpoints" / "step-000001"
        (checkpoint / "policy").mkdir(parents=True)
        (checkpoint / "state.pt").touch()
        MetricsLog(folder, Console(quiet=True), num_steps=2).close()
        run.journal.lose("verify", "x", "gone")
        run.mark_best(1)
    assert victim.read_text() == ""
    assert (folder / "journal.jsonl").read_text().startswith('{"lost"')
    assert os.readlink(folder / "best") == "checkpoints/step-000001/policy"
    assert json.loads((folder / "config.json").read_text())["format"] == 3


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[]", "a JSON object is needed, this is one of type list"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "'utf-8' codec can't decode"),
        (b"{", "Expecting property name"),
    ],
)
def test_settings_that_are_none_stop_a_resumed_run(
    tmp_path: Path, content: bytes, fault: str
):
    checkpoint = tmp_path / "checkpoints" / "step-000001"
    (checkpoint / "policy").mkdir(parents=True)
    (checkpoint / "state.pt").touch()
    (tmp_path / "config.json").write_bytes(content)
    message = f"config.json: not the settings of a run .{fault}"
    with pytest.raises(CheckpointError, match=message):
        train(config(tmp_path), Console(quiet=True))


@pytest.mark.parametrize("name", ["queue.jsonl", "policy/model.safetensors"])
def test_a_checkpoint_is_resumed_from_files_alone(tmp_path: Path, name: str):
    checkpoint = tmp_path / "checkpoints" / "step-000001"
    (checkpoint / "policy").mkdir(parents=True)
    (checkpoint / "state.pt").touch()
    os.mkfifo(checkpoint / name)
    with pytest.raises(
        CheckpointError, match=f"{name}: a pipe, where a file is needed"
    ):
        train(config(tmp_path), Console(quiet=True))


@pytest.mark.parametrize("name", ["step-\u0663", "step-1", f"step-{'9' * 200}"])
def test_a_folder_with_another_name_is_no_checkpoint(tmp_path: Path, name: str):
    checkpoint = tmp_path / "checkpoints" / name
    (checkpoint / "policy").mkdir(parents=True)
    (checkpoint / "state.pt").touch()
    assert Run(TrainConfig(out=tmp_path)).step == 0


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file in a folder: what it holds, and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_finished_run_is_extended_to_what_a_longer_one_would_be(
    uninterrupted: Path, tmp_path: Path
):
    out = tmp_path / "run"
    train(config(out, num_steps=2), Console(quiet=True))
    said = io.StringIO()
    train(config(out), Console(file=said, width=40))
    assert (
        "run  changed from here on: num_steps was 2, is 4. Schedules are those of the"
        " new settings\n" in said.getvalue()
    )
    assert "run  goes on after step 2: 4 steps of" in said.getvalue()
    same_run(out, uninterrupted)
    assert json.loads((out / "config.json").read_text())["num_steps"] == 4


def test_rate_and_schedule_may_change_on_resume_and_are_told(
    uninterrupted: Path, tmp_path: Path
):
    out = copied(uninterrupted, tmp_path)
    changed = config(
        out,
        num_steps=5,
        lr=2e-3,
        lr_end=0.5,
        warmup_steps=0,
        anneal_from=0.5,
        optimizer=OptimizerConfig(decay="cosine"),
    )
    with Run.open(changed) as run:
        assert run.changes == (
            "anneal_from was 0.7, is 0.5; lr was 0.001, is 0.002; lr_end was 1.0, is"
            " 0.5; num_steps was 4, is 5; optimizer.decay was 'linear', is 'cosine';"
            " warmup_steps was 10, is 0"
        )
    train(changed, Console(quiet=True))
    # The end of the new schedule.
    assert read_metrics(out / "metrics.jsonl")[-1]["lr"] == pytest.approx(1e-3)
    with Run.open(changed) as run:
        assert run.changes == ""


def test_what_else_is_of_the_optimiser_may_not_change(uninterrupted: Path):
    other = config(uninterrupted, optimizer=OptimizerConfig(beta1=0.5))
    with pytest.raises(CheckpointError, match=r"optimizer was \{'name': 'adamw'"):
        train(other, Console(quiet=True))


def test_a_run_cannot_have_fewer_steps_than_it_made(uninterrupted: Path):
    before = contents(uninterrupted)
    with pytest.raises(
        CheckpointError, match="has made 4 steps, more than num_steps=3"
    ):
        train(config(uninterrupted, num_steps=3), Console(quiet=True))
    assert contents(uninterrupted) == before


def test_a_done_run_says_what_is_there_and_nothing_is_done(
    uninterrupted: Path, tmp_path: Path, scored
):
    said = io.StringIO()
    before = contents(uninterrupted)
    learned = train(config(uninterrupted), Console(file=said))
    assert (learned.had_gradient, said.getvalue()) == (True, "")
    assert learned.found == (
        f"{uninterrupted} has made 4 of 4 steps. Policy:"
        f" {uninterrupted}/checkpoints/step-000004/policy"
    )
    assert contents(uninterrupted) == before
    # With a schedule, its last weights are to be measured; then it is done.
    out = copied(uninterrupted, tmp_path)
    scored(0.25)
    schedule = EvaluationSchedule(every=4)
    assert train(config(out, evaluation=schedule), Console(quiet=True)).found == ""
    learned = train(config(out, evaluation=schedule), Console(quiet=True))
    assert learned.found.endswith(f"Best: {out}/best, of step 4, pass@1 0.250")


def states(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [state["exp_avg"] for state in optimizer.state.values()]


@pytest.mark.parametrize("resume_optimizer", [True, False])
def test_a_new_run_starts_from_a_checkpoint_of_another(
    uninterrupted: Path, tmp_path: Path, resume_optimizer: bool
):
    origin = uninterrupted / "checkpoints" / "step-000002"
    before = contents(uninterrupted)
    start = CheckpointConfig(resume_from=str(origin), resume_optimizer=resume_optimizer)
    # Other tasks, and hardly a change.
    settings = config(
        tmp_path / "new", num_steps=1, lr=1e-12, seed=7, checkpoints=start
    )
    with open_run(settings) as run:
        model, _ = load_policy(run.policy_path())
        optimizer = torch.optim.AdamW(model.parameters())
        run.restore_optimizer(model, optimizer)
    expected = torch.optim.AdamW(model.parameters())
    load_optimizer(origin / "optimizer", model, expected)
    assert len(states(optimizer)) == (len(states(expected)) if resume_optimizer else 0)
    assert all(map(torch.equal, states(optimizer), states(expected)))
    train(settings, Console(quiet=True))
    started = load_file(origin / "policy" / "model.safetensors")
    for name, tensor in weights(tmp_path / "new").items():
        torch.testing.assert_close(tensor, started[name], atol=1e-9, rtol=0)
    assert contents(uninterrupted) == before
    # The same command finds it done, whatever has become of the other run.
    assert train(settings, Console(quiet=True)).found.startswith(f"{tmp_path}/new has")


def test_what_is_no_checkpoint_to_start_from_is_named(
    uninterrupted: Path, tmp_path: Path
):
    def start(origin: Path, **changes: object) -> TrainConfig:
        checkpoints = CheckpointConfig(resume_from=str(origin))
        return config(tmp_path / "new", checkpoints=checkpoints, **changes)

    checkpoint = uninterrupted / "checkpoints" / "step-000004"
    with pytest.raises(ConfigError, match=f"Give one, as in {checkpoint}"):
        train(start(uninterrupted), Console(quiet=True))
    with pytest.raises(ConfigError, match="is no checkpoint, which is a folder with"):
        train(start(checkpoint / "policy"), Console(quiet=True))
    with pytest.raises(ConfigError, match="has no adapter, and compute.lora_rank"):
        train(
            start(checkpoint, compute=ComputeConfig(lora_rank=2)), Console(quiet=True)
        )
    assert not (tmp_path / "new").exists()
    other = start(checkpoint, optimizer=OptimizerConfig(name="adamw_8bit"))
    with (
        open_run(other) as run,
        pytest.raises(CheckpointError, match="none of adamw_8bit. .*--no-resume-optim"),
    ):
        run.restore_optimizer(load_policy(run.policy_path())[0], None)
    wider = build_model(build_tokenizer(), seed=3)
    wider.resize_token_embeddings(800)
    with (
        open_run(start(checkpoint)) as run,
        pytest.raises(CheckpointError, match="of another model, whose weight .* shape"),
    ):
        run.restore_optimizer(wider, None)


def test_exports_in_bfloat16_are_resumed_exactly(uninterrupted: Path, tmp_path: Path):
    out = tmp_path / "run"
    rounded = CheckpointConfig(save_dtype="bfloat16")
    train(config(out, num_steps=2, checkpoints=rounded), Console(quiet=True))
    train(config(out, checkpoints=rounded), Console(quiet=True))
    exact = weights(uninterrupted)
    exported = weights(out)
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}
    assert exported.keys() == exact.keys()
    for name, tensor in exported.items():
        assert torch.equal(tensor, exact[name].bfloat16())
    assert untimed(out) == untimed(uninterrupted)
    policy = out / "checkpoints" / "step-000004" / "policy"
    assert json.loads((policy / "config.json").read_text())["dtype"] == "bfloat16"
    # Beside it, what the run goes on with.
    state = torch.load(policy.parent / "state.pt", weights_only=True)
    for name, tensor in exact.items():
        assert torch.equal(state["weights"][name], tensor)
    # And back: the next checkpoint is whole without it.
    train(config(out, num_steps=5), Console(quiet=True))
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float32}
    state = torch.load(
        policy.parents[1] / "step-000005" / "state.pt", weights_only=True
    )
    assert "weights" not in state
