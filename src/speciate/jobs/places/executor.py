"""The executor of one place. What touches a network or a shared disk happens in `look`, in a thread of the place's own:
the reconciler asks for snapshots and leaves requests, and never waits.

    submit, cancel    remembered here; done by the next look
    poll              what the last look found; older than some looks, nothing may be concluded from it
    look              moves inputs out and launches, judges each run (verdict.py), brings back what it left

Checking what a run left (`adopt`) may take minutes, so it has a thread of its own, and looks go on meanwhile.

A run that is at a place has a folder here, too: log, progress and metrics are copied while it runs; outputs,
checkpoints and, last, `exit` when it has ended. So the rest of the house finds a run as if it had been on this machine.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path

from speciate import __version__
from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.jobs.egress import Permit
from speciate.jobs.executors import Abandoned, Alive, Ended, Gone, Observation, Pending, RunSpec, Unreachable
from speciate.jobs.folder import Outcome, RunDocument, RunFolder
from speciate.jobs.job import Resources, RunHandle
from speciate.jobs.places.cluster import Cluster, Launch
from speciate.jobs.places.depot import (
    SENT,
    Depot,
    Room,
    Sent,
    bring,
    read_manifest,
    read_outcome,
    read_sent,
    write_sent,
)
from speciate.jobs.places.depots import open_depot
from speciate.jobs.places.lease import CANCEL, DAEMON, FENCED, Lease, Terms, claim, claimed_by, read_lease
from speciate.jobs.places.moving import Mover
from speciate.jobs.places.verdict import RunFolderState, Status, Verdict, judge
from speciate.settings import Place

LOOK_SECONDS = 2.0
_STALE_LOOKS = 3
_RELAUNCH_SECONDS = 60.0
_ASK_SECONDS = 5.0
"""Seconds between two questions to the cluster about runs that wait."""
_BURY_SECONDS = 10.0
"""Seconds for which the cluster must say that a launch which nobody claimed has ended: once may be a mistake."""
_BRING_TRIES = 3
_CHECK_PATIENCE_SECONDS = 0.2
"""How long the look that begins a check waits for it."""
_TAIL = 2000
"""Characters of the cluster's log that are shown."""
_LAUNCHED = "launched"
"""Mark in a run's folder here: once it is there, the run may live at the place."""
ABANDONED = "abandoned"
"""In a run's folder here: it was given up unseen, and may live on where the depot is."""
_NEW = Unreachable("it was not looked at yet")
_log = logging.getLogger(__name__)


@dataclass
class _Watched:
    """A run, as the thread knows it. All of it may be forgotten."""

    handle: RunHandle
    here: RunFolder
    """Its folder on this machine."""
    spec: RunSpec | None = None
    found: Observation = _NEW
    looked: float = 0.0
    seen: float = 0.0
    """When its folder was last seen, or it was first asked about."""
    cancel: str = ""
    """'' or 'asked' or 'forced', as somebody wants it; `done` is what was passed on."""
    done: str = ""
    launched: float | None = None
    changed: float = 0.0
    """When the claim, or the lease, was seen to change."""
    last: tuple[bool, Lease | None] | None = None
    dead: float | None = None
    """Since when the cluster says that its launch has ended, unclaimed."""
    trouble: str = ""
    tries: int = 0
    check: Future[None] | None = None
    """The check of what it left, once that is here."""
    room: Room | None = None
    who: str | None = None
    """Who claimed it, once somebody has: that never changes."""
    mirrored: bool = False

    @property
    def over(self) -> bool:
        return isinstance(self.found, Ended | Gone)


class PlaceExecutor:
    def __init__(
        self,
        name: str,
        place: Place,
        cluster: Cluster,
        workspace: Path,
        owner: str,
        live: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
        adopt: Callable[[RunFolder], None] = lambda folder: None,
        *,
        permit: Callable[[RunDocument], Permit],
    ) -> None:
        """`owner`: names this workspace's folder in the depot. `live`: the runs (JOB.ATTEMPT) that the catalog knows to
        live. `clock`: seconds that only grow. `adopt`: checks what a run left, and takes in files of it. `permit`: by
        which files may be moved for a run; raises REFUSED."""
        self.name, self.place = name, place
        self._cluster, self._workspace, self._owner, self._clock = cluster, workspace, owner, clock
        self._live, self._adopt, self._permit = live, adopt, permit
        self._terms = Terms(place.lease_seconds)
        self._mover = Mover(workspace)
        self._lock = threading.Lock()
        self._runs: dict[str, _Watched] = {}
        self._asked = -_ASK_SECONDS
        self._statuses: dict[str, Status] = {}
        self._depots: dict[str, Depot] = {}
        self._fenced: dict[str, float] = {}
        """Abandoned runs, and since when the depot, seen again, tells them to end."""
        self._checking = threading.Lock()
        self._sweep, self._kept = True, False
        """`_kept`: a run that lived needed objects of files that are gone here."""
        self.wake = threading.Event()

    # The contract of an executor

    def handle(self, run_id: str) -> RunHandle:
        return {"run": run_id, "place": self.name, "folder": f"{self._owner}/runs/{run_id}"}

    def submit(self, run: RunSpec) -> None:
        with self._lock:
            watched = self._runs.setdefault(run.id, self._new(self.handle(run.id)))
            watched.spec = watched.spec or run
        self.wake.set()

    def prepare(self, preload: str) -> None:
        """A node imports what it needs by itself."""

    def poll(self, handle: RunHandle) -> Observation:
        with self._lock:
            watched = self._runs.get(handle["run"])
            if watched is None:
                watched = self._runs[handle["run"]] = self._new(handle)
                self.wake.set()
            unseen = self._clock() - watched.seen
            if watched.cancel == "forced" and not watched.over and unseen > self._terms.lost:
                return Abandoned(self._give_up(watched, unseen))
            if not watched.over and self._clock() - watched.looked > _STALE_LOOKS * LOOK_SECONDS:
                return Unreachable(watched.trouble or f"{self.name} was not looked at for some seconds")
            return watched.found

    def cancel(self, handle: RunHandle, force: bool) -> None:
        with self._lock:
            watched = self._runs.setdefault(handle["run"], self._new(handle))
            watched.cancel = "forced" if force else watched.cancel or "asked"
            if watched.cancel == watched.done:
                return
        self.wake.set()

    def logs(self, handle: RunHandle, offset: int) -> bytes:
        try:
            with self._here(handle).log.open("rb") as file:
                file.seek(offset)
                return file.read(1 << 20)
        except FileNotFoundError:
            return b""

    def forget(self, handle: RunHandle) -> None:
        """Forget a run whose end is in the catalog."""
        with self._lock:
            watched = self._runs.pop(handle["run"], None)
        if watched is not None and (
            self._kept
            or isinstance(watched.found, Gone)
            or self._is_abandoned(handle)
            or self._spec(handle).get("sources")
        ):
            self.sweep()  # what it left was brought here, or nobody wants it

    def trouble(self, run_id: str) -> str | None:
        """Why a run that lives, or should, does not get on, or cannot be seen."""
        with self._lock:
            watched = self._runs.get(run_id)
            return watched.trouble or None if watched and not watched.over else None

    def _new(self, handle: RunHandle) -> _Watched:
        return _Watched(handle, self._here(handle), seen=self._clock())

    def _give_up(self, watched: _Watched, unseen: float) -> str:
        """What its record says. Marked here, so that no later attempt begins while it may live."""
        here = watched.here.path
        if not (here / _LAUNCHED).exists():
            return f"it was never started: {self.name} was not seen for {unseen:.0f} s"
        (here / ABANDONED).touch()
        return (
            f"its run at {self.name} was not seen for {unseen:.0f} s and could not be told to end, so whether it ended "
            "is not known; what it left stays there"
        )

    def _is_abandoned(self, handle: RunHandle) -> bool:
        return (self._here(handle).path / ABANDONED).exists()

    def sweep(self) -> None:
        """Files went: what nothing needs any more goes from the depot, too, as soon as that can be reached."""
        self._sweep = True
        self.wake.set()

    # One look

    def look(self) -> None:
        """One look at all runs of the place, for the place's own thread alone. Never raises for a run's or the place's
        trouble."""
        with self._lock:
            runs = [watched for watched in self._runs.values() if not watched.over]
        self._ask(runs)
        silent: Exception | None = None
        for watched in runs:
            try:
                if silent is not None:
                    raise silent
                found, trouble = self._look_at(watched)
                watched.seen = self._clock()
            except (OSError, SpeciateError) as error:
                if self.place.in_bucket and _is_of_the_bucket(error):
                    silent = error  # each further call would wait as long for no answer
                found, trouble = Unreachable(str(error)), f"{self.name}: {error}"
            except Exception as error:  # noqa: BLE001 - of one run nothing is concluded, and the others are looked at
                trouble = f"{self.name}: its run could not be looked at ({type(error).__name__})"
                if trouble != watched.trouble:
                    _log.exception("%s: %s could not be looked at", self.name, watched.handle["run"])
                found = Unreachable(trouble)
            with self._lock:
                watched.found, watched.trouble, watched.looked = found, trouble, self._clock()
        if self._sweep:
            self._try_sweep()

    def _ask(self, runs: list[_Watched]) -> None:
        """The cluster, about runs that nobody has claimed; about others nothing that it says would matter."""
        waiting = [each for each in runs if each.last is None or each.last == (False, None)]
        if not waiting:
            self._statuses = {}
            return
        if self._clock() - self._asked < _ASK_SECONDS and all(self._named(each) in self._statuses for each in waiting):
            return
        names = [self._named(each) for each in waiting]
        try:
            self._statuses = dict(self._cluster.statuses(names))
        except Exception as error:  # noqa: BLE001 - whatever it answered, nothing is concluded from it
            _log.info("%s does not answer: %s", self.name, error, exc_info=not isinstance(error, OSError))
            self._statuses = dict.fromkeys(names, Status.SILENT)
        self._asked = self._clock()

    def _look_at(self, watched: _Watched) -> tuple[Observation, str]:
        lives = isinstance(watched.found, Alive)  # then nobody but this thread writes how it ended
        if not lives and (outcome := watched.here.outcome()) is not None:  # all of it is here already
            self._clear(self._there(watched))
            return Ended(outcome), ""
        there = self._there(watched)
        if not there.has(SENT):
            if (watched.here.path / _LAUNCHED).exists():
                # Never sent again: a disk that is not mounted looks like one where nothing ever was.
                raise FileNotFoundError(
                    f"{there.where} cannot be seen, where its run was begun; nothing is started again"
                )
            if watched.cancel:
                return Gone(), ""
            if may_live := self._end_abandoned(watched):
                return Pending(), may_live
            return self._send(watched, there)
        if watched.cancel != watched.done:
            self._pass_on(watched, there)
        seen = self._see(watched, there)
        silence = self._clock() - watched.changed
        status = self._statuses.get(self._named(watched), Status.SILENT)
        verdict = judge(seen, status, silence, self._terms.lost)
        if verdict in (Verdict.GONE, Verdict.ENDED) and not seen.never:
            self._mirror(watched, there, None)
        if verdict is not Verdict.BURY:
            watched.dead = None
        match verdict:
            case Verdict.BURY:
                watched.dead = self._clock() if watched.dead is None else watched.dead
                if self._clock() - watched.dead >= _BURY_SECONDS:
                    claim(there, DAEMON)  # or a node did, a moment ago: the next look says which
                return Pending(), ""
            case Verdict.LAUNCH:
                return self._launch(watched, there)
            case Verdict.PENDING:
                return Pending(), ""
            case Verdict.UNREACHABLE:
                return Unreachable(f"{self.name} {status}"), "" if seen.claimed else self._say_silent_cluster()
            case Verdict.ALIVE:
                self._mirror(watched, there, seen.lease)
                silent = silence > 2 * self._terms.beat
                return Alive(), self._say_silent(silence) if silent else ""
            case Verdict.ENDED:
                return self._bring_ended(watched, there)
            case Verdict.GONE if seen.never:
                return Gone() if watched.cancel else self._say_never_began(watched, there), ""
            case Verdict.GONE:
                return self._bury(watched, there), ""

    def _end_abandoned(self, watched: _Watched) -> str:
        """Why an earlier attempt, given up unseen, may still live; empty once none can.

        With the depot in sight again it is fenced, and dead after the time in which a node ends what it cannot renew.
        Raises OSError.
        """
        job, _, attempt = watched.handle["run"].rpartition(".")
        for number in range(1, int(attempt)):
            handle = self.handle(f"{job}.{number}")
            if not self._is_abandoned(handle):
                continue
            there = self.depot(handle).room(handle["run"])
            if not self.depot(handle).is_there():
                raise FileNotFoundError(
                    f"{self.place.depot} cannot be seen, where attempt {number} may live; nothing is started"
                )
            over = False
            if there.is_there():  # without its room it cannot begin, nor renew its lease
                there.write(FENCED, "")
                claim(there, DAEMON)
                lease = read_lease(there)
                over = claimed_by(there) == DAEMON or (lease is not None and not lease.held)
            since = self._fenced.setdefault(handle["run"], self._clock())
            if not over and self._clock() - since <= self._terms.lost:
                return (
                    f"Attempt {number} was given up unseen and may live. Until it has ended, {self._terms.lost:g} s at "
                    f"most, nothing is started at {self.name}."
                )
            self._clear(there)
            (self._here(handle).path / ABANDONED).unlink(missing_ok=True)
        return ""

    def _see(self, watched: _Watched, there: Room) -> RunFolderState:
        """The room as it is; a change of claim or lease is noted with our own clock."""
        if watched.last is not None and self._clock() - watched.changed > self._terms.lost:
            there.look_anew()
        lease = read_lease(there)
        who = watched.who = watched.who or claimed_by(there)
        last = (who is not None, lease)
        if last != watched.last:
            watched.last, watched.changed = last, self._clock()
        return RunFolderState(read_outcome(there) is not None, who is not None, who == DAEMON, lease)

    def _pass_on(self, watched: _Watched, there: Room) -> None:
        """A request to stop: by files, which a node sees where the cluster cannot be asked. The cluster's own stop is
        for what waits: of a run it would kill whoever says how that ended."""
        wanted = watched.cancel
        there.write(CANCEL, "")
        if wanted == "forced":
            there.write(FENCED, "")
        if claim(there, DAEMON):
            self._stop(watched, force=False)
        watched.done = wanted

    def _stop(self, watched: _Watched, *, force: bool) -> None:
        try:
            self._cluster.stop(self._named(watched), force=force, nodes=self._nodes(watched.handle))
        except OSError as error:  # it meets our claim, or its fence
            _log.info("%s could not be told to stop %s: %s", self.name, watched.handle["run"], error)

    def _send(self, watched: _Watched, there: Room) -> tuple[Observation, str]:
        """Nothing of it is in the depot: it was never launched."""
        if watched.spec is None:
            return Pending(), ""  # the reconciler submits it again
        depot, spec = self.depot(watched.handle), watched.spec.spec
        watched.here.create(spec)
        try:
            permit = self._permit(spec)
        except SpeciateError as refused:  # taken back since the run was started
            if refused.code is not Code.REFUSED:
                raise
            outcome = Outcome(1, "user", refused.message, refused.recovery)
            watched.here.end(outcome)
            return Ended(outcome), ""
        depot.make(str(self._workspace))
        inputs, moved = self._mover.move_out(depot, spec, permit)
        scratch = None if self.place.scratch is None else str(self.place.scratch)
        write_sent(there, Sent(__version__, spec, inputs, moved, self._terms.hold, scratch, self.place.interface))
        fault("place_sent")
        return self._launch(watched, there)

    def _launch(self, watched: _Watched, there: Room) -> tuple[Observation, str]:
        now = self._clock()
        if watched.launched is not None and now - watched.launched < _RELAUNCH_SECONDS:
            return Pending(), watched.trouble
        watched.launched = now
        (watched.here.path / _LAUNCHED).touch()
        try:
            self._cluster.launch(self._as_launched(watched, there))
        except OSError as error:
            return Pending(), f"{self.name} did not take it, and is asked again: {error}"
        finally:
            self._asked = now - _ASK_SECONDS
        fault("place_launched")
        return Pending(), ""

    def _as_launched(self, watched: _Watched, there: Room) -> Launch:
        resources = Resources.model_validate(read_sent(there).spec.get("resources", {}))
        argv = [self.place.python, "-m", "speciate.jobs.places.node", there.where]
        return Launch(self._named(watched), argv, resources, there.log)

    def _mirror(self, watched: _Watched, there: Room, lease: Lease | None) -> None:
        here = watched.here
        if not watched.mirrored:
            here.path.mkdir(parents=True, exist_ok=True)
            (here.path / "supervisor").touch()  # it has begun
            watched.mirrored = True
        there.mirror(here.path, None if lease is None else lease.beat)

    def _bring_ended(self, watched: _Watched, there: Room) -> tuple[Observation, str]:
        here, outcome = watched.here, read_outcome(there)
        assert outcome is not None, "a verdict rests on it"
        good = outcome.kind == "ok"
        try:
            if watched.check is None:
                bring(there, here.path, manifest=read_manifest(there), outputs=good)
                if good:
                    watched.check = self._begin_check(here)
                    wait([watched.check], _CHECK_PATIENCE_SECONDS)
            if watched.check is not None:
                if not watched.check.done():
                    checked = f"What its run at {self.name} left is being checked here."
                    return Unreachable(checked), checked  # it is over, so no limit of a run that lives counts
                self._end_check(watched)
        except SpeciateError as error:
            watched.tries += 1
            refused = error.code is Code.INVALID
            if watched.tries < _BRING_TRIES and not refused:
                raise
            outcome = Outcome(1, "user" if refused else "transient", error.message, error.recovery)
        fault("place_brought")
        here.end(outcome)
        fault("place_ended")
        self._clear(there)
        return Ended(outcome), ""

    def _begin_check(self, here: RunFolder) -> Future[None]:
        """One at a time, in a thread that ends with the daemon: the next one begins the check again."""
        found = Future[None]()

        def check() -> None:
            try:
                with self._checking:
                    self._adopt(here)
            except BaseException as error:  # noqa: BLE001 - raised by the look that asks for it
                found.set_exception(error)
            else:
                found.set_result(None)
            self.wake.set()

        threading.Thread(target=check, name=f"check at {self.name}", daemon=True).start()
        return found

    def _end_check(self, watched: _Watched) -> None:
        """Raises what the check raised; then another look brings all of it again."""
        check, watched.check = watched.check, None
        if check is not None:
            check.result()

    def _say_never_began(self, watched: _Watched, there: Room) -> Observation:
        """The cluster ended its launch before anything of ours ran: a wrong Python, say, or a node that failed."""
        try:
            said = self._cluster.log(self._as_launched(watched, there))[-_TAIL:]
        except OSError as error:
            said = str(error)
        message = f"{self.name} ended its launch before it began"
        recovery = f"A person runs `speciate places --probe {self.name}`: it says what is wrong there."
        outcome = Outcome(1, "transient", message, recovery, said)
        watched.here.end(outcome)
        self._clear(there)
        return Ended(outcome)

    def _bury(self, watched: _Watched, there: Room) -> Observation:
        """It is lost: should it live after all, as on a machine that slept, it ends at its next look."""
        there.write(FENCED, "")
        bring(there, watched.here.path, manifest=None, outputs=False)
        self._stop(watched, force=True)
        return Gone()

    def _clear(self, there: Room) -> None:
        try:
            there.clear()
        except OSError as error:
            _log.info("%s could not be cleared: %s", there.where, error)
            self._sweep = True

    # The depot

    def depot(self, handle: RunHandle | None = None) -> Depot:
        owner = handle["folder"].partition("/")[0] if handle else self._owner
        if owner not in self._depots:
            self._depots[owner] = open_depot(self.place, owner)
        return self._depots[owner]

    def _try_sweep(self) -> None:
        try:
            if not self.depot().is_there():
                return  # nothing was ever there, or its disk is not mounted: the next look may find it
            self._sweep = False  # first: whoever asks meanwhile is not forgotten
            wanted = self._mover.wanted()
            freed = self.depot().sweep(wanted, self._live())
            self._kept = not wanted.issuperset(self.depot().objects())
            _log.info("%s: %d bytes went from the depot", self.name, freed)
        except Exception as error:  # noqa: BLE001 - logged; the next look tries again
            self._sweep = True
            _log.info("%s could not be swept: %s", self.name, error, exc_info=not isinstance(error, OSError))

    def _there(self, watched: _Watched) -> Room:
        if watched.room is None:
            watched.room = self.depot(watched.handle).room(watched.handle["run"])
        return watched.room

    def _here(self, handle: RunHandle) -> RunFolder:
        return RunFolder(self._workspace / "runs" / handle["run"])

    def _nodes(self, handle: RunHandle) -> int:
        """1 where it cannot be read: the others end with the first."""
        return int(self._spec(handle).get("resources", {}).get("nodes", 1))

    def _spec(self, handle: RunHandle) -> RunDocument:
        """Empty where it cannot be read."""
        try:
            return self._here(handle).spec()
        except (OSError, SpeciateError):
            return {}

    def _named(self, watched: _Watched) -> str:
        """Name of the launch for the cluster: nobody else's."""
        return watched.handle["folder"].replace("/runs/", "-")

    def _say_silent_cluster(self) -> str:
        return f"{self.name} does not answer. Nothing is started a second time."

    def _say_silent(self, silence: float) -> str:
        return (
            f"Nothing was heard of its run at {self.name} for {silence:.0f} s. Until {self._terms.lost:g} s it counts "
            "as alive, and nothing is started a second time."
        )


def _is_of_the_bucket(error: Exception) -> bool:
    """Whether a bucket gave no answer. Errors of this machine's own disk have a number, and are of one run alone."""
    return isinstance(error, OSError) and error.errno is None and not isinstance(error, FileNotFoundError)
