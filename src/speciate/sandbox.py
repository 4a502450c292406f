"""The cage for foreign bytes and code, thin over the library `sandlock` (Landlock, seccomp and limits; no root needed).

A caged process reads the listed folders and what Python needs, writes one folder, has no network, a clean environment
and only its three standard streams; memory, processes, open files, file sizes and CPU time are limited, and it dies
with its group. Three facts about the library, measured:

- The kernel kills a caged process when the *thread* that started it ends (PR_SET_PDEATHSIG), so one thread that
  lives as long as this process starts them all. In return a caged process never outlives the process that started it;
  its own children would, so by default it may have none.
- Memory is counted as mapped, not as touched: allocators that reserve address space are told not to (`_ENVIRONMENT`).
- Layers beyond `_NEEDED_ABI` are used where the kernel has them; `layers()` says which.

Left out: control groups (they need a delegated tree) and GPUs.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol

from speciate.environment import LIBRARIES
from speciate.errors import Code, SpeciateError

_NEEDED_ABI = 4
"""Landlock ABI that holds files (1), truncation (3) and TCP (4): Linux 6.7."""
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/proc",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
} | LIBRARIES
_CODE = Path(__file__).parent

_NEVER = ("clock_settime", "clock_adjtime", "adjtimex", "settimeofday", "chroot")
"""System calls beyond those that the library refuses anyway: where a caged process is root's, the machine's clock."""
_NEVER_OF_CODE = (
    # Landlock says nothing of modes, owners, times and attributes of files, which lie outside as well
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat",
    "utime", "utimes", "utimensat", "futimesat",
    "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
    # nor of what one process may do to another of the same user
    "kill", "tkill", "tgkill", "pidfd_open", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
    "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr",
    "setpriority", "ioprio_set", "migrate_pages", "move_pages", "process_madvise", "kcmp",
    # files in memory are no memory that is counted; and with PR_SET_PDEATHSIG it would outlive who started it
    "memfd_create", "memfd_secret", "prctl",
)  # fmt: skip
"""What code that others wrote may not ask of the kernel, and libraries that it imports do without."""

CagePolicy = Literal["required", "where_possible"]
"""Whether a process may start on a kernel that cannot cage it: settings.cage."""


@dataclass(frozen=True)
class Limits:
    """What a caged process may use. Beyond memory or CPU time it is killed; the rest fails inside it."""

    memory_mb: int = 2048
    processes: int = 1
    """Itself included; threads do not count."""
    open_files: int = 256
    file_mb: int = 1024
    """Size of one file that it writes."""
    cpu_seconds: int | None = None


@dataclass(frozen=True)
class Cage:
    """Folders or files to read, the one folder to write (also the working folder and HOME), and limits."""

    readable: tuple[Path, ...]
    writable: Path
    limits: Limits = Limits()
    code: bool = False
    """Whether others' code runs in it, not our code on others' bytes: then fewer system calls are left."""


class Layer(NamedTuple):
    name: str
    there: bool
    needed: bool
    what: str


class _Process(Protocol):
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    pid: int | None

    def wait(self, timeout: float | None = None) -> Any: ...


class Caged:
    """A live process with pipes `stdin` and `stdout` (unbuffered). Call `kill` in the end: it also reaps."""

    def __init__(self, process: _Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.pid is not None
        self._process = process
        self.stdin, self.stdout, self.pid = process.stdin, process.stdout, process.pid
        self._ended = False

    def interrupt(self) -> None:
        """SIGKILL for the whole group, from any thread; `kill` must follow to reap."""
        if not self._ended:  # once reaped, the number may be another's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL for the whole group, then reap. Idempotent; not to be called from two threads at once."""
        if self._ended:
            return
        self.interrupt()
        self._ended = True
        with contextlib.suppress(OSError):
            self.stdin.close()
        self._process.wait(5)
        self.stdout.close()


def layers() -> list[Layer]:
    """Which parts of the cage this kernel has, for `doctor`."""
    found = _landlock_abi()
    rows = (
        ("files", 1, "reads and writes stay in the listed folders"),
        ("truncation", 3, "files outside cannot be emptied"),
        ("network", 4, "no connections"),
        ("devices", 5, "no device commands"),
        ("signals", 6, "no signals to other processes, no abstract sockets"),
    )
    return [Layer(name, found >= abi, abi <= _NEEDED_ABI, what) for name, abi, what in rows]


def complete() -> bool:
    """Whether every needed layer is there."""
    return _landlock_abi() >= _NEEDED_ABI


def start(
    argv: Sequence[str], cage: Cage, policy: CagePolicy = "required", environment: Mapping[str, str] | None = None
) -> Caged:
    """Start `argv` caged, in its own process group, with pipes for stdin and stdout; stderr is this process's.

    UNAVAILABLE where the kernel lacks a needed layer and `policy` requires it; under `where_possible` it then starts
    with nothing but a clean environment and its own group.
    """
    check(policy)
    variables = {**_ENVIRONMENT, "HOME": str(cage.writable), "TMPDIR": str(cage.writable), **(environment or {})}
    if complete():
        process = _starter(os.getpid()).submit(_start_caged, list(argv), cage, variables).result()
    else:
        process = _start_free(list(argv), cage, variables)
    return Caged(process)


def check(policy: CagePolicy) -> None:
    """Refuse where the kernel lacks what `policy` requires."""
    if policy == "required" and not complete():
        missing = ", ".join(layer.name for layer in layers() if layer.needed and not layer.there)
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"This kernel cannot cage foreign bytes (missing: {missing}), and this workspace requires the cage.",
            "Run `speciate doctor`. To go on without the cage, a person sets cage = 'where_possible' in settings.toml.",
        )


def python(module: str, *arguments: str) -> list[str]:
    """The command line of one of our modules, isolated from the user's environment and site folder."""
    return [sys.executable, "-I", "-m", module, *arguments]


@cache
def _starter(pid: int) -> ThreadPoolExecutor:
    """The thread that starts every caged process of this process; a fork needs its own."""
    return ThreadPoolExecutor(1, thread_name_prefix="cage")


@cache
def _landlock_abi() -> int:
    if sys.platform != "linux":
        return 0
    try:
        import sandlock  # type: ignore[import-untyped]  # ships no types
    except (ImportError, OSError):  # not installed, or built for another libc
        return 0
    return int(sandlock.landlock_abi_version())


def _readable() -> list[Path]:
    """What any Python process of ours reads: system libraries, the interpreter, installed packages, our code."""
    packages = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return [*map(Path, _SYSTEM), Path(sys.prefix), Path(sys.base_prefix), *map(Path, packages), _CODE]


def _start_caged(argv: list[str], cage: Cage, environment: dict[str, str]) -> _Process:
    import sandlock  # type: ignore[import-untyped, unused-ignore]  # ships no types

    limits = cage.limits
    readable = {str(path) for path in (*_readable(), *cage.readable) if path.exists()}
    box = sandlock.Sandbox(
        fs_readable=sorted(readable),
        fs_writable=[str(cage.writable), "/dev/null"],  # libraries open it for writing while they are imported
        clean_env=True,
        env=environment,
        cwd=str(cage.writable),
        max_memory=f"{limits.memory_mb}M",
        max_processes=limits.processes,
        max_open_files=limits.open_files,
        extra_deny_syscalls=[*_NEVER, *(_NEVER_OF_CODE if cage.code else ())],
        no_coredump=True,
        allow_degraded=[
            sandlock.Protection.FS_IOCTL_DEV,
            sandlock.Protection.SIGNAL_SCOPE,
            sandlock.Protection.ABSTRACT_UNIX_SOCKET_SCOPE,
        ],
    )
    pipes = sandlock.StdioMode.PIPED
    process: _Process = box.popen(argv, pipes, pipes, sandlock.StdioMode.INHERIT)
    _set_limits(process.pid, limits)
    return process


def _set_limits(pid: int | None, limits: Limits) -> None:
    """The limits that the library does not set. The process may be gone already."""
    if not pid:  # 0 would mean ourselves
        return
    size = limits.file_mb * 1024 * 1024
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
        if limits.cpu_seconds is not None:
            resource.prlimit(pid, resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds))


def _start_free(argv: list[str], cage: Cage, environment: dict[str, str]) -> _Process:
    process: Any = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd=cage.writable,
        env=environment,
        start_new_session=True,
    )
    return process  # type: ignore[no-any-return]  # Popen has these attributes, typed more widely
