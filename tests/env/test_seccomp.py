"""The filter of system calls, interpreted as the kernel does: for both machines,
whichever this one is.
"""

import struct

import pytest

from aipo_env import SandboxUnavailable
from aipo_env.sandboxes.seccomp import STARTS, filter_program, tables

ALLOW, DENY, UNKNOWN, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
OTHERS = {"x86_64": "aarch64", "aarch64": "x86_64"}


def decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would do; raises if the program leaves its bounds."""
    data = struct.pack(
        "<IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments))
    )
    code = [
        struct.unpack_from("<HBBI", program, place)
        for place in range(0, len(program), 8)
    ]
    place = value = 0
    while True:
        operation, if_true, if_false, constant = code[place]
        place += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            value = struct.unpack_from("<I", data, constant)[0]
        else:
            tests = {
                0x15: value == constant,
                0x35: value >= constant,
                0x45: bool(value & constant),
            }
            place += if_true if tests[operation] else if_false


@pytest.mark.parametrize("starts", ["", "threads", "processes"])
@pytest.mark.parametrize("layer", ["seccomp", "landlock", "namespaces"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_is_listed_passes_and_nothing_else(machine: str, layer: str, starts: str):
    program, table = filter_program(machine, layer, starts), tables()[machine]
    arch = table["arch"]
    groups = {"seccomp": ["seccomp"], "landlock": ["seccomp", "landlock"]}.get(
        layer, ["seccomp", "landlock", "namespaces"]
    )
    allowed = {
        number
        for group in (*groups, *STARTS[starts])
        for number in table[group].values()
    }
    thread = 0x3D0F00  # the flags of clone
    passed = {
        number
        for number in range(1000)
        if decide(program, arch, number, thread) == ALLOW
    }
    assert passed == allowed
    assert {decide(program, arch, n) for n in set(range(1000)) - allowed - {435}} == {
        DENY
    }
    assert decide(program, arch, 435) == (UNKNOWN if starts else DENY)
    assert (
        decide(program, tables()[OTHERS[machine]]["arch"], table["seccomp"]["read"])
        == KILL
    )
    assert decide(program, arch, 0x40000000) == decide(program, arch, 2**32 - 1) == KILL


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_arguments_that_are_looked_at(machine: str):
    table = tables()[machine]
    arch, openat, clone = (
        table["arch"],
        table["landlock"]["openat"],
        table["threads"]["clone"],
    )
    reading, writing = (
        filter_program(machine, layer, "processes")
        for layer in ("landlock", "namespaces")
    )
    for flags in (0, 0o2000000, 0o200000, 0o4000):
        assert decide(reading, arch, openat, 5, 6, flags) == ALLOW
    for flags in (1, 2, 0o100, 0o1000, 0o20000000, 0o2000001):
        assert decide(reading, arch, openat, 5, 6, flags) == DENY
        assert decide(writing, arch, openat, 5, 6, flags) == ALLOW
    thread = 0x3D0F00
    for flags in (17, thread, thread | 0x1000000, 17 | 2**32):
        assert decide(writing, arch, clone, flags) == ALLOW
    for bit in (
        0x20000,
        0x2000000,
        0x4000000,
        0x8000000,
        0x10000000,
        0x20000000,
        0x40000000,
        0x8000,
        0x2000,
    ):
        assert decide(writing, arch, clone, thread | bit) == DENY


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_where_threads_may_be_started_processes_may_not(machine: str):
    table = tables()[machine]
    program = filter_program(machine, "namespaces", "threads")
    arch, clone = table["arch"], table["threads"]["clone"]
    thread, process = 0x3D0F00, 17
    assert decide(program, arch, clone, thread) == ALLOW
    assert decide(program, arch, clone, thread | 0x1000000) == ALLOW
    assert decide(program, arch, clone, process) == DENY
    assert decide(program, arch, clone, 0x3C0F00) == DENY  # shares memory, no thread
    assert decide(program, arch, clone, thread | 0x10000000) == DENY
    assert decide(program, arch, 435, thread) == UNKNOWN
    assert decide(program, arch, table["processes"]["wait4"]) == DENY


def test_a_machine_without_a_table():
    with pytest.raises(
        SandboxUnavailable, match="x86_64 and aarch64, not of 'riscv64'"
    ):
        filter_program("riscv64")
