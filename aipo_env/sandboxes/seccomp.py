"""The system-call filter of the sandboxed process, as a BPF program for the kernel.

Only the calls in `syscalls.json` pass: reading and writing open descriptors, memory, clocks, its own signal
handlers, exit. Every other call fails with EPERM: an honest program sees PermissionError, a probe learns
nothing. A call by the interface of another architecture (32-bit, x32), whose numbers mean other calls, kills.
"""

import json
import struct
from pathlib import Path

from aipo_env.errors import SandboxUnavailable

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_CALL_OFFSET, _ARCH_OFFSET = 0, 4
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_X32 = 0x40000000


def filter_program(machine: str) -> bytes:
    """Return the filter for a machine as `platform.machine()` names it, 8 bytes an instruction.

    Raises:
        SandboxUnavailable: There is no table of system calls for this machine.
    """
    tables = json.loads(Path(__file__).with_name("syscalls.json").read_text(encoding="utf-8"))
    if machine not in tables:
        raise SandboxUnavailable(
            f"the process sandbox knows the system calls of {' and '.join(tables)}, not of {machine!r}. "
            "Run code tasks on such a machine."
        )
    numbers = sorted(tables[machine]["calls"].values())
    program = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, tables[machine]["arch"]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _CALL_OFFSET),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        *((_JUMP_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
