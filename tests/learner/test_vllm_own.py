"""vLLM in the learner's process, on CPU, in a virtual environment that has it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parent / "scripts"


def run(python: Path, name: str, out: Path, timeout_s: float) -> dict[str, Any]:
    settings = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    command = [python, SCRIPTS / f"vllm_{name}.py", out]
    done = subprocess.run(
        command,
        env=settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_toy_recipe_trains(vllm_python: Path, tmp_path: Path):
    result = run(vllm_python, "own", tmp_path, 900)
    assert [row["step"] for row in result["rows"]] == [1, 2, 3]
    for row in result["rows"]:
        assert 0 < row["kl_sampler/max_gap"] < 1e-3
        assert abs(row.get("kl_sampler", 0.0)) < 1e-3
        assert row["failed_episodes"] == 0
    assert result["surface"] == {
        "nccl": ["nccl", "127.0.0.1", 29500, 3],
        "ipc": "ipc",
        "is_client": [True, True],
        "init": ["init_info", "client", "source"],
        "source": ["module"],
    }


def test_the_demo_reaches_its_result(vllm_python: Path, tmp_path: Path):
    result = run(vllm_python, "demo", tmp_path, 7200)
    assert result["reached"]["aipo"] > 0.7
    assert result["reached"]["aipo"] > result["reached"]["base"]
    low, _ = result["against"]["base"]["intervals"]["pass@1"]
    assert low > 0
