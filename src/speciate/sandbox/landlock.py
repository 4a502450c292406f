"""Landlock without a library: this thread, and all that it starts, may use the listed paths alone, and no TCP.

For processes that are forked ready to work (warm_child.py). Others get theirs from sandlock. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

# linux/landlock.h; the numbers are the same on x86-64 and arm64
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_EVERY_FILE_RIGHT = (1 << 13) - 1
_BIND_AND_CONNECT, _SIGNALS_AND_ABSTRACT_SOCKETS = 3, 3
_READS = _EXECUTE | _READ_FILE | _READ_DIR  # to run is to map a library
_WRITES = (
    _READS | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
)  # no devices, pipes and sockets: our own code opens the folder afterwards
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE


class Handled(NamedTuple):
    """What a kernel can refuse, as masks of its Landlock ABI."""

    files: int
    network: int
    scopes: int


def handled(abi: int) -> Handled:
    files = _EVERY_FILE_RIGHT
    for least, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        files |= right if abi >= least else 0
    return Handled(files, _BIND_AND_CONNECT if abi >= 4 else 0, _SIGNALS_AND_ABSTRACT_SOCKETS if abi >= 6 else 0)


def abi() -> int:
    """OSError where the kernel has none."""
    return _call(_CREATE_RULESET, None, 0, _VERSION)


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """From now on, for good. Paths that are not there are left out. OSError where the kernel refuses: nothing foreign
    may be read then. no_new_privs must have been set."""
    here = handled(abi())
    with closing(_Descriptor(_call(_CREATE_RULESET, struct.pack("QQQ", *here), 24, 0))) as ruleset:
        for paths, rights in ((readable, _READS), (writable, _WRITES)):
            for path in paths:
                _allow(ruleset.number, path, rights & here.files)
        _call(_RESTRICT_SELF, ruleset.number, 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with closing(_Descriptor(descriptor)):
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)


class _Descriptor(NamedTuple):
    number: int

    def close(self) -> None:
        os.close(self.number)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *given))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
