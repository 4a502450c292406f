"""A place that is away for ten minutes, or that lies all the time: by a clock of the test's own, through the executor,
with depots of both kinds."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from speciate.errors import Code, SpeciateError
from speciate.jobs.egress import Permit
from speciate.jobs.executors import Alive, Ended, Gone, Observation, Pending, RunSpec, Unreachable
from speciate.jobs.folder import EXIT, RunFolder, to_checked
from speciate.jobs.places import bucket_depot
from speciate.jobs.places.bucket_depot import Bucket, BucketDepot
from speciate.jobs.places.cluster import Finding, Launch
from speciate.jobs.places.depot import Depot
from speciate.jobs.places.executor import LOOK_SECONDS, PlaceExecutor
from speciate.jobs.places.folder_depot import FolderDepot
from speciate.jobs.places.lease import FENCED, Lease, Terms, claim, write_lease
from speciate.jobs.places.verdict import Status
from speciate.settings import Place
from tests.conftest import ManualClock

HOLD = 60.0
TERMS = Terms(HOLD)
OK = to_checked({"code": 0, "class": "ok"})


class Liar:
    """A cluster that says what it was told to say, of every launch, or nothing."""

    def __init__(self) -> None:
        self.says: Status | None = Status.PENDING
        self.launched: list[str] = []

    def launch(self, launch: Launch) -> None:
        self._answer()
        self.launched.append(launch.name)

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        return dict.fromkeys(names, self._answer())

    def stop(self, name: str, *, force: bool, nodes: int = 1) -> None:
        self._answer()

    def log(self, launch: Launch) -> str:
        return ""

    def findings(self) -> Iterator[Finding]:
        yield from ()

    def findings_by_job(self, name: str, seconds: float) -> Iterator[Finding]:
        yield from ()

    def _answer(self) -> Status:
        if self.says is None:
            raise ConnectionError("no route to host")
        return self.says


class Nodes:
    """Nodes of one depot, as node.py behaves: each run that was launched may be begun, beats, and ends."""

    def __init__(self, depot: Depot, clock: ManualClock) -> None:
        self._depot, self._clock = depot, clock
        self.live: dict[str, float] = {}
        """Run -> when its lease was renewed last."""
        self.ended: set[str] = set()
        self._beats: dict[str, int] = {}
        self.reach = True
        """Whether they reach the depot."""

    def begin(self, run: str) -> None:
        room = self._depot.room(run)
        if self.reach and room.is_there() and claim(room, "node"):
            assert run not in self._beats, "one attempt was begun twice"
            self.live[run], self._beats[run] = self._clock.monotonic(), 1
            write_lease(room, Lease(1, held=True))

    def pass_time(self, seconds: float) -> None:
        left = seconds
        while left > 0:
            step = min(TERMS.beat, left)
            left -= step
            self._clock.advance(step)
            for run in list(self.live):
                room = self._depot.room(run)
                if self.reach and room.has("claimed"):
                    if room.has(FENCED):
                        del self.live[run]
                        continue
                    self._beats[run] += 1
                    write_lease(room, Lease(self._beats[run], held=True))
                    self.live[run] = self._clock.monotonic()
                elif self._clock.monotonic() - self.live[run] > HOLD:
                    del self.live[run]  # it has killed its run

    def finish(self, run: str) -> None:
        if self.reach and run in self.live:
            room = self._depot.room(run)
            room.write(EXIT, OK)
            write_lease(room, Lease(self._beats[run] + 1, held=False))
            del self.live[run]
            self.ended.add(run)

    def die(self, run: str) -> None:
        self.live.pop(run, None)


class World:
    def __init__(self, folder: Path, kind: str) -> None:
        self.clock, self.cluster, self.folder = ManualClock(), Liar(), folder
        for name in ("depot", "workspace"):
            (folder / name).mkdir()
        self.away = False
        """Whether this machine reaches the depot."""
        self.depot: Depot
        if kind == "bucket":
            self.depot, where = BucketDepot(Bucket(MemoryStore(), "s3://memory"), "speciate-a"), "s3://memory"
        else:
            self.depot, where = FolderDepot(folder / "depot" / "speciate-a"), str(folder / "depot")
        self.nodes = Nodes(self.depot, self.clock)
        self.place = Place(kind="slurm", depot=where, python="/bin/python", lease_seconds=HOLD)
        self.attempt = 1
        self.others: list[str] = []
        self.found: list[tuple[str, Observation]] = []
        self.begin()

    def begin(self, adopt: Callable[[RunFolder], None] = lambda folder: None) -> None:
        """A daemon, which knows nothing of what the one before it saw."""
        self.executor = PlaceExecutor(
            "lab", self.place, self.cluster, self.folder / "workspace", "speciate-a", lambda: {self.run, *self.others},
            self.clock.monotonic, adopt, permit=lambda spec: Permit(self.place.host, frozenset()),
        )  # fmt: skip
        self.executor._depots["speciate-a"] = self.depot
        self.submit()

    @property
    def run(self) -> str:
        return f"job-a.{self.attempt}"

    def submit(self) -> None:
        self.executor.submit(RunSpec(self.run, {"payload": {}, "resources": {}}))

    @contextmanager
    def reached_or_not(self) -> Iterator[None]:
        if not self.away:
            yield
        elif isinstance(self.depot, FolderDepot):
            self.depot.root.parent.rename(self.folder / "elsewhere")
            try:
                yield
            finally:
                (self.folder / "elsewhere").rename(self.depot.root.parent)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(bucket_depot, "_as_os_errors", _no_route)
                yield

    def look(self) -> Observation:
        """One look of the place's thread, and what the reconciler then sees and does: the next attempt."""
        with self.reached_or_not():
            self.executor.look()
        run, found = self.run, self.executor.poll(self.executor.handle(self.run))
        self.found.append((run, found))
        if isinstance(found, Gone) or (isinstance(found, Ended) and found.outcome.kind != "ok"):
            assert run not in self.nodes.live, "the next attempt would run beside it"
            assert run not in self.nodes.ended, "how it ended was lost"
            self.executor.forget(self.executor.handle(run))
            self.attempt += 1
            self.submit()
        return found


def _no_route() -> object:
    raise ConnectionError("no route to host")


def looks(world: World, seconds: float) -> list[Observation]:
    found = []
    for _ in range(int(seconds / LOOK_SECONDS)):
        world.nodes.pass_time(LOOK_SECONDS)
        found.append(world.look())
    return found


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@pytest.mark.parametrize("what", ["cluster", "depot", "both"])
@pytest.mark.parametrize("meanwhile", ["works", "ends", "dies"])
def test_ten_minutes_away_begin_nothing_twice_and_lose_nothing(
    tmp_path: Path, kind: str, what: str, meanwhile: str
) -> None:
    world = World(tmp_path, kind)
    world.look()
    world.nodes.begin("job-a.1")
    assert isinstance(world.look(), Alive)
    if what in ("cluster", "both"):
        world.cluster.says = None
    world.away = what in ("depot", "both")
    found = looks(world, 300)
    if meanwhile == "ends":
        world.nodes.finish("job-a.1")
    elif meanwhile == "dies":
        world.nodes.die("job-a.1")
    found += looks(world, 300)
    if world.away:
        assert {type(each) for each in found} == {Unreachable}, "nothing is concluded"
    assert len(world.cluster.launched) == 1, "no second attempt"
    world.cluster.says, world.away = Status.PENDING, False
    back = looks(world, 10)
    if meanwhile == "works":
        assert isinstance(back[-1], Alive)
        assert world.attempt == 1
    elif meanwhile == "ends":
        assert any(isinstance(each, Ended) for each in (*found, *back)), "its end is known within 10 s of the return"
        assert world.attempt == 1
    else:
        looks(world, TERMS.lost + 5)
        assert world.attempt == 2
        assert isinstance(world.found[-1][1], Pending)
    assert len(world.cluster.launched) <= 2


class SlowCheck:
    """Of what a run left: it ends when the test says so."""

    def __init__(self) -> None:
        self.begun, self.end, self.calls = threading.Event(), threading.Event(), 0
        self.error: Exception | None = None

    def __call__(self, folder: RunFolder) -> None:
        self.calls += 1
        self.begun.set()
        assert self.end.wait(30)
        if self.error is not None:
            raise self.error

    def let_end(self, world: World) -> Observation:
        world.executor.wake.clear()
        self.end.set()
        assert world.executor.wake.wait(30), "the next look comes at once"
        world.executor.look()
        return world.executor.poll(world.executor.handle(world.run))


@pytest.mark.parametrize(
    ("error", "kind"), [(None, "ok"), (SpeciateError(Code.INVALID, "no version"), "user"), (KeyError("x"), None)]
)
def test_other_runs_are_looked_at_while_what_one_left_is_checked(
    tmp_path: Path, error: Exception | None, kind: str | None
) -> None:
    world, check = World(tmp_path, "folder"), SlowCheck()
    check.error = error
    world.begin(check)
    world.submit()
    world.others.append("job-b.1")
    other = world.executor.handle("job-b.1")
    world.executor.submit(RunSpec("job-b.1", {"payload": {}, "resources": {}}))
    world.look()
    world.nodes.begin("job-a.1")
    world.nodes.begin("job-b.1")
    world.look()
    world.nodes.finish("job-a.1")
    for _ in range(3):
        found = world.look()
        assert isinstance(found, Unreachable)
        assert "being checked here" in found.why
        assert isinstance(world.executor.poll(other), Alive)
    world.nodes.finish("job-b.1")
    world.look()
    assert isinstance(world.executor.poll(other), Unreachable), "its own check waits for the first"
    assert check.calls == 1
    found = check.let_end(world)
    if kind is None:
        assert isinstance(found, Unreachable)
        assert "KeyError" in found.why
        check.error = None
        found = world.look()
    assert isinstance(found, Ended)
    assert found.outcome.kind == (kind or "ok")


SAID = [None, *(each for each in Status if each is not Status.SILENT)]
EVENTS = ("begin", "late", "finish", "die", "daemon", "away", "back", "cut", "reached", "nothing")
STEPS = st.tuples(st.sampled_from(EVENTS), st.sampled_from(SAID), st.sampled_from([0.0, 2.0, 20.0, 40.0, 61.0, 95.0]))
"""What happens, what the cluster says from then on, and the seconds until the place's thread looks."""


def act(world: World, event: str) -> None:
    match event:
        case "begin":
            world.nodes.begin(world.run)
        case "late":  # the turn of a launch of any attempt, however long ago
            for attempt in range(1, world.attempt + 1):
                world.nodes.begin(f"job-a.{attempt}")
        case "finish":
            world.nodes.finish(world.run)
        case "die":
            world.nodes.die(world.run)
        case "daemon":
            world.begin()
        case "away" | "back":
            world.away = event == "away"
        case "cut" | "reached":
            world.nodes.reach = event == "reached"


@settings(deadline=None)
@given(st.booleans(), st.lists(STEPS, max_size=25))
def test_whatever_a_cluster_says_and_whoever_is_away_one_attempt_lives(
    begun: bool, steps: list[tuple[str, Status | None, float]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), "bucket")
        world.look()
        if begun:
            world.nodes.begin(world.run)
        for event, says, seconds in steps:
            act(world, event)
            world.cluster.says = says
            world.nodes.pass_time(seconds)
            world.look()
            assert len(world.nodes.live) <= 1, "two attempts of one job"
        world.away, world.nodes.reach, world.cluster.says = False, True, Status.UNKNOWN
        for _ in range(200):  # it comes to an end, once everybody is reached again
            found = world.look()
            if isinstance(found, Ended) and found.outcome.kind == "ok":  # else a launch that never began, and the next
                break
            world.nodes.begin(world.run)
            world.nodes.finish(world.run)
            world.nodes.pass_time(10.0)
        assert isinstance(world.found[-1][1], Ended)
        assert world.run in world.nodes.ended


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (
            [("nothing", None, 2.0), ("cut", None, 40.0), ("nothing", None, 2.0)],
            "silent for less than a node lives without its lease",
        ),
        ([("nothing", Status.DEAD, 2.0), ("nothing", Status.DEAD, 2.0)], "said to have ended"),
        ([("away", Status.DEAD, 95.0), ("daemon", Status.DEAD, 95.0), ("back", Status.DEAD, 2.0)], "away, then back"),
    ],
)
def test_a_run_that_lives_is_not_given_up(
    tmp_path: Path, step: list[tuple[str, Status | None, float]], what: str
) -> None:
    world = World(tmp_path, "bucket")
    world.look()
    world.nodes.begin(world.run)
    world.cluster.says = step[0][1]
    for event, says, seconds in step:
        act(world, event)
        world.cluster.says = says
        world.nodes.pass_time(seconds)
        world.look()
    assert world.attempt == 1, what
    assert list(world.nodes.live) == ["job-a.1"]


def test_who_asks_never_waits_for_a_place(tmp_path: Path) -> None:
    """The cluster's answer hangs for as long as the test wants; the reconciler's questions are answered meanwhile."""
    world, go, asked = World(tmp_path, "folder"), threading.Event(), threading.Event()

    def hang(names: Sequence[str]) -> Mapping[str, Status]:
        asked.set()
        go.wait()
        return dict.fromkeys(names, Status.RUNNING)

    world.look()
    world.cluster.statuses = hang  # type: ignore[method-assign]
    world.clock.advance(30)
    looking = threading.Thread(target=world.executor.look, daemon=True)
    looking.start()
    asked.wait()
    for number in range(2, 50):
        handle = world.executor.handle(f"job-b.{number}")
        world.executor.submit(RunSpec(handle["run"], {"payload": {}, "resources": {}}))
        world.executor.cancel(handle, force=False)
        assert isinstance(world.executor.poll(handle), Unreachable)
    assert looking.is_alive()
    assert "not looked at" in str(world.executor.poll(world.executor.handle("job-a.1")))
    go.set()
    looking.join()
    assert isinstance(world.executor.poll(world.executor.handle("job-a.1")), Pending)


@pytest.mark.slow(reason="a thousand runs")
def test_of_a_thousand_runs_the_cluster_is_asked_once(tmp_path: Path) -> None:
    world, asked = World(tmp_path, "bucket"), list[int]()
    statuses = world.cluster.statuses

    def count(names: Sequence[str]) -> Mapping[str, Status]:
        asked.append(len(names))
        return statuses(names)

    world.cluster.statuses = count  # type: ignore[method-assign]
    names = world.others = [f"job-{number}.1" for number in range(1000)]
    for name in names:
        world.executor.submit(RunSpec(name, {"payload": {}, "resources": {}}))
    world.look()
    world.clock.advance(30)
    asked.clear()
    world.look()
    assert asked == [1001]
    for name in names:
        world.nodes.begin(name)
    world.nodes.die("job-a.1")
    world.look()
    asked.clear()
    world.clock.advance(5)
    world.look()
    assert asked in ([1], []), "of those that somebody has, no question"
