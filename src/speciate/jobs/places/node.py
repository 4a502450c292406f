"""The node's side of a run: `python -m speciate.jobs.places.node WHERE`, with a run's room in a depot.

It stands where `jobs/supervisor.py` stands on one machine, for a kernel lock says nothing across machines. It claims
the attempt, so that it runs once however often it was launched; keeps the lease; and kills its run when it cannot. The
run dies with it, and it with whoever started it. TERM is a preemption: the run leaves a checkpoint and is queued again.

Three threads, because a depot that is away may hold up a call for ever: one keeps the lease, one copies what the run
writes into a bucket, and the first only looks at the time and at the run. Standard library only, but for a bucket.
Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from speciate import __version__
from speciate.errors import SpeciateError
from speciate.jobs.folder import CRASHES, EXIT, SECOND, Outcome, RunFolder, to_checked
from speciate.jobs.places.depot import Room, Sent, read_sent, unfit, write_manifest
from speciate.jobs.places.depots import open_room
from speciate.jobs.places.lease import CANCEL, CLAIMED, FENCED, Lease, Terms, claim, write_lease

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS, _AGAIN_SECONDS = 0.2, 2.0
_ALIVE = ".alive"
_LIBC = ctypes.CDLL(None)


def uptime() -> float:
    """Seconds that go on while the machine sleeps: a lease runs out meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def die_with_parent(number: int, parent: int | None = None) -> None:
    """`parent`: who it is; one that has died before this call is noticed, too."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def _say(what: str) -> None:
    """Into the cluster's own log of the launch."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


class Keeper:
    """Renews the lease in a thread, and sees requests of the daemon. `renewed`: when the newest beat that is in the
    depot was begun."""

    def __init__(self, room: Room, terms: Terms) -> None:
        self._room, self._terms = room, terms
        self._beat, self._node = 0, socket.gethostname()
        self.renewed = uptime()
        self.cancelled = self.fenced = self.troubled = False
        """`troubled`: the depot was away at some time."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def begin(self) -> None:
        """The first beat, before anything runs. Raises OSError."""
        self._renew()
        self._thread.start()

    def _renew(self, *, held: bool = True) -> None:
        """Raises OSError, also where the room is not the one that was claimed.

        Where a disk is not mounted any more, a run that writes may make its folder anew, and nobody hears a beat there.
        """
        began = uptime()
        if not self._room.has(CLAIMED):
            raise FileNotFoundError(f"{self._room.where} is not the room that was claimed")
        self._beat += 1
        write_lease(self._room, Lease(self._beat, held, self._node))
        self.renewed = began

    def _keep(self) -> None:
        pause = min(self._room.look_seconds, self._terms.beat)
        due = uptime() + self._terms.beat
        while not self._over.wait(pause):
            try:
                self.troubled = self.troubled or not self._room.has(CLAIMED)
                self.fenced = self.fenced or self._room.has(FENCED)
                self.cancelled = self.cancelled or self._room.has(CANCEL)
                if uptime() >= due:
                    self._renew()
                    due = self.renewed + self._terms.beat
            except OSError as error:
                self.troubled = True
                _say(f"lease: {error}")

    def release(self) -> None:
        """After `exit` is written and nothing of the run lives. Raises OSError; then it may be called again."""
        self._over.set()
        self._thread.join()
        self._renew(held=False)

    @property
    def run_out(self) -> bool:
        return uptime() - self.renewed > self._terms.hold


class Carrier:
    """Copies what a run writes into its room, at each beat, in a thread."""

    def __init__(self, room: Room, folder: Path, pause: float) -> None:
        self._room, self._folder, self._pause = room, folder, pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="carrier", daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        while not self._over.wait(self._pause):
            try:
                _carry(self._room, self._folder, last=False)
            except Exception as error:  # noqa: BLE001 - said; the next beat copies it, or `_hand_over`
                _say(f"what it wrote is not copied yet: {error}")

    def end(self) -> None:
        self._over.set()
        self._thread.join()


def main(where: str) -> int:
    """Run the attempt to its end; SECOND where another launch has it."""
    die_with_parent(signal.SIGTERM)
    room = open_room(where)
    try:
        sent = read_sent(room)
        mine = claim(room, "node")
    except FileNotFoundError:  # it is over, and its room gone
        mine = False
    if not mine:
        _say("another launch has this attempt, or it was called off")
        return SECOND
    terms = Terms(sent.hold)
    keeper = Keeper(room, terms)
    keeper.begin()
    with _scratch(sent, where.rpartition("/")[2]) as scratch:
        folder = RunFolder(room.work_folder(scratch))
        if sent.version == __version__:
            carrier = Carrier(room, folder.path, terms.beat)
            status = _supervise(folder, keeper, scratch, where)
            carrier.end()
        else:
            why = f"this node has speciate {__version__}, and the workspace {sent.version}"
            how = "Install the same version on the nodes: `speciate places --probe` shows it."
            status = 1
            folder.end(Outcome(1, "user", why, how))
        if status != SECOND and folder.outcome() is None:
            folder.end(_outcome(status, troubled=keeper.troubled or not _is_claimed(room)))
        if not _hand_over(room, folder, keeper):
            return 1
    return 0 if status == 0 else 1


def _hand_over(room: Room, folder: RunFolder, keeper: Keeper) -> bool:
    """All that it left and, last, how it ended, into the depot; whether that was done before the lease ran out."""
    while True:
        try:
            _carry(room, folder.path, last=True)
            write_manifest(room, folder.path)
            if not room.has(EXIT) and (outcome := folder.outcome()) is not None:
                room.write(EXIT, _exit(folder, outcome))
            keeper.release()
            return True
        except (OSError, SpeciateError) as error:
            _say(f"what it left is not in the depot yet: {error}")
            if keeper.run_out or keeper.fenced:
                return False
            time.sleep(_AGAIN_SECONDS)


def _carry(room: Room, folder: Path, *, last: bool) -> None:
    """Raises OSError, also where the room went: nobody would clear it of what was written then."""
    if not room.has(CLAIMED):
        raise FileNotFoundError(f"{room.where} is not the room that was claimed")
    room.carry(folder, last=last)


def _exit(folder: RunFolder, outcome: Outcome) -> str:
    """What is written as `exit`: how it ended, but for one that ended well and left what cannot come back."""
    if outcome.kind != "ok" or not (names := unfit(folder.path)):
        return (folder.path / EXIT).read_text()
    why = f"it left a file whose name cannot be brought back: {names[0]}"
    how = "A name may have 255 bytes in UTF-8, without control characters."
    return to_checked({"code": 1, "class": "user", "message": why, "recovery": how, "detail": ""})


def _is_claimed(room: Room) -> bool:
    try:
        return room.has(CLAIMED)
    except OSError:
        return False


def _supervise(folder: RunFolder, keeper: Keeper, scratch: Path, where: str) -> int:
    """Start the run and see it through; its status as of os.waitstatus_to_exitcode."""
    preempted = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: preempted.set())
    unpack = [sys.executable, "-m", "speciate.jobs.places.unpack", where, str(folder.path), str(scratch)]
    with folder.log.open("ab") as log:
        worker = subprocess.Popen(
            [*unpack, str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=scratch, start_new_session=True,
        )  # fmt: skip
    asked = False
    while True:
        try:
            status = worker.wait(_LOOK_SECONDS)
            break
        except subprocess.TimeoutExpired:
            pass
        if keeper.fenced or keeper.run_out:
            _say("fenced: the run is killed" if keeper.fenced else "the lease ran out: the run is killed")
            _kill(worker.pid)
        elif not asked and (keeper.cancelled or preempted.is_set()):
            asked = True
            worker.send_signal(signal.SIGTERM)
    _kill(worker.pid)  # whatever it left behind of its group
    return status


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _outcome(status: int, *, troubled: bool) -> Outcome:
    """How a run ended that left no word itself: most likely because the disk was away for a moment, so that it is tried
    again. `troubled`: that was seen; then it uses up no retry."""
    if troubled:
        return Outcome(status, "killed", "the depot was away")
    if status >= 0:
        recovery = "Call get_job(job=..., log_lines=100) for its log."
        return Outcome(status, "transient", f"its process ended with code {status} before it could say why", recovery)
    number = signal.Signals(-status)
    return Outcome(status, "transient" if number in CRASHES else "killed", f"its process ended by {number.name}")


@contextlib.contextmanager
def _scratch(sent: Sent, run_id: str) -> Iterator[Path]:
    """A folder of the node's own disk, for this run alone; those of runs that were killed here go."""
    base = Path(sent.scratch or tempfile.gettempdir()) / f"speciate-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = base.lstat()
    if info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise PermissionError(f"{base} must belong to this user alone (mode 0700)")
    _clear(base)
    folder = Path(tempfile.mkdtemp(prefix=f"{run_id}-", dir=base))
    alive = os.open(folder / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(alive)


def _clear(base: Path) -> None:
    for left in base.iterdir():
        try:
            alive = os.open(left / _ALIVE, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it is being made now, or is none of ours
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(alive)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
