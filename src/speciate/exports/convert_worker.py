"""The worker's part of `convert`: makes the export, compares it with its parent on the same real examples (scores,
metric, speed, memory), and writes its card."""

from __future__ import annotations

import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example, load_examples
from speciate.errors import Code, SpeciateError
from speciate.evaluation import run_evaluation
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.timing import device
from speciate.evaluation.reports.report import Report
from speciate.evaluation.statistics import quantile_interval
from speciate.exports import export_gates, exportable, quantization, reload_check
from speciate.exports.convert import ConvertPayload
from speciate.exports.export_gates import Gate, LatencyStats, Measured, MetricComparison, Parity, Quantize, Speed
from speciate.exports.exportable import ExportableNetwork
from speciate.exports.judging import ExamplesFrom
from speciate.exports.onnx_export import to_onnx
from speciate.faults import fault
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.models.backbones.contract import Item
from speciate.models.backbones.exported import FILES, ExportSettings, Format
from speciate.models.model_card import EXPORT, ModelCard
from speciate.tasks.predictor import load
from speciate.tasks.task import Prediction
from speciate.use_cases import NOT_WORSE_MARGIN, NOT_WORSE_SHARE
from speciate.vocabulary import find_metric

Scores = Sequence[npt.NDArray[Any]]
Predict = Callable[[Sequence[Example]], Sequence[Prediction]]
REPORT = "export.json"
_CALIBRATION = 128
"""Training examples that give the ranges; more examples changed no measured figure."""
_INPUTS = 256
"""Examples whose scores are compared."""
_STEPS = 6
_WARM_UP, _FEWEST, _MOST, _SECONDS = 3, 20, 120, 20.0
_NEAR = 0.01
"""Share of the spread of the parent's answers: numbers nearer than that agree."""


class ExportRecord(BaseModel):
    """What the version record keeps and the job reports."""

    model_config = ConfigDict(frozen=True)
    parent: str
    parent_id: str
    format: Format
    quantize: Quantize
    how: str
    judged_on: ExamplesFrom
    gates: tuple[Gate, ...]
    measured: Measured
    made_with: dict[str, str]
    """Versions of the libraries that made it."""


class ConvertResult(TypedDict):
    card: Mapping[str, Any]
    """A `ModelCard`."""
    report: Mapping[str, Any]
    """An `ExportRecord`."""


def run(run: Run) -> ConvertResult:
    """`{"card", "report"}`, with the folder `model` in outputs. REFUSED with the figures where a gate does not hold."""
    payload, started = run.read_payload(ConvertPayload), time.perf_counter()
    parent, staged = Path(payload.folder), run.outputs / "model"
    task, steps = payload.judging, iter(range(1, _STEPS + 1))

    def report_step(what: str) -> None:
        run.progress(next(steps), _STEPS, "steps", what)

    report_step("loading")
    source = exportable.exportable_network(load(parent))
    report_step("exporting")
    how, identity = _export(run, payload, source, task, staged)
    fault("export_before_gates")
    report_step("comparing answers")
    measured = _measure(run, payload, source, task, staged, identity, report_step)
    gates = export_gates.decide(measured, payload.quantize)
    record = _record(payload, how, measured, gates).model_dump(mode="json")
    (run.outputs / REPORT).write_text(json.dumps(record, indent=1))
    if not export_gates.passed(gates):
        raise SpeciateError(
            Code.REFUSED,
            f"The export of {payload.parent.ref} ({payload.format}, {payload.quantize}) did not pass its gates, so it "
            f"is no version: {export_gates.describe_failures(gates)}.",
            _suggest(payload, gates),
        )
    card = _card(payload, source, staged, identity, record, time.perf_counter() - started)
    return {"card": card.model_dump(mode="json"), "report": record}


def _export(
    run: Run, payload: ConvertPayload, source: ExportableNetwork, task: EvaluationPayload, staged: Path
) -> tuple[str, str]:  # fmt: skip
    """Write and seal the folder; returns how the numbers were kept, and the folder's id."""
    items = source.items(_calibration(run, task))
    work = run.folder.path / "network"
    work.mkdir(exist_ok=True)
    whole = work / "whole.onnx"
    traced = to_onnx(source.backbone, items, whole)
    files = [work / name for name in FILES[payload.format]]
    int8 = payload.quantize == "int8"
    feeds = _feeds(source, items, traced.inputs) if int8 else []
    if payload.format == "openvino":
        how = quantization.to_openvino(whole, files[0], feeds, int8=int8)
    elif int8:
        how = quantization.to_int8(whole, files[0], feeds)
    else:
        whole.rename(files[0])
        how = "onnx: numbers as they were"
    settings = ExportSettings(
        format=payload.format, quantize=payload.quantize, inputs=traced.inputs, grid=traced.grid,
        parameters=source.parameters,
    )  # fmt: skip
    return how, exportable.write_export(source, Path(payload.folder), settings, files, staged)


def _calibration(run: Run, task: EvaluationPayload) -> list[Example]:
    """A sample of the training split; where there is none, of the examples that the export is evaluated on."""
    inputs = task.models[0].inputs or task.dataset.inputs
    manifest = task.dataset.model_copy(update={"inputs": inputs})
    split = "train" if manifest.splits.get("train") else task.split
    examples = load_examples(run.folders, manifest, {split} if split else None)
    return _sample(examples, _CALIBRATION)


def _sample(examples: Sequence[Example], most: int) -> list[Example]:
    return [examples[place] for place in np.random.default_rng(0).permutation(len(examples))[:most]]


def _feeds(source: ExportableNetwork, items: Sequence[Item], names: Iterable[str]) -> list[quantization.Feed]:
    batches = (source.backbone.collate([item]) for item in items[:_CALIBRATION])
    return [{name: batch[name].numpy() for name in names} for batch in batches]


def _measure(
    run: Run,
    payload: ConvertPayload,
    source: ExportableNetwork,
    task: EvaluationPayload,
    staged: Path,
    identity: str,
    report_step: Callable[[str], None],
) -> Measured:
    export = load(staged)
    few = _sample(reload_check.load_questions(run.folders, task), _INPUTS)
    ids = sorted(example.id for example in few)
    examples = reload_check.load_questions(run.folders, task, ids)
    theirs, ours = (exportable.scores(each, examples) for each in (source.predictor, export))
    parity = compare_scores(theirs, ours, source.predictor.predict(examples), export.predict(examples))
    report_step("a clean process")
    before, after = (
        reload_check.answer_in_new_process(run.folders, folder, task, ids, run.folder.path / f"{name}.npz")
        for name, folder in (("parent", Path(payload.folder)), ("export", staged))
    )
    report_step("the metric")
    comparison = _compare_metric(run, payload, task, staged, identity)
    report_step("latency")
    return Measured(
        reloaded=same_scores(ours, after.scores),
        parity=parity,
        held=comparison,
        speed=compare_speed(
            source.predictor.predict, export.predict, examples, (before.memory_mb, after.memory_mb)
        ),
        bytes=(
            exportable.network_bytes(Path(payload.folder), payload.base_model),
            sum((staged / name).stat().st_size for name in FILES[payload.format]),
        ),
    )  # fmt: skip


def _compare_metric(
    run: Run, payload: ConvertPayload, task: EvaluationPayload, staged: Path, identity: str
) -> MetricComparison:
    """An ordinary evaluation of parent and export."""
    parent = task.models[0]
    export = parent.model_copy(update={"name": payload.name, "identity": identity, "path": str(staged)})
    both = task.model_copy(update={"models": (parent, export), "baseline": parent.name, "candidate": export.name})
    folder = RunFolder(run.folder.path / "judging")
    folder.create({"payload": both.model_dump(mode="json"), "job": run.job, "workspace": str(run.folders.root)})
    report = Report.model_validate(run_evaluation.run(Run(folder))["report"])
    compared = report.compare(parent.name, export.name)
    improved = compared.improvement() if compared else None
    value = report.row(parent.name).value
    metric = find_metric(task.metrics[0])
    usual = NOT_WORSE_MARGIN if metric.bounded or value is None else NOT_WORSE_SHARE * abs(value)
    return MetricComparison(
        metric=metric.name, dataset=task.shown, n=report.row(export.name).n, parent=value,
        export=report.row(export.name).value, gain=improved[0] if improved else None,
        interval=improved[1] if improved else None,
        tolerance=usual if payload.tolerance is None else payload.tolerance,
    )  # fmt: skip


def _record(payload: ConvertPayload, how: str, measured: Measured, gates: tuple[Gate, ...]) -> ExportRecord:
    versions = {name: _version(name) for name in ("torch", "onnx", "onnxruntime", "openvino", "nncf")}
    return ExportRecord(
        parent=payload.parent.ref, parent_id=payload.parent.id, format=payload.format, quantize=payload.quantize,
        how=how, judged_on=payload.judged_on, gates=gates, measured=measured,
        made_with={name: version for name, version in versions.items() if version},
    )  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _card(
    payload: ConvertPayload,
    source: ExportableNetwork,
    staged: Path,
    identity: str,
    record: Mapping[str, Any],
    seconds: float,
) -> ModelCard:
    """The parent's facts that hold of the export too, and the export's own record; none of the parent's metrics."""
    parent = payload.parent
    kept = {name: parent.recipe[name] for name in ("terms", "target", "members") if name in parent.recipe}
    return ModelCard(
        name=payload.name, id=identity, task=parent.task, modality=parent.modality, method=EXPORT,
        base_model=parent.base_model, parents=(parent.ref,), dataset=parent.dataset, beside=parent.beside,
        teachers=parent.teachers, use_case=parent.use_case, inputs=parent.inputs, parts=parent.parts,
        ignored_parts=parent.ignored_parts, labels=parent.labels, parameters=parent.parameters,
        bytes=sum(entry.stat().st_size for entry in os.scandir(staged)), seconds=seconds,
        recipe=kept | {"export": record}, license=parent.license,
    )  # fmt: skip


def _suggest(payload: ConvertPayload, gates: Sequence[Gate]) -> str:
    failed = {gate.name for gate in gates if gate.outcome != "pass"}
    if failed == {"metric"}:
        return (
            f"Call export_model again with a greater tolerance, or add validation examples; {payload.parent.ref} "
            "serves as it is."
        )
    other = "openvino" if payload.format == "onnx" else "onnx"
    less = " or quantize='none'" if payload.quantize == "int8" else ""
    return f"Call export_model again with format={other!r}{less}; {payload.parent.ref} serves as it is."


def compare_scores(
    parent: Scores, export: Scores, answers: Sequence[Prediction], others: Sequence[Prediction]
) -> Parity:
    """How far the scores lie apart. `answers`: the parent's to the same examples; `others`: the export's."""
    alike = all(one.shape == other.shape for one, other in zip(parent, export, strict=True))
    first = np.concatenate([np.ravel(each) for each in parent]).astype(np.float64)
    second = np.concatenate([np.ravel(each) for each in export]).astype(np.float64) if alike else np.zeros_like(first)
    known = np.isfinite(first)
    if not alike or not np.isfinite(second[known]).all():  # NaN where the parent has numbers does not agree
        return Parity(n=len(parent), max_difference=1e300, spread=float(first[known].std()),
                      cosine=-1.0, agreement=_agreement(answers, others))  # fmt: skip
    first, second = first[known], second[known]
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    cosine = float(first @ second) / lengths if lengths else float(np.array_equal(first, second))
    return Parity(
        n=len(parent), max_difference=float(np.abs(first - second).max(initial=0.0)), spread=float(first.std()),
        cosine=min(1.0, cosine), agreement=_agreement(answers, others),
    )  # fmt: skip


def _agreement(answers: Sequence[Prediction], others: Sequence[Prediction]) -> float | None:
    pairs = [(one.output, other.output) for one, other in zip(answers, others, strict=True)]
    if all(isinstance(each, str) for pair in pairs for each in pair):
        return float(np.mean([one == other for one, other in pairs]))
    if all(isinstance(each, int | float) for pair in pairs for each in pair):
        first, second = np.array(pairs, float).T
        return float(np.mean(np.abs(first - second) <= _NEAR * max(float(first.std()), 1e-12)))
    return None


def same_scores(here: Scores, there: Scores) -> bool:
    """Whether two processes computed the same; another order of threads may round otherwise."""
    return len(here) == len(there) and all(
        one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
        for one, other in zip(here, there, strict=True)
    )


def compare_speed(
    parent: Predict, export: Predict, examples: Sequence[Example], memory_mb: tuple[float | None, float | None],
    seed: int = 0, clock: Callable[[], float] = time.perf_counter,
) -> Speed:  # fmt: skip
    """Latency in pairs: both answer one example, one after the other in a random order, so that whatever else the
    machine does slows both. At most 120 pairs or 20 seconds, at least 20 pairs."""
    rng = np.random.default_rng(seed)
    drawn = [examples[place] for place in rng.permutation(len(examples))]
    for example in drawn[:_WARM_UP]:
        parent([example])
        export([example])
    times = np.zeros((0, 2))
    begin = clock()
    while len(times) < _MOST and (len(times) < _FEWEST or clock() - begin < _SECONDS):
        example, pair = drawn[len(times) % len(drawn)], [0.0, 0.0]
        for place in rng.permutation(2):
            start = clock()
            (parent, export)[place]([example])
            pair[place] = 1000 * (clock() - start)
        times = np.vstack([times, pair])
    ratio = quantile_interval(times[:, 1] / times[:, 0], 0.5)
    latencies = [
        LatencyStats(p50_ms=float(np.median(column)), p95_ms=float(np.quantile(column, 0.95)), memory_mb=memory)
        for column, memory in zip(times.T, memory_mb, strict=True)
    ]
    return Speed(
        parent=latencies[0], export=latencies[1], ratio=ratio.value, low=ratio.low, high=ratio.high, pairs=len(times),
        device=device(),
    )  # fmt: skip
