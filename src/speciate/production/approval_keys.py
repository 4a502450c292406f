"""Keys of people in a workspace: enrolled and revoked, each with a row in the audit.

Nothing in the surface of tools leads here: the command line calls it on a terminal. Which keys are in force says the
trail (`signed_trail.py`); the table is for reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError, unknown
from speciate.ids import check_name
from speciate.production import audit
from speciate.production.signed_trail import ACCEPT, ENROLL, REVOKE
from speciate.production.statement import Key, Kind, public_key
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

_COLUMNS = "fingerprint, name, kind, public, enrolled, revoked"
_ALL = f"SELECT {_COLUMNS} FROM approval_keys ORDER BY enrolled, fingerprint"
_PUT = "INSERT OR REPLACE INTO approval_keys VALUES (?, ?, ?, ?, ?, NULL)"
_REVOKE = "UPDATE approval_keys SET revoked = ? WHERE fingerprint = ?"
_IN_FORCE = "SELECT fingerprint, name, kind, public FROM approval_keys WHERE revoked IS NULL ORDER BY name"


class Enrolled(NamedTuple):
    fingerprint: str
    name: str
    kind: Kind
    public: str
    enrolled: float
    revoked: float | None


def listed(database: Database) -> list[Enrolled]:
    """Oldest first, revoked ones among them."""
    return [Enrolled(*row) for row in database.read(_ALL)]


def worth(keys: Iterable[Key]) -> str:
    """What an approval is worth where these keys are in force: a sentence."""
    keys = list(keys)
    if bare := ", ".join(key.name for key in keys if key.bare):
        return (
            f"Each approval is signed here, but a key of OpenSSH that wants no touch can sign it ({bare}): an approval "
            "is worth as much as that key file or its agent, and a program that reaches either needs no person."
        )
    if keys:
        return (
            "A person signs each approval here: no program can, without the passphrase or the touch of an enrolled key."
        )
    return (
        "No key is enrolled here, so anybody who runs programs with this account could have given an approval: "
        "speciate key enroll changes that."
    )


def note(reader: Database | Transaction) -> str:
    """`worth` of a workspace as its catalog has it."""
    return worth(_in_force(reader))


def _in_force(reader: Database | Transaction) -> list[Key]:
    rows = reader.execute(_IN_FORCE) if isinstance(reader, Transaction) else reader.read(_IN_FORCE)
    return [Key(*row) for row in rows]


def how(tx: Transaction, approval: str) -> str:
    """How a person answers, and what that is worth."""
    said = f"A person runs on a terminal: speciate approve {approval}"
    keys = _in_force(tx)
    return said if keys and not any(key.bare for key in keys) else f"{said}. {worth(keys)}"


def asked(arguments: Mapping[str, Any]) -> dict[str, Key]:
    """The key that is to be enrolled, by fingerprint. Raises INVALID."""
    key = public_key(*(str(arguments.get(name)) for name in ("name", "kind", "public")))
    check_name("key", key.name)
    return {key.fingerprint: key}


def check_new(key: Key, known: Mapping[str, Key]) -> None:
    """Raises CONFLICT for a key or a name that is taken."""
    for other in known.values():
        if key.fingerprint == other.fingerprint or key.name == other.name:
            raise SpeciateError(
                Code.CONFLICT,
                f"The key {other.name!r} ({other.fingerprint}) is enrolled already.",
                "Choose another --name, or revoke that one first: speciate key revoke",
            )


def find(known: Mapping[str, Key], name: str) -> Key:
    """One in force by its name, or by how its fingerprint begins. Raises NOT_FOUND with near names."""
    found = [key for key in known.values() if name == key.name or (len(name) >= 8 and key.fingerprint.startswith(name))]
    if len(found) != 1:
        raise unknown("key", name, [key.name for key in known.values()], "See: speciate key list")
    return found[0]


def enroll(workspace: Workspace, key: Key, by: str, proof: Mapping[str, Any]) -> audit.Row:
    told = {"name": key.name, "kind": key.kind, "public": key.public, **proof}

    def put(tx: Transaction) -> audit.Row:
        tx.execute(_PUT, [key.fingerprint, key.name, key.kind, key.public, tx.now])
        return _record(tx, ENROLL, None, key.fingerprint, by, told)

    return workspace.database.transact(put)


def revoke(workspace: Workspace, key: Key, by: str, proof: Mapping[str, Any]) -> audit.Row:
    def end(tx: Transaction) -> audit.Row:
        tx.execute(_REVOKE, [tx.now, key.fingerprint])
        return _record(tx, REVOKE, key.fingerprint, None, by, {"name": key.name, **proof})

    return workspace.database.transact(end)


def accept(workspace: Workspace, problems: list[str], by: str, proof: Mapping[str, Any]) -> audit.Row:
    """A row that says that a person knows of these problems of the trail and continues from it."""
    told = {"problems": problems, **proof}
    return workspace.database.transact(lambda tx: _record(tx, ACCEPT, None, None, by, told))


def _record(
    tx: Transaction, action: str, before: str | None, after: str | None, by: str, told: dict[str, Any]
) -> audit.Row:
    row = audit.append(
        tx, actor=by, action=action, use_case=audit.WORKSPACE, before=before, after=after, evidence=told
    )  # fmt: skip
    tx.event("workspace:keys", "key.changed", {"action": action, "key": before or after, "by": by, "audit": row.hash})
    return row
