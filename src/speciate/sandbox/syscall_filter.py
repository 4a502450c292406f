"""What Landlock does not see is refused by a filter of system calls (classic BPF), and capabilities are dropped.

`harden` is for the calling thread and every process that it starts: they inherit both before exec, at no cost per
start. It goes with the filter of sandlock; of two verdicts the kernel takes the stricter. sandlock's supervisor works
in threads that inherit it too: what it needs, a listening unix socket and pidfd_getfd, is left to it and refused in the
child by sandlock (`REFUSED_IN_THE_CHILD`).

Sockets are made of one kind, unix streams, which can neither connect nor listen; and pairs that cannot send elsewhere.
System calls newer than `_NEWEST` do not exist inside. docs/design/sandbox.md has the reasons for each group.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

CAP_DAC_READ_SEARCH = 1 << 2
"""Root reads files of other users. Paths stay Landlock's matter."""

# Instructions of classic BPF (linux/bpf_common.h) and where struct seccomp_data holds what they look at
LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
"""SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with an error."""

_NEWEST = 466
"""Numbers beyond were not looked at when this was written. The second set of numbers of x86-64 (x32) lies there too."""


class SyscallNumbers(NamedTuple):
    """Numbers of one system call; None: the architecture has no such call."""

    x86_64: int | None
    arm64: int | None


REFUSED = {
    # the network, of which Landlock knows bind and connect of TCP alone; and every way of asking without a system call
    "connect": SyscallNumbers(42, 203),
    "io_uring_setup": SyscallNumbers(425, 425),
    "io_uring_enter": SyscallNumbers(426, 426),
    "io_uring_register": SyscallNumbers(427, 427),
    # queues that have a name in the whole machine
    "mq_open": SyscallNumbers(240, 180),
    "mq_unlink": SyscallNumbers(241, 181),
    # devices and pipes in the folder that our own code reads afterwards
    "mknod": SyscallNumbers(133, None),
    "mknodat": SyscallNumbers(259, 33),
    # files by number instead of by path, and news about files outside
    "name_to_handle_at": SyscallNumbers(303, 264),
    "open_by_handle_at": SyscallNumbers(304, 265),
    "inotify_init": SyscallNumbers(253, None),
    "inotify_init1": SyscallNumbers(294, 26),
    "inotify_add_watch": SyscallNumbers(254, 27),
    "fanotify_init": SyscallNumbers(300, 262),
    "fanotify_mark": SyscallNumbers(301, 263),
    # other views of the file system
    "chroot": SyscallNumbers(161, 51),
    "open_tree": SyscallNumbers(428, 428),
    "move_mount": SyscallNumbers(429, 429),
    "fsopen": SyscallNumbers(430, 430),
    "fsmount": SyscallNumbers(432, 432),
    "fspick": SyscallNumbers(433, 433),
    "mount_setattr": SyscallNumbers(442, 442),
    "statmount": SyscallNumbers(457, 457),
    "listmount": SyscallNumbers(458, 458),
    "quotactl": SyscallNumbers(179, 60),
    "quotactl_fd": SyscallNumbers(443, 443),
    # the machine's log, names, clock and accounts
    "syslog": SyscallNumbers(103, 116),
    "sethostname": SyscallNumbers(170, 161),
    "setdomainname": SyscallNumbers(171, 162),
    "clock_settime": SyscallNumbers(227, 112),
    "settimeofday": SyscallNumbers(164, 170),
    "adjtimex": SyscallNumbers(159, 171),
    "clock_adjtime": SyscallNumbers(305, 266),
    "acct": SyscallNumbers(163, 89),
    "vhangup": SyscallNumbers(153, 58),
}
REFUSED_IN_THE_CHILD = (
    "accept",
    "accept4",
    "listen",
    "mknod",
    "mknodat",
    "inotify_init",
    "inotify_init1",
    "inotify_add_watch",
    "fanotify_init",
    "fanotify_mark",
    "syslog",
    "pidfd_getfd",
    "sethostname",
    "setdomainname",
    "open_tree",
    "fsopen",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "settimeofday",
    "chroot",
)
"""For sandlock's own list: what its supervisor needs, and a second line for others. It takes no socket, connect or bind
there."""
_PRLIMIT = SyscallNumbers(302, 261)
_SENDTO = SyscallNumbers(44, 206)  # send(2) is sendto(2) without an address
_SOCKET, _SOCKETPAIR = SyscallNumbers(41, 198), SyscallNumbers(53, 199)
_FCNTL, IOCTL, _UTIMENSAT = SyscallNumbers(72, 25), SyscallNumbers(16, 29), SyscallNumbers(280, 88)
_OWN_THREAD = {
    "sched_setparam": SyscallNumbers(142, 118), "sched_setscheduler": SyscallNumbers(144, 119),
    "sched_setaffinity": SyscallNumbers(203, 122), "sched_setattr": SyscallNumbers(314, 274),
}  # fmt: skip
_SETPRIORITY, _IOPRIO_SET = SyscallNumbers(141, 140), SyscallNumbers(251, 30)
JUDGED = {
    "prlimit64": _PRLIMIT, "sendto": _SENDTO, "socket": _SOCKET, "socketpair": _SOCKETPAIR, "fcntl": _FCNTL,
    "ioctl": IOCTL, "utimensat": _UTIMENSAT, "setpriority": _SETPRIORITY, "ioprio_set": _IOPRIO_SET, **_OWN_THREAD,
}  # fmt: skip
"""System calls of which the arguments decide."""
_SIGNALS_AND_LEASES = (8, 10, 15, 1024, 1026)  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
TERMINALS_AND_OWNERS = (0x5412, 0x541C, 0x8901, 0x8902)  # TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP


class Machine(NamedTuple):
    name: str
    audit_arch: int
    tried: bool
    """Whether the tests have run on one."""
    prctl: int
    seccomp: int
    capget: int
    capset: int


_SET_NO_NEW_PRIVS, _DROP_FROM_BOUNDING_SET, _FILTER_MODE = 38, 24, 1
_CAPABILITY_VERSION = 0x20080522
_CAPABILITIES = 64

Instruction = tuple[int, int, int, int]
"""What it does, how many to skip where its test holds, how many where it fails, and its operand."""


class FilterSupport(NamedTuple):
    """What this kernel lets a thread take from itself."""

    filter: bool
    capabilities: bool


def machine() -> Machine | None:
    """The processor's architecture, where its system calls are known here. A 32-bit Python uses other numbers."""
    return _MACHINES.get(platform.machine()) if sys.platform == "linux" and sys.maxsize > 1 << 32 else None


def harden(keep: int = 0, made: Callable[[str], Sequence[Instruction]] | None = None) -> None:
    """From now on this thread and all that it starts have the filter, and of the capabilities only `keep` (a mask).

    It cannot be taken back. OSError where the kernel refuses: nothing foreign may be started then. `made`: another
    program than `program`, for an architecture by name.
    """
    here = forbid_new_privileges()
    _drop_capabilities(here, keep)
    code = (made or program)(here.name)
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    _call(here.seccomp, _FILTER_MODE, 0, ctypes.byref(_Program(len(code), ctypes.addressof(packed))))


def forbid_new_privileges() -> Machine:
    """The first step of `harden`, which Landlock needs, too. The machine, or OSError where its calls are not known."""
    if (here := machine()) is None:
        raise OSError(f"the system calls of {platform.machine()} are not known")
    _call(here.prctl, _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return here


def probe_support() -> FilterSupport:
    """Found out by doing it in a thread that ends afterwards, and looking whether it is in force. Only a whole success
    is kept: what fails may have failed for want of memory or threads, and is tried again."""
    global _success  # noqa: PLW0603 - a success of one kernel stays true
    if _success is not None:
        return _success
    found = [FilterSupport(False, False)]
    thread = threading.Thread(target=lambda: found.append(_probe()), name="sandbox-trial")
    try:
        thread.start()
    except RuntimeError:  # no more threads now
        return found[-1]
    thread.join()
    if all(found[-1]):
        _success = found[-1]
    return found[-1]


_success: FilterSupport | None = None


def _probe() -> FilterSupport:
    if (here := machine()) is None:
        return FilterSupport(False, False)
    try:
        harden()
    except OSError:
        return FilterSupport(False, False)
    try:
        socket.socket().close()
    except PermissionError:
        return FilterSupport(True, _capabilities(here) == 0)
    return FilterSupport(False, _capabilities(here) == 0)


PREAMBLE = 6
"""Instructions of a program that come before it looks at single system calls."""


def program(name: str) -> list[Instruction]:
    """The filter for "x86-64" or "arm64"."""
    here = next(each for each in _MACHINES.values() if each.name == name)
    code: list[Instruction] = [
        (LOAD, 0, 0, _ARCH), (EQUAL, 1, 0, here.audit_arch), (RETURN, 0, 0, EPERM),  # 32-bit calls among others
        (LOAD, 0, 0, _NUMBER), (AT_LEAST, 0, 1, _NEWEST + 1), (RETURN, 0, 0, ENOSYS),
    ]  # fmt: skip

    def case(numbers: SyscallNumbers, body: Sequence[Instruction]) -> None:
        if (number := numbers[0 if name == "x86-64" else 1]) is not None:
            code.extend([(EQUAL, 0, len(body), number), *body])

    for numbers in REFUSED.values():
        case(numbers, [(RETURN, 0, 0, EPERM)])
    case(_PRLIMIT, _all_of((low_half(0), 0)))  # its own, written as 0; so with the rest of these
    for numbers in _OWN_THREAD.values():
        case(numbers, _all_of((low_half(0), 0)))
    case(_SETPRIORITY, _all_of((low_half(0), 0), (low_half(1), 0)))  # PRIO_PROCESS
    case(_IOPRIO_SET, _all_of((low_half(0), 1), (low_half(1), 0)))  # IOPRIO_WHO_PROCESS
    case(_SENDTO, _all_of((low_half(4), 0), (_high(4), 0)))  # to no address
    case(_UTIMENSAT, _all_of((low_half(1), 0), (_high(1), 0)))  # of a file that it has open, not of a path
    # no datagrams: sendmsg(2) sends those to any address, which lies in memory, where no filter looks
    case(_SOCKET, _unix_of(socket.SOCK_STREAM))
    case(_SOCKETPAIR, _unix_of(socket.SOCK_STREAM, socket.SOCK_SEQPACKET))
    case(_FCNTL, one_of(1, _SIGNALS_AND_LEASES, EPERM, ALLOW))
    case(IOCTL, one_of(1, TERMINALS_AND_OWNERS, EPERM, ALLOW))
    code.append((RETURN, 0, 0, ALLOW))
    return code


def one_of(argument: int, values: Sequence[int], hit: int, miss: int) -> list[Instruction]:
    tests = [(EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [(LOAD, 0, 0, low_half(argument)), *tests, (RETURN, 0, 0, miss), (RETURN, 0, 0, hit)]


def _all_of(*fields: tuple[int, int]) -> list[Instruction]:
    """Allow a call if each of these words has this value."""
    last = len(fields) - 1
    tests = [
        each
        for place, (field, value) in enumerate(fields)
        for each in ((LOAD, 0, 0, field), (EQUAL, 0, 2 * (last - place) + 1, value))
    ]
    return [*tests, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, EPERM)]


def _unix_of(*kinds: int) -> list[Instruction]:
    """Allow a socket of family AF_UNIX and of one of these types; their flags do not matter."""
    tests = [(EQUAL, len(kinds) - place, 0, kind) for place, kind in enumerate(kinds)]
    return [
        (LOAD, 0, 0, low_half(0)), (EQUAL, 1, 0, socket.AF_UNIX), (RETURN, 0, 0, EPERM),
        (LOAD, 0, 0, low_half(1)), (AND, 0, 0, 0xF), *tests, (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip


def low_half(argument: int) -> int:
    """Place of the argument's lower half, on a little-endian machine."""
    return _ARGUMENTS + 8 * argument


def _high(argument: int) -> int:
    return low_half(argument) + 4


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def _drop_capabilities(here: Machine, keep: int) -> None:
    """exec gives none back: no_new_privs is set, and where it may be the bounding set is emptied, too."""
    kept = keep & _capabilities(here)
    for capability in range(_CAPABILITIES):
        if not kept >> capability & 1:
            try:
                _call(here.prctl, _DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
            except OSError:  # beyond the last, or not ours to drop
                break
    data = struct.pack("6I", *(kept & 0xFFFFFFFF, kept & 0xFFFFFFFF, 0), *(kept >> 32, kept >> 32, 0))
    _call(here.capset, _capability_header(), ctypes.create_string_buffer(data))


def _capabilities(here: Machine) -> int:
    """Capabilities that this thread is permitted, as a mask."""
    data = ctypes.create_string_buffer(24)
    _call(here.capget, _capability_header(), data)
    _, low, _, _, high, _ = struct.unpack("6I", data.raw)
    return int(high << 32 | low)


def _capability_header() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0))


def _call(number: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if libc.syscall(ctypes.c_long(number), *given) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


_MACHINES = {
    "x86_64": Machine("x86-64", 0xC000003E, True, prctl=157, seccomp=317, capget=125, capset=126),
    "aarch64": Machine("arm64", 0xC00000B7, False, prctl=167, seccomp=277, capget=90, capset=91),
}
