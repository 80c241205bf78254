"""A person is the policy."""

import io
import json
from pathlib import Path

import pytest

from aipo_env import (
    AgentPool,
    CannedAgent,
    Scenario,
    StopReason,
    Task,
    Verdict,
    build_scenario,
)
from aipo_env.terminal import play_in_terminal

PROMPT = "  prompt │ Solve. You may consult.\n  prompt │ Apply mele to 0808.\n"


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_person_consults_and_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    type_in(
        monkeypatch,
        "\n\nLet me"
        " ask.\n<knowledge>mele</knowledge>\n0808+7825=7623\n\\boxed{7623}\n\n",
    )
    episode = play_in_terminal(build_scenario())
    assert [turn.completion for turn in episode.turns] == [
        "Let me ask.\n<knowledge>mele</knowledge>",
        "0808+7825=7623\n\\boxed{7623}",
    ]
    assert episode.correct
    out = capsys.readouterr().out
    assert out.startswith(PROMPT)
    assert (
        "at most 6 times, by ending your turn with one of:\n<knowledge>…</knowledge>"
        in out
    )
    assert (
        '     env │ <reply from="knowledge">\n   agent │ mele=#78#25;\n     env │'
        " </reply>\n" in out
    )
    assert out.endswith("Verdict: correct. Your answer: 7623. Consultations: 1.\n")


def test_alone_there_is_no_protocol(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    type_in(monkeypatch, "<knowledge>mele</knowledge>\n\n")
    episode = play_in_terminal(build_scenario(), split="test", index=1, aided=False)
    assert (episode.task.id, episode.stop_reason) == (
        "toy-0-test-1",
        StopReason.NO_ANSWER,
    )
    out = capsys.readouterr().out
    assert "consult an agent" not in out
    assert "Verdict: no answer (no " in out


class Reader:
    """Accepts whatever was handed in."""

    async def verify(self, task: Task, text: str) -> Verdict:
        return Verdict(correct=True, reward=1.0, status="correct", extracted=text)


def test_a_program_has_empty_lines_and_ends_at_a_full_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
):
    tests = {"kind": "stdin", "hidden": [{"input": "", "output": "1"}]}
    row = {
        "id": "one",
        "prompt": "Print 1.",
        "answer": "",
        "kind": "code",
        "tests": tests,
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps(row))
    scenario = build_scenario(
        f"file:{tmp_path}/tasks.jsonl", CannedAgent("right"), verifier=Reader()
    )
    turns = [
        "",
        ".",
        "<verify>print(1)</verify>",
        "```python",
        "import os",
        "",
        "",
        "print(1)",
        "```",
        ".",
    ]
    type_in(monkeypatch, "\n".join(turns))
    episode = play_in_terminal(scenario)
    assert [turn.completion for turn in episode.turns] == [
        "<verify>print(1)</verify>",
        "```python\nimport os\n\n\nprint(1)\n```",
    ]
    assert episode.correct
    out = capsys.readouterr().out
    assert (
        'A line with only "." ends your turn; a turn that asks nothing is your final'
        " answer, a program." in out
    )
    assert out.count("at most 3 times, by ending your turn") == 1
    assert out.endswith("Verdict: correct. Consultations: 1.\n")


def test_a_limit_ends_the_game_without_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    type_in(monkeypatch, "x" * 50 + "\n\n")
    play_in_terminal(build_scenario(rules={"max_policy_tokens": 40}))
    assert capsys.readouterr().out.endswith(
        "Ended without a verdict: max_sampled_tokens.\n"
    )


def test_ctrl_d_ends_cleanly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    type_in(monkeypatch, "half a turn\n")
    episode = play_in_terminal(build_scenario())
    assert (episode.stop_reason, episode.reward, episode.turns) == (
        StopReason.CANCELLED,
        None,
        (),
    )
    assert capsys.readouterr().out.endswith("\nEnded without a verdict: cancelled.\n")


def test_ctrl_c_ends_cleanly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def interrupt(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    assert play_in_terminal(build_scenario()).stop_reason == StopReason.CANCELLED
    assert capsys.readouterr().out.endswith("Ended without a verdict: cancelled.\n")


def test_an_agent_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    plain = build_scenario()
    pool = AgentPool({"knowledge": CannedAgent("\x1b[2J\u202ehello\nworld")})
    scenario = Scenario(plain.source, plain.rules, plain.codec, plain.verifier, pool)
    type_in(monkeypatch, "<knowledge>mele</knowledge>\n\\boxed{\x1b[31m}\n\n")
    play_in_terminal(scenario)
    out = capsys.readouterr().out
    assert "   agent │ \\u001b[2J\\u202ehello\n         │ world\n" in out
    assert "Your answer: \\u001b[31m." in out
    assert "\x1b" not in out
