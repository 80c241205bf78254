"""A package of somebody else's is trained and measured by the id of its environment,
and by its parts.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import pytest

from aipo_env import Environment
from aipo_env.cli import main

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "aipo_sql"
ID = "sqlco:Co/AIPO-Sql-Turn-v0"
REWARDS = '''
def letters(task, text):
    """Partial rewards that depend on the text alone."""
    num_letters = sum(map(str.isalpha, text))
    return {"letters": num_letters % 5 / 10, "length": len(text) % 7 / 10}
'''
FEW_TOKENS = ("--environment.rules.max-policy-tokens", "24")
TRAIN = ("train", "--policy", "tiny", "--num-threads", "1", "--loggers", "")
SMALL = ("--groups-per-step", "2", "--group-size", "2", *FEW_TOKENS)
EVAL = ("eval", "--policy", "tiny", "--num-threads", "1", *FEW_TOKENS)


def entry_points() -> str:
    """Return the package's entry points as an installer writes them."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    lines: list[str] = []
    for group, entries in project["entry-points"].items():
        lines.append(f"[{group}]")
        lines += [f"{name} = {place}" for name, place in entries.items()]
    return "\n".join(lines)


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the package, and a module of reward functions, importable as if they were
    installed.
    """
    site = tmp_path_factory.mktemp("site")
    info = site / "sqlco-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sqlco\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text(entry_points())
    (site / "own_rewards.py").write_text(REWARDS)
    added = [str(site), str(PACKAGE)]
    sys.path[:0] = added
    yield site
    for path in added:
        sys.path.remove(path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "sqlco"]:
        del sys.modules[name]
    for name in [name for name in gym.registry if name.startswith("Co/")]:
        del gym.registry[name]


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def aipo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that calls the command line."""
    monkeypatch.setenv("COLUMNS", "400")

    def call(*arguments: str) -> Done:
        code = main(arguments)
        return Done(code, *capsys.readouterr())

    return call


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def episodes(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("episodes/*.jsonl")) for row in rows(path)]


def prompt(episode: dict[str, Any]) -> str:
    """Return the system prompt."""
    message = episode["messages"][0]
    assert message["role"] == "system"
    return "".join(span["text"] for span in message["spans"])


def test_the_package_passes_its_own_tests_and_the_conformance_checks(site: Path):
    paths = [str(site), str(PACKAGE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    plugin = ["-p", "aipo_env.pytest_plugin", "--aipo-plugins", "sqlco"]
    options = ["-p", "no:cacheprovider", "--rootdir", str(site), "-v", *plugin]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", *options, PACKAGE / "tests"],
        cwd=site,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for checked in ("agent glossary", "tool database", "verifier sql", "task sql"):
        assert f"{checked} PASSED" in done.stdout


def test_the_python_that_the_package_shows_runs():
    page = (PACKAGE / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(shown, "README.md", "exec"), names)
    assert (names["reward"], names["terminated"]) == (0.2, True)


def test_training_by_id_says_why_nothing_was_learned(aipo: Any, tmp_path: Path):
    steps = ("--num-steps", "2", "--episodes-every", "1")
    done = aipo(*TRAIN, *SMALL, *steps, "--environment.id", ID, "--out", str(tmp_path))
    assert (done.code, done.err) == (0, "")
    (first,) = [line for line in done.out.splitlines() if "step 1/2" in line]
    assert "no gradient: 2 x group all wrong" in first
    assert "No step had a gradient" in done.out
    assert [row["rows"] for row in rows(tmp_path / "metrics.jsonl")] == [0, 0]
    played = episodes(tmp_path)
    assert len(played) == 4
    for episode in played:
        assert prompt(episode).startswith("Answer a question about a company's SQLite")
        assert "<describe_table>…</describe_table>" in prompt(episode)
        assert "<run_sql>…</run_sql>" in prompt(episode)
        assert ("<knowledge>" in prompt(episode)) == episode["aided"]
        assert episode["stop_reason"] != "verifier_error"
        assert episode["reward"] == 0.0
    assert {episode["aided"] for episode in played} == {True, False}


def as_text() -> dict[str, str]:
    """Return the environment as files of settings, by their names."""
    told = json.dumps(prompt_of_package())  # as TOML and YAML write it, too
    fields = {
        "source": "sql",
        "tools": ["database"],
        "verifier": "sql",
        "agents": {"knowledge": "glossary"},
        "rules": {
            "plain_prompt": prompt_of_package(),
            "kinds": ["knowledge"],
            "consult_budget": 4,
        },
    }
    toml = f"""
[environment]
source = "sql"
tools = ["database"]
verifier = "sql"
agents = {{knowledge = "glossary"}}

[environment.rules]
plain_prompt = {told}
kinds = ["knowledge"]
consult_budget = 4
"""
    yaml = f"""
environment:
  source: sql
  tools: [database]
  verifier: sql
  agents: {{knowledge: glossary}}
  rules:
    plain_prompt: {told}
    kinds: [knowledge]
    consult_budget: 4
"""
    return {
        "own.json": json.dumps({"environment": fields}),
        "own.toml": toml,
        "own.yaml": yaml,
    }


def prompt_of_package() -> str:
    plain = Environment(id=ID).resolved().rules.plain_prompt
    assert plain is not None
    return plain


def by_parts(source: str, tool: str, verifier: str) -> list[str]:
    """Return the environment as flags."""
    return [
        "--environment.source",
        source,
        "--environment.tools",
        tool,
        "--environment.verifier",
        verifier,
        "--agents",
        '{"knowledge": "glossary"}',
        "--environment.rules.plain-prompt",
        prompt_of_package(),
        "--environment.rules.kinds",
        "knowledge",
        "--environment.rules.consult-budget",
        "4",
    ]


def test_an_environment_is_the_same_by_id_by_flags_and_from_files(
    aipo: Any, tmp_path: Path
):
    for name, text in as_text().items():
        (tmp_path / name).write_text(text)
    ways = {
        "id": ["--environment.id", ID],
        "short": ["--environment", ID],
        "names": by_parts("sql", "database", "sql"),
        "json": ["--config", str(tmp_path / "own.json")],
        "toml": ["--config", str(tmp_path / "own.toml")],
        "yaml": ["--config", str(tmp_path / "own.yaml")],
        "paths": by_parts("sqlco:SqlTasks", "sqlco:Database", "sqlco:SqlVerifier"),
    }
    said: dict[str, list[Any]] = {}
    resolved: dict[str, Any] = {}
    one_group = ("--num-steps", "1", "--groups-per-step", "1", "--group-size", "2")
    for name, way in ways.items():
        out = tmp_path / name
        done = aipo(*TRAIN, *one_group, *FEW_TOKENS, *way, "--out", str(out))
        assert (done.code, done.err) == (0, ""), name
        said[name] = [episode["messages"] for episode in episodes(out)]
        row = json.loads((out / "config.json").read_text())["environment"]
        resolved[name] = Environment.of(row).resolved().to_dict()
    assert prompt(episodes(tmp_path / "id")[0]).startswith("Answer a question")
    for name in ways:
        assert said[name] == said["id"], name
    del resolved["paths"]  # other names of the same parts
    for name, environment in resolved.items():
        assert environment == resolved["id"], name


def test_training_without_the_verifier_ends_at_the_first_verdict(
    aipo: Any, tmp_path: Path
):
    parts = ("--environment.source", "sql", "--environment.tools", "database")
    out = ("--num-steps", "2", "--out", str(tmp_path))
    done = aipo(*TRAIN, *SMALL, *parts, *out)
    assert done.code == 2
    assert "there is no kind 'sql'. Valid: choice, code, math" in done.err
    assert "Done" not in done.out
    assert rows(tmp_path / "metrics.jsonl") == []
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_reward_function_in_python_gives_a_gradient(aipo: Any, tmp_path: Path):
    reward = ("--reward", "own_rewards:letters=2")
    out = ("--num-steps", "1", "--out", str(tmp_path))
    done = aipo(*TRAIN, *SMALL, *reward, "--environment.id", ID, *out)
    assert (done.code, done.err) == (0, "")
    assert "No step had a gradient" not in done.out
    (row,) = rows(tmp_path / "metrics.jsonl")
    assert row["rows"] > 0
    assert row["grad_norm"] > 0
    parts = row["reward_part/letters"] + row["reward_part/length"]
    assert row["reward"] == pytest.approx(parts)
    assert row["reward"] > 0


def test_evaluation_by_id_alone_and_aided(aipo: Any, tmp_path: Path):
    few = ("--num-tasks", "2", "--samples", "2", "--aided-samples", "2")
    by_id = ("--environment.id", ID, "--out", str(tmp_path))
    done = aipo(*EVAL, *few, *by_id)
    assert (done.code, done.err) == (0, "")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["unaided"]["num_correct"]) <= {"sql-4", "sql-9", "sql-14"}
    assert (scores["unaided"]["num_tasks"], scores["unaided"]["num_unverified"]) == (
        2,
        0,
    )
    assert "aided" not in scores
    done = aipo(*EVAL, *few, *by_id, "--aided")
    assert (done.code, done.err) == (0, "")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["aided"]["num_samples"] == 2
    shown = rows(tmp_path / "episodes.jsonl")
    assert all("<run_sql>" in prompt(episode) for episode in shown)
    assert {"<knowledge>" in prompt(episode) for episode in shown} == {True, False}


def test_a_run_is_rehearsed_by_id(aipo: Any, tmp_path: Path):
    by_id = ("--environment.id", ID, "--out", str(tmp_path / "run"))
    done = aipo(*TRAIN, *SMALL, *by_id, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert "One step of sampling, update and checkpoint was made" in done.out
    assert "stand in" not in done.out
    assert not (tmp_path / "run").exists()


def test_a_run_is_measured_on_the_held_out_questions(aipo: Any, tmp_path: Path):
    schedule = ("--evaluation.every", "1", "--evaluation.num-tasks", "2")
    few = ("--evaluation.num-samples", "2", "--num-steps", "1")
    by_id = ("--environment.id", ID, "--out", str(tmp_path))
    done = aipo(*TRAIN, *SMALL, *schedule, *few, *by_id)
    assert (done.code, done.err) == (0, "")
    assert "held-out tasks, alone: pass@1 0.000" in done.out
    (score,) = [
        row
        for row in rows(tmp_path / "metrics.jsonl")
        if row.get("eval/pass_at_1") == 0.0
    ]
    assert score["eval/pass_at_2"] == 0.0
    assert (tmp_path / "best").exists()


def test_an_override_beside_the_id_leaves_the_rest(aipo: Any, tmp_path: Path):
    rules = ("--environment.rules.max-turns", "1", "--num-steps", "1")
    by_id = ("--environment.id", ID, "--out", str(tmp_path))
    done = aipo(*TRAIN, *SMALL, *rules, *by_id)
    assert (done.code, done.err) == (0, "")
    played = episodes(tmp_path)
    assert {len(episode["turns"]) for episode in played} == {1}
    assert prompt(played[0]).startswith("Answer a question about a company's SQLite")
    assert "at most 4 times" in prompt(next(row for row in played if row["aided"]))


def test_gym_make_takes_the_same_override():
    env = gym.make(ID, rules={"max_turns": 3})
    observation, _ = env.reset(seed=0)
    assert "Answer a question about a company's SQLite database" in observation
    assert "at most 4 times" in observation
    ended = [env.step("<run_sql>SELECT 1</run_sql>")[2:4] for _ in range(3)]
    assert ended == [(False, False), (False, False), (False, True)]


def test_a_run_that_learns_nothing_stops_and_is_saved(aipo: Any, tmp_path: Path):
    limits = ("--stop-after-idle-steps", "2", "--num-steps", "9")
    by_id = ("--environment.id", ID, "--out", str(tmp_path))
    done = aipo(*TRAIN, *SMALL, *limits, *by_id)
    assert done.code == 2
    assert "2 steps in a row gave no gradient, so the run stops" in done.err
    assert "2 x group all wrong" in done.err
    assert "of 4 episodes were cut off" in done.err
    assert "raise --environment.rules.max-policy-tokens" in done.err
    assert "--stop-after-idle-steps 0 goes on all the same" in done.err
    assert "Done" not in done.out
    names = [path.name for path in tmp_path.glob("checkpoints/*")]
    assert names == ["step-000002"]
    assert len(rows(tmp_path / "metrics.jsonl")) == 2
