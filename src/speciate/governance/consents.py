"""Consents given and taken back, each with a row in the audit: what `datasets.consent` reads.

Nothing in the surface of tools leads here: the command line calls it on a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from speciate.datasets import consent, versions
from speciate.datasets.consent import Consent
from speciate.errors import Code, SpeciateError, unknown
from speciate.governance import audit
from speciate.hosts import check_host
from speciate.jobs import egress
from speciate.models.endpoints import is_this_machine
from speciate.refs import check_name, dataset_ref
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_DAY = 24 * 3600.0
_GRANT = "INSERT OR REPLACE INTO consents VALUES (?, ?, ?, ?, ?, ?)"
_REVOKE = "DELETE FROM consents WHERE dataset = ? AND host = ?"
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_HOSTS = "SELECT host FROM consents WHERE dataset = ? ORDER BY host"


class ConsentRequest(NamedTuple):
    """What a person must see before answering."""

    dataset: str
    """The newest version, or the name of a dataset that does not exist yet."""
    rows: int
    modality: str
    host: str
    before: Consent | None
    place: str | None = None
    """Name of the place whose depot `host` is."""


class Destination(NamedTuple):
    """Where examples go."""

    host: str
    place: str | None = None


def destination(workspace: Workspace, host: str) -> Destination:
    """`host`: as a person writes it, so also the name of a place, or what consents call its depot. The name of a place
    comes before a host of that name. Raises INVALID for what is none of them."""
    places = workspace.settings.executors
    if host in places:
        return Destination(places[host].host, host)
    named = next((name for name, place in places.items() if place.host == host), None)
    return Destination(host, named) if named else Destination(check_host(host))


def consent_request(workspace: Workspace, dataset: str, host: str) -> ConsentRequest:
    """Raises NOT_FOUND with near names, INVALID for what is no host or is this machine.

    For a place the dataset may be one that is still to be made there. A place is never this machine: its address may be
    a tunnel, and which machines read its depot is not known here.
    """
    host, place = destination(workspace, host)
    if place is None and is_this_machine(host):
        raise SpeciateError(
            Code.INVALID, f"{host} is this machine: what is sent there needs no consent.", "Nothing is to be done."
        )
    known = versions.names(workspace.database)
    before = consent.find(workspace.database, dataset, host)
    if dataset not in known:
        if place is None or "@" in dataset or ":" in dataset:
            raise unknown("dataset", dataset, known, "A consent is for a dataset's name, without a version.")
        return ConsentRequest(check_name("dataset", dataset), 0, "", host, before, place)
    newest = versions.newest(workspace.database, dataset)
    return ConsentRequest(newest.ref, newest.rows, newest.modality, host, before, place)


def check_sum(request: ConsentRequest, usd: float | None) -> float:
    """The sum of a consent in USD: 0 for a place, which is not paid by the call. Raises INVALID."""
    if request.place is not None:
        if usd:
            raise SpeciateError(
                Code.INVALID,
                f"{request.place} is a place, which is not paid by the call: no sum is counted there.",
                f"Leave --usd out: {egress.command(dataset_ref(request.dataset).name, request.host, request.place)}",
            )
        return 0.0
    if usd is None:
        raise SpeciateError(
            Code.INVALID,
            f"For how much money may examples be sent to {request.host}?",
            f"Write: {egress.command(dataset_ref(request.dataset).name, request.host)}",
        )
    return _above_zero("usd", usd)


def allow(
    workspace: Workspace,
    dataset: str,
    host: str,
    *,
    usd: float | None = None,
    days: float | None = None,
    by: str,
    proof: Mapping[str, Any] = _NOTHING,
) -> Consent:
    """Give consent, in place of one that was given before; what is spent counts anew from here. `proof`: what the row's
    evidence has, too.

    Raises what `consent_request` and `check_sum` raise, and INVALID for an invalid time.
    """
    request = consent_request(workspace, dataset, host)
    host, cap = request.host, check_sum(request, usd)
    if days is not None:
        _above_zero("days", days)

    def grant(tx: Transaction) -> Consent:
        before = consent.find(tx, dataset, host)
        after = Consent(dataset, host, cap, 0.0, tx.now, None if days is None else tx.now + days * _DAY, by)
        tx.execute(_GRANT, [dataset, host, after.usd_cap, after.granted, after.expires, by])
        _record(tx, "allow", dataset, host, before, after, by, proof)
        return after

    return workspace.database.transact(grant)


def disallow(workspace: Workspace, dataset: str, host: str, by: str, proof: Mapping[str, Any] = _NOTHING) -> Consent:
    """Take a consent back and return it. NOT_FOUND if there is none. Running jobs are not stopped."""
    if host in workspace.settings.executors:  # else as it is written, for settings may have forgotten the place
        host = workspace.settings.executors[host].host

    def revoke(tx: Transaction) -> Consent:
        before = consent.find(tx, dataset, host)
        if before is None:
            known = [f"{each.dataset} --host {each.host}" for each in consent.list_consents(tx)]
            raise unknown("consent", f"{dataset} --host {host}", known, "See: speciate allow --list")
        _revoke(tx, before, by, proof)
        return before

    return workspace.database.transact(revoke)


def end_all(tx: Transaction, dataset: str, by: str) -> None:
    """Take back all consents for a dataset that is no more: another one of its name was not meant."""
    for (host,) in tx.execute(_HOSTS, [dataset]):
        if (before := consent.find(tx, dataset, host)) is not None:
            _revoke(tx, before, by, _NOTHING)


def _revoke(tx: Transaction, before: Consent, by: str, proof: Mapping[str, Any]) -> None:
    tx.execute(_REVOKE, [before.dataset, before.host])
    _record(tx, "disallow", before.dataset, before.host, before, None, by, proof)


def _record(
    tx: Transaction,
    action: str,
    dataset: str,
    host: str,
    before: Consent | None,
    after: Consent | None,
    by: str,
    proof: Mapping[str, Any],
) -> None:
    told = {
        "dataset": dataset,
        "host": host,
        "usd_cap": after.usd_cap if after else None,
        "expires": after.expires if after else None,
        "spent_usd": before.spent_usd if before else 0.0,
    }
    row = audit.append_row(
        tx,
        actor=by,
        action=action,
        use_case=audit.WORKSPACE,
        before=_describe_consent(before),
        after=_describe_consent(after),
        evidence={**told, **proof},
    )
    tx.event(f"dataset:{dataset}", "consent.changed", {"action": action, "by": by, **told, "audit": row.hash})


def _describe_consent(found: Consent | None) -> str | None:
    if found is None:
        return None
    return f"{found.dataset} to {found.host}" + (f", {found.usd_cap:g} USD" if found.usd_cap else "")


def _above_zero(what: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise SpeciateError(Code.INVALID, f"{what} is {value:g}; it must be more than 0.", f"Write --{what} NUMBER")
    return value
