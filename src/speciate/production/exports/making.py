"""The worker's part of `convert`: the export, what it shows beside its parent, and its card."""

from __future__ import annotations

import importlib.metadata
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example, load_examples
from speciate.errors import Code, SpeciateError
from speciate.evaluation import run as evaluation
from speciate.evaluation.report import Report
from speciate.evaluation.task import EvaluationTask
from speciate.faults import fault
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.models.backbones.contract import Item
from speciate.models.backbones.exported import Exported
from speciate.models.backbones.runtimes import FILES
from speciate.models.card import EXPORT, Card
from speciate.production.exports import clean, gates, measuring, quantizing, subject
from speciate.production.exports.convert import ConvertPayload
from speciate.production.exports.gates import Gate, Held, Measured
from speciate.production.exports.subject import Subject
from speciate.production.exports.tracing import to_onnx
from speciate.tasks.predictor import load
from speciate.usecases import NOT_WORSE_MARGIN, NOT_WORSE_SHARE
from speciate.vocabulary import find_metric

_CALIBRATION = 128
"""Training examples that ranges are taken from; more changed nothing that was measured."""
_INPUTS = 256
"""Whose scores are compared."""
_STEPS = 6
REPORT = "export.json"


def run(run: Run) -> dict[str, Any]:
    """`{"card", "report"}`, with the folder `model` in outputs. REFUSED with the figures where a gate does not hold."""
    payload, started = ConvertPayload.model_validate(run.payload), time.perf_counter()
    parent, staged = Path(payload.folder), run.outputs / "model"
    task = EvaluationTask.model_validate(payload.judging)
    told = iter(range(1, _STEPS + 1))

    def tell(what: str) -> None:
        run.progress(next(told), _STEPS, "steps", what)

    tell("loading")
    source = subject.of(load(parent))
    tell("exporting")
    how, identity = _export(run, payload, source, task, staged)
    fault("export_before_gates")
    tell("comparing answers")
    found = _measured(run, payload, source, task, staged, identity, tell)
    judged = gates.judge(found, payload.quantize)
    record = _record(payload, how, found, judged)
    (run.outputs / REPORT).write_text(json.dumps(record, indent=1))
    if not gates.passed(judged):
        raise SpeciateError(
            Code.REFUSED,
            f"The export of {payload.parent.ref} ({payload.format}, {payload.quantize}) did not pass its gates, so it "
            f"is no version: {gates.said(judged)}.",
            _instead(payload, judged),
        )
    card = _card(payload, source, staged, identity, record, time.perf_counter() - started)
    return {"card": card.model_dump(mode="json"), "report": record}


def _export(
    run: Run, payload: ConvertPayload, source: Subject, task: EvaluationTask, staged: Path
) -> tuple[str, str]:  # fmt: skip
    """Write and seal the folder; how the numbers were kept, and the folder's id."""
    items = source.items(_calibration(run, task))
    work = run.folder.path / "network"
    work.mkdir(exist_ok=True)
    whole = work / "whole.onnx"
    traced = to_onnx(source.backbone, items, whole)
    files = [work / name for name in FILES[payload.format]]
    int8 = payload.quantize == "int8"
    feeds = _feeds(source, items, traced.inputs) if int8 else []
    if payload.format == "openvino":
        how = quantizing.to_openvino(whole, files[0], feeds, int8=int8)
    elif int8:
        how = quantizing.to_int8(whole, files[0], feeds)
    else:
        whole.rename(files[0])
        how = "onnx: numbers as they were"
    said = Exported(
        format=payload.format, quantize=payload.quantize, inputs=traced.inputs, grid=traced.grid,
        parameters=source.parameters,
    )  # fmt: skip
    return how, subject.write(source, Path(payload.folder), said, files, staged)


def _calibration(run: Run, task: EvaluationTask) -> list[Example]:
    """Of the training split, drawn; where there is none, those that the export is judged by are followed, too."""
    inputs = task.contestants[0].inputs or task.dataset.inputs
    manifest = task.dataset.model_copy(update={"inputs": inputs})
    split = "train" if manifest.splits.get("train") else task.split
    examples = load_examples(run.folders, manifest, {split} if split else None)
    return _drawn(examples, _CALIBRATION)


def _drawn(examples: Sequence[Example], most: int) -> list[Example]:
    return [examples[place] for place in np.random.default_rng(0).permutation(len(examples))[:most]]


def _feeds(source: Subject, items: Sequence[Item], names: Any) -> list[quantizing.Feed]:
    batches = (source.backbone.collate([item]) for item in items[:_CALIBRATION])
    return [{name: batch[name].numpy() for name in names} for batch in batches]


def _measured(
    run: Run, payload: ConvertPayload, source: Subject, task: EvaluationTask, staged: Path, identity: str, tell: Any
) -> Measured:
    export = load(staged)
    few = _drawn(clean.asked(run.folders, task), _INPUTS)
    ids = sorted(example.id for example in few)
    examples = clean.asked(run.folders, task, ids)
    theirs, ours = (subject.scores(each, examples) for each in (source.predictor, export))
    parity = measuring.parity(theirs, ours, source.predictor.predict(examples), export.predict(examples))
    tell("a clean process")
    before, after = (
        clean.answer(run.folders, folder, task, ids, run.folder.path / f"{name}.npz")
        for name, folder in (("parent", Path(payload.folder)), ("export", staged))
    )
    tell("the metric")
    held = _held(run, payload, task, staged, identity)
    tell("latency")
    return Measured(
        reloaded=measuring.alike(ours, after.scores),
        parity=parity,
        held=held,
        speed=measuring.speed(
            source.predictor.predict, export.predict, examples, (before.memory_mb, after.memory_mb)
        ),
        bytes=(
            subject.network_bytes(Path(payload.folder), payload.base_model),
            sum((staged / name).stat().st_size for name in FILES[payload.format]),
        ),
    )  # fmt: skip


def _held(run: Run, payload: ConvertPayload, task: EvaluationTask, staged: Path, identity: str) -> Held:
    """An evaluation as any other, of the two side by side."""
    parent = task.contestants[0]
    export = parent.model_copy(update={"name": payload.name, "identity": identity, "path": str(staged)})
    both = task.model_copy(update={"contestants": (parent, export), "baseline": parent.name, "candidate": export.name})
    folder = RunFolder(run.folder.path / "judging")
    folder.create({"payload": both.model_dump(mode="json"), "job": run.job, "workspace": str(run.folders.root)})
    report = Report.model_validate(evaluation.run(Run(folder))["report"])
    compared = report.compare(parent.name, export.name)
    improved = compared.improvement() if compared else None
    value = report.row(parent.name).value
    metric = find_metric(task.metrics[0])
    usual = NOT_WORSE_MARGIN if metric.bounded or value is None else NOT_WORSE_SHARE * abs(value)
    return Held(
        metric=metric.name, dataset=task.shown, n=report.row(export.name).n, parent=value,
        export=report.row(export.name).value, gain=improved[0] if improved else None,
        interval=improved[1] if improved else None,
        tolerance=usual if payload.tolerance is None else payload.tolerance,
    )  # fmt: skip


def _record(payload: ConvertPayload, how: str, found: Measured, judged: Sequence[Gate]) -> dict[str, Any]:
    """What the version record keeps and the job reports."""
    versions = {name: _version(name) for name in ("torch", "onnx", "onnxruntime", "openvino", "nncf")}
    return {
        "parent": payload.parent.ref,
        "parent_id": payload.parent.id,
        "format": payload.format,
        "quantize": payload.quantize,
        "how": how,
        "judged_on": payload.judged_on,
        "gates": [gate.model_dump() for gate in judged],
        "measured": found.model_dump(mode="json"),
        "made_with": {name: version for name, version in versions.items() if version},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _card(
    payload: ConvertPayload, source: Subject, staged: Path, identity: str, record: dict[str, Any], seconds: float
) -> Card:
    """The parent's facts, as far as they hold of the export, and its own record; no metric of the parent's."""
    parent = payload.parent
    kept = {name: parent.recipe[name] for name in ("terms", "target") if name in parent.recipe}
    return Card(
        name=payload.name, id=identity, task=parent.task, modality=parent.modality, method=EXPORT,
        base_model=parent.base_model, parents=(parent.ref,), dataset=parent.dataset, beside=parent.beside,
        teachers=parent.teachers, use_case=parent.use_case, inputs=parent.inputs, parts=parent.parts,
        ignored_parts=parent.ignored_parts, labels=parent.labels, parameters=parent.parameters,
        bytes=sum(entry.stat().st_size for entry in os.scandir(staged)), seconds=seconds,
        recipe=kept | {"export": record}, license=parent.license,
    )  # fmt: skip


def _instead(payload: ConvertPayload, judged: Sequence[Gate]) -> str:
    failed = {gate.name for gate in judged if gate.outcome != "pass"}
    if failed == {"metric"}:
        return (
            f"Call export_model again with a greater tolerance, or add validation examples; {payload.parent.ref} "
            "serves as it is."
        )
    other = "openvino" if payload.format == "onnx" else "onnx"
    less = " or quantize='none'" if payload.quantize == "int8" else ""
    return f"Call export_model again with format={other!r}{less}; {payload.parent.ref} serves as it is."
