"""Ctrl-C and SIGTERM during training: what must be finished is finished and saved; a
second one stops at once.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

from aipo_env import Interrupted, Terminated
from aipo_learner.policy.distributed import world_size


class Abandoned(KeyboardInterrupt):
    """Work that can be done again is given up. A KeyboardInterrupt, because event loops
    let only that through.
    """


class InterruptFlag:
    """While entered, the first Ctrl-C or SIGTERM only sets `requested`; the next one
    acts as usual.

    Whoever sends a SIGTERM soon kills, so it also ends what runs in `abandonable`, at
    once. Outside the main thread, where signals cannot be caught, nothing is done.
    """

    def __init__(self) -> None:
        self.requested = self._is_terminated = self._may_abandon = False
        self._before: dict[
            int, Callable[[int, FrameType | None], Any] | int | None
        ] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def abandonable(self, *, together: bool = False) -> Iterator[None]:
        """Let a SIGTERM, also one that came before, raise Abandoned here.

        Where several processes train, only `together`: who says so lets the others
        know, who would wait for this one.
        """
        before, self._may_abandon = self._may_abandon, together or world_size() == 1
        try:
            if self._is_terminated and self._may_abandon:
                raise Abandoned
            yield
        finally:
            self._may_abandon = before

    def error(self, message: str) -> Interrupted:
        """Return what to raise once all is saved: Terminated after a SIGTERM."""
        return Terminated(message) if self._is_terminated else Interrupted(message)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        # torchrun hands on what its processes were sent already, and kills in the end.
        if world_size() == 1:
            signal.signal(number, self._before[number])
        if number == signal.SIGTERM:
            self._is_terminated = True
            if self._may_abandon:
                self._may_abandon = False  # the next one must not end the cleaning up
                raise Abandoned
