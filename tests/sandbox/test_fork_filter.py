"""The filter of forks: all that programs are refused, whoever refuses it there, and what no supervisor is asked for."""

from __future__ import annotations

import mmap
import re

import pytest

from speciate.sandbox import process
from speciate.sandbox.fork_filter import EAGAIN, ENOMEM, JUDGED_IN_A_FORK, REFUSED_IN_A_FORK, fork_program
from speciate.sandbox.syscall_filter import ALLOW, ENOSYS, EPERM, JUDGED, REFUSED, REFUSED_IN_THE_CHILD
from tests.sandbox.test_syscall_filter import HEADERS, JUDGEMENTS, MACHINES, Asked, number, verdict

BY_SANDLOCK = (
    "mount", "umount2", "pivot_root", "swapon", "swapoff", "reboot", "sethostname", "setdomainname", "kexec_load",
    "init_module", "finit_module", "delete_module", "unshare", "setns", "perf_event_open", "bpf", "userfaultfd",
    "keyctl", "add_key", "request_key", "ptrace", "process_vm_readv", "process_vm_writev", "open_by_handle_at",
    "name_to_handle_at", "ioperm", "iopl", "quotactl", "acct", "lookup_dcookie", "nfsservctl", "io_uring_setup",
    "io_uring_enter", "io_uring_register", "personality", "shmget", "shmat", "shmdt", "shmctl", "msgget", "msgsnd",
    "msgrcv", "msgctl", "semget", "semop", "semctl", "semtimedop",
)  # fmt: skip
"""The list of sandlock 0.9, which programs have."""
PRIVATE, SHARED, ANONYMOUS = mmap.MAP_PRIVATE, mmap.MAP_SHARED, mmap.MAP_ANONYMOUS


def test_nothing_that_a_program_is_refused_is_left_to_a_fork() -> None:
    assert {*BY_SANDLOCK, *process._NEVER, *REFUSED_IN_THE_CHILD} <= REFUSED_IN_A_FORK.keys() | REFUSED.keys()


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_refused_is_refused_whatever_its_arguments(machine: str) -> None:
    for name, numbers in {**REFUSED, **REFUSED_IN_A_FORK}.items():
        here = numbers[MACHINES.index(machine)]
        if here is not None:
            for arguments in ((), (2**64 - 1,) * 6):
                assert verdict(machine, Asked(here, arguments), fork_program) == EPERM, name


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "expected"), JUDGEMENTS)
def test_arguments_decide_as_for_programs(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert verdict(machine, Asked(number(machine, name), arguments), fork_program) == expected


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("fork", (), EAGAIN), ("vfork", (), EAGAIN), ("clone3", (4096, 88), ENOSYS),
        ("clone", (0x3D0F00,), ALLOW), ("clone", (17,), EAGAIN), ("clone", (0x3D0F00 | 0x10000000,), EPERM),
        ("mmap", (0, 4096, 3, PRIVATE | ANONYMOUS), ALLOW), ("mmap", (0, 4096, 1, PRIVATE), ALLOW),
        ("mmap", (0, 4096, 3, SHARED), ALLOW), ("mmap", (0, 4096, 3, SHARED | ANONYMOUS), ENOMEM),
        ("mmap", (0, 4096, 3, 3 | ANONYMOUS), ENOMEM), ("mmap", (0, 4096, 3, PRIVATE | ANONYMOUS | 0x100), ENOMEM),
        ("prctl", (15,), ALLOW), ("prctl", (1, 0), EPERM), ("prctl", (4, 1), EPERM), ("prctl", (0x59616D61,), EPERM),
        ("ioctl", (3, 0x5421), ALLOW), ("ioctl", (3, 0x8912), EPERM), ("ioctl", (3, 0x8946), EPERM),
        ("ioctl", (3, 0x5412), EPERM), ("ioctl", (3, 0x8A00), ALLOW),
    ],
)  # fmt: skip
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    here = JUDGED_IN_A_FORK[name][MACHINES.index(machine)]
    if here is not None:
        assert verdict(machine, Asked(here, arguments), fork_program) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_the_rest_is_as_for_programs(machine: str) -> None:
    assert verdict(machine, Asked(0, arch="i386"), fork_program) == EPERM
    assert verdict(machine, Asked(467), fork_program) == ENOSYS
    known = {**REFUSED, **JUDGED, **REFUSED_IN_A_FORK, **JUDGED_IN_A_FORK}
    named = {numbers[MACHINES.index(machine)] for numbers in known.values()}
    for call in set(range(467)) - named:
        assert verdict(machine, Asked(call), fork_program) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernel_s_own_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[machine].read_text()
    told = {name: int(value) for name, value in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", text)}
    ours = {name: each[MACHINES.index(machine)] for name, each in {**REFUSED_IN_A_FORK, **JUDGED_IN_A_FORK}.items()}
    newer = {"setxattrat", "removexattrat"}  # than the headers of a distribution that lasts
    assert {name: told.get(name) for name in ours if name in told or name not in newer} == {
        name: call for name, call in ours.items() if name in told or name not in newer
    }
