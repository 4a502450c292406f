"""Actions of people: approvals, approval keys, tokens, consents, the audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from speciate import use_cases
from speciate.datasets import consent
from speciate.datasets.consent import Consent
from speciate.errors import Code, SpeciateError
from speciate.governance import (
    approval_keys,
    approvals,
    audit,
    audit_heads,
    audit_verification,
    authorization,
    consents,
    tokens,
)
from speciate.governance.approval_signatures import Question
from speciate.governance.page_sessions import LONGEST_DECIDE_SECONDS
from speciate.server.control.action import Answer, ControlContext, Person
from speciate.server.control.messages import (
    AllowRequest,
    ApprovalRequest,
    AuditRequest,
    ConsentRequest,
    DecideRequest,
    EnrollRequest,
    OpenRequest,
    Request,
    RevokeRequest,
    RevokeTokenRequest,
    TokenRequest,
    TrailRequest,
)
from speciate.unix_sockets import Account


def show_approval(context: ControlContext, request: ApprovalRequest) -> Answer:
    """What a person must see before answering."""
    approval = approvals.get(context.workspace.database, request.id)
    return approval._asdict() | {"state": approval.state_at(context.workspace.clock.now())}


def decide(approve: bool) -> Callable[[ControlContext, DecideRequest, Person], Answer]:
    def decide(context: ControlContext, request: DecideRequest, by: Person) -> Answer:
        if not request.hash or request.hash != show_approval(context, request)["hash"]:
            raise SpeciateError(
                Code.CONFLICT, "What was shown is not what would be decided.", "Look at it again: speciate approve ID"
            )
        made = approvals.decide(context.workspace, request.id, approve, by.name, by.proof)
        return {"state": made.approval.state, "result": made.result, "reason": made.reason}

    return decide


def open_pages(context: ControlContext, request: OpenRequest) -> Answer:
    """One for deciding only where a key is enrolled: it looks until a key, such as a passkey, signs in the browser."""
    if request.level == "decide" and not authorization.authority_of(context.workspace).required:
        raise SpeciateError(
            Code.REFUSED, "A person opens a session that decides.", "On a terminal: speciate open --decide"
        )
    return {"url": _link(context, request, [])}


def open_deciding(context: ControlContext, request: OpenRequest, by: Person) -> Answer:
    return {"url": _link(context, request.model_copy(update={"level": "decide"}), request.keys, "signed" in by.proof)}


def about_deciding(context: ControlContext, request: OpenRequest) -> Question:
    does = "answers approvals, rolls back, stops runs, labels, switches watches"
    return Question("open decide", "open decide", {}, {"session": does, "seconds": LONGEST_DECIDE_SECONDS})


def _link(context: ControlContext, request: OpenRequest, keys: list[dict[str, Any]], signed: bool = False) -> str:
    if context.open_pages is None:
        raise SpeciateError(Code.UNAVAILABLE, "This process serves no pages.", "Open them with the daemon.")
    return context.open_pages(request.level, Account(request.uid, frozenset(request.groups)), keys, signed)


def list_keys(context: ControlContext, request: Request) -> Answer:
    authority = authorization.authority_of(context.workspace)
    keys = [each._asdict() for each in approval_keys.list_keys(context.workspace.database)]
    return {"keys": keys, "worth": authority.sentence(), "problems": list(authority.problems)}


def enroll_key(context: ControlContext, request: EnrollRequest, by: Person) -> Answer:
    (key,) = approval_keys.key_to_enroll(request.model_dump()).values()
    row = authorization.authority_of(context.workspace).enroll(key, by.name, by.proof)
    return {"key": key.fingerprint, "audit": row.hash}


def revoke_key(context: ControlContext, request: RevokeRequest, by: Person) -> Answer:
    authority = authorization.authority_of(context.workspace)
    row = authority.revoke(approval_keys.find_key(authority.keys, request.key), by.name, by.proof)
    return {"left": len(authority.keys), "worth": authority.sentence(), "audit": row.hash}


def list_tokens(context: ControlContext, request: Request) -> Answer:
    workspace = context.workspace
    known = authorization.authority_of(workspace).tokens()
    return {"tokens": [each.document() for each in known], "address": workspace.settings.team.address}


def issue_token(context: ControlContext, request: TokenRequest, by: Person) -> Answer:
    wanted = _token(context, request)
    return authorization.authority_of(context.workspace).issue(wanted, by.name, by.proof).document()


def revoke_token(context: ControlContext, request: RevokeTokenRequest) -> Answer:
    return authorization.authority_of(context.workspace).revoke_token(request.name, request.by).document()


def show_consent(context: ControlContext, request: ConsentRequest) -> Answer:
    """What a person must see before allowing."""
    wanted = consents.consent_request(context.workspace, request.dataset, request.host)
    return wanted._asdict() | {"before": _with_place(context, wanted.before) if wanted.before else None}


def list_consents(context: ControlContext, request: Request) -> Answer:
    found = consent.list_consents(context.workspace.database)
    return {"consents": [_with_place(context, each) for each in found]}


def _with_place(context: ControlContext, given: Consent) -> Answer:
    places = context.workspace.settings.executors
    return given._asdict() | {"place": next((name for name, each in places.items() if each.host == given.host), None)}


def allow(context: ControlContext, request: AllowRequest, by: Person) -> Answer:
    made = consents.allow(
        context.workspace, request.dataset, request.host, usd=request.usd, days=request.days, by=by.name, proof=by.proof
    )
    return _with_place(context, made)


def disallow(context: ControlContext, request: ConsentRequest, by: Person) -> Answer:
    ended = consents.disallow(context.workspace, request.dataset, request.host, by.name, by.proof)
    return _with_place(context, ended)


def verify_audit(context: ControlContext, request: AuditRequest) -> Answer:
    workspace = context.workspace
    verdict = audit.verify(workspace.database, audit_heads.read_heads(workspace.folders.root / audit_heads.NAME))
    wanted = request.head or ""
    rows = audit.all_rows(workspace.database)
    if wanted and not any(row.hash.startswith(wanted) for row in rows):
        verdict = verdict._replace(problems=(f"no row has the hash {wanted!r}", *verdict.problems))
    found = audit_verification.check_audit(workspace, rows, request.kept)
    problems = (*verdict.problems, *found.problems)
    return verdict._replace(problems=problems)._asdict() | {
        "signed": found.signed, "keys": list(found.keys), "identity": workspace.identity,
    }  # fmt: skip


def show_trail(context: ControlContext, request: TrailRequest) -> Answer:
    rows = audit.newest(context.workspace.database, request.use_case, request.most)
    return {"rows": [row._asdict() | {"evidence": approval_keys.evidence_of(row)} for row in rows]}


def accept_trail(context: ControlContext, request: Request, by: Person) -> Answer:
    row = authorization.authority_of(context.workspace).accept(by.name, by.proof)
    return {"audit": row.hash}


def about_approval(decision: str) -> Callable[[ControlContext, ApprovalRequest], Question]:
    def about(context: ControlContext, request: ApprovalRequest) -> Question:
        approval = approvals.get(context.workspace.database, request.id)
        shown = {
            "id": approval.id, "evidence": approval.evidence, "hash": approval.hash, "expires": approval.expires,
        }  # fmt: skip
        return Question(decision, approval.action, approval.arguments, shown)

    return about


def about_enrollment(context: ControlContext, request: EnrollRequest) -> Question:
    (key,) = approval_keys.key_to_enroll(request.model_dump()).values()
    authority = authorization.authority_of(context.workspace)
    approval_keys.check_new(key, authority.keys)
    arguments = {"name": key.name, "kind": key.kind, "public": key.public}
    shown = {"key": key.fingerprint, "enrolled": sorted(authority.keys), "settings": authority.confirmed}
    return Question("key enroll", "key enroll", arguments, shown)


def about_revocation(context: ControlContext, request: RevokeRequest) -> Question:
    keys = authorization.authority_of(context.workspace).keys
    key = approval_keys.find_key(keys, request.key)
    shown = {"key": key.fingerprint, "name": key.name, "left": sorted(set(keys) - {key.fingerprint})}
    return Question("key revoke", "key revoke", {"key": request.key}, shown)


def about_token(context: ControlContext, request: TokenRequest) -> Question:
    known, wanted = authorization.authority_of(context.workspace).tokens(), _token(context, request)
    tokens.check(known, wanted)
    shown = {
        "address": context.workspace.settings.team.address,
        "tokens": [f"{each.name}: {each.role}" for each in known],
    }
    return Question("token create", "token create", wanted, shown)


def _token(context: ControlContext, request: TokenRequest) -> Mapping[str, Any]:
    """Raises NOT_FOUND for a use case."""
    for name in request.use_cases:
        use_cases.get(context.workspace.database, name)
    return request.model_dump(exclude=set() if request.use_cases else {"use_cases"})


def about_consent(context: ControlContext, request: AllowRequest) -> Question:
    shown = show_consent(context, request)
    cap = consents.check_sum(consents.consent_request(context.workspace, request.dataset, request.host), request.usd)
    arguments = {"dataset": request.dataset, "usd": cap, "days": request.days, "host": shown["host"]}
    return Question("allow", "allow", arguments, shown)


def about_disallowing(context: ControlContext, request: ConsentRequest) -> Question:
    dataset, places = request.dataset, context.workspace.settings.executors
    host = places[request.host].host if request.host in places else request.host
    found = consent.find(context.workspace.database, dataset, host)
    shown = {"before": _with_place(context, found) if found else None}
    return Question("disallow", "disallow", {"dataset": dataset, "host": host}, shown)


def about_trail(context: ControlContext, request: Request) -> Question:
    return Question("accept", "accept", {}, {"problems": authorization.authority_of(context.workspace).to_accept()})
