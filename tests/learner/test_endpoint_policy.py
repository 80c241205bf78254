"""`aipo eval` of a model behind an endpoint."""

import json
from pathlib import Path

import pytest

from aipo_env import FaultServer
from aipo_env.cli import main


def write_tasks(path: Path) -> Path:
    rows = [{"prompt": f"{n} + 0?", "answer": n} for n in (2, 3, 4, 5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_endpoint_is_measured_like_any_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    tasks = write_tasks(tmp_path / "mine.jsonl")
    out = tmp_path / "out"
    with FaultServer(text="It is \\boxed{2}.") as server:
        words = ["eval", "--policy", f"openai:mine@{server.url}", "--out", str(out)]
        words += ["--tasks", f"file:{tasks},test=1", "--samples", "2"]
        words += ["--temperature", "0.6", "--top-p", "0.95", "--max-tokens", "77"]
        assert main(words) == 0
        num_asked = len(server.requests)
        # A first question, and four tasks of two samples.
        assert num_asked == 9
        assert main(words) == 0
        # All samples are there: only the first question is asked again.
        assert len(server.requests) == num_asked + 1
    body = server.requests[1][1]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.6, 0.95, 77)
    scores = json.loads((out / "scores.json").read_text())["unaided"]
    assert (scores["num_tasks"], scores["pass@1"]) == (4, 0.25)
    assert "openai:mine at http" in capsys.readouterr().out


def test_greedy_is_temperature_0(tmp_path: Path):
    tasks = write_tasks(tmp_path / "mine.jsonl")
    with FaultServer(text="It is \\boxed{2}.") as server:
        policy = json.dumps({"type": "openai", "model": "mine", "url": server.url})
        words = ["eval", "--policy", policy, "--tasks", f"file:{tasks},test=1"]
        assert main([*words, "--samples", "1", "--temperature", "0"]) == 0
    body = server.requests[1][1]
    assert body["temperature"] == 0
    assert "top_k" not in body


@pytest.mark.parametrize(
    ("script", "message"),
    [("401", "HTTP 401"), ("404", "HTTP 404"), ("garbage", "no chat completion")],
)
def test_an_endpoint_that_does_not_answer_is_named_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, script: str, message: str
):
    tasks = write_tasks(tmp_path / "mine.jsonl")
    with FaultServer([script]) as server:
        words = ["eval", "--policy", f"openai:mine@{server.url}", "--samples", "1"]
        assert main([*words, "--tasks", f"file:{tasks},test=1"]) == 2
        assert len(server.requests) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Check the model's name, the URL and the key." in said


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("openai:mine@http://127.0.0.1:9/v1", "was not answered"),
        ('{"type": "openai"', "is no JSON"),
        ('{"type": "vllm", "model": "x"}', "--policy names 'vllm'"),
        ('{"type": "openai", "modle": "x"}', "there is no option 'modle'"),
        ("openai:mine@http://user:word@host/v1", "no password"),
    ],
)
def test_policies_that_are_none(
    capsys: pytest.CaptureFixture, policy: str, message: str
):
    assert main(["eval", "--policy", policy, "--tasks", "shipped:math"]) == 2
    assert message in capsys.readouterr().err


def test_an_endpoint_cannot_be_trained(capsys: pytest.CaptureFixture):
    words = ["train", "--policy", "openai:mine@http://127.0.0.1:9/v1"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--environment", "shipped:math"])
    assert "cannot be trained" in capsys.readouterr().err
