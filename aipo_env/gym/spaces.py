"""A space of texts in any script.

`gymnasium.spaces.Text` wants every allowed character listed, and checks each.
"""

import multiprocessing
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces
from gymnasium.error import CustomSpaceError
from gymnasium.vector.utils import create_shared_memory
from numpy.typing import NDArray

MAX_TEXT_CHARS = 1_000_000
"""Longest observation."""
MAX_SAMPLED_CHARS = 256
"""`sample` draws no longer text than this."""
_PRINTABLE = "".join(map(chr, range(ord(" "), ord("~") + 1))) + "\n"
"""What samples are made of: printable ASCII."""

_Draw = tuple[int | None, NDArray[Any] | None] | None
"""How long a sample is, and how its characters are chosen; None: drawn."""


class UnicodeText(spaces.Text):
    """Any text of at most `max_length` characters.

    Membership costs O(1). Samples are printable ASCII of at most 256 characters. It has
    no flat form.
    """

    def __init__(
        self, max_length: int, *, seed: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(max_length, min_length=0, charset=_PRINTABLE, seed=seed)

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a text that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: _Draw = None, probability: _Draw = None) -> str:
        """Draw a text of printable ASCII.

        Args:
            mask: As in `gymnasium.spaces.Text`; likewise `probability`.
        """
        # Gymnasium would draw a length of up to a million, and that many characters.
        if mask is None and probability is None:
            longest = min(self.max_length, MAX_SAMPLED_CHARS)
            mask = (int(self.np_random.integers(longest + 1)), None)
        return super().sample(mask=mask, probability=probability)

    @property
    def is_np_flattenable(self) -> bool:
        """False: text has no fixed size."""
        return False

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length


@create_shared_memory.register(UnicodeText)
def _refuse_shared_memory(
    space: UnicodeText, n: int = 1, ctx: ModuleType = multiprocessing
) -> NoReturn:
    """Refuse shared memory.

    Gymnasium's own handler of Text returns the text that was there before the first
    reset, at every step.
    """
    advice = "Make the AsyncVectorEnv with shared_memory=False."
    raise CustomSpaceError(f"{space!r}: text cannot be put in shared memory. {advice}")


def _refuse_flat(space: UnicodeText, *_: Any) -> NoReturn:
    """Refuse a flat form.

    Gymnasium's own handlers of Text make it an array as long as the longest text, of
    the letters it lists.
    """
    advice = "Step an environment of tokens, made with mode='token'."
    raise CustomSpaceError(f"{space!r}: text has no flat form. {advice}")


for _function in (spaces.flatdim, spaces.flatten, spaces.flatten_space):
    _function.register(UnicodeText)(_refuse_flat)
