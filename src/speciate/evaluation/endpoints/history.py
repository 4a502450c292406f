"""What an endpoint was seen to serve, by the events of the catalog: fingerprints, names, and when they changed.

    endpoint.fingerprinted   the answers to the pinned questions, as digests
    endpoint.served          the name that the provider gives what it serves, when it was first seen
    endpoint.changed         another model answers than before: evaluations from before may not hold

Its subject is `endpoint:ID`, of where and what is asked, so registrations of one endpoint share it.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from speciate.evaluation.endpoints import likeness
from speciate.evaluation.endpoints.likeness import Fingerprint, Likeness
from speciate.models.endpoints import Endpoint
from speciate.workspace.database import Database, Row, Transaction

FINGERPRINTED, SERVED, CHANGED = "endpoint.fingerprinted", "endpoint.served", "endpoint.changed"
_OF = "SELECT stamp, data FROM events WHERE subject = ? AND type = ? ORDER BY seq DESC LIMIT ?"
_ALL_CHANGES = "SELECT stamp, data FROM events WHERE type = 'endpoint.changed' ORDER BY seq DESC LIMIT ?"
_MOST = 20


class Change(NamedTuple):
    at: float
    """When it was seen, seconds since the epoch."""
    host: str
    model: str
    """Its name at the endpoint."""
    why: tuple[str, ...]
    identity: str


class History(NamedTuple):
    """Of one endpoint. `fingerprint` None: it was never asked the pinned questions."""

    fingerprint: Fingerprint | None
    served: tuple[str, ...]
    """What the provider said last that it serves."""
    changes: tuple[Change, ...]
    """The newest first."""


def of(reader: Database | Transaction, endpoint: Endpoint) -> History:
    fingerprint, served = _last(reader, endpoint, FINGERPRINTED), _last(reader, endpoint, SERVED)
    return History(
        fingerprint=None if fingerprint is None else Fingerprint.model_validate(fingerprint["fingerprint"]),
        served=tuple(served["served"]) if served else (),
        changes=tuple(_change(row) for row in _read(reader, _OF, [_subject(endpoint), CHANGED, _MOST])),
    )


def changes(reader: Database | Transaction) -> list[Change]:
    """Of all endpoints, the newest first."""
    return [_change(row) for row in _read(reader, _ALL_CHANGES, [_MOST])]


def keep(tx: Transaction, endpoint: Endpoint, now: Fingerprint, job: str) -> Likeness | None:
    """Store a fingerprint, and the change that it shows against the last one; None: it is the first."""
    before = of(tx, endpoint).fingerprint
    found = None if before is None else likeness.compare(before, now)
    tx.event(_subject(endpoint), FINGERPRINTED, _told(endpoint, fingerprint=now.model_dump(mode="json"), job=job))
    if found is not None and found.changed:
        _changed(tx, endpoint, found.why)
        _serves(tx, endpoint, now.served)
    else:
        heard(tx, endpoint, now.served)
    return found


def heard(tx: Transaction, endpoint: Endpoint, served: tuple[str, ...], *, just_now: bool = True) -> None:
    """What a provider said that it serves, while it answered whatever it was asked. Not `just_now`: some of the answers
    may have been recorded earlier, so names that it gave at any time tell nothing new."""
    if not just_now:
        known = {name for _, told in _read(tx, _OF, [_subject(endpoint), SERVED, 1_000]) for name in _names(told)}
        served = tuple(name for name in served if name not in known)
    if not served:
        return
    before = of(tx, endpoint).served
    if before and not set(before) & set(served):
        _changed(tx, endpoint, (f"it says that it serves {' and '.join(served)}, before {' and '.join(before)}",))
    if set(before) != set(served):
        _serves(tx, endpoint, served)


def _names(told: str) -> list[str]:
    found: list[str] = json.loads(told)["served"]
    return found


def _serves(tx: Transaction, endpoint: Endpoint, served: tuple[str, ...]) -> None:
    if served:
        tx.event(_subject(endpoint), SERVED, _told(endpoint, served=list(served)))


def _changed(tx: Transaction, endpoint: Endpoint, why: tuple[str, ...]) -> None:
    tx.event(_subject(endpoint), CHANGED, _told(endpoint, why=list(why), identity=endpoint.identity))


def _told(endpoint: Endpoint, **more: Any) -> dict[str, Any]:
    return {"host": endpoint.host, "model": endpoint.model, **more}


def _subject(endpoint: Endpoint) -> str:
    return f"endpoint:{endpoint.identity.removeprefix('endpoint-')[:24]}"


def _last(reader: Database | Transaction, endpoint: Endpoint, kind: str) -> dict[str, Any] | None:
    rows = _read(reader, _OF, [_subject(endpoint), kind, 1])
    found: dict[str, Any] | None = json.loads(rows[0][1]) if rows else None
    return found


def _change(row: Row) -> Change:
    told = json.loads(row[1])
    return Change(row[0], told["host"], told["model"], tuple(told["why"]), told["identity"])


def _read(reader: Database | Transaction, sql: str, parameters: list[Any]) -> list[Row]:
    return reader.execute(sql, parameters) if isinstance(reader, Transaction) else reader.read(sql, parameters)
