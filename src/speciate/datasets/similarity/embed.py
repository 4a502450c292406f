"""The job kind `embed`, and the vectors of a version's rows, each computed once for all versions with the same medium.

The job changes no dataset and registers nothing: its vectors lie in the cache of features, part by part, where the next
attempt, other jobs and other datasets find them. Media are decoded and described in sandboxed processes: only a file of
float32 vectors leaves them, never pixels. Memory stays flat but for the vectors themselves.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from speciate import features
from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, START, STOP
from speciate.datasets.consent import check_place
from speciate.datasets.identity import input_values
from speciate.datasets.loading.decoding import (
    Decoder,
    cached_reader,
    cut_window,
    decode_item,
    invalid_answer_error,
    undecodable_error,
)
from speciate.datasets.loading.loader import admit_media, items, packs
from speciate.datasets.similarity import extractors
from speciate.datasets.similarity.extractors import DESCRIPTOR, Extractor
from speciate.datasets.version_files import as_inputs, version_files
from speciate.datasets.versions import Manifest, resolve
from speciate.environment import cores
from speciate.errors import Code, SpeciateError
from speciate.jobs.egress import Departure, NotAllowed
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.pool import FileAnswer, Pool, ServiceAnswer
from speciate.jobs.run import Run, Stopped
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.modalities.multimodal import PartName
from speciate.models.encoders import Precision, Vectors, fastest_precision
from speciate.sandbox import check
from speciate.settings import in_force
from speciate.workspace.workspace import Folders, Workspace

_BATCH = 512
"""Media that are decoded before a model embeds them."""
_PART_ROWS, _PART_SECONDS = 65_536, 30.0
"""What was computed is kept at the latest after so many, or so long."""
_SERVICE = "speciate.datasets.similarity.embed:describe_part"
_CHUNK = 256  # items
_AHEAD = 2  # chunks per process
_SECONDS = 120.0
_VECTORS = "vectors"


class EmbedSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    extractor: str | None = None
    """None: a base model of the modality where one is installed, else its descriptor."""


class EmbedResult(TypedDict):
    dataset: str
    extractor: str
    computed: int
    """Vectors."""
    cached: int


class PartRequest(TypedDict):
    modality: str
    part: str | None
    """For mixed rows: the part that vectors are made of."""
    packs: list[str]
    values: Sequence[object] | None
    """The input columns, None if the media are files."""
    items: Sequence[tuple[str, float | None, float | None]]
    """Content, start and stop of each."""


class DescribedPart(FileAnswer):
    """The file has a row of float32 numbers for each of the first items."""

    width: int
    failure: str | None
    """Why it ended before the last of the items."""


class Payload(BaseModel):
    """What the plan found out for the run."""

    model_config = ConfigDict(frozen=True)
    manifest: Manifest
    extractor: str
    id: str | None = None
    """At a place: the extractor's id, under which its vectors are looked for here."""
    folder: str | None = None
    """At a place: where its weights lie; None for a descriptor."""
    precision: Precision = "float32"
    """At a place: of this machine's vectors."""


def plan(spec: EmbedSpec, workspace: Workspace) -> Plan:
    manifest = resolve(workspace.database, spec.dataset)
    parts = version_rows.part_modalities(workspace.folders, manifest)
    name = extractors.resolve(spec.extractor, manifest.modality, workspace, parts)
    model = name != extractors.DESCRIPTOR
    if not manifest.inputs or not model:
        check(workspace.settings.cage)
    payload = Payload(manifest=manifest, extractor=name)
    place, leaving, beside = _place_for(payload, workspace), tuple[Departure, ...](), dict[str, str]()
    if place is not None:
        try:
            leaving, beside = check_place(workspace, [manifest.ref], place), {"place": place}
        except NotAllowed as why:
            place, beside = None, {"runs_here": why.sentence}
    if place is not None:
        payload = _as_sent(payload, workspace)
    return Plan(
        payload=payload.model_dump(mode="json"),
        resources=Resources(cpu=1, memory_mb=2048 if model else 1024, place=place),
        inputs=_inputs(payload, workspace.folders) if place else (),
        departures=leaving,
        preload="networks" if model else "data",
        resolved={"dataset": manifest.ref, "extractor": name, **beside},
    )


def _place_for(payload: Payload, workspace: Workspace) -> str | None:
    """The first place that takes the kind, where it is to compute most of the vectors; None: this machine.

    A node knows none of the vectors that are here, so it computes them all.
    """
    settings, manifest = workspace.settings, payload.manifest
    place = settings.place_taking("embed")
    if place is None or settings.trust.require_signature:
        return None
    extractor = extractors.load(payload.extractor, manifest.modality, workspace.folders)
    rows = version_rows.read(workspace.folders, manifest, usable=True)
    lacking = len(missing_vectors(workspace.folders, extractor, vector_keys(rows)))
    return place if 2 * lacking > rows.num_rows else None


def _as_sent(payload: Payload, workspace: Workspace) -> Payload:
    extractor = extractors.load(payload.extractor, payload.manifest.modality, workspace.folders)
    folder = extractors.folder_of(payload.extractor, workspace.folders)
    return payload.model_copy(
        update={"id": extractor.id, "folder": folder and str(folder), "precision": fastest_precision()}
    )


def _inputs(payload: Payload, folders: Folders) -> tuple[str, ...]:
    weights = [Path(payload.folder)] if payload.folder else []
    return as_inputs([*version_files(payload.manifest, folders, media=True), *weights], folders)


def run(run: Run) -> EmbedResult:
    payload = Payload.model_validate(run.payload)
    manifest = payload.manifest
    if payload.id is None:
        extractor = extractors.load(payload.extractor, manifest.modality, run.folders, cores())
    else:
        extractor = _begin_at_place(run, payload)

    def progress(done: int, total: int) -> None:
        if run.stopping:
            raise Stopped
        run.progress(done, total, "examples", f"embedding with {extractor.name}")

    rows = version_rows.read(run.folders, manifest, usable=True)
    counts = fill_vectors(run.folders, manifest, rows, extractor, progress)
    if payload.id is not None:
        (run.checkpoints / _VECTORS).rename(run.outputs / _VECTORS)
    return {"dataset": manifest.ref, "extractor": extractor.name, "computed": counts.computed, "cached": counts.cached}


def _begin_at_place(run: Run, payload: Payload) -> Extractor:
    """Its cache lies in its checkpoints, so that the next attempt has what this one computed."""
    weights = Path(payload.folder) if payload.folder else None
    modality = payload.manifest.modality
    extractor = extractors.load_from(weights, payload.extractor, modality, cores(), payload.precision)
    if extractor.id != payload.id:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The vectors of this node would be those of {extractor.id}, and {payload.id} is asked for.",
            "Install the same version of speciate and of its libraries there, or leave `embed` out of `kinds`.",
        )
    own = run.checkpoints / _VECTORS
    own.mkdir(exist_ok=True)
    for part in (part for earlier in run.resume_from for part in (earlier.checkpoints / _VECTORS).glob("*.parquet")):
        if not (own / part.name).exists():
            shutil.copy(part, own / part.name)
    run.folders.features.mkdir(parents=True, exist_ok=True)
    (run.folders.features / extractor.id).symlink_to(own)
    return extractor


def collect(folder: RunFolder) -> Mapping[str, Any]:
    """Takes in the vectors that a node computed, of rows that are still there."""
    payload = Payload.model_validate(folder.spec()["payload"])
    if payload.id is not None:
        folders = Folders(Path(folder.spec()["workspace"]))
        rows = version_rows.read(folders, payload.manifest, usable=True)
        features.adopt(folders, payload.id, folder.outputs / _VECTORS, vector_keys(rows))
    return folder.result() or {}


class VectorCounts(NamedTuple):
    computed: int
    cached: int


def _no_progress(done: int, total: int) -> None:
    pass


def row_vectors(
    folders: Folders,
    manifest: Manifest,
    rows: pa.Table,
    extractor: str | None = None,
    progress: Callable[[int, int], None] = _no_progress,
    part: PartName | None = None,
) -> Vectors:
    """(N, D) float32 of usable rows, in their order: from the cache, the rest computed now and cached.

    `part`: of mixed rows that all have it, instead of the whole. `extractor` None: the modality's descriptor.
    `progress(done, total)` counts computed vectors and may raise to stop. Raises NOT_FOUND, INVALID or MISSING_EXTRA
    for the extractor, INVALID if a medium no longer decodes.
    """
    modality = part.modality if part else manifest.modality
    chosen = extractors.load(extractor or DESCRIPTOR, modality, folders, cores())
    fill_vectors(folders, manifest, rows, chosen, progress, part)
    cached = features.read(folders, chosen.id, vector_keys(rows, part))
    if not cached.known.all():
        raise SpeciateError(
            Code.UNAVAILABLE,
            "Vectors that were just computed are missing: something removed them meanwhile.",
            "Repeat the call.",
        )
    return cached.vectors


def fill_vectors(
    folders: Folders,
    manifest: Manifest,
    rows: pa.Table,
    extractor: Extractor,
    progress: Callable[[int, int], None] = _no_progress,
    part: PartName | None = None,
) -> VectorCounts:
    """Computes and caches the vectors that usable rows lack. Computed vectors are kept, whatever ends it."""
    names = vector_keys(rows, part)
    lacking = missing_vectors(folders, extractor, names)
    rest, names = rows.take(pa.array(lacking)), names.take(pa.array(lacking))
    waiting: list[Vectors] = []
    written = done = 0
    since = time.monotonic()

    def keep() -> None:
        nonlocal written, since
        if done > written:
            features.write(folders, extractor.id, names.slice(written, done - written), np.concatenate(waiting))
        waiting.clear()
        written, since = done, time.monotonic()

    try:
        for computed in _compute_vectors(folders, manifest, rest, extractor, part):
            waiting.append(computed)
            done += len(computed)
            if done - written >= _PART_ROWS or time.monotonic() - since >= _PART_SECONDS:
                keep()
            progress(done, rest.num_rows)
    finally:
        keep()
    return VectorCounts(done, rows.num_rows - done)


def missing_vectors(folders: Folders, extractor: Extractor, names: pa.Array) -> npt.NDArray[np.int64]:
    """Positions of the keys without a vector, each key once."""
    lacking = np.flatnonzero(~features.known(folders, extractor.id, names))
    codes = np.asarray(names.take(pa.array(lacking)).dictionary_encode().indices)
    return lacking[np.sort(np.unique(codes, return_index=True)[1])].astype(np.int64)


def vector_keys(rows: pa.Table, part: PartName | None = None) -> pa.Array:
    """(N,) the keys in the cache: the content, the part, and the window of it that the example is."""
    content = rows[CONTENT].combine_chunks()
    content = content if part is None else pc.binary_join_element_wise(content, str(part), "#")
    if START not in rows.column_names or rows[START].null_count == rows.num_rows:
        return content
    bounds = [rows[name].combine_chunks().cast(pa.string()) for name in (START, STOP)]
    windows = pc.binary_join_element_wise(content, *bounds, ":")
    return pc.coalesce(windows, content)


def _compute_vectors(
    folders: Folders, manifest: Manifest, rows: pa.Table, extractor: Extractor, part: PartName | None
) -> Iterator[Vectors]:
    """(B, D) at a time, in the order of the rows."""
    if extractor.sandboxed:
        yield from describe_media(folders, manifest, rows, part)
        return
    for whole in _media(folders, manifest, rows):
        media = whole if part is None else [media[str(part)] for media in whole]
        batches = list(extractor.embed(media))
        order = np.concatenate([places for places, _ in batches])
        found = np.empty((len(media), batches[0][1].shape[1]), np.float32)
        found[order] = np.concatenate([batch for _, batch in batches])
        yield found


def _media(folders: Folders, manifest: Manifest, rows: pa.Table) -> Iterator[list[Any]]:
    if manifest.inputs:
        for start in range(0, rows.num_rows, _BATCH):
            yield admit_media(manifest, rows.slice(start, _BATCH))
        return
    with Decoder(folders, packs(folders, manifest), manifest.modality) as decoder:
        decoded = decoder.decode(items(rows))
        while media := list(itertools.islice(decoded, _BATCH)):
            yield media


def describe_media(
    folders: Folders, manifest: Manifest, rows: pa.Table, part: PartName | None = None
) -> Iterator[Vectors]:
    """(B, D) at a time, in the order of the rows, by one process per core. `part`: of mixed rows.

    INVALID, naming the example, if one cannot be decoded.
    """
    chunks = iter([rows.slice(start, _CHUNK) for start in range(0, rows.num_rows, _CHUNK)])
    workers = min(cores(), -(-rows.num_rows // _CHUNK))
    if not workers:
        return
    pool = Pool(folders, in_force(folders.root), size=workers)
    threads = ThreadPoolExecutor(workers, thread_name_prefix="describe")
    flights: deque[Future[Vectors]] = deque()
    try:
        for chunk in itertools.islice(chunks, workers * _AHEAD):
            flights.append(threads.submit(_ask_for_vectors, pool, folders, manifest, chunk, part))
        while flights:
            yield flights.popleft().result()
            for chunk in itertools.islice(chunks, 1):
                flights.append(threads.submit(_ask_for_vectors, pool, folders, manifest, chunk, part))
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        pool.close()


def describe_part(payload: PartRequest) -> DescribedPart:
    """The service. It ends before an item that cannot be decoded."""
    kind, values, part = find(payload["modality"]), payload["values"], payload["part"]
    reader = None if values is not None else cached_reader(tuple(payload["packs"]))
    vectors, failure = [], None
    for place, (content, start, stop) in enumerate(payload["items"]):
        try:
            if reader is None:
                assert values is not None
                media = cut_window(kind.name, kind.admit(values[place]), start, stop)
            else:
                media = decode_item(kind, reader.get(content), start, stop)
            vectors.append(kind.features(media) if part is None else _of_part(media, part))
        except (DecodeError, SpeciateError) as error:
            failure = error.message if isinstance(error, SpeciateError) else str(error)
            break
    path = Path.cwd() / "described"
    path.write_bytes(np.asarray(vectors, np.float32).tobytes())
    return {"file": path.name, "width": len(vectors[0]) if vectors else 0, "failure": failure}


def _of_part(media: Mapping[str, Any], part: str) -> Any:
    if media.get(part) is None:
        raise DecodeError("error", f"It has no part {part!r}.")
    return find(part.rpartition(".")[2]).features(media[part])


def _ask_for_vectors(
    pool: Pool, folders: Folders, manifest: Manifest, rows: pa.Table, part: PartName | None
) -> Vectors:
    requests = items(rows)
    payload: PartRequest = {
        "modality": manifest.modality,
        "part": None if part is None else str(part),
        "packs": [str(pack) for pack in packs(folders, manifest)],
        "values": input_values(manifest.modality, manifest.inputs, rows) if manifest.inputs else None,
        "items": [(item.content, item.start, item.stop) for item in requests],
    }

    def read(path: Path, answer: ServiceAnswer) -> Vectors:
        """Checked: it comes from a process that met foreign bytes."""
        width, data = answer["width"], path.read_bytes()
        if not isinstance(width, int) or width < 0 or len(data) % max(4 * width, 1) or (data and not width):
            raise invalid_answer_error()
        vectors = np.frombuffer(data, np.float32).reshape(-1, width) if width else np.zeros((0, 0), np.float32)
        if answer["failure"] is not None and len(vectors) < len(requests):
            raise undecodable_error(requests[len(vectors)].id, str(answer["failure"]))
        if len(vectors) != len(requests) or not np.isfinite(vectors).all():
            raise invalid_answer_error()
        return vectors

    try:
        return pool.ask_for_file(_SERVICE, payload, read, _SECONDS)
    except SpeciateError as error:
        if error.code != Code.UNAVAILABLE:
            raise
        return pool.ask_for_file(_SERVICE, payload, read, _SECONDS)  # another medium may have broken the process


KIND = Kind(name="embed", spec=EmbedSpec, plan=plan, run="speciate.datasets.similarity.embed:run", collect=collect)
