"""Ctrl-C and SIGTERM during training: what must be finished is, and is saved.

A second one stops at once. What comes of it is said when it comes, whatever is computed
just then.
"""

import contextlib
import signal
import socket
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


FINISHING = "finishing this step"
"""Is said of the first Ctrl-C."""
AGAIN = "; again to stop now"
"""Is added where a second one is heard."""
STOPPING = "stopping: what is being sampled is given up"
"""Is said of the second Ctrl-C, and of SIGTERM."""


class InterruptFlag:
    """While entered, Ctrl-C or SIGTERM only sets `requested`, once: the next one acts.

    A second Ctrl-C ends what runs in `abandonable`, and raises KeyboardInterrupt
    elsewhere. Whoever sends a SIGTERM soon kills, so it ends what runs in `abandonable`
    the first time. Outside the main thread, where signals cannot be caught, nothing is
    done.

    Args:
        tell: Is called with what a signal does, from another thread, as soon as it
            comes.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self.requested = False
        self._tell = tell
        self._is_terminated = False
        """Whether a SIGTERM came."""
        self._gives_up = False
        """Whether what may be given up is to be: after a SIGTERM, or a second Ctrl-C.
        """
        self._may_abandon = False
        """Whether what runs now may be given up."""
        self._before: dict[int, _Handler] = {}
        """The handlers that were set outside, by signal."""
        self._opened = contextlib.ExitStack()
        """Ends the telling."""

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._opened.enter_context(self._telling())
            for number in (signal.SIGINT, signal.SIGTERM):
                # First, for a signal may come as soon as its handler is set.
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._opened.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Have a thread told of every signal at once.

        Handlers wait until the main thread is back from what it computes, which may be
        a whole backward pass.
        """
        ours, pythons = socket.socketpair()
        pythons.setblocking(False)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(
            target=self._answer, args=(ours,), name="aipo-signals", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            # The thread reads to the end.
            pythons.close()
            thread.join()
            ours.close()

    def _answer(self, arrivals: socket.socket) -> None:
        """Tell what signals do, each of which is a byte, its number."""
        num_ctrl_c = 0
        while number := arrivals.recv(1):
            if number[0] == signal.SIGTERM:
                self._tell(STOPPING)
            # torchrun passes on what its processes were sent already.
            elif number[0] == signal.SIGINT and (num_ctrl_c == 0 or world_size() == 1):
                again = AGAIN if world_size() == 1 else ""
                self._tell(STOPPING if num_ctrl_c else FINISHING + again)
                num_ctrl_c += 1

    @contextlib.contextmanager
    def abandonable(self, *, together: bool = False) -> Iterator[None]:
        """Let a SIGTERM or second Ctrl-C, also an earlier one, raise Abandoned here.

        Args:
            together: Whether the caller lets the other processes know that train with
                this one. Where there are others and it does not, nothing is given up:
                they would wait for this one for ever.
        """
        before = self._may_abandon
        self._may_abandon = together or world_size() == 1
        try:
            if self._gives_up and self._may_abandon:
                raise Abandoned
            yield
        finally:
            self._may_abandon = before

    def error(self, message: str) -> Interrupted:
        """Return what to raise once all is saved: Terminated after a SIGTERM."""
        return Terminated(message) if self._is_terminated else Interrupted(message)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        is_first = not self.requested
        self.requested = True
        if number == signal.SIGTERM:
            self._is_terminated = True
        # Several processes are torchrun's: it passes a signal on that they were sent
        # already, which is no second wish, and kills in the end.
        is_heard_once = world_size() > 1
        if number == signal.SIGINT and (is_first or is_heard_once):
            return
        self._gives_up = True
        if not is_heard_once:
            # The next one is for whoever was there before.
            signal.signal(number, self._before[number])
        if self._may_abandon:
            # The next one must not end the cleaning up.
            self._may_abandon = False
            raise Abandoned
        if number == signal.SIGINT:
            raise KeyboardInterrupt
