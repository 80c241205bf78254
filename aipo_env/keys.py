"""Every draw has a key, so that the order in which things happen changes nothing.

An episode's key is (seed, step, group, rollout). What is drawn within it adds to the
key what it is of, a turn or a call, and a salt that keeps the draws of different
purposes apart: equal keys with different salts give independent numbers.
"""

import hashlib
from collections.abc import Sequence
from enum import IntEnum

import numpy as np

Key = tuple[int, ...]
"""What names an episode, or a draw of it."""

EVALUATION_STEP = 1_000_000
"""The step in the keys of episodes that measure; with agents, the next one.
No training run has as many."""
_SEED_BYTES = 4
"""Bytes of a hash that make a seed for an endpoint, which takes no longer one."""
WAVE_STRIDE = 1_000_000
"""What lies between the rollout numbers of a wave and those of the next."""


class Salt(IntEnum):
    """What a draw is for.

    A number that was given once is never used for anything else.
    """

    TOY_WORLD = 1
    TOY_PROBLEM = 2
    SCRIPTED_AGENT = 3
    WARM_START = 4
    TURN_TOKENS = 5
    TASK_ORDER = 6
    WITHHELD_REPLY = 7
    BOOTSTRAP = 8
    STORED_ORDER = 9
    SPOILED_REPLY = 11
    MIXED_AGENT = 12
    OWN_POLICY = 13
    RETRY_PAUSE = 14
    MINIBATCHES = 15


def keyed_rng(key: Sequence[int], salt: Salt, *further: int) -> np.random.Generator:
    """Return the generator of a key and a purpose.

    Args:
        key: Whose draw it is.
        salt: What the draw is for.
        further: Numbers that name single draws of one purpose, such as a turn.
    """
    # numpy hashes the list as a whole, so neighbouring keys give independent numbers.
    return np.random.default_rng([*key, int(salt), *further])


def short_seed(key: Key) -> int:
    """Return a 32-bit seed that depends on the whole key, for endpoints."""
    # Not `hash`, which differs from one version of Python to the next.
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:_SEED_BYTES], "big")


def rollout_key(seed: int, step: int, group: int, rollout: int, wave: int = 0) -> Key:
    """Return the key of a rollout.

    Args:
        seed: Of the whole run.
        step: The step of a training run, or `EVALUATION_STEP`; where there are no
            steps, leave it to `free_key`.
        group: Number of the group within the step.
        rollout: Number of the rollout within the group.
        wave: 0 for the rollouts that a step begins with; those of the waves after it
            have keys of their own.
    """
    return seed, step, group, rollout + wave * WAVE_STRIDE


def free_key(seed: int, group: int, rollout: int) -> Key:
    """Return the key of a rollout outside of training steps, as environments do."""
    return seed, group, rollout


def rollout_number(name: str) -> int:
    """Return a number for a rollout that has only a name, as in others' libraries.

    It is the same in every process, of 32 bits, and no two names are likely to share
    it.
    """
    return short_seed(tuple(name.encode()))


def evaluation_key(seed: int, task: int, sample: int, *, aided: bool) -> Key:
    """Return the key of a sample of a held-out task, with agents or alone."""
    step = EVALUATION_STEP
    if aided:
        step += 1
    return rollout_key(seed, step, task, sample)
