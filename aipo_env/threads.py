"""What cooperates with asyncio around programs that are somebody else's."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def check_cancelled() -> None:
    """Raise CancelledError if this task was cancelled, and not somebody else's program within it."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all, side by side; return what they return, in order.

    When one raises, the others are cancelled and have ended before the error comes out.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
