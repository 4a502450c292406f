"""The one way by which rows of datasets leave this machine: to a host for which a person allowed each of the datasets.

    Plan.departures   what will leave, and where to: every dataset whose rows are among it, also those that it came from
    at the call       `check`: what could not leave now makes no job
    at each start     `check` again, and `admit` in the transaction that starts it, which writes the row of the audit
    where it is sent  a `Permit` for that very host: without one an endpoint gets no request, and a depot no file

Consents are by name: of a dataset, and of a host as `Endpoint.host` or `Place.host` has it. Only a person gives one, on
a terminal (`governance/consents.py`). Where else something of ours opens a connection stands in
`tests/security/test_egress.py`, with the reason why no row goes by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate.errors import Code, SpeciateError
from speciate.workspace.audit_rows import WORKSPACE, append_row
from speciate.workspace.database import Database, Transaction

SENT = "data.sent"
"""The event of a row of the audit."""
_GIVEN = "SELECT dataset, host, granted_by, granted, expires FROM consents"
_DATASETS, _PACKS = "datasets/", "packs/"


class Departure(BaseModel):
    """Rows of a dataset that a job sends to a host."""

    model_config = ConfigDict(frozen=True)
    dataset: str
    """Its name."""
    host: str
    place: str | None = None
    """Name of the place whose depot `host` is."""
    of: str | None = None
    """Name of the dataset that is sent, where rows of this one are among it."""


class Consents(NamedTuple):
    """What people allowed, as of a commit."""

    given: Mapping[tuple[str, str], tuple[str, float, float | None]]
    """Dataset and host -> by whom, when, and when it ends."""
    now: float

    def why_not(self, departure: Departure) -> str | None:
        """Why it may not leave, in words, empty where nobody ever allowed it; None where it may."""
        found = self.given.get((departure.dataset, departure.host))
        if found is None:
            return ""
        by, granted, expires = found
        # A clock that went back revives none: what housekeeping found to be over ends as it began.
        if expires is not None and (self.now >= expires or expires <= granted):
            return f"the time for which {by} allowed it is over"
        return None


class NotAllowed(SpeciateError):
    """REFUSED: a person would have to allow it."""

    @property
    def sentence(self) -> str:
        """For a plan that does it here instead."""
        return f"{self.message} {self.advice}"


class Permit(NamedTuple):
    """What whoever sends rows must hold. Made here alone, of consents that are in force."""

    host: str
    datasets: frozenset[str]

    def check_files(self, names: Iterable[str]) -> None:
        """Raises REFUSED for a file of a dataset that this is no permit for. `names`: below the workspace's root."""
        for dataset in datasets_of_files(names) - self.datasets:
            raise _undeclared(dataset)


def consents(reader: Database | Transaction) -> Consents:
    given = {(dataset, host): (by, granted, ends) for dataset, host, by, granted, ends in reader.read(_GIVEN)}
    return Consents(given, reader.now if isinstance(reader, Transaction) else reader.now())


def check(known: Consents, departures: Iterable[Departure], *, job: str | None = None) -> None:
    """Raises NotAllowed, with the commands for a person, where one of them is not allowed, or no longer.

    `job`: it was accepted before, and starts now.
    """
    lacking = [(each, why) for each in dict.fromkeys(departures) if (why := known.why_not(each)) is not None]
    if not lacking:
        return
    first, why = lacking[0]
    why = why or ("no person allows it now" if job else "no person allowed it")
    whose = f" (rows of {first.of!r} came from it)" if first.of else ""
    commands = "; ".join(dict.fromkeys(command(each.dataset, each.host, each.place) for each, _ in lacking))
    then = f". Then call control_job(job={job!r}, action='retry')." if job else ""
    raise not_allowed(first, f"{why}{whose}", f"{commands}{then}")


def not_allowed(departure: Departure, why: str, commands: str) -> NotAllowed:
    where = departure.place or departure.host  # a depot's folder is for who may see settings
    return NotAllowed(
        Code.REFUSED,
        f"No example of {departure.dataset!r} may be sent to {where}: {why}.",
        f"A person decides, on a terminal: {commands}",
    )


def command(dataset: str, host: str, place: str | None = None) -> str:
    """What a person types: calls of an endpoint cost money, and what a place costs is not counted here."""
    return f"speciate allow {dataset} --host {place}" if place else f"speciate allow {dataset} --host {host} --usd CAP"


def permit_to_move(reader: Database | Transaction, spec: Mapping[str, Any], place: str, host: str) -> Permit:
    """The permit for the files of a run, at the moment at which they are moved: hours after its start, it may be.

    `spec`: its spec.json. Raises NotAllowed, and REFUSED where its start was for another depot than the place has now.
    """
    said = spec.get("permits", {})
    if said and host not in said:
        raise _undeclared(None)
    leaving = [Departure(dataset=each, host=host, place=place) for each in said.get(host, ())]
    check(consents(reader), leaving, job=spec["job"])
    return Permit(host, frozenset(each.dataset for each in leaving))


def permits(departures: Iterable[Departure]) -> dict[str, list[str]]:
    """Datasets by host, as spec.json holds what the start of a run checked."""
    found = dict[str, list[str]]()
    for each in dict.fromkeys(departures):
        if each.dataset not in found.setdefault(each.host, []):
            found[each.host].append(each.dataset)
    return found


def permit_of_run(spec: Mapping[str, Any], host: str) -> Permit | None:
    """The permit by what the daemon wrote into spec.json at the start; None where nothing may go to that host."""
    datasets = spec.get("permits", {}).get(host)
    return None if datasets is None else Permit(host, frozenset(datasets))


def admit(tx: Transaction, job: str, attempt: int, departures: Collection[Departure]) -> None:
    """In the transaction that starts a run: check once more, and write a row of the audit for each host.

    Raises NotAllowed, before anything is written.
    """
    check(consents(tx), departures, job=job)
    for host, datasets in permits(departures).items():
        told = {"job": job, "attempt": attempt, "host": host, "datasets": datasets}
        row = append_row(
            tx, actor=job, action="send", use_case=WORKSPACE, before=None, after=f"{', '.join(datasets)} to {host}",
            evidence=told,
        )  # fmt: skip
        tx.event(f"host:{host}", SENT, {**told, "audit": row.hash})


def datasets_of_files(names: Iterable[str]) -> set[str]:
    """Names of the datasets that files below the workspace's root hold rows of, as far as their paths tell."""
    inside = (name.removeprefix(_DATASETS) for name in names if name.startswith(_DATASETS))
    return {
        name.partition("/")[0].removesuffix(".parquet") for name in inside if "/" in name or name.endswith(".parquet")
    }


def departures_to_place(
    declared: Iterable[Departure], inputs: Collection[str], sources: Collection[str], place: str, host: str
) -> tuple[Departure, ...]:
    """What a run at a place sends: what its plan declares, and what the paths of its files tell.

    Raises REFUSED where it sends files and nothing tells whose they are.
    """
    declared = tuple(declared)
    said = {each.dataset for each in declared if each.host == host}
    found = sorted(datasets_of_files(inputs) - said)
    if (sources or any(name.startswith(_PACKS) for name in inputs)) and not said and not found:
        raise _undeclared(None)
    return (*declared, *(Departure(dataset=each, host=host, place=place) for each in found))


def _undeclared(dataset: str | None) -> SpeciateError:
    whose = f"rows of {dataset!r}" if dataset else "files"
    return SpeciateError(
        Code.REFUSED,
        f"The plan of this job sends {whose} and does not say so, thus nothing is sent.",
        "A job of an earlier version has such a plan: cancel it and make its call again. The plan of another kind of "
        "job must name each dataset in Plan.departures.",
    )
