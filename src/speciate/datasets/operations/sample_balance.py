"""Two operations that leave rows out. `sample` keeps n examples; `balance` makes the values of a column equally
frequent.

`sample` chooses at random, in proportion, as different as possible, or those that a model is least sure of. Exactly n
rows stay, whatever the quality of others. `random` and `stratified` go by hashes of the ids, so a larger sample holds
the smaller one of the same seed. `diverse` is the farthest-first traversal (Gonzalez 1985): no example is farther from
the nearest chosen one than twice the optimum. `uncertain` takes the smallest margins between the two likeliest labels
(Scheffer et al. 2001), unlabelled examples included: it chooses what to label next.

`balance` drops rows of the more frequent values within each split, in an order of hashes by group, so that most groups
stay or leave as a whole. Rows with an empty column stay.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from speciate.datasets.columns import clean
from speciate.datasets.loading.loader import Example
from speciate.datasets.operations.context import Context, Vectors
from speciate.datasets.operations.operation import (
    SPLITS,
    Mask,
    Operation,
    Others,
    Outcome,
    Parameters,
    Splits,
    check_classes,
    check_column,
    decoded_rows,
    is_number,
    keep_rows,
    refusal,
    usable_rows,
    usable_rows_in,
)
from speciate.datasets.splits import strata
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


def preflight_sample(parameters: SampleParameters, manifest: Manifest, others: Others) -> Manifest:
    if parameters.strategy == "stratified" and manifest.label is None:
        check_classes(manifest, "a stratified sample")
    if parameters.n > manifest.rows:
        raise _too_many(parameters.n, manifest.rows)
    return manifest


def check_sampled_rows(rows: pa.Table, parameters: SampleParameters, manifest: Manifest) -> None:
    if (there := int(_eligible(rows, parameters).sum())) < parameters.n:
        raise _too_many(parameters.n, there)


def _eligible(rows: pa.Table, parameters: SampleParameters) -> Mask:
    return decoded_rows(rows) if parameters.strategy == "uncertain" else usable_rows(rows)


class _Audit(TypedDict, total=False):
    farthest_left_out: float
    """For a diverse sample: the distance from the farthest example left out to its nearest chosen one."""
    largest_margin: float
    """For an uncertain sample: the largest margin of a chosen example."""
    splits: dict[str, int]


def apply_sample(rows: pa.Table, parameters: SampleParameters, context: Context) -> Outcome:
    chosen = rows.filter(pa.array(_eligible(rows, parameters)))
    if parameters.n > chosen.num_rows:
        raise _too_many(parameters.n, chosen.num_rows)
    audit: _Audit = {}
    if parameters.strategy == "random":
        places: Sequence[int] = shuffle_keys(chosen["id"].to_pylist(), parameters.seed)[: parameters.n]
    elif parameters.strategy == "stratified":
        places = _stratified(chosen, parameters)
    elif parameters.strategy == "diverse":
        first = shuffle_keys(chosen["id"].to_pylist(), parameters.seed)[0]
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
    return Outcome(taken, audit, only_removes=True)


def farthest_first(vectors: Vectors, count: int, first: int) -> tuple[list[int], float]:
    """Places in the order of choice, and the distance of the farthest remaining one to its nearest chosen one."""
    chosen = [first]
    nearest = _distances(vectors, first)
    while len(chosen) < count:
        nearest[chosen[-1]] = -1.0  # copies of what is chosen come last, but before it
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(vectors, chosen[-1]))
    nearest[chosen] = 0.0
    return chosen, float(nearest.max())


def _distances(vectors: Vectors, place: int) -> npt.NDArray[np.float64]:
    """(N,) Euclidean distances from one example."""
    return np.asarray(np.sqrt(np.square(vectors - vectors[place], dtype=np.float64).sum(axis=1)))


def _stratified(rows: pa.Table, parameters: SampleParameters) -> list[int]:
    ids, splits = rows["id"].to_pylist(), rows["split"].to_pylist()
    stratum = [f"{split}/{code}" for split, code in zip(splits, strata(rows["label"].to_pylist()), strict=True)]
    quota = apportion(Counter(stratum), parameters.n)
    taken: dict[str, list[int]] = defaultdict(list)
    for place in shuffle_keys(ids, parameters.seed):
        if len(taken[stratum[place]]) < quota[stratum[place]]:
            taken[stratum[place]].append(place)
    return [place for places in taken.values() for place in places]


def _margins(rows: pa.Table, model: str, context: Context) -> Margins:
    """(N,) NaN if the model fails."""
    predictor = context.predictor(model)
    examples = context.examples_for(model, rows)
    margins: list[float] = []
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        margins += _margins_of_chunk(predictor, chunk)
        context.progress(len(margins), len(examples), "answers", model)
    return np.array(margins)


def _margins_of_chunk(predictor: Any, chunk: Sequence[Example]) -> list[float]:
    """If a whole chunk fails, its examples are predicted one by one."""
    try:
        return [_margin(answer.probabilities) for answer in predictor.predict(chunk)]
    except Exception:  # noqa: BLE001 - a model may fail in any way
        return [_margins_of_chunk(predictor, [one])[0] for one in chunk] if len(chunk) > 1 else [np.nan]


def _margin(probabilities: dict[str, float] | None) -> float:
    likeliest = sorted((probabilities or {}).values(), reverse=True)[:2]
    return likeliest[0] - likeliest[1] if len(likeliest) == 2 else np.nan


def _too_many(wanted: int, there: int) -> Exception:
    return refusal(f"n is {wanted}, but only {there} examples can be chosen.", f"Call again with n at most {there}.")


class BalanceParameters(Parameters):
    column: str = Field("label", description="label, or any column of classes.")
    splits: Splits = SPLITS
    seed: int = 0


def preflight_balance(parameters: BalanceParameters, manifest: Manifest, others: Others) -> Manifest:
    if parameters.column == "label":
        check_classes(manifest, "balance by label")
    if is_number(manifest, check_column(manifest, parameters.column)):
        raise refusal(
            f"The column {parameters.column!r} holds numbers, and balance is about classes.",
            "First derive a column of classes, such as CASE WHEN x < 1 THEN 'low' ELSE 'high' END.",
        )
    return manifest


def apply_balance(rows: pa.Table, parameters: BalanceParameters, context: Context) -> Outcome:
    values, splits = rows[parameters.column].to_pylist(), rows["split"].to_pylist()
    ids, groups = rows["id"].to_pylist(), rows["group_key"].to_pylist()
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in np.flatnonzero(usable_rows_in(rows, parameters.splits)).tolist():
        if values[i] is not None:
            found[splits[i] or "train"][str(values[i])].append(i)
    kept = np.ones(rows.num_rows, bool)
    for classes in found.values():
        fewest = min(map(len, classes.values()))
        for places in classes.values():
            order = sorted(
                places,
                key=lambda i: (seeded_hash(parameters.seed, groups[i] or ids[i]), seeded_hash(parameters.seed, ids[i])),
            )
            kept[order[fewest:]] = False
    per_class = {split: _fewest(classes) for split, classes in sorted(found.items())}
    return Outcome(keep_rows(rows, kept), {"per_class": per_class}, only_removes=True)


def _fewest(classes: dict[str, list[int]]) -> dict[str, int | str]:
    """How many of each class stay, and which class limits them."""
    rarest = min(sorted(classes), key=lambda name: len(classes[name]))
    return {"kept": len(classes[rarest]), "rarest": clean(rarest), "classes": len(classes)}


def seeded_hash(seed: int, key: str) -> bytes:
    """The sort key of a key: independent of the other keys, so that a larger sample contains the smaller one."""
    return hashlib.sha256(f"{seed}/{key}".encode("utf-8", "surrogatepass")).digest()


def shuffle_keys(keys: Sequence[str], seed: int) -> list[int]:
    """Places of the keys in the order of the seed."""
    return sorted(range(len(keys)), key=lambda i: seeded_hash(seed, keys[i]))


def apportion(counts: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Whole numbers for each kind, in proportion to `counts` and together `wanted`: largest remainders (Hamilton)."""
    total = sum(counts.values())
    exact = {name: wanted * count / total for name, count in counts.items()}
    given = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(counts, key=lambda name: (given[name] - exact[name], name))
    for name in by_remainder[: wanted - sum(given.values())]:
        given[name] += 1
    return given


SAMPLE = Operation(
    name="sample",
    what="keep n examples: random, stratified, diverse, or those a model is least sure of",
    parameters=SampleParameters,
    preflight=preflight_sample,
    apply=apply_sample,
    check_rows=check_sampled_rows,
    refers={"model": "model", "extractor": "extractor"},
)


BALANCE = Operation(
    name="balance",
    what="make classes equally frequent by leaving out rows of the frequent ones",
    parameters=BalanceParameters,
    preflight=preflight_balance,
    apply=apply_balance,
)
