"""Trains without Ray, and with two Ray workers of which one is killed while it samples;
prints what differed.
"""

import json
import os
import sys
from pathlib import Path

from rich.console import Console

from aipo_env import Environment, read_episodes
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

folder = Path(sys.argv[1])


def run(name: str, num_workers: int, is_killed: bool) -> tuple[list, list, list]:
    notes = folder / f"{name}-notes"
    notes.mkdir()
    if not is_killed:
        (notes / "killed").touch()
    config = TrainConfig(
        out=folder / name,
        environment=Environment(
            agents={"type": "ray_agent:NotingAgent", "folder": str(notes)}
        ),
        num_steps=3,
        groups_per_step=4,
        group_size=3,
        lr=1e-3,
        warmup_steps=0,
        episodes_every=1,
        checkpoint_every=2,
        num_threads=1,
        loggers="",
        seed=3,
        aid="share:0.7",
        source=EpisodeSource(max_staleness=1),
    )
    train(config, Console(quiet=True), num_workers)
    rows = read_metrics(config.out / "metrics.jsonl")
    kept = [
        e
        for path in sorted(config.out.glob("episodes/*.jsonl"))
        for e in read_episodes(path)
    ]
    texts = [
        [e.group_id, [m.content for m in e.messages], e.reward, e.policy_version]
        for e in kept
    ]
    answered = [
        line.rsplit(" ", 1) for line in (notes / "answered").read_text().splitlines()
    ]
    return rows, texts, answered


alone_rows, alone, alone_answered = run("alone", 0, False)
ray_rows, with_ray, ray_answered = run("ray", 2, True)
first, second = (
    {row["step"]: row["loss"] for row in rows} for rows in (alone_rows, ray_rows)
)
result = {
    "steps": list(second),
    "num_episodes": len(with_ray),
    "same_episodes": alone == with_ray,
    "loss_gap": max(abs(first[step] - second[step]) for step in first),
    "num_calls": len(ray_answered),
    "same_calls": (
        sorted(key for key, _ in alone_answered)
        == sorted(key for key, _ in ray_answered)
    ),
    "num_processes": len({pid for _, pid in ray_answered}),
    "num_answered_here": sum(pid == str(os.getpid()) for _, pid in ray_answered),
    "journal": (folder / "ray" / "journal.jsonl").read_text(),
}
print(json.dumps(result))
