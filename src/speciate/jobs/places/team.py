"""Several nodes that have one run together, as each sees the others: by files in the run's room alone.

    claimed.N lease.N   as of a run (lease.py), of each node but the first, whose `claimed` and `lease` are the run's
    team.json           where the processes meet; written by the first one's run
    word.N              how node N ended, where that was not well
    over                the first one says: end

They live and die together. The first one ends the attempt as soon as another one is silent or says that it ended
badly, and releases its lease only once nothing of the others lives. The others end when the first one's lease is
released, or silent for `hold`: so all are dead before the daemon calls the attempt lost, and no second team begins
beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from speciate.errors import SpeciateError
from speciate.jobs.folder import TEAM, Outcome, to_checked, to_outcome
from speciate.jobs.places.depot import Room
from speciate.jobs.places.lease import (
    CLAIMED,
    DAEMON,
    Lease,
    Terms,
    claim,
    claimed_by,
    name_of,
    read_lease,
    uptime,
)

_GATHER_SECONDS = 900.0
"""Seconds for which nodes wait for one that has not begun."""
_OVER, _WORD = "over", "word"
_LOOK_SECONDS = 0.5


class Followers:
    """The other nodes, as the first one sees them."""

    def __init__(self, room: Room, nodes: int, terms: Terms, clock: Callable[[], float] = uptime) -> None:
        self._room, self._nodes, self._terms, self._clock = room, nodes, terms, clock
        self._began = clock()
        self.folder: Path | None = None
        """In which the run of the first one works."""
        self.gone = False
        """Whether it is known that nothing of them lives."""
        self._seen: dict[int, tuple[Lease | None, float]] = {}
        """The newest lease of each that has begun, and when it was seen to change."""
        self._met = False

    def look(self) -> Outcome | None:
        """How the attempt ends because of one of them; None while all is well. Raises OSError.

        One that ended without a word was told so by the run here, which may still have to say how it ended itself.
        """
        self._show_where_to_meet()
        for node in range(1, self._nodes):
            lease = self._lease(node)
            if node not in self._seen:
                if self._clock() - self._began > _GATHER_SECONDS:
                    return self._missing(node)
            elif lease is not None and not lease.held and (word := self._word(node)) is not None:
                return word
            elif self._is_silent(node):
                ended = lease is not None and not lease.held
                called = self._called(node)
                why = f"{called} ended before the training did" if ended else f"nothing was heard of {called}"
                return Outcome(1, "killed", why)
        return None

    def end(self, give_up: Callable[[], bool], wait: Callable[[float], None]) -> Outcome | None:
        """Returns once nothing of them lives, or `give_up()`. What one of them said of its end, if anything."""
        left, said = set(range(1, self._nodes)), list[Outcome]()
        while not give_up():
            try:
                self._room.write(_OVER, "")
                left = {node for node in left if not self._is_over(node)}
                if not left:
                    self.gone = True
                    said += [word for node in range(1, self._nodes) if (word := self._word(node)) is not None]
                    break
            except OSError:
                pass  # the depot is away: the lease says for how long to try
            wait(_LOOK_SECONDS)
        return min(said, key=lambda each: each.kind == "killed", default=None)

    def _is_over(self, node: int) -> bool:
        """Whether it has ended, or can never begin. Raises OSError."""
        if node not in self._seen and claim(self._room, "the first node", node):
            return True
        lease = self._lease(node)
        return (lease is not None and not lease.held) or (node in self._seen and self._is_silent(node))

    def _lease(self, node: int) -> Lease | None:
        lease = _legible_lease(self._room, node)
        if lease is None and node not in self._seen and not self._room.has(name_of(CLAIMED, node)):
            return None
        if node not in self._seen or self._seen[node][0] != lease:
            self._seen[node] = lease, self._clock()
        return lease

    def _is_silent(self, node: int) -> bool:
        return self._clock() - self._seen[node][1] > self._terms.lost

    def _word(self, node: int) -> Outcome | None:
        """None also where it cannot be read."""
        data = self._room.read(name_of(_WORD, node))
        try:
            said = None if data is None else to_outcome(data, name_of(_WORD, node))
        except SpeciateError:
            return None
        return said and said._replace(message=f"{self._called(node)}: {said.message}")

    def _missing(self, node: int) -> Outcome:
        return Outcome(
            1, "transient", f"{self._called(node)} did not begin within {_GATHER_SECONDS:g} s",
            "The log of the launch, in the cluster's hands, may say why.",
        )  # fmt: skip

    def _called(self, node: int) -> str:
        return f"node {node + 1} of {self._nodes}"

    def _show_where_to_meet(self) -> None:
        """In a shared folder the run has written that into its room itself."""
        if not self._met and self.folder is not None and (self.folder / TEAM).exists():
            if not self._room.has(TEAM):
                self._room.write(TEAM, (self.folder / TEAM).read_text())
            self._met = True


class FirstNode:
    """The first node, as another one sees it."""

    def __init__(self, room: Room, terms: Terms, clock: Callable[[], float] = uptime) -> None:
        self._room, self._terms, self._clock = room, terms, clock
        self._began = self._changed = clock()
        self._lease: Lease | None = None
        self._lives = False
        self.meeting: str | None = None
        """`team.json`, once the first node is known to live: a room that was left behind may hold one, too."""

    def look(self) -> Outcome | None:
        """Why this node must end; None while the first one lives. Raises OSError."""
        lease = _legible_lease(self._room) or self._lease
        if lease != self._lease:
            self._lives = self._lease is not None
            self._lease, self._changed = lease, self._clock()
        if self._room.has(_OVER) or (lease is not None and not lease.held):
            return Outcome(1, "killed", "the first node has ended")
        if lease is None:
            if claimed_by(self._room) == DAEMON:
                return Outcome(1, "killed", "it was called off before it began")
            waited = self._clock() - self._began
            return None if waited <= _GATHER_SECONDS else Outcome(1, "killed", "the first node did not begin")
        if self._clock() - self._changed > self._terms.hold:
            return Outcome(1, "killed", "nothing was heard of the first node")
        if self._lives and self.meeting is None and (data := self._room.read(TEAM)) is not None:
            self.meeting = data.decode(errors="replace")
        return None


def _legible_lease(room: Room, node: int = 0) -> Lease | None:
    """None also where it cannot be read: a node that lives writes it anew, and one that does not is silent. Raises
    OSError."""
    try:
        return read_lease(room, node)
    except SpeciateError:
        return None


def write_word(room: Room, node: int, outcome: Outcome) -> None:
    """Raises OSError."""
    data = outcome._asdict()
    room.write(name_of(_WORD, node), to_checked({"code": data.pop("code"), "class": data.pop("kind"), **data}))
