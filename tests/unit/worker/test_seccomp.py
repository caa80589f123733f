"""The filter program, run by a small interpreter of the instructions that it uses: what the kernel would decide, for both architectures."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.prediction.worker.seccomp import ARCHITECTURES, PLAIN, Architecture, program

pytestmark = pytest.mark.unit
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
PID = 4242
BOTH = pytest.mark.parametrize("machine", sorted(ARCHITECTURES))


def decide(architecture: Architecture, number: int, *arguments: int, audit: int | None = None) -> int:
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture.audit if audit is None else audit, 0, *padded)
    code = list(struct.iter_unpack("HBBI", program(architecture, PID)))
    accumulator = at = 0
    while True:
        operation, yes, no, value = code[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return value
            case _:
                raise AssertionError(operation)


@BOTH
def test_every_listed_call_is_allowed_and_known(machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    for name in PLAIN:
        if name in architecture.numbers:
            assert decide(architecture, architecture.numbers[name]) == ALLOW
    absent = set(PLAIN) - set(architecture.numbers)
    assert absent == (set() if machine == "x86_64" else {"poll", "select", "time"})  # the newer architecture has only ppoll and pselect6


@given(number=st.integers(0, 0xFFFFFFFF), machine=st.sampled_from(sorted(ARCHITECTURES)))
def test_no_unlisted_call_is_allowed(number: int, machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    if number not in architecture.numbers.values():
        wanted = KILL if architecture.x32 and number >= 0x40000000 else EPERM
        assert decide(architecture, number) == wanted


@BOTH
def test_another_architectures_calls_kill(machine: str) -> None:
    assert decide(ARCHITECTURES[machine], 0, audit=0x40000003) == KILL


@BOTH
@pytest.mark.parametrize(
    ("name", "arguments", "decision"),
    [
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 3, 0x21), EPERM),  # MAP_SHARED
        ("mmap", (0, 4096, 5, 0x22), EPERM),  # PROT_EXEC
        ("mprotect", (0, 4096, 3), ALLOW),
        ("mprotect", (0, 4096, 7), EPERM),
        ("fcntl", (3, 1030, 10), ALLOW),
        ("fcntl", (3, 8, 1), EPERM),  # F_SETOWN
        ("fcntl", (3, 10, 9), EPERM),  # F_SETSIG
        ("tgkill", (PID, 7, 6), ALLOW),
        ("tgkill", (1, 1, 9), EPERM),
        ("prlimit64", (0, 9, 0, 1), ALLOW),
        ("prlimit64", (0, 9, 1, 0), EPERM),
        ("prlimit64", (0, 9, 1 << 32, 0), EPERM),
        ("prlimit64", (1, 9, 0, 1), EPERM),
        ("clone3", (0, 0), ENOSYS),
    ],
)
def test_guarded_calls_are_allowed_for_harmless_arguments_only(machine: str, name: str, arguments: tuple[int, ...], decision: int) -> None:
    architecture = ARCHITECTURES[machine]
    assert decide(architecture, architecture.numbers[name], *arguments) == decision


@BOTH
def test_the_program_fits_the_kernels_bound(machine: str) -> None:
    assert len(program(ARCHITECTURES[machine], PID)) // 8 <= 4096
