"""MCP and OpenEnv by their own packages: tools that we use, environments that we
offer.
"""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
REPLY = '<reply from="knowledge">mele=#78#25;</reply>'


@cache
def run(python: Path, script: str) -> dict[str, Any]:
    """Run a script once, and return what it prints."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    command = [python, SCRIPTS / script]
    done = subprocess.run(
        command, env=settings, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def mcp(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    return venv("mcp", ["mcp>=2.3,<3", "tiktoken>=0.12"])


@pytest.mark.integrations
def test_tools_of_an_mcp_server(mcp: Path):
    result = run(mcp, "mcp_tools.py")
    tool = 3  # an author of its own: these are never an agent's tokens
    assert result["stdio"] == result["http"]
    assert result["stdio"] == {
        "told": [
            (
                "<add>…</add> Add two numbers; write a JSON object with a: integer, b:"
                " integer."
            ),
            "<to_upper>…</to_upper> Upper case.",
        ],
        "replies": [
            ["answered", "42"],
            ["answered", "QUIET"],
            ["answered", "error: Error executing tool fail: no luck"],
            ["answered", 'error: a must be of type integer, got "x"'],
            [
                "answered",
                (
                    "error: the argument 'b' is missing; the arguments must be a JSON"
                    " object with a, b"
                ),
            ],
        ],
        "authors": [tool],
    }
    assert result["restart"] == ["died", "3", "3"]
    away, unknown = result["refused"]
    assert away.startswith(
        "tools: the MCP server 'http://127.0.0.1:1/mcp' cannot be used: Connect"
    )
    assert "'no-such-command-here' cannot be used: FileNotFoundError" in unknown


SYSTEM = {"text": "Solve. You may consult.", "author": "prompt", "is_content": False}
STOP = ["</knowledge>", "</reason>", "</verify>"]
REPLY_SPANS = [
    {"text": '<reply from="knowledge">', "author": "env", "is_content": False},
    {"text": "mele=#78#25;", "author": "agent", "is_content": True},
    {"text": "</reply>", "author": "env", "is_content": False},
]


def prompt(text: str) -> dict[str, Any]:
    return {"text": text, "author": "prompt", "is_content": False}


@pytest.mark.integrations
def test_an_environment_as_mcp_tools(mcp: Path):
    result = run(mcp, "mcp_play.py")
    assert result["tools"] == ["reset", "step"]
    assert result["is_repeatable"]
    first, asked, ended = result["first"], result["asked"], result["ended"]
    assert first["messages"] == [
        {"role": "system", "content": "Solve. You may consult."},
        {"role": "user", "content": "Apply bare to 8857."},
    ]
    assert first["spans"] == [SYSTEM, prompt("Apply bare to 8857.")]
    assert first["stop"] == STOP
    assert (asked["observation"], asked["terminated"]) == (REPLY, False)
    assert asked["messages"] == [{"role": "user", "content": REPLY}]
    assert asked["spans"] == REPLY_SPANS
    assert asked["info"]["consults_used"] == 1
    assert (ended["reward"], ended["terminated"], ended["truncated"]) == (
        0.0,
        True,
        False,
    )
    assert sorted(ended["info"]) == [
        "consults_used",
        "num_policy_tokens",
        "reward_parts",
        "stop_reason",
        "task_id",
        "turn",
    ]
    assert result["after"].endswith("that waits for a turn; call reset")
    assert result["goes_on"]


@pytest.mark.integrations
def test_a_client_of_mcp_chooses_and_is_refused_by_name(mcp: Path):
    result = run(mcp, "mcp_play.py")
    chosen = result["chosen"]
    assert chosen["info"]["task_id"] == "toy-0-test-3"
    assert chosen["spans"] == [prompt("Solve."), prompt("Apply bare to 0990.")]
    assert chosen["stop"] == []
    named = [answer.splitlines() for answer in result["refused"]]
    assert [lines[1] for lines in named if len(lines) > 1] == [
        "sed",
        "seed",
        "seed",
        "index",
        "split",
        "aided",
        "aided",
    ]
    [[negative]] = [lines for lines in named if len(lines) == 1]
    assert "reset: index=-1 must be a whole number" in negative
    assert "text has 1,000,001 characters" in result["long"]
    unaided = result["unaided"]
    assert unaided["opened"] == [[prompt("Solve."), prompt("Apply mele to 0808.")], []]
    assert unaided["wanted"].endswith("aided=True, and this server offers no agents.")
    assert unaided["num_tokens"] == 801  # of 1,400 characters


@pytest.mark.integrations
def test_a_session_has_its_own_budget_and_all_without_one_have_one(mcp: Path):
    answered = run(mcp, "mcp_play.py")["over_http"]
    with_sessions, without = answered[:10], answered[10:]
    assert [answer == REPLY for answer in with_sessions[:1]] == [True]
    assert sum(answer == REPLY for answer in with_sessions[1:9]) == 1
    assert "budget of consultations is spent" in with_sessions[9]
    assert sum(answer == REPLY for answer in without) == 1
    assert "budget of consultations is spent" in without[9]


@pytest.mark.integrations
def test_a_session_that_a_client_of_mcp_made_up_is_worth_nothing(mcp: Path):
    result = run(mcp, "mcp_play.py")
    assert [answer == REPLY for answer in result["made_up"]] == [False] * 4
    assert result["honest"] == REPLY


@pytest.mark.integrations
def test_each_extra_names_the_others_that_it_excludes(mcp: Path, openenv: Path):
    with_mcp = run(mcp, "mcp_play.py")["other"]
    with_openenv = run(openenv, "openenv_play.py")["other"]
    assert with_mcp == (
        "aipo: aipo serve --openenv needs openenv, which is not installed: pip install"
        ' "aipo-rl[openenv]", in an environment without the extras mcp and verifiers.'
        " The extras mcp, openenv and verifiers exclude each other: the first needs mcp"
        " 2.3 or later, openenv one below 2, and verifiers 2.0.0 alone.\n"
    )
    assert with_openenv.startswith(
        "aipo: aipo serve --mcp needs mcp 2.3 or a later 2.x, and 1."
    )
    assert "in an environment without the extras openenv and" in with_openenv


@pytest.fixture
def openenv(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    return venv("openenv", ["openenv==0.10.0"])


@pytest.mark.integrations
def test_an_environment_as_an_openenv_server(openenv: Path):
    result = run(openenv, "openenv_play.py")
    first, asked, ended, num_steps = result["one"]
    assert first[0].startswith("Solve. You may consult.")
    assert asked == [REPLY, 0.0, False, False]
    assert ended == ["", 0.0, True, False]
    assert num_steps == 2
    assert result["is_repeatable"]
    assert result["differs"]


@pytest.mark.integrations
def test_a_client_of_openenv_chooses_and_is_refused_by_name(openenv: Path):
    choices = run(openenv, "openenv_play.py")["choices"]
    alone, chosen, asked = choices["alone"], choices["chosen"], choices["asked"]
    task = prompt("Apply bare to 0990.")
    assert (alone["spans"], alone["stop"]) == ([prompt("Solve."), task], [])
    assert (chosen["spans"], chosen["stop"]) == ([SYSTEM, task], STOP)
    assert chosen["info"]["task_id"] == "toy-0-test-3"
    assert asked["spans"] == REPLY_SPANS
    assert asked["messages"] == [{"role": "user", "content": REPLY}]
    names = ["reset: option='spilt'", "split='dev'", "reset: index=-1"]
    names += ["reset: index='3'", "reset: aided=1", "reset: seed=True"]
    names += ["reset: episode_id=7", "reset: option='session_id'"]
    names += ["reset: option='func'"]
    assert len(choices["refused"]) == len(names)
    for answer, name in zip(choices["refused"], names, strict=True):
        assert answer.startswith(f"Server error: {name}")


@pytest.mark.integrations
def test_tasks_of_an_openenv_server(openenv: Path):
    name, metadata, splits, number, *answers = run(openenv, "openenv_play.py")["tasks"]
    assert name == "AIPO-Toy-Turn-v0"
    status, told = metadata
    assert (status, told["name"], told["version"]) == (200, name, "0.1.0")
    assert (
        "Agents that may be consulted: knowledge, reason, verify."
        in (told["description"])
    )
    assert splits == [
        200,
        [{"name": "train", "type": "train"}, {"name": "test", "type": "test"}],
    ]
    assert number == [200, {"num_tasks": 2**31}]
    third = {"index": 3, "id": "toy-0-test-3", "prompt": "Apply bare to 0990."}
    fourth = {"index": 4, "id": "toy-0-test-4", "prompt": "Apply rino to 4191."}
    assert answers[:2] == [[200, {"task": third}], [200, {"tasks": [third, fourth]}]]
    assert [status for status, _ in answers[2:]] == [400, 400, 400, 400, 400, 404]
    refused = [answer["detail"] for _, answer in answers[2:7]]
    too_many = (
        "task_range: 2,147,483,648 tasks; at most 100 are told at once, from start to"
        " before stop."
    )
    assert refused == [
        "Invalid task index",
        "split='dev'. Valid: test, train.",
        too_many,
        too_many,
        "reset: option='sed'. Valid: aided, index, split.",
    ]
