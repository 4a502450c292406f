"""Actions on models: versions and their signatures, the index of published ones, fingerprints of endpoints, lineage."""

from __future__ import annotations

import base64
from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.governance import audit
from speciate.governance.approval_signatures import Question
from speciate.lineage import chart, trace
from speciate.models import registry, signature
from speciate.server.control.action import Answer, ControlContext, Person
from speciate.server.control.messages import FingerprintRequest, ModelRequest, RefreshRequest, TraceRequest

_DRAW = "speciate.lineage.chart:draw"


def show_version(context: ControlContext, request: ModelRequest) -> Answer:
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


def record_signature(context: ControlContext, request: ModelRequest, by: Person) -> Answer:
    """A row of the audit for a signature that lies there now."""
    found = _signature(context, request)
    audit.record_model_signature(context.workspace, found["model"], found["id"], found["key"], by.name, by.proof)
    return {"model": found["model"], "key": found["key"]}


def _signature(context: ControlContext, request: ModelRequest) -> dict[str, str]:
    where = show_version(context, request)
    key = signature.verify(Path(where["folder"]), ()).key
    return {"model": str(where["model"]), "id": str(where["id"]), "key": str(key)}


def refresh(context: ControlContext, request: RefreshRequest) -> Answer:
    """Ask the sources of models again."""
    job = context.engine.submit("refresh", {"sources": request.sources, "vectors": request.vectors})
    return {"job": job.id}


def ask_fingerprints(context: ControlContext, request: FingerprintRequest) -> Answer:
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


def show_trace(context: ControlContext, request: TraceRequest) -> Answer:
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


def about_signature(context: ControlContext, request: ModelRequest) -> Question:
    return Question("signed", "signed", {"model": request.model}, _signature(context, request))
