"""A process that has made the imports of sandboxed processes once, and forks one for each that is asked for.

    python -I -m speciate.sandbox.warm_parent ADDRESS LISTENER OWNER MODULE ...

LISTENER is the number of a socket that it inherits, OWNER the process that started it, each MODULE is imported before
the first fork; one that is missing ends it, unless a question mark follows its name. It has been started by exec with
the environment of a sandboxed process, and holds nothing that one may not see. It never reads what is asked of it: each
connection goes to a fork unread. So it meets no foreign byte, and no fork can find in its memory what was asked of
another one.

Who asks is told the number of the fork, with a pidfd; then, by the fork, that it is confined; in the end its status.
A fork is killed when who asked closes its end, dies, or dies with this process.

It retires, which its owner sees at the end of its standard output, once its owner is dead, when nobody has asked for
five minutes, after MOST forks, and after one of them crashed: what somebody learned of the layout of addresses that all
forks share, or by trying, is then of no more use. It ends with the last fork.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import NamedTuple

from speciate.environment import preload
from speciate.sandbox import warm_child

_IDLE_SECONDS, MOST = 300, 1000
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class _Fork(NamedTuple):
    pid: int
    watch: int
    """A pidfd."""
    asked: socket.socket


class WarmParent:
    def __init__(self, listener: socket.socket, owner: int, address: str) -> None:
        """`owner`: a pidfd."""
        self._listener, self._owner, self._address = listener, owner, address
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._poll.register(owner, select.POLLIN)
        self._ended: dict[int, _Fork] = {}  # by its pidfd
        self._left: dict[int, _Fork] = {}  # by the connection of who asked
        self._listens, self._made = True, 0

    def serve(self) -> None:
        while self._listens or self._ended:
            ready = self._poll.poll(_IDLE_SECONDS * 1000)
            if not ready and not self._ended:
                self._retire()
            listening = self._listener.fileno()
            # a new connection first: it must not get the number of one whose end is told in the same list
            for descriptor, _ in sorted(ready, key=lambda each: each[0] != listening):
                if descriptor in self._ended:
                    self._reap(descriptor)
                elif descriptor in self._left:
                    self._kill(descriptor)
                elif descriptor == self._owner:
                    self._poll.unregister(self._owner)
                    self._retire()
                    with contextlib.suppress(OSError):
                        os.unlink(self._address)
                elif self._listens and descriptor == listening:
                    self._fork()

    def _retire(self) -> None:
        if self._listens:
            self._poll.unregister(self._listener)
            self._listener.close()
            os.close(1)
            self._listens = False

    def _fork(self) -> None:
        connection, _ = self._listener.accept()
        if _user(connection) != os.getuid():
            connection.close()
            return
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # no room for one more: who asked starts a program, or fails as with that
            connection.close()
            return
        if pid == 0:
            warm_child.become(connection, parent)
        fork = _Fork(pid, os.pidfd_open(pid), connection)
        with contextlib.suppress(OSError):  # who asked is gone: seen below
            socket.send_fds(connection, [json.dumps({"pid": pid}).encode()], [fork.watch], socket.MSG_NOSIGNAL)
        self._ended[fork.watch] = self._left[connection.fileno()] = fork
        self._poll.register(fork.watch, select.POLLIN)
        self._poll.register(connection, _GONE)
        self._made += 1
        if self._made >= MOST:
            self._retire()

    def _kill(self, connection: int) -> None:
        """It is not reaped yet, so its number is still its own."""
        fork = self._left.pop(connection)
        self._poll.unregister(connection)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fork.watch, signal.SIGKILL)

    def _reap(self, watch: int) -> None:
        fork = self._ended.pop(watch)
        _, status = os.waitpid(fork.pid, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _CRASHES:
            self._retire()
        if self._left.pop(fork.asked.fileno(), None) is not None:
            self._poll.unregister(fork.asked)
        self._poll.unregister(watch)
        os.close(watch)
        with fork.asked, contextlib.suppress(OSError):
            told = json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode()
            fork.asked.send(told, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def _user(connection: socket.socket) -> int:
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def main(address: str, listener: str, parent: str, *modules: str) -> None:
    owner = os.pidfd_open(int(parent))
    if os.getppid() != int(parent):
        return  # it died before we looked
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preload(modules)
    gc.disable()  # a collection would copy the pages that forks share
    WarmParent(socket.socket(fileno=int(listener)), owner, address).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
