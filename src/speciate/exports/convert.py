"""The job kind `convert`: a version of a model as a new version whose network another engine computes.

The export is a model of its own with an edge to its parent: the parent is not changed, and none of its evidence counts
for the export. What fails a gate, or cannot be told, never becomes a version: the job ends with the figures. A run that
is killed leaves nothing in the registry and begins anew.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.datasets import versions as datasets
from speciate.errors import Code, SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.exports import exportable
from speciate.exports.export_gates import Quantize
from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import registry
from speciate.models.backbones.exported import Format, check_installed
from speciate.models.model_card import ModelCard
from speciate.refs import check_name, dataset_ref
from speciate.training import train
from speciate.use_cases import UseCase
from speciate.workspace.workspace import Workspace

_LIBRARIES: dict[tuple[Format, Quantize], tuple[str, ...]] = {
    ("onnx", "none"): ("onnx", "onnxscript", "onnxruntime"),
    ("onnx", "int8"): ("onnx", "onnxscript", "onnxruntime"),
    ("openvino", "none"): ("onnx", "onnxscript", "openvino"),
    ("openvino", "int8"): ("onnx", "onnxscript", "openvino", "nncf"),
}
_PROCESS_MB, _COPIES = 3000, 6
_SECONDS = 120.0


class ConvertSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    format: Format
    quantize: Quantize = "none"
    tolerance: float | None = Field(None, ge=0)
    """In the metric's own units; None: 0.02 of a bounded metric, 5 % of the parent's value of another."""


class ConvertPayload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    parent: ModelCard
    folder: str
    format: Format
    quantize: Quantize
    tolerance: float | None
    judging: dict[str, Any]
    """An evaluation of the parent alone, on examples that the export is judged by."""
    judged_on: Literal["validation", "suite"]
    base_model: str | None


def plan(spec: ConvertSpec, workspace: Workspace) -> Plan[ConvertPayload]:
    """Raises INVALID for a model without a network, or without data to judge by; MISSING_EXTRA; NOT_FOUND."""
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    folder, card = version.path, version.card
    exportable.check_exportable(folder, version.ref)
    check_installed(*_LIBRARIES[spec.format, spec.quantize])
    name = name_of(card.name, spec.format, spec.quantize)
    check_name("model", name)
    registry.check_free(workspace.database, name)
    judging, on = _judging(card, workspace)
    size = exportable.network_bytes(folder, card.base_model)
    payload = ConvertPayload(
        name=name, parent=card, folder=str(folder), format=spec.format, quantize=spec.quantize,
        tolerance=spec.tolerance, judging=judging, judged_on=on, base_model=card.base_model,
    )  # fmt: skip
    memory = _PROCESS_MB + _COPIES * (size >> 20)
    return Plan(
        payload=payload,
        resources=Resources(cpu=1, memory_mb=memory),
        seconds=_SECONDS,
        bytes=size,
        peak_memory_mb=memory,
        use_case=card.use_case,
        resolved={
            "model": version.ref, "format": spec.format, "quantize": spec.quantize, "name": name,
            "judged_on": judging["dataset"]["name"] + f"@v{judging['dataset']['version']}:{judging['split']}",
            "metric": judging["metrics"][0],
        },
    )  # fmt: skip


def name_of(parent: str, form: Format, quantize: Quantize) -> str:
    """A name of its own, so that the parent's name alone goes on meaning what can be trained on."""
    return f"{parent}-{form}" + ("" if quantize == "none" else f"-{quantize}")


def _judging(card: ModelCard, workspace: Workspace) -> tuple[dict[str, Any], Literal["validation", "suite"]]:
    """The validation split of what it was trained on, else its use case's core suite: the test split is asked as seldom
    as can be, and a parent and its export are compared as fairly on examples that chose the parent."""
    use_case = _use_case(card, workspace)
    if card.dataset is not None:
        ref = dataset_ref(card.dataset)._replace(split=None)
        manifest = datasets.resolve(workspace.database, ref)
        if manifest.splits.get("validation", 0) > 1:
            return _alone(card, f"{manifest.ref}:validation", use_case, workspace), "validation"
    if use_case is not None and use_case.suites.core:
        return _alone(card, use_case.suites.core, use_case, workspace), "suite"
    raise SpeciateError(
        Code.INVALID,
        f"{card.ref} cannot be exported: there are no examples to judge the export by. Its dataset "
        f"({card.dataset or 'not known here'}) has no validation split, and it has no use case with a core suite.",
        "Call curate_dataset(dataset=..., steps=[{'op': 'split'}]) and train on that, or define_use_case with suites.",
    )


def _use_case(card: ModelCard, workspace: Workspace) -> UseCase | None:
    try:
        return use_cases.get(workspace.database, card.use_case) if card.use_case else None
    except SpeciateError:
        return None  # it is gone: then the task's own metric counts


def _alone(card: ModelCard, dataset: str, use_case: UseCase | None, workspace: Workspace) -> dict[str, Any]:
    """What an evaluation of it would do, without the use case's verdict: that is for evaluate_models."""
    spec = EvaluateSpec(
        models=(card.ref,), dataset=dataset, use_case=use_case.name if use_case else None, baseline=card.ref,
        latency=False,
    )  # fmt: skip
    payload = evaluate.plan(spec, workspace).payload
    (parent,) = payload["contestants"]
    return {
        **payload, "contestants": [{**parent, "learned_from": []}], "use_case": None, "candidate": None,
        "no_decision": "an export is compared with its parent alone", "looks": 0,
    }  # fmt: skip


KIND = Kind(
    name="convert",
    spec=ConvertSpec,
    plan=plan,
    run="speciate.exports.convert_worker:run",
    collect=train.collect,
    commit=train.commit,
    preload="torch",
    limits=Limits(silence_seconds=1800),
)
