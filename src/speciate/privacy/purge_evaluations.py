"""Examples out of the answers that models gave. Reports, which count and average, stay as they were."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from speciate.errors import SpeciateError
from speciate.evaluation import answer_cache
from speciate.evaluation.evaluate import FILES
from speciate.evaluation.pages.page import delete_pages
from speciate.privacy.redaction import TextRedactor
from speciate.workspace import integrity
from speciate.workspace.workspace import Folders

_LOST = "Nobody can tell which examples it holds."
UNREADABLE = (pa.ArrowException, OSError, KeyError, SpeciateError)
"""What a table that is damaged raises; see `check_damage`."""


def purge_examples(folder: Path, ids: Collection[str], labels: Sequence[str]) -> bool:
    """Rewrite the tables of `folder` without these examples; whether it had any. Doing it again changes nothing.

    `labels`: those that no other example has; where a model answers one elsewhere, the answer stays and its name goes.
    Pages of the evaluation, which showed its examples, are deleted.
    """
    paths = [path for name in FILES if (path := folder / name).exists()]
    if any(
        pc.any(_is_purged(integrity.read_table(path, _LOST, columns=["example"])["example"], ids)).as_py()
        for path in paths
    ):
        delete_pages(Folders(folder.parent.parent), folder.name)  # first: what is killed here comes by again
    return _drop_rows(paths, "example", ids, labels)


def purge_cached_answers(folders: Folders, ids: Collection[str], labels: Sequence[str]) -> bool:
    """As `purge_examples`, in the answers that are kept for later evaluations. A damaged file of them goes: no
    evaluation can read it, and nobody can say what it holds."""
    found = False
    for path in answer_cache.sealed(folders):
        try:
            found |= _drop_rows([path], "content", ids, labels)
        except UNREADABLE as error:
            check_damage(error)
            path.unlink()
    return found


def check_damage(error: Exception) -> None:
    """Raises what is no damage of the file: a full disk, say, which must end the purge, so that it is tried again.
    Arrow's own OSError of a torn file has no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _drop_rows(paths: Sequence[Path], column: str, ids: Collection[str], labels: Sequence[str]) -> bool:
    found = False
    for path in paths:
        table = integrity.read_table(path, _LOST)
        gone = _is_purged(table[column], ids)
        if pc.any(gone).as_py():
            found = True
            kept = _clear_labels(table.filter(pc.invert(gone)), labels)
            answer_cache.write_table(kept.replace_schema_metadata(table.schema.metadata), path)
    return found


def _is_purged(column: pa.ChunkedArray, ids: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(sorted(ids), pa.string()))


def _clear_labels(table: pa.Table, labels: Sequence[str]) -> pa.Table:
    eraser = TextRedactor(labels)
    for place, field in enumerate(table.schema):
        if labels and pa.types.is_string(field.type) and field.name not in ("example", "key", "content"):
            written = table[field.name].combine_chunks().dictionary_encode()
            after = [None if cell is None else eraser.cell(cell) for cell in written.dictionary.to_pylist()]
            cells = pa.array(after, pa.string()).take(written.indices)
            table = table.set_column(place, field, cells)
    return table
