"""A training run whose agents fail three times in ten, in every way there is."""

import re
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from aipo_env import Environment, read_episodes
from aipo_env.testing import FaultServer
from aipo_learner.reporting.report import write_report
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

pytest.importorskip("openai")

FAULTS = (
    "429",
    "500",
    "503",
    "302",
    "reset",
    "cut",
    "garbage",
    "nothing",
    "utf8",
    "nested",
    "shape",
    "empty",
    "huge",
    "endless",
    "packed",
    "hang",
    "drip",
    "409",
)
NUM_GROUPS, GROUP_SIZE, NUM_STEPS = 4, 4, 3


def script() -> list[str]:
    """Three of ten requests fail, each in another way than the one before."""
    rounds = [FAULTS[n : n + 3] for n in range(0, len(FAULTS), 3)]
    return [
        item
        for faults in rounds
        for item in ["reply", "reply", *faults, *["reply"] * 5]
    ]


def config(folder: Path, server: FaultServer) -> TrainConfig:
    return TrainConfig(
        out=folder,
        environment=Environment(
            agents=f"openai:tiny@{server.url}",
            pool={"deadline_s": 3.0, "retries": 1, "backoff_s": 0.01, "break_after": 0},
        ),
        independence="mixed",
        aid="share:1",
        num_steps=NUM_STEPS,
        groups_per_step=NUM_GROUPS,
        group_size=GROUP_SIZE,
        episodes_every=1,
        num_threads=1,
        loggers="",
    )


@pytest.mark.slow
def test_it_loses_nothing_trains_no_partial_group_and_tells_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FaultServer(script(), text="mele=#78#25;") as server:
        train(config(tmp_path, server), Console(quiet=True))
        requests = list(server.requests)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["failed_episodes"] == 0.0
        assert row["groups/partial"] == 0
        assert row["rows"] == (NUM_GROUPS - row["groups/constant"]) * GROUP_SIZE
    counts = Counter()
    for row in rows:
        counts.update(
            {
                name.removeprefix("consults/"): n
                for name, n in row.items()
                if "consults/" in name
            }
        )
    # Every consultation of every episode is one request, and one more for each retry.
    retries, denied = counts.pop("retries"), counts.pop("denied", 0)
    # Before them the agents were asked whether they are there.
    first, *requests = requests
    assert "What is 2 + 2?" in first[1]["messages"][-1]["content"]
    assert counts.total() + retries == len(requests) >= 40
    assert len({body["seed"] for _, body in requests}) == counts.total()
    assert counts["answered"] > 0.6 * counts.total()
    assert retries > 0.2 * counts.total()
    assert set(counts) > {"answered"}
    kept = [
        e
        for path in sorted(tmp_path.glob("episodes/step-*.jsonl"))
        for e in read_episodes(path)
    ]
    assert len(kept) == NUM_STEPS * GROUP_SIZE
    assert all(episode.reward is not None for episode in kept)
    table = write_report(tmp_path).read_text()
    table = table[table.index("What became of its questions") :]
    shown = dict(
        zip(
            re.findall(r'<th scope="col">(.*?)</th>', table)[1:],
            re.findall("<td>(.*?)</td>", table),
            strict=False,
        )
    )
    told = +Counter({**counts, "retries": retries, "denied": denied})
    assert {name: int(shown[name]) for name in told} == dict(told)
