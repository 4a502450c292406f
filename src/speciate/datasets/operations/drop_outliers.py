"""Drop examples that lie far from all others: mean distance to the k nearest neighbours among vectors.

The score is that of Angiulli and Pizzuti (2002), divided by k. What counts as far is robust: a modified z-score above
`cut` (Iglewicz and Hoaglin 1993: 0.6745 (x - median) / MAD, their 3.5 by default; where more than half the scores are
equal, the mean absolute deviation stands in, as they propose), or instead the farthest `share`. Neighbours are sought
among all usable rows; dropped are those of the wanted splits.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from speciate.datasets.operations.context import Context, Vectors
from speciate.datasets.operations.operation import (
    SPLITS,
    Operation,
    Others,
    Outcome,
    Parameters,
    Splits,
    check_part_allowed,
    find_part,
    keep_rows,
    refusal,
    rows_with_part,
    usable_rows,
    usable_rows_in,
)
from speciate.datasets.versions import Manifest

_CUT = 3.5
_NOTHING = 1e-12
"""A median deviation that is so small beside the mean one is none: rounding, or a number that cannot be divided by."""
_LEAST = 10
_SHOWN = 10

Scores = npt.NDArray[np.float64]


class OutlierParameters(Parameters):
    cut: float | None = Field(None, gt=0, description=f"Greatest modified z-score that stays; default {_CUT}.")
    share: float | None = Field(None, gt=0, lt=1, description="Instead of cut: the farthest share of the rows.")
    neighbours: int = Field(10, ge=1, le=1000)
    extractor: str | None = Field(None, description="Default: the modality's own features.")
    part: str | None = Field(None, description="Mixed rows: the part to compare; rows without it stay.")
    splits: Splits = SPLITS

    @model_validator(mode="after")
    def _one_rule(self) -> OutlierParameters:
        if None not in (self.share, self.cut):
            raise ValueError("cut and share are two rules; give one")
        return self


def preflight(parameters: OutlierParameters, manifest: Manifest, others: Others) -> Manifest:
    check_part_allowed(parameters.part, manifest.modality)
    return manifest


def check_rows(rows: pa.Table, parameters: OutlierParameters, manifest: Manifest) -> None:
    part = None if parameters.part is None else find_part(rows.filter(pa.array(usable_rows(rows))), parameters.part)
    _check_count(int((usable_rows(rows) if part is None else usable_rows(rows) & rows_with_part(rows, part)).sum()))


def _check_count(usable: int) -> None:
    if usable < _LEAST:
        raise refusal(
            f"{usable} usable examples are too few to tell what is unusual; {_LEAST} are needed.",
            "Leave the step out.",
        )


def apply(rows: pa.Table, parameters: OutlierParameters, context: Context) -> Outcome:
    part = None if parameters.part is None else find_part(rows.filter(pa.array(usable_rows(rows))), parameters.part)
    places = np.flatnonzero(usable_rows(rows) if part is None else usable_rows(rows) & rows_with_part(rows, part))
    _check_count(len(places))
    chosen = rows.take(pa.array(places))
    scores = distances(context.vectors(chosen, parameters.extractor, part), min(parameters.neighbours, len(places) - 1))
    far = _outliers(scores, usable_rows_in(chosen, parameters.splits), parameters)
    kept = np.ones(rows.num_rows, bool)
    kept[places[far]] = False
    return Outcome(keep_rows(rows, kept), _audit(chosen, scores, far), only_removes=True)


def distances(vectors: Vectors, neighbours: int) -> Scores:
    """(N,) mean Euclidean distance to so many others."""
    from sklearn.neighbors import NearestNeighbors

    found, _ = NearestNeighbors(n_neighbors=neighbours).fit(vectors).kneighbors()  # without the point itself
    return np.asarray(found.mean(axis=1), np.float64)


def modified_z(scores: Scores) -> Scores:
    """Iglewicz and Hoaglin's, with their stand-in where the median absolute deviation is 0; 0 if all are equal."""
    apart = scores - np.median(scores)
    median, mean = float(np.median(np.abs(apart))), float(np.abs(apart).mean())
    if median > _NOTHING * mean:
        return 0.6745 * apart / median
    return apart / (1.2533 * mean) if mean > 0 else np.zeros_like(apart)


def _outliers(
    scores: Scores, candidates: npt.NDArray[np.bool_], parameters: OutlierParameters
) -> npt.NDArray[np.bool_]:
    if parameters.share is None:
        return candidates & (modified_z(scores) > (parameters.cut or _CUT))
    farthest = np.argsort(-np.where(candidates, scores, -np.inf), kind="stable")
    far = np.zeros(len(scores), bool)
    far[farthest[: int(parameters.share * candidates.sum())]] = True
    return far


class FarExample(TypedDict):
    id: str
    score: float


class _Audit(TypedDict):
    scores: dict[str, float]
    """p5, median, p95 and max."""
    farthest: list[FarExample]


def _audit(rows: pa.Table, scores: Scores, far: npt.NDArray[np.bool_]) -> _Audit:
    low, middle, high = np.quantile(scores, (0.05, 0.5, 0.95))
    order = [place for place in np.argsort(-scores, kind="stable") if far[place]][:_SHOWN]
    return {
        "scores": {"p5": _round(low), "median": _round(middle), "p95": _round(high), "max": _round(scores.max())},
        "farthest": [{"id": rows["id"][int(place)].as_py(), "score": _round(scores[place])} for place in order],
    }


def _round(number: float) -> float:
    return float(f"{number:.4g}")


DROP_OUTLIERS = Operation(
    name="drop_outliers",
    what="drop examples that are far from all others",
    parameters=OutlierParameters,
    preflight=preflight,
    apply=apply,
    check_rows=check_rows,
    refers={"extractor": "extractor"},
    needs=("sklearn",),
)
