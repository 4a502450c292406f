"""Every item of a source with its verdict, read in sandboxed processes, several at a time.

Media are validated in chunks of the sorted listing and kept in durable parts (checkpoints.py), so that a run after a
kill reads only files of no finished part. If a process dies on a chunk (a crash of the decoder, memory beyond the
limit), its files are validated one by one: the one at fault becomes an error with that reason, the others do not
suffer.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import version_rows
from speciate.datasets.columns import clean
from speciate.datasets.ingest.checkpoints import (
    PREFIX,
    IngestedFile,
    IngestedPart,
    PartWriter,
    StoredMedia,
    recover_parts,
)
from speciate.datasets.ingest.raw_files import GONE, FileState, RawFile, by_source_names, file_state, read_raw
from speciate.datasets.ingest.row_validation import ask_until_answered
from speciate.datasets.ingest.validation import LONGEST_REASON, ValidationRequest, Verdict, parse_verdicts
from speciate.datasets.readers.formats import Reader
from speciate.datasets.readers.rows import REASON, Row, concatenate, from_rows, is_broken
from speciate.datasets.sources.joined_tables import NamedTable, apart_warning, find_join, join
from speciate.datasets.sources.labels import LabelsFile
from speciate.datasets.sources.listing import ExcludedFile, Listing, SourceFile, normalise_split
from speciate.datasets.sources.sandbox_calls import ask_table
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.workspace.workspace import Folders

_CHUNK, _CHUNK_BYTES = 64, 8 << 20
"""Most files and bytes per question to a process."""
_PART, _PART_BYTES = 768, 64 << 20
"""Most files and bytes per part: fewer would cost a sync of the disk too often."""
_MOST_REQUESTS = 8
"""Most chunks requested ahead of the part that is being filled; their bytes are at most those of a part."""
MOST_AT_RISK = 2 * _PART + _MOST_REQUESTS * _CHUNK
"""Most files that are validated and in no finished part at any time: the cost of a kill."""
MOST_EXCLUDED = 100_000
"""Most excluded files that become items."""
_SECONDS = 120.0
_VALIDATE_FILES = "speciate.datasets.ingest.validation:validate_files"

_NOTHING: Mapping[str, Any] = MappingProxyType({})
Progress = Callable[[int, int], None]
T = TypeVar("T")


class JoinReport(NamedTuple):
    """How tables were joined."""

    renamed: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Columns of the joined table that the rows had already -> their names here."""
    notes: tuple[str, ...] = ()
    """Sentences that quote foreign names."""
    guess: str = ""
    """How the tables are understood, with the argument that would change it."""


_NOT_JOINED = JoinReport()


@dataclass(frozen=True)
class Survey:
    """Tables are parallel: a row per item, in the order of the source."""

    modality: str
    """`auto`: the cells decide."""
    media: bool
    """Whether each item is a file."""
    table: pa.Table
    """The user's columns."""
    items: pa.Table
    """`source` (path below the source, for rows of a table with `#` and the row's number), `split`, `folder`,
    `quality`, `reason`; of media also `content` (sha256 of the file), `fingerprint` and `sketch`."""
    packs: tuple[Path, ...] = ()
    """Packs with the bytes of media that no earlier version has."""
    joined: JoinReport = _NOT_JOINED


class SurveyContext(NamedTuple):
    """What a survey is made with."""

    run: Run
    pool: Pool
    work: Path
    """A folder that the pool's processes may read."""
    progress: Progress
    most_bytes: int | None = None
    """Bytes of a table beyond which only its first rows are read."""


def survey_media(found: Listing, context: SurveyContext, known: StoredMedia) -> Survey:
    """Every file is one item. NOT_FOUND if most of them vanished meanwhile."""
    run, states = context.run, {file.name: file_state(file) for file in found.files}
    parts = recover_parts((run.folder, *run.resume_from), run.folders, found.modality, states)
    there = {name for part in parts for name in part.table[f"{PREFIX}source"].to_pylist()}
    left = [file for file in found.files if file.name not in there]
    parts += _validate_files(found, left, states, context, known)
    everything = pa.concat_tables([part.table.replace_schema_metadata(None) for part in parts],
                                  promote_options="permissive")  # fmt: skip
    order = pc.index_in(pa.array([file.name for file in found.files]), everything[f"{PREFIX}source"].combine_chunks())
    everything = everything.take(order)
    _check_presence(everything, found)
    items = pa.table(
        {
            "source": everything[f"{PREFIX}source"],
            "split": pa.array([file.split for file in found.files], pa.string()),
            "folder": pa.array([file.folder for file in found.files], pa.string()),
            **{name: everything[PREFIX + name] for name in ("quality", "reason", "content", "fingerprint", "sketch")},
        }
    )
    own = [name for name in everything.column_names if not name.startswith(PREFIX)]
    packs = tuple(sorted({part.pack for part in parts if part.pack is not None}))
    return Survey(found.modality, True, everything.select(own), items, packs)


def survey_tables(
    found: Listing, context: SurveyContext, label: str | None = None, inputs: Sequence[str] = ()
) -> Survey:
    """Every row of every file is one item. A file that cannot be read at all is one item of quality error.

    `label`: the label column. `inputs`: those that the caller named. The rows get the columns of `found.join`; without
    one, two files that share a key are joined (joined_tables.py).
    """
    files = found.files
    tables: list[pa.Table] = []
    with _threads(context.pool.size) as threads:
        for table in threads.map(lambda file: _read_table(context, found, file, label, inputs), files):
            tables.append(table)
            context.progress(len(tables), len(files))
    if found.join is not None:
        tables, report = _join_named(context, found, files, tables, found.join)
    else:
        files, tables, report = _join_files(found, files, tables)
    return replace(_rows_of_files(found, files, tables), joined=report)


def _join_named(
    context: SurveyContext, found: Listing, files: Sequence[SourceFile], tables: Sequence[pa.Table], labels: LabelsFile
) -> tuple[list[pa.Table], JoinReport]:
    """The tables with the columns of the file that the caller names. INVALID if their keys do not fit."""
    table = ask_until_answered(
        lambda: ask_table(context.pool, labels.path, readable=[labels.path], text=[labels.key]), context.run
    )
    second = NamedTable(labels.path.name, table)
    readable = [any(name != REASON for name in each.column_names) for each in tables]
    if not any(readable):
        return list(tables), _NOT_JOINED
    together = concatenate([each for each, has_rows in zip(tables, readable, strict=True) if has_rows])
    joined = join(NamedTable(files[0].name, together), second, labels.key)
    made, start = list[pa.Table](), 0
    for each, has_rows in zip(tables, readable, strict=True):
        made.append(joined.table.slice(start, each.num_rows) if has_rows else each)
        start += each.num_rows if has_rows else 0
    return made, JoinReport(joined.renamed, joined.notes)


def _join_files(
    found: Listing, files: list[SourceFile], tables: list[pa.Table]
) -> tuple[list[SourceFile], list[pa.Table], JoinReport]:
    """Two files with different columns and a plain key as one; else a warning if their rows would be half empty."""
    if found.marker is not None or found.reader != Reader() or found.modality == "time-series":
        return files, tables, _NOT_JOINED
    named = [NamedTable(file.name, table) for file, table in zip(files, tables, strict=True)]
    pair = find_join(*tables) if len(files) == 2 and not any(file.split for file in files) else None
    if pair is None:
        return files, tables, JoinReport(guess=apart_warning(named, found.source))
    joined = join(named[pair.first], named[pair.second], pair.key)
    first, second = (clean(named[place].name) for place in (pair.first, pair.second))
    guess = (
        f"Two tables were joined by {clean(pair.key)!r}, which both have: rows of {first!r} with the columns of "
        f"{second!r}. To read one of them alone, call create_dataset again with that file as source."
    )
    return [files[pair.first]], [joined.table], JoinReport(joined.renamed, joined.notes, guess)


def _rows_of_files(found: Listing, files: Sequence[SourceFile], tables: Sequence[pa.Table]) -> Survey:
    counts = [table.num_rows for table in tables]
    return _survey_rows(
        concatenate(tables),
        modality=found.modality,
        sources=pa.chunked_array([_numbered(file.name, count) for file, count in zip(files, counts, strict=True)]),
        splits=_repeated([file.split for file in files], counts),
        folders=_repeated([file.folder for file in files], counts),
    )


def survey_rows(rows: Sequence[Row], modality: str) -> Survey:
    """Inline rows of the call."""
    nothing = pa.nulls(len(rows), pa.string())
    valid = [{} if is_broken(row) else row for row in rows]
    reasons = ["It holds half a character." if is_broken(row) else None for row in rows]
    table = from_rows([{name: cell for name, cell in row.items() if name != REASON} for row in valid])
    return _survey_rows(
        table.append_column(REASON, pa.array(reasons, pa.string())),
        modality=modality,
        sources=_numbered("rows", len(rows)),
        splits=nothing,
        folders=nothing,
    )


def with_excluded_files(
    survey: Survey, excluded: Sequence[ExcludedFile], source: str, columns: Mapping[str, Mapping[str, str]] = _NOTHING
) -> Survey:
    """The survey and, below its items, the excluded files with their reasons, so that nothing vanishes.

    `source`: the name for those beyond MOST_EXCLUDED. `columns`: name of a file -> what is known of it.
    """
    if not excluded:
        return survey
    kept = list(excluded[:MOST_EXCLUDED])
    if (more := len(excluded) - len(kept)) > 0:
        kept.append(ExcludedFile(source, f"{more:,} further files were excluded."))
    refused = pa.table(
        {
            "source": pa.array([item.name for item in kept], pa.string()),
            "quality": pa.array(["refused"] * len(kept), pa.string()),
            "reason": pa.array([item.reason[:LONGEST_REASON] for item in kept], pa.string()),
        }
    )
    items = pa.concat_tables([survey.items, refused], promote_options="default")
    known = [columns.get(item.name, _NOTHING) for item in kept]
    empty = pa.table(
        {
            field.name: pa.array([each.get(field.name) for each in known], field.type)
            if pa.types.is_string(field.type)
            else pa.nulls(len(kept), field.type)
            for field in survey.table.schema
        }
    )
    return replace(survey, table=pa.concat_tables([survey.table, empty]), items=items)


def with_checked_channels(survey: Survey, inputs: Sequence[str], parent: Manifest, folders: Folders) -> Survey:
    """The survey of an addition to series: a row with another number of channels than the dataset has is an error.

    `inputs`: the dataset's inputs by the names of the survey. It stays if the dataset's first rows differ themselves.
    """
    if survey.media or parent.modality != "time-series" or len(inputs) != 1:
        return survey
    cells = survey.table[inputs[0]]
    if not _is_list_of_lists(cells.type):
        return survey
    usual = version_rows.first_lengths(folders, parent, parent.inputs[0])
    if len(usual) != 1:
        return survey
    (channels,) = usual
    counts = pc.list_value_length(cells)
    wrong = pc.and_(pc.fill_null(pc.not_equal(counts, channels), False), pc.equal(survey.items["quality"], "ok"))
    reasons = pc.binary_join_element_wise(
        "It has", counts.cast(pa.string()), f"channels; the examples of {parent.ref} have {channels}.", " "
    )
    items = survey.items
    for name, values in (("quality", "error"), ("reason", reasons)):
        items = items.set_column(items.column_names.index(name), name, pc.if_else(wrong, values, items[name]))
    return replace(survey, items=items)


def _is_list_of_lists(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_list(kind.value_type))


def _validate_files(
    found: Listing,
    files: Sequence[SourceFile],
    states: dict[str, FileState],
    context: SurveyContext,
    known: StoredMedia,
) -> list[IngestedPart]:
    """The parts of `files`. One is sealed while the next is filled and further chunks are validated."""
    parts = _chunk_files(files, states)
    done, total = len(found.files) - len(files), len(found.files)
    context.progress(done, total)
    sealed: list[Future[IngestedPart]] = []
    writer: PartWriter | None = None
    with _threads(context.pool.size + 1) as asking, _threads(1) as sealing:
        ahead = _Prefetch(asking, found, context, [chunk for part in parts for chunk in part], states)
        try:
            for part in parts:
                writer = PartWriter(context.run.folders, known)
                for chunk in part:
                    if context.run.stopping:
                        raise Stopped
                    for item in ahead.next():
                        writer.add(item)
                    context.progress(done := done + len(chunk), total)
                if sealed:
                    sealed[-1].result()
                sealed.append(sealing.submit(writer.seal, context.run.checkpoints, found.modality))
            return [future.result() for future in sealed]
        except BaseException:
            context.pool.close()  # or the threads would wait for what is being decoded
            if writer is not None:
                writer.abandon()
            raise


class _Prefetch:
    """Validated chunks in order, some of them requested before they are needed."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        found: Listing,
        context: SurveyContext,
        chunks: Sequence[Sequence[SourceFile]],
        states: dict[str, FileState],
    ) -> None:
        roots = [str(path.resolve()) for path in found.readable]
        self._threads = threads
        self._validate = partial(_validate_chunk, context, found.modality, roots=roots, as_is=found.reader.as_is)
        self._chunks = deque((chunk, sum(states[file.name].size for file in chunk)) for chunk in chunks)
        self._requests: deque[tuple[Future[list[IngestedFile]], int]] = deque()

    def next(self) -> list[IngestedFile]:
        while self._chunks and self._has_room():
            chunk, size = self._chunks.popleft()
            self._requests.append((self._threads.submit(self._validate, chunk), size))
        return self._requests.popleft()[0].result()

    def _has_room(self) -> bool:
        ahead = sum(size for _, size in self._requests) + self._chunks[0][1]
        return not self._requests or (len(self._requests) < _MOST_REQUESTS and ahead <= _PART_BYTES)


def _chunk_files(files: Sequence[SourceFile], states: dict[str, FileState]) -> list[list[list[SourceFile]]]:
    """Parts of chunks of files, in order."""
    chunks = _chunk_by_size(files, lambda file: (1, states[file.name].size), (_CHUNK, _CHUNK_BYTES))
    sizes = [(len(chunk), sum(states[file.name].size for file in chunk)) for chunk in chunks]
    numbered = _chunk_by_size(range(len(chunks)), lambda i: sizes[i], (_PART, _PART_BYTES))
    return [[chunks[i] for i in part] for part in numbered]


def _chunk_by_size(items: Iterable[T], weigh: Callable[[T], tuple[int, int]], most: tuple[int, int]) -> list[list[T]]:
    """Neighbours together, up to so many files and bytes; a larger one is alone."""
    groups: list[list[T]] = []
    room = (0, 0)
    for item in items:
        count, size = weigh(item)
        if not groups or count > room[0] or size > room[1]:
            groups.append([])
            room = most
        groups[-1].append(item)
        room = (room[0] - count, room[1] - size)
    return groups


def _validate_chunk(
    context: SurveyContext, modality: str, files: Sequence[SourceFile], roots: Sequence[str], *, as_is: bool
) -> list[IngestedFile]:
    """Files read here and validated in a sandboxed process, which gets their bytes in one file."""
    raws = [read_raw(file, roots) for file in files]
    lengths = [len(raw.data or b"") for raw in raws]
    spans = [(end - length, length) for end, length in zip(accumulate(lengths), lengths, strict=True)]
    wanted = [span for span, raw in zip(spans, raws, strict=True) if raw.data is not None]
    target = context.work / f"chunk-{uuid.uuid4().hex}"
    try:
        target.write_bytes(b"".join(raw.data or b"" for raw in raws))
        verdicts = iter(_ask_validator(context, modality, target, wanted, as_is=as_is))
    finally:
        target.unlink(missing_ok=True)
    return [
        IngestedFile(
            file, raw, _use_source_names(next(verdicts) if raw.data is not None else _verdict_of_unread(raw), file)
        )
        for file, raw in zip(files, raws, strict=True)
    ]


def _use_source_names(verdict: Verdict, file: SourceFile) -> Verdict:
    reason = by_source_names(verdict.reason, file)
    return verdict if reason is None else verdict._replace(reason=reason[:LONGEST_REASON])


def _ask_validator(
    context: SurveyContext, modality: str, file: Path, spans: Sequence[tuple[int, int]], *, as_is: bool
) -> list[Verdict]:
    """Verdicts on the spans. If several fail together, each is validated alone to find the one at fault."""
    payload = ValidationRequest(modality=modality, file=str(file), spans=spans, as_is=as_is)
    readable = frozenset((context.work,))
    try:
        answer = ask_until_answered(
            lambda: context.pool.ask(_VALIDATE_FILES, payload, _SECONDS, readable=readable), context.run
        )
        return parse_verdicts(answer, modality, len(spans))
    except SpeciateError as error:
        if len(spans) > 1:
            return [
                verdict for span in spans for verdict in _ask_validator(context, modality, file, [span], as_is=as_is)
            ]
        return [Verdict("error", f"The decoder failed on this file: {error.message}", {}, None, None) for _ in spans]


def _verdict_of_unread(raw: RawFile) -> Verdict:
    return Verdict(raw.quality, raw.reason, {}, None, None)


def _check_presence(everything: pa.Table, found: Listing) -> None:
    missing = pc.sum(pc.equal(everything[f"{PREFIX}reason"], GONE)).as_py() or 0
    if 2 * missing > len(found.files):
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{missing:,} of {len(found.files):,} files of {str(found.source)!r} vanished while they were read.",
            next=[Call("control_job", {"action": "retry"}, "once they are there again: what was read already is kept")],
        )


def _read_table(
    context: SurveyContext, found: Listing, file: SourceFile, label: str | None, inputs: Sequence[str]
) -> pa.Table:
    """The rows of a file. Without rows, one that says why: no file may vanish from the count."""
    try:
        texts = (*(found.marker.texts if found.marker else ()), *([found.join.key] if found.join else ()))
        table = ask_until_answered(
            lambda: ask_table(
                context.pool,
                file.path,
                found.reader,
                found.modality,
                readable=found.readable,
                text=texts,
                label=label,
                channels=inputs,
                most_bytes=context.most_bytes,
            ),
            context.run,
        )
        if found.marker is not None:
            table = found.marker.as_exported(table)
        reason = "The file holds no rows."
    except SpeciateError as error:
        if len(found.files) == 1:
            raise
        table, reason = pa.table({}), error.whole
    return table if table.num_rows else pa.table({REASON: pa.array([reason], pa.string())})


def _survey_rows(table: pa.Table, *, modality: str, sources: pa.Array, splits: pa.Array, folders: pa.Array) -> Survey:
    reasons: Any = pa.nulls(table.num_rows, pa.string())
    if REASON in table.column_names:
        reasons = table[REASON].cast(pa.string())
        table = table.drop_columns([REASON])
    if "split" in table.column_names:
        splits = pc.coalesce(_normalise_splits(table["split"]), splits)
        table = table.drop_columns(["split"])
    qualities = pc.if_else(pc.is_null(reasons), "ok", "error")
    items = {"source": sources, "split": splits, "folder": folders, "quality": qualities, "reason": reasons}
    return Survey(modality, False, table, pa.table(items))


def _normalise_splits(column: pa.ChunkedArray) -> pa.Array:
    """Names of splits in their usual spelling."""
    encoded = column.combine_chunks().dictionary_encode()
    names = pa.array([normalise_split(name) for name in encoded.dictionary.to_pylist()], pa.string())
    return names.take(encoded.indices)


def _numbered(name: str, count: int) -> pa.Array:
    return pc.binary_join_element_wise(name, pa.array(np.arange(1, count + 1)).cast(pa.string()), "#")


def _repeated(values: Sequence[str | None], counts: Sequence[int]) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(np.repeat(np.arange(len(counts)), counts), pa.int64()))


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="ingest")
