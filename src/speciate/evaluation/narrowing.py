"""What a caged process takes from itself before it runs others' code: changing the limits of another process.

Landlock says nothing of prlimit(2), and the library of the cage needs that call for its own limits, so it cannot refuse
it. A filter of system calls that the process adds by itself can, for it sees the arguments. It is inherited and cannot
be taken back. Where the machine is neither x86-64 nor arm64, or the kernel has no such filters, nothing happens.
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys

# Machine -> its mark in audit.h, and the numbers of prlimit64(2) and seccomp(2)
_CALLS = {"x86_64": (0xC000003E, 302, 317), "aarch64": (0xC00000B7, 261, 277)}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Instructions of the classic Berkeley packet filter, as linux/filter.h has them."""
_NUMBER, _ARCH, _PID = 0, 4, 16
"""Where struct seccomp_data holds them; _PID is the first argument."""
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001
"""SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with EPERM."""
_OTHER_NUMBERS = 0x40000000
"""From here on x86-64 has a second set of numbers for the same calls."""
_FILTER_MODE = 1


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def narrow() -> bool:
    """Whether the filter is in force from now on. The process must have given up new privileges, as caged ones have."""
    if sys.platform != "linux" or platform.machine() not in _CALLS:
        return False
    arch, prlimit, seccomp = _CALLS[platform.machine()]
    # an instruction: what it does, how many to skip where its test holds, where it fails, and its operand
    instructions = (
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 0, 5, arch),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 3, 0, _OTHER_NUMBERS),
        (_EQUAL, 0, 3, prlimit),
        (_LOAD, 0, 0, _PID),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    )
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    program = _Program(len(instructions), ctypes.addressof(packed))
    call = ctypes.CDLL(None).syscall
    return bool(call(ctypes.c_long(seccomp), ctypes.c_long(_FILTER_MODE), ctypes.c_long(0), ctypes.byref(program)) == 0)
