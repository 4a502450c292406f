"""Keep one example of several that are the same: by content, by sketches of near-duplicates, or by vectors.

Of duplicates the one in the test split stays, then validation, then train: no test split shrinks for copies elsewhere.
Then a labelled one, one that belongs to a group, one with more pixels, one with more bytes, and at last the smallest
id: a copy that was made smaller or compressed again goes, and the original stays. Only usable rows count, and no chain
of near pairs is followed (`leaders_by_pairs`). Labels that disagree within a cluster are reported, never decided.

Vectors of models and counts of letters point where their meaning is, so their plain cosine is compared. Gray values and
measurements do not: all are positive, or one of them outweighs all others, and the cosine of any two is near 1. From
images their own mean is subtracted first, so that the cosine is the correlation of their patterns, and one without a
pattern is like no other; measurements are first scaled to mean 0 and spread 1 over all rows.

Measured, plain cosine 0.98 before and now: of 120 crops of two photographs, none a copy, 45 and 2 would go (88 % of
copies as JPEG of quality 35 are found, the missed ones are bare sky); of 300 tumours' measurements 99.6 % and none of
the pairs are alike, and every copy within 0.5 % is found; of synthetic audio 36 % and none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from speciate.datasets.columns import CONTENT, KEY, SKETCH, START, STOP, clean
from speciate.datasets.operations.context import Context, Vectors
from speciate.datasets.operations.operation import (
    Operation,
    Others,
    Outcome,
    Parameters,
    check_part_allowed,
    find_part,
    keep_rows,
    part_digests,
    parts_of,
    refusal,
    rows_with_part,
    usable_rows,
)
from speciate.datasets.similarity import near_duplicates
from speciate.datasets.similarity.extractors import DESCRIPTOR
from speciate.datasets.splits import KEEP_FIRST
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.modalities.contract import SketchingByPart
from speciate.modalities.multimodal import PartName

_SHOWN, _CLUSTERS_SHOWN = 10, 5

COSINE, PATTERN = 0.98, 0.99
_NO_SPREAD = 1e-6
_PATTERNS = ("image",)
_MEASUREMENTS = ("audio", "tabular", "time-series")


class DeduplicateParameters(Parameters):
    by: Literal["content", "perceptual", "embedding"] = Field(
        "content", description="What a model sees is equal; its sketches nearly agree; its vectors do."
    )
    threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"Least similarity; perceptual: the sketch's own, embedding: {COSINE}, of pixels {PATTERN}.",
    )
    extractor: str | None = Field(None, description="For embedding; list_options(kind='extractor').")
    part: str | None = Field(None, description="Mixed rows: alike in this part; none: in all. Without it a row stays.")

    @model_validator(mode="after")
    def _fits(self) -> DeduplicateParameters:
        if self.by == "content" and self.threshold is not None:
            raise ValueError("by='content' takes no threshold: content is equal or not")
        if self.by != "embedding" and self.extractor is not None:
            raise ValueError(f"by={self.by!r} takes no extractor; by='embedding' does")
        return self


def preflight(parameters: DeduplicateParameters, manifest: Manifest, others: Others) -> Manifest:
    check_part_allowed(parameters.part, manifest.modality)
    if parameters.by == "perceptual" and find(manifest.modality).sketching is None:
        raise refusal(
            f"There are no sketches that tell near-duplicates of {manifest.modality}.",
            "Call again with by='content' or by='embedding'.",
        )
    return manifest


def check_rows(rows: pa.Table, parameters: DeduplicateParameters, manifest: Manifest) -> None:
    if parameters.part is not None:
        find_part(rows.filter(pa.array(usable_rows(rows))), parameters.part)


def apply(rows: pa.Table, parameters: DeduplicateParameters, context: Context) -> Outcome:
    part = None if parameters.part is None else find_part(rows.filter(pa.array(usable_rows(rows))), parameters.part)
    places = np.flatnonzero(usable_rows(rows) if part is None else usable_rows(rows) & rows_with_part(rows, part))
    chosen = rows.take(pa.array(places))
    leader = _leaders(chosen, parameters, context, part)
    kept = np.ones(rows.num_rows, bool)
    kept[places[leader != np.arange(len(leader))]] = False
    return Outcome(keep_rows(rows, kept), _audit(chosen, leader), only_removes=True)


def _leaders(
    rows: pa.Table, parameters: DeduplicateParameters, context: Context, part: PartName | None
) -> near_duplicates.Places:
    order = _preference_order(rows)
    if parameters.by == "embedding":
        modality, extractor = part.modality if part else context.manifest.modality, parameters.extractor
        units = comparable_vectors(context.vectors(rows, extractor, part), modality, extractor)
        return near_duplicates.leaders_by_cosine(
            order, units, parameters.threshold or least_cosine(modality, extractor), context.cores
        )
    if parameters.by == "content" and part is not None:
        cells = pa.chunked_array([pa.array(part_digests(rows, part), pa.binary())]).combine_chunks()
        return near_duplicates.leaders_by_pairs(order, _kinds(cells.dictionary_encode()), np.zeros((0, 2), np.int64))
    if parameters.by == "content":
        return near_duplicates.leaders_by_pairs(
            order, _kinds(_contents(rows).dictionary_encode()), np.zeros((0, 2), np.int64)
        )
    sketching = find(context.manifest.modality).sketching
    if sketching is None or SKETCH not in rows.column_names:
        raise refusal("The rows have no sketches.", "Call create_dataset again on the source, then repeat the call.")
    column: Any = rows[SKETCH].combine_chunks()
    if isinstance(sketching, SketchingByPart):
        if part is None:
            return near_duplicates.leaders_by_pairs(
                order, _near_mixed_rows(rows, sketching, parameters.threshold), np.zeros((0, 2), np.int64)
            )
        of_part = sketching.columns(column.to_pylist(), part.own).get(str(part))
        if of_part is None:
            raise refusal(f"The part {part.own!r} has no sketches.", "Call again with by='content' or by='embedding'.")
        column, sketching = pa.array(of_part.sketches, pa.binary()), of_part.sketching
    sketches = column.dictionary_encode()
    pairs = near_duplicates.near_duplicate_pairs(sketches.dictionary.to_pylist(), sketching, parameters.threshold)
    return near_duplicates.leaders_by_pairs(order, _kinds(sketches), pairs)


def _near_mixed_rows(rows: pa.Table, sketching: SketchingByPart, threshold: float | None) -> near_duplicates.Places:
    """(N,) the same number for mixed rows that have the same parts and are near in each of them."""
    each = [_near_in_part(rows, sketching, part, threshold) for part in parts_of(rows)]
    kinds = np.unique(np.stack(each, axis=1), axis=0, return_inverse=True)[1]
    return kinds.reshape(-1).astype(np.int64)


def _near_in_part(
    rows: pa.Table, sketching: SketchingByPart, part: PartName, threshold: float | None
) -> near_duplicates.Places:
    """(N,) the same number for rows that are near in this part, or equal in it if it is too small to compare.

    -1 if the part is missing, and a number of its own if it was cut.
    """
    own = part_digests(rows, part)
    near_ones = near_duplicates.clusters(
        len(own), near_duplicates.near_duplicate_pairs(rows[SKETCH], sketching, threshold, part.own)
    )
    first: dict[bytes, int] = {}
    there = rows_with_part(rows, part)
    found = [int(code) if digest is None else first.setdefault(digest, int(code))
             for code, digest in zip(near_ones, own, strict=True)]  # fmt: skip
    return np.where(there, np.array(found, np.int64), -1)


def _preference_order(rows: pa.Table) -> list[int]:
    """Places, best first."""
    rank = {name: place for place, name in enumerate(KEEP_FIRST)}
    split = [rank.get(name, len(rank)) for name in rows["split"].to_pylist()]
    label, group = (rows[name].is_null().to_pylist() for name in ("label", "group_key"))
    width, height, size = (_numbers(rows, name) for name in ("width", "height", "bytes"))
    pixels = (-width * height).tolist()
    keys = list(zip(split, label, group, pixels, (-size).tolist(), rows["id"].to_pylist(), strict=True))
    return sorted(range(rows.num_rows), key=keys.__getitem__)


def _numbers(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """(N,) of a column of the file's header, 0 without a value; a user's own column of that name counts as one."""
    kind = rows[name].type if name in rows.column_names else pa.null()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.zeros(rows.num_rows)
    return np.nan_to_num(np.asarray(rows[name].cast(pa.float64()).fill_null(0.0), np.float64))


def _contents(rows: pa.Table) -> pa.Array:
    """The input of each row: a window of a medium differs from its other windows."""
    content = pc.coalesce(rows[CONTENT], rows[KEY])
    bounds = [pc.fill_null(rows[name].cast(pa.string()), "") for name in (START, STOP) if name in rows.column_names]
    return pc.binary_join_element_wise(content, *bounds, "/").combine_chunks()


def _kinds(encoded: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    """(N,) the place of each value in the dictionary; a null equals no other."""
    number = np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), -1)).copy()
    null = number < 0
    number[null] = len(encoded.dictionary) + np.arange(null.sum())
    return number


class Cluster(TypedDict):
    kept: str
    """Id."""
    removed: int
    ids: list[str]
    """Some of those."""


class LabelConflict(TypedDict):
    kept: str
    """Id."""
    labels: dict[str, int]
    """How often each occurs in the cluster."""


class _Audit(TypedDict):
    clusters: int
    largest: int
    removed_by_split: dict[str, int]
    largest_clusters: list[Cluster]
    conflicting_labels: NotRequired[int]
    conflicts: NotRequired[list[LabelConflict]]


def _audit(rows: pa.Table, leader: near_duplicates.Places) -> _Audit:
    removed = leader != np.arange(len(leader))
    sizes = np.bincount(leader, minlength=len(leader))
    sizes = sizes[sizes > 1]
    audit: _Audit = {
        "clusters": len(sizes),
        "largest": int(sizes.max(initial=0)),
        "removed_by_split": _by_split(rows, removed),
        "largest_clusters": _largest(rows["id"].to_pylist(), leader),
    }
    if conflicts := _conflicts(rows, leader):
        audit["conflicting_labels"] = len(conflicts)
        audit["conflicts"] = conflicts[:_SHOWN]
    return audit


def _largest(ids: list[str], leader: near_duplicates.Places) -> list[Cluster]:
    """The largest clusters, for a person to check first."""
    members: dict[int, list[str]] = defaultdict(list)
    for item in np.flatnonzero(leader != np.arange(len(leader))).tolist():
        members[int(leader[item])].append(ids[item])
    order = sorted(members, key=lambda lead: (-len(members[lead]), ids[lead]))[:_CLUSTERS_SHOWN]
    return [{"kept": ids[lead], "removed": len(members[lead]), "ids": sorted(members[lead])[:_SHOWN]} for lead in order]


def _by_split(rows: pa.Table, removed: npt.NDArray[np.bool_]) -> dict[str, int]:
    return dict(Counter(str(name or "none") for name in keep_rows(rows, removed)["split"].to_pylist()).most_common())


def _conflicts(rows: pa.Table, leader: near_duplicates.Places) -> list[LabelConflict]:
    """Clusters with different labels."""
    ids, labels = rows["id"].to_pylist(), rows["label"].to_pylist()
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for item, lead in enumerate(leader.tolist()):
        if labels[item] is not None:
            found[lead][clean(str(labels[item]))] += 1
    return [
        {"kept": ids[lead], "labels": dict(counts.most_common(_SHOWN))}
        for lead, counts in sorted(found.items(), key=lambda each: ids[each[0]])
        if len(counts) > 1
    ]


def comparable_vectors(vectors: Vectors, modality: str, extractor: str | None) -> Vectors:
    """(N, D) of length 1, whose products are similarities; 0 for one that is like no other."""
    if extractor not in (None, DESCRIPTOR):
        return _normalise(vectors)
    if modality in _PATTERNS:
        return _normalise(vectors - vectors.mean(axis=1, keepdims=True))
    if modality in _MEASUREMENTS and len(vectors) > 1:
        mean, spread = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
        spread[spread < _NO_SPREAD] = 1.0
        return _normalise((vectors - mean.astype(np.float32)) / spread.astype(np.float32))
    return _normalise(vectors)


def least_cosine(modality: str, extractor: str | None) -> float:
    """The default product from which two media are near-duplicates."""
    return PATTERN if extractor in (None, DESCRIPTOR) and modality in _PATTERNS else COSINE


def _normalise(vectors: Vectors) -> Vectors:
    """Each of length 1; one without direction stays 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


DEDUPLICATE = Operation(
    name="deduplicate",
    what="keep one of several examples that are equal or nearly so",
    parameters=DeduplicateParameters,
    preflight=preflight,
    apply=apply,
    check_rows=check_rows,
    refers={"extractor": "extractor"},
    takes_cores=lambda parameters: parameters.by == "embedding",
)
