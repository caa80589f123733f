"""The allow-list of system calls that a locked model child may make; everything else fails with EPERM.

What computing needs: memory of one's own, time, reading and writing descriptors that are there already. No call that opens a
file, makes a socket, a process, a thread, shared memory, a message queue, a namespace or a mount; none that changes limits,
scheduling or another process.
Source: seccomp(2), Documentation/userspace-api/seccomp_filter.rst, arch/x86/entry/syscalls/syscall_64.tbl,
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_PROT_EXEC, _MAP_SHARED = 0x4, 0x1
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC; F_SETOWN could signal others
_X32_BIT = 0x40000000

Instruction = tuple[int, int, int, int]

PLAIN = (
    *("read", "write", "poll", "ppoll", "futex", "mmap", "munmap", "brk", "madvise", "mremap", "mprotect"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "times"),
    *("close", "lseek", "fstat", "readv", "writev", "recvfrom", "recvmsg", "select", "pselect6"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "sched_yield", "sched_getaffinity"),
    *("getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrandom", "getrusage", "getcpu", "sysinfo", "uname"),
    *("exit", "exit_group"),
)
_GUARDED = ("mmap", "mprotect")  # of PLAIN, allowed for some arguments only


def _numbers(text: str) -> dict[str, int]:
    words = text.split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


X86_64 = _numbers("""
    read 0 write 1 close 3 fstat 5 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12 rt_sigaction 13 rt_sigprocmask 14
    rt_sigreturn 15 readv 19 writev 20 select 23 sched_yield 24 mremap 25 madvise 28 nanosleep 35 getpid 39 recvfrom 45
    recvmsg 47 exit 60 uname 63 fcntl 72 gettimeofday 96 getrusage 98 sysinfo 99 times 100 getuid 102 getgid 104 geteuid 107
    getegid 108 getppid 110 sigaltstack 131 gettid 186 time 201 futex 202 sched_getaffinity 204 restart_syscall 219
    clock_gettime 228 clock_getres 229 clock_nanosleep 230 exit_group 231 tgkill 234 pselect6 270 ppoll 271 prlimit64 302
    getcpu 309 getrandom 318 clone3 435
""")
AARCH64 = _numbers("""
    fcntl 25 close 57 lseek 62 read 63 write 64 readv 65 writev 66 pselect6 72 ppoll 73 fstat 80 exit 93 exit_group 94 futex 98
    nanosleep 101 clock_gettime 113 clock_getres 114 clock_nanosleep 115 sched_getaffinity 123 sched_yield 124
    restart_syscall 128 tgkill 131 sigaltstack 132 rt_sigaction 134 rt_sigprocmask 135 rt_sigreturn 139 times 153 uname 160
    getrusage 165 getcpu 168 gettimeofday 169 getpid 172 getppid 173 getuid 174 geteuid 175 getgid 176 getegid 177 gettid 178
    sysinfo 179 recvfrom 207 recvmsg 212 brk 214 munmap 215 mremap 216 mmap 222 mprotect 226 madvise 233 prlimit64 261
    getrandom 278 clone3 435
""")


@dataclass(frozen=True, slots=True)
class Architecture:
    """An instruction set: its audit number and its system call numbers; `x32` where a second calling convention hides in them."""

    audit: int
    numbers: Mapping[str, int]
    x32: bool = False


ARCHITECTURES = {"x86_64": Architecture(0xC000003E, X86_64, x32=True), "aarch64": Architecture(0xC00000B7, AARCH64)}


def program(architecture: Architecture, pid: int) -> bytes:
    """The BPF program (8 bytes an instruction) for the process `pid`: calls of other architectures kill, unlisted ones fail with EPERM."""
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JEQ, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if architecture.x32:
        code += [(_JGE, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    numbers = architecture.numbers
    for name in PLAIN:
        if name in numbers and name not in _GUARDED:
            code += _only(numbers[name], [(_RETURN, 0, 0, _ALLOW)])
    code += _only(numbers["mmap"], [*_refuse_bits(2, _PROT_EXEC), *_refuse_bits(3, _MAP_SHARED), (_RETURN, 0, 0, _ALLOW)])
    code += _only(numbers["mprotect"], [*_refuse_bits(2, _PROT_EXEC), (_RETURN, 0, 0, _ALLOW)])
    code += _only(numbers["fcntl"], _allow_values(1, _FCNTL_COMMANDS))
    code += _only(numbers["tgkill"], _allow_values(0, (pid,)))  # abort(3) and raise(3)
    code += _only(numbers["prlimit64"], [*_require_zero(0), *_require_zero(2), (_RETURN, 0, 0, _ALLOW)])  # reading one's own limits
    code += _only(numbers["clone3"], [(_RETURN, 0, 0, _ENOSYS)])  # libc then tries clone, which is refused
    code.append((_RETURN, 0, 0, _EPERM))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _only(number: int, block: list[Instruction]) -> list[Instruction]:
    """`block`, which ends in a return on every path, for the call `number`; other calls jump over it."""
    return [(_JEQ, 0, len(block), number), *block]


def _refuse_bits(argument: int, bits: int) -> list[Instruction]:
    return [(_LOAD, 0, 0, _low(argument)), (_JSET, 0, 1, bits), (_RETURN, 0, 0, _EPERM)]


def _allow_values(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    tests: list[Instruction] = []
    for value in values:
        tests += [(_JEQ, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [(_LOAD, 0, 0, _low(argument)), *tests, (_RETURN, 0, 0, _EPERM)]


def _require_zero(argument: int) -> list[Instruction]:
    halves: list[Instruction] = []
    for at in (_low(argument), _low(argument) + 4):
        halves += [(_LOAD, 0, 0, at), (_JEQ, 1, 0, 0), (_RETURN, 0, 0, _EPERM)]
    return halves


def _low(argument: int) -> int:
    """Where the lower half of an argument lies in struct seccomp_data on a little-endian machine."""
    return 16 + 8 * argument
