"""A format of exports: which versions it can hold, how it writes their rows, and the content that it is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import CONTENT, FIXED, HIDDEN, START, STOP, WINDOW_START, WINDOW_STOP
from speciate.datasets.exports.file_names import UniqueNames, file_name, safe_name
from speciate.datasets.roles import label_column
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders

ReportProgress = Callable[[int], None]
"""Called with the number of rows written since its last call. Raises Stopped if the run is to stop."""
_ORDER = {"train": 0, "validation": 1, "test": 2}
_NO_SPLIT = "examples"


class WriteReport(NamedTuple):
    """What a reader of the export must know."""

    configs: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Split -> pattern of its files below the export, where the hub's loader can read them."""
    escaped: int = 0
    """Cells that a spreadsheet would have run as a formula."""
    notes: tuple[str, ...] = ()
    """Sentences for the card, in our words."""


class Format(Protocol):
    """A format of exports. The same content gives the same bytes: no times, no paths, nothing in the order of a set."""

    name: str
    again: str | None
    """Path below the export that holds the rows for `create_dataset`; None if it does not read this format."""
    files: bool
    """Whether media leave as files of their own, with nothing beside them but files called `metadata`."""
    once: bool
    """Whether rows that are windows of one medium share its file, so that they come back as one example."""

    def misfit(self, manifest: Manifest) -> str | None:
        """Why this format cannot hold the version, as a sentence; None if it can."""
        ...

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        """Write the rows into `folder`, which is there and empty. Foreign media are copied, never decoded."""
        ...


class Media(NamedTuple):
    """The files of media, one entry per row; rows that are windows of one medium share its file."""

    packs: PackReader
    contents: list[str]
    """sha256 of the bytes, which names them in the packs."""
    names: list[str]
    """File names, unique within a folder of split and label."""
    folders: list[str]
    """The label as the name of a folder; empty if there is none."""

    def read(self, place: int) -> bytes:
        return self.packs.get(self.contents[place])

    def path(self, place: int) -> str:
        """Path of the file at `place`, below the folder of its split."""
        folder = self.folders[place]
        return f"{folder}/{self.names[place]}" if folder else self.names[place]


class Piece(NamedTuple):
    """The rows of one split."""

    split: str | None
    name: str
    """The split's name as a file or folder."""
    hub: str
    """The split as Hugging Face allows to call it."""
    start: int
    rows: pa.Table


class ExportContent(NamedTuple):
    """What an export contains: the usable rows with their columns, and the bytes of their media.

    Hidden columns and provenance are left out: a dataset made from an export gets them anew. A label or group that only
    repeats a column of the user's is left to that column, so that the rows come back unchanged.
    """

    manifest: Manifest
    rows: pa.Table
    """The columns that leave, by split and id. The medium is among them only if it lies in the table."""
    ids: list[str]
    label: str | None
    """The column that holds the label."""
    labels: list[Any]
    """Label of each row, as its class is called, or a number; None if it has none."""
    group: str | None
    """The column that holds the group."""
    media: Media | None
    windows: bool
    """Whether some rows are windows of their medium."""
    folders: Folders | None = None
    """Folders of the workspace, for formats that decode media in a sandboxed process."""
    column: str | None = None
    """The column that a format turns into files, where it is about one."""

    def pieces(self) -> Iterator[Piece]:
        """Split by split, those of no split last."""
        splits = self.rows["split"].to_pylist() if "split" in self.rows.column_names else [None] * self.rows.num_rows
        names, hubs, start = UniqueNames(), set[str](), 0
        while start < len(splits):
            split = splits[start]
            stop = start
            while stop < len(splits) and splits[stop] == split:
                stop += 1
            name = _NO_SPLIT if split is None else safe_name(split)
            hub = re.sub(r"\W+", "_", split or "unsplit").strip("_") or "split"
            while hub.casefold() in hubs:
                hub += "_"
            hubs.add(hub.casefold())
            yield Piece(split, names.claim("", name), hub, start, self.rows.slice(start, stop - start))
            start = stop

    def free(self, wanted: str) -> str:
        """A name for one more column."""
        taken = {name.lower() for name in self.rows.column_names}
        chosen, number = wanted, 2
        while chosen.lower() in taken:
            chosen, number = f"{wanted}_{number}", number + 1
        return chosen


def collect_content(manifest: Manifest, rows: pa.Table, packs: PackReader | None) -> ExportContent:
    """`rows`: the usable ones, all columns. `packs`: where the media lie, None if they are cells of the table."""
    rows = _order_rows(rows)
    label, group = _label(rows, manifest), _group(rows, manifest)
    windows = START in rows.column_names and _has(rows, START)
    there = {"label": label == "label", "split": _has(rows, "split"), "group_key": group == "group_key"}
    kept = [name for name, leaves in there.items() if leaves]
    shown = (WINDOW_START, WINDOW_STOP) if windows else ()  # the same again, which the step window made for people
    user = [name for name in rows.column_names if name not in (*FIXED, *HIDDEN, *shown)]
    media = _media(manifest, rows, packs) if packs is not None else None
    export = ExportContent(
        manifest=manifest,
        rows=rows.select([*kept, *user]),
        ids=rows["id"].to_pylist(),
        label=label,
        labels=rows["label"].to_pylist(),
        group=group,
        media=media,
        windows=windows,
    )
    if not windows:
        return export
    for name, hidden in ((WINDOW_START, START), (WINDOW_STOP, STOP)):
        export = export._replace(rows=export.rows.append_column(export.free(name), rows[hidden]))
    return export


def class_names(export: ExportContent) -> list[str]:
    """The classes in the order that numbers them; empty where labels are numbers or there are none.

    Those of the whole version, whichever split leaves; a manifest lists only the most frequent.
    """
    if export.label is None or export.manifest.numeric:
        return []
    return sorted({*export.manifest.labels, *(name for name in export.labels if name is not None)})


def has_files(manifest: Manifest) -> bool:
    """Whether the media are files, not cells of the table."""
    return not manifest.inputs


def _order_rows(rows: pa.Table) -> pa.Table:
    splits = rows["split"].to_pylist()
    ids = rows["id"].to_pylist()
    keys = [(split is None, _ORDER.get(split, 3), split or "", id) for split, id in zip(splits, ids, strict=True)]  # noqa: A001 - the field
    return rows.take(pa.array(sorted(range(len(keys)), key=keys.__getitem__), pa.int64()))


def _label(rows: pa.Table, manifest: Manifest) -> str | None:
    if not _has(rows, "label"):
        return None
    name = manifest.label
    if name in manifest.columns and label_column(rows[name].to_pylist()).values == rows["label"].to_pylist():
        return name
    return "label"


def _group(rows: pa.Table, manifest: Manifest) -> str | None:
    groups = rows["group_key"]
    if not _has(rows, "group_key"):
        return None
    wanted = groups.to_pylist()
    for name in manifest.columns:
        column = rows[name]
        if pa.types.is_nested(column.type) or pc.count_distinct(column).as_py() != pc.count_distinct(groups).as_py():
            continue
        if [None if cell is None else str(cell) for cell in column.to_pylist()] == wanted:
            return name
    return "group_key"


def _has(rows: pa.Table, name: str) -> bool:
    return bool(rows[name].null_count < rows.num_rows)


def _media(manifest: Manifest, rows: pa.Table, packs: PackReader) -> Media:
    suffixes = find(manifest.modality).suffixes
    contents, sources = rows[CONTENT].to_pylist(), rows["source"].to_pylist()
    splits, classes = rows["split"].to_pylist(), rows["label"].to_pylist()
    starts = rows[START].to_pylist() if START in rows.column_names else [None] * len(contents)
    folders = ["" if label is None or manifest.numeric else safe_name(str(label)) for label in classes]
    unique, shared = UniqueNames(), dict[tuple[Any, ...], str]()
    found: list[str] = []
    for content, source, split, folder, start in zip(contents, sources, splits, folders, starts, strict=True):
        medium = (content, source, split, folder)
        if start is None or medium not in shared:
            name = file_name(source, suffixes, lambda content=content: packs.get(content)[:16])  # type: ignore[misc]
            shared[medium] = unique.claim(f"{split}\0{folder}", name)
        found.append(shared[medium])
    return Media(packs, contents, found, folders)
