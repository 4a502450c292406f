"""The node's side of a run: `python -m speciate.jobs.places.node WHERE [NUMBER]`, with a run's room in a depot. NUMBER:
of this node among several that have the run together (team.py); the first is 0, and what it says is said of all.

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
from speciate.jobs.folder import CRASHES, EXIT, SECOND, TEAM, Outcome, RunFolder, to_checked, write_whole
from speciate.jobs.places.depot import Room, Sent, read_sent, unfit, write_manifest
from speciate.jobs.places.depots import open_room
from speciate.jobs.places.lease import CANCEL, CLAIMED, FENCED, Lease, Terms, claim, name_of, uptime, write_lease
from speciate.jobs.places.team import FirstNode, Followers, write_word

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS, _AGAIN_SECONDS = 0.2, 2.0
_ALIVE = ".alive"
_LIBC = ctypes.CDLL(None)


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
    """Renews the lease of node `number` in a thread, and sees requests of the daemon and what becomes of the `others`.
    `renewed`: when the newest beat that is in the depot was begun."""

    def __init__(self, room: Room, terms: Terms, number: int = 0, others: Followers | FirstNode | None = None) -> None:
        self._room, self._terms, self._number, self._others = room, terms, number, others
        self._claimed = name_of(CLAIMED, number)
        self._beat, self._node = 0, socket.gethostname()
        self.renewed = uptime()
        self.cancelled = self.fenced = self.troubled = False
        """`troubled`: the depot was away at some time."""
        self.broken: Outcome | None = None
        """How the attempt ends because of another node."""
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
        if not self._room.has(self._claimed):
            raise FileNotFoundError(f"{self._room.where} is not the room that was claimed")
        self._beat += 1
        write_lease(self._room, Lease(self._beat, held, self._node), self._number)
        self.renewed = began

    def _keep(self) -> None:
        pause = min(self._room.look_seconds, self._terms.beat)
        due = uptime() + self._terms.beat
        while not self._over.wait(pause):
            try:
                self.troubled = self.troubled or not self._room.has(self._claimed)
                self.fenced = self.fenced or self._room.has(FENCED)
                self.cancelled = self.cancelled or self._room.has(CANCEL)
                if uptime() >= due:
                    self._renew()
                    due = self.renewed + self._terms.beat
                if self._others is not None and self.broken is None:
                    self.broken = self._others.look()
            except (OSError, SpeciateError) as error:
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

    def why_to_kill(self) -> str:
        """Why nothing of the run may live here any more; empty while it may."""
        if self.fenced or self.run_out:
            return "fenced" if self.fenced else "the lease ran out"
        return "" if self.broken is None else self.broken.message


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


def main(where: str, number: int = 0) -> int:
    """Have a part in the attempt to its end; SECOND where another launch has it."""
    die_with_parent(signal.SIGKILL if number else signal.SIGTERM)  # of several the first one alone is asked to stop
    room = open_room(where)
    try:
        sent = read_sent(room)
        mine = claim(room, "node", number)
    except FileNotFoundError:  # it is over, and its room gone
        mine = False
    if not mine:
        _say("another launch has this attempt, or it was called off")
        return SECOND
    terms, nodes = Terms(sent.hold), _nodes(sent)
    first = FirstNode(room, terms) if number else None
    others = Followers(room, nodes, terms) if nodes > 1 and not number else None
    keeper = Keeper(room, terms, number, first or others)
    keeper.begin()
    with _scratch(sent, where.rpartition("/")[2]) as scratch:
        if first is not None:
            return _follow(room, sent, where, scratch, number, keeper, first)
        return _lead(room, sent, where, scratch, keeper, others)


def _lead(room: Room, sent: Sent, where: str, scratch: Path, keeper: Keeper, others: Followers | None) -> int:
    folder = RunFolder(room.work_folder(scratch))
    if others is not None:
        others.folder = folder.path
    if (wrong := _wrong_version(sent)) is None:
        carrier = Carrier(room, folder.path, Terms(sent.hold).beat)
        status = _supervise(folder, keeper, scratch, where)
        carrier.end()
    else:
        status = 1
        folder.end(wrong)
    said = others and others.end(lambda: keeper.run_out, time.sleep)
    if status != SECOND and folder.outcome() is None:
        troubled = keeper.troubled or not _is_claimed(room)
        folder.end(said or keeper.broken or _outcome(status, troubled=troubled))
    if not _hand_over(room, folder, keeper, release=others is None or others.gone):
        return 1
    return 0 if status == 0 else 1


def _follow(room: Room, sent: Sent, where: str, scratch: Path, number: int, keeper: Keeper, first: FirstNode) -> int:
    """The part of any node but the first: what it writes is for nobody, and whether it stops is not for it to say."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder = RunFolder(scratch / "run")
    folder.path.mkdir(mode=0o700)
    if (wrong := _wrong_version(sent)) is None:
        status = _supervise(folder, keeper, scratch, where, number, first)
    else:
        status = 1
        folder.end(wrong)
    ended_by_us = keeper.why_to_kill()
    while not keeper.run_out:
        try:
            if status and not ended_by_us:
                write_word(room, number, folder.outcome() or _outcome(status, troubled=keeper.troubled))
            keeper.release()
            return 0
        except (OSError, SpeciateError) as error:
            _say(f"its end is not in the depot yet: {error}")
            time.sleep(_AGAIN_SECONDS)
    return 1


def _nodes(sent: Sent) -> int:
    return int(sent.spec.get("resources", {}).get("nodes", 1))


def _wrong_version(sent: Sent) -> Outcome | None:
    if sent.version == __version__:
        return None
    why = f"this node has speciate {__version__}, and the workspace {sent.version}"
    return Outcome(1, "user", why, "Install the same version on the nodes: `speciate places --probe` shows it.")


def _hand_over(room: Room, folder: RunFolder, keeper: Keeper, *, release: bool = True) -> bool:
    """All that it left and, last, how it ended, into the depot; whether that was done before the lease ran out.

    `release`: not so where another node may live; then the lease falls silent instead.
    """
    while True:
        try:
            _carry(room, folder.path, last=True)
            write_manifest(room, folder.path)
            if not room.has(EXIT) and (outcome := folder.outcome()) is not None:
                room.write(EXIT, _exit(folder, outcome))
            if release:
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


def _supervise(
    folder: RunFolder, keeper: Keeper, scratch: Path, where: str, number: int = 0, first: FirstNode | None = None
) -> int:
    """Start the run and see it through; its status as of os.waitstatus_to_exitcode."""
    preempted = threading.Event()
    if first is None:
        signal.signal(signal.SIGTERM, lambda *_: preempted.set())
    unpack = [sys.executable, "-m", "speciate.jobs.places.unpack", where, str(folder.path), str(scratch)]
    with contextlib.nullcontext() if first else folder.log.open("ab") as log:  # else into the log of the launch
        worker = subprocess.Popen(
            [*unpack, str(os.getpid()), str(number)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=scratch, start_new_session=True,
        )  # fmt: skip
    asked = False
    while True:
        try:
            status = worker.wait(_LOOK_SECONDS)
            break
        except subprocess.TimeoutExpired:
            pass
        if why := keeper.why_to_kill():
            _say(f"{why}: the run is killed")
            _kill(worker.pid)
        elif first is not None:
            if first.meeting is not None and not (folder.path / TEAM).exists():
                write_whole(folder.path / TEAM, first.meeting, 0o600)
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
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
