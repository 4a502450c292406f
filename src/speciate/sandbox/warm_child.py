"""A fork of the warm parent becomes a sandboxed process: everything is taken from it before it reads a foreign byte.

What it may have comes in a `Request` from the process that asked (warm.py), which is the same user's and trusted. The
order matters: descriptors, limits and folders need rights that are gone afterwards. Any failure ends it; nothing runs
half confined. docs/design/sandbox.md says what it shares with its parent. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import json
import os
import random
import resource
import runpy
import signal
import socket
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn, TypedDict

from speciate.environment import yield_memory_first
from speciate.sandbox import landlock, syscall_filter
from speciate.sandbox.fork_filter import fork_program

_PARENT_DEATH_SIGNAL = 1
_OF_PROC = (
    "cpuinfo", "meminfo", "loadavg", "stat", "uptime", "version", "filesystems", "sys/vm/overcommit_memory",
    *(f"self/{name}" for name in (
        "status", "stat", "statm", "maps", "cmdline", "comm", "limits", "environ", "auxv", "io", "fd", "cgroup",
    )),
)  # fmt: skip
"""What tells of itself and the machine, not of other processes, mounts or the network."""
_OF_ITS_GROUP = (
    "cpu.max", "memory.max", "memory.high", "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes",
)  # fmt: skip
"""DuckDB asks its control group what it may use, and gives up where it is not told."""
FAILED = 70
"""Exit code of a fork that could not be confined."""
LONGEST = 4096  # bytes of a message of parent or child
MOST_DESCRIPTORS = 16
"""Descriptors that come with a request, at most."""


class Request(TypedDict):
    """How a process is to run: `Sandbox` and the command line, resolved by who asks."""

    arguments: list[str]
    """Arguments of the interpreter, after `-I`: `-m MODULE ...` or `-c CODE ...`."""
    environment: dict[str, str]
    readable: list[str]
    writable: str
    capabilities: int
    memory_mb: int
    open_files: int
    file_mb: int
    cpu_seconds: int | None


def become(connection: socket.socket, parent: int) -> NoReturn:
    """In the fork: take what it is to be from `connection`, become that, say so there, run, and exit."""
    code = FAILED
    try:
        try:
            _die_with(parent)
            document, streams = receive(connection)
            request: Request = document
            _take(streams, connection)
            show([sys.executable, "-I", *request["arguments"]])
            _confine(request)
            connection.send(json.dumps({"ready": True}).encode())
        except BaseException as error:  # noqa: BLE001 - whatever it is, who asked must hear of it
            with contextlib.suppress(OSError):
                connection.send(json.dumps({"failed": f"{type(error).__name__}: {error}"[: LONGEST // 4]}).encode())
            os._exit(code)
        connection.close()
        code = _run(request["arguments"])
    finally:
        os._exit(code)


def _die_with(parent: int) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise ProcessLookupError("the warm parent died")
    if len(os.listdir("/proc/self/task")) != 1:  # Landlock and the filter are for this thread and those that it starts
        raise RuntimeError("the fork has other threads")


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """What is asked, as JSON, and the descriptors that came with it. EOFError where who asked left without a word."""
    told, descriptors, _, _ = socket.recv_fds(connection, LONGEST, MOST_DESCRIPTORS)
    if not told:
        raise EOFError("nothing was asked")
    content, *others = descriptors
    with os.fdopen(content, "rb") as file:
        file.seek(0)
        return json.load(file), others


def _take(streams: list[int], connection: socket.socket) -> None:
    """In the place of its parent's, and no other descriptor but the connection."""
    for target, source in enumerate(streams):
        os.dup2(source, target)
    close_all_but({0, 1, 2, connection.fileno()})


def close_all_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # the one of the listing itself
                os.close(int(name))


def show(command: list[str]) -> None:
    """As its command line, in place of the parent's, for people and programs that look for the process."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end
    line = b"\0".join(map(os.fsencode, command))[: end - start - 1]
    if 0 < start < end:  # 0 where the kernel does not tell
        ctypes.memmove(start, line.ljust(end - start, b"\0"), end - start)


def _confine(request: Request) -> None:
    writable, proc = request["writable"], [f"/proc/{name}" for name in _OF_PROC]
    readable = [path for path in request["readable"] if path != "/proc"]
    _pin(proc)
    _forget(request["environment"])
    os.chdir(writable)
    yield_memory_first(200)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, request["file_mb"] << 20)
    _limit(resource.RLIMIT_DATA, _private_bytes() + (request["memory_mb"] << 20))
    if request["cpu_seconds"] is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, request["cpu_seconds"] + int(used.ru_utime + used.ru_stime))
    syscall_filter.forbid_new_privileges()
    landlock.restrict([*readable, *proc, *limits_of_its_group()], [writable, "/dev/null"])
    _limit(resource.RLIMIT_NOFILE, request["open_files"])
    syscall_filter.harden(request["capabilities"], fork_program)


def _pin(paths: list[str]) -> None:
    """Landlock's rules are for inodes, and procfs makes new ones when it has forgotten a name: so it is kept from that
    by descriptors that can read nothing (O_PATH), which stay open."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.open(path, os.O_PATH | os.O_CLOEXEC)


@functools.cache
def limits_of_its_group() -> list[str]:
    """The files that there are. The warm parent asks once: its forks are in its group."""
    found, own = list[str](), Path("/proc/self/cgroup")
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        for mount in (controllers, *controllers.split(",")):
            for group in (path, "/"):
                folder = os.path.join("/sys/fs/cgroup", mount, group.lstrip("/"))
                found += [os.path.join(folder, name) for name in _OF_ITS_GROUP]
    return [path for path in dict.fromkeys(found) if os.path.exists(path)]


def _limit(which: int, value: int) -> None:
    """Lowered for good; a limit that is lower already stays."""
    _, hard = resource.getrlimit(which)
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (least, least))


def _private_bytes() -> int:
    """What RLIMIT_DATA counts, now: the warm image's share is not the fork's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise OSError("the kernel does not tell VmData")


def _forget(environment: dict[str, str]) -> None:
    """What the interpreter took from the parent's environment and from chance."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()


def _run(arguments: list[str]) -> int:
    """Do what `python -I ARGUMENTS` does."""
    gc.enable()
    flag, what, *rest = arguments
    code = 0
    try:
        if flag == "-m":
            sys.argv = [what, *rest]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            main = types.ModuleType("__main__")
            sys.modules["__main__"], sys.argv = main, ["-c", *rest]
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if isinstance(leaving.code, str):
            sys.stderr.write(f"{leaving.code}\n")
    except BaseException:  # noqa: BLE001 - as the interpreter itself does
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return code
