"""Tokens for people and programs that come over the network: issued by a person on a terminal, kept as a hash.

A token is a row of the audit, which a person signs where a key is enrolled; which tokens are in force follows from the
rows (`approval_keys`). The catalog holds no other list of them, so nobody is let in by writing to a table. The command
line makes the secret: the daemon gets its sha256 alone. 256 random bits need no slower hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.governance import audit
from speciate.governance.roles import ROLES, SCOPED, Role
from speciate.refs import check_name
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

CREATE, REVOKE = "token_create", "token_revoke"
"""Actions of rows."""
LONGEST_DAYS = 366.0
_DAY = 86_400.0
_FORM = re.compile(r"speciate_([0-9a-f]{12})_[\w-]{43}", re.ASCII)
_SIGNED, _SOMETIMES = ("name", "role", "digest", "days"), ("use_cases",)
"""What of a token is signed; the latter only where it is said, so rows of before are what they were."""
LONGEST = 80
"""Characters of a token."""


class Token(NamedTuple):
    id: str
    """Public: 12 hex digits, which the token itself begins with."""
    name: str
    role: Role
    digest: str
    """sha256 of the token, in hex digits."""
    created: float
    expires: float
    use_cases: tuple[str, ...] = ()
    """Which it may change; empty: all. It sees all."""

    def covers(self, use_case: str | None) -> bool:
        """Whether it may change this use case; None: what is of no use case."""
        return not self.use_cases or use_case in self.use_cases

    def document(self) -> Mapping[str, object]:
        """What is told of it."""
        return {name: value for name, value in self._asdict().items() if name != "digest"}


class NewToken(NamedTuple):
    id: str
    secret: str
    """The whole token, which is shown once."""
    digest: str


def make() -> NewToken:
    name = secrets.token_hex(6)
    secret = f"speciate_{name}_{secrets.token_urlsafe(32)}"
    return NewToken(name, secret, digest_of(secret))


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def find(known: Mapping[str, Token], secret: str) -> Token | None:
    """The token that this is, in force or not; None for any other text. Takes as long for an id that is not known."""
    form = _FORM.fullmatch(secret) if len(secret) <= LONGEST else None
    token = known.get(form[1]) if form else None
    expected = token.digest if token else "0" * 64
    return token if hmac.compare_digest(digest_of(secret), expected) else None


def check(known: Iterable[Token], wanted: Mapping[str, Any]) -> None:
    """Raises INVALID for what is no token, CONFLICT for a name or an id that is in force."""
    check_name("token", str(wanted["name"]))
    days = wanted["days"]
    if wanted["role"] not in ROLES:
        raise SpeciateError(Code.INVALID, f"A token's role is one of {', '.join(ROLES)}.", "Name one: --role viewer")
    if wanted.get("use_cases") and wanted["role"] not in SCOPED:
        raise SpeciateError(
            Code.INVALID,
            f"A token of the role {wanted['role']} is for the whole workspace; one for some use cases is a "
            f"{' or an '.join(SCOPED)}.",
            "Leave out --use-case, or name another role: --role labeller",
        )
    if not isinstance(days, int | float) or not 0 < days <= LONGEST_DAYS:
        raise SpeciateError(
            Code.INVALID, f"A token lasts more than 0 and at most {LONGEST_DAYS:g} days.", "Name them: --days 90"
        )
    digest = str(wanted["digest"])
    if not re.fullmatch(r"[0-9a-f]{12}", str(wanted["id"])) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise SpeciateError(Code.INVALID, "This is no token's id and sha256.", "Repeat: speciate token create NAME")
    for other in known:
        if other.name == wanted["name"] or other.id == wanted["id"]:
            raise SpeciateError(
                Code.CONFLICT,
                f"There is a token {other.name!r}, of role {other.role}.",
                f"Choose another name, or end that one first: speciate token revoke {other.name}",
            )


def named(known: Iterable[Token], name: str) -> Token:
    """Raises NOT_FOUND with near names."""
    tokens = {each.name: each for each in known}
    if name not in tokens:
        raise unknown("token", name, tokens, "See: speciate token list", next=[Call("get_status")])
    return tokens[name]


def create(workspace: Workspace, wanted: Mapping[str, Any], by: str, proof: Mapping[str, Any]) -> audit.Row:
    def put(tx: Transaction) -> audit.Row:
        told = {name: wanted[name] for name in (*_SIGNED, *_SOMETIMES) if name in wanted}
        evidence = {**told, "expires": tx.now + wanted["days"] * _DAY, **proof}
        return _append(tx, CREATE, None, str(wanted["id"]), by, evidence)

    return workspace.database.transact(put)


def revoke(workspace: Workspace, token: Token, by: str) -> audit.Row:
    evidence = {"name": token.name, "role": token.role}
    return workspace.database.transact(lambda tx: _append(tx, REVOKE, token.id, None, by, evidence))


def _append(
    tx: Transaction, action: str, before: str | None, after: str | None, by: str, evidence: audit.Evidence
) -> audit.Row:
    row = audit.append_row(
        tx, actor=by, action=action, use_case=audit.WORKSPACE, before=before, after=after, evidence=evidence
    )  # fmt: skip
    told = {"action": action, "name": evidence["name"], "role": evidence["role"], "by": by, "audit": row.hash}
    tx.event("workspace:tokens", "token.changed", told)
    return row


def of_row(row: audit.Row, evidence: Mapping[str, Any]) -> Token:
    """What a row issued. Raises ValueError for a row that somebody wrote by hand."""
    role, expires = evidence.get("role"), evidence.get("expires")
    if role not in ROLES or not isinstance(expires, int | float) or expires - row.stamp > LONGEST_DAYS * _DAY + 1:
        raise ValueError("this issued no token")
    name, digest = check_name("token", str(evidence.get("name"))), str(evidence.get("digest"))
    scope = evidence.get("use_cases", [])
    named = isinstance(scope, list) and all(isinstance(each, str) for each in scope)
    if not named or (role not in SCOPED if scope else "use_cases" in evidence):
        raise ValueError("this issued no token")
    return Token(
        str(row.after), name, role, digest, row.stamp, float(expires),
        tuple(check_name("use case", each) for each in scope),
    )  # fmt: skip


def is_what_was_signed(row: audit.Row, evidence: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    told = {"id": row.after, **{name: evidence.get(name) for name in _SIGNED}}
    told |= {name: evidence[name] for name in _SOMETIMES if name in evidence}
    days = arguments.get("days")
    lasts = days * _DAY if isinstance(days, int | float) else None
    return told == dict(arguments) and lasts is not None and evidence.get("expires") == row.stamp + lasts
