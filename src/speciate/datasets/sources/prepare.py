"""From a source's name to the files that are read: fetched, unpacked, laid out, with their labels.

Unpacked files lie below `work`, the run's own folder, as long as the run needs them; fetched files stay in the cache.
Tables whose cells hold media become a listing of those media, labelled by the other columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.gathering import gather_examples, manifests, mixed, recognise_modality
from speciate.datasets.readers.formats import Reader, format_of, parse_reader, table_suffix
from speciate.datasets.readers.rows import concatenate
from speciate.datasets.sources import answer_log, gym_examples, hugging_face, own_export, packaged_data, webdataset
from speciate.datasets.sources.archives import ArchiveRequest, archive_suffix
from speciate.datasets.sources.file_kinds import wrong_suffix_notes
from speciate.datasets.sources.labels import LabelsFile, are_excerpts, match_excerpts, order_labels, with_sidecars
from speciate.datasets.sources.listing import (
    IN_TABLES,
    DetectedLayout,
    ExcludedFile,
    Listing,
    SourceFile,
    check_source,
    detect_layout,
    find_source_files,
    is_path,
    name_below,
    named_files,
    normalise_split,
    walk_folder,
    with_splits,
)
from speciate.datasets.sources.sandbox_calls import NotLookedAtError, SourceContext, ask_table, unpack_into
from speciate.datasets.sources.table_media import KEY, METADATA, CellsRequest, MediaColumnRequest
from speciate.errors import Code, SpeciateError
from speciate.modalities.multimodal import MULTIMODAL
from speciate.workspace.disk_space import format_bytes
from speciate.workspace.workspace import Folders

_ARCHIVE = "speciate.datasets.sources.archives:unpack"
_COLUMN = "speciate.datasets.sources.table_media:media_column"
_UNPACK = "speciate.datasets.sources.table_media:unpack"
_SECONDS = 300.0


def check_source_name(source: Path | str, reader: str | None = None, folders: Folders | None = None) -> int:
    """Refuse at once errors in names, sizes and missing packages. Returns the bytes of a file, else 0."""
    parse_reader(reader)
    if is_path(source):
        return check_source(Path(source))
    kind, _, name = str(source).partition(":")
    if kind == "pkg":
        packaged_data.find(name)
    elif kind == "gym":
        gym_examples.parse(name)
    elif kind == answer_log.KIND:
        answer_log.check(str(source), folders)
    else:
        hugging_face.parse_hub_ref(str(source))
    return 0


def prepare_source(
    source: Path | str,
    context: SourceContext,
    *,
    modality: str = "auto",
    reader: str | None = None,
    labels: LabelsFile | None = None,
    inputs: Sequence[str] = (),
    never: Sequence[str] = (),
    label: str | None = None,
    column: str | None = None,
) -> Listing:
    """The listing of a path, of `hf:org/name`, `pkg:NAME`, `gym:TASK` or `log:USE_CASE`, with excluded files and
    reasons.

    `label`: the label column, if it is named. Of mixed rows `inputs` are the wanted parts, and `never` the columns that
    are no parts. `column`: the only input column. Raises INVALID, NOT_FOUND, REFUSED, MISSING_EXTRA or UNAVAILABLE if
    nothing can be read at all.
    """
    check_source_name(source, reader)
    fetched = _fetch(source, context, label, column)
    files, excluded, readable, about = _unpack_archives(
        fetched, labels and labels.path, context, captions=modality != MULTIMODAL.name
    )
    if not files and excluded:
        name, reason = excluded[0]
        raise SpeciateError(
            Code.INVALID,
            f"{str(source)!r} holds no file that can be read; {len(excluded)} excluded, such as {name!r}: {reason}",
            "Call create_dataset with a file or folder of data.",
        )
    export = own_export.find_export(files, context.pool, readable)
    if export is not None:
        files, modality = export.files, modality if modality != "auto" else export.marker.modality
    found, tables = _detect_layout(fetched.path, files, modality, parse_reader(reader), export)
    found = found._replace(
        readable=readable, revision=fetched.revision, excluded=[*fetched.excluded, *excluded, *found.excluded],
        notes=(*_notes_on_ignored(about, export), *found.notes),
    )  # fmt: skip
    keys: Mapping[SourceFile, str] = {}
    if export is None and labels is None:
        recognised = manifests.recognise(found, tables, context, modality, inputs, never)
        if recognised is not None:
            found, tables, keys = recognised.listing, recognised.tables, recognised.naming
            found = manifests.listed_files(recognised, context) if keys else found
            found = found._replace(remarks=(*found.remarks, recognised.guess))
    if found.layout == "table":
        found = with_table_media(found, context)
    if found.modality == MULTIMODAL.name and not found.files:  # tables alone may hold bundles in their cells
        of_tables = with_table_media(found._replace(layout="table", files=list(tables)), context)
        found, tables = (of_tables, []) if of_tables.layout == "media" else (found, tables)
    if found.modality == MULTIMODAL.name:
        found, tables = mixed.gather(found, tables, context, inputs, never)
    elif found.layout == "media":
        found = found._replace(notes=(*found.notes, *wrong_suffix_notes(found.files)))
        found = gather_examples(found, context)
        found = found._replace(hint=mixed.mixed_rows_hint(found) if export is None else "")
    with add_hint(found.hint):
        labelled = _with_labels(found, tables, labels, context, keys)
    return _with_splits_of_labels(_with_gathered(labelled, found.labels))


@contextmanager
def add_hint(hint: str) -> Iterator[None]:
    """Adds a hint to INVALID errors: how else the files may be meant."""
    try:
        yield
    except SpeciateError as error:
        if not hint or error.code is not Code.INVALID:
            raise
        raise SpeciateError(error.code, error.message, f"{hint} Else: {error.recovery}", error.foreign) from error


def _detect_layout(
    source: Path, files: list[SourceFile], modality: str, reader: Reader, export: own_export.Export | None
) -> DetectedLayout:
    """`detect_layout`, but the marker of our own export says what its files are."""
    if export is None:
        whole = recognise_modality(files) if reader._replace(as_is=False) == Reader() else None
        if whole is not None and modality in ("auto", whole):
            return DetectedLayout(
                Listing(source, "media", whole, with_splits(files, "media"), frozenset((source,))), []
            )
        return detect_layout(source, files, modality, reader)
    marker, tables = export.marker, list[SourceFile]()
    if marker.files and reader._replace(as_is=False) == Reader():
        tables = [file for file in files if file.path.name in own_export.SIDECARS]
        beside = set(tables)
        files, reader = [file for file in files if file not in beside], reader._replace(layout="files")
    found = detect_layout(source, files, modality, reader)
    return DetectedLayout(found.listing._replace(marker=marker), [*tables, *found.tables])


class _FetchedSource(NamedTuple):
    path: Path
    revision: str | None
    excluded: list[ExcludedFile]


def _fetch(source: Path | str, context: SourceContext, label: str | None, column: str | None) -> _FetchedSource:
    if is_path(source):
        return _FetchedSource(Path(source), None, [])
    kind, _, name = str(source).partition(":")
    if kind == "hf":
        return _FetchedSource(*hugging_face.fetch(str(source), context.folders))
    folder = context.work / "packaged"
    folder.mkdir(parents=True)
    excluded: list[ExcludedFile] = []
    if kind == "gym":
        gym_examples.write(name, folder)
    elif kind == answer_log.KIND:
        excluded = answer_log.write(
            str(source), context.folders, folder, label, column, now=context.now, requested=context.requested
        )  # fmt: skip
    else:
        packaged_data.find(name).write(folder)
    return _FetchedSource(folder, None, excluded)


class _UnpackedFiles(NamedTuple):
    files: list[SourceFile]
    excluded: list[ExcludedFile]
    readable: frozenset[Path]
    about: list[str]
    """Names of READMEs and licences, which are no examples."""


def _unpack_archives(
    fetched: _FetchedSource, skip: Path | None, context: SourceContext, *, captions: bool
) -> _UnpackedFiles:
    """The files of the source and those in its archives, named after the archive if there are other files.

    `captions`: whether a text beside a medium of a shard is about it.
    """
    found, excluded, about = find_source_files(fetched.path, context.folders.root)
    files = [(path, name_below(fetched.path, path)) for path in found if path != skip]
    archives = [(path, name) for path, name in files if archive_suffix(path.name)]
    if context.sample is not None:
        _check_archives([path for path, _ in archives], context.sample.archive_bytes)
    packed = set(archives)
    named, readable = [file for file in files if file not in packed], {fetched.path}
    ours = any(path.name == own_export.MARKER for path, _ in files)
    for number, (path, name) in enumerate(archives):
        prefix = "" if len(files) == 1 else name.removesuffix(archive_suffix(path.name)) + "/"
        target = context.work / f"archive-{number:04}"
        try:
            answer = unpack_into(target, _ARCHIVE, ArchiveRequest(path=str(path)), readable=(path,), context=context)
        except SpeciateError as error:
            if len(files) == 1:
                raise
            excluded.append(ExcludedFile(name, error.whole))
            continue
        members, strange, cards = walk_folder(target, links=False)
        about += [prefix + name for name in cards]
        if archive_suffix(path.name).lower() != ".zip":
            names = [name_below(target, member) for member in members]
            if ours or webdataset.is_shard(names, captions=captions):
                members, prefix = (
                    webdataset.gather_media(target, names, context.pool, ours=ours),
                    webdataset.split_folder_name(prefix),
                )
        inside = [(member, prefix + name_below(target, member)) for member in members]
        named += [member for member in inside if not archive_suffix(member[1])]
        excluded += [
            ExcludedFile(name, "An archive in an archive is not unpacked.")
            for _, name in inside
            if archive_suffix(name)
        ]
        excluded += [ExcludedFile(prefix + str(name), str(reason)) for name, reason in answer["excluded"]]
        excluded += [ExcludedFile(prefix + name, reason) for name, reason in strange]
        readable.add(target)
    unique = {name: path for path, name in reversed(named)}
    excluded += [ExcludedFile(name, "Another file has this name.") for path, name in named if unique[name] is not path]
    return _UnpackedFiles(
        named_files([(path, name) for name, path in unique.items()]), excluded, frozenset(readable), about
    )


def _check_archives(archives: Sequence[Path], most: int) -> None:
    """NotLookedAtError if they have too many bytes for a sample."""
    size = sum(map(_size, archives))
    if size > most:
        number = "an archive" if len(archives) == 1 else f"{len(archives):,} archives"
        raise NotLookedAtError(f"{number} of {format_bytes(size)}")


def _size(path: Path) -> int:
    """0 if it is gone: reading it reports that."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _notes_on_ignored(about: list[str], export: own_export.Export | None) -> list[str]:
    """How many READMEs and licences were ignored; our own export has one card, which is not counted."""
    if not about or (export is not None and len(about) == 1):
        return []
    files = "1 file is" if len(about) == 1 else f"{len(about):,} files are"
    return [f"{files} left out as a text about the data: {', '.join(map(repr, about[:3]))}."]


def _with_labels(
    found: Listing,
    tables: Sequence[SourceFile],
    labels: LabelsFile | None,
    context: SourceContext,
    keys: Mapping[SourceFile, str],
) -> Listing:
    """The listing of media with the labels that the caller names or that lie beside them."""
    if labels is None:
        return with_sidecars(found, tables, context.pool, keys)
    if not table_suffix(labels.path.name):
        raise SpeciateError(
            Code.INVALID,
            f"{labels.path.name!r} is not a CSV, JSON, JSONL, Parquet or Arrow file.",
            "Call again with labels.path of one.",
        )
    if found.layout == "table":
        return found._replace(join=labels)
    table = ask_table(context.pool, labels.path, text=[labels.key])
    excluded = [ExcludedFile(file.name, "A table beside media; `labels` names another.") for file in tables]
    found = found._replace(excluded=[*found.excluded, *excluded])
    if are_excerpts(table, found.modality):
        parts = match_excerpts(table, labels.key, found.files, labels.path)
        return found._replace(labels=parts.table, about=parts.about, notes=(*found.notes, *parts.notes))
    rows = order_labels(table, labels.key, found.files, labels.path)
    return found._replace(labels=rows.table, notes=(*found.notes, *rows.notes))


def _with_gathered(found: Listing, gathered: pa.Table | None) -> Listing:
    """Adds the columns that a gatherer read beside the media, such as masks, unless the labels have the name."""
    if gathered is None or found.labels is None:
        return found
    labels = found.labels
    for name in gathered.column_names:
        if name not in labels.column_names:
            labels = labels.append_column(name, gathered[name])
    return found._replace(labels=labels)


def _with_splits_of_labels(found: Listing) -> Listing:
    """A column `split` of the labels is the split."""
    if found.labels is None or found.about is not None or "split" not in found.labels.column_names:
        return found
    brought = found.labels["split"].to_pylist()
    files = [
        file._replace(split=normalise_split(name) or file.split)
        for file, name in zip(found.files, brought, strict=True)
    ]
    return found._replace(files=files, labels=found.labels.drop_columns(["split"]))


def with_table_media(found: Listing, context: SourceContext) -> Listing:
    """The listing itself if no table holds media of its modality."""
    columns = _media_columns(found, context)
    if not columns:
        return found
    excluded = [
        ExcludedFile(file.name, "A table without media; others here hold media.")
        for file in found.files
        if file.name not in columns
    ]
    media: list[SourceFile] = []
    labels: list[pa.Table] = []
    if context.sample is not None:
        sizes = sum(_size(file.path) for file in found.files if file.name in columns)
        if sizes > context.sample.archive_bytes:
            raise NotLookedAtError(f"media in tables of {format_bytes(sizes)}")
    readable = set(found.readable)
    for number, file in enumerate(file for file in found.files if file.name in columns):
        target = context.work / f"table-{number:04}"
        payload = CellsRequest(path=str(file.path), column=columns[file.name])
        try:
            answer = unpack_into(target, _UNPACK, payload, readable=found.readable, context=context)
            table = ask_table(context.pool, target / METADATA, readable=[target])
        except SpeciateError as error:
            excluded.append(ExcludedFile(file.name, error.whole))
            continue
        written = {path.name for path in walk_folder(target, links=False).files if path.parent == target}
        table = table.filter(pc.is_in(table[KEY], pa.array(sorted(written), pa.string())))
        prefix = file.name.removesuffix(table_suffix(file.name))
        media += [
            SourceFile(target / name, f"{prefix}/{name}", file.split, file.folder) for name in table[KEY].to_pylist()
        ]
        labels.append(table.drop_columns([KEY]))
        excluded += [ExcludedFile(str(name), str(reason)) for name, reason in answer["excluded"]]
        readable.add(target)
    if not media:
        name, reason = excluded[0]
        raise SpeciateError(
            Code.INVALID,
            f"No table holds a medium that can be read; {name!r}: {reason}",
            "Mend the tables first.",
        )
    modality = detect_layout(found.source, media, found.modality, Reader()).listing.modality
    return found._replace(
        layout="media",
        modality=modality,
        files=media,
        readable=frozenset(readable),
        labels=concatenate(labels),
        excluded=[*found.excluded, *excluded],
    )


def _media_columns(found: Listing, context: SourceContext) -> dict[str, str]:
    """Name of a table -> the column of its media."""
    files = [file for file in found.files if format_of(file.path.name) in ("parquet", "arrow")]
    if not files or found.modality in IN_TABLES or found.reader.layout is not None:
        return {}
    columns = {file.name: _media_column(file.path, found, context) for file in files}
    return {name: column for name, column in columns.items() if column is not None}


def _media_column(path: Path, found: Listing, context: SourceContext) -> str | None:
    """None also for a damaged file: reading it as a table reports the fault."""
    payload = MediaColumnRequest(path=str(path), modality=found.modality)
    try:
        column: str | None = context.pool.ask(_COLUMN, payload, _SECONDS, readable=found.readable)["column"]
    except SpeciateError as error:
        if error.code in (Code.INTERNAL, Code.UNAVAILABLE):  # this file broke the process
            return None
        raise
    return column
