"""Everything to be known of a GPU, in one go and one JSON: `make gpu`.

    python benchmarks/gpu.py --out gpu.json        # at most 8 minutes on one GPU
    python benchmarks/gpu.py --dry --out dry.json  # the same on a CPU, tiny, untimed

Nothing is downloaded, and vLLM is not needed. Its parts, each with its seconds or the
error that ended it:

- tests: those with the marker `gpu`.
- packing: packed against padded rows, in float32 and bfloat16.
- update: of a random 0.5 B Qwen2 on rows of 4,096 tokens; tokens per second, MFU, and
  peak memory beside what `aipo train --dry-run` foretells.
- aided_step: a whole step with agents and the transformers sampler.
- toy: the recipe of that name from beginning to end, and its result.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from aipo_env import DialogueRules
from aipo_learner import LearnerForward, TrainConfig, train
from aipo_learner.dry_run import estimate, measure
from aipo_learner.learn.rows import Row
from aipo_learner.learn.update import update
from aipo_learner.policy.lora import add_adapter
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.recipes import toy

ROOT = Path(__file__).resolve().parents[1]
PEAK_TFLOPS = {
    "H200": 989.0,
    "H200 NVL": 835.0,
    "H100": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
}
"""Of dense bfloat16 products, by what a device's name holds, of several the longest;
from the data sheets.
"""
PARTS_OF_DEVICES = ("MIG", "Laptop", " D")
"""What stands in the name of less than the whole device, whose peak is not known."""
FLOPS_PER_TRAINED_WEIGHT = 6
"""For each token: forward, and backward for its input and for itself, 2 each."""
FLOPS_PER_FROZEN_WEIGHT = 4
"""The same without a gradient of its own, as under adapters."""
MFU_GOAL = 0.45
MEMORY_GOAL = 0.10
"""How far the foretold memory may be from the measured."""
ROW_TOKENS = 4096
NUM_ROWS = 8
NUM_UPDATES = 4
"""Of each variant; the first warms up."""
LORA_RANK = 16
VARIANTS = {
    "plain": ComputeConfig(),
    "checkpointing": ComputeConfig(gradient_checkpointing=True),
    "compile": ComputeConfig(compile_layers=True),
    "compile, checkpointing": ComputeConfig(
        compile_layers=True, gradient_checkpointing=True
    ),
    "lora": ComputeConfig(lora_rank=LORA_RANK),
}


def qwen2_half_b(*, is_tiny: bool) -> Qwen2Config:
    """Return the shape of Qwen2-0.5B, or one for a machine without a GPU."""
    if is_tiny:
        return Qwen2Config(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    return Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )


def run_tests() -> dict[str, Any]:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/learner"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {
        "exit_code": done.returncode,
        "summary": lines[-1] if lines else done.stderr[-500:],
        "failed": failed,
    }


def packing(shape: Qwen2Config, device: str) -> dict[str, Any]:
    """Return how far packed log-probabilities are from padded ones, in nats."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(shape).to(device).eval()
    lengths = torch.tensor([700, 33, 256, 511])
    ids = torch.randint(0, shape.vocab_size, (len(lengths), int(lengths.max())))
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    differences = {}
    for precision in ("float32", "bfloat16"):
        logprobs = {}
        for layout in ("padded", "packed"):
            forward = LearnerForward(
                model, ComputeConfig(precision=precision, layout=layout)
            )
            with torch.no_grad():
                logprobs[layout], _ = forward(
                    ids.to(device), mask.long().to(device), mask.to(device)
                )
        apart = (logprobs["packed"] - logprobs["padded"]).abs()
        spread = logprobs["padded"][mask.to(device)].std()
        differences[precision] = {
            "max_nats": apart.max().item(),
            "mean_nats": apart.sum().item() / int(mask.sum()),
            "spread_nats": spread.item(),
        }
    return differences


def rows_of(shape: Qwen2Config, num_rows: int, num_tokens: int) -> list[Row]:
    """Return rows whose second half the policy wrote."""
    draw = np.random.default_rng(0)
    own = np.arange(num_tokens) >= num_tokens // 2
    nothing = np.full(num_tokens, np.nan, np.float32)
    rows = []
    for number in range(num_rows):
        rows.append(
            Row(
                token_ids=draw.integers(0, shape.vocab_size, num_tokens),
                policy_mask=own,
                agent_mask=np.zeros(num_tokens, bool),
                sampler_logprobs=nothing,
                agent_logprobs=nothing,
                advantage=1.0 if number % 2 else -1.0,
            )
        )
    return rows


def update_of(
    name: str, shape: Qwen2Config, device: str, num_rows: int, num_tokens: int
) -> dict[str, Any]:
    """Measure updates of one variant."""
    config = VARIANTS[name]
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(shape).to(device).eval()
    if config.lora_rank:
        add_adapter(model, config.lora_rank)
    forward = LearnerForward(model, config)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    settings = TrainConfig(microbatch_tokens=2 * num_tokens).update
    rows = rows_of(shape, num_rows, num_tokens)
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(NUM_UPDATES):
        start = time.perf_counter()
        told = update(forward, optimizer, rows, settings, pad_token_id=0)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    assert told["grad_norm"] > 0
    result: dict[str, Any] = {"packed": forward.is_packed, "loss": told["loss"]}
    if not on_gpu:
        return result
    step_s = sorted(seconds[1:])[len(seconds[1:]) // 2]
    tokens_per_s = num_rows * num_tokens / step_s
    own_share = float(np.mean([row.policy_mask.mean() for row in rows]))
    flops = tokens_per_s * flops_per_token(model, own_share, num_tokens)
    peak = peak_tflops(torch.cuda.get_device_name())
    result |= {
        "first_update_s": seconds[0],
        "update_s": step_s,
        "tokens_per_s": tokens_per_s,
        "mfu": flops / (peak * 1e12) if peak else None,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "foretold_gib": foretold_gib(shape, config, num_tokens),
    }
    return result


def peak_tflops(device_name: str) -> float | None:
    """Return what a GPU could do by its data sheet; None if that is not known."""
    if any(part in device_name for part in PARTS_OF_DEVICES):
        return None
    keys = [key for key in PEAK_TFLOPS if key in device_name]
    return PEAK_TFLOPS[max(keys, key=len)] if keys else None


def flops_per_token(model: PreTrainedModel, own_share: float, num_tokens: int) -> float:
    """Return what the mathematics of an update needs for a token.

    Args:
        model: Of which some weights may be frozen.
        own_share: Of the tokens that the policy wrote: at these alone the head runs.
        num_tokens: Of a row.
    """
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    flops = 0.0
    for weight in model.parameters():
        per_weight = FLOPS_PER_FROZEN_WEIGHT
        if weight.requires_grad:
            per_weight = FLOPS_PER_TRAINED_WEIGHT
        share = 1.0
        if weight is head:
            share = own_share
        elif weight is embedding:
            # Its rows are looked up.
            share = 0.0
        flops += per_weight * share * weight.numel()
    # Two products of attention, over half of the places, three times.
    config = model.config
    attention = 6 * config.num_hidden_layers * config.hidden_size * num_tokens
    return flops + attention


def aided_step(device: str, folder: Path) -> dict[str, Any]:
    """Run one whole step with agents; return its seconds by part, and its metrics."""
    config = TrainConfig(
        out=folder / "step",
        num_steps=2,
        groups_per_step=8,
        group_size=8,
        lr=1e-5,
        loggers="",
        sampler="transformers",
    )
    train(config, Console(quiet=True))
    # The first step warms up.
    row = read_metrics(folder / "step" / "metrics.jsonl")[-1]
    names = [name for name in row if name.startswith(("seconds/", "consult_rate"))]
    names += ["kl_sampler", "grad_norm", "agent_tokens", "policy_tokens"]
    return {name: row[name] for name in names if name in row} | {"device": device}


def toy_run(folder: Path, num_steps: int) -> dict[str, Any]:
    """Train the toy recipe; return what the policy then does alone."""
    whole = toy()
    config = whole.changed(
        {
            "out": str(folder / "toy"),
            "num_steps": num_steps or whole.num_steps,
            "evaluation": EvaluationSchedule(every=num_steps or whole.num_steps),
            "loggers": "",
            "sampler": "transformers",
        }
    )
    train(config, Console(quiet=True))
    rows = read_metrics(folder / "toy" / "metrics.jsonl")
    scores = [row["eval/pass_at_1"] for row in rows if "eval/pass_at_1" in row]
    return {"num_steps": config.num_steps, "pass_at_1_alone": scores[-1]}


def timed(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a part gives, with its seconds, or how it failed."""
    start = time.perf_counter()
    try:
        result = part()
    # The other parts are worth having.
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**result, "seconds": round(time.perf_counter() - start, 1)}


def has_failed(result: dict[str, Any]) -> bool:
    """Return whether a part ended with an error, or tests that it ran failed."""
    return "error" in result or result.get("exit_code", 0) != 0


def foretold_gib(shape: Qwen2Config, compute: ComputeConfig, num_tokens: int) -> float:
    """Return the memory of an update by the sums of `aipo train --dry-run`, in GiB."""
    config = TrainConfig(
        compute=compute, microbatch_tokens=2 * num_tokens, sampler="transformers"
    )
    size = measure(shape, config, num_tokens)
    rules = DialogueRules(max_context_tokens=num_tokens)
    # Of the weights and the optimiser, and of an update.
    state, work, *_ = estimate(config, rules, size, "H100 80 GB", 1)
    return float(state) + float(work)


def main() -> None:
    """Run all parts, and write the JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--dry", action="store_true", help="tiny, on a CPU, untimed")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: there is no CUDA device; --dry runs without one.")
    device = "cpu" if options.dry else "cuda"
    shape = qwen2_half_b(is_tiny=options.dry)
    num_rows, num_tokens = (2, 64) if options.dry else (NUM_ROWS, ROW_TOKENS)
    report: dict[str, Any] = {
        "machine": {
            "device": "cpu" if options.dry else torch.cuda.get_device_name(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "load": os.getloadavg()[0],
        },
        "goals": {"mfu": MFU_GOAL, "memory": MEMORY_GOAL},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "tests": run_tests,
            "packing": lambda: packing(shape, device),
        }
        for name in VARIANTS:
            parts[f"update, {name}"] = lambda name=name: update_of(
                name, shape, device, num_rows, num_tokens
            )
        parts["aided_step"] = lambda: aided_step(device, folder)
        parts["toy"] = lambda: toy_run(folder, 1 if options.dry else 0)
        for name, part in parts.items():
            report[name] = timed(part)
            print(f"{name}: {json.dumps(report[name])}", flush=True)
            # What is measured is kept, whatever comes after.
            options.out.write_text(json.dumps(report, indent=2), encoding="utf-8")
    if any(has_failed(report[name]) for name in parts):
        sys.exit(1)


if __name__ == "__main__":
    main()
