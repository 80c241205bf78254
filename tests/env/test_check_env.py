"""Gymnasium's own checker, without a warning: every id, face, form of observation,
aided or not.
"""

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import aipo_env  # noqa: F401 which registers the environments

IDS = [
    f"AIPO-{subject}{face}-v0"
    for subject in ("Math", "Code", "Science", "Toy")
    for face in ("", "-Turn")
]
FORMS = [
    {"mode": "token", "obs": "flat"},
    {"mode": "token", "obs": "dict"},
    {"mode": "turn", "observation": "transcript"},
    {"mode": "turn", "observation": "delta"},
    {"mode": "turn", "observation": "messages"},
]


@pytest.mark.parametrize("aided", [True, False], ids=["aided", "unaided"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
@pytest.mark.parametrize("name", IDS)
def test_check_env(name: str, form: dict, aided: bool, capsys: pytest.CaptureFixture):
    check_env(gym.make(name, **form, aided=aided).unwrapped)


@pytest.mark.parametrize("codec", ["hermes", "openai", "macro"])
@pytest.mark.parametrize("mode", ["token", "turn"])
def test_check_env_with_other_codecs(
    codec: str, mode: str, capsys: pytest.CaptureFixture
):
    check_env(gym.make("AIPO-Toy-v0", codec=codec, mode=mode).unwrapped)


@pytest.mark.parametrize(
    "options",
    [{"window": 1}, {"source": "toy:difficulty=3"}, {"tokenizer": "tiktoken:aipo"}],
)
def test_check_env_of_other_token_environments(
    options: dict, capsys: pytest.CaptureFixture
):
    check_env(gym.make("AIPO-Toy-v0", **options).unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_the_spec_has_a_json_form(name: str):
    env = gym.make(name)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.reset(seed=3)[1]["task_id"] == env.reset(seed=3)[1]["task_id"]
    assert again.observation_space == env.observation_space
    assert not env.spec.additional_wrappers
