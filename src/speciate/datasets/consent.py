"""Consents: examples of a dataset that a person allowed to leave this machine, for a host, up to a sum of money.

Nothing here grants: `governance/consents.py` does, for a person on a terminal. Nothing here sends: that goes by
`jobs/egress.py`, and this says which datasets' rows are among what is sent. A consent is for a dataset's name, so
for all its versions and for later additions. Rows that a version took from another dataset remain that one's, too: it
must be allowed as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from speciate.jobs import egress
from speciate.jobs.egress import Departure
from speciate.refs import dataset_ref
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

_SPENT = """
coalesce((SELECT sum(usd) FROM spending s WHERE s.dataset = c.dataset AND s.host = c.host AND s.stamp >= c.granted), 0)
"""
_CONSENTS = f"SELECT dataset, host, usd_cap, {_SPENT}, granted, expires, granted_by FROM consents c"
_OF = f"{_CONSENTS} WHERE dataset = ? AND host = ?"
_ALL = f"{_CONSENTS} ORDER BY dataset, host"
_ORIGINS = "SELECT name, version, parents, operation -> 'deleted' FROM dataset_versions"
_END = "UPDATE consents SET expires = granted WHERE dataset = ? AND host = ?"


class Consent(NamedTuple):
    dataset: str
    host: str
    usd_cap: float
    spent_usd: float
    """US dollars spent since the consent was given, by whatever job."""
    granted: float
    expires: float | None
    """Seconds since the epoch, both; None: until it is taken back."""
    by: str

    @property
    def left_usd(self) -> float:
        return max(0.0, self.usd_cap - self.spent_usd)


def check(reader: Database | Transaction, dataset: str, host: str) -> Consent:
    """What may be spent on sending examples of `dataset` (`name` or `name@v3`) to `host`, as `Endpoint.host` has it.

    Raises REFUSED, with the command for a person, if nobody allowed it, the time is over or the money is spent. The
    same holds for every dataset that its rows came from, whose money is not counted here. A bare name stands for all
    versions. Money that running jobs may still spend is not subtracted: a job whose share they hold waits for it
    (`jobs/allowances.py`).
    """
    leaving = departures(reader, [dataset], host)
    egress.check(egress.consents(reader), leaving)
    consent = find(reader, leaving[0].dataset, host)
    if consent is None:  # taken back since
        raise egress.not_allowed(leaving[0], "no person allows it now", egress.command(leaving[0].dataset, host))
    if consent.spent_usd >= consent.usd_cap:
        why = f"the {consent.usd_cap:g} USD allowed for it are spent ({consent.spent_usd:.2f})"
        raise egress.not_allowed(leaving[0], why, egress.command(leaving[0].dataset, host))
    return consent


def check_place(workspace: Workspace, datasets: Iterable[str], place: str) -> tuple[Departure, ...]:
    """What leaves with rows of these datasets (`name` or `name@v3`) to a place, as `Plan.departures`.

    Raises `egress.NotAllowed`, with the commands for a person, where one of them may not go there.
    """
    leaving = departures(workspace.database, datasets, workspace.settings.place(place).host, place)
    egress.check(egress.consents(workspace.database), leaving)
    return leaving


def departures(
    reader: Database | Transaction, datasets: Iterable[str], host: str, place: str | None = None
) -> tuple[Departure, ...]:
    """Each of the datasets, and after them every other one that their rows came from. One that does not exist yet, as
    an ingest makes it, counts by its name."""
    asked = tuple(dict.fromkeys(datasets))
    names = tuple(dict.fromkeys(dataset_ref(each).name for each in asked))
    origins = _origins(reader)
    of: dict[str, str] = {}
    for each in asked:
        name = dataset_ref(each).name
        for source in sorted(_sources(origins, each).difference(names)):
            of.setdefault(source, name)
    themselves = (Departure(dataset=name, host=host, place=place) for name in names)
    return (*themselves, *(Departure(dataset=each, host=host, place=place, of=name) for each, name in of.items()))


def end_those_over(database: Database, passed: Callable[[float], float]) -> None:
    """Marks expired consents, so that a clock that goes back later revives none.

    `passed`: seconds since a stamp, at most.
    """
    now = database.now()
    over = [
        (each.dataset, each.host)
        for each in list_consents(database)
        if each.expires is not None
        and each.expires > each.granted
        and (now >= each.expires or passed(each.granted) >= each.expires - each.granted)
    ]
    if over:
        database.transact(lambda tx: [tx.execute(_END, [*each]) for each in over] and None)


def find(reader: Database | Transaction, name: str, host: str) -> Consent | None:
    """The consent for a dataset and a host, even an expired one; None if nobody gave one."""
    rows = reader.read(_OF, [name, host])
    return Consent(*rows[0]) if rows else None


def list_consents(reader: Database | Transaction) -> list[Consent]:
    """All consents that were not taken back, by dataset and host."""
    return [Consent(*row) for row in reader.read(_ALL)]


def _origins(reader: Database | Transaction) -> dict[str, list[str]]:
    """Version -> the versions that its rows came from, also of those that were deleted."""
    parents: dict[str, list[str]] = {}
    for name, number, text, deleted in reader.read(_ORIGINS):
        parents[f"{name}@v{number}"] = json.loads(text)
        for gone, left in json.loads(deleted or "{}").items():
            parents.setdefault(gone, left["parents"])
    return parents


def _sources(parents: Mapping[str, Sequence[str]], dataset: str) -> set[str]:
    """Names of the datasets that the version, or all versions of a bare name, came from; itself among them."""
    ref = dataset_ref(dataset)
    wanted = f"{ref.name}@v{ref.version}" if ref.version else None
    open_ends = [wanted] if wanted else [each for each in parents if _name(each) == ref.name]
    seen = set[str]()
    while open_ends:
        if (each := open_ends.pop()) not in seen:
            seen.add(each)
            open_ends += parents.get(each, ())
    return {_name(each) for each in seen}


def _name(ref: str) -> str:
    return ref.partition("@")[0]
