"""One evaluation for a reader: against any baseline, in slices, with its worst examples and their contact sheet.

The stored report has most of it; the rest comes from service processes, which read the stored rows.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

from speciate.datasets.versions import Manifest, resolve
from speciate.errors import SpeciateError
from speciate.evaluation.multiple_comparisons import holm
from speciate.evaluation.reports.report import (
    BreakEven,
    Comparison,
    Pareto,
    Report,
    Row,
    break_even,
    find_report,
    number,
    pareto,
)
from speciate.evaluation.reports.thumbnails import ThumbnailRequest
from speciate.jobs.job import StoredSpec
from speciate.jobs.pool import Pool, ServiceAnswer
from speciate.refs import dataset_ref
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace

Part = Literal["confusion", "calibration", "disagreements", "metrics", "all_models", "gaps"]

_PAIRS, _LABELS = 10, 12
_MOST_MODELS, _WITH_METRICS = 10, 4
_DISAGREEMENTS = 5


class EvaluationDescription(NamedTuple):
    report: Report
    baseline: str
    candidate: str
    rows: tuple[Row, ...]
    """Rows of the leaderboard, the best first."""
    models_left_out: int
    comparisons: tuple[Comparison, ...]
    """Comparisons in the main metric of each of these models with the baseline, with Holm's p-values."""
    pareto: Pareto
    break_even: BreakEven | None
    slices: ServiceAnswer | None
    confusion: list[ServiceAnswer] | None
    calibration: list[ServiceAnswer] | None
    worst: ServiceAnswer | None
    """Foreign text."""
    disagreements: ServiceAnswer | None
    """Foreign text but for `tally`."""
    unscored: ServiceAnswer | None
    """What a scorer failed on; `first` of it is foreign text."""
    contact_sheet: bytes | None
    """The worst examples as PNG, numbered as in the list."""


def describe(
    workspace: Workspace,
    pool: Pool,
    evaluation: str,
    *,
    baseline: str | None,
    slice_by: str | None,
    errors: int,
    show: Collection[Part] = (),
) -> EvaluationDescription:
    """Raises NOT_FOUND for an evaluation, a baseline or a column that is not there."""
    found = Inspection(workspace, pool, evaluation, baseline)
    report, against = found.report, found.baseline
    rows = report.leaderboard if "all_models" in show else _top_rows(report, found.pair)
    names = {row.model for row in rows}
    worst = found.ask("error_analysis:worst_examples", count=errors) if errors else None
    confusion = (
        found.ask("error_analysis:confusion", models=found.pair, pairs=_PAIRS, labels=_LABELS)
        if "confusion" in show
        else None
    )
    calibration = found.ask("error_analysis:calibration", models=found.pair) if "calibration" in show else None
    return EvaluationDescription(
        report,
        against,
        found.candidate,
        rows if "metrics" in show or len(rows) <= _WITH_METRICS else tuple(_without_metrics(row) for row in rows),
        len(report.leaderboard) - len(rows),
        tuple(each for each in against_baseline(report, against) if each.candidate in names),
        pareto(report),
        break_even(report, against, found.candidate),
        found.ask("slice_metrics:slices_by_column", column=slice_by) if slice_by else None,
        confusion["models"] if confusion else None,
        calibration["models"] if calibration else None,
        worst,
        found.ask("error_analysis:disagreements", count=errors or _DISAGREEMENTS) if "disagreements" in show else None,
        found.ask("error_analysis:unscored") if found.has_unscored else None,
        _sheet(found, worst["examples"]) if worst and found.has_thumbnails else None,
    )


def _sheet(found: Inspection, examples: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Where images or speech are the answers, those of the models beside the real ones; else the examples."""
    if {"image-generation", "speech-synthesis"} & set(find_metric(found.report.metric).families):
        return found.side_by_side([one["id"] for one in examples])
    return found.contact_sheet(captions(examples))


def captions(examples: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """`3: cat, not dog` by id: its place in the list, the reference, and what was answered."""
    return {one["id"]: f"{place}: {_caption(one)}" for place, one in enumerate(examples, 1)}


def against_baseline(report: Report, baseline: str) -> tuple[Comparison, ...]:
    """Every other model against this baseline under the main metric."""
    compare = report.comparer()
    pairs = [compare(baseline, row.model) for row in report.leaderboard if row.model != baseline]
    return with_holm([pair for pair in pairs if pair is not None])


def with_holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons with p-values adjusted for being looked at together."""
    values = holm([math.nan if c.p_value is None else c.p_value for c in comparisons])
    return tuple(c.model_copy(update={"p_holm": number(p)}) for c, p in zip(comparisons, values, strict=True))


def _top_rows(report: Report, always: Collection[str]) -> tuple[Row, ...]:
    """The best ten models, and those that the question is about."""
    return tuple(row for place, row in enumerate(report.leaderboard) if place < _MOST_MODELS or row.model in always)


def _without_metrics(row: Row) -> Row:
    """The main metric is in the row itself."""
    return row.model_copy(update={"metrics": {}})


def _caption(example: Mapping[str, Any]) -> str:
    reference = _number(example["truth"])
    return f"{reference}, not {_number(example['output'])}" if "output" in example else f"{reference}, no answer"


def _number(cell: str | float) -> str:
    """Numbers, which references hold as text, to four digits; labels as they are."""
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return str(cell)[:12]


_AS_TEXT = ("text", "tabular", "protein")
"""Modalities whose examples are shown as text."""
_MOST_ON_A_SHEET = 30
_PNG = b"\x89PNG\r\n\x1a\n"
_CREATED = "SELECT created FROM evaluations WHERE id = ?"
_SPEC = "SELECT spec FROM jobs WHERE id = (SELECT job FROM evaluations WHERE id = ?)"


class Wanted(TypedDict, total=False):
    """The fields of a StoredRequest that one service needs."""

    models: Sequence[str]
    count: int
    pairs: int
    labels: int
    column: str
    but: Sequence[str]
    show: str
    label: str | None
    answered: str | None
    after: str


class Inspection:
    """One evaluation with the services that read its stored rows. Service processes read rows and decode media.

    `baseline` None: the report's. The candidate is the report's, or the best other model if that is the baseline.
    """

    def __init__(self, workspace: Workspace, pool: Pool, evaluation: str, baseline: str | None = None) -> None:
        """Raises NOT_FOUND for an evaluation or a baseline that is not there."""
        self._workspace, self._pool, self.evaluation = workspace, pool, evaluation
        self.report: Report = find_report(workspace.database, evaluation)
        self.baseline = self.report.row(baseline).model if baseline else self.report.baseline
        others = [row.model for row in self.report.leaderboard if row.model != self.baseline]
        self.candidate = next(
            iter([self.report.candidate] if self.report.candidate in others else others), self.baseline
        )
        self.manifest = manifest_of(workspace, self.report)
        """Manifest of the evaluated dataset; None where it was deleted since."""

    @property
    def _folder(self) -> Path:
        return self._workspace.folders.evaluations / self.evaluation

    @property
    def pair(self) -> list[str]:
        """The candidate and the baseline; one model where there is no other."""
        return list(dict.fromkeys([self.candidate, self.baseline]))

    @property
    def created(self) -> float:
        row = self._workspace.database.read_one(_CREATED, [self.evaluation])
        return float(row[0]) if row else 0.0

    @property
    def spec(self) -> StoredSpec:
        """The job's spec; empty if the job is gone."""
        row = self._workspace.database.read_one(_SPEC, [self.evaluation])
        found: StoredSpec = json.loads(row[0]) if row else {}
        return found

    @property
    def has_unscored(self) -> bool:
        """Whether a scorer gave some answers no score."""
        return (self._folder / "unscored.parquet").exists()

    def ask(self, service: str, **more: Unpack[Wanted]) -> ServiceAnswer:
        """The result of a service of this package, "module:function", on the stored rows."""
        payload = {
            "folder": str(self._folder),
            "metric": self.report.metric,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "inputs": list(self.manifest.inputs) if self.manifest else [],
        }
        return self._pool.ask(f"speciate.evaluation.reports.{service}", {**payload, **more})

    @property
    def has_thumbnails(self) -> bool:
        """Whether the examples are shown as images."""
        return self.manifest is not None and self.manifest.modality not in _AS_TEXT

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """A PNG for each of these examples that can still be drawn."""
        result = self._draw("draw_each", ids=list(dict.fromkeys(ids)))
        found = {name: base64.b64decode(text) for name, text in result.get("pictures", {}).items()}
        return {name: data for name, data in found.items() if data.startswith(_PNG)}

    def contact_sheet(self, captions: Mapping[str, str]) -> bytes | None:
        """The first 30 of these examples on a contact sheet, each with its caption, at most 1,024 pixels a side."""
        ids = list(captions)[:_MOST_ON_A_SHEET]
        result = self._draw("draw_sheet", ids=ids, captions=[captions[name] for name in ids])
        return base64.b64decode(result["png"]) if result else None

    def side_by_side(self, ids: Sequence[str]) -> bytes | None:
        """What the models of the leaderboard drew for these examples, a row for each, the real image first."""
        models = [row.model for row in sorted(self.report.leaderboard, key=lambda row: row.model != self.candidate)]
        payload = {"folder": str(self._folder), "models": models, "ids": list(ids)}
        try:
            found = self._pool.ask("speciate.evaluation.reports.drawn_images:draw_side_by_side", payload)
        except SpeciateError:
            return None
        return base64.b64decode(found["png"])

    def _draw(self, service: str, ids: Sequence[str], captions: Sequence[str] = ()) -> ServiceAnswer:
        """Empty if media cannot be drawn any more; the rows have the rest."""
        if self.manifest is None or not ids:
            return {}
        request = ThumbnailRequest(
            root=self._workspace.folders.root, manifest=self.manifest, ids=tuple(ids), captions=tuple(captions)
        )
        try:
            return self._pool.ask(f"speciate.evaluation.reports.thumbnails:{service}", request.model_dump(mode="json"))
        except SpeciateError:
            return {}


def manifest_of(workspace: Workspace, report: Report) -> Manifest | None:
    """None where the dataset was deleted since."""
    try:
        return resolve(workspace.database, dataset_ref(report.dataset)._replace(split=None))
    except SpeciateError:
        return None
