"""Where models differ: the main metric within each value of a column. Runs in a service process, over stored scores.

Only metrics with a score per example can be cut this way from stored rows; a corpus metric falls back to the first
mean metric of the evaluation. The comparisons of all slices share Holm's adjustment: among many slices some look bad
by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.errors import Code, SpeciateError, unknown
from speciate.evaluation.multiple_comparisons import holm
from speciate.evaluation.reports import stored_answers
from speciate.evaluation.reports.report import interval, number
from speciate.evaluation.reports.stored_answers import label_text
from speciate.evaluation.statistics import Codes, Floats, clustered_mean, paired_difference, proportion
from speciate.sample_size import detectable
from speciate.vocabulary import Metric, find_metric
from speciate.workspace import integrity

GROUP = "group_key"
_FIXED = ("example", GROUP, "preview")
"""Columns that are no slices by themselves; groups are where they are asked for."""
_MOST = 20
_EMPTY = "(empty)"
_MOST_VALUES, _LEAST_EXAMPLES, _MOST_COLUMNS = 12, 5, 8
"""Without a request, a column is sliced if it has 2 to 12 values, of 5 examples or more in the median."""


class Slice(TypedDict):
    """Both models' metric on the examples with one value of a column."""

    value: str
    n: int
    baseline: float | None
    candidate: float | None
    delta: float | None
    interval: Sequence[float] | None
    p_value: float | None
    minimum_detectable_effect: float | None
    p_holm: NotRequired[float | None]
    """Once all slices are known."""


class Cut(TypedDict):
    column: NotRequired[str]
    slices: list[Slice]
    """The slices of the largest 20 values."""
    left_out: int
    """Values."""
    metric: NotRequired[str]


class Cuts(TypedDict):
    columns: list[Cut]
    metric: str | None


def slices_by_column(payload: Mapping[str, object]) -> Cut:
    """The service. `payload`: `folder`, `column`, `metric`, `baseline` and `candidate` of a StoredRequest.

    The column `label` is the reference, unless the dataset has another of that name. Of `group_key` the groups are
    shown in which the candidate loses most in all. A group is one independent unit, so it has no interval.
    """
    request = stored_answers.StoredRequest.model_validate(payload)
    cells = _Cells(request)
    cut = cells.cut(request.column)
    return cut | {"slices": _with_holm(cut["slices"]), "metric": cells.metric}


def slices_by_columns(payload: Mapping[str, object]) -> Cuts:
    """The service. `payload`: `folder`, `metric`, `baseline`, `candidate` and `but` of a StoredRequest.

    Slices of every column with few values, most of them frequent; Holm's adjustment is over all of them. Empty if no
    metric has a score per example.
    """
    request = stored_answers.StoredRequest.model_validate(payload)
    folder = request.folder
    integrity.check(folder / "scores.parquet", stored_answers.LOST, stored_answers.RECOVERY)
    if not pq.read_metadata(folder / "scores.parquet").num_rows:
        return {"columns": [], "metric": None}
    cells = _Cells(request)
    cuts: list[Cut] = [{"column": name, **cells.cut(name)} for name in cells.worth_cutting(request.but)]
    adjusted = iter(_with_holm([one for cut in cuts for one in cut["slices"]]))
    columns = [cut | {"slices": [next(adjusted) for _ in cut["slices"]]} for cut in cuts]
    return {"columns": columns, "metric": cells.metric}


class _Cells:
    """The examples' columns, and two models' scores beside them."""

    def __init__(self, request: stored_answers.StoredRequest) -> None:
        folder = request.folder
        self._examples = integrity.read_table(folder / "examples.parquet", stored_answers.LOST, stored_answers.RECOVERY)
        columns = ["model", "example", "metric", "value"]
        scores = integrity.read_table(
            folder / "scores.parquet", stored_answers.LOST, stored_answers.RECOVERY, columns=columns
        )
        self.metric = _metric(scores, request.metric)
        place = {name: i for i, name in enumerate(self._examples["example"].to_pylist())}
        self._first = _scores_of(scores, request.baseline, self.metric, place)
        self._second = _scores_of(scores, request.candidate, self.metric, place)
        self._groups = np.unique(_groups(self._examples), return_inverse=True)[1].astype(np.int64)

    def cut(self, column: str) -> Cut:
        """The slices by one column, without Holm. NOT_FOUND for a column that is not there."""
        cells = self._column(column)
        values, counts = np.unique(cells, return_counts=True)
        metric = find_metric(self.metric)
        by = self._gains(cells, metric) if column == GROUP else -counts.astype(np.float64)
        order = np.argsort(by, kind="stable")
        largest = [str(values[i]) for i in order[:_MOST]]
        slices = [_slice(value, cells == value, self._first, self._second, self._groups, metric) for value in largest]
        return {"slices": slices, "left_out": max(0, len(values) - _MOST)}

    def _gains(self, cells: Any, metric: Metric) -> Floats:
        """For each value, in their order, how much better the candidate is on all its examples together."""
        gains = metric.sign * np.nan_to_num(self._second - self._first)
        found: Floats = np.bincount(np.unique(cells, return_inverse=True)[1], gains).astype(np.float64)
        return found

    def worth_cutting(self, but: Sequence[str]) -> list[str]:
        names = [name for name in self._examples.column_names if name not in (*_FIXED, *but)]
        names = [name for name in names if name == "truth" or not self._is_reference(name)]
        return [name for name in sorted(names, key=lambda name: name != "truth") if self._is_coarse(name)][
            :_MOST_COLUMNS
        ]

    def _is_reference(self, column: str) -> bool:
        """Whether it holds the references once more: the column that labels came from."""
        return bool(self._examples[column].to_pylist() == self._examples["truth"].to_pylist())

    def _is_coarse(self, column: str) -> bool:
        counts = np.unique(self._column(column), return_counts=True)[1]
        return 2 <= counts.size <= _MOST_VALUES and float(np.median(counts)) >= _LEAST_EXAMPLES

    def _column(self, column: str) -> Any:
        names = self._examples.column_names
        if column == "label" and column not in names:
            column = "truth"
        if column not in names or (column in _FIXED and column != GROUP):
            known = [*(name for name in names if name not in _FIXED), GROUP]
            raise unknown("column", column, known, "Call describe_evaluation again with slice_by set to one of these.")
        cells = self._examples[column].to_pylist()
        return np.array([_EMPTY if cell is None or cell == "" else str(cell) for cell in cells])


def _with_holm(slices: Sequence[Slice]) -> list[Slice]:
    adjusted = holm([math.nan if s["p_value"] is None else s["p_value"] for s in slices])
    return [s | {"p_holm": number(p)} for s, p in zip(slices, adjusted, strict=True)]


def _metric(scores: pa.Table, main: str) -> str:
    stored = list(dict.fromkeys(scores["metric"].to_pylist()))
    if not stored:
        raise SpeciateError(
            Code.INVALID,
            "This evaluation has no metric with a score per example, so it cannot be cut into slices.",
            "Call evaluate_models again with one that has, such as accuracy, mae or dice: list_options(kind='metric').",
        )
    return main if main in stored else str(stored[0])


def _scores_of(scores: pa.Table, model: str, metric: str, place: dict[str, int]) -> Floats:
    """One model's scores in the order of the examples, of repeats their mean; NaN where an example does not count."""
    mine = scores.filter(pc.and_(pc.equal(scores["model"], model), pc.equal(scores["metric"], metric)))
    means = mine.group_by("example").aggregate([("value", "mean")])
    column = np.full(len(place), math.nan)
    at = [place[example] for example in means["example"].to_pylist()]
    column[at] = means["value_mean"].to_numpy()
    return column


def _groups(examples: pa.Table) -> list[str]:
    names, groups = examples["example"].to_pylist(), examples["group_key"].to_pylist()
    return [f"group {group}" if group else f"example {name}" for name, group in zip(names, groups, strict=True)]


def _slice(value: str, mask: Any, first: Floats, second: Floats, groups: Codes, metric: Metric) -> Slice:
    difference = paired_difference(first[mask], second[mask], groups[mask])
    return {
        "value": label_text(value),
        "n": difference.n,
        "baseline": _mean(first[mask], groups[mask]),
        "candidate": _mean(second[mask], groups[mask]),
        "delta": number(difference.delta),
        "interval": interval(difference.low, difference.high),
        "p_value": number(difference.p_value),
        "minimum_detectable_effect": detectable(difference.minimum_detectable_effect, metric),
    }


def _mean(values: Floats, groups: Codes) -> float | None:
    zero_one = np.isin(values[~np.isnan(values)], (0.0, 1.0)).all()
    return number((proportion if zero_one else clustered_mean)(values, groups).value)
