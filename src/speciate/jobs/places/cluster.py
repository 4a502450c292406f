"""What a kind of cluster does for a place, whichever it is: start processes, say what became of those that nobody has
claimed, and stop them. Everything else is in the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from speciate.jobs.job import Resources
from speciate.jobs.places.verdict import Status


class Launch(NamedTuple):
    name: str
    argv: Sequence[str]
    resources: Resources
    """With `nodes` above 1, argv is started on each, with the node's number, from 0 on, as one argument more."""
    log: Path
    """Where the cluster may write what the process says, if it keeps that in a file."""


class Finding(NamedTuple):
    """One thing that was looked at, for `speciate places` and `speciate doctor`."""

    name: str
    ok: bool
    what: str


class Cluster(Protocol):
    """Every method raises OSError where the cluster does not answer, or refuses."""

    def launch(self, launch: Launch) -> None:
        """Start it once it has its turn. Launching one name twice must be harmless."""

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        """Status of each name, by one call where there are many."""

    def stop(self, name: str, *, force: bool, nodes: int = 1) -> None: ...

    def log(self, launch: Launch) -> str:
        """What the cluster kept of its output; empty where it kept nothing."""

    def findings(self) -> Iterator[Finding]:
        """Whether it can be used, as far as that is seen without a job. Never raises."""

    def findings_by_job(self, name: str, seconds: float) -> Iterator[Finding]:
        """What only a small job of this kind of cluster can tell. Never raises."""
