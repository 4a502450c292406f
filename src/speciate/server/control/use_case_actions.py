"""Actions on use cases: overrides of promotions, deployments, answers to label, watches, the ledger."""

from __future__ import annotations

from speciate import use_cases
from speciate.errors import Code, SpeciateError
from speciate.governance.approval_signatures import Question
from speciate.loop import ledger
from speciate.loop.watch import report as watch_report
from speciate.loop.watch import rows as watch_rows
from speciate.predictions import label_queue
from speciate.predictions.answer_lookup import logs_of
from speciate.predictions.feedback import make_feedback
from speciate.promotion import aliases, promote
from speciate.promotion.evidence import PromoteSpec, objections
from speciate.server.control.action import Answer, ControlContext, Person
from speciate.server.control.messages import (
    LabelsRequest,
    OverrideRequest,
    PromotionRequest,
    Request,
    StartDeploymentRequest,
    SwitchRequest,
    UseCaseRequest,
    WhyRequest,
)
from speciate.serving import deployments, record_feedback
from speciate.serving.record_feedback import UnknownClass


def show_promotion(context: ControlContext, request: PromotionRequest) -> Answer:
    """What a person must see before overriding what stands against a promotion."""
    workspace = context.workspace
    spec = promote.resolve_model(workspace, _promote_spec(request))
    seen = workspace.database.transact(lambda tx: objections(tx, spec))
    serving = use_cases.serving(workspace.database, spec.use_case)
    return {"model": spec.model, "serving": serving, "objections": seen}


def override(context: ControlContext, request: OverrideRequest, by: Person) -> Answer:
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


def start_deployment(context: ControlContext, request: StartDeploymentRequest) -> Answer:
    started = deployments.start_deployment(context.workspace, request.use_case, **request.options)
    context.keeper.poke()
    return _deployment_document(started)


def stop_deployment(context: ControlContext, request: UseCaseRequest) -> Answer:
    return _deployment_document(deployments.stop_deployment(context.workspace, request.use_case))


def list_deployments(context: ControlContext, request: Request) -> Answer:
    return {"slots": [_deployment_document(each) for each in deployments.list_deployments(context.workspace)]}


def _deployment_document(view: deployments.DeploymentView) -> Answer:
    return view._asdict() | {"token": str(view.token)}


def label(context: ControlContext, request: LabelsRequest) -> Answer:
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


def list_watches(context: ControlContext, request: Request) -> Answer:
    return {"watches": [watch_report.document(each) for each in watch_report.reports(context.workspace)]}


def show_watch(context: ControlContext, request: UseCaseRequest) -> Answer:
    return dict(watch_report.document(watch_report.report(context.workspace, request.use_case)))


def why(context: ControlContext, request: WhyRequest) -> Answer:
    return {"looks": watch_report.why(context.workspace, request.use_case, request.days)}


def switch_watch(context: ControlContext, request: SwitchRequest) -> Answer:
    database = context.workspace.database
    database.transact(lambda tx: watch_rows.enable(tx, request.use_case, request.enabled, request.by))
    return dict(watch_report.document(watch_report.report(context.workspace, request.use_case)))


def show_ledger(context: ControlContext, request: Request) -> Answer:
    return ledger.document(ledger.ledger(context.workspace))


def about_override(context: ControlContext, request: OverrideRequest) -> Question:
    arguments = request.model_dump(include={"use_case", "model", "canary_percent", "reason"})
    return Question("override", "override", arguments, show_promotion(context, request))
