"""Process-wide settings for torch on this machine."""

import ctypes
import os
import platform

import torch

_M_TRIM_THRESHOLD = -1
"""glibc's `mallopt`: free memory at the top of the heap beyond this is given back."""
_M_TOP_PAD = -2
"""glibc's `mallopt`: what the heap grows by beyond what was asked for."""
_M_MMAP_THRESHOLD = -3
"""glibc's `mallopt`: a block of this size or more is a mapping of its own."""
_LARGEST_KEPT = 1 << 30
"""Bytes. Larger than any tensor of a small model; glibc takes an int."""
_HEAP_STEP = 1 << 26
"""Bytes that the heap grows by, so that it seldom does."""
SMALL_MODEL = 5_000_000
"""Weights below which one thread is taken: docs/runs.md has the measurement."""
HAS_AFFINITY = hasattr(os, "sched_getaffinity")
"""Whether the system says which cores a process may use; only Linux does."""


def choose_threads(num_weights: int) -> int:
    """Return how many CPU threads a model of this size is to be computed with.

    Below `SMALL_MODEL` weights a second thread gains little, and on a busy machine it
    loses much: threads wait for each other. From there on, one per core that this
    process may use, and never more than OMP_NUM_THREADS.
    """
    if num_weights < SMALL_MODEL:
        return 1
    num_cores = len(os.sched_getaffinity(0)) if HAS_AFFINITY else os.cpu_count() or 1
    limit = thread_limit()
    return num_cores if limit is None else min(num_cores, limit)


def thread_limit() -> int | None:
    """Return how many threads OMP_NUM_THREADS allows; None if it does not say.

    torchrun sets it to 1, for several ranks on one machine.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdecimal() and int(limit) else None


def prepare(num_threads: int) -> None:
    """Fix the number of threads, and let glibc keep the memory that tensors free.

    Sums depend on the number of threads. By default glibc hands every large block back
    to the kernel and the next tensor faults its pages in again, which can cost as much
    as the arithmetic of a small model.
    """
    torch.set_num_threads(num_threads)
    if platform.libc_ver()[0] != "glibc":
        return
    # None: the process itself, with the C library that it has loaded.
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST_KEPT)
    libc.mallopt(_M_TOP_PAD, _HEAP_STEP)
