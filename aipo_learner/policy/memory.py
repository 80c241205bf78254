"""What the user is told where memory runs out."""

import contextlib
from collections.abc import Callable, Iterator

import torch

from aipo_env import ConfigError


@contextlib.contextmanager
def out_of_memory_explained(advise: Callable[[], str]) -> Iterator[None]:
    """Turn an error for want of memory into ConfigError with advice on what to change.

    Args:
        advise: Returns the advice; called only when it is needed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise ConfigError(f"out of memory: {reason} {advise()}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that there is no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # On CPU torch has no error of its own for it.
    return "allocate memory" in str(error)
