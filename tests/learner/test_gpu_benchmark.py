"""`make gpu`, on a machine without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_everything_about_a_gpu_can_be_rehearsed_on_a_cpu(tmp_path: Path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--dry", "--out", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["machine"]["device"] == "cpu"
    assert report["tests"]["exit_code"] == 0
    assert report["packing"]["float32"]["max_nats"] < 1e-4
    assert report["toy"]["num_steps"] == 1
    assert report["aided_step"]["grad_norm"] > 0
    assert not report["update, plain"]["packed"]
    assert not any("error" in part for part in report.values())
