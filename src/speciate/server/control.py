"""What the command line asks of a running daemon, beside calling tools: a visible table of actions.

These are not tools: an agent must not reach them through MCP. Approvals above all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate import __version__, usecases
from speciate.datasets import consent
from speciate.errors import Code, SpeciateError, unknown
from speciate.jobs.copied import paused_as_copied
from speciate.loop import ledger
from speciate.models import registry, signature
from speciate.production import aliases, approvals, audit, audit_heads, consents, policy, promote, signed
from speciate.server import tracing
from speciate.serving import slots
from speciate.workspace import place
from speciate.workspace.backup import automatic_backups, back_up

if TYPE_CHECKING:
    from speciate.server.service import Service

ENDING = {"stop", "drain", "policy", "host"}
"""Actions after whose answer the daemon leaves."""
_JOBS = "SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state"


def perform(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """Do what `request["action"]` names and return the answer. In a worker thread. Raises SpeciateError."""
    name = str(request.get("action"))
    if name not in _ACTIONS:
        raise unknown("action", name, _ACTIONS, "Run `speciate --help`.")
    return _ACTIONS[name](service, request)


def _status(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    workspace = service.workspace
    saved = automatic_backups(workspace.folders.backups)
    return {
        "workspace": str(workspace.folders.root),
        "pid": os.getpid(),
        "version": __version__,
        "running_seconds": round(workspace.clock.now() - service.started, 1),
        "clients": service.clients,
        "jobs": dict(workspace.database.read(_JOBS)),
        "policy": workspace.settings.policy,
        "newest_backup": saved[-1].name if saved else None,
        "salvaged": str(workspace.salvaged) if workspace.salvaged else None,
        "copy_of": place.original_of(workspace.database),
        "paused_as_copied": len(paused_as_copied(workspace.database)),
    }


def _leave(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return {"pid": os.getpid(), "version": __version__}


def _drain(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """Start nothing more, then leave. Runs go on under their supervisors."""
    service.engine.drain()
    return _leave(service, request)


def _policy(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """The next daemon reads the new settings; runs go on."""
    policy.change(service.workspace, request["policy"], str(request["by"]), request.get("use_case"))
    return _leave(service, request)


def _host(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """As for the policy, the next daemon reads it."""
    change = policy.add_host if request["add"] else policy.remove_host
    change(service.workspace, str(request["host"]), str(request["by"]))
    return _leave(service, request)


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


def _signed(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """A row of the audit for a signature that lies there now."""
    where = _version(service, request)
    key = signature.look(Path(where["folder"]), ()).key
    signed.record(service.workspace, where["model"], where["id"], str(key), str(request["by"]))
    return {"model": where["model"], "key": str(key)}


def _resume(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What was paused because the workspace is a copy."""
    return {"jobs": [job.id for job in service.engine.resume_copied()]}


def _backup(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return back_up(service.workspace, Path(request["target"]))._asdict()


def _approval(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What a person must see before answering."""
    approval = approvals.get(service.workspace.database, str(request.get("id")))
    return approval._asdict() | {"state": approval.state_at(service.workspace.clock.now())}


def _decide(approve: bool) -> Callable[[Service, dict[str, Any]], dict[str, Any]]:
    def decide(service: Service, request: dict[str, Any]) -> dict[str, Any]:
        if not request.get("hash") or request["hash"] != _approval(service, request)["hash"]:
            raise SpeciateError(
                Code.CONFLICT, "What was shown is not what would be decided.", "Look at it again: speciate approve ID"
            )
        made = approvals.decide(service.workspace, request["id"], approve, str(request["by"]))
        return {"state": made.approval.state, "result": made.result, "reason": made.reason}

    return decide


def _consent(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What a person must see before allowing."""
    asked = consents.asked(service.workspace, str(request["dataset"]), str(request["host"]))
    return asked._asdict() | {"before": asked.before._asdict() if asked.before else None}


def _consents(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return {"consents": [each._asdict() for each in consent.listed(service.workspace.database)]}


def _allow(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    usd, days = float(request["usd"]), request["days"]
    dataset, host, by = (str(request[name]) for name in ("dataset", "host", "by"))
    return consents.allow(service.workspace, dataset, host, usd=usd, days=days, by=by)._asdict()


def _disallow(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    dataset, host, by = (str(request[name]) for name in ("dataset", "host", "by"))
    return consents.disallow(service.workspace, dataset, host, by)._asdict()


def _refresh(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the sources of models again."""
    job = service.engine.submit("refresh", {"sources": request["sources"], "vectors": bool(request.get("vectors"))})
    return {"job": job.id}


def _start_slot(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    started = slots.start(service.workspace, str(request["use_case"]), **request["options"])
    service.keeper.poke()
    return _slot(started)


def _stop_slot(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return _slot(slots.stop(service.workspace, str(request["use_case"])))


def _slots(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    return {"slots": [_slot(each) for each in slots.listed(service.workspace)]}


def _slot(view: slots.SlotView) -> dict[str, Any]:
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
    """`head`: of a row, as a person kept it elsewhere."""
    workspace = service.workspace
    verdict = audit.verify(workspace.database, audit_heads.read(workspace.folders.root / audit_heads.NAME))
    kept = str(request.get("head") or "")
    rows = audit.newest(workspace.database, most=verdict.rows)
    if kept and not any(row.hash.startswith(kept) for row in rows):
        verdict = verdict._replace(problems=(f"no row has the hash {kept!r}", *verdict.problems))
    return verdict._asdict()


def _trail(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    rows = audit.newest(service.workspace.database, request.get("use_case"), int(request.get("most", 50)))
    return {"rows": [row._asdict() | {"evidence": json.loads(row.evidence)} for row in rows]}


def _promotion(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What a person must see before overriding what stands against a promotion."""
    workspace = service.workspace
    spec = promote.exact(workspace, _wanted(request))
    seen = workspace.database.transact(lambda tx: promote.objections(tx, spec))
    serving = usecases.serving(workspace.database, spec.use_case)
    return {"model": spec.model, "serving": serving, "objections": seen}


def _override(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """What was shown, done on a named person's word."""
    workspace, by = service.workspace, str(request["by"])
    spec = promote.exact(workspace, _wanted(request)).model_copy(
        update={"expected_current": request["serving"] or aliases.NOTHING}
    )
    return workspace.database.transact(
        lambda tx: promote.override(tx, spec, reason=str(request["reason"]), by=by, seen=request["objections"])
    )


def _wanted(request: dict[str, Any]) -> promote.PromoteSpec:
    given = {name: request[name] for name in ("use_case", "model", "canary_percent") if request.get(name) is not None}
    return promote.PromoteSpec.model_validate(given)


_ACTIONS: dict[str, Callable[[Service, dict[str, Any]], dict[str, Any]]] = {
    "status": _status,
    "stop": _leave,
    "drain": _drain,
    "policy": _policy,
    "host": _host,
    "version": _version,
    "signed": _signed,
    "backup": _backup,
    "resume": _resume,
    "refresh": _refresh,
    "fingerprint": _fingerprint,
    "approval": _approval,
    "approve": _decide(approve=True),
    "deny": _decide(approve=False),
    "consent": _consent,
    "consents": _consents,
    "allow": _allow,
    "disallow": _disallow,
    "audit": _verify,
    "ledger": _ledger,
    "trail": _trail,
    "promotion": _promotion,
    "override": _override,
    "slot start": _start_slot,
    "slot stop": _stop_slot,
    "slots": _slots,
    "labels": tracing.labels,
    "trace": tracing.trace,
}
