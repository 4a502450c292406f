"""What the command line asks of a running daemon, beside calling tools: a table of actions, each with its request.

These are not tools: an agent must not reach them through MCP, approvals above all. The table says which actions only a
person may cause; if a key is enrolled, they need that person's signature (`governance/authorization.py`).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from speciate import __version__, use_cases
from speciate.datasets import consent
from speciate.errors import Code, SpeciateError, unknown
from speciate.governance import (
    approval_keys,
    approvals,
    audit,
    audit_heads,
    audit_verification,
    authorization,
    consents,
    policy,
    tokens,
)
from speciate.governance.approval_keys import SettingsSnapshot
from speciate.governance.approval_signatures import Question
from speciate.governance.audit import Proof
from speciate.governance.roles import Level
from speciate.hosts import check_host
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.jobs.recovery import jobs_paused_as_copied
from speciate.lineage import chart, trace
from speciate.loop import ledger, verification
from speciate.loop.watch import report as watch_report
from speciate.loop.watch import rows as watch_rows
from speciate.models import registry, signature
from speciate.predictions import label_queue
from speciate.predictions.answer_lookup import logs_of
from speciate.predictions.feedback import make_feedback
from speciate.promotion import aliases, promote
from speciate.promotion.evidence import PromoteSpec, objections
from speciate.server.control_messages import (
    AllowRequest,
    ApprovalRequest,
    AuditRequest,
    BackupRequest,
    ConsentRequest,
    DecideRequest,
    EnrollRequest,
    FingerprintRequest,
    HostRequest,
    LabelsRequest,
    ModelRequest,
    OpenRequest,
    OverrideRequest,
    PolicyRequest,
    PromotionRequest,
    QuestionRequest,
    RefreshRequest,
    Request,
    RevokeRequest,
    RevokeTokenRequest,
    StartDeploymentRequest,
    SwitchRequest,
    TokenRequest,
    TraceRequest,
    TrailRequest,
    UseCaseRequest,
    WhyRequest,
)
from speciate.server.protocol import Hello
from speciate.server.untrusted import clean_text
from speciate.serving import deployments, record_feedback
from speciate.serving.deployments import DeploymentKeeper
from speciate.serving.record_feedback import UnknownClass
from speciate.settings import load
from speciate.unix_sockets import Account, own_account
from speciate.workspace import catalog_identity, filesystem
from speciate.workspace.backup import automatic_backups, back_up
from speciate.workspace.workspace import Workspace

ENDING = {"stop", "drain", "policy", "host", "settings"}
"""Actions after whose answer the daemon leaves."""
_LONGEST_NAME = 100
_DRAW = "speciate.lineage.chart:draw"
_JOBS = "SELECT if(state = 'dead', 'failed', state) AS shown, count(*) FROM jobs GROUP BY shown ORDER BY shown"


OpenPages = Callable[[Level, Account, Sequence[Mapping[str, Any]]], str]
"""(level, account, sealed keys) -> a link that begins one session of the pages."""

Answer = Mapping[str, Any]
"""One JSON object for the command line; its keys depend on the action."""


@dataclass(frozen=True)
class ControlContext:
    """The parts of the daemon that actions use."""

    workspace: Workspace
    engine: Engine
    pool: Pool
    keeper: DeploymentKeeper
    started: float
    """When the daemon began, by the workspace's clock."""
    count_clients: Callable[[], int]
    open_pages: OpenPages | None = None
    """None in a process that serves none."""


class Person(NamedTuple):
    """The person who decides."""

    name: str
    """The account, by the kernel."""
    proof: Proof
    """For the evidence of the row: the signature, and a name that the client claimed where it is another one."""


def perform(context: ControlContext, request: Hello, caller: Account | None = None) -> Answer:
    """Do what `request["action"]` names and return the answer. In a worker thread. Raises SpeciateError.

    `caller`: who is at the other end, by the kernel, or who came by a token; None: this process itself.
    """
    try:
        return _perform(context, request, caller)
    except SpeciateError:
        raise
    except Exception as error:
        if (refusal := filesystem.explain(error, context.workspace.folders.root)) is None:
            raise
        raise refusal from error


def _perform(context: ControlContext, request: Hello, caller: Account | None) -> Answer:
    account = caller or own_account()
    action, name = _find_action(str(request.get("action"))), account.name
    typed = _parse(action, {**request, "by": name, "uid": account.uid, "groups": sorted(account.groups)})
    if isinstance(action, OpenAction):
        return action.run(context, typed)
    authority = authorization.authority_of(context.workspace)
    if account.remote and not authority.required:  # else a token would be worth a person
        raise SpeciateError(
            Code.REFUSED,
            "No key is enrolled here, so nobody could tell a person who comes over the network from a program.",
            "On the machine itself: speciate key enroll",
        )
    question = action.question(context, typed)
    about = question.arguments.get("use_case")
    if account.use_cases and question.decision != "key enroll" and about not in account.use_cases:
        raise SpeciateError(
            Code.REFUSED,
            f"The token is for {', '.join(account.use_cases)}; this is of {about or 'the whole workspace'}.",
            "Whoever issues the tokens can give another.",
        )
    signed = authority.check(question, request.get("signed"))
    proof: Proof = {"signed": signed.model_dump()} if signed else {}
    if (claimed := request.get("by")) not in (None, name):
        proof["claimed"] = clean_text(str(claimed))[:_LONGEST_NAME]
    answer = action.run(context, typed, Person(name, proof))
    if signed and isinstance(confirmed := signed.shown.get("settings"), dict):
        authority.confirm(confirmed)
    return answer


def _find_action(name: str) -> OpenAction[Any] | PersonAction[Any]:
    if name not in ACTIONS:
        raise unknown("action", name, ACTIONS, "Run `speciate --help`.")
    return ACTIONS[name]


def _parse(action: OpenAction[Any] | PersonAction[Any], request: Mapping[str, Any]) -> Any:
    try:
        return action.request.model_validate(request)
    except ValidationError as error:
        problem = error.errors()[0]
        raise SpeciateError(
            Code.INVALID,
            f"The request is not valid: {'.'.join(map(str, problem['loc']))}: {problem['msg']}.",
            "Install the same version on both sides: pip install -U speciate; then `speciate stop`.",
        ) from None


def _status(context: ControlContext, request: Request) -> Answer:
    workspace, authority = context.workspace, authorization.authority_of(context.workspace)
    saved = automatic_backups(workspace.folders.backups)
    return {
        "workspace": str(workspace.folders.root),
        "pid": os.getpid(),
        "version": __version__,
        "running_seconds": round(workspace.elapsed.most(context.started), 1),
        "clients": context.count_clients(),
        "jobs": dict(workspace.database.read(_JOBS)),
        "policy": workspace.settings.policy,
        "newest_backup": saved[-1].name if saved else None,
        "salvaged": str(workspace.salvaged) if workspace.salvaged else None,
        "identity": workspace.identity,
        "signed": authority.required,
        "approvals": authority.sentence(),
        "problems": list(authority.problems),
        "policies": dict(workspace.settings.policies),
        "private_hosts": list(workspace.settings.private_hosts),
        "copy_of": catalog_identity.original_of(workspace.database),
        "paused_as_copied": len(jobs_paused_as_copied(workspace.database)),
    }


def _stop(context: ControlContext, request: Request) -> Answer:
    return {"pid": os.getpid(), "version": __version__}


def _drain(context: ControlContext, request: Request) -> Answer:
    """Start nothing more, then leave. Runs continue under their supervisors."""
    context.engine.drain()
    return _stop(context, request)


def _policy(context: ControlContext, request: PolicyRequest, by: Person) -> Answer:
    """The next daemon reads the new settings; runs continue."""
    policy.change(context.workspace, request.policy, by.name, request.use_case, by.proof)
    return _stop(context, request)


def _host(context: ControlContext, request: HostRequest, by: Person) -> Answer:
    """As for the policy, the next daemon reads it."""
    change = policy.add_host if request.add else policy.remove_host
    change(context.workspace, request.host, by.name, by.proof)
    return _stop(context, request)


def _confirm(context: ControlContext, request: Request, by: Person) -> Answer:
    """Confirm what settings.toml says now, as it was shown; the next daemon follows it."""
    differences = list(authorization.authority_of(context.workspace).differences)
    policy.confirm(context.workspace, differences, by.name, by.proof)
    return _stop(context, request)


def _version(context: ControlContext, request: ModelRequest) -> Answer:
    """Where a version lies, for who signs or verifies it."""
    workspace = context.workspace
    found = registry.resolve(workspace.database, workspace.folders, request.model)
    if found.place is None or not found.card.version:
        raise SpeciateError(
            Code.INVALID, f"{found.ref} is no registered version with files here.", "Name one: speciate sign NAME@v3"
        )
    card = found.card
    return {
        "model": found.ref, "folder": str(found.place), "id": card.id, "bytes": card.bytes or 0, "method": card.method,
        "base": card.base_model or card.recipe.get("source") or "nothing",
    }  # fmt: skip


def _signed(context: ControlContext, request: ModelRequest, by: Person) -> Answer:
    """A row of the audit for a signature that lies there now."""
    found = _signature(context, request)
    audit.record_model_signature(context.workspace, found["model"], found["id"], found["key"], by.name, by.proof)
    return {"model": found["model"], "key": found["key"]}


def _signature(context: ControlContext, request: ModelRequest) -> dict[str, str]:
    where = _version(context, request)
    key = signature.verify(Path(where["folder"]), ()).key
    return {"model": str(where["model"]), "id": str(where["id"]), "key": str(key)}


def _resume(context: ControlContext, request: Request) -> Answer:
    """What was paused because the workspace is a copy."""
    return {"jobs": [job.id for job in context.engine.resume_copied()]}


def _backup(context: ControlContext, request: BackupRequest) -> Answer:
    return back_up(context.workspace, request.target)._asdict()


def _approval(context: ControlContext, request: ApprovalRequest) -> Answer:
    """What a person must see before answering."""
    approval = approvals.get(context.workspace.database, request.id)
    return approval._asdict() | {"state": approval.state_at(context.workspace.clock.now())}


def _decide(approve: bool) -> Callable[[ControlContext, DecideRequest, Person], Answer]:
    def decide(context: ControlContext, request: DecideRequest, by: Person) -> Answer:
        if not request.hash or request.hash != _approval(context, request)["hash"]:
            raise SpeciateError(
                Code.CONFLICT, "What was shown is not what would be decided.", "Look at it again: speciate approve ID"
            )
        made = approvals.decide(context.workspace, request.id, approve, by.name, by.proof)
        return {"state": made.approval.state, "result": made.result, "reason": made.reason}

    return decide


def _open(context: ControlContext, request: OpenRequest) -> Answer:
    if context.open_pages is None:
        raise SpeciateError(Code.UNAVAILABLE, "This process serves no pages.", "Open them with the daemon.")
    account = Account(request.uid, frozenset(request.groups))
    return {"url": context.open_pages(request.level, account, request.keys if request.level == "decide" else [])}


def _consent(context: ControlContext, request: ConsentRequest) -> Answer:
    """What a person must see before allowing."""
    wanted = consents.consent_request(context.workspace, request.dataset, request.host)
    return wanted._asdict() | {"before": wanted.before._asdict() if wanted.before else None}


def _consents(context: ControlContext, request: Request) -> Answer:
    return {"consents": [each._asdict() for each in consent.list_consents(context.workspace.database)]}


def _allow(context: ControlContext, request: AllowRequest, by: Person) -> Answer:
    return consents.allow(
        context.workspace, request.dataset, request.host, usd=request.usd, days=request.days, by=by.name, proof=by.proof
    )._asdict()


def _disallow(context: ControlContext, request: ConsentRequest, by: Person) -> Answer:
    return consents.disallow(context.workspace, request.dataset, request.host, by.name, by.proof)._asdict()


def _refresh(context: ControlContext, request: RefreshRequest) -> Answer:
    """Ask the sources of models again."""
    job = context.engine.submit("refresh", {"sources": request.sources, "vectors": request.vectors})
    return {"job": job.id}


def _start_deployment(context: ControlContext, request: StartDeploymentRequest) -> Answer:
    started = deployments.start_deployment(context.workspace, request.use_case, **request.options)
    context.keeper.poke()
    return _deployment_document(started)


def _stop_deployment(context: ControlContext, request: UseCaseRequest) -> Answer:
    return _deployment_document(deployments.stop_deployment(context.workspace, request.use_case))


def _list_deployments(context: ControlContext, request: Request) -> Answer:
    return {"slots": [_deployment_document(each) for each in deployments.list_deployments(context.workspace)]}


def _deployment_document(view: deployments.DeploymentView) -> Answer:
    return view._asdict() | {"token": str(view.token)}


def _fingerprint(context: ControlContext, request: FingerprintRequest) -> Answer:
    """Ask one endpoint, or every one that is registered, the pinned questions."""
    more = {"dataset": request.dataset, "budget_usd": request.usd}
    more = {name: value for name, value in more.items() if value is not None}
    models = [request.model] if request.model else _endpoints(context)
    asked, refused = [], []
    for model in models:
        try:
            asked.append({"model": model, "job": context.engine.submit("fingerprint", {"model": model, **more}).id})
        except SpeciateError as error:
            refused.append({"model": model, "why": str(error)})
    return {"asked": asked, "refused": refused}


def _endpoints(context: ControlContext) -> list[str]:
    return [card.ref for card in registry.newest_of_each(context.workspace.database) if card.endpoint]


def _ledger(context: ControlContext, request: Request) -> Answer:
    return ledger.document(ledger.ledger(context.workspace))


def _watches(context: ControlContext, request: Request) -> Answer:
    return {"watches": [watch_report.document(each) for each in watch_report.reports(context.workspace)]}


def _show_watch(context: ControlContext, request: UseCaseRequest) -> Answer:
    return dict(watch_report.document(watch_report.report(context.workspace, request.use_case)))


def _why(context: ControlContext, request: WhyRequest) -> Answer:
    return {"looks": watch_report.why(context.workspace, request.use_case, request.days)}


def _switch_watch(context: ControlContext, request: SwitchRequest) -> Answer:
    database = context.workspace.database
    database.transact(lambda tx: watch_rows.enable(tx, request.use_case, request.enabled, request.by))
    return dict(watch_report.document(watch_report.report(context.workspace, request.use_case)))


def _verify(context: ControlContext, request: AuditRequest) -> Answer:
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


def _inventory(context: ControlContext, request: Request) -> Answer:
    """What the catalog refers to, for who compares the files with it."""
    return verification.inventory(context.workspace).model_dump(mode="json")


def _trail(context: ControlContext, request: TrailRequest) -> Answer:
    rows = audit.newest(context.workspace.database, request.use_case, request.most)
    return {"rows": [row._asdict() | {"evidence": approval_keys.evidence_of(row)} for row in rows]}


def _promotion(context: ControlContext, request: PromotionRequest) -> Answer:
    """What a person must see before overriding what stands against a promotion."""
    workspace = context.workspace
    spec = promote.resolve_model(workspace, _promote_spec(request))
    seen = workspace.database.transact(lambda tx: objections(tx, spec))
    serving = use_cases.serving(workspace.database, spec.use_case)
    return {"model": spec.model, "serving": serving, "objections": seen}


def _override(context: ControlContext, request: OverrideRequest, by: Person) -> Answer:
    """What was shown, done on a named person's word."""
    workspace = context.workspace
    spec = promote.resolve_model(workspace, _promote_spec(request)).model_copy(
        update={"expected_current": request.serving or aliases.NOTHING}
    )
    return workspace.database.transact(
        lambda tx: promote.override(
            tx, spec, by=by.name, proof=by.proof, reason=request.reason, seen=request.objections
        )
    )


def _promote_spec(request: PromotionRequest) -> PromoteSpec:
    fields = request.model_dump(include={"use_case", "model", "canary_percent"}, exclude_none=True)
    return PromoteSpec.model_validate(fields)


def _keys(context: ControlContext, request: Request) -> Answer:
    authority = authorization.authority_of(context.workspace)
    keys = [each._asdict() for each in approval_keys.list_keys(context.workspace.database)]
    return {"keys": keys, "worth": authority.sentence(), "problems": list(authority.problems)}


def _enroll(context: ControlContext, request: EnrollRequest, by: Person) -> Answer:
    (key,) = approval_keys.key_to_enroll(request.model_dump()).values()
    row = authorization.authority_of(context.workspace).enroll(key, by.name, by.proof)
    return {"key": key.fingerprint, "audit": row.hash}


def _revoke(context: ControlContext, request: RevokeRequest, by: Person) -> Answer:
    authority = authorization.authority_of(context.workspace)
    row = authority.revoke(approval_keys.find_key(authority.keys, request.key), by.name, by.proof)
    return {"left": len(authority.keys), "worth": authority.sentence(), "audit": row.hash}


def _accept(context: ControlContext, request: Request, by: Person) -> Answer:
    row = authorization.authority_of(context.workspace).accept(by.name, by.proof)
    return {"audit": row.hash}


def _tokens(context: ControlContext, request: Request) -> Answer:
    workspace = context.workspace
    known = authorization.authority_of(workspace).tokens()
    return {"tokens": [each.document() for each in known], "address": workspace.settings.team.address}


def _issue(context: ControlContext, request: TokenRequest, by: Person) -> Answer:
    wanted = _token(context, request)
    return authorization.authority_of(context.workspace).issue(wanted, by.name, by.proof).document()


def _token(context: ControlContext, request: TokenRequest) -> Mapping[str, Any]:
    """Raises NOT_FOUND for a use case."""
    for name in request.use_cases:
        use_cases.get(context.workspace.database, name)
    return request.model_dump(exclude=set() if request.use_cases else {"use_cases"})


def _revoke_token(context: ControlContext, request: RevokeTokenRequest) -> Answer:
    return authorization.authority_of(context.workspace).revoke_token(request.name, request.by).document()


def _question(context: ControlContext, request: QuestionRequest) -> Answer:
    """What the action `about` would do, and a challenge for the answer."""
    action = _find_action(name := str(request.about.get("action")))
    if isinstance(action, OpenAction):
        raise SpeciateError(Code.INVALID, f"{name!r} needs no person.", "Call it without a question.")
    question = action.question(context, _parse(action, request.about))
    return authorization.authority_of(context.workspace).ask(question).document()


def _about_approval(decision: str) -> Callable[[ControlContext, ApprovalRequest], Question]:
    def about(context: ControlContext, request: ApprovalRequest) -> Question:
        approval = approvals.get(context.workspace.database, request.id)
        shown = {
            "id": approval.id, "evidence": approval.evidence, "hash": approval.hash, "expires": approval.expires,
        }  # fmt: skip
        return Question(decision, approval.action, approval.arguments, shown)

    return about


def _about_policy(context: ControlContext, request: PolicyRequest) -> Question:
    settings, use_case = context.workspace.settings, request.use_case
    arguments = {"policy": request.policy, "use_case": use_case}
    now, changed = settings.policy, dict[str, object](policy=request.policy)
    if use_case is not None:
        now, changed = settings.policy_of(use_case), {"policies": {**settings.policies, use_case: request.policy}}
    return Question("policy", "policy", arguments, {"now": now, "settings": _confirmed_settings(context, changed)})


def _about_host(context: ControlContext, request: HostRequest) -> Question:
    add, host = request.add, check_host(request.host)
    now = context.workspace.settings.private_hosts
    after = list(dict.fromkeys((*now, host))) if add else [each for each in now if each != host]
    settings = _confirmed_settings(context, {"private_hosts": after})
    return Question("host", "host", {"add": add, "host": host}, {"now": list(now), "settings": settings})


def _confirmed_settings(context: ControlContext, changed: Mapping[str, object]) -> SettingsSnapshot:
    """What a person will have confirmed of the settings after this change: what somebody else wrote is not among it."""
    return authorization.authority_of(context.workspace).confirmed | dict(changed)


def _about_settings(context: ControlContext, request: Request) -> Question:
    now = authorization.settings_snapshot(load(context.workspace.folders.root))
    shown = {"before": authorization.authority_of(context.workspace).confirmed, "settings": now}
    return Question("settings", "settings", {}, shown)


def _about_signature(context: ControlContext, request: ModelRequest) -> Question:
    return Question("signed", "signed", {"model": request.model}, _signature(context, request))


def _about_consent(context: ControlContext, request: AllowRequest) -> Question:
    shown = _consent(context, request)
    arguments = {"dataset": request.dataset, "usd": request.usd, "days": request.days, "host": shown["host"]}
    return Question("allow", "allow", arguments, shown)


def _about_disallowing(context: ControlContext, request: ConsentRequest) -> Question:
    dataset, host = request.dataset, request.host
    found = consent.find(context.workspace.database, dataset, host)
    shown = {"before": found._asdict() if found else None}
    return Question("disallow", "disallow", {"dataset": dataset, "host": host}, shown)


def _about_override(context: ControlContext, request: OverrideRequest) -> Question:
    arguments = request.model_dump(include={"use_case", "model", "canary_percent", "reason"})
    return Question("override", "override", arguments, _promotion(context, request))


def _about_enrollment(context: ControlContext, request: EnrollRequest) -> Question:
    (key,) = approval_keys.key_to_enroll(request.model_dump()).values()
    authority = authorization.authority_of(context.workspace)
    approval_keys.check_new(key, authority.keys)
    arguments = {"name": key.name, "kind": key.kind, "public": key.public}
    shown = {"key": key.fingerprint, "enrolled": sorted(authority.keys), "settings": authority.confirmed}
    return Question("key enroll", "key enroll", arguments, shown)


def _about_revocation(context: ControlContext, request: RevokeRequest) -> Question:
    keys = authorization.authority_of(context.workspace).keys
    key = approval_keys.find_key(keys, request.key)
    shown = {"key": key.fingerprint, "name": key.name, "left": sorted(set(keys) - {key.fingerprint})}
    return Question("key revoke", "key revoke", {"key": request.key}, shown)


def _about_token(context: ControlContext, request: TokenRequest) -> Question:
    known, wanted = authorization.authority_of(context.workspace).tokens(), _token(context, request)
    tokens.check(known, wanted)
    shown = {
        "address": context.workspace.settings.team.address,
        "tokens": [f"{each.name}: {each.role}" for each in known],
    }
    return Question("token create", "token create", wanted, shown)


def _about_trail(context: ControlContext, request: Request) -> Question:
    return Question("accept", "accept", {}, {"problems": authorization.authority_of(context.workspace).to_accept()})


def _labels(context: ControlContext, request: LabelsRequest) -> Answer:
    """The next answers to label; or, with `prediction`, the label that was stored, or why it is `unknown`."""
    workspace, use_case = context.workspace, request.use_case
    if request.prediction is not None:
        if logs_of(workspace).naming(request.prediction).use_case != use_case:
            raise SpeciateError(Code.NOT_FOUND, f"{request.prediction} is no answer of {use_case}.")
        feedback = make_feedback(
            prediction=request.prediction, label=request.label, source="human", by=request.by,
            drawn=request.drawn, new_class=request.new_class,
        )  # fmt: skip
        try:
            return {"recorded": record_feedback.add_feedback(workspace, feedback).answer.id}
        except UnknownClass as error:
            return {"unknown": error.message}
    found = label_queue.next_labels(workspace, use_case, strategy=request.strategy, count=request.count)
    summary = label_queue.summarize_log(workspace, use_case)
    models = {item.model for item in found.items}
    return {
        "waiting": found.waiting,
        "items": [item._asdict() for item in found.items],
        "agreement": found.agreement._asdict(),
        "quality": [each._asdict() for each in summary.quality],
        "missed": summary.contents.missed,
        "classes": {name: record_feedback.known_answers(workspace.folders, name).classes for name in models},
        "root": str(workspace.folders.root),
    }


def _trace(context: ControlContext, request: TraceRequest) -> Answer:
    """As text, and, if one is wanted, as an image (`svg`, or `png` in Base64)."""
    workspace, ref = context.workspace, request.ref
    if trace.is_answer(ref):
        traced, reached = trace.trace_answer(workspace, ref), {}
    else:
        found = trace.trace_impact(workspace, context.pool, ref, example=request.example, group=request.group)
        traced = found.traced
        reached = {"models": list(found.models), "answers": found.answers, "predictions": list(found.ids)}
    answer = {"text": traced.text, **reached}
    if request.picture == "svg":
        answer["picture"] = chart.svg(traced.graph, traced.start)
    elif request.picture == "png":
        payload = chart.payload(traced.graph, traced.start)
        data = context.pool.ask_for_file(_DRAW, payload, lambda path, _: path.read_bytes())
        answer["picture"] = base64.b64encode(data).decode()
    return answer


R = TypeVar("R", bound=Request)


class OpenAction(NamedTuple, Generic[R]):
    """An action that needs no person: `why` not."""

    request: type[R]
    run: Callable[[ControlContext, R], Answer]
    why: str


class PersonAction(NamedTuple, Generic[R]):
    """An action that only a person may cause: if a key is enrolled, by a signature of the question."""

    request: type[R]
    run: Callable[[ControlContext, R, Person], Answer]
    question: Callable[[ControlContext, R], Question]


_READS = "it only reads"
ACTIONS: dict[str, OpenAction[Any] | PersonAction[Any]] = {
    "status": OpenAction(Request, _status, _READS),
    "stop": OpenAction(Request, _stop, "a kill does the same; runs continue, and the next client starts a daemon"),
    "drain": OpenAction(Request, _drain, "as stop: a newer version takes over"),
    "question": OpenAction(QuestionRequest, _question, _READS),
    "policy": PersonAction(PolicyRequest, _policy, _about_policy),
    "settings": PersonAction(Request, _confirm, _about_settings),
    "host": PersonAction(HostRequest, _host, _about_host),
    "version": OpenAction(ModelRequest, _version, _READS),
    "signed": PersonAction(ModelRequest, _signed, _about_signature),
    "backup": OpenAction(BackupRequest, _backup, "a copy, which this account could make without the daemon"),
    "resume": OpenAction(Request, _resume, "jobs that were asked for already; control_job does it one by one"),
    "refresh": OpenAction(
        RefreshRequest, _refresh, "asks public sources what models there are, and sends nothing of the workspace"
    ),
    "fingerprint": OpenAction(FingerprintRequest, _fingerprint, "spends only what a person allowed: speciate allow"),
    "approval": OpenAction(ApprovalRequest, _approval, _READS),
    "approve": PersonAction(DecideRequest, _decide(approve=True), _about_approval("approve")),
    "deny": PersonAction(DecideRequest, _decide(approve=False), _about_approval("deny")),
    "open": OpenAction(
        OpenRequest,
        _open,
        "looks; one that decides is opened on a terminal, may do what tools may, and answers approvals as `approve` "
        "does: by a signature, where a key is enrolled",
    ),
    "consent": OpenAction(ConsentRequest, _consent, _READS),
    "consents": OpenAction(Request, _consents, _READS),
    "allow": PersonAction(AllowRequest, _allow, _about_consent),
    "disallow": PersonAction(ConsentRequest, _disallow, _about_disallowing),
    "keys": OpenAction(Request, _keys, _READS),
    "key enroll": PersonAction(EnrollRequest, _enroll, _about_enrollment),
    "key revoke": PersonAction(RevokeRequest, _revoke, _about_revocation),
    "tokens": OpenAction(Request, _tokens, _READS),
    "token create": PersonAction(TokenRequest, _issue, _about_token),
    "token revoke": OpenAction(RevokeTokenRequest, _revoke_token, "it only takes away, and must not wait for a key"),
    "audit": OpenAction(AuditRequest, _verify, _READS),
    "inventory": OpenAction(Request, _inventory, _READS),
    "accept": PersonAction(Request, _accept, _about_trail),
    "ledger": OpenAction(Request, _ledger, _READS),
    "trail": OpenAction(TrailRequest, _trail, _READS),
    "promotion": OpenAction(PromotionRequest, _promotion, _READS),
    "override": PersonAction(OverrideRequest, _override, _about_override),
    "slot start": OpenAction(StartDeploymentRequest, _start_deployment, "serves what is in production already"),
    "slot stop": OpenAction(UseCaseRequest, _stop_deployment, "a kill does the same; what is in production stays"),
    "slots": OpenAction(Request, _list_deployments, _READS),
    "labels": OpenAction(LabelsRequest, _labels, "feedback, which record_feedback takes over MCP, too"),
    "trace": OpenAction(TraceRequest, _trace, _READS),
    "watches": OpenAction(Request, _watches, _READS),
    "watch": OpenAction(UseCaseRequest, _show_watch, _READS),
    "why": OpenAction(WhyRequest, _why, _READS),
    "watch switch": OpenAction(SwitchRequest, _switch_watch, "as watch_use_case, which tools may call over MCP, too"),
}
