"""Files that may be somebody else's: lines without end, links, pages that take another's place."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is refused unread."""
_CHUNK_BYTES = 2**20


def bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is too long, only so much that `check_line` refuses it."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        is_cut = len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")
        yield line
        while is_cut:
            rest = file.readline(_CHUNK_BYTES)
            is_cut = bool(rest) and not rest.endswith(b"\n")


def check_line(line: bytes | str) -> None:
    """Raise ValueError for a line that is too long to be read."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(
            f"a line of more than {MAX_LINE_BYTES // 2**20} MiB, which is not read"
        )


def is_same_place(one: Path, other: Path) -> bool:
    """Return whether two paths name the same entry of a folder, links to it apart."""
    return _place(one) == _place(other)


def _place(path: Path) -> Path:
    return path.parent.resolve() / path.name


def write_anew(path: Path, text: str) -> None:
    """Write a text file as a whole: to a new file beside it, which then takes its place, and its mode.

    A link of that name is replaced, and not followed: the folder may be somebody else's. What is neither a file nor a
    link, as a pipe, is written to.

    Raises:
        OSError: It cannot be written.
    """
    if not path.is_symlink() and path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    scratch = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.writing")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(scratch, flags, 0o666)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if path.is_file() and not path.is_symlink():
            scratch.chmod(path.stat().st_mode & 0o777)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
