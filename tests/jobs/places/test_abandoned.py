"""A run whose depot is gone: it can be cancelled, its record says what is known, and nothing begins beside it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from speciate.jobs.egress import Permit
from speciate.jobs.executors import Abandoned, Alive, Gone, Observation, Pending, RunSpec, Unreachable
from speciate.jobs.places.cluster import Finding, Launch
from speciate.jobs.places.depot import SENT
from speciate.jobs.places.executor import ABANDONED, PlaceExecutor
from speciate.jobs.places.folder_depot import FolderRoom
from speciate.jobs.places.lease import CLAIMED, DAEMON, Lease, Terms, claim, claimed_by, read_lease, write_lease
from speciate.jobs.places.node import Keeper
from speciate.jobs.places.places import Places
from speciate.jobs.places.verdict import Status
from speciate.settings import Place
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock

HOLD = 20.0
LOST = 31.0
"""A second more than it takes to call a silent run lost."""


class Queue:
    """A cluster that takes everything and begins nothing."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def launch(self, launch: Launch) -> None:
        self.launched.append(launch.name)

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        return dict.fromkeys(names, Status.PENDING)

    def stop(self, name: str, *, force: bool, nodes: int = 1) -> None:
        """Nothing of it lives."""

    def log(self, launch: Launch) -> str:
        return ""

    def findings(self) -> Iterator[Finding]:
        yield from ()

    def findings_by_job(self, name: str, seconds: float) -> Iterator[Finding]:
        yield from ()


class World:
    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.depot, self.workspace, self.clock, self.queue = folder / "depot", folder / "workspace", clock, Queue()
        for each in (self.depot, self.workspace):
            each.mkdir()
        place = Place(kind="slurm", depot=str(self.depot), python="/bin/python", lease_seconds=HOLD)
        self.live = set[str]()
        self.place = PlaceExecutor(
            "hpc", place, self.queue, self.workspace, "speciate-a", lambda: self.live, clock.monotonic,
            permit=lambda spec: Permit(place.host, frozenset()),
        )  # fmt: skip

    def submit(self, run: str) -> FolderRoom:
        self.live.add(run)
        self.place.submit(RunSpec(run, {"payload": {}, "resources": {}}))
        return FolderRoom(self.depot / "speciate-a" / "runs" / run)

    def look(self, run: str) -> Observation:
        self.place.look()
        return self.place.poll(self.place.handle(run))

    def away(self) -> None:
        self.depot.rename(self.depot.with_name("away"))

    def back(self) -> None:
        self.depot.with_name("away").rename(self.depot)

    def cancelled_unseen(self) -> str:
        """The run `job-a.1` began there, its depot went, and somebody cancelled it: what its record says."""
        there = self.submit("job-a.1")
        self.place.look()
        claim(there, "node")
        write_lease(there, Lease(1, held=True))
        assert isinstance(self.look("job-a.1"), Alive)
        self.away()
        return self.give_up("job-a.1")

    def give_up(self, run: str) -> str:
        self.place.cancel(self.place.handle(run), force=False)
        self.clock.advance(LOST)
        assert isinstance(self.look(run), Unreachable), "whoever was asked may still leave a checkpoint"
        self.place.cancel(self.place.handle(run), force=True)
        found = self.look(run)
        assert isinstance(found, Abandoned)
        self.live.discard(run)
        self.place.forget(self.place.handle(run))
        return found.why


@pytest.fixture
def world(tmp_path: Path, clock: ManualClock) -> World:
    return World(tmp_path, clock)


def test_a_cancelled_run_is_given_up_once_it_was_not_seen_for_longer_than_it_can_live(world: World) -> None:
    why = world.cancelled_unseen()
    assert "hpc was not seen for 31 s" in why
    assert "whether it ended is not known" in why


def test_it_is_not_given_up_while_its_depot_is_seen_or_nobody_forces_its_end(world: World) -> None:
    world.submit("job-a.1")
    assert isinstance(world.look("job-a.1"), Pending)
    world.away()
    for _ in range(3):
        world.clock.advance(LOST)
        assert isinstance(world.look("job-a.1"), Unreachable)
    world.back()
    world.place.cancel(world.place.handle("job-a.1"), force=True)
    world.place.look()
    assert isinstance(world.look("job-a.1"), Gone), "it waited in the queue, and never begins"


def test_the_next_attempt_waits_until_the_one_that_was_given_up_cannot_live(world: World) -> None:
    world.cancelled_unseen()
    second = world.submit("job-a.2")
    assert isinstance(world.look("job-a.2"), Unreachable)
    assert "attempt 1 may live" in (world.place.trouble("job-a.2") or "")
    world.back()
    first = FolderRoom(second.path.with_name("job-a.1"))
    assert isinstance(world.look("job-a.2"), Pending)
    assert "may live" in (world.place.trouble("job-a.2") or "")
    assert not first.is_there(), "so it cannot renew its lease, and its node ends it"
    world.clock.advance(HOLD)
    world.place.look()
    assert not second.has(SENT)
    world.clock.advance(LOST - HOLD)
    world.place.look()
    assert second.has(SENT)
    assert [name.rpartition("-")[2] for name in world.queue.launched] == ["a.1", "a.2"]


def test_one_that_waited_in_the_queue_is_claimed_before_the_next_begins(world: World) -> None:
    first = world.submit("job-a.1")
    world.place.look()
    world.away()
    world.give_up("job-a.1")
    world.back()
    second = world.submit("job-a.2")
    world.place.look()
    assert second.has(SENT)
    assert not first.is_there(), "when its turn comes, it finds nothing to begin with"


def test_one_that_is_seen_to_have_ended_is_not_waited_for(world: World) -> None:
    world.cancelled_unseen()
    write_lease(FolderRoom(world.depot.with_name("away") / "speciate-a" / "runs" / "job-a.1"), Lease(2, held=False))
    world.back()
    second = world.submit("job-a.2")
    world.place.look()
    assert second.has(SENT)


def test_in_a_new_depot_the_next_attempt_waits_for_as_long_as_a_lease_lasts(world: World) -> None:
    world.cancelled_unseen()
    world.depot.mkdir()
    (world.depot / "speciate-a").mkdir()
    second = world.submit("job-a.2")
    assert isinstance(world.look("job-a.2"), Pending)
    assert not second.has(SENT)
    world.clock.advance(LOST)
    world.place.look()
    assert second.has(SENT)


def test_what_was_never_started_is_said_to_be_so(world: World) -> None:
    world.depot.rmdir()
    world.submit("job-a.1")
    assert isinstance(world.look("job-a.1"), Unreachable)
    world.place.cancel(world.place.handle("job-a.1"), force=True)
    assert isinstance(world.look("job-a.1"), Gone)


def test_a_run_at_a_place_that_the_settings_name_no_more_is_given_up_when_its_end_is_forced(
    workspace: Workspace,
) -> None:
    places = Places(workspace)
    handle = {"run": "job-a.1", "place": "moon", "folder": "x"}
    places.executor("moon").cancel(handle, force=False)
    assert isinstance(places.executor("moon").poll(handle), Unreachable)
    places.executor("moon").cancel(handle, force=True)
    found = places.executor("moon").poll(handle)
    assert isinstance(found, Abandoned)
    assert "names no place 'moon'" in found.why
    assert (workspace.folders.runs / "job-a.1" / ABANDONED).exists()


def test_a_folder_that_a_run_made_anew_takes_no_beat(tmp_path: Path) -> None:
    """Where the disk is not mounted any more. A node that beat on there would let its run live beside the next one."""
    room = FolderRoom(tmp_path)
    claim(room, "node")
    keeper = Keeper(room, Terms(60.0))
    keeper.begin()
    (tmp_path / CLAIMED).unlink()
    with pytest.raises(FileNotFoundError):
        keeper.release()
    assert read_lease(room) == Lease(1, True, socket.gethostname())
    claim(room, DAEMON)
    assert claimed_by(room) == DAEMON
