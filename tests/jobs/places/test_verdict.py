"""What is concluded about a run at a place: each row of the table, and any order of events that a liar makes worse."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.jobs.places.lease import Lease, Terms
from speciate.jobs.places.verdict import RunFolderState, Status, Verdict, judge

HELD, RELEASED = Lease(3, True), Lease(4, False)
LOST = 90.0


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize(
    ("seen", "silence", "verdict"),
    [
        (RunFolderState(True, True, False, RELEASED), 0, Verdict.ENDED),
        (RunFolderState(True, True, False, RELEASED), 900, Verdict.ENDED),
        (RunFolderState(False, True, False, HELD), 89, Verdict.ALIVE),
        (RunFolderState(True, True, False, HELD), 89, Verdict.ALIVE),  # it is about to release it
        (RunFolderState(True, True, False, HELD), 91, Verdict.ENDED),
        (RunFolderState(False, True, False, HELD), 91, Verdict.GONE),
        (
            RunFolderState(False, True, False, RELEASED),
            89,
            Verdict.UNREACHABLE,
        ),  # its exit may be seen later than its lease
        (RunFolderState(False, True, False, RELEASED), 91, Verdict.GONE),
        (RunFolderState(False, True, False, None), 89, Verdict.UNREACHABLE),
        (RunFolderState(False, True, False, None), 91, Verdict.GONE),
        (RunFolderState(False, True, True, None), 0, Verdict.GONE),
        (RunFolderState(True, False, False, None), 0, Verdict.ENDED),
    ],
)
def test_whatever_the_cluster_says_of_a_claimed_run(
    status: Status, seen: RunFolderState, silence: float, verdict: Verdict
) -> None:
    assert judge(seen, status, silence, LOST) is verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (Status.PENDING, Verdict.PENDING),
        (Status.RUNNING, Verdict.PENDING),
        (Status.UNKNOWN, Verdict.LAUNCH),
        (Status.DEAD, Verdict.BURY),
        (Status.SILENT, Verdict.UNREACHABLE),
    ],
)
def test_of_what_nobody_has_claimed_the_cluster_is_asked(status: Status, verdict: Verdict) -> None:
    for silence in (0.0, 1e6):
        assert judge(RunFolderState(False, False, False, None), status, silence, LOST) is verdict


@dataclass
class World:
    """One attempt on a node that keeps a lease as node.py does, and a daemon that looks, each by its own clock.

    What the daemon reads may be as old as the disk's cache; the claim is decided where the disk is.
    """

    terms: Terms = field(default_factory=lambda: Terms(60.0))
    now: float = 0.0
    claimed: str = ""
    lease: Lease | None = None
    exit: bool = False
    runs: bool = False
    """Whether the worker lives."""
    node: bool = False
    cut: bool = False
    """Whether the node cannot reach the disk."""
    renewed: float = 0.0
    begun: int = 0
    last: tuple[bool, Lease | None] | None = None
    changed: float = 0.0
    verdicts: list[Verdict] = field(default_factory=list)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + self.terms.beat)
            if self.node and not self.cut:
                self.lease, self.renewed = Lease((self.lease.beat if self.lease else 0) + 1, True), self.now
            if self.node and self.now - self.renewed > self.terms.hold:
                self.runs = False

    def launch(self) -> None:
        """The cluster starts the node's side, as often as it likes."""
        if not self.claimed:
            self.claimed, self.node, self.runs, self.renewed = "node", True, True, self.now
            self.lease = Lease(1, True)
            self.begun += 1

    def kill_worker(self) -> None:
        self.runs = False
        self._end()

    def kill_node(self) -> None:
        self.node = self.runs = False  # PR_SET_PDEATHSIG

    def finish(self) -> None:
        if self.runs:
            self.runs = False
            self._end()

    def _end(self) -> None:
        if self.node and not self.cut:
            self.exit, self.node = True, False
            self.lease = Lease(self.lease.beat + 1 if self.lease else 1, False)

    def look(self, status: Status) -> Verdict:
        last = (bool(self.claimed), self.lease)
        if last != self.last:
            self.last, self.changed = last, self.now
        seen = RunFolderState(self.exit, bool(self.claimed), self.claimed == "daemon", self.lease)
        verdict = judge(seen, status, self.now - self.changed, self.terms.lost)
        if verdict is Verdict.BURY and not self.claimed:
            self.claimed = "daemon"
        if verdict is Verdict.LAUNCH:
            self.launch()
        self.verdicts.append(verdict)
        return verdict

    def restart_daemon(self) -> None:
        self.last = None


ACTS = st.one_of(
    st.tuples(st.just("look"), st.sampled_from(Status)),
    st.tuples(st.just("pass_time"), st.floats(0.1, 200.0)),
    *(
        st.tuples(st.just(name), st.none())
        for name in ("launch", "kill_worker", "kill_node", "finish", "restart_daemon")
    ),
    st.tuples(st.just("cut"), st.booleans()),
)


@given(st.lists(ACTS, max_size=40))
def test_in_any_order_nothing_that_lives_is_given_up_and_nothing_begins_twice(acts: list[tuple[str, object]]) -> None:
    world, over = World(), Verdict.PENDING
    for name, value in acts:
        if name == "cut":
            world.cut = bool(value)
        elif name == "look":
            said = world.look(Status(str(value)))
            if over in (Verdict.GONE, Verdict.ENDED):
                assert said is not Verdict.LAUNCH, "an attempt that is over never begins again"
            if said in (Verdict.GONE, Verdict.ENDED):
                assert not world.runs, "the next attempt would run beside it"
                over = said
            if said is Verdict.GONE:
                assert not world.exit, "how it ended was lost"
        elif value is None:
            getattr(world, name)()
        else:
            getattr(world, name)(value)
        assert world.begun <= 1
        if over is Verdict.GONE:
            assert not world.runs
    for _ in range(3):  # whatever was said, it comes to an end once the cluster tells that it is dead
        world.kill_node()
        world.pass_time(world.terms.lost + 1)
        said = world.look(Status.DEAD)
    assert said in (Verdict.GONE, Verdict.ENDED)


def test_a_daemon_that_believed_the_cluster_would_start_a_second_run() -> None:
    """What the simulation is able to see: a node that is cut off from the cluster, and not from the disk."""
    world = World()
    world.launch()
    world.pass_time(300)
    assert world.look(Status.DEAD) is Verdict.ALIVE
    assert world.runs
