"""The filter of a process that was forked ready to work: `syscall_filter`'s, what sandlock refuses, and a little more.

Such a process has no supervisor that answers for it, so nothing is left to one: it makes no process, runs no program,
and maps no memory that its limit does not count. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence

from speciate.sandbox.syscall_filter import (
    ALLOW,
    AND,
    AT_LEAST,
    ENOSYS,
    EPERM,
    EQUAL,
    IOCTL,
    LOAD,
    PREAMBLE,
    RETURN,
    TERMINALS_AND_OWNERS,
    Instruction,
    SyscallNumbers,
    low_half,
    one_of,
    program,
)

ANY_BIT = 0x45
"""An instruction of classic BPF: whether one of these bits is set."""
EAGAIN, ENOMEM = 0x0005000B, 0x0005000C

REFUSED_IN_A_FORK = {
    # what others could be told or asked
    "accept": SyscallNumbers(43, 202), "accept4": SyscallNumbers(288, 242), "listen": SyscallNumbers(50, 201),
    # modes, owners, times and attributes of files, of which Landlock says nothing
    "chmod": SyscallNumbers(90, None), "fchmod": SyscallNumbers(91, 52), "fchmodat": SyscallNumbers(268, 53),
    "fchmodat2": SyscallNumbers(452, 452), "chown": SyscallNumbers(92, None), "fchown": SyscallNumbers(93, 55),
    "lchown": SyscallNumbers(94, None), "fchownat": SyscallNumbers(260, 54), "utime": SyscallNumbers(132, None),
    "utimes": SyscallNumbers(235, None), "futimesat": SyscallNumbers(261, None), "setxattr": SyscallNumbers(188, 5),
    "lsetxattr": SyscallNumbers(189, 6), "fsetxattr": SyscallNumbers(190, 7), "removexattr": SyscallNumbers(197, 14),
    "lremovexattr": SyscallNumbers(198, 15), "fremovexattr": SyscallNumbers(199, 16),
    "setxattrat": SyscallNumbers(463, 463), "removexattrat": SyscallNumbers(466, 466),
    # other processes
    "kill": SyscallNumbers(62, 129), "tkill": SyscallNumbers(200, 130), "tgkill": SyscallNumbers(234, 131),
    "pidfd_open": SyscallNumbers(434, 434), "pidfd_send_signal": SyscallNumbers(424, 424),
    "pidfd_getfd": SyscallNumbers(438, 438), "rt_sigqueueinfo": SyscallNumbers(129, 138),
    "rt_tgsigqueueinfo": SyscallNumbers(297, 240), "migrate_pages": SyscallNumbers(256, 238),
    "move_pages": SyscallNumbers(279, 239), "process_madvise": SyscallNumbers(440, 440),
    "kcmp": SyscallNumbers(312, 272), "ptrace": SyscallNumbers(101, 117),
    "process_vm_readv": SyscallNumbers(310, 270), "process_vm_writev": SyscallNumbers(311, 271),
    # programs
    "execve": SyscallNumbers(59, 221), "execveat": SyscallNumbers(322, 281),
    # the machine
    "mount": SyscallNumbers(165, 40), "umount2": SyscallNumbers(166, 39), "pivot_root": SyscallNumbers(155, 41),
    "swapon": SyscallNumbers(167, 224), "swapoff": SyscallNumbers(168, 225), "reboot": SyscallNumbers(169, 142),
    "kexec_load": SyscallNumbers(246, 104), "kexec_file_load": SyscallNumbers(320, 294),
    "init_module": SyscallNumbers(175, 105), "finit_module": SyscallNumbers(313, 273),
    "delete_module": SyscallNumbers(176, 106), "unshare": SyscallNumbers(272, 97), "setns": SyscallNumbers(308, 268),
    "perf_event_open": SyscallNumbers(298, 241), "bpf": SyscallNumbers(321, 280),
    "userfaultfd": SyscallNumbers(323, 282), "ioperm": SyscallNumbers(173, None), "iopl": SyscallNumbers(172, None),
    "modify_ldt": SyscallNumbers(154, None), "lookup_dcookie": SyscallNumbers(212, 18),
    "nfsservctl": SyscallNumbers(180, 42), "personality": SyscallNumbers(135, 92),
    # keys, and what has a number in the whole machine
    "keyctl": SyscallNumbers(250, 219), "add_key": SyscallNumbers(248, 217), "request_key": SyscallNumbers(249, 218),
    "shmget": SyscallNumbers(29, 194), "shmat": SyscallNumbers(30, 196), "shmdt": SyscallNumbers(67, 197),
    "shmctl": SyscallNumbers(31, 195), "msgget": SyscallNumbers(68, 186), "msgsnd": SyscallNumbers(69, 189),
    "msgrcv": SyscallNumbers(70, 188), "msgctl": SyscallNumbers(71, 187), "semget": SyscallNumbers(64, 190),
    "semop": SyscallNumbers(65, 193), "semctl": SyscallNumbers(66, 191), "semtimedop": SyscallNumbers(220, 192),
    # files in memory are no memory that is counted
    "memfd_create": SyscallNumbers(319, 279), "memfd_secret": SyscallNumbers(447, 447),
}  # fmt: skip
JUDGED_IN_A_FORK = {
    "clone": SyscallNumbers(56, 220), "clone3": SyscallNumbers(435, 435), "fork": SyscallNumbers(57, None),
    "vfork": SyscallNumbers(58, None), "mmap": SyscallNumbers(9, 222), "prctl": SyscallNumbers(157, 167),
    "ioctl": IOCTL,
}  # fmt: skip
_NAMESPACES = 0x7E020080  # CLONE_NEW*
_THREAD, _ANONYMOUS, _GROWS_DOWN, _KIND, _PRIVATE = 0x10000, 0x20, 0x100, 0xF, 2
_SOCKETS_AND_INTERFACES = 0x8900, 0x8A00
_OF_THE_SANDBOX = (1, 4, 28, 35, 0x59616D61)
"""PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECUREBITS, PR_SET_MM, PR_SET_PTRACER."""


def fork_program(name: str) -> list[Instruction]:
    """The filter for "x86-64" or "arm64"."""
    base, code = program(name), list[Instruction]()

    def case(numbers: SyscallNumbers, body: Sequence[Instruction]) -> None:
        if (number := numbers[0 if name == "x86-64" else 1]) is not None:
            code.extend([(EQUAL, 0, len(body), number), *body])

    for numbers in REFUSED_IN_A_FORK.values():
        case(numbers, [(RETURN, 0, 0, EPERM)])
    for call in ("fork", "vfork"):
        case(JUDGED_IN_A_FORK[call], [(RETURN, 0, 0, EAGAIN)])
    case(JUDGED_IN_A_FORK["clone3"], [(RETURN, 0, 0, ENOSYS)])  # its flags lie in memory; libraries take clone then
    case(JUDGED_IN_A_FORK["clone"], [
        (LOAD, 0, 0, low_half(0)), (ANY_BIT, 0, 1, _NAMESPACES), (RETURN, 0, 0, EPERM),
        (ANY_BIT, 1, 0, _THREAD), (RETURN, 0, 0, EAGAIN), (RETURN, 0, 0, ALLOW),
    ])  # fmt: skip
    case(JUDGED_IN_A_FORK["mmap"], [  # RLIMIT_DATA counts neither stacks nor memory that is shared
        (LOAD, 0, 0, low_half(3)), (ANY_BIT, 0, 1, _GROWS_DOWN), (RETURN, 0, 0, ENOMEM),
        (ANY_BIT, 1, 0, _ANONYMOUS), (RETURN, 0, 0, ALLOW),
        (AND, 0, 0, _KIND), (EQUAL, 1, 0, _PRIVATE), (RETURN, 0, 0, ENOMEM), (RETURN, 0, 0, ALLOW),
    ])  # fmt: skip
    case(JUDGED_IN_A_FORK["prctl"], one_of(0, _OF_THE_SANDBOX, EPERM, ALLOW))
    first, beyond = _SOCKETS_AND_INTERFACES
    named = one_of(1, TERMINALS_AND_OWNERS, EPERM, ALLOW)
    case(JUDGED_IN_A_FORK["ioctl"], [
        (LOAD, 0, 0, low_half(1)), (AT_LEAST, 0, 2, first), (AT_LEAST, 1, 0, beyond), (RETURN, 0, 0, EPERM), *named,
    ])  # fmt: skip
    return [*base[:PREAMBLE], *code, *base[PREAMBLE:]]
