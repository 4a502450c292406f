"""Examples of a version, decoded, for workers. Reads sealed files only, never the catalog."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets.columns import CONTENT, FIXED, HIDDEN
from speciate.datasets.decoding import decode_here, decode_media
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.workspace.workspace import Folders


class Example(NamedTuple):
    """`media` as its modality decodes it; `label` a str for classes, a float for numbers, None where there is none."""

    id: str
    media: Any
    label: Any
    group: str
    split: str
    columns: dict[str, Any]


def load_examples(
    folders: Folders,
    manifest: Manifest,
    splits: Collection[str] | None = None,
    ids: Collection[str] | None = None,
    *,
    caged: bool = False,
) -> list[Example]:
    """The examples of quality ok, sorted by id; of these splits and ids only where they are given.

    An example without a group of its own is its own group. Files of media are decoded in caged processes; `caged`: this
    is one, decode here.
    """
    table = read_rows(folders, manifest, splits, ids)
    media = _media(folders, manifest, table, caged=caged)
    user = [name for name in table.column_names if name not in FIXED and name not in HIDDEN]
    fixed = [table[name].to_pylist() for name in ("id", "label", "group_key", "split")]
    cells = table.select(user).to_pylist() if user else [{} for _ in range(table.num_rows)]
    return [
        Example(id, medium, label, group if group is not None else id, split or "", columns)
        for id, label, group, split, medium, columns in zip(*fixed, media, cells, strict=True)  # noqa: A001 - the field
    ]


def read_rows(
    folders: Folders, manifest: Manifest, splits: Collection[str] | None = None, ids: Collection[str] | None = None
) -> pa.Table:
    """The rows of quality ok, sorted by id."""
    table = pa.concat_tables(
        [pq.read_table(folders.root / name) for name in manifest.files], promote_options="permissive"
    )
    keep = pc.equal(table["quality"], "ok")
    if splits is not None:
        keep = pc.and_(keep, pc.is_in(table["split"], pa.array(sorted(splits), pa.string())))
    if ids is not None:
        keep = pc.and_(keep, pc.is_in(table["id"], pa.array(sorted(ids), pa.string())))
    return table.filter(keep).sort_by("id")


def _media(folders: Folders, manifest: Manifest, table: pa.Table, *, caged: bool) -> list[Any]:
    modality = find(manifest.modality)
    if manifest.inputs:
        return [modality.admit(value) for value in input_values(manifest.modality, manifest.inputs, table)]
    packs, contents = [folders.root / pack for pack in manifest.packs], table[CONTENT].to_pylist()
    if caged:
        return list(decode_here(packs, manifest.modality, contents))
    return decode_media(folders, packs, manifest.modality, contents)


def input_values(modality: str, inputs: Sequence[str], table: pa.Table) -> list[Any]:
    """What the input columns of each row hold, as the modality admits it: several texts are one, a line each."""
    if modality == "tabular":
        rows: list[Any] = table.select(list(inputs)).to_pylist()
        return rows
    if len(inputs) == 1:
        return list(table[inputs[0]].to_pylist())
    columns = [table[name].to_pylist() for name in inputs]
    if modality == "time-series":
        return [list(channels) for channels in zip(*columns, strict=True)]
    return ["\n".join(str(cell) for cell in cells if cell is not None) for cells in zip(*columns, strict=True)]
