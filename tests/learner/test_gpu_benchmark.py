"""`make gpu`, on a machine without one."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Qwen2ForCausalLM

from aipo_learner.policy.lora import add_adapter

ROOT = Path(__file__).resolve().parents[2]


GPU = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))


def test_the_head_counts_where_the_policy_wrote():
    model = Qwen2ForCausalLM(GPU["qwen2_half_b"](is_tiny=True))
    # Not tied: an embedding of 512 x 64 that is looked up, and a head as large.
    num_weights = sum(weight.numel() for weight in model.parameters())
    inner = num_weights - 2 * 512 * 64
    attention = 6 * 2 * 64 * 100
    for share in (0.0, 0.5, 1.0):
        wanted = 6 * (inner + share * 512 * 64) + attention
        assert GPU["flops_per_token"](model, share, 100) == wanted
    model.config.tie_word_embeddings = True
    model.tie_weights()
    assert GPU["flops_per_token"](model, 0.5, 100) == (
        6 * (inner + 0.5 * 512 * 64) + attention
    )


# That is peft's import of a module of its own.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_weights_have_no_gradient_of_their_own():
    pytest.importorskip("peft")
    model = Qwen2ForCausalLM(GPU["qwen2_half_b"](is_tiny=True))
    inner = sum(weight.numel() for weight in model.parameters()) - 2 * 512 * 64
    add_adapter(model, 2)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert GPU["flops_per_token"](model, 0.5, 0) == (
        6 * trained + 4 * (inner + 0.5 * 512 * 64)
    )


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA H200 NVL", 835.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA GeForce RTX 4090", 165.0),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA T4", None),
    ],
)
def test_each_gpu_has_the_peak_of_its_own_data_sheet(name: str, peak: float | None):
    assert GPU["peak_tflops"](name) == peak


def test_a_part_fails_by_an_error_and_by_its_tests():
    assert GPU["has_failed"]({"error": "RuntimeError: out of memory", "seconds": 1.0})
    assert GPU["has_failed"]({"exit_code": 1, "failed": ["FAILED x"], "seconds": 1.0})
    assert not GPU["has_failed"]({"exit_code": 0, "failed": [], "seconds": 1.0})
    assert not GPU["has_failed"]({"mfu": None, "seconds": 1.0})


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
