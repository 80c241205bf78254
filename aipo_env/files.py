"""Files that may be somebody else's: lines without end, links, pipes, pages that take
another's place.
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


def bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is too long, only so much that
    `check_line` refuses it.
    """
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
    most = MAX_FILE_BYTES if most is None else most
    content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most // 2**20} MiB, which is not read")
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
    return path.parent.resolve() / path.name


def check_place(path: Path, *, is_folder: bool = False) -> Path:
    """Return a path in a folder that may be somebody else's, if what stands there is
    our kind of thing, or nothing.

    Args:
        is_folder: Whether it is to be a folder, and not a file.

    Raises:
        DataError: A link stands there, a pipe, a device, or a folder in the place of a
            file or the reverse.
    """
    found = _kind(path)
    wanted = _FOLDER if is_folder else _FILE
    if found == _LINK:
        raise DataError(
            f"{path}: a link, which is not followed. Put the {wanted} itself there."
        )
    if found not in ("", wanted):
        raise DataError(f"{path}: a {found}, where a {wanted} is needed. Move it away.")
    return path


def check_entries(folder: Path) -> None:
    """Raise DataError if an entry of a folder is a link; one that does not exist has
    none.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                check_place(folder / entry.name)


def check_tree(folder: Path) -> None:
    """Raise DataError if anything in a folder, at any depth, is neither a file nor a
    folder itself.
    """
    for base, folders, files in os.walk(folder):
        for name in folders:
            check_place(Path(base, name), is_folder=True)
        for name in files:
            check_place(Path(base, name))


_FILE, _FOLDER, _LINK = "file", "folder", "link"
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
    names = [name for is_of_kind, name in _KINDS if is_of_kind(mode)]
    return names[0] if names else "device"


def write_anew(path: Path, content: str | bytes) -> None:
    """Write a file as a whole: to a new one beside it, which then takes its place, and
    its mode.

    A link of that name is replaced, and not followed: the folder may be somebody
    else's. So is a file that has another name elsewhere, which keeps what it holds
    there.

    Raises:
        DataError: A folder, a pipe or a device has that name.
        OSError: It cannot be written.
    """
    if _kind(path) != _LINK:
        check_place(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    scratch = _scratch(path)
    mode = _mode(path)
    descriptor = os.open(scratch, _NEW, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        if mode is not None:
            scratch.chmod(mode)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def link_anew(path: Path, target: Path) -> None:
    """Have `path` be a link to a target, in the place of what link or file had that
    name.

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
    """Write what a user wants to have in `path`: into a stream such as /dev/stdout,
    else by `write_anew`.

    Raises:
        DataError, OSError: As `write_anew`.
    """
    if not is_stream(path):
        write_anew(path, text)
        return
    with open_output(path) as file:
        file.write(text)


def open_output(path: Path) -> TextIO:
    """Open what a user wants line by line in `path`: a stream such as /dev/stdout, or a
    new file of that name.

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
    descriptor = os.open(path, _NEW, 0o666)
    if mode is not None:
        path.chmod(mode)
    return open(descriptor, "w", encoding="utf-8")


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def is_stream(path: Path) -> bool:
    """Return whether what a user named is to be written into: a pipe, a terminal, or
    what /dev/stdout leads to.
    """
    folder = str(path.parent.resolve())
    if _kind(path) == _LINK and (folder == "/dev" or folder.startswith("/proc/")):
        return True  # the system's own, and not somebody's folder
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _scratch(path: Path) -> Path:
    """Return a name beside a file that nobody can know beforehand."""
    return path.with_name(f".{path.name[:20]}.{secrets.token_hex(8)}.writing")


def _mode(path: Path) -> int | None:
    """Return the rights that a file grants, for the one that takes its place; None
    where there is no file.
    """
    return path.stat().st_mode & 0o777 if _kind(path) == _FILE else None
