"""Takes the machine away from the fork server, before anything hostile runs below it.

Runs in the fork server's bare interpreter and needs nothing but the standard library.
What is done here holds for every process the server forks; each program takes away the
rest itself (see `child.lock`).
"""

import ctypes
import os
import signal
import struct

from aipo_env.sandboxes.child import (
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    check,
    libc,
)

_CLONE_NEWNS = 0x00020000
"""unshare(2): a namespace of mounts."""
_CLONE_NEWUTS = 0x04000000
"""A namespace of host names."""
_CLONE_NEWIPC = 0x08000000
"""A namespace of shared memory and message queues."""
_CLONE_NEWUSER = 0x10000000
"""A namespace of users; with it come the rights to make the others."""
_CLONE_NEWPID = 0x20000000
"""A namespace of processes, from the next fork on."""
_CLONE_NEWNET = 0x40000000
"""A namespace of networks, empty but for a loopback that is down."""
_ALL_NAMESPACES = (
    _CLONE_NEWNS
    | _CLONE_NEWUTS
    | _CLONE_NEWIPC
    | _CLONE_NEWUSER
    | _CLONE_NEWPID
    | _CLONE_NEWNET
)

_MS_RDONLY = 1
"""mount(2): nothing can be written."""
_MS_NOSUID = 2
"""setuid files give no rights."""
_MS_NODEV = 4
"""Device files cannot be opened."""
_MS_NOEXEC = 8
"""Nothing can be executed; statvfs(3) reports it by the same bit."""
_MS_REMOUNT = 32
"""Change the flags of what is mounted there."""
_MS_BIND = 4096
"""Show a folder at a second place; with `_MS_REMOUNT`, change that place alone."""
_MS_REC = 16384
"""And all that is mounted below it."""
_MS_PRIVATE = 1 << 18
"""Mounts made here are not seen outside, nor those made outside here."""
_MNT_DETACH = 2
"""umount2(2): out of sight at once, gone when nobody uses it any more."""
_GUARDED = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
"""The flags of everything that a program finds, but for its scratch folder."""

_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
"""Number of the system call pivot_root(2), which the C library has no function for."""
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
"""Numbers of Landlock's system calls, on every machine."""
_LANDLOCK_CREATE_RULESET_VERSION = 1
"""Flag: return the version of Landlock instead of making a set of rules."""
_LANDLOCK_RULE_PATH_BENEATH = 1
"""The kind of rule that allows something below a path."""
_LANDLOCK_ACCESS_FS_READ_FILE = 1 << 2
_LANDLOCK_ACCESS_FS_READ_DIR = 1 << 3
_LANDLOCK_NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights to files a version of Landlock knows, as the lowest bits of a mask.

Version 2 added linking between folders, 3 truncating, 5 the ioctl of devices. A kernel
refuses a right it does not know, so this is looked up.
"""

_NOBODY = 65534
"""The user and group without rights, by the kernel's default."""
_PAGE_BYTES = 4096
"""The unit in which tmpfs counts its size, on most machines."""
_MAX_SCRATCH_FILES = 1024
"""Files and folders in /tmp, since every one takes memory of the kernel's."""
LIBRARY = os.path.dirname(os.__file__)
PACKAGES = ("site-packages", "dist-packages")
"""Folders of the library that are no part of Python: a package may hold the very tests
a program is to pass.
"""


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount as mount(2) does, or raise OSError.

    Args:
        source: What to mount; empty where the flags need none.
        target: Where to.
        kind: The type of file system; empty where the flags need none.
        flags: The `MS_…` of mount(2).
        options: Those of the type of file system.
    """
    result = libc.mount(
        source.encode() or None,
        target.encode() or None,
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    check(result, f"mount on {target}")


def enter_namespaces() -> None:
    """Move to own namespaces with nothing but Python's library, as their first process.

    The caller's process stays outside and only waits for the one inside, in which this
    function returns.

    Raises:
        OSError: The kernel does not let us.
    """
    # Opened now, for the file system is replaced before the maps are written.
    own_proc = os.open("/proc", os.O_PATH)
    is_root = os.geteuid() == 0
    if is_root:
        # Root of the machine is exempt from limits on processes, whatever its
        # namespace: be nobody from here on. The new root is made before that, because
        # the library may lie below a folder that only root may enter.
        check(libc.unshare(_CLONE_NEWNS), "unshare")
        _make_root()
        _become_nobody()
    user = os.geteuid()
    group = os.getegid()
    check(libc.unshare(_ALL_NAMESPACES), "unshare")
    _map_to_itself(user, group, own_proc)
    os.close(own_proc)
    # Only the writing of the maps needed it. A process that is not dumpable keeps its
    # files in /proc from others of the same user.
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
    if not is_root:
        _make_root()
    _become_first_process()


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    # A change of user clears this, and then the process's files in /proc stay root's
    # and cannot be written.
    check(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def _map_to_itself(user: int, group: int, own_proc: int) -> None:
    """Give the new user namespace one user and one group, by their numbers outside."""
    maps = {
        # The kernel lets a process without rights map groups only after this.
        "setgroups": "deny",
        "uid_map": f"{user} {user} 1",
        "gid_map": f"{group} {group} 1",
    }
    for name, text in maps.items():
        file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=own_proc)
        os.write(file, text.encode())
        os.close(file)


def _become_first_process() -> None:
    """Go on in a child, which is the first process of the new namespace of processes.

    When the first process ends, the kernel kills every other of its namespace.
    """
    inner = os.fork()
    if inner:
        os.closerange(0, 3)  # the connection belongs to the inner process alone
        _, wait_status = os.waitpid(inner, 0)
        os._exit(wait_status != 0)
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _make_root() -> None:
    """Replace the file system by a read-only one with Python's library and a /tmp."""
    root = "/tmp"
    mount("", "/", "", _MS_REC | _MS_PRIVATE)
    library = os.open(LIBRARY, os.O_PATH)  # it may lie below the new root's place
    mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64k,mode=755")
    os.mkdir(f"{root}/tmp")
    place = root + LIBRARY
    os.makedirs(place, exist_ok=True)
    mount(f"/proc/self/fd/{library}", place, "", _MS_BIND | _MS_REC)
    os.close(library)
    # A bind mount takes its flags only when mounted a second time, and the kernel
    # refuses to take back in a user namespace a flag that was set outside.
    no_exec = os.statvfs(place).f_flag & _MS_NOEXEC
    mount("", place, "", _MS_REMOUNT | _MS_BIND | _GUARDED | no_exec)
    for name in PACKAGES:
        packages = f"{place}/{name}"
        if os.path.isdir(packages):
            # An empty folder on top of it.
            mount("tmpfs", packages, "tmpfs", _GUARDED, "size=4k")
    os.chdir(root)
    # To the same folder twice: the old root is then mounted on top of the new one, and
    # can be taken away without a folder made for it.
    pivot_root = _SYS_PIVOT_ROOT[os.uname().machine]
    check(libc.syscall(pivot_root, b".", b"."), "pivot_root")
    check(libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")
    mount("", "/", "", _MS_REMOUNT | _MS_BIND | _GUARDED)


def fresh_scratch(disk_bytes: int) -> None:
    """Make /tmp empty and of a size, in own namespaces; an untouched one is left as is.

    Args:
        disk_bytes: Bytes that fit into /tmp, rounded up to whole pages.

    Raises:
        OSError: The kernel does not let us.
    """
    disk_bytes += -disk_bytes % _PAGE_BYTES
    state = os.statvfs("/tmp")
    size = state.f_blocks * state.f_frsize
    # A program cannot set times, so a time of 0 says that nothing was made or removed
    # there since it was set below.
    is_untouched = os.stat("/tmp").st_mtime == 0
    if is_untouched and size == disk_bytes:
        return
    # Fails before the first program, when there is nothing to unmount yet.
    libc.umount2(b"/tmp", _MNT_DETACH)
    options = f"size={disk_bytes},nr_inodes={_MAX_SCRATCH_FILES},mode=700"
    mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    os.utime("/tmp", (0, 0))


def restrict_files() -> None:
    """Leave nothing of the file system but reading Python's library, by Landlock.

    Raises:
        OSError: The kernel has no Landlock, or it is off.
    """
    version = check(
        libc.syscall(
            _SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION
        ),
        "landlock",
    )
    rules = check(_create_ruleset(version), "landlock")
    _allow(rules, LIBRARY, _LANDLOCK_ACCESS_FS_READ_DIR)
    for entry in os.scandir(LIBRARY):
        # A rule for a link would allow what it leads to, outside the library.
        if entry.name in PACKAGES or entry.is_symlink():
            continue
        allowed = _LANDLOCK_ACCESS_FS_READ_FILE
        if entry.is_dir():
            # The kernel refuses a right to folders for a file.
            allowed |= _LANDLOCK_ACCESS_FS_READ_DIR
        _allow(rules, entry.path, allowed)
    # Without this the kernel restricts no process without capabilities.
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    check(libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, rules, 0), "landlock")
    os.close(rules)


def _create_ruleset(version: int) -> int:
    """Return a descriptor of rules that deny every right there is; negative: failed."""
    newest = max(_LANDLOCK_NUM_RIGHTS)
    num_rights = _LANDLOCK_NUM_RIGHTS[min(version, newest)]
    every_right = (1 << num_rights) - 1
    # The first field of `struct landlock_ruleset_attr`; the kernel takes the shorter
    # form, and the later fields, of networks and scopes, for 0.
    attributes = struct.pack("@Q", every_right)
    result = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    return int(result)


def _allow(rules: int, path: str, allowed: int) -> None:
    """Add to a set of rules the rights below a path."""
    place = os.open(path, os.O_PATH)
    # `struct landlock_path_beneath_attr`, which is packed.
    rule = struct.pack("=Qi", allowed, place)
    result = libc.syscall(
        _SYS_LANDLOCK_ADD_RULE, rules, _LANDLOCK_RULE_PATH_BENEATH, rule, 0
    )
    check(result, f"landlock rule for {path}")
    os.close(place)
