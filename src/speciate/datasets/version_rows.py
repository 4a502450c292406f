"""The rows of a version, wherever its parts lie: a base file, files of later additions, and removed positions.

No other module reads parts. Works over sealed files only; `ancestors` alone asks the catalog.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets.columns import START
from speciate.datasets.versions import Manifest, Part, Version, find_parent
from speciate.errors import Call, Code, SpeciateError
from speciate.modalities.multimodal import MULTIMODAL, PartName, parse_part_names
from speciate.refs import dataset_ref
from speciate.workspace import integrity, memory_database
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders

PART, PLACE = "_part", "_place"
_PARTS = "parts"
"""The column of mixed rows that names the parts that each has."""
_AS_THEY_ARE = "hive_partitioning = false"
"""Or a workspace below a folder such as `seed=7` would have a column `seed`."""
_LOST = "With it, rows of every dataset version that names it are lost."
_RECOVERY = (
    "Restore the file from a backup of the workspace, or make the dataset again from its source (create_dataset); "
    "`speciate verify --all` names everything that is damaged. Other versions and models stay usable."
)
Places = npt.NDArray[np.int64]
_MEASURED = ("seconds", "steps", "residues", "characters")
"""Columns of media of their own length. An image is brought to one size."""
_WRITTEN = ("text", "protein")
_FIRST_ROWS = 1_000


def read(
    folders: Folders,
    manifest: Manifest,
    columns: Sequence[str] | None = None,
    *,
    splits: Collection[str] | None = None,
    ids: Collection[str] | None = None,
    usable: bool = False,
) -> pa.Table:
    """The rows sorted by id; only of these splits and ids if they are given; `usable`: of quality ok only.

    NOT_FOUND, here and below, if the version was purged or deleted since its manifest was read.
    """
    _check_there(folders, manifest)
    needed = None if columns is None else list(dict.fromkeys([*columns, "id", "split", "quality"]))
    wanted = None if ids is None else pa.array(sorted(ids), pa.string())
    table = _concatenate([live_rows(folders, part, needed, wanted) for part in manifest.parts])
    table = _with_emptied(table, manifest, manifest.columns if columns is None else columns)
    conditions = []
    if usable:
        conditions.append(pc.equal(table["quality"], "ok"))
    if splits is not None:
        conditions.append(pc.is_in(table["split"], pa.array(sorted(splits), pa.string())))
    if wanted is not None:
        conditions.append(pc.is_in(table["id"], wanted))
    found = sort_by_id(table.filter(reduce(pc.and_, conditions)) if conditions else table)
    return found if columns is None else found.select(list(columns))


_EMPTIED = {
    "VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us"), "DATE": pa.date32(), "BLOB": pa.binary(),
}  # fmt: skip
"""Types of a manifest's columns (columns.py `type_name`), of which none says more than its values could."""


def _with_emptied(table: pa.Table, manifest: Manifest, columns: Collection[str]) -> pa.Table:
    """With a column of nothing for each that the manifest names and no part has: versions that were stored before
    next_version.py looked at the parts name columns whose last rows had been removed."""
    for name in columns:
        if name in manifest.columns and name not in table.column_names:
            kind = _EMPTIED.get(manifest.columns[name], pa.null())
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
    return table


def stored_columns(folders: Folders, manifest: Manifest) -> set[str]:
    """The columns that any part has, hidden ones included."""
    _check_there(folders, manifest)
    return {name for part in manifest.parts for name in pq.read_schema(folders.root / part.file).names}


def schema(folders: Folders, parts: Sequence[Part]) -> pa.Schema:
    """The columns and types that the rows of these parts have when they are read together, by the footers."""
    each = [pq.read_schema(folders.root / part.file).remove_metadata() for part in parts]
    return pa.unify_schemas(each, promote_options="permissive")


def part_names(folders: Folders, manifest: Manifest, splits: Collection[str] | None = None) -> tuple[PartName, ...]:
    """The parts that any usable row has, by name; only of these splits. Empty where rows are not mixed, or were stored
    before parts were noted."""
    if manifest.modality != MULTIMODAL.name or _PARTS not in stored_columns(folders, manifest):
        return ()
    cells = read(folders, manifest, [_PARTS], splits=splits, usable=True)[_PARTS].unique().to_pylist()
    return tuple(sorted({part for cell in cells if cell for part in parse_part_names(str(cell))}))


def part_modalities(folders: Folders, manifest: Manifest) -> frozenset[str]:
    """Modalities of the parts that any usable row has. Empty where rows are not mixed."""
    return frozenset(part.modality for part in part_names(folders, manifest))


def stored_bytes(folders: Folders, manifest: Manifest, columns: Collection[str]) -> int:
    """How much these columns take in all parts before compression, by their footers: a lower bound in memory."""
    _check_there(folders, manifest)
    total = 0
    for part in manifest.parts:
        footer = pq.read_metadata(folders.root / part.file)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for chunk in map(group.column, range(group.num_columns)):
                path = chunk.path_in_schema
                named = any(path == name or path.startswith(f"{name}.") for name in columns)
                total += chunk.total_uncompressed_size if named else 0
    return total


def first_lengths(folders: Folders, manifest: Manifest, column: str) -> set[int]:
    """Lengths of the lists in a column, of the first usable rows; empty if it holds no lists."""
    for path in files(folders, manifest)[:1]:
        parquet = pq.ParquetFile(path)
        if column in parquet.schema_arrow.names and pa.types.is_list(parquet.schema_arrow.field(column).type):
            for batch in islice(parquet.iter_batches(_FIRST_ROWS, columns=[column, "quality"]), 1):
                usable = batch.filter(pc.equal(batch["quality"], "ok"))
                return set(pc.list_value_length(usable[column]).drop_null().to_pylist())
    return set()


def sort_by_id(rows: pa.Table) -> pa.Table:
    """The table itself where it is sorted already."""
    ids = rows["id"].combine_chunks()
    if pc.all(pc.less_equal(ids[:-1], ids[1:]), min_count=0).as_py():
        return rows
    return rows.sort_by("id")


def read_placed(folders: Folders, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows, with `_part` (which part of the manifest) and `_place` (which row of its file)."""
    tables = []
    for number, part in enumerate(manifest.parts):
        rows = live_rows(folders, part, columns)
        places = np.delete(np.arange(part.rows), positions(folders, part))
        tables.append(
            rows.append_column(PART, pa.array(np.full(len(places), number, np.int32))).append_column(
                PLACE, pa.array(places)
            )
        )
    return _concatenate(tables)


def live_rows(
    folders: Folders, part: Part, columns: Sequence[str] | None = None, ids: pa.Array | None = None
) -> pa.Table:
    """The rows of one part; of `columns` those that it has. With `ids` what has none of them may be left out: rows lie
    by id, so most of a large file is not read."""
    file = folders.root / part.file
    integrity.check(file, _LOST, _RECOVERY)
    if columns is not None:
        there = set(pq.read_schema(file).names)
        columns = [name for name in columns if name in there]
    alone = ids is not None and part.removed is None  # what was removed is known by its place among all
    table = pq.read_table(file, columns=columns, filters=pc.field("id").isin(ids) if alone else None)
    if part.removed is None:
        return table
    keep = np.ones(table.num_rows, bool)
    keep[positions(folders, part)] = False
    return table.filter(pa.array(keep))


def positions(folders: Folders, part: Part) -> Places:
    """Which rows of the part's file the version no longer holds, ascending."""
    if part.removed is None:
        return np.zeros(0, np.int64)
    return np.asarray(integrity.read_table(folders.root / part.removed, _LOST, _RECOVERY)["position"], np.int64)


def relation(folders: Folders, manifest: Manifest) -> str:
    """SQL that may stand after FROM and gives the rows, hidden columns included."""
    _check_there(folders, manifest)
    whole = [quoted(folders.root / part.file) for part in manifest.parts if part.removed is None]
    together = f"read_parquet([{', '.join(whole)}], union_by_name = true, {_AS_THEY_ARE})"
    pieces = [f"SELECT * FROM {together}"] if whole else []
    for part in manifest.parts:
        if part.removed is not None:
            gone = f"SELECT position FROM read_parquet({quoted(folders.root / part.removed)})"
            pieces.append(rows_of_file(folders.root / part.file, f"file_row_number NOT IN ({gone})"))
    rows = f"({' UNION ALL BY NAME '.join(pieces)})"
    emptied = manifest.columns.keys() - stored_columns(folders, manifest)  # as in `_with_emptied`
    kinds = {name: manifest.columns[name] for name in sorted(emptied) if manifest.columns[name] in _EMPTIED}
    nothing = ", ".join(f"NULL::{kind} AS {_named(name)}" for name, kind in kinds.items())
    return f"(SELECT *, {nothing} FROM {rows})" if nothing else rows


def first_single(folders: Folders, manifest: Manifest, split: str) -> str | None:
    """The id of a usable row of the split that is a whole by itself, not a window of a longer medium; None without."""
    windows = f" AND {START} IS NULL" if START in stored_columns(folders, manifest) else ""
    query = f"SELECT id FROM {relation(folders, manifest)} WHERE split = ? AND quality = 'ok'{windows} LIMIT 1"
    with memory_database.cursor() as connection:
        found = connection.execute(query, [split]).fetchone()
    return None if found is None else str(found[0])


def rows_of_file(file: Path, condition: str) -> str:
    """SELECT of the rows of a sealed file whose `file_row_number` fulfils a condition."""
    integrity.check(file, _LOST, _RECOVERY)
    source = f"read_parquet({quoted(file)}, file_row_number = true, {_AS_THEY_ARE})"
    return f"SELECT * EXCLUDE (file_row_number) FROM {source} WHERE {condition}"


def files(folders: Folders, manifest: Manifest) -> list[Path]:
    """All files that must be readable for the rows."""
    names = [name for part in manifest.parts for name in (part.file, part.removed) if name is not None]
    return [folders.root / name for name in names]


def quoted(path: Path | str) -> str:
    """A path as a literal of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def _named(column: str) -> str:
    """A column as a name of SQL."""
    return '"' + column.replace('"', '""') + '"'


def _check_there(folders: Folders, manifest: Manifest) -> None:
    missing = next((path for path in files(folders, manifest) if not path.exists()), None)
    if missing is not None:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{manifest.ref} is incomplete: {missing.name} is missing. It was purged or deleted meanwhile, or the "
            "workspace's folders are older than its catalog.",
            "Make the same call again. If that fails, too, restore the folders from the backup that the catalog is of; "
            "`speciate verify --all` names all that is missing.",
            next=[Call("describe_dataset", {"dataset": manifest.name})],
        )
    for path in files(folders, manifest):
        integrity.check(path, f"With it, rows of {manifest.ref} are lost.", _RECOVERY)


def _concatenate(tables: list[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")


def ancestors(database: Database, found: Version) -> Iterator[Version]:
    """The versions of the same dataset that `found` was made from, one after the other; deleted ones without parts."""
    before: Version | None = found
    while before and before.parents and dataset_ref(before.parents[0]).name == found.manifest.name:
        before = find_parent(database, before, before.parents[0])
        if before:
            yield before


def read_former_rows(folders: Folders, parts: Sequence[Part], columns: Sequence[str]) -> pa.Table | None:
    """All rows in the files of `parts`, including removed ones; None if no file exists any more."""
    there = {part.file: Part(file=part.file, rows=part.rows) for part in parts}
    tables = [live_rows(folders, part, columns) for part in there.values() if (folders.root / part.file).exists()]
    return pa.concat_tables(tables, promote_options="permissive") if tables else None


def mean_length(folders: Folders, manifest: Manifest) -> float:
    """Characters, residues, steps or seconds of a mean example, which costs follow; 1 if all have one length.
    Never 0."""
    if manifest.modality in _WRITTEN and manifest.inputs:
        names = ['"' + name.replace('"', '""') + '"' for name in manifest.inputs]
        length = " + ".join(f"coalesce(length({name}::VARCHAR), 0)" for name in names)
    else:
        there = [name for name in _MEASURED if name in manifest.columns and name not in manifest.inputs]
        length = next((f'TRY_CAST("{name}"::VARCHAR AS DOUBLE)' for name in there), "")  # a user's may be a text
    if not length:
        return 1.0
    with memory_database.cursor() as connection:
        found = connection.execute(f"SELECT avg({length}) FROM {relation(folders, manifest)}").fetchone()
    return max(1e-3, float(found[0])) if found and found[0] is not None else 1.0
