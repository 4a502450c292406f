"""Processes in the sandbox: started, limited, ended.

A sandboxed process reads the listed folders and what Python needs, writes one folder, has no network, no capabilities,
a clean environment and only its three standard streams; memory, processes, open files, file sizes and CPU time are
limited, and it dies with its group. Four facts about the library `sandlock`, measured:

- The kernel kills a sandboxed process when the *thread* that started it ends (PR_SET_PDEATHSIG), so one thread that
  lives as long as this process starts them all. In return a sandboxed process never outlives the process that started
  it; its own children would, so by default it may have none. The thread has taken from itself what a sandboxed process
  must not have (`syscall_filter.harden`), which is inherited.
- Memory is counted as mapped, not as touched: allocators that reserve address space are told not to (`_ENVIRONMENT`).
- Until it runs a program, the sandboxed process is a fork of this one, and the memory of *this* process is counted as
  its own: an allocation between the filter and `exec` kills it where we have more than its limit. So the library is
  given no environment to set there; `env` sets it (`_WITH_ENVIRONMENT`).
- Layers of Landlock beyond those needed are used where the kernel has them; `layers()` says which.

Left out: control groups (they need a delegated tree) and GPUs.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from speciate.environment import LIBRARIES
from speciate.errors import Code, SpeciateError
from speciate.sandbox import syscall_filter, warm
from speciate.sandbox.kernel import SandboxPolicy, check, is_complete
from speciate.sandbox.stderr_relay import Stream, relay
from speciate.sandbox.warm_child import Request

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
PARENT_ENVIRONMENT = {
    **_ENVIRONMENT, "HOME": "/nonexistent", "TMPDIR": "/nonexistent",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # what forks should have one thread
}  # fmt: skip
"""Environment of a warm parent: a sandboxed process's, without a folder."""
_PACKAGE = Path(__file__).parent.parent
_CODE = _PACKAGE.parent if (_PACKAGE.parent.parent / "pyproject.toml").is_file() else _PACKAGE
"""The package; of an editable install `src/`, which Python lists to find it, and in which nothing else lies."""

_WITH_ENVIRONMENT = ("/usr/bin/env", "-i")

_NEVER = (
    # Landlock says nothing of modes, owners, times and attributes of files, which lie outside as well
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat",
    "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
    # nor, before its ABI 6, of what one process may do to another of the same user
    "kill", "tkill", "tgkill", "pidfd_open", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
    "migrate_pages", "move_pages", "process_madvise", "kcmp",
)  # fmt: skip
"""System calls beyond those that the library and `syscall_filter` refuse."""
_NEVER_OF_CODE = (
    "utimensat", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr", "setpriority",
    "ioprio_set",
    # files in memory are no memory that is counted; and with PR_SET_PDEATHSIG it would outlive who started it
    "memfd_create", "memfd_secret", "prctl",
)  # fmt: skip
"""What code that others wrote may not ask of the kernel, and libraries that it imports do without."""
_LAST_WORDS_SECONDS = 0.5
"""How long `kill` waits for what was written to standard error to be passed on."""


@dataclass(frozen=True)
class Limits:
    """What a sandboxed process may use. Beyond memory or CPU time it is killed; the rest fails inside it."""

    memory_mb: int = 2048
    processes: int = 1
    """Itself included; threads do not count."""
    open_files: int = 256
    file_mb: int = 1024
    """Size of one file that it writes."""
    cpu_seconds: int | None = None


@dataclass(frozen=True)
class Sandbox:
    """Folders or files to read, the one folder to write (also the working folder and HOME), and limits."""

    readable: tuple[Path, ...]
    writable: Path
    limits: Limits = Limits()
    code: bool = False
    """Whether others' code runs in it, not our code on others' bytes: then fewer system calls are left, and root's
    process cannot read other users' files, as one that decodes can (CAP_DAC_READ_SEARCH)."""
    fork: bool = False
    """Whether a fork of the warm parent will do: for our own modules, which need its imports."""
    family: str = ""
    """Which parent is asked first (`warm.offer`)."""

    @property
    def capabilities(self) -> int:
        """Capabilities that it keeps where root starts it, as a mask."""
        return 0 if self.code else syscall_filter.CAP_DAC_READ_SEARCH


class _Process(Protocol):
    @property
    def stdin(self) -> IO[bytes] | None: ...

    @property
    def stdout(self) -> IO[bytes] | None: ...

    @property
    def stderr(self) -> IO[bytes] | None: ...

    @property
    def pid(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> Any: ...


class Ending(NamedTuple):
    how: str
    """How it ended, in words: its exit code or the signal."""
    last: tuple[str, ...]
    """Last lines of its standard error, which may quote anything."""


class SandboxedProcess:
    """A live process with pipes `stdin` and `stdout` (unbuffered). Call `kill` in the end: it also reaps."""

    def __init__(self, process: _Process, messages: Stream) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.pid is not None
        self._process, self._messages = process, messages
        self.stdin, self.stdout, self.pid = process.stdin, process.stdout, process.pid
        self._ended = False

    @property
    def forked(self) -> bool:
        """Whether it is a fork of a warm parent."""
        return isinstance(self._process, warm.ForkedProcess)

    def interrupt(self) -> None:
        """SIGKILL for the whole group, from any thread; `kill` must follow to reap."""
        if not self._ended:  # once reaped, the number may be another's
            _kill_group(self._process)

    def ending(self) -> Ending:
        """How it ended, for whoever found its pipes closed; it is given a moment for it. Nothing is reaped."""
        until = time.monotonic() + _LAST_WORDS_SECONDS
        while (how := _exit_status(self._process)) is None and time.monotonic() < until:
            time.sleep(0.01)
        self._messages.ended.wait(max(0.0, until - time.monotonic()))
        return Ending(how or "it still lived", tuple(self._messages.last))

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
        self._messages.ended.wait(_LAST_WORDS_SECONDS)


def start(
    argv: Sequence[str],
    sandbox: Sandbox,
    policy: SandboxPolicy = "required",
    environment: Mapping[str, str] | None = None,
) -> SandboxedProcess:
    """Start `argv` in the sandbox, in its own process group, with pipes for stdin and stdout. What it writes to stderr
    comes out at this process's as lines that name it, up to a limit (`relay`).

    UNAVAILABLE where the kernel lacks a needed layer and `policy` requires it, or the sandbox cannot be made. Under
    `where_possible` others' code is REFUSED then, and ours starts with the layers of `syscall_filter`, where those are
    there, a clean environment and its own group.
    """
    check(policy, code=sandbox.code)
    variables = {**_ENVIRONMENT, "HOME": str(sandbox.writable), "TMPDIR": str(sandbox.writable), **(environment or {})}
    process: _Process
    if sandbox.fork and is_complete() and (fork := _fork(argv, sandbox, variables)) is not None:
        process = fork
    elif is_complete():
        process = _start_on_thread(list(argv), sandbox, variables)
    elif syscall_filter.probe_support() == (True, True):
        process = (
            _starter(os.getpid(), sandbox.capabilities)
            .submit(_start_unsandboxed, list(argv), sandbox, variables)
            .result()
        )
    else:
        process = _start_unsandboxed(list(argv), sandbox, variables)
    try:
        if not isinstance(process, warm.ForkedProcess):
            _set_limits(process.pid, sandbox.limits)  # from here: the starter may change its own limits alone
        assert process.stderr is not None
        messages = relay(os.dup(process.stderr.fileno()), f"sandboxed {process.pid} {_program_name(argv)}")
    except BaseException:  # no descriptor is left, say
        _kill_half_started(process)
        raise
    process.stderr.close()
    return SandboxedProcess(process, messages)


def _kill_group(process: _Process) -> None:
    if isinstance(process, warm.ForkedProcess):  # alone in its group: it can make no other
        process.kill()
    elif process.pid:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _exit_status(process: _Process) -> str | None:
    """How a process ended, in words; None where it lives."""
    if isinstance(process, warm.ForkedProcess):
        if not process.ended(0):
            return None
        return _ended_words(process.status) if process.status is not None else "its parent ended, and it with it"
    try:
        found = os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return "it ended, nobody knows how"
    if found is None:
        return None
    return _ended_words(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)


def _ended_words(status: int) -> str:
    """How a process ended, in words. `status`: as of os.waitstatus_to_exitcode."""
    return f"it ended with code {status}" if status >= 0 else f"{signal.Signals(-status).name} ended it"


def python(module: str, *arguments: str) -> list[str]:
    """The command line of one of our modules, isolated from the user's environment and site folder."""
    return [sys.executable, "-I", "-m", module, *arguments]


def warm_address() -> str | None:
    """Address of this process's warm parent, for processes that it starts and that outlive it (`warm.use`)."""
    return warm.own_address(PARENT_ENVIRONMENT) if is_complete() else None


def _fork(argv: Sequence[str], sandbox: Sandbox, variables: dict[str, str]) -> warm.ForkedProcess | None:
    """None where the command is no Python of ours, it is others' code, or there is no warm parent."""
    interpreter, isolated, flag, *_ = (*argv, "", "", "")
    if sandbox.code or (interpreter, isolated) != (sys.executable, "-I") or flag not in ("-m", "-c"):
        return None
    limits = sandbox.limits
    if limits.processes != 1:
        return None
    request = Request(
        arguments=list(argv[2:]),
        environment=variables,
        readable=[str(path) for path in (*_readable(), *sandbox.readable)],
        writable=str(sandbox.writable),
        capabilities=sandbox.capabilities,
        memory_mb=limits.memory_mb,
        open_files=limits.open_files,
        file_mb=limits.file_mb,
        cpu_seconds=limits.cpu_seconds,
    )
    return warm.start_fork(request, PARENT_ENVIRONMENT, sandbox.family)


_starters: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


def _starter(pid: int, capabilities: int) -> ThreadPoolExecutor:
    """The thread of this process that starts those that keep these capabilities; a fork needs its own.

    UNAVAILABLE where it cannot take from itself what it must: then nothing is started. It is tried again next time.
    """
    with _lock:
        if (found := _starters.get((pid, capabilities))) is not None:
            return found
        for other in [key for key in _starters if key[0] != pid]:  # of before a fork, where its thread does not live
            del _starters[other]
        made = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
        try:
            made.submit(syscall_filter.harden, capabilities).result()
        except OSError as error:
            made.shutdown()
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"The sandbox could not be made: {error.strerror or error}.",
                "Run `speciate doctor`, then repeat the call.",
            ) from error
        _starters[pid, capabilities] = made
        return made


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def _start_on_thread(argv: list[str], sandbox: Sandbox, environment: dict[str, str]) -> _Process:
    starter = _starter(os.getpid(), sandbox.capabilities)
    try:
        return starter.submit(_start_sandboxed, argv, sandbox, environment).result()
    except RuntimeError as error:  # the library knows no other
        raise SpeciateError(
            Code.UNAVAILABLE, f"The sandbox could not be started: {error}.", "Repeat the call in a moment."
        ) from error


def _readable() -> list[Path]:
    """What any Python process of ours reads: system libraries, the interpreter, installed packages, our code."""
    packages = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return [*map(Path, _SYSTEM), Path(sys.prefix), Path(sys.base_prefix), *map(Path, packages), _CODE]


def _start_sandboxed(argv: list[str], sandbox: Sandbox, environment: dict[str, str]) -> _Process:
    import sandlock  # type: ignore[import-untyped, unused-ignore]  # ships no types

    limits = sandbox.limits
    readable = {str(path) for path in (*_readable(), *sandbox.readable) if path.exists()}
    box = sandlock.Sandbox(
        name=secrets.token_hex(8),  # of its supervisor's socket: nobody can take the next one's name beforehand
        fs_readable=sorted(readable),
        fs_writable=[str(sandbox.writable), "/dev/null"],  # libraries open it for writing while they are imported
        cwd=str(sandbox.writable),
        max_memory=f"{limits.memory_mb}M",
        max_processes=limits.processes,
        max_open_files=limits.open_files,
        extra_deny_syscalls=[*syscall_filter.REFUSED_IN_THE_CHILD, *_NEVER, *(_NEVER_OF_CODE if sandbox.code else ())],
        no_coredump=True,
        allow_degraded=[
            sandlock.Protection.FS_IOCTL_DEV,
            sandlock.Protection.SIGNAL_SCOPE,
            sandlock.Protection.ABSTRACT_UNIX_SOCKET_SCOPE,
        ],
    )
    pipes = sandlock.StdioMode.PIPED
    variables = (f"{name}={value}" for name, value in environment.items())
    process: _Process = box.popen([*_WITH_ENVIRONMENT, *variables, *argv], pipes, pipes, pipes)
    return process


def _set_limits(pid: int | None, limits: Limits) -> None:
    """The limits that the library does not set. The process may be gone already."""
    if not pid or sys.platform != "linux":  # 0 would mean ourselves; other systems cannot set another's
        return
    size = limits.file_mb * 1024 * 1024
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
        if limits.cpu_seconds is not None:
            resource.prlimit(pid, resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds))


def _start_unsandboxed(argv: list[str], sandbox: Sandbox, environment: dict[str, str]) -> _Process:
    process: Any = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd=sandbox.writable,
        env=environment,
        start_new_session=True,
    )
    return process  # type: ignore[no-any-return]  # Popen has these attributes, typed more widely


def _kill_half_started(process: _Process) -> None:
    if process.pid:
        _kill_group(process)
        process.wait(5)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _program_name(argv: Sequence[str]) -> str:
    """The module or program, for whoever reads the log."""
    return argv[argv.index("-m") + 1] if "-m" in argv[:-1] else Path(argv[0]).name
