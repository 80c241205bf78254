"""Ctrl-C and SIGTERM during training: what must be finished is, and is saved.

A second one stops at once.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

from aipo_env import Interrupted, Terminated
from aipo_learner.policy.distributed import world_size

_Handler = Callable[[int, FrameType | None], Any] | int | None
"""What `signal.signal` takes and returns."""


class Abandoned(KeyboardInterrupt):
    """Work that can be done again is given up.

    A KeyboardInterrupt, because event loops let only that through.
    """


class InterruptFlag:
    """While entered, Ctrl-C or SIGTERM only sets `requested`, once: the next one acts.

    Whoever sends a SIGTERM soon kills, so it also ends what runs in `abandonable`, at
    once. Outside the main thread, where signals cannot be caught, nothing is done.
    """

    def __init__(self) -> None:
        self.requested = False
        self._is_terminated = False
        """Whether a SIGTERM came."""
        self._may_abandon = False
        """Whether what runs now may be given up."""
        self._before: dict[int, _Handler] = {}
        """The handlers that were set outside, by signal."""

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # First, for a signal may come as soon as its handler is set.
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def abandonable(self, *, together: bool = False) -> Iterator[None]:
        """Let a SIGTERM, also one that came before, raise Abandoned here.

        Args:
            together: Whether the caller lets the other processes know that train with
                this one. Where there are others and it does not, nothing is given up:
                they would wait for this one for ever.
        """
        before = self._may_abandon
        self._may_abandon = together or world_size() == 1
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
        """Take a signal."""
        self.requested = True
        # Several processes are torchrun's: it passes a signal on that they were sent
        # already, which is no second wish, and kills in the end.
        if world_size() == 1:
            signal.signal(number, self._before[number])
        if number == signal.SIGTERM:
            self._is_terminated = True
            if self._may_abandon:
                # The next one must not end the cleaning up.
                self._may_abandon = False
                raise Abandoned
