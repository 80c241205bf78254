"""The command `aipo warmstart`, which makes the tiny policy anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import arg


@dataclass(frozen=True, kw_only=True)
class WarmstartOptions:
    """Teach the tiny policy from scratch and hold it to its gates."""

    out: Annotated[Path, arg(help="Folder for the Hugging Face model.")] = Path(
        "runs/tiny_policy"
    )
    seed: Annotated[int, arg(help="Draws the weights and the transcripts.")] = 0
    num_threads: Annotated[int, arg(help="CPU threads of torch.")] = 2


def warmstart(argv: list[str]) -> None:
    """Teach the tiny policy from scratch.

    Args:
        argv: The words after `aipo warmstart`.
    """
    options = tyro.cli(WarmstartOptions, args=argv, prog="aipo warmstart")
    console = Console()
    line = f"teaches the tiny policy, for {options.out}: loading"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    # When the words have been read: torch takes seconds.
    from aipo_learner.policy.runtime import prepare
    from envs_data.prepare.tiny_policy import WarmstartConfig, write_tiny_policy

    prepare(options.num_threads)
    write_tiny_policy(WarmstartConfig(seed=options.seed), options.out, console)
