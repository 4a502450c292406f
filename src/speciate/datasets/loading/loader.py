"""Examples of a version, decoded, for workers; and their keys in caches. Reads sealed files only, never the catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, FIXED, HIDDEN, START, STOP
from speciate.datasets.identity import input_values, known_rows
from speciate.datasets.loading.decoding import MediaItem, cut_window, decode_here, decode_item, decode_media
from speciate.datasets.readers.rows import Row
from speciate.datasets.versions import Manifest
from speciate.features import vector_key
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders


class Example(NamedTuple):
    """`media` as its modality decodes it; `label` a str for classes, a float for numbers, None if there is none."""

    id: str
    media: Any
    label: Any
    group: str
    split: str
    columns: Row


def load_examples(
    folders: Folders,
    manifest: Manifest,
    splits: Collection[str] | None = None,
    ids: Collection[str] | None = None,
    *,
    in_sandbox: bool = False,
) -> list[Example]:
    """The examples of quality ok, sorted by id; only of these splits and ids if they are given.

    An example without a group is its own group. Files of media are decoded in sandboxed processes; `in_sandbox`: this
    process is sandboxed, so decode here.
    """
    table = version_rows.read(folders, manifest, splits=splits, ids=ids, usable=True)
    return examples(table, _media(folders, manifest, table, in_sandbox=in_sandbox), user_columns(table))


def iterate_examples(
    folders: Folders, manifest: Manifest, splits: Collection[str] | None = None, size: int = 1024
) -> Iterator[list[Example]]:
    """Yields the examples of `load_examples` in their order, decoding `size` at a time."""
    table = version_rows.read(folders, manifest, splits=splits, usable=True)
    for start in range(0, table.num_rows, size):
        chunk = table.slice(start, size)
        yield examples(chunk, _media(folders, manifest, chunk, in_sandbox=False), user_columns(chunk))


def load_excluded(folders: Folders, manifest: Manifest, ids: Collection[str]) -> list[tuple[Example, str | None]]:
    """Examples of these ids, of every quality, each with the reason why it has no medium; None if it decoded after all.

    This process must be sandboxed.
    """
    table = version_rows.read(folders, manifest, ids=ids)
    found = list[tuple[Example, str | None]]()
    for place, medium in enumerate(_decode_or_reason(folders, manifest, table)):
        why = medium if isinstance(medium, _MissingMedium) else None
        (example,) = examples(table.slice(place, 1), [None if why is not None else medium], user_columns(table))
        found.append((example, why))
    return found


class _MissingMedium(str):
    """The reason in place of a medium."""


def _decode_or_reason(folders: Folders, manifest: Manifest, table: pa.Table) -> Iterator[Any]:
    kind, bounds = find(manifest.modality), _bounds(table)
    if manifest.inputs:
        for value, window in zip(input_values(kind.name, manifest.inputs, table), bounds, strict=True):
            try:
                yield cut_window(kind.name, kind.admit(value), *window)
            except DecodeError as error:
                yield _MissingMedium(error.detail)
        return
    with PackReader(packs(folders, manifest)) as reader:
        for content, window in zip(table[CONTENT].to_pylist(), bounds, strict=True):
            if not content or content not in reader:
                yield _MissingMedium("No bytes of it are kept.")
                continue
            try:
                yield decode_item(kind, reader.get(content), *window)
            except DecodeError as error:
                yield _MissingMedium(error.detail)


def load_unlabelled(folders: Folders, manifest: Manifest, reasons: Collection[str]) -> list[Example]:
    """Rows that were excluded for one of these reasons, as examples of the training split.

    Rows that equal a validation or test row, or share its group, are left out.
    """
    table = version_rows.read(folders, manifest)
    excluded = pc.and_(pc.equal(table["quality"], "partial"), pc.is_in(table["reason"], pa.array(sorted(reasons))))
    inside = pc.or_(pc.is_null(table["split"]), pc.equal(table["split"], "train"))
    rows = table.filter(pc.fill_null(pc.and_(excluded, inside), False)).sort_by("id")
    if not rows.num_rows:
        return []
    held_out = table.filter(
        pc.and_(pc.equal(table["quality"], "ok"), pc.fill_null(pc.not_equal(table["split"], "train"), False))
    )
    apart = pc.invert(known_rows(rows, manifest, held_out, manifest))
    together = pc.is_in(
        rows["group_key"], value_set=held_out["group_key"].drop_null().combine_chunks(), skip_nulls=True
    )
    rows = rows.filter(pc.and_(apart, pc.invert(together)))
    found = examples(rows, _media(folders, manifest, rows, in_sandbox=False), user_columns(rows))
    return [each._replace(label=None, split="train") for each in found]


def examples(table: pa.Table, media: Sequence[Any], columns: Sequence[str]) -> list[Example]:
    """Rows with their media; `columns`: the user's columns that come with them."""
    fixed = [table[name].to_pylist() for name in ("id", "label", "group_key", "split")]
    cells = table.select(list(columns)).to_pylist() if columns else [{} for _ in range(table.num_rows)]
    return [
        Example(id, medium, label, group if group is not None else id, split or "", row)
        for id, label, group, split, medium, row in zip(*fixed, media, cells, strict=True)  # noqa: A001 - the field
    ]


def user_columns(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name not in FIXED and name not in HIDDEN]


def admit_media(manifest: Manifest, table: pa.Table) -> list[Any]:
    """The media of a version whose medium is in its input columns."""
    admit = find(manifest.modality).admit
    values = (admit(value) for value in input_values(manifest.modality, manifest.inputs, table))
    return [
        cut_window(manifest.modality, media, start, stop)
        for media, (start, stop) in zip(values, _bounds(table), strict=True)
    ]


def items(table: pa.Table) -> list[MediaItem]:
    """The items to decode for these rows."""
    contents = zip(table["id"].to_pylist(), table[CONTENT].to_pylist(), _bounds(table), strict=True)
    return [MediaItem(id, content, *bounds) for id, content, bounds in contents]  # noqa: A001 - the field


def packs(folders: Folders, manifest: Manifest) -> list[Path]:
    return [folders.root / pack for pack in manifest.packs]


def _media(folders: Folders, manifest: Manifest, table: pa.Table, *, in_sandbox: bool) -> list[Any]:
    if manifest.inputs:
        return admit_media(manifest, table)
    if in_sandbox:
        return list(decode_here(packs(folders, manifest), manifest.modality, items(table)))
    return decode_media(folders, packs(folders, manifest), manifest.modality, items(table))


def _bounds(table: pa.Table) -> list[tuple[float | None, float | None]]:
    if START not in table.column_names:
        return [(None, None)] * table.num_rows
    return list(zip(table[START].to_pylist(), table[STOP].to_pylist(), strict=True))


def example_keys(examples: Sequence[Example]) -> list[str]:
    """`ID:DIGEST` of each example, its key in caches: its id and a digest of its medium.

    The same example may show more or fewer of its columns to another model.
    """
    return [vector_key(example.id, example.media) for example in examples]
