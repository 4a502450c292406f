"""Export a dataset or a model version as files, for other tools and other people."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from speciate.datasets.exports.export import KIND as EXPORT
from speciate.datasets.exports.export import ExportSpec
from speciate.errors import Code, SpeciateError
from speciate.exports.convert import KIND as CONVERT
from speciate.exports.convert import ConvertSpec
from speciate.exports.export_gates import Quantize
from speciate.exports.export_model import KIND as EXPORT_MODEL
from speciate.exports.export_model import ExportModelSpec
from speciate.governance.approvals import postponed
from speciate.promotion import evidence_bundle
from speciate.promotion.evidence_bundle import EvidenceRequest
from speciate.server.roots import check_writable
from speciate.server.tool_api import (  # fmt: skip
    App,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    JobStarted,
    Result,
    make_sparse_spec,
    make_spec,
    once,
    start_job,
    tool,
)


@tool()
def export_dataset(
    app: App,
    dataset: Annotated[str, Field(description="name, name@v3, name@v3:test.")],
    format: Annotated[str, Field(description="list_options(kind='format')")],  # noqa: A002 - the tool's argument
    path: Annotated[str, Field(description="New folder.")],
    column: Annotated[
        str | None,
        Field(description="A model's masks, boxes ... for labels."),
    ] = None,
    identified: Annotated[bool, Field(description="DICOM files keep names of people.")] = False,
    partial: Annotated[bool, Field(description="Also partial rows.")] = False,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Write a dataset's usable rows, their media and a card to a new folder; starts a job. Never overwrites.

    To look at rows here, call query_dataset.
    """
    spec = make_sparse_spec(
        ExportSpec,
        dataset=dataset,
        format=format,
        path=check_writable(app, path),
        identified=identified,
        partial=partial,
        column=column,
    )
    return start_job(app, EXPORT, spec, idempotency_key=idempotency_key, dry_run=dry_run)


@tool()
def export_model(
    app: App,
    model: Annotated[str, Field(description="name, name@v3, USE_CASE@production or pkg:NAME.")],
    path: Annotated[str | None, Field(description="New folder.")] = None,
    format: Annotated[  # noqa: A002 - the tool's argument
        Literal["safetensors", "onnx", "openvino"], Field(description="openvino: a version here only.")
    ] = "safetensors",
    quantize: Annotated[Quantize, Field(description="Of a version here.")] = "none",
    tolerance: Annotated[float | None, Field(ge=0, description="Loss of int8; default: 0.02 or 5 %.")] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Write a model to a new folder that answers without speciate; starts a job. Never overwrites.

    safetensors: as transformers has it, if possible; onnx: one graph. Without path, onnx or openvino makes a
    faster version here, gated against its parent. To serve a use case, call promote_model.
    """
    if (path is None and format == "safetensors") or (path is not None and format == "openvino"):
        raise SpeciateError(
            Code.INVALID,
            f"format={format!r} {'writes a folder, and no path came' if path is None else 'makes a version: no path'}.",
            "Call again with format='safetensors' and a path, or with format='onnx' or 'openvino' and none.",
        )
    if path is not None:
        if quantize != "none" or tolerance is not None:
            raise SpeciateError(
                Code.INVALID,
                "A folder keeps the weights as they are: quantize and tolerance are for versions in onnx or openvino.",
                "Call again without them, or with format='onnx' or 'openvino' and without path.",
            )
        spec = make_spec(ExportModelSpec, model=model, format=format, path=check_writable(app, path))
        return start_job(app, EXPORT_MODEL, spec, idempotency_key=idempotency_key, dry_run=dry_run)
    conversion = make_spec(ConvertSpec, model=model, format=format, quantize=quantize, tolerance=tolerance)
    return start_job(app, CONVERT, conversion, idempotency_key=idempotency_key, dry_run=dry_run)


class Evidence(Result):
    bundle: str
    key: str = Field(description="Fingerprint of the key that signed: tell it to the reader by another way.")
    decision: str
    candidate: str
    verdict: str
    in_production: bool
    bytes: int
    rows: int = Field(description="Judged rows that the bundle has digests of.")
    check: str
    notes: tuple[str, ...] = ()


@tool()
def export_evidence(
    app: App,
    use_case: Annotated[str, Field(description="Whose decision.")],
    path: Annotated[str, Field(description="New folder.")],
    evaluation: Annotated[str | None, Field(description="Default: that of production.")] = None,
    rows: Annotated[bool, Field(description="Also a file of the judged rows.")] = False,
    idempotency_key: IdempotencyKey = None,
) -> Evidence:
    """Write the decision of a `use_case`, with all it rests on, as one signed bundle that strangers check offline.

    Never overwrites. To read a decision, call describe_evaluation.
    """
    request = make_spec(
        EvidenceRequest, use_case=use_case, path=check_writable(app, path), evaluation=evaluation, rows=rows
    )
    write = postponed(lambda: evidence_bundle.write_evidence(app.workspace, request))
    return once(
        app, "export_evidence", request.model_dump(mode="json"), idempotency_key,
        lambda tx: _shown(write()), answer=Evidence,
    )  # fmt: skip


def _shown(report: evidence_bundle.EvidenceReport) -> Evidence:
    check = f"python3 -I {evidence_bundle.SCRIPT} {report.bundle.name} --key {report.key}"
    return Evidence(**{**report._asdict(), "bundle": str(report.bundle), "check": check})
