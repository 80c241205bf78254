"""Takes the fork server itself away from the machine, before anything hostile runs
below it.

Runs in the fork server's bare interpreter and needs nothing but the standard library.
What is done here holds for every process the server forks; each program takes away the
rest itself (see `child.lock`).
"""

import ctypes
import os
import struct

from aipo_env.sandboxes.child import check, libc

_NEW_MOUNTS, _NEW_OTHERS = 0x00020000, 0x7C000000
"""Namespaces of mounts; of users, processes, network, IPC and host names."""
_READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_FOLDER = 4, 8
_NOBODY = 65534
_MAX_SCRATCH_FILES = 1024
LIBRARY = os.path.dirname(os.__file__)
PACKAGES = ("site-packages", "dist-packages")
"""Folders of the library that are no part of Python: a package may hold the very tests
a program is to pass.
"""


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount as mount(2) does, or raise OSError."""
    texts = (text.encode() or None for text in (source, target, kind))
    check(
        libc.mount(*texts, ctypes.c_ulong(flags), options.encode() or None),
        f"mount on {target}",
    )


def enter_namespaces() -> None:
    """Move to namespaces of our own, with nothing in them but Python's library; go on
    as their first process.

    Raises:
        OSError: The kernel does not let us.
    """
    processes = os.open("/proc", os.O_PATH)
    is_root = os.geteuid() == 0
    if is_root:
        # Root of the machine is exempt from limits on processes, whatever its
        # namespace: be nobody from here on.
        check(libc.unshare(_NEW_MOUNTS), "unshare")
        _make_root()
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        check(libc.prctl(4, 1, 0, 0, 0), "prctl")  # or the files below stay root's
    user, group = os.geteuid(), os.getegid()
    check(libc.unshare(_NEW_MOUNTS | _NEW_OTHERS), "unshare")
    maps = {
        "setgroups": "deny",
        "uid_map": f"{user} {user} 1",
        "gid_map": f"{group} {group} 1",
    }
    for name, text in maps.items():
        file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=processes)
        os.write(file, text.encode())
        os.close(file)
    os.close(processes)
    check(libc.prctl(4, 0, 0, 0, 0), "prctl")
    if not is_root:
        _make_root()
    if inner := os.fork():
        os.closerange(0, 3)
        os._exit(os.waitpid(inner, 0)[1] != 0)
    check(libc.prctl(1, 9, 0, 0, 0), "prctl")  # die with the outer one


def _make_root() -> None:
    """Replace the file system by an empty, read-only one with Python's library and a
    place for /tmp.
    """
    root = "/tmp"
    mount("", "/", "", _RECURSIVE | _PRIVATE)
    library = os.open(LIBRARY, os.O_PATH)  # it may lie below the new root's place
    mount("tmpfs", root, "tmpfs", _NO_SUID | _NO_DEV, "size=64k,mode=755")
    os.mkdir(f"{root}/tmp")
    os.makedirs(place := root + LIBRARY, exist_ok=True)
    mount(f"/proc/self/fd/{library}", place, "", _BIND | _RECURSIVE)
    os.close(library)
    kept = os.statvfs(place).f_flag & _NO_EXEC
    mount("", place, "", _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEV | kept)
    for name in PACKAGES:
        if os.path.isdir(f"{place}/{name}"):
            mount(
                "tmpfs",
                f"{place}/{name}",
                "tmpfs",
                _READ_ONLY | _NO_SUID | _NO_DEV,
                "size=4k",
            )
    os.chdir(root)
    check(libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    check(libc.umount2(b".", _DETACH), "umount")
    os.chdir("/")
    mount("", "/", "", _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEV)


def fresh_scratch(disk_bytes: int) -> None:
    """See to an empty /tmp of a size, in a namespace of ours; one that nobody touched
    is kept.

    A program cannot set times, so a time of 0 says that nothing was made or removed
    there.
    """
    disk_bytes += -disk_bytes % 4096
    state = os.statvfs("/tmp")
    if os.stat("/tmp").st_mtime == 0 and state.f_blocks * state.f_frsize == disk_bytes:
        return
    libc.umount2(b"/tmp", _DETACH)
    options = f"size={disk_bytes},nr_inodes={_MAX_SCRATCH_FILES},mode=700"
    mount("tmpfs", "/tmp", "tmpfs", _NO_SUID | _NO_DEV | _NO_EXEC, options)
    os.utime("/tmp", (0, 0))


def restrict_files() -> None:
    """Leave nothing of the file system but reading Python's library, by Landlock.

    Raises:
        OSError: The kernel has no Landlock, or it is off.
    """
    version = check(libc.syscall(_LANDLOCK_CREATE, None, 0, 1), "landlock")
    everything = struct.pack("@Q", (1 << min(12 + version, 15) + (version > 4)) - 1)
    rules = check(
        libc.syscall(_LANDLOCK_CREATE, everything, len(everything), 0), "landlock"
    )
    folders = [(LIBRARY, _READ_FOLDER)]
    for entry in os.scandir(LIBRARY):
        if entry.name not in PACKAGES and not entry.is_symlink():
            folders.append(
                (entry.path, _READ_FILE | (_READ_FOLDER if entry.is_dir() else 0))
            )
    for path, allowed in folders:
        place = os.open(path, os.O_PATH)
        rule = struct.pack("=Qi", allowed, place)
        check(
            libc.syscall(_LANDLOCK_ADD, rules, 1, rule, 0), f"landlock rule for {path}"
        )
        os.close(place)
    check(libc.prctl(38, 1, 0, 0, 0), "prctl")
    check(libc.syscall(_LANDLOCK_RESTRICT, rules, 0), "landlock")
    os.close(rules)
