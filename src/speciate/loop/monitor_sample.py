"""The answers of a window that are compared: a random sample of its different inputs, with vectors and measures.

Which answers are in it follows from the hashes of their ids, so a window that is sampled again has the same. It lies
beside the log, which is where it comes from:

    logged/USE_CASE/watched/samples/GENERATION-NUMBER.parquet    ids, keys, numbers: no text and no media
    logged/USE_CASE/watched/vectors/EXTRACTOR/*.parquet          as features.py keeps them, by the hash of the input
    logged/USE_CASE/watched/plots, sheets

A purge of answers removes the folder; what is still in the log is sampled again. So each input is described once, and a
window costs what is new in it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciate import features
from speciate.datasets.similarity import extractors
from speciate.jobs.pool import Pool, PoolProcessEnded, ServiceAnswer
from speciate.loop.drift.permutation import Rows, Values
from speciate.loop.monitor_describe import DescribeRequest, LoggedInput, read_input
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.predictions import prediction_ids, reading
from speciate.predictions.log_files import LogFolder
from speciate.predictions.prediction_ids import hash_to_unit
from speciate.predictions.reading import LoggedAnswer
from speciate.workspace import integrity
from speciate.workspace.workspace import Folders

SAMPLE = 500
"""Different inputs of a window, of one entity each, that are described at most."""
_SERVICE = "speciate.loop.monitor_describe:describe"
_CHUNK, _SECONDS = 64, 120.0
_LOST = "With it, a sample of logged answers is lost; it is made again from the log."


class Sample(NamedTuple):
    """The sampled answers of one window, with N inputs. NaN where there is no such number."""

    ids: list[str]
    keys: list[str]
    """Keys of the inputs' vectors; '' where the input has none."""
    confidence: Values
    number: Values
    """The answer, where it is a number."""
    label: list[str]
    """A digest of the answer, where it is a label; '' else."""
    measures: Values
    """(N, M)"""
    own: npt.NDArray[np.bool_]
    """Whether the version of this generation gave the answer."""
    entity: list[str]
    """Hash of who or what asked; '' where none was said."""
    at: Values
    """When the answer was given, in seconds since the epoch."""


class Source(NamedTuple):
    """What samples are made of."""

    log: LogFolder
    folders: Folders
    pool: Pool
    modality: str | None
    extractor: str
    measures: Sequence[str] | None
    """None: what the first window finds."""
    generation: int
    since: float


class Window(NamedTuple):
    number: int
    begin: float
    end: float


def vectors_beside(folders: Folders, log: LogFolder) -> Folders:
    """Where features.py finds the vectors of logged inputs: they go with their log, and garbage collection, which keeps
    what datasets name, does not meet them."""
    beside = Folders(folders.root)
    beside.features = log.watched / "vectors"
    return beside


def extractor_id(source: Source) -> str | None:
    """None where nothing can be embedded: mixed rows, or a modality that nobody knows."""
    if not source.modality or source.modality == "mixed":
        return None
    return extractors.load(source.extractor, source.modality, source.folders).id


def sample(source: Source, window: Window) -> tuple[Sample, list[str]]:
    """The sample of a window, with the names of its measures: as it was sampled before, else made now."""
    path = source.log.watched / "samples" / f"{source.generation}-{window.number}.parquet"
    try:
        table = integrity.read_table(path, _LOST, "Start the monitoring job again.")
    except FileNotFoundError:
        return _make(source, window, path)
    except Exception:  # noqa: BLE001 - damaged: what is derived is derived again
        return _make(source, window, path)
    names = json.loads((table.schema.metadata or {}).get(b"measures", b"[]"))
    return _of_table(table, len(names)), names


def _make(source: Source, window: Window, path: Path) -> tuple[Sample, list[str]]:
    answers = _chosen(source, window)
    keys = [_key(each) for each in answers]
    described = _describe(source, answers, keys)
    measures = np.full((len(answers), len(described.measures)), math.nan)
    for place, values in described.values.items():
        measures[place] = values
    made = Sample(
        [each.id for each in answers],
        [key if place in described.embedded else "" for place, key in enumerate(keys)],
        np.array([math.nan if each.confidence is None else each.confidence for each in answers], np.float64),
        np.array([_number(each.output) for each in answers], np.float64),
        [_label(each.output) for each in answers],
        measures,
        np.array([each.generation == source.generation for each in answers], np.bool_),
        [each.entity for each in answers],
        np.array([each.at for each in answers], np.float64),
    )
    _keep(path, made, described.measures)
    return made, described.measures


def _chosen(source: Source, window: Window) -> list[LoggedAnswer]:
    """Entities take turns in the random order, so that one that asks a lot does not crowd out the others. Of an
    entity each input counts once, and of answers that name none, too: one that is asked over and over is no shift."""
    begin = max(window.begin, source.since)
    rows = reading.answers(source.log, since=begin, columns=["id", "at", "error", "entity"])
    there = [
        (name, entity or "")
        for name, at, error, entity in zip(*(rows[column].to_pylist() for column in rows.column_names), strict=True)
        if at < window.end and not error
    ]
    order = in_turns(there)
    found: dict[tuple[str, str], LoggedAnswer] = {}
    for start in range(0, len(order), 2 * SAMPLE):
        some = reading.find_many(source.log, order[start : start + 2 * SAMPLE])
        for name in order[start : start + 2 * SAMPLE]:
            if name in some and len(found) < SAMPLE:
                found.setdefault((some[name].entity, _key(some[name])), some[name])
        if len(found) >= SAMPLE or start >= 20 * SAMPLE:
            break
    return list(found.values())


def in_turns(answers: Sequence[tuple[str, str]]) -> list[str]:
    """Ids of (id, entity): first one of each entity, then a second of each, all in a random order that follows from
    the ids. Who names none is an entity of its own."""
    turns = Counter[str]()
    placed: list[tuple[int, float, str]] = []
    for chance, name, entity in sorted((hash_to_unit(name, "watched"), name, entity) for name, entity in answers):
        placed.append((turns[entity] if entity else 0, chance, name))
        turns[entity] += 1
    return [name for *_, name in sorted(placed)]


def _key(answer: LoggedAnswer) -> str:
    """Key of an answer's input, the same for the same input; an answer whose input was not kept has one of its own."""
    if not answer.input:
        return hashlib.sha256(answer.id.encode()).hexdigest()
    if "data" in answer.input:
        return answer.input["data"]["sha256"]
    text = json.dumps(answer.input, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class _DescribedInputs(NamedTuple):
    embedded: set[int]
    """Places of answers whose input has a vector."""
    measures: list[str]
    values: Mapping[int, npt.NDArray[np.float64]]


def _describe(source: Source, answers: Sequence[LoggedAnswer], keys: Sequence[str]) -> _DescribedInputs:
    given = {place: one for place, each in enumerate(answers) if (one := input_of(source, each)) is not None}
    extractor = extractor_id(source)
    if extractor is None or not given or source.modality is None:
        return _DescribedInputs(set(), list(source.measures or ()), {})
    beside = vectors_beside(source.folders, source.log)
    own = source.extractor == extractors.DESCRIPTOR
    names, embedded = source.measures, set[int]()
    values: dict[int, npt.NDArray[np.float64]] = {}
    places = list(given)
    for start in range(0, len(places), _CHUNK):
        chunk = places[start : start + _CHUNK]
        found = _ask(source, [given[place] for place in chunk], names, vectors=own)
        names = names if names is not None else (found.measures if found.usable else None)
        usable = [chunk[place] for place in found.usable]
        for place, row in zip(usable, found.rows, strict=True):
            values[place] = row[found.width :].astype(np.float64)
        vectors = found.rows[:, : found.width] if own else None
        if vectors is None:  # a model's vectors are dear: what was asked in an earlier window, too, has its own
            there = features.known(beside, extractor, [keys[place] for place in usable]).tolist() if usable else []
            embedded |= {place for place, known in zip(usable, there, strict=True) if known}
            rest = [(place, given[place]) for place in usable if place not in embedded]
            usable, vectors = _embed(source, rest)
        if usable and vectors.shape[1]:
            features.write(beside, extractor, [keys[place] for place in usable], vectors)
            embedded |= set(usable)
    return _DescribedInputs(embedded, list(names or ()), values)


def _embed(source: Source, inputs: Sequence[tuple[int, LoggedInput]]) -> tuple[list[int], Rows]:
    """Embed inputs: places of the usable ones, and their vectors. Those without finite numbers are left out."""
    assert source.modality is not None
    kind, model = find(source.modality), extractors.load(source.extractor, source.modality, source.folders)
    media = [read_input(kind, given) for _, given in inputs]
    batches = list(model.embed(media)) if media else []
    if not batches:
        return [], np.zeros((0, 0), np.float32)
    vectors = np.empty((len(media), batches[0][1].shape[1]), np.float32)
    for chosen, batch in batches:
        vectors[chosen] = batch
    finite = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    return [inputs[at][0] for at in finite.tolist()], vectors[finite]


class _Answer(NamedTuple):
    usable: list[int]
    width: int
    measures: list[str]
    rows: Rows
    """(U, width + M)"""


def _ask(source: Source, inputs: Sequence[LoggedInput], names: Sequence[str] | None, *, vectors: bool) -> _Answer:
    """Ask a sandboxed process for vectors and measures. If it ends, the inputs are halved until the one that ends it
    stands by itself and is left out."""
    request: DescribeRequest = {
        "modality": source.modality or "", "inputs": inputs, "measures": names, "vectors": vectors,
    }  # fmt: skip

    def read(path: Path, answer: ServiceAnswer) -> _Answer:
        """Checked: it comes from a process that met foreign bytes."""
        data = np.frombuffer(path.read_bytes(), np.float32)
        usable, width = [int(each) for each in answer["usable"]], int(answer["width"])
        measures = [str(each) for each in answer["measures"]]
        rows = data.reshape(len(usable), width + len(measures)) if usable else np.zeros((0, 0), np.float32)
        if len(set(usable)) != len(usable) or not set(usable) <= set(range(len(inputs))) or width < 0:
            raise ValueError("a service named places that were not asked")
        known = find(source.modality or "")
        if not all(each.isidentifier() and len(each) < 40 for each in measures):
            raise ValueError(f"a service named measures that {known.name} has not")
        if not np.isfinite(rows[:, :width]).all():
            raise ValueError("a service answered with numbers that are not finite")
        return _Answer(usable, width, measures, rows)

    readable = frozenset({source.log.media}) if any("path" in each for each in inputs) else frozenset[Path]()
    try:
        return source.pool.ask_for_file(_SERVICE, request, read, _SECONDS, readable=readable)
    except PoolProcessEnded:
        if len(inputs) == 1:
            return _Answer([], 0, list(names or ()), np.zeros((0, 0), np.float32))
        half = len(inputs) // 2
        first = _ask(source, inputs[:half], names, vectors=vectors)
        second = _ask(source, inputs[half:], first.measures if first.usable else names, vectors=vectors)
        parts = [each for each in (first, second) if each.usable]
        if not parts:
            return first
        rows = np.concatenate([each.rows for each in parts])
        return _Answer(
            [*first.usable, *(half + each for each in second.usable)], parts[0].width, parts[0].measures, rows
        )


def input_of(source: Source, answer: LoggedAnswer) -> LoggedInput | None:
    """As the modality admits it, or the file; None where it was not kept, is gone, or is a mixed row."""
    kept = answer.input
    if not kept or "parts" in kept or not source.modality:
        return None
    if "data" in kept:
        path = source.log.medium(kept["data"]["sha256"])
        return {"path": str(path)} if path.exists() else None
    value: Any = kept["text"] if "text" in kept else kept.get("row")
    if isinstance(value, Mapping) and source.modality != "tabular":
        cells = [cell for cell in value.values() if cell is not None]
        value = cells if source.modality == "time-series" else "\n".join(map(str, cells))
    if isinstance(value, str) and source.modality == "tabular":
        value = {"text": value}
    try:
        find(source.modality).admit(value)
    except DecodeError:
        return None
    return {"value": value}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def _label(value: Any) -> str:
    """A digest, for labels are others' text."""
    if not isinstance(value, str | bool) or len(str(value)) > 200:
        return ""
    return hashlib.sha256(str(value).strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _keep(path: Path, made: Sample, measures: Sequence[str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    table = pa.table(
        {"id": pa.array(made.ids, pa.string()), "key": pa.array(made.keys, pa.string()),
         "confidence": pa.array(made.confidence, pa.float64()), "number": pa.array(made.number, pa.float64()),
         "label": pa.array(made.label, pa.string()), "own": pa.array(made.own, pa.bool_()),
         "entity": pa.array(made.entity, pa.string()), "at": pa.array(made.at, pa.float64()),
         **{f"m{place}": pa.array(made.measures[:, place], pa.float64()) for place in range(len(measures))}}
    ).replace_schema_metadata({"measures": json.dumps(list(measures))})  # fmt: skip
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w+b") as file:
        integrity.write_table(table, file, compression="zstd")
    temporary.replace(path)


def _of_table(table: pa.Table, measures: int) -> Sample:
    """A sample from before entities were kept has none, and its ids tell when each answer was given."""
    columns = [np.asarray(table[f"m{place}"].to_numpy(), np.float64) for place in range(measures)]
    ids = table["id"].to_pylist()
    known = {"entity", "at"} <= set(table.column_names)
    return Sample(
        ids, table["key"].to_pylist(), np.asarray(table["confidence"].to_numpy(), np.float64),
        np.asarray(table["number"].to_numpy(), np.float64), table["label"].to_pylist(),
        np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0)),
        np.asarray(table["own"].to_pylist(), np.bool_),
        table["entity"].to_pylist() if known else [""] * len(ids),
        np.asarray(table["at"].to_numpy() if known else [_time_of(each) for each in ids], np.float64),
    )  # fmt: skip


def _time_of(prediction: str) -> float:
    parsed = prediction_ids.parse(prediction)
    return math.nan if parsed is None else parsed.at


def join(samples: Sequence[Sample]) -> Sample:
    """Join the samples of several windows, oldest first. Measures that a window lacks are NaN."""
    most = max(one.measures.shape[1] for one in samples)
    measures = [
        np.pad(one.measures, ((0, 0), (0, most - one.measures.shape[1])), constant_values=math.nan) for one in samples
    ]
    return Sample(
        [each for one in samples for each in one.ids], [each for one in samples for each in one.keys],
        np.concatenate([one.confidence for one in samples]), np.concatenate([one.number for one in samples]),
        [each for one in samples for each in one.label], np.concatenate(measures),
        np.concatenate([one.own for one in samples]), [each for one in samples for each in one.entity],
        np.concatenate([one.at for one in samples]),
    )  # fmt: skip


def take(whole: Sample, places: Sequence[int]) -> Sample:
    at = np.asarray(places, np.int64)
    return Sample(
        [whole.ids[place] for place in places], [whole.keys[place] for place in places], whole.confidence[at],
        whole.number[at], [whole.label[place] for place in places], whole.measures[at], whole.own[at],
        [whole.entity[place] for place in places], whole.at[at],
    )  # fmt: skip
