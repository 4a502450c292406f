"""The job kind `convert`: a version of a model as a new version whose network another engine computes.

The export is a model of its own with an edge to its parent. The parent does not change, and none of its evidence counts
for the export. An export that fails a gate, or whose gate is inconclusive, never becomes a version: the job ends with
the figures. A run that is killed leaves nothing in the registry and begins anew.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from speciate.evaluation.payload import EvaluationPayload
from speciate.exports import exportable
from speciate.exports.export_gates import Quantize
from speciate.exports.judging import LEARNED_FROM, ExamplesFrom, judging_examples
from speciate.jobs.job import Limits, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import registry
from speciate.models.backbones.exported import Format, check_installed
from speciate.models.model_card import ModelCard
from speciate.refs import check_name
from speciate.training import train
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
    """Most that the metric may lose, in its own units; None: 0.02 of a bounded metric, 5 % of the parent's value of
    another."""


class ConvertPayload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    parent: ModelCard
    folder: str
    format: Format
    quantize: Quantize
    tolerance: float | None
    judging: EvaluationPayload
    """An evaluation of the parent alone, on the examples that the export is evaluated on."""
    judged_on: ExamplesFrom
    base_model: str | None


def plan(spec: ConvertSpec, workspace: Workspace) -> Plan[ConvertPayload]:
    """Raises INVALID for a model without a network, or without examples to evaluate it on; MISSING_EXTRA; NOT_FOUND."""
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    folder, card = version.path, version.card
    exportable.check_exportable(folder, version.ref)
    check_installed(*_LIBRARIES[spec.format, spec.quantize])
    name = name_of(card.name, spec.format, spec.quantize)
    check_name("model", name)
    registry.check_free(workspace.database, name)
    task, examples_from = judging_examples(card, workspace)
    size = exportable.network_bytes(folder, card.base_model)
    payload = ConvertPayload(
        name=name, parent=card, folder=str(folder), format=spec.format, quantize=spec.quantize,
        tolerance=spec.tolerance, judging=task, judged_on=examples_from, base_model=card.base_model,
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
            "judged_on": f"{task.dataset.name}@v{task.dataset.version}:{task.split}", "metric": task.metrics[0],
            **({"remark": LEARNED_FROM} if examples_from == "training" else {}),
        },
    )  # fmt: skip


def name_of(parent: str, format: Format, quantize: Quantize) -> str:  # noqa: A002 - as the tool calls it
    """A name of its own: the parent's name keeps meaning a model that can be trained further."""
    return f"{parent}-{format}" + ("" if quantize == "none" else f"-{quantize}")


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
