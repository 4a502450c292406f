"""Which rows must be forgotten, wherever they lie, and the sealed files of every version without them.

Runs outside the daemon, over files alone. The request names an example or a group of one dataset; a purge removes it
and everything that is the same: a row of any dataset that shares an id, the content, the fingerprint or the cells with
one that goes, or was cut from it, and so on until nothing more is found. So a copy, a relabelled row and all windows of
a medium go as well, and a row of somebody else that says exactly the same; the survey counts those apart, before a
person agrees. A damaged file is passed over and named: what it holds nobody can tell.

Files are written beside the old ones and named by content, so that a purge which is killed and repeated writes the same
ones again. The old ones stay until the catalog no longer names them.
"""

from __future__ import annotations

import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, FINGERPRINT, FIXED, HIDDEN, KEY, ORIGIN
from speciate.datasets.content_hash import Lanes, lanes, row_digests, seal_rows, version_id
from speciate.datasets.next_version import count_values
from speciate.datasets.version_rows import Places
from speciate.datasets.versions import Manifest, Part
from speciate.errors import SpeciateError
from speciate.modalities.tabular import Row
from speciate.privacy.redaction import own_words
from speciate.workspace import integrity
from speciate.workspace.blobs import Blobs
from speciate.workspace.packs import PackReader, PackWriter, index_path
from speciate.workspace.workspace import Folders

_KNOWN_BY = {"id": "id", CONTENT: CONTENT, FINGERPRINT: FINGERPRINT, KEY: KEY, ORIGIN: KEY}
"""Column -> what its values are: a window names the key of the row that it was cut from."""
_LEARNED = ("train", "validation")
"""Splits that a training reads; it leaves a row without a split alone."""
_TOKEN = re.compile(r"[^0-9A-Za-z-]+")

PurgeKeys = dict[str, set[str]]
"""What the rows that go are known by: hidden column (or id) -> values."""
Progress = Callable[[int, int, str], None]


class Target(BaseModel):
    """An example or a group of `dataset`: exactly one of the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    group: str | None = None
    example: str | None = None


class RowsToRemove(NamedTuple):
    """The rows to remove from one sealed file."""

    places: Places
    """Rows of the file, ascending."""
    rows: pa.Table
    """The rows at `places`."""
    file: str | None = None
    """The file without them, relative to the workspace's root; None where none was written."""


class ReducedVersion(NamedTuple):
    """A version without the purged rows."""

    manifest: Manifest
    lanes: Lanes
    rows: int
    """How many rows of it went."""
    training_rows: int
    """How many of the purged rows a training on it reads."""
    qualities: dict[str, int]
    """Rows of each quality that went."""


class PurgeResult(NamedTuple):
    versions: list[ReducedVersion]
    keys: PurgeKeys
    texts: list[str]
    """Names and cells that only rows which went had: they may stand in reports and requests."""
    labels: list[str]
    """Those of `texts` that were labels."""
    obsolete: list[str]
    """Files with purged rows, relative to the root: to be deleted once the catalog names the new ones."""
    unreadable: list[str]
    """Files of versions and evaluations that are damaged: whether they hold any of it, nobody can tell."""
    cells: list[Row] = []  # noqa: RUF012 - never changed
    """For each row that goes, column of the user's -> cell."""


class RowCounts(BaseModel):
    """What a purge would remove, counted for the person who decides."""

    model_config = ConfigDict(frozen=True)
    versions: list[tuple[str, int, int]]
    """Ref, rows that go, and how many of those a training on it reads."""
    examples: int
    """Different ones."""
    outside: int
    """Examples that were not requested but are the same as one that was."""
    evaluations: list[str]
    """Ids of the evaluations with answers to them."""
    unreadable: list[str]
    """Damaged files of versions, which nobody can search."""


class SurveyRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path
    versions: list[Manifest]
    target: Target


def survey(payload: Mapping[str, object]) -> Mapping[str, object]:
    """Service of the pool: `SurveyRequest` -> `RowCounts`."""
    request = SurveyRequest.model_validate(payload)
    folders, manifests, target = Folders(request.root), request.versions, request.target
    files, damaged = sealed_files(folders)
    known = purge_keys(folders, files, manifests, target)
    cuts = {
        file: cut for file in files if (cut := find_rows(folders, file, known, ["id", "split", "quality", "group_key"]))
    }
    going = [(manifest, live_rows(folders, manifest, cuts)) for manifest in manifests]
    ids = {id for _, rows in going for id in rows["id"].to_pylist()}  # noqa: A001 - the column
    asked = {
        id
        for manifest, rows in going
        if manifest.name == target.dataset
        for id in rows.filter(_target_column(rows, target))["id"].to_pylist()  # noqa: A001
    }
    return {
        "versions": [
            [manifest.ref, rows.num_rows, count_training_rows(rows)] for manifest, rows in going if rows.num_rows
        ],
        "examples": len(ids),
        "outside": len(ids - asked),
        "evaluations": [
            path.name
            for path in sorted(folders.evaluations.glob("*"))
            if evaluation_holds(path / "examples.parquet", ids)
        ],
        "unreadable": sorted(_needed(manifests) & {*damaged, *_damaged_packs(folders)}),
    }


def purge(
    folders: Folders, versions: Sequence[tuple[Manifest, Lanes]], target: Target, progress: Progress
) -> PurgeResult:
    """Write every file of versions, packs and caches again without the purged rows.

    Where nothing does (another purge came first), nothing is written.
    """
    manifests = [manifest for manifest, _ in versions]
    files, damaged = sealed_files(folders)
    known = purge_keys(folders, files, manifests, target)
    cuts: dict[str, RowsToRemove] = {}
    for number, file in enumerate(files):
        progress(number, len(files), "files")
        if cut := find_rows(folders, file, known):
            cuts[file] = cut._replace(file=_write_without(folders, file, cut.places))
    packs = {
        pack.relative_to(folders.root).as_posix(): _write_pack_without(folders, pack, known[CONTENT])
        for pack in sorted(folders.packs.glob("*.pack"))
        if not known[CONTENT].isdisjoint(_pack_contents(pack) or ())
    }
    reduced = [each for version in versions if (each := reduce_version(folders, *version, cuts, packs))]
    for part in sorted(folders.features.glob("*/*.parquet")):
        _forget_vectors(part, set().union(*known.values()))
    texts, labels = _unique_texts(folders, manifests, cuts)
    blobs = [Blobs(folders.blobs).path(content) for content in sorted(known[CONTENT]) if _is_blob(folders, content)]
    obsolete = [*cuts, *packs, *(index_path(Path(pack)).as_posix() for pack in packs)]
    obsolete += [path.relative_to(folders.root).as_posix() for path in blobs]
    obsolete += [integrity.DAMAGED_FOLDER] if (folders.root / integrity.DAMAGED_FOLDER).exists() else []
    needed, damaged = _needed(manifests), [*damaged, *_damaged_packs(folders)]
    obsolete += sorted({*damaged} - needed)
    return PurgeResult(reduced, known, texts, labels, obsolete, sorted(needed & {*damaged}), _cells(cuts))


class SealedFiles(NamedTuple):
    """Sealed files, also those that no version names, relative to the root."""

    files: list[str]
    """Files that hold rows."""
    damaged: list[str]


def sealed_files(folders: Folders) -> SealedFiles:
    found = SealedFiles([], [])
    for path in sorted(folders.datasets.rglob("*.parquet")):
        names = _column_names(path)
        if names is None or "id" in names:
            (found.damaged if names is None else found.files).append(path.relative_to(folders.root).as_posix())
    return found


def _column_names(file: Path) -> list[str] | None:
    """None where the file is damaged."""
    try:
        integrity.check(file, "")
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError, SpeciateError):
        return None


def _needed(manifests: Iterable[Manifest]) -> set[str]:
    parts = [part for manifest in manifests for part in manifest.parts]
    packs = {pack for manifest in manifests for pack in manifest.packs}
    return packs | {name for part in parts for name in (part.file, part.removed) if name}


def purge_keys(folders: Folders, files: Sequence[str], manifests: Sequence[Manifest], target: Target) -> PurgeKeys:
    """What everything that must go is known by. `id` is empty where nothing fits the target."""
    known: PurgeKeys = {name: set() for name in _KNOWN_BY.values()}
    own = {part.file for manifest in manifests if manifest.name == target.dataset for part in manifest.parts}
    own |= {file for file in files if Path(file).parent.name == target.dataset}
    for file in sorted(own & set(files)):
        table = _columns(folders, file, [*_KNOWN_BY, "group_key"])
        _add_keys(known, table.filter(_target_column(table, target)))
    size = -1
    while size != (size := sum(map(len, known.values()))) and known["id"]:
        for file in files:
            table = _columns(folders, file, list(_KNOWN_BY))
            _add_keys(known, table.filter(_matches_keys(table, known)))
    return known


def find_rows(
    folders: Folders, file: str, known: PurgeKeys, columns: Sequence[str] | None = None
) -> RowsToRemove | None:
    """The rows to remove from a sealed file, with these columns (default: all); None if there are none."""
    places = np.flatnonzero(np.asarray(_matches_keys(_columns(folders, file, list(_KNOWN_BY)), known)))
    if not len(places):
        return None
    table = pq.read_table(folders.root / file) if columns is None else _columns(folders, file, columns)
    return RowsToRemove(places, table.take(pa.array(places)))


def live_rows(folders: Folders, manifest: Manifest, cuts: Mapping[str, RowsToRemove]) -> pa.Table:
    """The rows to remove that this version still holds."""
    tables = [_live_of(folders, part, cuts[part.file]) for part in manifest.parts if part.file in cuts]
    if not tables:
        return pa.table({name: pa.array([], pa.string()) for name in ("id", "split", "quality", "group_key")})
    return pa.concat_tables(tables, promote_options="permissive")


def count_training_rows(rows: pa.Table) -> int:
    """How many rows a training reads."""
    inside = pc.is_in(rows["split"].cast(pa.string()), pa.array(_LEARNED))
    mine = pc.and_(inside, pc.equal(rows["quality"], "ok"))
    return int(pc.sum(mine).as_py() or 0)


def evaluation_holds(file: Path, ids: Iterable[str]) -> bool:
    """Whether an evaluation's table has answers to these examples; one that is damaged may have."""
    if not file.exists():
        return False
    if _column_names(file) is None:
        return True
    examples = pq.read_table(file, columns=["example"])["example"]
    return bool(pc.any(pc.is_in(examples, pa.array(sorted(ids), pa.string()))).as_py())


def _columns(folders: Folders, file: str, names: Sequence[str]) -> pa.Table:
    there = set(pq.read_schema(folders.root / file).names)
    return pq.read_table(folders.root / file, columns=[name for name in names if name in there])


def _target_column(table: pa.Table, target: Target) -> pa.ChunkedArray:
    name, value = ("group_key", target.group) if target.group is not None else ("id", target.example)
    return pc.fill_null(pc.equal(table[name].cast(pa.string()), value), False)


def _matches_keys(table: pa.Table, known: PurgeKeys) -> pa.Array:
    mask = pa.chunked_array([np.zeros(table.num_rows, bool)])
    for name, what in _KNOWN_BY.items():
        if known[what] and name in table.column_names:
            wanted = pa.array(sorted(known[what]), pa.string())
            mask = pc.or_(mask, pc.is_in(table[name].cast(pa.string()), value_set=wanted, skip_nulls=True))
    return mask


def _add_keys(known: PurgeKeys, rows: pa.Table) -> None:
    for name, what in _KNOWN_BY.items():
        if name in rows.column_names:
            known[what].update(value for value in rows[name].to_pylist() if value)


def _live_of(folders: Folders, part: Part, cut: RowsToRemove) -> pa.Table:
    return cut.rows.filter(pa.array(~np.isin(cut.places, version_rows.positions(folders, part))))


def reduce_version(
    folders: Folders,
    manifest: Manifest,
    total: Lanes,
    cuts: Mapping[str, RowsToRemove],
    packs: Mapping[str, str | None],
) -> ReducedVersion | None:
    """The version without the purged rows; None if it holds none of them. Its number stays, its id follows its rows.

    `packs`: old -> new; None: nothing is left of it.
    """
    if not any(part.file in cuts for part in manifest.parts) and not any(pack in packs for pack in manifest.packs):
        return None
    gone = [_live_of(folders, part, cuts[part.file]) for part in manifest.parts if part.file in cuts]
    after = total.copy()
    for rows in gone:
        after -= lanes(row_digests(rows), manifest.hashing)
    parts = [_reduce_part(folders, part, cuts[part.file]) if part.file in cuts else part for part in manifest.parts]
    parts = [part for part in parts if part.gone < part.rows] or parts[:1]  # its schema is read, whatever is left
    names = (packs.get(pack, pack) for pack in manifest.packs)
    left = manifest.model_copy(
        update={"parts": tuple(parts), "packs": tuple(dict.fromkeys(name for name in names if name))}
    )
    count = sum(rows.num_rows for rows in gone)
    follows = {
        "id": version_id(after),
        "splits": _subtract_counts(manifest.splits, gone, "split"),
        "labels": _subtract_counts(manifest.labels, gone, "label"),
        "rows": manifest.rows - count,
    }
    qualities = Counter(quality for rows in gone for quality in rows["quality"].to_pylist())
    return ReducedVersion(
        left.model_copy(update=follows), after, count, sum(map(count_training_rows, gone)), dict(qualities)
    )


def _subtract_counts(before: Mapping[str, int], gone: Iterable[pa.Table], column: str) -> dict[str, int]:
    return dict(
        (Counter(before) - sum((Counter(count_values(rows, column)) for rows in gone), Counter())).most_common()
    )


def _reduce_part(folders: Folders, part: Part, cut: RowsToRemove) -> Part:
    """The part over its file's successor; positions that were taken away before move up."""
    before = version_rows.positions(folders, part)
    rest = before[~np.isin(before, cut.places)]
    removed = rest - np.searchsorted(cut.places, rest)
    assert cut.file is not None
    file = seal_rows(pa.table({"position": removed}), (folders.root / cut.file).parent) if len(removed) else None
    return Part(
        file=cut.file,
        rows=part.rows - len(cut.places),
        removed=file and file.relative_to(folders.root).as_posix(),
        gone=len(removed),
    )


def _write_without(folders: Folders, file: str, places: Places) -> str:
    table = pq.read_table(folders.root / file)
    keep = np.ones(table.num_rows, bool)
    keep[places] = False
    return seal_rows(table.filter(pa.array(keep)), (folders.root / file).parent).relative_to(folders.root).as_posix()


def _pack_contents(pack: Path) -> list[str] | None:
    """sha256 of every blob in it; None where it has no index, or a damaged one."""
    try:
        return list(integrity.read_table(index_path(pack), "", columns=["sha256"])["sha256"].to_pylist())
    except (OSError, SpeciateError):
        return None


def _damaged_packs(folders: Folders) -> list[str]:
    packs = sorted(folders.packs.glob("[!.]*.pack"))
    return [pack.relative_to(folders.root).as_posix() for pack in packs if _column_names(index_path(pack)) is None]


def _write_pack_without(folders: Folders, pack: Path, contents: set[str]) -> str | None:
    """The pack of all other blobs, in their order."""
    index = pq.read_table(index_path(pack)).sort_by("offset")
    kept = [sha256 for sha256 in index["sha256"].to_pylist() if sha256 not in contents]
    if not kept:
        return None
    with PackReader([pack]) as reader, PackWriter(folders.packs) as writer:
        for sha256 in kept:
            writer.add(reader.get(sha256))
        return writer.seal().relative_to(folders.root).as_posix()


def _is_blob(folders: Folders, content: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", content) is not None and content in Blobs(folders.blobs)


def _forget_vectors(part: Path, known: set[str]) -> None:
    """A part of a feature cache without the vectors of these items, by whatever column and key they are named."""
    if _column_names(part) is None:  # they are computed again
        part.unlink()
        return
    table = pq.read_table(part)
    gone = np.zeros(table.num_rows, bool)
    for field in table.schema:
        if pa.types.is_string(field.type):
            gone |= np.array([not known.isdisjoint(_TOKEN.split(key or "")) for key in table[field.name].to_pylist()])
    if not gone.any():
        return
    if not gone.all():
        temporary = part.with_name(f".{uuid.uuid4().hex}.tmp")
        with temporary.open("w+b") as file:
            integrity.write_table(table.filter(pa.array(~gone)), file)
            os.fsync(file.fileno())
        temporary.rename(part.with_name(f"part-{uuid.uuid4().hex}.parquet"))
    part.unlink()


def _unique_texts(
    folders: Folders, manifests: Sequence[Manifest], cuts: Mapping[str, RowsToRemove]
) -> tuple[list[str], list[str]]:
    """Texts of the rows that go which no row of any version has that stays; and those that were labels. Names of
    columns, and what our own code writes, tell of nobody."""
    if not cuts:
        return [], []
    labels, texts = set[str](), set[str]()
    for cut in cuts.values():
        labels |= _texts_of(cut.rows, ["label"])
        texts |= _texts_of(cut.rows, _text_columns(cut.rows.schema))
    texts |= {Path(text).name for cut in cuts.values() for text in _texts_of(cut.rows, ["source"])}
    texts -= {"", *own_words(), *(column for manifest in manifests for column in manifest.columns)}
    for file in sorted({part.file for manifest in manifests for part in manifest.parts}):
        if texts:
            texts -= _still_said(folders, cuts[file].file if file in cuts else file, texts)
    return sorted(texts), sorted(labels & texts)


def _still_said(folders: Folders, file: str | None, texts: set[str]) -> set[str]:
    """Those of `texts` that a row of a sealed file has. A damaged file has none."""
    assert file is not None
    if _column_names(folders.root / file) is None:
        return set()
    wanted, found = pa.array(sorted(texts), pa.string()), set[str]()
    with pq.ParquetFile(folders.root / file) as rows:
        for batch in rows.iter_batches(columns=_text_columns(rows.schema_arrow)):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                said = pc.list_flatten(column) if pa.types.is_list(column.type) else column
                said = said.dictionary_decode() if pa.types.is_dictionary(said.type) else said
                of_sources = [pc.replace_substring_regex(said, "^.*/", "")] if name == "source" else []
                for each in (said, *of_sources):
                    found.update(each.filter(pc.is_in(each, wanted)).unique().to_pylist())
    return found


def _cells(cuts: Mapping[str, RowsToRemove]) -> list[Row]:
    return [
        row
        for cut in cuts.values()
        for row in cut.rows.select([n for n in cut.rows.column_names if n not in (*FIXED, *HIDDEN)]).to_pylist()
    ]


def _text_columns(schema: pa.Schema) -> list[str]:
    """Columns of text, of which a report may speak; not what rows are known by."""
    user = [name for name in schema.names if name not in (*FIXED, *HIDDEN)]
    return [
        name
        for name in ("label", "group_key", "reason", "source", *user)
        if name in schema.names and _is_text(schema.field(name).type)
    ]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type)))


def _texts_of(rows: pa.Table, names: Sequence[str]) -> set[str]:
    found = set[str]()
    for name in names:
        column = rows[name]
        if pa.types.is_list(column.type):
            column = pc.list_flatten(column)
        if pa.types.is_string(column.type):
            found.update(text for text in pc.unique(column).to_pylist() if text)
    return found
