"""A process that has made the imports of sandboxed processes once, and forks one for each that is asked for.

    python -I -m speciate.sandbox.warm_parent OWNER ADDRESS=LISTENER MODULE ... ADDRESS=LISTENER MODULE ...

OWNER is the process that started it, LISTENER the number of a socket that it inherits. Each MODULE of the first is
imported at once; one that is missing ends it, unless a question mark follows its name. Those of another one are
imported when somebody first asks there. It has been started by exec with the environment of a sandboxed process, and
holds nothing that one may not see. It never reads what is asked of it: each
connection goes to a fork unread. So it meets no foreign byte, and no fork can find in its memory what was asked of
another one.

Who asks is told the number of the fork, with a pidfd; then, by the fork, that it is confined; in the end its status.
A fork is killed when who asked closes its end, dies, or dies with this process.

It retires, which its owner sees at the end of its standard output, once its owner is dead, when nobody has asked for
five minutes, after MOST forks, when it grew or the code on the disk is another, when it may open no more files, at
SIGTERM, and after one of them crashed: what somebody learned of the layout of addresses that all forks share, or by
trying, is then of no more use. It ends with the last fork. `speciate.jobs.zygote` is one for runs.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from speciate.environment import preload, yield_memory_first
from speciate.sandbox import warm_child

_IDLE_SECONDS, MOST, _MOST_GROWTH = 300, 1000, 128 << 20
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
_PACKAGE = __name__.partition(".")[0]


@dataclass
class Listener:
    bound: socket.socket
    become: Callable[[socket.socket, int], NoReturn]
    """What a fork does with a connection, and the number of its parent."""
    tied: bool = True
    """Whether a fork is killed when who asked is gone, and makes its parent retire when it crashes: a sandboxed one."""
    modules: list[str] = field(default_factory=list)
    """To be imported before its first fork; one at a time, so that others who ask do not wait for all of them."""


class _Fork(NamedTuple):
    pid: int
    watch: int
    """A pidfd."""
    asked: socket.socket
    tied: bool


class WarmParent:
    def __init__(self, listeners: Sequence[Listener], owner: int, addresses: Sequence[str]) -> None:
        """`owner`: a pidfd."""
        self._owner, self._addresses = owner, addresses
        self._listeners = {each.bound.fileno(): each for each in listeners}
        self._poll = select.poll()
        for descriptor in (*self._listeners, owner):
            self._poll.register(descriptor, select.POLLIN)
        self._ended: dict[int, _Fork] = {}  # by its pidfd
        self._left: dict[int, _Fork] = {}  # by the connection of who asked
        self._listens, self._made = True, 0
        self._began, self._stamps = _resident_bytes(), dict[str, int]()
        self._is_current()
        self._told, _wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._told, select.POLLIN)
        # a request to end is seen in turn, never over a fork; before the handler, which loses one that nobody wakes
        signal.set_wakeup_fd(_wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)

    def serve(self) -> None:
        while self._listens or self._ended:
            ready = self._poll.poll(_IDLE_SECONDS * 1000)
            if not ready and not self._ended:
                self._retire()
            # a new connection first: it must not get the number of one whose end is told in the same list
            for descriptor, _ in sorted(ready, key=lambda each: each[0] not in self._listeners):
                if descriptor in self._ended:
                    self._reap(descriptor)
                elif descriptor in self._left:
                    self._kill(descriptor)
                elif descriptor == self._told:
                    os.read(self._told, 64)
                    self._retire()
                elif descriptor == self._owner:
                    self._poll.unregister(self._owner)
                    self._retire()
                    for address in self._addresses:
                        with contextlib.suppress(OSError):
                            os.unlink(address)
                elif self._listens and descriptor in self._listeners:
                    self._hear(self._listeners[descriptor])

    def _hear(self, listener: Listener) -> None:
        """Who asks stays in line until all is imported."""
        if not self._is_current():
            self._retire()
        elif listener.modules:
            with contextlib.suppress(Exception):  # a fork that needs it says so in its own words
                preload([listener.modules.pop(0)])
            gc.disable()
            self._began = _resident_bytes()
        else:
            self._fork(listener)

    def _retire(self) -> None:
        if self._listens:
            for descriptor, listener in self._listeners.items():
                self._poll.unregister(descriptor)
                listener.bound.close()
            os.close(1)
            self._listens = False

    def _fork(self, listener: Listener) -> None:
        try:
            connection, _ = listener.bound.accept()
        except OSError:  # no room for one more descriptor: the next parent hears who is in line
            self._retire()
            return
        if _user(connection) != os.getuid():
            connection.close()
            return
        parent = os.getpid()
        gc.freeze()  # no collection in a fork looks at what they share: that would copy it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a fork's own waits until it ends that fork
        try:
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.set_wakeup_fd(-1)
        except OSError:  # no room for one more: who asked starts a program, or fails as with that
            connection.close()
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if pid == 0:
            listener.become(connection, parent)
        self.forked(listener)
        try:
            watch = os.pidfd_open(pid)
        except OSError:  # as above; who asked starts a program
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            connection.close()
            self._retire()
            return
        fork = _Fork(pid, watch, connection, listener.tied)
        with contextlib.suppress(OSError):  # who asked is gone: seen below
            socket.send_fds(connection, [json.dumps({"pid": pid}).encode()], [fork.watch], socket.MSG_NOSIGNAL)
        self._ended[fork.watch] = fork
        self._poll.register(fork.watch, select.POLLIN)
        if fork.tied:
            self._left[connection.fileno()] = fork
            self._poll.register(connection, _GONE)
        self._made += 1
        if self._made >= MOST or _resident_bytes() > self._began + _MOST_GROWTH:
            self._retire()

    def forked(self, listener: Listener) -> None:
        """There is one more, of which nobody has been told yet."""

    def _is_current(self) -> bool:
        """Whether the code of this package that was imported, and the folders of others, are on the disk as they were:
        else a fork would import the rest of itself from another version."""
        files = [module.__file__ for name, module in [*sys.modules.items()] if _is_ours(name) and module.__file__]
        for path in (*files, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
            try:
                changed = os.stat(path).st_mtime_ns
            except OSError:
                changed = 0
            if self._stamps.setdefault(path, changed) != changed:
                return False
        return True

    def _kill(self, connection: int) -> None:
        """It is not reaped yet, so its number is still its own."""
        fork = self._left.pop(connection)
        self._poll.unregister(connection)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fork.watch, signal.SIGKILL)

    def _reap(self, watch: int) -> None:
        fork = self._ended.pop(watch)
        _, status = os.waitpid(fork.pid, 0)
        if fork.tied and os.WIFSIGNALED(status) and os.WTERMSIG(status) in _CRASHES:
            self._retire()
        if self._left.pop(fork.asked.fileno(), None) is not None:
            self._poll.unregister(fork.asked)
        self._poll.unregister(watch)
        os.close(watch)
        with fork.asked, contextlib.suppress(OSError):
            told = json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode()
            fork.asked.send(told, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def _is_ours(name: str) -> bool:
    return name == _PACKAGE or name.startswith(f"{_PACKAGE}.")


def _resident_bytes() -> int:
    """What of its memory is its own; 0 where the kernel does not tell."""
    try:
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * resource.getpagesize()


def _user(connection: socket.socket) -> int:
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def serve(made: Callable[[int], WarmParent], parent: str) -> None:
    """Until it retires and its last fork has ended. `parent`: the number of who started it; `made` gets its pidfd."""
    owner = os.pidfd_open(int(parent))
    if os.getppid() != int(parent):
        return  # it died before we looked
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield_memory_first(100)
    warm = made(owner)
    gc.disable()  # a collection would copy the pages that forks share
    warm.serve()


def main(parent: str, *given: str) -> None:
    addresses, listeners = list[str](), list[Listener]()
    for each in given:
        if "=" in each:
            address, _, number = each.rpartition("=")
            addresses.append(address)
            listeners.append(Listener(socket.socket(fileno=int(number)), warm_child.become))
        else:
            listeners[-1].modules.append(each)

    def made(owner: int) -> WarmParent:
        preload(listeners[0].modules)
        listeners[0].modules.clear()
        warm_child.limits_of_its_group()
        return WarmParent(listeners, owner, addresses)

    serve(made, parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
