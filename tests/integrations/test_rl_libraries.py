"""Other libraries step the environments as they are."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]
TORCH = "torch==2.13.0"
REPLY = 'user: <reply from="knowledge">mele=#78#25;</reply>'


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_documentation_shows_tested_code():
    here = Path(__file__).parent
    document = (here.parents[1] / "docs" / "rl_libraries.md").read_text()
    scripts = [lines(path.read_text()) for path in here.glob("scripts/step_*.py")]
    blocks = [
        lines(block)
        for block in re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    ]
    assert len(blocks) == len(scripts) == 6
    for block in blocks:
        # Every line stands in one script, in this order; a script may do more in
        # between.
        ordered = [all(line in rest for line in block) for rest in map(iter, scripts)]
        assert any(ordered), "\n".join(["no script does this:", *block])


@pytest.mark.integrations
def test_sb3(run_script: Run):
    assert run_script("sb3") == {"num_timesteps": [256, 256]}


@pytest.mark.integrations
def test_torchrl(run_script: Run):
    result = run_script("torchrl", TORCH, "torchrl==0.14.1", "tensordict==0.14.3")
    assert result.pop("highest") <= 256  # macro tokens, masked here, begin at 257
    assert result == {
        "rewards": {"Categorical": [20, 1], "OneHot": [20, 1]},
        "turn_spec": "NonTensor",
        "prompt": "system: Solve. You may consult.",
        "reply": REPLY,
    }


@pytest.mark.integrations
def test_rllib(run_script: Run):
    result = run_script("rllib", TORCH, "ray[rllib]==2.60.0", "gymnasium==1.2.2")
    assert result["is_over"] == [True, True]
    assert result["shapes"] == [[16], [16]]
    assert result["num_steps"] == result["num_tokens"]
    assert all(1 <= length <= 24 for length in result["num_steps"])


@pytest.mark.integrations
def test_tianshou(run_script: Run):
    assert run_script("tianshou", TORCH, "tianshou==2.0.1") == {
        "num_episodes": 4,
        "num_ends": 4,
        "num_steps": 160,
        "obs": [160, 16],
        "num_tokens": 160,
    }


@pytest.mark.integrations
def test_cleanrl_rules(run_script: Run):
    result = run_script("cleanrl")
    assert (result["num_inputs"], result["num_outputs"]) == (16, 260)
    assert result["longest"] == 24
    assert result["num_episodes"] >= 4 * 3 * 64 // 24
    assert result["has_moved"]
    assert result["is_finite"]


@pytest.mark.integrations
def test_gymnasium_vector_environments(run_script: Run):
    result = run_script("gymnasium")
    assert result["tokens_equal"]
    assert result["num_ends"] >= 20
    assert result["turns_equal"]
    assert result["reply"] == REPLY
    assert result["turns"] == [[0.0, 1.0], [False, True], [1, 0]]
    assert "text cannot be put in shared memory" in result["refusal"]
    assert "shared_memory=False" in result["refusal"]
