"""`aipo agents check`: does an endpoint do as the roles demand?"""

import json

import pytest

from aipo_env import AGENTS, cli
from aipo_env.testing import FaultServer

pytest.importorskip("openai")
TYPE = "openai" if "openai" in AGENTS.names() else "aipo_env.agents.chat:ChatAgent"
KEY = "sk-test-4f7a91"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def check(server: FaultServer, **options: object) -> int:
    return cli.main(
        [
            "agents",
            "check",
            json.dumps({"type": TYPE, "model": "tiny", "url": server.url, **options}),
        ]
    )


def test_replies_and_what_they_take_are_printed(capsys: pytest.CaptureFixture):
    with FaultServer(text="Right, take the next step.\x1b[2J") as server:
        assert check(server, price_in=1000.0, price_out=0.0) == 0
    out = capsys.readouterr().out
    assert out.count("  replied  Right, take the next step.\\u001b[2J\n") == 6
    assert (
        out.count("5 tokens, $0.0100, 1 tries; leaks: no, as the role demands: yes\n")
        == 5
    )
    assert (
        out.count("leaks: no, as the role demands: NO\n") == 1
    )  # of the claim that is wrong
    assert out.endswith("5 of 6 replies will do; 6 calls, 30 tokens, $0.0600.\n")
    assert "verify  verify/openai:tiny#" in out
    assert KEY not in out


def test_a_short_spec_and_one_per_role(capsys: pytest.CaptureFixture):
    with FaultServer() as server:
        assert cli.main(["agents", "check", f"{TYPE}:tiny@{server.url}"]) == 0
        assert (
            cli.main(
                ["agents", "check", json.dumps({"verify": f"{TYPE}:tiny@{server.url}"})]
            )
            == 0
        )
    out = capsys.readouterr().out
    assert "4 of 6 replies will do" in out
    assert "0 of 2 replies will do" in out


def test_a_leak_is_told_and_shown(capsys: pytest.CaptureFixture):
    with FaultServer(text="The answer is 9.") as server:
        assert check(server) == 0
    out = capsys.readouterr().out
    assert out.count("  replied  The answer is 9.\n") == 6
    assert out.count("leaks: YES") == 1


@pytest.mark.parametrize("fault", ["500", "reset", "garbage"])
def test_each_question_is_tried_up_to_five_times(
    fault: str, capsys: pytest.CaptureFixture
):
    with FaultServer([fault, fault, "reply"]) as server:
        spec = {"knowledge": {"type": TYPE, "model": "tiny", "url": server.url}}
        assert cli.main(["agents", "check", json.dumps(spec)]) == 0
    assert len(server.requests) == 6
    assert "2 of 2 replies will do" in capsys.readouterr().out


def test_an_endpoint_that_refuses_everything_is_an_error_without_traceback(
    capsys: pytest.CaptureFixture,
):
    with FaultServer(["401"]) as server:
        assert check(server) == 2
    said = capsys.readouterr()
    assert said.out.count("(no reply: lost: openai:tiny#") == 6
    assert said.out.count("/v1: HTTP 401: 'refused: Bearer [key]')") == 6
    assert "0 of 6 replies will do" in said.out
    assert said.err.startswith("aipo: agents: 6 of 6 questions got no reply: lost: ")


def test_an_endpoint_that_hangs_ends_at_the_deadline(capsys: pytest.CaptureFixture):
    with FaultServer(["hang"]) as server:
        spec = json.dumps({"type": TYPE, "model": "tiny", "url": server.url})
        assert cli.main(["agents", "check", spec, "--deadline-s", "0.1"]) == 2
    assert "no reply within 0.1 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("none", "agents: 'none' names nobody to ask"),
        ("{", "agents: '{' cannot be used: JSONDecodeError("),
        ("nobody", "agent: there is no 'nobody'."),
        (f"{TYPE}:tiny@http://u:p@h/v1", "agent 'openai': write openai:MODEL@URL"),
        (
            '{"teach": "scripted"}',
            "agents: role='teach'. Valid: knowledge, reason, verify.",
        ),
        ("json:JSONDecodeError", "agent 'json': JSONDecodeError.__init__() missing 3"),
    ],
)
def test_what_cannot_be_asked_is_named(
    spec: str, message: str, capsys: pytest.CaptureFixture
):
    assert cli.main(["agents", "check", spec]) == 2
    assert message in capsys.readouterr().err
