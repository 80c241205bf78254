"""The system-call filter of the sandboxed process, as a BPF program for the kernel.

Only the calls in `syscalls.json` pass: reading and writing open descriptors, memory,
clocks, its own signal handlers, exit; with a layer that guards files, reading or
writing them; with several threads or processes, their start. Every other call fails
with EPERM: an honest program sees PermissionError, a probe learns nothing. A call by
the interface of another architecture (32-bit, x32), whose numbers mean other calls,
kills.

The constants are Linux's own, spelled out, because this module is also imported where
`os` and `errno` have those of another system.
"""

import json
import struct
from pathlib import Path
from typing import Any

from aipo_env.errors import SandboxUnavailable

_BPF_LD_W_ABS = 0x20
"""Operation (linux/bpf_common.h): load 4 bytes at an offset of the call's record."""
_BPF_JMP_JEQ_K = 0x15
"""Jump by whether what is loaded equals a constant."""
_BPF_JMP_JGE_K = 0x35
"""Jump by whether it is as large as a constant."""
_BPF_JMP_JSET_K = 0x45
"""Jump by whether it has a bit in common with a constant."""
_BPF_RET_K = 0x06
"""End with a constant, the decision."""
_INSTRUCTION = struct.Struct("<HBBI")
"""`struct sock_filter`: operation, jump if true, jump if false, constant."""

_OFFSET_NR = 0
"""Where `struct seccomp_data` has the number of the call."""
_OFFSET_ARCH = 4
"""Where it has the architecture, a value AUDIT_ARCH_… of linux/audit.h."""
_OFFSET_ARGS = 16
"""Where it has the first argument. Loaded are the lower halves: both machines put them
first.
"""
_ARGUMENT_BYTES = 8

_EPERM = 1
_ENOSYS = 38
_SECCOMP_RET_KILL_PROCESS = 0x80000000
_SECCOMP_RET_ERRNO = 0x00050000
"""The call fails with the error number in the lower 16 bits."""
_SECCOMP_RET_ALLOW = 0x7FFF0000
_DENY = _SECCOMP_RET_ERRNO | _EPERM
_UNKNOWN = _SECCOMP_RET_ERRNO | _ENOSYS

_X32_SYSCALL_BIT = 0x40000000
"""Numbers from here on are of x32, whose architecture has the value of x86-64."""
_SYS_CLONE3 = 435
"""Number of clone3(2), on every machine."""

_O_WRONLY = 0o1
_O_RDWR = 0o2
_O_CREAT = 0o100
_O_TRUNC = 0o1000
_O_TMPFILE = 0o20000000
"""Without the bit of O_DIRECTORY that goes with it."""
_OPENS_FOR_WRITING = _O_WRONLY | _O_RDWR | _O_CREAT | _O_TRUNC | _O_TMPFILE

_CLONE_PTRACE = 0x00002000
_CLONE_PARENT = 0x00008000
_CLONE_NEWNS = 0x00020000
_CLONE_NEWCGROUP = 0x02000000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_MAKES_NO_PLAIN_CHILD = (
    _CLONE_PTRACE
    | _CLONE_PARENT
    | _CLONE_NEWNS
    | _CLONE_NEWCGROUP
    | _CLONE_NEWUTS
    | _CLONE_NEWIPC
    | _CLONE_NEWUSER
    | _CLONE_NEWPID
    | _CLONE_NEWNET
)
"""Tracing, another parent, new namespaces."""

_FORBIDDEN_BITS = {
    "openat": (2, _OPENS_FOR_WRITING),
    "clone": (0, _MAKES_NO_PLAIN_CHILD),
}
"""The place of an argument, and the bits that must not be set in it: opening for
writing, creating or truncating (where a layer offers no scratch files); a child that is
more than a child.
"""
_CLONE_THREAD = 0x00010000
"""With it the child is a thread, and shares the memory that is counted."""
_INSTRUCTIONS_PER_CHECK = 3
STARTS: dict[str, tuple[str, ...]] = {
    "": (),
    "threads": ("threads",),
    "processes": ("threads", "processes"),
}
"""The groups of `syscalls.json` that a program has by what it may start."""
FILE_CALLS: dict[str, tuple[str, ...]] = {
    "landlock": ("landlock",),
    "namespaces": ("landlock", "namespaces"),
}
"""The groups of `syscalls.json` that a layer adds to "seccomp"."""

_Instruction = tuple[int, int, int, int]
"""The fields of `_INSTRUCTION`. Jumps count instructions from the next one on, 255 at
most, and only forwards.
"""


def tables() -> dict[str, dict[str, Any]]:
    """Return each machine's system calls by group, and its "arch"."""
    text = Path(__file__).with_name("syscalls.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def filter_program(machine: str, layer: str = "seccomp", starts: str = "") -> bytes:
    """Return the filter for a machine, 8 bytes an instruction.

    Args:
        machine: As `platform.machine()` names it: "x86_64" or "aarch64".
        layer: What guards files: "namespaces", "landlock", or nothing: then no file can
            be opened.
        starts: What may be started: nothing, "threads" of the same process, or
            "processes" and their threads.

    Raises:
        SandboxUnavailable: There is no table of system calls for this machine.
    """
    machines = tables()
    if machine not in machines:
        raise SandboxUnavailable(
            f"the process sandbox knows the system calls of {' and '.join(machines)},"
            f" not of {machine!r}. Run code tasks on such a machine."
        )
    table = machines[machine]
    calls = _allowed_calls(table, layer, starts)
    checked = set(_FORBIDDEN_BITS) & set(calls)
    if layer == "namespaces":
        # Writing is what its scratch folder is for, and all else there is read-only.
        checked.remove("openat")
    plain = set(calls) - checked

    program: list[_Instruction] = [
        # The architecture first: a number means nothing without it.
        (_BPF_LD_W_ABS, 0, 0, _OFFSET_ARCH),
        (_BPF_JMP_JEQ_K, 1, 0, table["arch"]),
        (_BPF_RET_K, 0, 0, _SECCOMP_RET_KILL_PROCESS),
        (_BPF_LD_W_ABS, 0, 0, _OFFSET_NR),
        (_BPF_JMP_JGE_K, 0, 1, _X32_SYSCALL_BIT),
        (_BPF_RET_K, 0, 0, _SECCOMP_RET_KILL_PROCESS),
    ]
    # The decisions stand at the end, one after the other, so that every jump is
    # forwards: after one instruction for each plain call, those for the checked ones,
    # and one for clone3.
    num_checks = _INSTRUCTIONS_PER_CHECK * len(checked)
    must_be_thread = starts == "threads"
    deny = len(program) + len(plain) + num_checks + must_be_thread + 1
    allow = deny + 1
    unknown = deny + 2

    for number in sorted(calls[name] for name in plain):
        program.append((_BPF_JMP_JEQ_K, _jump(program, allow), 0, number))
    for name in sorted(checked):
        position, bits = _FORBIDDEN_BITS[name]
        argument_offset = _OFFSET_ARGS + _ARGUMENT_BYTES * position
        needs_bit = must_be_thread and name == "clone"
        # Another call skips the instructions about this one's argument. They overwrite
        # the number that is loaded, and decide.
        program.append((_BPF_JMP_JEQ_K, 0, 2 + needs_bit, calls[name]))
        program.append((_BPF_LD_W_ABS, 0, 0, argument_offset))
        if needs_bit:
            to_deny = _jump(program, deny)
            program.append((_BPF_JMP_JSET_K, 0, to_deny, _CLONE_THREAD))
        to_deny = _jump(program, deny)
        to_allow = _jump(program, allow)
        program.append((_BPF_JMP_JSET_K, to_deny, to_allow, bits))
    # The flags of clone3 lie in memory, which a filter cannot read. On ENOSYS the C
    # library falls back to clone, whose flags can be checked.
    to_clone3 = _jump(program, unknown if starts else deny)
    program.append((_BPF_JMP_JEQ_K, to_clone3, 0, _SYS_CLONE3))
    program.append((_BPF_RET_K, 0, 0, _DENY))
    program.append((_BPF_RET_K, 0, 0, _SECCOMP_RET_ALLOW))
    program.append((_BPF_RET_K, 0, 0, _UNKNOWN))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _allowed_calls(table: dict[str, Any], layer: str, starts: str) -> dict[str, int]:
    """Return the numbers of the calls that may pass, by name."""
    groups = ["seccomp", *FILE_CALLS.get(layer, ()), *STARTS[starts]]
    calls: dict[str, int] = {}
    for group in groups:
        calls.update(table[group])
    return calls


def _jump(program: list[_Instruction], place: int) -> int:
    """Return the jump to a place, for the instruction that is appended next."""
    next_place = len(program) + 1
    return place - next_place
