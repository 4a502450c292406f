"""Keys of people: enrolled and revoked, each with a row in the audit.

Which keys are in force and which rows a person signed follows from the rows alone. From the first enrollment on, each
row that only a person may cause carries a signature by a key that was in force then, over exactly what the row says.
The first enrollment signs itself: it is trusted on first use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from speciate.errors import Code, SpeciateError, unknown
from speciate.governance import audit, tokens
from speciate.governance.approval_signatures import Key, Kind, SignedAnswer, check_signature, public_key
from speciate.governance.tokens import Token
from speciate.refs import check_name
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

ENROLL, REVOKE, CONFIRM, ACCEPT = "key_enroll", "key_revoke", "settings", "accept"
"""Actions of rows."""
APPROVE, DENY = "approve", "deny"
_CLOCK_SECONDS = 60.0
_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, SpeciateError)
"""What a row that somebody wrote by hand may raise."""
_COLUMNS = "fingerprint, name, kind, public, enrolled, revoked"
_ALL = f"SELECT {_COLUMNS} FROM approval_keys ORDER BY enrolled, fingerprint"
_PUT = "INSERT OR REPLACE INTO approval_keys VALUES (?, ?, ?, ?, ?, NULL)"
_REVOKE = "UPDATE approval_keys SET revoked = ? WHERE fingerprint = ?"
_IN_FORCE = "SELECT fingerprint, name, kind, public FROM approval_keys WHERE revoked IS NULL ORDER BY name"


class EnrolledKey(NamedTuple):
    fingerprint: str
    name: str
    kind: Kind
    public: str
    enrolled: float
    revoked: float | None


def list_keys(database: Database) -> list[EnrolledKey]:
    """Oldest first, revoked ones among them."""
    return [EnrolledKey(*row) for row in database.read(_ALL)]


def approval_strength(keys: Iterable[Key]) -> str:
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


def approval_strength_here(reader: Database | Transaction) -> str:
    """How strong an approval is in this workspace, by the keys in its catalog."""
    return approval_strength(_in_force(reader))


def _in_force(reader: Database | Transaction) -> list[Key]:
    return [Key(*row) for row in reader.read(_IN_FORCE)]


def answer_instructions(tx: Transaction, approval: str) -> str:
    """How a person answers, and what that is worth."""
    said = f"A person runs on a terminal: speciate approve {approval}"
    keys = _in_force(tx)
    return said if keys and not any(key.bare for key in keys) else f"{said}. {approval_strength(keys)}"


def key_to_enroll(arguments: Mapping[str, Any]) -> dict[str, Key]:
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


def find_key(known: Mapping[str, Key], name: str) -> Key:
    """The key in force by its name, or by how its fingerprint begins. Raises NOT_FOUND with near names."""
    found = [key for key in known.values() if name == key.name or (len(name) >= 8 and key.fingerprint.startswith(name))]
    if len(found) != 1:
        raise unknown("key", name, [key.name for key in known.values()], "See: speciate key list")
    return found[0]


def enroll(workspace: Workspace, key: Key, by: str, proof: Mapping[str, Any]) -> audit.Row:
    evidence = {"name": key.name, "kind": key.kind, "public": key.public, **proof}

    def put(tx: Transaction) -> audit.Row:
        tx.execute(_PUT, [key.fingerprint, key.name, key.kind, key.public, tx.now])
        return _append_row(tx, ENROLL, None, key.fingerprint, by, evidence)

    return workspace.database.transact(put)


def revoke(workspace: Workspace, key: Key, by: str, proof: Mapping[str, Any]) -> audit.Row:
    def end(tx: Transaction) -> audit.Row:
        tx.execute(_REVOKE, [tx.now, key.fingerprint])
        return _append_row(tx, REVOKE, key.fingerprint, None, by, {"name": key.name, **proof})

    return workspace.database.transact(end)


def accept_problems(workspace: Workspace, problems: list[str], by: str, proof: Mapping[str, Any]) -> audit.Row:
    """A row that says that a person knows of these problems of the trail and continues from it."""
    evidence = {"problems": problems, **proof}
    return workspace.database.transact(lambda tx: _append_row(tx, ACCEPT, None, None, by, evidence))


def _append_row(
    tx: Transaction, action: str, before: str | None, after: str | None, by: str, evidence: audit.Evidence
) -> audit.Row:
    row = audit.append_row(
        tx, actor=by, action=action, use_case=audit.WORKSPACE, before=before, after=after, evidence=evidence
    )  # fmt: skip
    tx.event("workspace:keys", "key.changed", {"action": action, "key": before or after, "by": by, "audit": row.hash})
    return row


SettingsSnapshot = dict[str, Any]
"""Settings that decide what needs a person, as JSON. From a row that was read, anything may stand in it."""


class Period(NamedTuple):
    """A time during which a key was in force."""

    start: float
    end: float | None


class TrailState(NamedTuple):
    """What the trail says at its end."""

    keys: dict[str, Key]
    """Keys in force, by fingerprint."""
    problems: tuple[str, ...]
    settings: SettingsSnapshot | None
    """What of the settings was confirmed last; None where no key was ever enrolled."""
    signed: int
    """Rows with a signature that holds."""
    answered: frozenset[str]
    """Ids of approvals that were answered with a signature."""
    periods: tuple[Period, ...]
    keys_at: dict[int, frozenset[str]]
    """Number of a row -> the fingerprints in force after it; only rows where that changed."""
    tokens: Mapping[str, Token]
    """Tokens by id: issued and not revoked; some may have expired."""

    def keys_after(self, row: int) -> frozenset[str]:
        changed = [number for number in self.keys_at if number <= row]
        return self.keys_at[max(changed)] if changed else frozenset()


def head_of(rows: Sequence[audit.Row]) -> str:
    """Head of the trail as it stands in a statement."""
    return f"{rows[-1].seq}:{rows[-1].hash}" if rows else f"0:{audit.GENESIS}"


def replay_trail(rows: Sequence[audit.Row], identity: str, known: int = 0) -> TrailState:
    """Follow the trail from its first row. `identity`: of the workspace. `known`: so many rows are whole and end where
    a head that was kept says, so their signatures were checked before; those of `ssh-keygen` cost a process each."""
    follower = _TrailReplay(identity, known)
    for row in rows:
        follower.take(row)
    return follower.standing()


class _TrailReplay:
    def __init__(self, identity: str, known: int) -> None:
        self._identity, self._known = identity, known
        self._keys: dict[str, Key] = {}
        self._problems: list[str] = []
        self._settings: SettingsSnapshot | None = None
        self._answered: set[str] = set()
        self._challenges: set[str] = set()
        self._heads = {f"0:{audit.GENESIS}"}
        self._signed = 0
        self._uncovered: list[audit.Row] = []
        self._periods: list[Period] = []
        self._keys_at: dict[int, frozenset[str]] = {}
        self._tokens: dict[str, Token] = {}

    def take(self, row: audit.Row) -> None:
        try:
            problem = self._problem(row, evidence_of(row))
        except _UNREADABLE as error:
            problem = f"it cannot be read: {error}"  # whoever wrote it must not keep the daemon from starting
        if problem:
            self._problems.append(f"row {row.seq} ({row.action}): {problem}")
        self._heads.add(f"{row.seq}:{row.hash}")

    def standing(self) -> TrailState:
        self._flush()
        return TrailState(
            dict(self._keys), tuple(self._problems), self._settings, self._signed, frozenset(self._answered),
            tuple(self._periods), dict(self._keys_at), dict(self._tokens),
        )  # fmt: skip

    def _flush(self) -> None:
        """Nothing that follows can vouch for these any more."""
        for row in self._uncovered:
            self._problems.append(f"row {row.seq} ({row.action}): a key was in force, and no person signed this")
        self._uncovered = []

    def _problem(self, row: audit.Row, evidence: Mapping[str, Any]) -> str | None:
        given = evidence.get("signed")
        if given is None:
            if self._keys and _needs_signature(row, evidence):
                self._uncovered.append(row)
            else:
                self._flush()
                if row.action == ENROLL:
                    return "an enrollment without a signature"
                self._follow_token(row, evidence)
            return None
        try:
            signed = SignedAnswer.model_validate(given)
            key = self._key_of(row, evidence, signed)
            if row.seq > self._known:
                check_signature(key, signed.message(), signed.signature)
        except ValidationError:
            return "its signature cannot be read"
        except (SpeciateError, ValueError) as error:
            return f"its signature does not hold: {error}"
        return self._misfit(row, evidence, signed) or self._accept(row, evidence, signed)

    def _key_of(self, row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> Key:
        known = self._keys
        if row.action == ENROLL and not known:
            new = _enrolled(evidence)
            known = {new.fingerprint: new}
        if signed.key not in known:
            raise ValueError(f"the key {signed.key[:16]} was not in force then")
        return known[signed.key]

    def _misfit(self, row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> str | None:
        if signed.workspace != self._identity:
            return "it was signed for another workspace"
        if signed.head not in self._heads:
            return "the rows before it are not those that were there when it was signed"
        if signed.challenge in self._challenges:
            return "its signature was used before"
        if row.stamp > signed.until + _CLOCK_SECONDS:
            return "it was signed for an earlier time"
        if row.action not in _FITS or not _FITS[row.action](row, evidence, signed):
            return "it does not say what was signed"
        return None

    def _accept(self, row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> str | None:
        self._challenges.add(signed.challenge)
        self._signed += 1
        problem = None
        if row.action in (APPROVE, DENY):
            self._answered.add(str(signed.shown.get("id")))
            left = [each for each in self._uncovered if not _follows_approval(each, signed, row)]
            self._uncovered = []
            if left:
                problem = f"row {left[0].seq} is not what was approved"
        self._flush()
        self._follow_token(row, evidence)
        if row.action == ENROLL:
            new = _enrolled(evidence)
            if not self._keys:
                self._periods.append(Period(row.stamp, None))
                self._tokens = {}  # nobody signed for those that were issued before
            self._keys[new.fingerprint] = new
        elif row.action == REVOKE:
            self._keys.pop(str(row.before), None)
            if not self._keys:
                self._periods[-1] = self._periods[-1]._replace(end=row.stamp)
        if row.action in (ENROLL, REVOKE):
            self._keys_at[row.seq] = frozenset(self._keys)
        if row.action == ACCEPT:
            known = signed.shown.get("problems")
            known = known if isinstance(known, list) else []
            self._problems = [each for each in self._problems if each not in known]
        if isinstance(confirmed := signed.shown.get("settings"), dict):
            self._settings = confirmed
        return problem

    def _follow_token(self, row: audit.Row, evidence: Mapping[str, Any]) -> None:
        if row.action == tokens.CREATE:
            self._tokens[str(row.after)] = tokens.of_row(row, evidence)
        elif row.action == tokens.REVOKE:
            self._tokens.pop(str(row.before), None)


def evidence_of(row: audit.Row) -> audit.Evidence:
    try:
        found = json.loads(row.evidence)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    """None for anything else: a row holds whatever somebody wrote into it."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def _enrolled(evidence: Mapping[str, Any]) -> Key:
    return public_key(str(evidence.get("name")), str(evidence.get("kind")), str(evidence.get("public")))


def _needs_signature(row: audit.Row, evidence: Mapping[str, Any]) -> bool:
    if row.action in ("promote", audit.CANARY):
        return bool(evidence.get("override") or evidence.get("approved_by"))
    return row.action in _FITS


def _follows_approval(row: audit.Row, signed: SignedAnswer, answer: audit.Row) -> bool:
    """Whether an unsigned row is what this approval led to: they are one transaction."""
    asked = signed.arguments
    if row.stamp != answer.stamp or answer.after != "approved":
        return False
    if row.action in ("promote", audit.CANARY):
        share = _number(evidence_of(row).get("percent", 100))
        return (
            signed.action == "promote"
            and (row.use_case, row.after) == (asked.get("use_case"), asked.get("model"))
            and share is not None
            and share == _number(asked.get("canary_percent", 100))
        )
    if row.action == "disallow":  # the consents of a dataset that was deleted end with it
        named = evidence_of(row).get("dataset")
        return signed.action == "delete" and (asked.get("noun"), asked.get("name")) == ("dataset", named)
    return False


Fits = Callable[[audit.Row, Mapping[str, Any], SignedAnswer], bool]


def _answer(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    done = ("approved", "void") if row.action == APPROVE else ("denied",)
    return signed.decision == row.action and evidence.get("approval") == signed.shown.get("id") and row.after in done


def _policy(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    wanted, use_case = signed.arguments.get("policy"), signed.arguments.get("use_case")
    return signed.decision == "policy" and row.after == (f"{use_case}: {wanted}" if use_case else wanted)


def _host(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    before, after = (set((each or "").split()) for each in (row.before, row.after))
    host = {str(signed.arguments.get("host")).lower()}
    return signed.decision == "host" and after == (before | host if signed.arguments.get("add") else before - host)


def _consent(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    same = all(evidence.get(name) == signed.arguments.get(name) for name in ("dataset", "host"))
    if row.action == "allow":
        days = signed.arguments.get("days")
        ends = None if days is None else row.stamp + (_number(days) or 0.0) * 86_400
        same = same and (evidence.get("usd_cap"), evidence.get("expires")) == (signed.arguments.get("usd"), ends)
    return same and signed.decision == row.action


def _signature(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    evidence = {name: evidence.get(name) for name in ("model", "id", "key")}
    return signed.decision == "signed" and evidence == dict(signed.shown)


def _override(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    asked, shown = signed.arguments, signed.shown
    return (
        signed.decision == "override"
        and (row.use_case, row.after) == (asked.get("use_case"), shown.get("model"))
        and (evidence.get("override"), evidence.get("overridden")) == (asked.get("reason"), shown.get("objections"))
        and _number(evidence.get("percent", 100)) == _number(asked.get("canary_percent") or 100)
    )


def _enrollment(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    evidence = {name: evidence.get(name) for name in ("name", "kind", "public")}
    return (
        signed.decision == "key enroll"
        and evidence == dict(signed.arguments)
        and row.after == _enrolled(evidence).fingerprint
    )


def _revocation(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    return signed.decision == "key revoke" and row.before == signed.shown.get("key")


def _confirmation(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    return signed.decision == "settings"


def _acceptance(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    return signed.decision == "accept" and evidence.get("problems") == signed.shown.get("problems")


def _token(row: audit.Row, evidence: Mapping[str, Any], signed: SignedAnswer) -> bool:
    return signed.decision == "token create" and tokens.is_what_was_signed(row, evidence, signed.arguments)


_FITS: dict[str, Fits] = {
    APPROVE: _answer,
    DENY: _answer,
    "policy": _policy,
    "policies": _policy,
    "private_hosts": _host,
    "allow": _consent,
    "disallow": _consent,
    "sign": _signature,
    "promote": _override,
    audit.CANARY: _override,
    ENROLL: _enrollment,
    REVOKE: _revocation,
    CONFIRM: _confirmation,
    ACCEPT: _acceptance,
    tokens.CREATE: _token,
}
"""Action of a row that a person signs -> whether the row says what was signed."""
