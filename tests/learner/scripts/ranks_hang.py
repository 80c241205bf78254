"""A rank of `aipo train` that, if it is one of $HANGING, hangs in the sampling of step
2.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import aipo_learner.rollout.sampled
from aipo_env.cli import main

real, rank = aipo_learner.rollout.sampled.play_wave, int(os.environ["RANK"])


async def hang(scenario, sessions, *others):
    if rank in json.loads(os.environ["HANGING"]) and any(
        session.key[1] == 2 for session in sessions
    ):
        Path(os.environ["HANGS"], f"hangs-{rank}").touch()
        await asyncio.sleep(600)
    return await real(scenario, sessions, *others)


aipo_learner.rollout.sampled.play_wave = hang
sys.exit(main(["train", "--config", sys.argv[1]]))
