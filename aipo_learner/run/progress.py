"""What goes on within a step, said while it does.

On a terminal it is a line that changes, below all others, and disappears in the end;
elsewhere a plain line now and then, so that a log shows life and stays short.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from queue import Empty, SimpleQueue
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from aipo_env import escape_terminal

FIRST_S = 5.0
"""Seconds after which the first plain line comes."""
EVERY_S = 30.0
"""Seconds between plain lines, at least."""
_LOOK_S = 0.25
"""Seconds between two looks at what goes on, and so between changes of the line."""
SEPARATOR = " · "
"""Stands between what is said of one thing and the next."""

Describe = Callable[[], str]
"""Says what a part of the work has come to. Called from another thread, at any time."""


class Progress:
    """Says what goes on, while entered, and what is to be known at once.

    Args:
        console: Where it is said; a quiet one says nothing.
        first_s: Seconds after which the first plain line comes.
        every_s: Seconds between plain lines, and after what else was said.
    """

    def __init__(
        self, console: Console, *, first_s: float = FIRST_S, every_s: float = EVERY_S
    ) -> None:
        self._console = console
        self._every_s = every_s
        self._first_s = first_s
        self._heading = ""
        self._parts: list[Describe] = []
        self._due_s = 0.0
        # A lock may be held when a signal comes; this queue takes from its handler too.
        self._notes: SimpleQueue[str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if not self._console.quiet:
            self._due_s = time.monotonic() + self._first_s
            self._thread = threading.Thread(
                target=self._show, name="aipo-progress", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._notes.put(None)
            self._thread.join()
            self._thread = None

    def begin(self, heading: str) -> None:
        """Say what all that follows belongs to, such as a step of a run."""
        if self._heading:
            # What is over was told just now, in a line of its own.
            self._due_s = time.monotonic() + self._every_s
        self._heading = heading

    @contextmanager
    def part(self, describe: Describe) -> Iterator[None]:
        """While within, a part of the work is under way; several may be at once."""
        self._parts.append(describe)
        try:
            yield
        finally:
            self._parts.remove(describe)

    def note(self, text: str) -> None:
        """Say something at once, from a signal's handler too."""
        self._notes.put(text)

    def line(self) -> str:
        """Return what goes on, in one line; "" if nothing does."""
        parts = [describe() for describe in list(self._parts)]
        said = SEPARATOR.join(part for part in parts if part)
        if not said:
            return ""
        return f"{self._heading}  {said}" if self._heading else said

    def _show(self) -> None:
        """Show what goes on until this is left."""
        is_live = self._console.is_terminal
        live = self._live() if is_live else nullcontext()
        with live:
            for note in iter(self._next_note, None):
                if note:
                    say(self._console, note)
                if isinstance(live, Live):
                    live.refresh()
                else:
                    self._print_if_due()

    def _live(self) -> Live:
        """Return a line that changes at the bottom of the terminal."""
        return Live(
            console=self._console,
            get_renderable=self._renderable,
            auto_refresh=False,
            transient=True,
            # What is written to another place stays there.
            redirect_stderr=sys.stderr.isatty(),
        )

    def _renderable(self) -> Text:
        # Cut at the terminal's edge: over two lines it would leave one behind.
        line = escape_terminal(self.line())
        return Text(line, no_wrap=True, overflow="ellipsis")

    def _next_note(self) -> str | None:
        """Wait for a note; "" if none came for a while, None when this is left."""
        try:
            return self._notes.get(timeout=_LOOK_S)
        except Empty:
            return ""

    def _print_if_due(self) -> None:
        """Print a plain line if nothing was said for long."""
        now = time.monotonic()
        # Also where none is due: what has a rate takes it from the first look on.
        line = self.line()
        if line and now >= self._due_s:
            say(self._console, line)
            self._due_s = now + self._every_s


def say(console: Console, text: str) -> None:
    """Print a line whole, however long it is, as it reads.

    Args:
        console: Where.
        text: May tell what agents, verifiers and files say.
    """
    console.print(escape_terminal(text), highlight=False, markup=False, soft_wrap=True)


SILENT = Progress(Console(quiet=True))
"""Says nothing, for whoever is not asked what goes on."""


class WorkCount:
    """How much of some work is done: "update 3/7".

    Args:
        name: Of the work.
        total: How many parts it has.
    """

    def __init__(self, name: str, total: int) -> None:
        self._name = name
        self._total = total
        self._num_done = 0

    def add(self) -> None:
        """WorkCount a part that is done."""
        self._num_done += 1

    def text(self) -> str:
        """Return how many are done, of how many."""
        return f"{self._name} {self._num_done}/{self._total}"
