"""The filter as what it is, a program for a small machine: run here on system calls of both architectures."""

from __future__ import annotations

import operator
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from speciate.errors import Code, SpeciateError
from speciate.sandbox import Sandbox, is_complete, start, syscall_filter
from speciate.sandbox import process as sandbox_process
from speciate.sandbox.fork_filter import ANY_BIT
from speciate.sandbox.syscall_filter import (
    ALLOW,
    AND,
    AT_LEAST,
    ENOSYS,
    EPERM,
    EQUAL,
    JUDGED,
    LOAD,
    REFUSED,
    Instruction,
    program,
)

MACHINES = ("x86-64", "arm64")
ARCHES = {"x86-64": 0xC000003E, "arm64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
HEADERS = {
    "x86-64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), "arm64": Path("/usr/include/asm-generic/unistd.h"),
}  # fmt: skip
X32 = 0x40000000
TESTS: dict[int, Callable[[int, int], bool]] = {
    EQUAL: operator.eq,
    AT_LEAST: operator.ge,
    ANY_BIT: lambda register, bits: bool(register & bits),
}
needs_sandbox = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="a user has no capabilities to lose")


class Asked(NamedTuple):
    number: int
    arguments: tuple[int, ...] = ()
    arch: str | None = None


def verdict(machine: str, asked: Asked, made: Callable[[str], list[Instruction]] = program) -> int:
    """What the kernel would make of it."""
    words = {0: asked.number, 4: ARCHES[asked.arch or machine]}
    for place, value in enumerate((*asked.arguments, 0, 0, 0, 0, 0, 0)[:6]):
        words |= {16 + 8 * place: value & 0xFFFFFFFF, 20 + 8 * place: value >> 32 & 0xFFFFFFFF}
    code, at, register = made(machine), 0, 0
    while True:
        does, held, failed, operand = code[at]
        at += 1
        if does == LOAD:
            register = words[operand]
        elif does == AND:
            register &= operand
        elif does in TESTS:
            at += held if TESTS[does](register, operand) else failed
        else:
            return operand


def number(machine: str, name: str) -> int:
    found = {**REFUSED, **JUDGED}[name][MACHINES.index(machine)]
    assert found is not None
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_never_allowed_is_refused_whatever_its_arguments(machine: str) -> None:
    for name, numbers in REFUSED.items():
        here = numbers[MACHINES.index(machine)]
        if here is not None:
            assert verdict(machine, Asked(here)) == EPERM, name
            assert verdict(machine, Asked(here, (2**64 - 1,) * 6)) == EPERM, name


STREAM, DATAGRAM, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
CLOEXEC = 0o2000000
JUDGEMENTS = [
    ("socket", (socket.AF_UNIX, STREAM | CLOEXEC), ALLOW), ("socket", (socket.AF_UNIX, DATAGRAM), EPERM),
    ("socket", (socket.AF_INET, STREAM), EPERM), ("socket", (socket.AF_INET, STREAM, 262), EPERM),
    ("socket", (socket.AF_INET6, DATAGRAM), EPERM), ("socket", (16, 3), EPERM), ("socket", (40, STREAM), EPERM),
    ("socketpair", (socket.AF_UNIX, STREAM), ALLOW), ("socketpair", (socket.AF_UNIX, SEQPACKET), ALLOW),
    ("socketpair", (socket.AF_UNIX, DATAGRAM), EPERM), ("socketpair", (socket.AF_INET, STREAM), EPERM),
    ("sendto", (3, 4096, 6, 0, 0, 0), ALLOW), ("sendto", (3, 4096, 6, 0x20000000, 8192, 16), EPERM),
    ("sendto", (3, 4096, 6, 0, 1 << 32, 16), EPERM),
    ("prlimit64", (0, 7), ALLOW), ("prlimit64", (4711, 7), EPERM),
    ("sched_setaffinity", (0, 8), ALLOW), ("sched_setaffinity", (4711, 8), EPERM), ("sched_setattr", (4711,), EPERM),
    ("setpriority", (0, 0, 5), ALLOW), ("setpriority", (0, 4711, 5), EPERM), ("setpriority", (2, 0, 5), EPERM),
    ("ioprio_set", (1, 0), ALLOW), ("ioprio_set", (1, 4711), EPERM), ("ioprio_set", (3, 0), EPERM),
    ("utimensat", (3, 0), ALLOW), ("utimensat", (2**32 - 100, 4096), EPERM), ("utimensat", (3, 1 << 32), EPERM),
    ("fcntl", (3, 2), ALLOW), ("fcntl", (3, 4), ALLOW), ("fcntl", (3, 8), EPERM), ("fcntl", (3, 1026), EPERM),
    ("fcntl", (3, 1024), EPERM), ("ioctl", (3, 0x5401), ALLOW), ("ioctl", (3, 0x5412), EPERM),
    ("ioctl", (3, (1 << 32) | 0x5412), EPERM),
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "expected"), JUDGEMENTS)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert verdict(machine, Asked(number(machine, name), arguments)) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_other_sets_of_numbers_and_newer_calls_do_not_exist(machine: str) -> None:
    assert verdict(machine, Asked(0)) == ALLOW
    assert verdict(machine, Asked(0, arch="i386")) == EPERM
    assert verdict(machine, Asked(0, arch="arm")) == EPERM
    assert verdict(machine, Asked(467)) == ENOSYS
    assert verdict(machine, Asked(2**32 - 1)) == ENOSYS
    assert verdict(machine, Asked(X32 + 41, (2, 1))) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernel_s_own_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[machine].read_text()
    told = {name: int(value) for name, value in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", text)}
    ours = {name: numbers[MACHINES.index(machine)] for name, numbers in {**REFUSED, **JUDGED}.items()}
    newer = {"statmount", "listmount"}  # than the headers of a distribution that lasts
    assert {name: told.get(name) for name in ours if name in told or name not in newer} == {
        name: number for name, number in ours.items() if name in told or name not in newer
    }


def test_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert syscall_filter.machine() is None
    assert syscall_filter._probe() == (False, False)
    with pytest.raises(OSError, match="riscv64"):
        syscall_filter.harden()


@needs_sandbox
def test_a_trial_that_failed_once_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(keep: int = 0) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(syscall_filter, "_success", None)
    with monkeypatch.context() as patch:
        patch.setattr(syscall_filter, "harden", fails)
        assert syscall_filter.probe_support() == (False, False)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert syscall_filter.probe_support() == (False, False)
    assert syscall_filter.probe_support() == (True, True)
    monkeypatch.setattr(syscall_filter, "harden", fails)
    assert syscall_filter.probe_support() == (True, True), "a success is found out once"


@needs_sandbox
def test_a_thread_that_cannot_take_it_from_itself_starts_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(keep: int = 0) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(sandbox_process, "_starters", {})
    with monkeypatch.context() as patch:
        patch.setattr(syscall_filter, "harden", refuses)
        with pytest.raises(SpeciateError, match="could not be made: Operation not permitted") as refused:
            start([sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"], Sandbox((), tmp_path))
    assert refused.value.code is Code.UNAVAILABLE
    assert not (tmp_path / "ran").exists()
    process = start([sys.executable, "-I", "-c", "print('again')"], Sandbox((), tmp_path))
    assert process.stdout.read() == b"again\n"
    process.kill()


@needs_sandbox
@needs_root
@pytest.mark.parametrize("code", [False, True])
def test_root_gives_up_all_but_reading_where_our_own_code_decodes(code: bool, tmp_path: Path) -> None:
    """A file that another user keeps for himself: what root is asked to import may be one."""
    theirs, own = tmp_path / "theirs", tmp_path / "own"
    theirs.write_text("content")
    own.mkdir()
    os.chown(theirs, 65534, 65534)
    theirs.chmod(stat.S_IRUSR)
    shows = (
        "names = ('CapEff', 'CapPrm', 'CapBnd')\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith(names)])\n"
        f"try: print(open({str(theirs)!r}).read())\nexcept PermissionError: print('refused')\n"
        f"try: open({str(theirs)!r}, 'a')\nexcept PermissionError: print('not written')\n"
    )
    process = start([sys.executable, "-I", "-c", shows], Sandbox((theirs,), own, code=code))
    told = process.stdout.read().decode().split("\n")
    process.kill()
    kept = "0000000000000000" if code else "0000000000000004"
    assert told[:3] == [str([kept] * 3), "refused" if code else "content", "not written"]


@needs_sandbox
def test_this_process_keeps_what_the_thread_gave_up(tmp_path: Path) -> None:
    before = Path("/proc/self/status").read_text()
    process = start([sys.executable, "-I", "-c", ""], Sandbox((), tmp_path))
    process.kill()
    kept = [line for line in before.split("\n") if line.startswith(("Cap", "NoNewPrivs", "Seccomp:"))]
    assert all(line in Path("/proc/self/status").read_text() for line in kept)
    socket.socket().close()
    subprocess.run(["/bin/true"], check=True)
