"""Consents: examples of a dataset that a person allowed to leave this machine, for a host, up to a sum of money.

Nothing here grants: `governance/consents.py` does, for a person on a terminal. A consent is for a dataset's name, so
for all its versions and for later additions. Rows that a version took from another dataset remain that one's, too: it
must be allowed as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.refs import dataset_ref
from speciate.workspace.database import Database, Transaction

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
    name = dataset_ref(dataset).name
    for source in sorted(_sources(reader, dataset) - {name}):
        _in_force(reader, source, host, f" (rows of {name!r} came from it)")
    consent = _in_force(reader, name, host)
    if consent.spent_usd >= consent.usd_cap:
        raise _consent_error(
            name, host, f"the {consent.usd_cap:g} USD allowed for it are spent ({consent.spent_usd:.2f})"
        )
    return consent


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
    return [Consent(*row) for row in reader.read(_ALL, [])]


def _in_force(reader: Database | Transaction, name: str, host: str, whose: str = "") -> Consent:
    consent = find(reader, name, host)
    if consent is None:
        raise _consent_error(name, host, f"no person allowed it{whose}")
    now = reader.now if isinstance(reader, Transaction) else reader.now()
    if consent.expires is not None and now >= consent.expires:
        raise _consent_error(name, host, f"the time for which {consent.by} allowed it is over{whose}")
    return consent


def _consent_error(name: str, host: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"No example of {name!r} may be sent to {host}: {why}.",
        f"A person decides, on a terminal: speciate allow {name} --host {host} --usd CAP",
    )


def _sources(reader: Database | Transaction, dataset: str) -> set[str]:
    """Names of the datasets that the version, or all versions of a bare name, came from; itself among them."""
    ref = dataset_ref(dataset)
    parents: dict[str, list[str]] = {}
    for name, number, text, deleted in reader.read(_ORIGINS, []):
        parents[f"{name}@v{number}"] = json.loads(text)
        for gone, left in json.loads(deleted or "{}").items():
            parents.setdefault(gone, left["parents"])
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
