"""The examples of a version that lie nearest to one of them or to a text; runs in a service process.

Exact: the cosine to every vector. A process keeps the vectors of the versions that it was asked about last.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from speciate import features
from speciate.datasets import scan
from speciate.datasets.columns import CONTENT, START, STOP
from speciate.datasets.inputs import input_values
from speciate.datasets.similarity import extractors, similar
from speciate.datasets.similarity.extractors import Extractor
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.models.encoders import Vectors
from speciate.workspace.workspace import Folders

ROWS = ("id", "label", "split", "source")
SHOWN = (*ROWS, "content")
_SHOWN_CHARACTERS = 200
_ROOM = 1 << 30
"""Bytes of vectors that a process keeps; the version asked about last stays whatever its size."""


class Index(NamedTuple):
    rows: pa.Table
    """Usable rows, sorted by id: `ROWS`."""
    units: Vectors
    """(N, D) each of length 1, or 0 where it has no direction."""


_kept: OrderedDict[tuple[str, str, str], Index] = OrderedDict()


def nearest(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {root, manifest, extractor, id, text, split, k} -> {extractor, neighbours: [[id, distance]], rows},
    or {extractor, missing} where so many examples have no vector yet.

    `rows`: of `SHOWN`, first the example that was asked about. Distance: 1 - cosine, 0 to 2; of equal ones the smaller
    id is first.
    """
    folders, manifest = Folders(Path(payload["root"])), Manifest.model_validate(payload["manifest"])
    extractor = extractors.load(payload["extractor"], manifest.modality, folders)
    _check_text(payload["text"], extractor, manifest)
    index = _index(folders, manifest, extractor)
    if isinstance(index, int):
        return {"extractor": extractor.id, "missing": index}
    asked = None if payload["id"] is None else _place(index, manifest, payload["id"])
    unit = _embedded(payload["text"], extractor) if asked is None else index.units[asked]
    candidates = np.ones(len(index.units), bool)
    if payload["split"] is not None:
        candidates = np.asarray(index.rows["split"].to_numpy() == payload["split"])
    if asked is not None:
        candidates[asked] = False
    places, distances = closest(index.units, unit, candidates, payload["k"])
    shown = index.rows.take(pa.array([*([] if asked is None else [asked]), *places.tolist()], pa.int64()))
    ids = index.rows["id"].take(pa.array(places)).to_pylist()
    return {
        "extractor": extractor.id,
        "neighbours": list(zip(ids, distances.astype(float).round(6).tolist(), strict=True)),
        "rows": _with_content(folders, manifest, [list(row.values()) for row in shown.to_pylist()]),
    }


def _with_content(folders: Folders, manifest: Manifest, rows: list[list[Any]]) -> list[list[Any]]:
    """What a model sees of each, as far as it is a cell; None where it is a file."""
    if not manifest.inputs:
        return [[*row, None] for row in rows]
    table = scan.read(folders, manifest, ["id", *manifest.inputs], ids=[row[0] for row in rows])
    values = input_values(manifest.modality, manifest.inputs, table)
    shown = {name: str(value)[:_SHOWN_CHARACTERS] for name, value in zip(table["id"].to_pylist(), values, strict=True)}
    return [[*row, shown.get(row[0])] for row in rows]


def closest(units: Vectors, unit: Vectors, candidates: features.Known, k: int) -> tuple[Any, Any]:
    """(K,) places and (K,) distances of the candidates nearest to `unit` (D,), nearest first."""
    distance = np.where(candidates, np.clip(1 - units @ unit, 0, 2), np.inf)
    k = min(k, int(candidates.sum()))
    if not k:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    within = np.flatnonzero(distance <= np.partition(distance, k - 1)[k - 1])
    places = within[np.argsort(distance[within], kind="stable")][:k]
    return places, distance[places]


def _index(folders: Folders, manifest: Manifest, extractor: Extractor) -> Index | int:
    """The vectors of all usable rows; how many lack one, where some do."""
    key = (str(folders.root), manifest.id, extractor.id)
    if key not in _kept:
        rows = scan.read(folders, manifest, [*ROWS, CONTENT, START, STOP], usable=True)
        cached = features.read(folders, extractor.id, similar.keys(rows))
        if not cached.known.all():
            return int((~cached.known).sum())
        _kept[key] = Index(rows.select(list(ROWS)).combine_chunks(), _normalise(cached.vectors))
    _kept.move_to_end(key)
    while len(_kept) > 1 and sum(index.units.nbytes for index in _kept.values()) > _ROOM:
        _kept.popitem(last=False)
    return _kept[key]


def _normalise(vectors: Vectors) -> Vectors:
    """In place."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    vectors /= np.where(lengths > 0, lengths, 1)[:, np.newaxis]
    return vectors


def _place(index: Index, manifest: Manifest, id: str) -> int:  # noqa: A002 - the field
    place = int(pa.compute.index(index.rows["id"], id).as_py())
    if place < 0:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{manifest.ref} has no usable example {id!r}; only those of quality ok are compared.",
            f"Call query_dataset(dataset={manifest.ref!r}, where=\"id = '...'\") to see what an example is.",
        )
    return place


def _embedded(text: str, extractor: Extractor) -> Vectors:
    try:
        medium = find(extractor.modality).admit(text)
    except DecodeError as error:
        why = f"The text cannot be used: {error}"
        raise SpeciateError(Code.INVALID, why, "Call again with another text.") from error
    ((_, vectors),) = extractor.embed([medium])
    unit: Vectors = _normalise(np.array(vectors, np.float32))[0]
    return unit


def _check_text(text: str | None, extractor: Extractor, manifest: Manifest) -> None:
    if text is None or extractor.takes_text:
        return
    able = [f"{choice.name} ({choice.modality})" for choice in extractors.choices() if choice.takes_text]
    raise SpeciateError(
        Code.INVALID,
        f"{extractor.name!r} takes no text, as the examples of {manifest.ref} are {manifest.modality}.",
        f"Call again with id of an example. Extractors that take text: {', '.join(able)}.",
    )
