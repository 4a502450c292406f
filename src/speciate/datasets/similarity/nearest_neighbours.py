"""Nearest neighbours of an example or a text among the examples of a version. Missing vectors are a job's work
(embed.py).

Exact: the cosine to every vector. `nearest` runs in a service process, which keeps the vectors of the latest versions;
all else runs in the daemon.
"""

from __future__ import annotations

import base64
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from speciate import features
from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, START, STOP
from speciate.datasets.identity import input_values
from speciate.datasets.inspect.contact_sheet import SheetRequest
from speciate.datasets.similarity import embed, extractors
from speciate.datasets.similarity.extractors import Extractor
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job, State
from speciate.jobs.pool import Pool, ServiceAnswer
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.models.encoders import Vectors
from speciate.workspace.workspace import Folders

_NEAREST = "speciate.datasets.similarity.nearest_neighbours:nearest"
_DRAW = "speciate.datasets.inspect.contact_sheet:draw_thumbnails"
_WAIT_SECONDS = 28.0
_SECONDS = 42.0
"""Seconds for the whole call without the contact sheet: loading a model for a text may take half of it."""
_MOST_DRAWN = 36
ROWS = ("id", "label", "split", "source")
SHOWN = (*ROWS, "content")
_SHOWN_CHARACTERS = 200
_ROOM = 1 << 30
"""Bytes of vectors and inputs that a process keeps; the latest version stays whatever its size."""
_INPUTS_ROOM = 1 << 28
"""Bytes of a version's inputs up to which they are kept beside its vectors, to be shown."""
_indexes: OrderedDict[tuple[str, str, str], Index] = OrderedDict()


class NeighbourQuery(NamedTuple):
    """The nearest to example `id`, or to `text`, among the usable examples, of one split if it is named."""

    id: str | None
    text: str | None
    extractor: str | None
    split: str | None
    k: int


class NearestRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path
    manifest: Manifest
    extractor: str
    id: str | None
    text: str | None
    split: str | None
    k: int


class Neighbours(NamedTuple):
    """`nearest`: ids with their distance, 1 - cosine. `rows`: foreign text, first the example of the query.

    `contact_sheet`: PNG of the same examples in the same order; None if they are cells of a table.
    """

    extractor: str
    nearest: list[tuple[str, float]]
    columns: tuple[str, ...]
    rows: list[list[Any]]
    contact_sheet: bytes | None


def find_neighbours(engine: Engine, pool: Pool, manifest: Manifest, query: NeighbourQuery) -> Neighbours | Job:
    """The neighbours, or the job that embeds the version if that takes longer than a call may wait.

    Raises INVALID, NOT_FOUND or MISSING_EXTRA for the query, UNAVAILABLE if the job failed.
    """
    request, end = _request(engine, manifest, query), time.monotonic() + _SECONDS
    answer = pool.ask(_NEAREST, request.model_dump(mode="json"), _SECONDS)
    if "missing" in answer:
        job = _embedding(engine, manifest, request.extractor, answer["extractor"])
        job = engine.wait(job.id, timeout=_WAIT_SECONDS)
        if job.state not in ENDED:
            return job
        answer = _ask_within(job, pool, request, max(end - time.monotonic(), 1))
    return _neighbours(pool, request, answer)


def neighbours_at_hand(engine: Engine, pool: Pool, manifest: Manifest, query: NeighbourQuery) -> Neighbours | None:
    """`find_neighbours`, but None where examples have no vectors yet: no job is started."""
    request = _request(engine, manifest, query)
    answer = pool.ask(_NEAREST, request.model_dump(mode="json"), _SECONDS)
    return None if "missing" in answer else _neighbours(pool, request, answer)


def _request(engine: Engine, manifest: Manifest, query: NeighbourQuery) -> NearestRequest:
    if (query.id is None) == (query.text is None):
        raise SpeciateError(
            Code.INVALID,
            "Neither id nor text was given." if query.id is None else "Both id and text were given.",
            "Call find_similar with one of them.",
        )
    parts = version_rows.part_modalities(engine.workspace.folders, manifest)
    return NearestRequest(
        root=engine.workspace.folders.root,
        manifest=manifest,
        extractor=extractors.resolve(query.extractor, manifest.modality, engine.workspace, parts),
        id=query.id,
        text=query.text,
        split=query.split,
        k=query.k,
    )


def _neighbours(pool: Pool, request: NearestRequest, answer: ServiceAnswer) -> Neighbours:
    nearest = [(str(id), float(distance)) for id, distance in answer["neighbours"]]  # noqa: A001 - the field
    ids = [row[0] for row in answer["rows"]]
    contact_sheet = _contact_sheet(pool, Folders(request.root), request.manifest, ids)
    return Neighbours(request.extractor, nearest, SHOWN, answer["rows"], contact_sheet)


def _embedding(engine: Engine, manifest: Manifest, name: str, extractor: str) -> Job:
    """The running job, or a new one: with a key for each time that it was needed."""
    spec, number = {"dataset": manifest.ref, "extractor": name}, 0
    while True:
        job = engine.submit("embed", spec, key=f"embed/{manifest.ref}/{manifest.id[:16]}/{extractor}/{number}")
        if job.state not in ENDED:
            return job
        number += 1


def _ask_within(job: Job, pool: Pool, request: NearestRequest, timeout: float) -> ServiceAnswer:
    if job.state != State.SUCCEEDED:
        why = (job.error or {}).get("message") or job.reason or job.state
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The examples could not be embedded: {why}",
            next=[Call("get_job", {"job": job.id}, ", or find_similar with another extractor")],
        )
    answer = pool.ask(_NEAREST, request.model_dump(mode="json"), timeout)
    if "missing" in answer:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"{answer['missing']:,} examples have no vector although {job.id} has ended.",
            "Repeat the call.",
        )
    return answer


def _contact_sheet(pool: Pool, folders: Folders, manifest: Manifest, ids: list[str]) -> bytes | None:
    if manifest.inputs and find(manifest.modality).window_unit is None:
        return None
    request = SheetRequest(root=folders.root, manifest=manifest, ids=tuple(ids[:_MOST_DRAWN]))
    return base64.b64decode(pool.ask(_DRAW, request.model_dump(mode="json"))["png"])


class Index(NamedTuple):
    rows: pa.Table
    """Usable rows, sorted by id: `ROWS`."""
    units: Vectors
    """(N, D) each of length 1, or 0 if it has no direction."""
    inputs: pa.Table | None
    """The input columns of the same rows; None where they are files, or too large to be kept."""

    @property
    def nbytes(self) -> int:
        return self.units.nbytes + (self.inputs.nbytes if self.inputs is not None else 0)


class NearestAnswer(TypedDict):
    extractor: str
    neighbours: list[tuple[str, float]]
    """Ids and distances: 1 - cosine, 0 to 2; of equal ones the smaller id is first."""
    rows: list[list[Any]]
    """Cells of `SHOWN` for each example, first the example of the query."""


class VectorsMissing(TypedDict):
    extractor: str
    missing: int
    """How many examples have no vector yet."""


def nearest(payload: Mapping[str, object]) -> NearestAnswer | VectorsMissing:
    """The service. `payload`: a NearestRequest."""
    request = NearestRequest.model_validate(payload)
    folders, manifest = Folders(request.root), request.manifest
    extractor = extractors.load(request.extractor, manifest.modality, folders)
    _check_text(request.text, extractor, manifest)
    index = _index(folders, manifest, extractor)
    if isinstance(index, int):
        return {"extractor": extractor.id, "missing": index}
    place = None if request.id is None else _place(index, manifest, request.id)
    unit = _embed_text(request.text or "", extractor) if place is None else index.units[place]
    candidates = np.ones(len(index.units), bool)
    if request.split is not None:
        candidates = np.array(pc.fill_null(pc.equal(index.rows["split"], request.split), False))
    if place is not None:
        candidates[place] = False
    places, distances = closest(index.units, unit, candidates, request.k)
    shown = pa.array([*([] if place is None else [place]), *places.tolist()], pa.int64())
    ids = index.rows["id"].take(pa.array(places)).to_pylist()
    return {
        "extractor": extractor.id,
        "neighbours": list(zip(ids, distances.astype(float).round(6).tolist(), strict=True)),
        "rows": _with_content(folders, manifest, index, shown),
    }


def _with_content(folders: Folders, manifest: Manifest, index: Index, places: pa.Array) -> list[list[Any]]:
    """The rows at these places with the model's input of each, if it is a cell; None if it is a file."""
    rows = [list(row.values()) for row in index.rows.take(places).to_pylist()]
    if not manifest.inputs:
        return [[*row, None] for row in rows]
    if index.inputs is not None:
        values = input_values(manifest.modality, manifest.inputs, index.inputs.take(places))
        return [[*row, str(value)[:_SHOWN_CHARACTERS]] for row, value in zip(rows, values, strict=True)]
    table = version_rows.read(folders, manifest, ["id", *manifest.inputs], ids=[row[0] for row in rows])
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
    """The vectors of all usable rows; or how many rows lack one."""
    key = (str(folders.root), manifest.id, extractor.id)
    if key not in _indexes:
        small = bool(manifest.inputs) and version_rows.stored_bytes(folders, manifest, manifest.inputs) <= _INPUTS_ROOM
        wanted = dict.fromkeys([*ROWS, CONTENT, START, STOP, *(manifest.inputs if small else ())])
        with ThreadPoolExecutor(1, thread_name_prefix="check") as beside:
            checked = beside.submit(features.check, folders, extractor.id)
            rows = version_rows.read(folders, manifest, list(wanted), usable=True)
            checked.result()
        cached = features.read(folders, extractor.id, embed.vector_keys(rows))
        if not cached.known.all():
            return int((~cached.known).sum())
        inputs = rows.select(list(manifest.inputs)).combine_chunks() if small else None
        kept = inputs if inputs is not None and inputs.nbytes <= _INPUTS_ROOM else None
        _indexes[key] = Index(rows.select(list(ROWS)).combine_chunks(), _normalise(cached.vectors), kept)
    _indexes.move_to_end(key)
    while len(_indexes) > 1 and sum(index.nbytes for index in _indexes.values()) > _ROOM:
        _indexes.popitem(last=False)
    return _indexes[key]


def _normalise(vectors: Vectors) -> Vectors:
    """Scales vectors (N, D) to length 1, in place."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    vectors /= np.where(lengths > 0, lengths, 1)[:, np.newaxis]
    return vectors


def _place(index: Index, manifest: Manifest, id: str) -> int:  # noqa: A002 - the field
    place = int(pc.index(index.rows["id"], id).as_py())
    if place < 0:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{manifest.ref} has no usable example {id!r}; only examples of quality ok are compared.",
            next=[Call("query_dataset", {"dataset": manifest.ref, "where": "id = '...'"}, "to see what an example is")],
        )
    return place


def _embed_text(text: str, extractor: Extractor) -> Vectors:
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
