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


def test_a_refusal_in_the_midst_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture):
    tasks = write_tasks(tmp_path / "mine.jsonl")
    out = tmp_path / "out"
    words = ["--tasks", f"file:{tasks},test=1", "--samples", "2", "--out", str(out)]
    with FaultServer(["reply"] * 4 + ["401"], text="It is \\boxed{2}.") as server:
        policy = f"openai:mine@{server.url}"
        assert main(["eval", "--policy", policy, *words]) == 2
    assert "can no longer be asked: " in capsys.readouterr().err
    assert not (out / "scores.json").exists()


def test_samples_in_which_the_policy_failed_are_played_again(tmp_path: Path):
    tasks = write_tasks(tmp_path / "mine.jsonl")
    out = tmp_path / "out"
    script = ["reply", "reply", "reply", "500", "500"]
    # On its own, a first question and four tasks: the last two fail, and then all of it
    # begins anew with replies.
    with FaultServer(script, text="It is \\boxed{2}.") as server:
        policy = {"type": "openai", "model": "mine", "url": server.url, "retries": 0}
        words = ["eval", "--policy", json.dumps({**policy, "concurrency": 1})]
        words += ["--tasks", f"file:{tasks},test=1", "--samples", "1"]
        words += ["--out", str(out)]
        assert main(words) == 0
        first = json.loads((out / "scores.json").read_text())["unaided"]
        assert first["num_unverified"] == 2
        assert main(words) == 0
        # The first question, and the two that failed.
        assert len(server.requests) == 8
    scores = json.loads((out / "scores.json").read_text())["unaided"]
    assert (scores["num_unverified"], scores["pass@1"]) == (0, 0.25)


def test_policies_that_differ_at_their_ends_are_two(tmp_path: Path):
    tasks = write_tasks(tmp_path / "mine.jsonl")
    with FaultServer(text="It is \\boxed{2}.") as server:
        for end in ("a", "b"):
            name = "a-model-with-a-name-that-is-longer-than-a-message-shows-it-at-all-"
            words = ["eval", "--policy", f"openai:{name}{end}@{server.url}"]
            words += ["--tasks", f"file:{tasks},test=1", "--samples", "1"]
            assert main([*words, "--out", str(tmp_path / "out")]) == 0
        assert len(server.requests) == 10


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("openai:mine@http://127.0.0.1:9/v1", "was not answered"),
        ('{"type": "openai"', "is no JSON"),
        ('{"type": "vllm", "model": "x"}', "--policy names 'vllm'"),
        ('{"type": "openai", "modle": "x"}', "there is no option 'modle'"),
        ("openai:mine@http://user:word@host/v1", "no password"),
        (
            '{"type": "openai", "model": "m@http://h/v1", "temperature": 0.2}',
            "temperature is said by --temperature",
        ),
        (
            '{"type": "openai", "model": "m@http://h/v1", "extra": {"top_p": 0.9}}',
            "top_p is said by --top-p",
        ),
    ],
)
def test_policies_that_are_none(
    capsys: pytest.CaptureFixture, policy: str, message: str
):
    assert main(["eval", "--policy", policy, "--tasks", "shipped:math"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--num-threads", "1"], "num_threads"),
        (["--sampler", "vllm"], "sampler"),
        (["--trust-remote-code"], "trust_remote_code"),
        (["--chat-template", "mine.jinja"], "chat"),
    ],
)
def test_options_about_weights_are_refused(
    capsys: pytest.CaptureFixture, words: list[str], name: str
):
    policy = "openai:mine@http://127.0.0.1:9/v1"
    assert main(["eval", "--policy", policy, "--tasks", "shipped:math", *words]) == 2
    assert f"eval: {name} means nothing for a policy" in capsys.readouterr().err


def test_an_endpoint_cannot_be_trained(capsys: pytest.CaptureFixture):
    words = ["train", "--policy", "openai:mine@http://127.0.0.1:9/v1"]
    assert main([*words, "--environment", "shipped:math"]) == 2
    assert "cannot be trained" in capsys.readouterr().err
