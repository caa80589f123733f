"""Locks the calling process for good, before it touches a stranger's artifact. Linux; no root and no package needed.

Order: descriptors and session, environment, user and capabilities, death with the parent, limits, no new privileges, Landlock
(no path, no TCP port granted), seccomp. What the kernel does not offer is left out and said: see `Confinement`.
Source: landlock(7), seccomp(2), prctl(2), capabilities(7), Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
from dataclasses import dataclass
from typing import Any

from app.kernel.inspection import Confinement
from app.prediction.worker import seccomp

NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 4, 22, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_LANDLOCK_CREATE_RULESET, _SYS_LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights each ABI knows; 16 from the fifth on
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory_bytes` on top of what the process has at the lock; `cpu_s` None: no end."""

    memory_bytes: int
    cpu_s: int | None = None
    open_files: int = 256


def lock(*, keep_fd: int, uid: int, limits: Limits, parent: int) -> Confinement:
    """What holds the process from now on. `keep_fd` is the only descriptor left, under a number above 2.

    `uid`: the unprivileged user to become where this is root. `parent`: the process to die with. Raises OSError where a step
    that the kernel offers fails: the caller must not go on.
    """
    os.closerange(0, keep_fd)
    os.closerange(keep_fd + 1, _highest_descriptor())
    with contextlib.suppress(PermissionError):
        os.setsid()
    os.environ.clear()  # noqa: TID251  emptying is no reading
    own_uid = _drop_privileges(uid)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it, so not before
    if os.getppid() != parent:
        os._exit(0)  # the parent died before it could matter
    _prctl(_PR_SET_DUMPABLE, 0)
    _set_limits(limits, own_uid=own_uid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    abi = _landlock()
    return Confinement(seccomp=_seccomp(), landlock_abi=abi, own_uid=own_uid)


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 for none."""
    return max(0, int(_libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def _highest_descriptor() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(soft if soft > 0 else 1 << 20, 1 << 20)


def _prctl(option: int, value: Any, third: Any = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(int(value)), ctypes.c_ulong(third), 0, 0):
        raise _os_error()


def _os_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _drop_privileges(uid: int) -> bool:
    """Whether the process is now a user that nobody else is. Ends with no group of note and no capability, root or not."""
    own = False
    if os.geteuid() == 0:
        for capability in range(64):
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        own = _become(uid) or (_become(NOBODY) and False)
    _clear_capabilities()
    return own


def _become(uid: int) -> bool:
    """False where the user namespace knows no such user, or this root may not change."""
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError:
        return False
    return True


def _clear_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    number = _SYS_CAPSET.get(platform.machine())
    if number is not None and _libc.syscall(number, header, bytes(24)) != 0:
        raise _os_error()


def _set_limits(limits: Limits, *, own_uid: bool) -> None:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123  pathlib may be slow to import and is not needed here
        address_space = int(statm.read().split()[0]) * resource.getpagesize()
    wanted = {
        resource.RLIMIT_AS: address_space + limits.memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
    }
    if own_uid:
        wanted[resource.RLIMIT_NPROC] = 1  # counts all processes of the user: of use only where the user is its own
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bounded, bounded))
    if limits.cpu_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))


def _landlock() -> int:
    """Refuses every path, TCP port, outside signal and abstract socket that this kernel's Landlock knows; its version."""
    abi = landlock_abi()
    if abi < 1:
        return 0
    files = (1 << _LANDLOCK_FS_RIGHTS.get(abi, 16)) - 1
    handled = struct.pack("QQQ", files, 0b11, 0b11)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint32(0))
    if ruleset < 0 or _libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) != 0:
        raise _os_error()
    os.close(ruleset)
    return abi


def _seccomp() -> bool:
    """False where the machine's instruction set has no list, or the kernel no filters."""
    architecture = seccomp.ARCHITECTURES.get(platform.machine())
    if architecture is None:
        return False
    code = seccomp.program(architecture, os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    filters = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    return bool(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(filters), 0, 0) == 0)
