"""A process that has made the imports of a family of jobs once, and forks a child for each run.

`python -m speciate.jobs.zygote WORKSPACE PROFILE SOCKET PID`, PID being that of its parent, the daemon. It computes
nothing, starts no thread of its own and never touches a GPU, so a fork of it is as good as a new interpreter that has
imported. It listens before it imports: the first supervisor waits in line for exactly as long as the imports take. One
at a time per socket, by lock. It takes no more runs once its daemon is dead, and ends with the last that it has.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from speciate import worker
from speciate.environment import preload
from speciate.faults import fault

# Profile -> what is imported before the first fork. A missing library ends the zygote; runs then start plainly. pyarrow
# imports pandas, where it is installed, to make an array of a list.
PRELOADS = {
    "classical": (
        "numpy", "pyarrow.parquet", "pandas?",
        "sklearn.linear_model", "sklearn.svm", "sklearn.ensemble", "sklearn.neighbors",
        "sklearn.feature_extraction.text", "sklearn.model_selection", "sklearn.preprocessing", "sklearn.metrics",
    ),
    "torch": (
        "numpy", "pyarrow.parquet", "pandas?", "sklearn.linear_model",
        "torch", "safetensors.torch", "transformers.modeling_utils",
        "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
        "transformers.models.bert.modeling_bert",  # transformers loads these late, each child would pay for it
    ),
    "language": (
        "numpy", "pyarrow.parquet", "pandas?", "torch", "safetensors.torch", "transformers.modeling_utils",
        "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
        "transformers.models.llama.modeling_llama", "peft", "trl.trainer.sft_trainer",
    ),
}  # fmt: skip
_IDLE_SECONDS = 300.0


class Zygote:
    def __init__(self, listener: socket.socket, leave: Callable[[], None], daemon: int | None = None) -> None:
        """`leave` gives the address up; from then on another one may have it. `daemon`: a pidfd of whom it serves."""
        self._listener, self._leave, self._daemon = listener, leave, daemon
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        if daemon is not None:
            self._selector.register(daemon, selectors.EVENT_READ)
        self._children: dict[int, tuple[int, socket.socket]] = {}  # pidfd -> pid and who asked

    def serve(self) -> None:
        """Until it was asked to end, its daemon died, or nobody asked for five minutes, and its children have ended: it
        alone can see how they do."""
        listens = True
        while listens or self._children:
            ready = self._selector.select(_IDLE_SECONDS)
            for key, _ in ready:
                if key.fd == self._daemon:
                    self._selector.unregister(key.fd)
                    listens = listens and self._close()
                elif key.fileobj is not self._listener:
                    self._reap(key.fd)
                elif listens and not self._accept():
                    listens = self._close()
            if listens and not ready and not self._children:
                listens = self._close()

    def _close(self) -> bool:
        self._selector.unregister(self._listener)
        self._leave()
        self._listener.close()
        return False

    def _accept(self) -> bool:
        connection, _ = self._listener.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, 65536, 8)
        try:
            request = json.loads(message)
        except ValueError:
            request = {}
        if request.get("end"):
            return False
        if "run" in request:
            self._fork(request["run"], descriptors, connection)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _fork(self, run: str, descriptors: list[int], connection: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            self._be_child(run, descriptors)
        fault("zygote_forked")
        with contextlib.suppress(OSError):  # its supervisor may be dead; the child goes on all the same
            connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        watch = os.pidfd_open(pid)
        self._children[watch] = (pid, connection)
        self._selector.register(watch, selectors.EVENT_READ)

    def _be_child(self, run: str, descriptors: list[int]) -> None:
        code = 70
        try:
            os.setsid()
            log, given, *claims = descriptors  # the claims stay open: they are what keeps the attempt's lock
            for source, target in ((given, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            keep = {0, 1, 2, *claims}
            self._selector.close()
            for name in os.listdir("/proc/self/fd"):
                if int(name) not in keep:
                    with contextlib.suppress(OSError):
                        os.close(int(name))
            os.chdir(run)
            code = worker.main(run)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self, watch: int) -> None:
        pid, connection = self._children.pop(watch)
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(watch)
        os.close(watch)
        with connection, contextlib.suppress(OSError):
            connection.sendall(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def main(profile: str, address: str, parent: int) -> int:
    daemon = os.pidfd_open(parent)
    if os.getppid() != parent:
        return 0  # it died before we looked
    lock = os.open(address + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 75
    Path(address).unlink(missing_ok=True)  # safe: we hold the lock
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        os.chmod(address, 0o600)
        listener.listen(64)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        preload(PRELOADS[profile])

        def leave() -> None:
            Path(address).unlink(missing_ok=True)
            os.close(lock)

        Zygote(listener, leave, daemon).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2], sys.argv[3], int(sys.argv[4])))
