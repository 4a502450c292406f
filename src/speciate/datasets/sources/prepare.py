"""From what a caller names as a source to the files that are read: fetched, unpacked, laid out, with their labels.

What is unpacked lies below `work`, the run's own folder, as long as the run needs it; what is fetched stays in the
cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from speciate.datasets.sources import answered, exported, gym_data, hub, packaged_data, shards
from speciate.datasets.sources.archives import archive_suffix
from speciate.datasets.sources.excerpts import are_excerpts, excerpts
from speciate.datasets.sources.gathering import gathered, mixed, recognised
from speciate.datasets.sources.labels import LabelsFile, beside
from speciate.datasets.sources.listing import (
    LaidOut,
    Listing,
    SourceFile,
    check_source,
    is_path,
    lay_out,
    look,
    name_below,
    named_files,
    normal_split,
    with_splits,
)
from speciate.datasets.sources.readers.choice import Reader, parse_reader, table_suffix
from speciate.datasets.sources.sidecars import with_sidecars
from speciate.datasets.sources.tables import ask_table
from speciate.datasets.sources.unpacked_media import with_media_of_tables
from speciate.datasets.sources.unpacking import Desk, unpack_into
from speciate.datasets.sources.walk import SetAside, walk
from speciate.errors import Code, SpeciateError
from speciate.modalities.mixed.multimodal import MULTIMODAL
from speciate.workspace.workspace import Folders

_ARCHIVE = "speciate.datasets.sources.archives:unpack"


def check(source: Path | str, reader: str | None = None, folders: Folders | None = None) -> int:
    """Refuse at once what names, sizes and installed packages can tell. The bytes of a file; 0 for all else."""
    parse_reader(reader)
    if is_path(source):
        return check_source(Path(source))
    kind, _, name = str(source).partition(":")
    if kind == "pkg":
        packaged_data.find(name)
    elif kind == "gym":
        gym_data.parse(name)
    elif kind == answered.KIND:
        answered.check(str(source), folders)
    else:
        hub.parse_hub_ref(str(source))
    return 0


def prepare(
    source: Path | str,
    desk: Desk,
    *,
    modality: str = "auto",
    reader: str | None = None,
    labels: LabelsFile | None = None,
    inputs: Sequence[str] = (),
    never: Sequence[str] = (),
    label: str | None = None,
    column: str | None = None,
) -> Listing:
    """Everything at a path, of `hf:org/name`, `pkg:NAME`, `gym:TASK` or `log:USE_CASE`, ready to be read, and what is
    set aside with a reason. `label`: the column of labels, where it is named. Of mixed rows `inputs` are the parts that
    are wanted, and `never` the columns that are none. `column`: the only one that models see.

    Raises INVALID, NOT_FOUND, REFUSED, MISSING_EXTRA or UNAVAILABLE where nothing can be read at all.
    """
    check(source, reader)
    place = _fetched(source, desk, label, column)
    files, aside, readable, about = _unpacked(place, labels and labels.path, desk)
    if not files and aside:
        name, reason = aside[0]
        raise SpeciateError(
            Code.INVALID,
            f"{str(source)!r} holds no file that can be read; {len(aside)} set aside, such as {name!r}: {reason}",
            "Call create_dataset with a file or folder of data.",
        )
    export = exported.find(files, desk.pool, readable)
    if export is not None:
        files, modality = export.files, modality if modality != "auto" else export.marker.modality
    found, tables = _laid_out(place.path, files, modality, parse_reader(reader), export)
    found = found._replace(
        readable=readable, revision=place.revision, set_aside=[*place.set_aside, *aside, *found.set_aside],
        notes=(*_left_out(about, export), *found.notes),
    )  # fmt: skip
    if found.layout == "table":
        found = with_media_of_tables(found, desk)
    if found.modality == MULTIMODAL.name and not found.files:  # tables alone may hold bundles in their cells
        of_tables = with_media_of_tables(found._replace(layout="table", files=list(tables)), desk)
        found, tables = (of_tables, []) if of_tables.layout == "media" else (found, tables)
    if found.modality == MULTIMODAL.name:
        found, tables = mixed.gather(found, tables, desk, inputs, never)
    elif found.layout == "media":
        found = gathered(found, desk)
        found = found._replace(hint=mixed.hint(found) if export is None else "")
    with hinting(found.hint):
        labelled = _with_labels(found, tables, labels, desk)
    return _with_splits_of_labels(_with_gathered(labelled, found.labels))


@contextmanager
def hinting(hint: str) -> Iterator[None]:
    """What makes no sense of the files says how else they may be meant, too."""
    try:
        yield
    except SpeciateError as error:
        if not hint or error.code is not Code.INVALID:
            raise
        raise SpeciateError(error.code, error.message, f"{hint} Else: {error.recovery}", error.foreign) from error


def _laid_out(
    source: Path, files: list[SourceFile], modality: str, reader: Reader, export: exported.Export | None
) -> LaidOut:
    """Of an export it is known what its files are."""
    if export is None:
        whole = recognised(files) if reader._replace(as_is=False) == Reader() else None
        if whole is not None and modality in ("auto", whole):
            return LaidOut(Listing(source, "media", whole, with_splits(files, "media"), frozenset((source,))), [])
        return lay_out(source, files, modality, reader)
    marker, tables = export.marker, list[SourceFile]()
    if marker.files and reader._replace(as_is=False) == Reader():
        tables = [file for file in files if file.path.name in exported.SIDECARS]
        beside = set(tables)
        files, reader = [file for file in files if file not in beside], reader._replace(layout="files")
    found = lay_out(source, files, modality, reader)
    return LaidOut(found.listing._replace(marker=marker), [*tables, *found.tables])


class _Place(NamedTuple):
    path: Path
    revision: str | None
    set_aside: list[SetAside]


def _fetched(source: Path | str, desk: Desk, label: str | None, column: str | None) -> _Place:
    if is_path(source):
        return _Place(Path(source), None, [])
    kind, _, name = str(source).partition(":")
    if kind == "hf":
        return _Place(*hub.fetch(str(source), desk.folders))
    folder = desk.work / "packaged"
    folder.mkdir(parents=True)
    aside: list[SetAside] = []
    if kind == "gym":
        gym_data.write(name, folder)
    elif kind == answered.KIND:
        aside = answered.write(str(source), desk.folders, folder, label, column)
    else:
        packaged_data.find(name).write(folder)
    return _Place(folder, None, aside)


class _Unpacked(NamedTuple):
    files: list[SourceFile]
    set_aside: list[SetAside]
    readable: frozenset[Path]
    about: list[str]
    """Names of READMEs and licences, which are no examples."""


def _unpacked(place: _Place, skip: Path | None, desk: Desk) -> _Unpacked:
    """The files at a place and those in its archives, whose names follow that of the archive where there are others."""
    found, aside, about = look(place.path, desk.folders.root)
    files = [(path, name_below(place.path, path)) for path in found if path != skip]
    archives = [(path, name) for path, name in files if archive_suffix(path.name)]
    packed = set(archives)
    named, readable = [file for file in files if file not in packed], {place.path}
    ours = any(path.name == exported.MARKER for path, _ in files)
    for number, (path, name) in enumerate(archives):
        prefix = "" if len(files) == 1 else name.removesuffix(archive_suffix(path.name)) + "/"
        target = desk.work / f"archive-{number:04}"
        try:
            answer = unpack_into(target, _ARCHIVE, {"path": str(path)}, readable=(path,), desk=desk)
        except SpeciateError as error:
            if len(files) == 1:
                raise
            aside.append(SetAside(name, error.whole))
            continue
        members, strange, told = walk(target, links=False)
        about += [prefix + name for name in told]
        if archive_suffix(path.name).lower() != ".zip":
            names = [name_below(target, member) for member in members]
            if ours or shards.is_shard(names):
                members, prefix = shards.gathered(target, names, desk.pool, ours=ours), shards.numbered(prefix)
        inside = [(member, prefix + name_below(target, member)) for member in members]
        named += [member for member in inside if not archive_suffix(member[1])]
        aside += [
            SetAside(name, "An archive in an archive is not unpacked.") for _, name in inside if archive_suffix(name)
        ]
        aside += [SetAside(prefix + str(name), str(reason)) for name, reason in answer["set_aside"]]
        aside += [SetAside(prefix + name, reason) for name, reason in strange]
        readable.add(target)
    unique = {name: path for path, name in reversed(named)}
    aside += [SetAside(name, "Another file has this name.") for path, name in named if unique[name] is not path]
    return _Unpacked(named_files([(path, name) for name, path in unique.items()]), aside, frozenset(readable), about)


def _left_out(about: list[str], export: exported.Export | None) -> list[str]:
    """How many files tell of the data and are no examples; an export of ours has one card, which is its own."""
    if not about or (export is not None and len(about) == 1):
        return []
    files = "1 file is" if len(about) == 1 else f"{len(about):,} files are"
    return [f"{files} left out as a text about the data: {', '.join(map(repr, about[:3]))}."]


def _with_labels(found: Listing, tables: Sequence[SourceFile], labels: LabelsFile | None, desk: Desk) -> Listing:
    """The listing of media with the labels that the caller names or that lie beside them."""
    if labels is None:
        return with_sidecars(found, tables, desk.pool)
    if found.layout == "table":
        raise SpeciateError(
            Code.INVALID,
            "labels names files of media, but the source is a table, whose rows carry their labels.",
            "Call create_dataset with label, a column of the table, in the place of labels.",
        )
    if not table_suffix(labels.path.name):
        raise SpeciateError(
            Code.INVALID,
            f"{labels.path.name!r} is not a CSV, JSON, JSONL, Parquet or Arrow file.",
            "Call again with labels.path of one.",
        )
    table = ask_table(desk.pool, labels.path, text=[labels.key])
    aside = [SetAside(file.name, "A table beside media; `labels` names another.") for file in tables]
    found = found._replace(set_aside=[*found.set_aside, *aside])
    if are_excerpts(table, found.modality):
        parts = excerpts(table, labels.key, found.files, labels.path)
        return found._replace(labels=parts.table, about=parts.about, notes=(*found.notes, *parts.notes))
    rows = beside(table, labels.key, found.files, labels.path)
    return found._replace(labels=rows.table, notes=(*found.notes, *rows.notes))


def _with_gathered(found: Listing, gathered: pa.Table | None) -> Listing:
    """With the columns that a gatherer read beside the media, such as masks, where the labels have none of the name."""
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
        file._replace(split=normal_split(name) or file.split) for file, name in zip(found.files, brought, strict=True)
    ]
    return found._replace(files=files, labels=found.labels.drop_columns(["split"]))
