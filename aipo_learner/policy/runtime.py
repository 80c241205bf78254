"""Process-wide settings for torch on this machine."""

import ctypes
import platform

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def prepare(num_threads: int) -> None:
    """Fix the number of threads (sums depend on it) and let glibc keep the memory that
    tensors free.

    By default glibc hands every large block back to the kernel and the next tensor
    faults its pages in again, which can cost as much as the arithmetic of a small
    model.
    """
    torch.set_num_threads(num_threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            libc.mallopt(option, 1 << 30)
        libc.mallopt(_M_TOP_PAD, 1 << 26)
