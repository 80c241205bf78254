"""One reply of an agent ends no run, the first time or when a journal gives it
again.
"""

from pathlib import Path

import pytest
from rich.console import Console

from aipo_env import Environment, read_episodes
from aipo_env.testing import FaultServer
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

pytest.importorskip("openai")
POISON = [
    "\\boxed{1" + "%" * 690 + "}",
    "\\boxed{1" + "~" * 1_900 + "q}",
    "The answer is" + " " * 15_000,
    "\\boxed{(" + "a_a," * 400 + "a)=1}",
    "0." * 9_000,
    "\ud800\\boxed{" * 500,
]


def config(folder: Path, url: str) -> TrainConfig:
    return TrainConfig(
        out=folder,
        environment=Environment(
            agents=f"openai:tiny@{url}", pool={"deadline_s": 5.0, "retries": 0}
        ),
        independence="mixed",
        aid="share:1",
        num_steps=2,
        groups_per_step=2,
        group_size=2,
        episodes_every=1,
        num_threads=1,
        stop_after_idle_steps=0,
        loggers="",
    )


@pytest.mark.slow
@pytest.mark.parametrize("text", POISON, ids=range(len(POISON)))
def test_a_poison_reply_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FaultServer(["reply"], text=text) as server:
        train(config(tmp_path, server.url), Console(quiet=True))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["failed_episodes"] for row in rows] == [0.0, 0.0]
    for path in sorted(tmp_path.glob("episodes/step-*.jsonl")):
        assert all(episode.reward is not None for episode in read_episodes(path))
