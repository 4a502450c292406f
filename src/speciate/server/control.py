"""What the command line asks of a running daemon, beside calling tools: a visible table of actions.

These are not tools: an agent must not reach them through MCP. Approvals above all: what only a person may cause says so
in the table, and where a key is enrolled it is done only with a person's signature (`governance/authorization.py`).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
)
from speciate.governance.approval_signatures import Question
from speciate.hosts import check_host
from speciate.jobs.recovery import jobs_paused_as_copied
from speciate.lineage import chart
from speciate.lineage import trace as origins
from speciate.loop import ledger, verification
from speciate.models import registry, signature
from speciate.predictions import label_queue as labelling
from speciate.predictions.feedback import make_feedback
from speciate.promotion import aliases, promote
from speciate.server.untrusted import clean_text
from speciate.serving import deployments, record_feedback
from speciate.serving.record_feedback import UnknownClass
from speciate.settings import load
from speciate.unix_sockets import Account, own_account
from speciate.workspace import catalog_identity, filesystem
from speciate.workspace.backup import automatic_backups, back_up

if TYPE_CHECKING:
    from speciate.server.service import Service


ENDING = {"stop", "drain", "policy", "host", "settings"}
"""Actions after whose answer the daemon leaves."""
_LONGEST_NAME = 100
_JOBS = "SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state"


class Person(NamedTuple):
    """Who decides."""

    name: str
    """The account, by the kernel."""
    proof: dict[str, Any]
    """For the evidence of the row: the signature, and a name that the client claimed where it is another one."""


def perform(service: Service, request: dict[str, Any], caller: Account | None = None) -> dict[str, Any]:
    """Do what `request["action"]` names and return the answer. In a worker thread. Raises SpeciateError.

    `caller`: who is at the other end, by the kernel; None: this process itself.
    """
    try:
        return _perform(service, request, caller)
    except SpeciateError:
        raise
    except Exception as error:
        if (said := filesystem.explain(error, service.workspace.folders.root)) is None:
            raise
        raise said from error


def _perform(service: Service, request: dict[str, Any], caller: Account | None) -> dict[str, Any]:
    action, name = _find_action(str(request.get("action"))), (caller or own_account()).name
    if action.question is None:
        return action.run(service, request | {"by": name})
    signed = authorization.authority_of(service.workspace).check(
        action.question(service, request), request.get("signed")
    )
    proof: dict[str, Any] = {"signed": signed.model_dump()} if signed else {}
    if (claimed := request.get("by")) not in (None, name):
        proof["claimed"] = clean_text(str(claimed))[:_LONGEST_NAME]
    if action is ACTIONS["settings"]:  # what is written down is what was shown, not what the client says
        request = request | {"differences": list(authorization.authority_of(service.workspace).differences)}
    made = action.run(service, request, Person(name, proof))
    if signed and isinstance(confirmed := signed.shown.get("settings"), dict):
        authorization.authority_of(service.workspace).confirm(confirmed)
    return made


def _find_action(name: str) -> OpenAction | PersonAction:
    if name not in ACTIONS:
        raise unknown("action", name, ACTIONS, "Run `speciate --help`.")
    return ACTIONS[name]


def _status(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    workspace, held = service.workspace, authorization.authority_of(service.workspace)
    saved = automatic_backups(workspace.folders.backups)
    return {
        "workspace": str(workspace.folders.root),
        "pid": os.getpid(),
        "version": __version__,
        "running_seconds": round(workspace.elapsed.most(service.started), 1),
        "clients": service.clients,
        "jobs": dict(workspace.database.read(_JOBS)),
        "policy": workspace.settings.policy,
        "newest_backup": saved[-1].name if saved else None,
        "salvaged": str(workspace.salvaged) if workspace.salvaged else None,
        "identity": workspace.identity,
        "signed": held.required,
        "approvals": held.sentence(),
        "problems": list(held.problems),
        "policies": dict(workspace.settings.policies),
        "private_hosts": list(workspace.settings.private_hosts),
        "copy_of": catalog_identity.original_of(workspace.database),
        "paused_as_copied": len(jobs_paused_as_copied(workspace.database)),
    }


def _stop(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return {"pid": os.getpid(), "version": __version__}


def _drain(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """Start nothing more, then leave. Runs go on under their supervisors."""
    service.engine.drain()
    return _stop(service, request)


def _policy(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    """The next daemon reads the new settings; runs go on."""
    policy.change(service.workspace, request["policy"], by.name, request.get("use_case"), by.proof)
    return _stop(service, request)


def _host(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    """As for the policy, the next daemon reads it."""
    change = policy.add_host if request["add"] else policy.remove_host
    change(service.workspace, str(request["host"]), by.name, by.proof)
    return _stop(service, request)


def _confirm(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    """What settings.toml says now is what a person wants; the next daemon does it."""
    policy.confirm(service.workspace, request["differences"], by.name, by.proof)
    return _stop(service, request)


def _version(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """Where a version lies, for who signs or verifies it."""
    workspace = service.workspace
    found = registry.resolve(workspace.database, workspace.folders, str(request["model"]))
    if found.place is None or not found.card.version:
        raise SpeciateError(
            Code.INVALID, f"{found.ref} is no registered version with files here.", "Name one: speciate sign NAME@v3"
        )
    card = found.card
    return {
        "model": found.ref, "folder": str(found.place), "id": card.id, "bytes": card.bytes or 0, "method": card.method,
        "base": card.base_model or card.recipe.get("source") or "nothing",
    }  # fmt: skip


def _signed(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    """A row of the audit for a signature that lies there now."""
    told = _signature(service, request)
    audit.record_model_signature(service.workspace, told["model"], told["id"], told["key"], by.name, by.proof)
    return {"model": told["model"], "key": told["key"]}


def _signature(service: Service, request: dict[str, Any]) -> dict[str, str]:
    where = _version(service, request)
    key = signature.verify(Path(where["folder"]), ()).key
    return {"model": str(where["model"]), "id": str(where["id"]), "key": str(key)}


def _resume(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What was paused because the workspace is a copy."""
    return {"jobs": [job.id for job in service.engine.resume_copied()]}


def _backup(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return back_up(service.workspace, Path(request["target"]))._asdict()


def _approval(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What a person must see before answering."""
    approval = approvals.get(service.workspace.database, str(request.get("id")))
    return approval._asdict() | {"state": approval.state_at(service.workspace.clock.now())}


def _decide(approve: bool) -> Callable[[Service, dict[str, Any], Person], dict[str, Any]]:
    def decide(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
        if not request.get("hash") or request["hash"] != _approval(service, request)["hash"]:
            raise SpeciateError(
                Code.CONFLICT, "What was shown is not what would be decided.", "Look at it again: speciate approve ID"
            )
        made = approvals.decide(service.workspace, request["id"], approve, by.name, by.proof)
        return {"state": made.approval.state, "result": made.result, "reason": made.reason}

    return decide


def _consent(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What a person must see before allowing."""
    asked = consents.consent_request(service.workspace, str(request["dataset"]), str(request["host"]))
    return asked._asdict() | {"before": asked.before._asdict() if asked.before else None}


def _consents(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return {"consents": [each._asdict() for each in consent.list_consents(service.workspace.database)]}


def _allow(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    usd, days = float(request["usd"]), request["days"]
    dataset, host = str(request["dataset"]), str(request["host"])
    given = consents.allow(service.workspace, dataset, host, usd=usd, days=days, by=by.name, proof=by.proof)
    return given._asdict()


def _disallow(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    dataset, host = str(request["dataset"]), str(request["host"])
    return consents.disallow(service.workspace, dataset, host, by.name, by.proof)._asdict()


def _refresh(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the sources of models again."""
    job = service.engine.submit("refresh", {"sources": request["sources"], "vectors": bool(request.get("vectors"))})
    return {"job": job.id}


def _start_slot(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    started = deployments.start_deployment(service.workspace, str(request["use_case"]), **request["options"])
    service.keeper.poke()
    return _slot(started)


def _stop_slot(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return _slot(deployments.stop_deployment(service.workspace, str(request["use_case"])))


def _slots(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return {"slots": [_slot(each) for each in deployments.list_deployments(service.workspace)]}


def _slot(view: deployments.DeploymentView) -> dict[str, Any]:
    return view._asdict() | {"token": str(view.token)}


def _fingerprint(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """Ask one endpoint, or every one that is registered, the pinned questions."""
    more = {"dataset": request["dataset"], "budget_usd": request["usd"]}
    more = {name: value for name, value in more.items() if value is not None}
    named = [request["model"]] if request["model"] else _endpoints(service)
    asked, refused = [], []
    for model in named:
        try:
            asked.append({"model": model, "job": service.engine.submit("fingerprint", {"model": model, **more}).id})
        except SpeciateError as error:
            refused.append({"model": model, "why": str(error)})
    return {"asked": asked, "refused": refused}


def _endpoints(service: Service) -> list[str]:
    return [card.ref for card in registry.newest_of_each(service.workspace.database) if card.endpoint]


def _ledger(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return ledger.document(ledger.ledger(service.workspace))


def _verify(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """`head`: of a row, as a person kept it elsewhere. `kept`: the caller's own head outside the workspace."""
    workspace = service.workspace
    verdict = audit.verify(workspace.database, audit_heads.read_heads(workspace.folders.root / audit_heads.NAME))
    wanted = str(request.get("head") or "")
    rows = audit.all_rows(workspace.database)
    if wanted and not any(row.hash.startswith(wanted) for row in rows):
        verdict = verdict._replace(problems=(f"no row has the hash {wanted!r}", *verdict.problems))
    found = audit_verification.check_audit(workspace, rows, request.get("kept"))
    problems = (*verdict.problems, *found.problems)
    return verdict._replace(problems=problems)._asdict() | {
        "signed": found.signed, "keys": list(found.keys), "identity": workspace.identity,
    }  # fmt: skip


def _inventory(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What the catalog refers to, for who compares the files with it."""
    return verification.inventory(service.workspace).model_dump(mode="json")


def _trail(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    rows = audit.newest(service.workspace.database, request.get("use_case"), int(request.get("most", 50)))
    return {"rows": [row._asdict() | {"evidence": approval_keys.evidence_of(row)} for row in rows]}


def _promotion(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What a person must see before overriding what stands against a promotion."""
    workspace = service.workspace
    spec = promote.resolve_model(workspace, _promote_spec(request))
    seen = workspace.database.transact(lambda tx: promote.objections(tx, spec))
    serving = use_cases.serving(workspace.database, spec.use_case)
    return {"model": spec.model, "serving": serving, "objections": seen}


def _override(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    """What was shown, done on a named person's word."""
    workspace = service.workspace
    spec = promote.resolve_model(workspace, _promote_spec(request)).model_copy(
        update={"expected_current": request["serving"] or aliases.NOTHING}
    )
    told: dict[str, Any] = {"reason": str(request["reason"]), "seen": request["objections"]}
    return workspace.database.transact(lambda tx: promote.override(tx, spec, by=by.name, proof=by.proof, **told))


def _promote_spec(request: dict[str, Any]) -> promote.PromoteSpec:
    given = {name: request[name] for name in ("use_case", "model", "canary_percent") if request.get(name) is not None}
    return promote.PromoteSpec.model_validate(given)


# Keys of people


def _keys(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    held = authorization.authority_of(service.workspace)
    listed = [each._asdict() for each in approval_keys.list_keys(service.workspace.database)]
    return {"keys": listed, "worth": held.sentence(), "problems": list(held.problems)}


def _enroll(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    (key,) = approval_keys.key_to_enroll(request).values()
    row = authorization.authority_of(service.workspace).enroll(key, by.name, by.proof)
    return {"key": key.fingerprint, "audit": row.hash}


def _revoke(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    held = authorization.authority_of(service.workspace)
    row = held.revoke(approval_keys.find_key(held.keys, str(request["key"])), by.name, by.proof)
    return {"left": len(held.keys), "worth": held.sentence(), "audit": row.hash}


def _accept(service: Service, request: dict[str, Any], by: Person) -> dict[str, Any]:
    row = authorization.authority_of(service.workspace).accept(by.name, by.proof)
    return {"audit": row.hash}


# What a person must see before answering


def _question(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What the action `about` would do, and a challenge for the answer."""
    about = request.get("about")
    about = about if isinstance(about, dict) else {}
    action = _find_action(name := str(about.get("action")))
    if action.question is None:
        raise SpeciateError(Code.INVALID, f"{name!r} needs no person.", "Call it without a question.")
    return authorization.authority_of(service.workspace).ask(action.question(service, about)).document()


def _about_approval(decision: str) -> Callable[[Service, dict[str, Any]], Question]:
    def about(service: Service, request: dict[str, Any]) -> Question:
        asked = approvals.get(service.workspace.database, str(request.get("id")))
        shown = {"id": asked.id, "evidence": asked.evidence, "hash": asked.hash, "expires": asked.expires}
        return Question(decision, asked.action, asked.arguments, shown)

    return about


def _about_policy(service: Service, request: dict[str, Any]) -> Question:
    settings, use_case = service.workspace.settings, request.get("use_case")
    arguments = {"policy": str(request.get("policy")), "use_case": use_case}
    if use_case is None:
        now, changed = settings.policy, {"policy": arguments["policy"]}
    else:
        now = settings.policy_of(str(use_case))
        changed = {"policies": {**settings.policies, str(use_case): arguments["policy"]}}
    return Question("policy", "policy", arguments, {"now": now, "settings": _confirmed_settings(service, changed)})


def _about_host(service: Service, request: dict[str, Any]) -> Question:
    add, host = bool(request.get("add")), check_host(str(request.get("host")))
    now = service.workspace.settings.private_hosts
    after = list(dict.fromkeys((*now, host))) if add else [each for each in now if each != host]
    settings = _confirmed_settings(service, {"private_hosts": after})
    return Question("host", "host", {"add": add, "host": host}, {"now": list(now), "settings": settings})


def _confirmed_settings(service: Service, changed: dict[str, Any]) -> dict[str, Any]:
    """What a person will have confirmed of the settings after this change: what somebody else wrote is not among it."""
    return authorization.authority_of(service.workspace).confirmed | changed


def _about_settings(service: Service, request: dict[str, Any]) -> Question:
    now = authorization.settings_snapshot(load(service.workspace.folders.root))
    shown = {"before": authorization.authority_of(service.workspace).confirmed, "settings": now}
    return Question("settings", "settings", {}, shown)


def _about_signature(service: Service, request: dict[str, Any]) -> Question:
    return Question("signed", "signed", {"model": str(request.get("model"))}, _signature(service, request))


def _about_consent(service: Service, request: dict[str, Any]) -> Question:
    shown = _consent(service, request)
    arguments = {name: request.get(name) for name in ("dataset", "usd", "days")} | {"host": shown["host"]}
    return Question("allow", "allow", arguments, shown)


def _about_disallowing(service: Service, request: dict[str, Any]) -> Question:
    dataset, host = str(request.get("dataset")), str(request.get("host"))
    found = consent.find(service.workspace.database, dataset, host)
    shown = {"before": found._asdict() if found else None}
    return Question("disallow", "disallow", {"dataset": dataset, "host": host}, shown)


def _about_override(service: Service, request: dict[str, Any]) -> Question:
    named = ("use_case", "model", "canary_percent", "reason")
    arguments = {name: request.get(name) for name in named}
    return Question("override", "override", arguments, _promotion(service, request))


def _about_enrollment(service: Service, request: dict[str, Any]) -> Question:
    (key,) = approval_keys.key_to_enroll(request).values()
    held = authorization.authority_of(service.workspace)
    approval_keys.check_new(key, held.keys)
    arguments = {"name": key.name, "kind": key.kind, "public": key.public}
    shown = {"key": key.fingerprint, "enrolled": sorted(held.keys), "settings": held.confirmed}
    return Question("key enroll", "key enroll", arguments, shown)


def _about_revocation(service: Service, request: dict[str, Any]) -> Question:
    keys = authorization.authority_of(service.workspace).keys
    key = approval_keys.find_key(keys, str(request.get("key")))
    shown = {"key": key.fingerprint, "name": key.name, "left": sorted(set(keys) - {key.fingerprint})}
    return Question("key revoke", "key revoke", {"key": str(request.get("key"))}, shown)


def _about_trail(service: Service, request: dict[str, Any]) -> Question:
    return Question("accept", "accept", {}, {"problems": authorization.authority_of(service.workspace).to_accept()})


RunAction = Callable[["Service", dict[str, Any]], dict[str, Any]]
RunPersonAction = Callable[["Service", dict[str, Any], Person], dict[str, Any]]
AskQuestion = Callable[["Service", dict[str, Any]], Question]


class OpenAction(NamedTuple):
    """An action that needs no person: `why` not."""

    run: RunAction
    why: str
    question: None = None


class PersonAction(NamedTuple):
    """An action that only a person may cause: where a key is enrolled, by a signature of the question."""

    run: RunPersonAction
    question: AskQuestion


_READS = "it only reads"


def _labels(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """The next answers to label; or, with `prediction`, one label stored, or why it is `unknown`."""
    workspace, use_case = service.workspace, str(request["use_case"])
    if "prediction" in request:
        given = make_feedback(
            prediction=request["prediction"], label=request["label"], source="human", by=request["by"],
            drawn=request["drawn"], new_class=request.get("new_class", False),
        )  # fmt: skip
        try:
            return {"recorded": record_feedback.add_feedback(workspace, given).answer.id}
        except UnknownClass as error:
            return {"unknown": error.message}
    found = labelling.next_labels(workspace, use_case, strategy=request["strategy"], count=int(request["count"]))
    told = labelling.summarize_log(workspace, use_case)
    return {
        "waiting": found.waiting,
        "items": [item._asdict() for item in found.items],
        "agreement": found.agreement._asdict(),
        "quality": [each._asdict() for each in told.quality],
        "missed": told.contents.missed,
        "root": str(workspace.folders.root),
    }


def _trace(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """As text, and as a picture where one is asked for (`svg`, or `png` in Base64)."""
    workspace, ref = service.workspace, str(request["ref"])
    if origins.is_answer(ref):
        traced, told = origins.trace_answer(workspace, ref), {}
    else:
        found = origins.trace_impact(workspace, service.pool, ref, example=request["example"], group=request["group"])
        traced = found.traced
        told = {"models": list(found.models), "answers": found.answers, "predictions": list(found.ids)}
    answer = {"text": traced.text, **told}
    if request["picture"] == "svg":
        answer["picture"] = chart.svg(traced.graph, traced.start)
    elif request["picture"] == "png":
        asked = chart.payload(traced.graph, traced.start)
        data = service.pool.ask_for_file(_DRAW, asked, lambda path, _: path.read_bytes())
        answer["picture"] = base64.b64encode(data).decode()
    return answer


ACTIONS: dict[str, OpenAction | PersonAction] = {
    "status": OpenAction(_status, _READS),
    "stop": OpenAction(_stop, "a kill does the same; runs go on, and the next client starts a daemon"),
    "drain": OpenAction(_drain, "as stop: a newer version takes over"),
    "question": OpenAction(_question, _READS),
    "policy": PersonAction(_policy, _about_policy),
    "settings": PersonAction(_confirm, _about_settings),
    "host": PersonAction(_host, _about_host),
    "version": OpenAction(_version, _READS),
    "signed": PersonAction(_signed, _about_signature),
    "backup": OpenAction(_backup, "a copy, which this account could make without the daemon"),
    "resume": OpenAction(_resume, "jobs that were asked for already; control_job does it one by one"),
    "refresh": OpenAction(_refresh, "asks public sources what models there are, and sends nothing of the workspace"),
    "fingerprint": OpenAction(_fingerprint, "spends only what a person allowed: speciate allow"),
    "approval": OpenAction(_approval, _READS),
    "approve": PersonAction(_decide(approve=True), _about_approval("approve")),
    "deny": PersonAction(_decide(approve=False), _about_approval("deny")),
    "consent": OpenAction(_consent, _READS),
    "consents": OpenAction(_consents, _READS),
    "allow": PersonAction(_allow, _about_consent),
    "disallow": PersonAction(_disallow, _about_disallowing),
    "keys": OpenAction(_keys, _READS),
    "key enroll": PersonAction(_enroll, _about_enrollment),
    "key revoke": PersonAction(_revoke, _about_revocation),
    "audit": OpenAction(_verify, _READS),
    "inventory": OpenAction(_inventory, _READS),
    "accept": PersonAction(_accept, _about_trail),
    "ledger": OpenAction(_ledger, _READS),
    "trail": OpenAction(_trail, _READS),
    "promotion": OpenAction(_promotion, _READS),
    "override": PersonAction(_override, _about_override),
    "slot start": OpenAction(_start_slot, "serves what is in production already"),
    "slot stop": OpenAction(_stop_slot, "a kill does the same; what is in production stays"),
    "slots": OpenAction(_slots, _READS),
    "labels": OpenAction(_labels, "feedback, which record_feedback takes over MCP, too"),
    "trace": OpenAction(_trace, _READS),
}


# What the command line asks about answers: the label queue, feedback of the person at the terminal, and traces.


_DRAW = "speciate.lineage.chart:draw"
