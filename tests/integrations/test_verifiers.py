"""Our environments by vf-eval of the real package, against a scripted policy."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aipo_env import FaultServer, add_codes

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(scope="module")
def verifiers(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    """The Python of a virtual environment with verifiers."""
    return venv("verifiers", ["verifiers==0.4.0"])


def say(body: dict[str, Any]) -> str:
    """Ask for a rule that nobody can guess, if that is offered; apply it once told."""
    text = "\n".join(message["content"] for message in body["messages"])
    name, code = re.search(r"Apply (\w+) to (\d+)", text).groups()
    told = re.search(rf"{name}=#(\d\d)#(\d\d);", text)
    if told:
        return f"\\boxed{{{add_codes(code, ''.join(told.groups()))}}}"
    return f"<knowledge>{name}</knowledge>" if "consult" in text else "\\boxed{0}"


def settings(folder: Path) -> dict[str, str]:
    """Return environment variables under which nothing outside of a folder is used."""
    offline = {"HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1"}
    return {
        **os.environ,
        **offline,
        "HOME": str(folder),
        "PYTHONPATH": str(SCRIPTS),
    }


@pytest.fixture
def evaluate(verifiers: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that runs vf-eval and returns its episodes."""

    def run(server: FaultServer, *arguments: str) -> list[dict[str, Any]]:
        out = tmp_path / "out"
        command = [
            *(verifiers.with_name("vf-eval"), "aipo_verifiers", *arguments),
            *("--client.base-url", server.url, "--client.api-key-var", "NO_KEY"),
            *("-m", "scripted", "--no-push", "--no-rich", "-o", out, "--clean"),
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=settings(tmp_path),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        [written] = out.glob("*/traces.jsonl")
        episodes = [json.loads(line) for line in written.read_text().splitlines()]
        return sorted(episodes, key=lambda episode: episode["task"]["data"]["idx"])

    return run


def run_script(python: Path, name: str, folder: Path) -> dict[str, Any]:
    """Return what a script prints in its last line."""
    done = subprocess.run(
        [python, SCRIPTS / name],
        cwd=folder,
        env=settings(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def only_trace(episode: dict[str, Any]) -> dict[str, Any]:
    """Return the trace of the one seat that there is."""
    [trace] = episode["traces"]
    return trace


CONFIG = """
num_rollouts = 2

[env.taskset]
aided = 0.5  # every second task

[env.taskset.environment]
source = "toy:kinds=knowledge"
rules = { max_turns = 4 }

[select]
limit = 2
"""


@pytest.mark.integrations
def test_episodes_of_both_kinds_have_rewards_and_authors(
    evaluate: Callable[..., list[dict[str, Any]]], tmp_path: Path
):
    (tmp_path / "eval.toml").write_text(CONFIG)
    with FaultServer(text=say) as server:
        episodes = evaluate(server, "@", "eval.toml")
    traces = [only_trace(episode) for episode in episodes]
    assert [trace["rewards"] for trace in traces] == [
        {"verdict": {"score": score, "weight": 1.0}} for score in (0.0, 0.0, 1.0, 1.0)
    ]
    assert all(trace["ok"] for trace in traces)
    alone, aided = traces[0], traces[2]
    assert alone["metrics"] == {
        "aided": 0.0,
        "truncated": 0.0,
        "consults": 0.0,
        "answered_consults": 0.0,
        "invalid_turns": 0.0,
    }
    assert aided["metrics"]["answered_consults"] == 1.0
    told = aided["info"]["aipo"]
    assert told["aided"]
    assert (told["stop_reason"], told["status"]) == ("completed", "correct")
    assert told["consults"] == [
        {"kind": "knowledge", "agent": "knowledge/scripted", "status": "answered"}
    ]
    assert told["spans"][3] == [
        {"text": '<reply from="knowledge">', "author": "env", "is_content": False},
        {"text": "nize=#23#25;", "author": "agent", "is_content": True},
        {"text": "</reply>", "author": "env", "is_content": False},
    ]
    # Messages of the trace, each with its spans; and no branch.
    for trace in traces:
        texts = [node["message"]["content"] for node in trace["nodes"]]
        spans = trace["info"]["aipo"]["spans"]
        assert ["".join(span["text"] for span in row) for row in spans] == texts
        parents = [node.get("parent") for node in trace["nodes"]]
        assert parents == [None, *range(len(texts) - 1)]


@pytest.mark.integrations
def test_a_limit_of_verifiers_ends_an_episode_as_one_of_ours_does(
    evaluate: Callable[..., list[dict[str, Any]]],
):
    with FaultServer(text=say) as server:
        [episode] = evaluate(
            server,
            *("--env.taskset.environment", "toy:kinds=knowledge", "-n", "1"),
            *("--env.agent.max-turns", "1"),
        )
    trace = only_trace(episode)
    assert trace["stop_condition"] == "max_turns"
    assert trace["info"]["aipo"]["stop_reason"] == "max_turns"
    assert trace["metrics"]["truncated"] == 1.0
    assert trace["rewards"] == {"verdict": {"score": 0.0, "weight": 1.0}}


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("script", "verifier", "kind", "message"),
    [
        (
            "reply",
            "verifiers_rewards:broken",
            "HarnessError",
            "the episode has no reward (verifier_error)",
        ),
        ("400", "auto", "ProviderError", "upstream 400"),
    ],
)
def test_an_episode_without_a_verdict_is_an_error_and_no_reward(
    evaluate: Callable[..., list[dict[str, Any]]],
    script: str,
    verifier: str,
    kind: str,
    message: str,
):
    with FaultServer([script], text=say) as server:
        [episode] = evaluate(
            server,
            *("--env.taskset.environment.source", "toy:kinds=knowledge", "-n", "1"),
            *("--env.taskset.environment.verifier", verifier),
        )
    trace = only_trace(episode)
    assert not trace["ok"]
    assert not episode["ok"]
    assert trace["rewards"] == {}
    assert trace["errors"][-1]["type"] == kind
    assert message in trace["errors"][-1]["message"]


@pytest.mark.integrations
def test_an_episode_that_takes_too_long_has_no_verdict(
    evaluate: Callable[..., list[dict[str, Any]]],
):
    with FaultServer(["hang"]) as server:
        limits = ("-n", "1", "--env.agent.timeout.rollout", "1")
        [episode] = evaluate(server, *limits)
    trace = only_trace(episode)
    assert trace["task"]["data"]["environment"] == {"source": "toy"}
    assert not trace["ok"]
    assert trace["is_timeout"]
    assert trace["rewards"] == {"verdict": None}
    assert "the episode did not end" in trace["errors"][-1]["message"]


@pytest.mark.integrations
def test_addends_of_a_reward_keep_their_names(
    evaluate: Callable[..., list[dict[str, Any]]],
):
    spec = {"source": "toy:kinds=knowledge", "verifier": "verifiers_rewards:brief"}
    with FaultServer(text=say) as server:
        [episode] = evaluate(
            server, *("--env.taskset.environment", json.dumps(spec), "-n", "1")
        )
    rewards = only_trace(episode)["rewards"]
    scores = {name: reward["score"] for name, reward in rewards.items()}
    assert scores == {"right": 1.0, "brief": 0.25}


@pytest.mark.integrations
def test_what_stands_behind_a_call_is_no_part_of_the_turn(
    evaluate: Callable[..., list[dict[str, Any]]],
):
    def goes_on(body: dict[str, Any]) -> str:
        text = say(body)
        return f"{text} I think" if "knowledge" in text else text

    with FaultServer(text=goes_on) as server:
        [episode] = evaluate(
            server,
            *("--env.taskset.environment", "toy:kinds=knowledge", "-n", "1"),
        )
    trace = only_trace(episode)
    assert trace["rewards"]["verdict"]["score"] == 1.0
    said = [
        span["text"]
        for row in trace["info"]["aipo"]["spans"]
        for span in row
        if span["author"] == "policy"
    ]
    assert said[0] == "<knowledge>mele</knowledge>"


@pytest.mark.integrations
def test_the_tokens_that_an_agent_wrote_are_known_where_tokens_are(
    verifiers: Path, tmp_path: Path
):
    told = run_script(verifiers, "verifiers_tokens.py", tmp_path)
    assert told["branches"] == [
        {
            "text": (
                "<|system|>Solve. You may consult.<|end|>"
                "<|user|>Apply mele to 0808.<|end|>"
                "<|assistant|><knowledge>mele</knowledge><|end|>"
                '<|user|><reply from="knowledge">mele=#78#25;</reply><|end|>'
                "<|assistant|>\\boxed{7623}<|end|>"
            ),
            "agents": ["mele", "=", "#78", "#25", ";"],
            "sampled": 11,
            "logprob": -5.5,
            "both": 0,
        }
    ]
    assert told["reward"] == 1.0
    assert told["stop"] == ["</knowledge>"]


@pytest.mark.integrations
def test_what_agents_draw_depends_on_the_name_of_a_rollout_and_on_no_order(
    verifiers: Path, tmp_path: Path
):
    told = run_script(verifiers, "verifiers_sessions.py", tmp_path)
    one, other = [5, 1, 4_119_685_160], [5, 1, 1_528_632_265]
    assert told["keys"] == [one, other, one]
    # And each may think at length, unless the environment says otherwise.
    assert told["limits"] == [32_768, 131_072, 77]


@pytest.mark.integrations
def test_what_cannot_be_played_is_refused_by_name(verifiers: Path, tmp_path: Path):
    told = run_script(verifiers, "verifiers_refusals.py", tmp_path)
    expected = [
        "did you mean --env.taskset.environment?",
        "environment: there is no option 'sorce'. Valid: agents, codec, id, pool,"
        " rules, source, tools, verifier. Did you mean 'source'?",
        "task: there is no 'nosuch'. Valid: file, hf, mix, reasoning_gym,",
        "environment: 'Nobody/Nothing-v0' cannot be found.",
        "missing.jsonl: no such file.",
        "dialogue rules: max_turns='many' must be a whole number, at least 1.",
        "with no password or query.",
        "environment: codec='openai' has calls in a field of their own",
        "Input should be less than or equal to 1",
        "Input should be 'train' or 'test'",
        "tokenizer: 'nope' is unknown.",
        "system_prompt: prompts are rules of the environment",
    ]
    for said, part in zip(told["settings"], expected, strict=True):
        assert part in said
    harness, runtime = told["seats"]
    assert (
        "agent.harness.id='null': aipo_verifiers plays its episodes itself." in harness
    )
    assert "agent.runtime.type='docker': nothing of an episode runs" in runtime
    assert told["taken"] == "taken"
