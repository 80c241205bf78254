"""What `render` gives in each mode, of running episodes too, and episodes repeated from
a cassette.
"""

import builtins
from pathlib import Path

import gymnasium as gym
import pytest

from aipo_env import ConfigError, write_episodes

ACTIONS = ("<knowledge>mele</knowledge>", '<twice>{"number": 2}</twice>', "\\boxed{1}")


def twice(number: int) -> int:
    """Twice a number."""
    return 2 * number


def test_a_page_of_a_running_episode_keeps_the_answer_to_itself():
    pytest.importorskip("jinja2")
    env = gym.make("AIPO-Toy-Turn-v0", render_mode="html", tools=[twice])
    env.reset(seed=0, options={"index": 0})
    assert "7623" not in env.render()
    for action in ACTIONS:
        env.step(action)
    page = env.render()
    assert "expected <code>7623</code>" in page
    assert "Consultation of the Knowledge Agent" in page
    assert "Consultation of the twice tool" in page


@pytest.mark.parametrize(
    ("mode", "begin"), [("ansi", "  prompt │ Solve."), ("html", "<!doctype html>")]
)
@pytest.mark.parametrize("name", ["AIPO-Toy-Turn-v0", "AIPO-Toy-v0"])
def test_a_list_holds_one_rendering_per_step(name: str, mode: str, begin: str):
    pytest.importorskip("jinja2")
    env = gym.make(name, render_mode=f"{mode}_list")
    env.reset(seed=0)
    env.step("<knowledge>mele</knowledge>" if "Turn" in name else 65)
    frames = env.render()
    assert [frame.lower().startswith(begin.lower()) for frame in frames] == [True, True]


def test_without_jinja2_the_mend_is_named(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without_jinja2(name: str, *rest: object) -> object:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *rest)

    env = gym.make("AIPO-Toy-Turn-v0", render_mode="html")
    env.reset(seed=0)
    monkeypatch.setattr(builtins, "__import__", without_jinja2)
    with pytest.raises(ConfigError, match=r'pip install "aipo-rl\[report\]"'):
        env.render()


@pytest.mark.parametrize("prefix", ["", "replay:"])
def test_episodes_repeat_byte_for_byte_from_a_cassette(tmp_path: Path, prefix: str):
    written = []
    for number, spec in enumerate(
        (f"{tmp_path}/replies.jsonl", f"{prefix}{tmp_path}/replies.jsonl")
    ):
        env = gym.make("AIPO-Toy-Turn-v0", tools=[twice], cassette=spec)
        env.reset(seed=5)
        *_, info = [env.step(action)[-1] for action in ACTIONS]
        write_episodes(tmp_path / f"{number}.jsonl", [info["episode_record"]])
        written.append((tmp_path / f"{number}.jsonl").read_bytes())
    assert written[0] == written[1]
    assert b'"seconds": 0.0,' not in written[0]
