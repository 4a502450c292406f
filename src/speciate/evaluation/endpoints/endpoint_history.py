"""What an endpoint was seen to serve, and whether two fingerprints are of one model.

    endpoint.fingerprinted   the answers to the pinned questions, as digests
    endpoint.served          the name that the provider gives what it serves, when it was first seen
    endpoint.changed         another model answers than before: evaluations from before may not hold

These are events of the catalog. Their subject is `endpoint:ID`, of where and what is asked, so registrations of one
endpoint share it.

Endpoints are not deterministic, so each question is asked twice at a time, and the test is one of exchangeability: of
an unchanged endpoint the four answers to a question (two before, two now) may be paired in three ways, and no way is
likelier than another to pair like with like. Where the pairing by time alone is the purest, the question speaks for a
change; where another one is, against it; ties say nothing. Under no change each speaks for one with probability 1/3,
so the tail of Binomial(m, 1/3) is an exact p-value, whatever the noise is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import comb
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate.models.endpoints import Endpoint
from speciate.workspace.database import Database, Row, Transaction

LEVEL = 0.001
"""How rarely an unchanged endpoint may be called changed, per comparison."""
_SLACK = 0.05
"""Nats by which mean log-probabilities of one model may differ from machine to machine."""
_LEAST = 0.5
"""The share of questions that must have an answer at both times."""


class AnswerDigest(BaseModel):
    """One answer: a digest of its text, or of the way in which it was withheld; the mean log-probability of a token."""

    model_config = ConfigDict(frozen=True)
    digest: str
    logprob: float | None = None


class Fingerprint(BaseModel):
    """`answers[question][time]`; None: none came. `served`, `systems`: what the provider said, as `model` and as
    `system_fingerprint`."""

    model_config = ConfigDict(frozen=True)
    form: int
    asked: float
    """Seconds since the epoch."""
    answers: tuple[tuple[AnswerDigest | None, ...], ...]
    served: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether enough was answered to say anything."""
        return sum(None not in pair for pair in self.answers) >= _LEAST * len(self.answers)

    @property
    def disagreement(self) -> float:
        """The share of questions that were answered in two ways at one time."""
        pairs = [pair for pair in self.answers if None not in pair]
        return sum(_distance(*pair) > 0 for pair in pairs) / max(len(pairs), 1)


class FingerprintComparison(NamedTuple):
    """`differ`: questions that speak for a change, `alike`: that speak against it."""

    changed: bool
    why: tuple[str, ...]
    differ: int
    alike: int
    p: float


def compare_fingerprints(before: Fingerprint, now: Fingerprint) -> FingerprintComparison:
    """A change is what the provider says by another `model`, or what the answers show at LEVEL. A new
    `system_fingerprint` alone is none: providers change it with their machines."""
    why = []
    if before.served and now.served and not set(before.served) & set(now.served):
        why.append(f"it says that it serves {_join_names(now.served)}, before {_join_names(before.served)}")
    differ = alike = 0
    if before.form == now.form:
        for old, new in zip(before.answers, now.answers, strict=True):
            match _shows_change(old, new):
                case True:
                    differ += 1
                case False:
                    alike += 1
    p = _tail(differ, differ + alike)
    if p < LEVEL:
        why.append(
            f"{differ} of {len(now.answers)} pinned questions are answered otherwise, beyond how far it disagrees with "
            f"itself (p = {p:.2g})"
        )
        if set(before.systems) and set(now.systems) and not set(before.systems) & set(now.systems):
            why.append("its system_fingerprint is another one, too")
    return FingerprintComparison(bool(why), tuple(why), differ, alike, p)


def _shows_change(old: tuple[AnswerDigest | None, ...], new: tuple[AnswerDigest | None, ...]) -> bool | None:
    """Whether the pairing by time is the purest of the three; None where none is purer than all others."""
    if None in old or None in new or len(old) != 2 or len(new) != 2:
        return None
    (a, b), (c, d) = old, new
    by_time, *across = (
        _distance(a, b) + _distance(c, d),
        _distance(a, c) + _distance(b, d),
        _distance(a, d) + _distance(b, c),
    )
    if by_time < min(across):
        return True
    return False if min(across) < by_time and across[0] != across[1] else None


def _distance(one: AnswerDigest | None, other: AnswerDigest | None) -> float:
    """0: the same; 1: other words; between them the same words that were less or more likely."""
    if one is None or other is None or one.digest != other.digest:
        return 1.0
    if one.logprob is None or other.logprob is None:
        return 0.0
    by = abs(one.logprob - other.logprob)
    return 0.0 if by <= _SLACK else min(by, 0.9)


def _tail(count: int, of: int) -> float:
    """P(X >= count) for X of Binomial(of, 1/3)."""
    return float(sum(comb(of, k) * 2 ** (of - k) for k in range(count, of + 1)) / 3**of)


def _join_names(names: tuple[str, ...]) -> str:
    return " and ".join(names)


FINGERPRINTED, SERVED, CHANGED = "endpoint.fingerprinted", "endpoint.served", "endpoint.changed"
_BY_SUBJECT = "SELECT stamp, data FROM events WHERE subject = ? AND type = ? ORDER BY seq DESC LIMIT ?"
_ALL_CHANGES = "SELECT stamp, data FROM events WHERE type = 'endpoint.changed' ORDER BY seq DESC LIMIT ?"
_MOST = 20


class Change(NamedTuple):
    at: float
    """When it was seen, seconds since the epoch."""
    host: str
    model: str
    """The model's name at the endpoint."""
    why: tuple[str, ...]
    identity: str


class History(NamedTuple):
    """What is known of one endpoint. `fingerprint` None: it was never asked the pinned questions."""

    fingerprint: Fingerprint | None
    served: tuple[str, ...]
    """The model names that the provider last said it serves."""
    changes: tuple[Change, ...]
    """The newest first."""


def history_of(reader: Database | Transaction, endpoint: Endpoint) -> History:
    fingerprint, served = _last(reader, endpoint, FINGERPRINTED), _last(reader, endpoint, SERVED)
    return History(
        fingerprint=None if fingerprint is None else Fingerprint.model_validate(fingerprint["fingerprint"]),
        served=tuple(served["served"]) if served else (),
        changes=tuple(_change(row) for row in reader.read(_BY_SUBJECT, [_subject(endpoint), CHANGED, _MOST])),
    )


def changes(reader: Database | Transaction) -> list[Change]:
    """Changes seen at all endpoints, the newest first."""
    return [_change(row) for row in reader.read(_ALL_CHANGES, [_MOST])]


def store_fingerprint(tx: Transaction, endpoint: Endpoint, now: Fingerprint, job: str) -> FingerprintComparison | None:
    """Store a fingerprint, and the change that it shows against the last one; None: it is the first."""
    before = history_of(tx, endpoint).fingerprint
    found = None if before is None else compare_fingerprints(before, now)
    tx.event(_subject(endpoint), FINGERPRINTED, _event_data(endpoint, fingerprint=now.model_dump(mode="json"), job=job))
    if found is not None and found.changed:
        _store_change(tx, endpoint, found.why)
        _store_names(tx, endpoint, now.served)
    else:
        store_served_names(tx, endpoint, now.served)
    return found


def store_served_names(tx: Transaction, endpoint: Endpoint, served: tuple[str, ...], *, just_now: bool = True) -> None:
    """What a provider said that it serves, while it answered whatever it was asked. Not `just_now`: some of the answers
    may have been recorded earlier, so names that it gave at any time tell nothing new."""
    if not just_now:
        known = {name for _, data in tx.read(_BY_SUBJECT, [_subject(endpoint), SERVED, 1_000]) for name in _names(data)}
        served = tuple(name for name in served if name not in known)
    if not served:
        return
    before = history_of(tx, endpoint).served
    if before and not set(before) & set(served):
        _store_change(tx, endpoint, (f"it says that it serves {' and '.join(served)}, before {' and '.join(before)}",))
    if set(before) != set(served):
        _store_names(tx, endpoint, served)


def _names(data: str) -> list[str]:
    found: list[str] = json.loads(data)["served"]
    return found


def _store_names(tx: Transaction, endpoint: Endpoint, served: tuple[str, ...]) -> None:
    if served:
        tx.event(_subject(endpoint), SERVED, _event_data(endpoint, served=list(served)))


def _store_change(tx: Transaction, endpoint: Endpoint, why: tuple[str, ...]) -> None:
    tx.event(_subject(endpoint), CHANGED, _event_data(endpoint, why=list(why), identity=endpoint.identity))


def _event_data(endpoint: Endpoint, **more: object) -> Mapping[str, object]:
    return {"host": endpoint.host, "model": endpoint.model, **more}


def _subject(endpoint: Endpoint) -> str:
    return f"endpoint:{endpoint.identity.removeprefix('endpoint-')[:24]}"


def _last(reader: Database | Transaction, endpoint: Endpoint, kind: str) -> Mapping[str, Any] | None:
    rows = reader.read(_BY_SUBJECT, [_subject(endpoint), kind, 1])
    found: Mapping[str, Any] | None = json.loads(rows[0][1]) if rows else None
    return found


def _change(row: Row) -> Change:
    data = json.loads(row[1])
    return Change(row[0], data["host"], data["model"], tuple(data["why"]), data["identity"])
