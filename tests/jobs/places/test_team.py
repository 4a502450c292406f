"""Several nodes that have one run together: what each concludes from the room's files, by one clock that is ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.jobs.folder import TEAM, Outcome
from speciate.jobs.places.folder_depot import FolderRoom
from speciate.jobs.places.lease import DAEMON, Lease, Terms, claim, write_lease
from speciate.jobs.places.team import _GATHER_SECONDS, FirstNode, Followers, write_word

HOLD = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Nodes:
    """A room with three nodes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sent.json").touch()
        self.room, self.clock = FolderRoom(folder), Clock()
        self.followers = Followers(self.room, 3, Terms(HOLD), self.clock)
        self.first = FirstNode(self.room, Terms(HOLD), self.clock)
        self.beats = [0, 0, 0]

    def beat(self, *nodes: int, held: bool = True) -> None:
        for node in nodes:
            if not self.beats[node]:
                assert claim(self.room, "node", node)
            self.beats[node] += 1
            write_lease(self.room, Lease(self.beats[node], held), node)

    def end(self, *, run_out: bool = False) -> Outcome | None:
        return self.followers.end(lambda: run_out, self.clock.sleep)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path / "room")


def test_while_all_beat_nobody_ends(nodes: Nodes) -> None:
    assert nodes.followers.look() is None
    for _ in range(20):
        nodes.beat(0, 1, 2)
        assert nodes.followers.look() is None
        assert nodes.first.look() is None
        nodes.clock.sleep(HOLD / 6)


def test_one_that_is_silent_ends_the_attempt_once_it_is_dead_for_sure(nodes: Nodes) -> None:
    nodes.beat(0, 1, 2)
    nodes.followers.look()
    nodes.clock.sleep(HOLD * 1.4)
    nodes.beat(1)
    assert nodes.followers.look() is None
    nodes.clock.sleep(HOLD * 0.2)
    found = nodes.followers.look()
    assert found is not None
    assert (found.kind, found.message) == ("killed", "nothing was heard of node 3 of 3")


def test_one_that_ended_says_why(nodes: Nodes) -> None:
    nodes.beat(0, 1, 2)
    nodes.followers.look()
    write_word(nodes.room, 2, Outcome(1, "user", "this node has speciate 0.1", "Install the same."))
    nodes.beat(2, held=False)
    found = nodes.followers.look()
    assert found is not None
    assert (found.kind, found.message) == ("user", "node 3 of 3: this node has speciate 0.1")
    nodes.beat(1, held=False)
    assert nodes.end() == found


def test_one_that_ended_as_it_was_told_leaves_the_first_time_to_say_how_it_ended(nodes: Nodes) -> None:
    """It ends as soon as the training is over, and the first one's run has a model to save yet."""
    nodes.beat(0, 1, 2)
    nodes.followers.look()
    nodes.beat(1, held=False)
    assert nodes.followers.look() is None
    for _ in range(4):
        nodes.clock.sleep(HOLD / 2)
        nodes.beat(2)
        found = nodes.followers.look()
    assert found is not None
    assert (found.kind, found.message) == ("killed", "node 2 of 3 ended before the training did")


@pytest.mark.parametrize("name", ["lease.1", "word.1"])
def test_a_damaged_file_of_one_that_died_keeps_nobody_waiting(nodes: Nodes, name: str) -> None:
    nodes.beat(0, 1, 2)
    nodes.followers.look()
    nodes.beat(2, held=False)
    if name == "word.1":
        nodes.beat(1, held=False)
    nodes.room.write(name, "")
    began = nodes.clock.now
    assert nodes.followers.end(lambda: nodes.clock.now > began + 10 * HOLD, nodes.clock.sleep) is None
    assert nodes.followers.gone


def test_a_damaged_lease_of_the_first_is_no_sign_of_life(nodes: Nodes) -> None:
    nodes.beat(0)
    assert nodes.first.look() is None
    nodes.room.write("lease", "")
    assert nodes.first.look() is None
    nodes.clock.sleep(HOLD + 1)
    assert nodes.first.look() is not None


def test_one_that_does_not_come_is_named(nodes: Nodes) -> None:
    nodes.beat(0, 1)
    assert nodes.followers.look() is None
    nodes.clock.sleep(_GATHER_SECONDS + 1)
    nodes.beat(1)
    found = nodes.followers.look()
    assert found is not None
    assert (found.kind, found.message) == ("transient", "node 3 of 3 did not begin within 900 s")


def test_the_end_waits_for_those_that_live_and_keeps_others_from_beginning(nodes: Nodes) -> None:
    nodes.beat(0, 1)
    nodes.followers.look()
    began = nodes.clock.now
    assert nodes.end() is None
    assert nodes.clock.now - began > HOLD * 1.5, "it never released its lease, so it is dead only then"
    assert not claim(nodes.room, "node", 2), "a launch that comes late begins nothing"
    assert nodes.room.has("over")


def test_the_end_gives_up_with_the_lease(nodes: Nodes) -> None:
    nodes.beat(0, 1)
    nodes.followers.look()
    assert nodes.end(run_out=True) is None
    assert not nodes.followers.gone, "so the first one's lease is not released, but falls silent"


@pytest.mark.parametrize("way", ["released", "over", "silent", "called off", "never began"])
def test_the_others_end_with_the_first(nodes: Nodes, way: str) -> None:
    if way == "called off":
        claim(nodes.room, DAEMON)
    elif way == "never began":
        assert nodes.first.look() is None
        nodes.clock.sleep(_GATHER_SECONDS + 1)
    else:
        nodes.beat(0)
        assert nodes.first.look() is None
        nodes.clock.sleep(HOLD * 0.9)
        assert nodes.first.look() is None
        if way == "silent":
            nodes.clock.sleep(HOLD * 0.2)  # and half of it sooner than the daemon calls it lost
        elif way == "over":
            nodes.room.write("over", "")
        else:
            nodes.beat(0, held=False)
    assert nodes.first.look() is not None


def test_where_to_meet_is_taken_from_a_first_node_that_lives_alone(nodes: Nodes) -> None:
    """What an attempt that died has left leads nowhere."""
    nodes.room.write(TEAM, "{}")
    nodes.beat(0)
    nodes.first.look()
    nodes.first.look()
    assert nodes.first.meeting is None
    nodes.beat(0)
    nodes.first.look()
    assert nodes.first.meeting == "{}"


def test_where_to_meet_is_copied_from_where_the_run_works(nodes: Nodes, tmp_path: Path) -> None:
    """In a bucket that is the node's own disk."""
    nodes.followers.folder = tmp_path
    nodes.followers.look()
    assert not nodes.room.has(TEAM)
    (tmp_path / TEAM).write_text("{1}")
    nodes.followers.look()
    assert nodes.room.read(TEAM) == b"{1}"
