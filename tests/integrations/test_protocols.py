"""MCP and OpenEnv by their own packages: tools that we use, environments that we
offer.
"""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
REPLY = '<reply from="knowledge">mele=#78#25;</reply>'


def run(python: Path, script: str) -> dict[str, Any]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    command = [python, SCRIPTS / script]
    done = subprocess.run(
        command, env=settings, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def mcp(venv: Callable[[str, Sequence[str]], Path]) -> Path:
    return venv("mcp", ["mcp>=2,<3"])


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


@pytest.mark.integrations
def test_an_environment_as_mcp_tools(mcp: Path):
    result = run(mcp, "mcp_play.py")
    assert result["tools"] == ["reset", "step"]
    assert result["is_repeatable"]
    assert result["over_http"]
    assert (result["asked"]["observation"], result["asked"]["terminated"]) == (
        REPLY,
        False,
    )
    assert result["asked"]["info"]["consults_used"] == 1
    ended = result["ended"]
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
    assert "index=-1 must be a whole number" in result["chosen"]


@pytest.mark.integrations
def test_an_environment_as_an_openenv_server(
    venv: Callable[[str, Sequence[str]], Path],
):
    result = run(venv("openenv", ["openenv==0.10.0"]), "openenv_play.py")
    first, asked, ended, num_steps = result["one"]
    assert first[0].startswith("Solve. You may consult.")
    assert asked == [REPLY, 0.0, False, False]
    assert ended == ["", 0.0, True, False]
    assert num_steps == 2
    assert result["is_repeatable"]
    assert result["differs"]
