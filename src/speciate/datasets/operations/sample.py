"""Keep n examples: by chance, in proportion, as different as possible, or those that a model is least sure of.

Exactly those n rows stay, whatever the quality of others. `random` and `stratified` go by hashes of the ids, so a
larger sample holds the smaller one of the same seed. `diverse` is the farthest-first traversal (Gonzalez 1985):
no example is farther from the nearest chosen one than twice what the best choice could reach. `uncertain` takes the
smallest margins between the two likeliest labels (Scheffer et al. 2001), unlabelled examples included: it is a choice
of what to label next.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from speciate.datasets.loading.loader import Example
from speciate.datasets.operations.chance import apportion, shuffled
from speciate.datasets.operations.context import Context, Vectors
from speciate.datasets.operations.contract import Operation, Others, Outcome, Parameters, refusal
from speciate.datasets.operations.foresight import check_classes
from speciate.datasets.operations.masks import usable, whole
from speciate.datasets.split import strata
from speciate.datasets.versions import Manifest

_CHUNK = 256

Places = npt.NDArray[np.int64]
Margins = npt.NDArray[np.float64]


class SampleParameters(Parameters):
    n: int = Field(ge=1)
    strategy: Literal["random", "stratified", "diverse", "uncertain"] = Field(
        "random", description="stratified: by label and split; diverse: by vectors; uncertain: by a model's margins."
    )
    model: str | None = Field(None, description="For uncertain: a registered classifier.")
    extractor: str | None = Field(None, description="For diverse; default: the modality's own features.")
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> SampleParameters:
        if (self.strategy == "uncertain") != (self.model is not None):
            raise ValueError("strategy='uncertain' needs a model, and the others take none")
        if self.strategy != "diverse" and self.extractor is not None:
            raise ValueError("only strategy='diverse' takes an extractor")
        return self


def foresee(parameters: SampleParameters, manifest: Manifest, others: Others) -> Manifest:
    if parameters.strategy == "stratified" and manifest.label is None:
        check_classes(manifest, "a stratified sample")
    if parameters.n > manifest.rows:
        raise _too_many(parameters.n, manifest.rows)
    return manifest


def apply(rows: pa.Table, parameters: SampleParameters, context: Context) -> Outcome:
    eligible = whole(rows) if parameters.strategy == "uncertain" else usable(rows)
    chosen = rows.filter(pa.array(eligible))
    if parameters.n > chosen.num_rows:
        raise _too_many(parameters.n, chosen.num_rows)
    audit: dict[str, Any] = {}
    if parameters.strategy == "random":
        places: Sequence[int] = shuffled(chosen["id"].to_pylist(), parameters.seed)[: parameters.n]
    elif parameters.strategy == "stratified":
        places = _stratified(chosen, parameters)
    elif parameters.strategy == "diverse":
        first = shuffled(chosen["id"].to_pylist(), parameters.seed)[0]
        places, reach = farthest_first(context.vectors(chosen, parameters.extractor), parameters.n, first)
        audit["farthest_left_out"] = float(f"{reach:.4g}")
    else:
        margins = _margins(chosen, str(parameters.model), context)
        places = np.argsort(margins, kind="stable")[: parameters.n].tolist()
        if np.isnan(margins[places[-1]]):
            raise _too_many(parameters.n, int((~np.isnan(margins)).sum()))
        audit["largest_margin"] = round(float(margins[places[-1]]), 4)
    taken = chosen.take(pa.array(sorted(places), pa.int64()))
    audit["splits"] = dict(Counter(str(name or "none") for name in taken["split"].to_pylist()).most_common())
    return Outcome(taken, audit)


def farthest_first(vectors: Vectors, count: int, first: int) -> tuple[list[int], float]:
    """Places in the order of choice, and how far the farthest other is from its nearest chosen one."""
    chosen = [first]
    nearest = _distances(vectors, first)
    while len(chosen) < count:
        nearest[chosen[-1]] = -1.0  # copies of what is chosen come last, but before it
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(vectors, chosen[-1]))
    nearest[chosen] = 0.0
    return chosen, float(nearest.max())


def _distances(vectors: Vectors, place: int) -> npt.NDArray[np.float64]:
    """(N,) Euclidean, from one."""
    return np.asarray(np.sqrt(np.square(vectors - vectors[place], dtype=np.float64).sum(axis=1)))


def _stratified(rows: pa.Table, parameters: SampleParameters) -> list[int]:
    ids, splits = rows["id"].to_pylist(), rows["split"].to_pylist()
    stratum = [f"{split}/{code}" for split, code in zip(splits, strata(rows["label"].to_pylist()), strict=True)]
    quota = apportion(Counter(stratum), parameters.n)
    taken: dict[str, list[int]] = defaultdict(list)
    for place in shuffled(ids, parameters.seed):
        if len(taken[stratum[place]]) < quota[stratum[place]]:
            taken[stratum[place]].append(place)
    return [place for places in taken.values() for place in places]


def _margins(rows: pa.Table, model: str, context: Context) -> Margins:
    """(N,) NaN where the model fails."""
    predictor = context.predictor(model)
    examples = context.examples(rows)
    margins: list[float] = []
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        margins += _of_chunk(predictor, chunk)
        context.progress(len(margins), len(examples), "answers", model)
    return np.array(margins)


def _of_chunk(predictor: Any, chunk: Sequence[Example]) -> list[float]:
    """Where a whole chunk fails, its examples are asked one by one."""
    try:
        return [_margin(answer.probabilities) for answer in predictor.predict(chunk)]
    except Exception:  # noqa: BLE001 - a model may fail in any way
        return [_of_chunk(predictor, [one])[0] for one in chunk] if len(chunk) > 1 else [np.nan]


def _margin(probabilities: dict[str, float] | None) -> float:
    likeliest = sorted((probabilities or {}).values(), reverse=True)[:2]
    return likeliest[0] - likeliest[1] if len(likeliest) == 2 else np.nan


def _too_many(wanted: int, there: int) -> Exception:
    return refusal(f"n is {wanted}, but only {there} examples can be chosen.", f"Call again with n at most {there}.")


SAMPLE = Operation(
    name="sample",
    what="keep n examples: random, stratified, diverse, or those a model is least sure of",
    parameters=SampleParameters,
    foresee=foresee,
    apply=apply,
    refers={"model": "model", "extractor": "extractor"},
)
