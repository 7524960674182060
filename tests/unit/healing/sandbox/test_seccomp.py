"""The filter, run by a small interpreter of classic BPF: what it refuses, and what it lets pass, on both machines."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import SandboxUnavailable
from chimera.healing.sandbox.seccomp import (
    ALLOW,
    ERRNO,
    EVERYWHERE,
    KILL_PROCESS,
    WITHOUT_NAMESPACES,
    WITHOUT_SCOPES,
    program,
)
from chimera.healing.sandbox.syscalls import ARCHITECTURES, NEWEST, NUMBERS

ALL = EVERYWHERE + WITHOUT_NAMESPACES + WITHOUT_SCOPES
MACHINES = sorted(ARCHITECTURES)


def answer(filter_: bytes, machine: str, number: int, *arguments: int) -> int:
    """What the kernel would do with a call."""
    padded = [*arguments, *([0] * 6)][:6]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, ARCHITECTURES[machine].audit, 0, *padded)
    return interpret(filter_, data)


def interpret(filter_: bytes, data: bytes) -> int:
    steps = list(struct.iter_unpack("=HBBI", filter_))
    at, held = 0, 0
    while True:
        code, hit, miss, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (held,) = struct.unpack_from("=I", data, value)
            case 0x54:
                held &= value
            case 0x15:
                at += hit if held == value else miss
            case 0x35:
                at += hit if held >= value else miss
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(code)


def call(name: str, *arguments: int, refusals: object = EVERYWHERE, machine: str = "x86_64") -> int:
    number = NUMBERS[name][ARCHITECTURES[machine].column]
    assert number is not None
    return answer(program(refusals, machine), machine, number, *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_refusal_is_answered_as_it_says(machine: str) -> None:
    filter_ = program(ALL, machine)
    assert len(filter_) // 8 < 4096, "the kernel takes no longer filters"
    for refusal in ALL:
        number = NUMBERS[refusal.call][ARCHITECTURES[machine].column]
        if number is None:
            continue
        arguments = [0] * 6
        for test in refusal.tests:
            arguments[test.index] = test.value ^ (test.mask & -test.mask) if test.differs else test.value
        assert answer(program((refusal,), machine), machine, number, *arguments) == ERRNO | refusal.errno, refusal
        assert answer(filter_, machine, number, *arguments) != ALLOW, refusal


@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, NEWEST), arguments=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
def test_calls_that_are_not_listed_pass(machine: str, number: int, arguments: list[int]) -> None:
    listed = {NUMBERS[refusal.call][ARCHITECTURES[machine].column] for refusal in ALL}
    expected = number not in listed
    assert expected <= (answer(program(ALL, machine), machine, number, *arguments) == ALLOW)


def test_arguments_decide() -> None:
    assert call("socket", 1, 1, 0) == ALLOW
    assert call("socket", 2, 1, 0) == ERRNO | errno.EPERM
    assert call("socket", 1, 1, 0, refusals=ALL) == ERRNO | errno.EPERM
    assert call("socketpair", 1, 1 | 0o2000000, 0, refusals=ALL) == ALLOW
    assert call("socketpair", 1, 2, 0, refusals=ALL) == ERRNO | errno.EPERM
    assert call("clone", 0x1200011) == ALLOW
    assert call("clone", 0x10000011) == ERRNO | errno.EPERM
    assert call("clone3", 0) == ERRNO | errno.ENOSYS
    assert call("prlimit64", 0, 7) == ALLOW
    assert call("prlimit64", 1, 7) == ERRNO | errno.EPERM
    assert call("fchmod", 3, 0o755) == ALLOW
    assert call("fchmod", 3, 0o4755) == ERRNO | errno.EPERM
    assert call("fchmod", 3, 0o755, refusals=ALL) == ERRNO | 0
    assert call("openat", 0, 0, 0o100, 0o4755) == ERRNO | errno.EPERM
    assert call("openat", 0, 0, 0, 0o4755) == ALLOW, "without O_CREAT the mode is not looked at"


@pytest.mark.parametrize("machine", MACHINES)
def test_new_and_foreign_calls_have_no_way_in(machine: str) -> None:
    filter_ = program((), machine)
    for number in (NEWEST + 1, 0x40000000, 0x40000000 | 39, 0xFFFFFFFF):
        assert answer(filter_, machine, number) == ERRNO | errno.ENOSYS
    (other,) = (name for name in MACHINES if name != machine)
    assert answer(filter_, other, 0) == KILL_PROCESS


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        program(ALL, "riscv64")


@pytest.mark.parametrize(
    ("column", "header", "pattern"),
    [
        (0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)"),
        (1, "/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
    ],
)
def test_numbers_are_the_kernels(column: int, header: str, pattern: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"{header} is not installed")
    official = {name: int(number) for name, number in re.findall(pattern, Path(header).read_text())}
    known = max(official.values())
    for name, numbers in NUMBERS.items():
        number = numbers[column]
        if number is None or number <= known:
            assert number == official.get(name), name
