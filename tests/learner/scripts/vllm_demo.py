"""Runs the whole demonstration with vLLM as the sampler of every arm; prints what each
arm reached alone.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from aipo_learner.demo import run_demo
from aipo_learner.settings.recipes import toy, toy_base, toy_masked


def main(out: Path) -> None:
    """Run and print."""
    arms = {"aipo": toy(), "masked": toy_masked(), "base": toy_base()}
    sampler = {"type": "vllm", "enforce_eager": True}
    arms = {name: replace(config, sampler=sampler) for name, config in arms.items()}
    run_demo(0, out, Console(quiet=True), arms)
    summary = json.loads((out / "summary.json").read_text())
    reached = {
        name: arm["unaided"]["after"]["pass@1"] for name, arm in summary["arms"].items()
    }
    print(json.dumps({"reached": reached, "against": summary["against"]}))


if __name__ == "__main__":  # vLLM starts processes that read this file again
    main(Path(sys.argv[1]))
