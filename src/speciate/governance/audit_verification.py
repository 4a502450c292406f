"""What `speciate audit verify` finds beyond the chain: signatures, keys, answers, consents and heads kept outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from speciate.datasets import consent
from speciate.datasets.consent import Consent
from speciate.governance import approval_keys, approvals, audit, audit_heads, authorization
from speciate.governance.approval_keys import EnrolledKey, Period
from speciate.governance.approval_signatures import Key
from speciate.governance.approvals import Approval
from speciate.governance.audit_heads import Head
from speciate.workspace.workspace import Workspace


class AuditCheck(NamedTuple):
    signed: int
    """Rows with a signature that holds."""
    keys: tuple[str, ...]
    """Fingerprints in force by the trail."""
    problems: tuple[str, ...]


def check_audit(workspace: Workspace, rows: Sequence[audit.Row], kept: object = None) -> AuditCheck:
    """`kept`: a head that the caller brings, beside the daemon's own."""
    standing = approval_keys.replay_trail(rows, workspace.identity)
    heads, problems = _heads(workspace, kept)
    problems += standing.problems
    for head in heads:
        problems += [
            each for each in audit_heads.contradictions(rows, standing.keys_after, head) if each not in problems
        ]
    if standing.periods:
        problems += _key_problems(standing.keys, approval_keys.list_keys(workspace.database))
        everything = approvals.list_approvals(workspace.database, workspace.clock.now())
        problems += _unsigned_answers(everything, standing.answered, standing.periods)
        problems += _consent_problems(consent.list_consents(workspace.database), rows)
    problems += [each for each in authorization.authority_of(workspace).problems if each not in problems]
    return AuditCheck(standing.signed, tuple(sorted(standing.keys)), tuple(problems))


def _heads(workspace: Workspace, brought: object) -> tuple[list[Head], list[str]]:
    heads, problems = list[Head](), list[str]()
    try:
        found = audit_heads.read_outside_head(workspace.identity, workspace.folders.root)
    except ValueError as error:
        problems.append(str(error))
        found = None
    heads += [found] if found else []
    if isinstance(brought, dict):
        try:
            keys = tuple(sorted(map(str, brought["keys"])))
            heads.append(Head(int(brought["row"]), str(brought["hash"]), keys, str(brought.get("workspace", ""))))
        except (KeyError, TypeError, ValueError):
            problems.append("the head that was brought cannot be read")
    return list(dict.fromkeys(heads)), problems


def _key_problems(in_force: Mapping[str, Key], table: Iterable[EnrolledKey]) -> list[str]:
    """The table beside the trail."""
    there = {each.fingerprint: each.public for each in table if each.revoked is None}
    trail = {mark: key.public for mark, key in in_force.items()}
    return [
        *(f"the key {mark} is in the catalog, and no row enrolled it" for mark in sorted({*there} - {*trail})),
        *(f"the key {mark} was enrolled, and is not in the catalog" for mark in sorted({*trail} - {*there})),
        *(
            f"the key {mark} is another one in the catalog"
            for mark in trail
            if there.get(mark, trail[mark]) != trail[mark]
        ),
    ]


def _unsigned_answers(everything: Iterable[Approval], answered: frozenset[str], periods: Sequence[Period]) -> list[str]:
    """Approvals that are answered in the catalog, while a key was in force, and not in the trail."""
    return [
        f"{each.id} is {each.state} in the catalog, and no person signed that"
        for each in everything
        if each.state in (approvals.APPROVED, approvals.DENIED)
        and each.id not in answered
        and any(_within(each.decided_at or 0.0, period) for period in periods)
    ]


def _within(stamp: float, period: Period) -> bool:
    return stamp >= period.start and (period.end is None or stamp <= period.end)


def _consent_problems(given: Iterable[Consent], rows: Sequence[audit.Row]) -> list[str]:
    """Each consent must be what the last row about it says."""
    last: dict[tuple[str, str], tuple[Any, ...] | None] = {}
    for row in rows:
        if row.action in ("allow", "disallow"):
            told = approval_keys.evidence_of(row)
            allowed = (told.get("usd_cap"), told.get("expires")) if row.action == "allow" else None
            last[str(told.get("dataset")), str(told.get("host"))] = allowed  # a forged row may hold a list there
    return [
        f"the consent for {each.dataset} to {each.host} is not what the trail says"
        for each in given
        if last.get((each.dataset, each.host)) != (each.usd_cap, each.expires)
    ]
