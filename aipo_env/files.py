"""Files that may be somebody else's: lines without end, links, pipes, devices.

What is written into a folder that others may write to follows no link there, and takes
another's place at once or not at all.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from aipo_env.errors import DataError

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is refused unread."""
MAX_FILE_BYTES = 256 * 2**20
"""A longer file is not read as a whole."""
_CHUNK_BYTES = 2**20
"""So much of a line that is too long is in memory at a time."""
_MIB = 2**20
_SCRATCH_BYTES = 8
"""Random bytes in the name of a file that is being written."""
_MAX_NAME_CHARS = 20
"""Of the file's own name in that; a file system bounds the whole."""
_NEW_MODE = 0o666
"""The rights of a new file, less those that the user's umask takes away."""
_MODE_BITS = 0o777
"""Of a file's mode: who may read, write and run it; no set-user-id."""


def bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, each as bytes with its end.

    Of one that is too long comes only so much that `check_line` refuses it.
    """
    line = file.readline(MAX_LINE_BYTES + 1)
    while line:
        # The last line of a file may have no end.
        is_cut = len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")
        yield line
        while is_cut:
            rest = file.readline(_CHUNK_BYTES)
            is_cut = bool(rest) and not rest.endswith(b"\n")
        line = file.readline(MAX_LINE_BYTES + 1)


def check_line(line: bytes | str) -> None:
    """Raise ValueError for a line that is too long to be read."""
    if len(line) > MAX_LINE_BYTES:
        size = f"{MAX_LINE_BYTES // _MIB} MiB"
        raise ValueError(f"a line of more than {size}, which is not read")


def read_whole(path: Path, most: int | None = None) -> bytes:
    """Return all that a file holds.

    Args:
        most: Bytes, `MAX_FILE_BYTES` if not given; of a longer file no more than that
            is read.

    Raises:
        OSError: It cannot be read.
        ValueError: It is longer.
    """
    with path.open("rb") as file:
        return read_rest(file, most)


def read_rest(file: BinaryIO, most: int | None = None) -> bytes:
    """Return what is left of an open file; raise as `read_whole` does."""
    if most is None:
        most = MAX_FILE_BYTES
    content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most // _MIB} MiB, which is not read")
    return content


def is_same_place(one: Path, other: Path) -> bool:
    """Return whether two paths name the same entry of a folder, links to it apart."""
    return _place(one) == _place(other)


def is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, by links of either kind too."""
    try:
        return is_same_place(one, other) or one.samefile(other)
    except OSError:  # one of them does not exist
        return False


def _place(path: Path) -> Path:
    # The folder may be named by a link, but the entry is not to be followed.
    return path.parent.resolve() / path.name


def check_place(path: Path, *, is_folder: bool = False) -> Path:
    """Return a path, if what stands there is our kind of thing, or nothing.

    The folder may be somebody else's.

    Args:
        path: The path.
        is_folder: Whether it is to be a folder, and not a file.

    Raises:
        DataError: A link stands there, a pipe, a device, or a folder in the place of a
            file or the reverse.
    """
    actual = _kind(path)
    needed = _FOLDER if is_folder else _FILE
    if actual == _LINK:
        raise DataError(
            f"{path}: a link, which is not followed. Put the {needed} itself there."
        )
    if actual not in ("", needed):
        raise DataError(
            f"{path}: a {actual}, where a {needed} is needed. Move it away."
        )
    return path


def check_entries(folder: Path) -> None:
    """Raise DataError if an entry of a folder is a link; no folder has no entry."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                check_place(folder / entry.name)


def check_tree(folder: Path) -> None:
    """Raise DataError if anything in a folder, at any depth, is no file or folder."""
    for base, folders, files in os.walk(folder):
        for name in folders:
            check_place(Path(base, name), is_folder=True)
        for name in files:
            check_place(Path(base, name))


_FILE = "file"
_FOLDER = "folder"
_LINK = "link"
_KINDS = (
    (stat.S_ISREG, _FILE),
    (stat.S_ISDIR, _FOLDER),
    (stat.S_ISLNK, _LINK),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
)


def _kind(path: Path) -> str:
    """Return what stands at a path, in a word; empty for nothing."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, ValueError):  # no file has a name with a null in it
        return ""
    for is_of_kind, name in _KINDS:
        if is_of_kind(mode):
            return name
    return "device"


def write_anew(path: Path, content: str | bytes) -> None:
    """Write a file as a whole: to a new one beside it, which then takes its place.

    The new one has the old one's mode. A link of that name is replaced, and not
    followed: the folder may be somebody else's. So is a file that has another name
    elsewhere, which keeps what it holds there.

    Raises:
        DataError: A folder, a pipe or a device has that name.
        OSError: It cannot be written.
    """
    if _kind(path) != _LINK:
        check_place(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    scratch = _scratch(path)
    mode = _mode(path)
    descriptor = os.open(scratch, _NEW, _NEW_MODE)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        if mode is not None:
            scratch.chmod(mode)
        # At once: whoever reads meanwhile finds the old file whole, or the new one.
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def link_anew(path: Path, target: Path) -> None:
    """Make a link to a target, in the place of what link or file has its name.

    Raises:
        OSError: It cannot be made; a folder of that name is not replaced.
    """
    scratch = _scratch(path)
    scratch.symlink_to(target)
    try:
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_output(path: Path, text: str) -> None:
    """Write a text where a user wants it: into a stream, or a new file of that name.

    A stream is such as /dev/stdout; a file is written by `write_anew`.

    Raises:
        DataError, OSError: As `write_anew`.
    """
    if not is_stream(path):
        write_anew(path, text)
        return
    with open_output(path) as file:
        file.write(text)


def open_output(path: Path) -> TextIO:
    """Open a stream such as /dev/stdout, or a new file, to be written line by line.

    The old file of that name is gone, and what else it is called elsewhere keeps what
    it holds.

    Raises:
        DataError: A folder has that name.
        OSError: It cannot be written.
    """
    if is_stream(path):
        return path.open("w", encoding="utf-8")
    if _kind(path) != _LINK:
        check_place(path)
    mode = _mode(path)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, _NEW, _NEW_MODE)
    if mode is not None:
        path.chmod(mode)
    return open(descriptor, "w", encoding="utf-8")


# Only a file that this very call makes: who has put a link or a file there in the
# meantime makes it fail. Windows has no O_NOFOLLOW, and needs none beside O_EXCL.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def is_stream(path: Path) -> bool:
    """Return whether a path is a pipe, a terminal or the like, to be written into."""
    folder = str(path.parent.resolve())
    is_of_system = folder == "/dev" or folder.startswith("/proc/")
    if is_of_system and _kind(path) == _LINK:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _scratch(path: Path) -> Path:
    """Return a name beside a file that nobody can know beforehand."""
    token = secrets.token_hex(_SCRATCH_BYTES)
    return path.with_name(f".{path.name[:_MAX_NAME_CHARS]}.{token}.writing")


def _mode(path: Path) -> int | None:
    """Return the rights that a file grants; None where there is no file."""
    if _kind(path) != _FILE:
        return None
    return path.stat().st_mode & _MODE_BITS
