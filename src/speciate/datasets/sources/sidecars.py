"""Labels that lie beside media and are found without being named: tables with a column `file_name`, as the folders of
Hugging Face have them (`metadata.csv`, one for all or one a folder), and annotations in COCO's format.

Only where it is clear which file a row is about; a table that is not used is set aside with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from speciate.datasets.sources.labels import beside
from speciate.datasets.sources.listing import Listing, SourceFile, split_of_file
from speciate.datasets.sources.readers.choice import table_suffix
from speciate.datasets.sources.readers.rows import together
from speciate.datasets.sources.tables import ask_table
from speciate.datasets.sources.walk import SetAside
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool

KEY = "file_name"
_MOST = 1_000
"""Tables that are looked at; a dataset in shards has one a shard."""


class _Sidecar(NamedTuple):
    file: SourceFile
    places: list[int]
    """Of the media that it names."""
    table: pa.Table
    """A row for each of these."""
    notes: tuple[str, ...]


def with_sidecars(found: Listing, tables: Sequence[SourceFile], pool: Pool) -> Listing:
    """The listing of media with the labels that `tables`, which lie among them, hold."""
    used: list[_Sidecar] = []
    aside = list(found.set_aside)
    taken: dict[int, str] = {}
    for file in tables[:_MOST]:
        sidecar = _read(found, file, pool)
        if isinstance(sidecar, SetAside):
            aside.append(sidecar)
        elif twice := [taken[place] for place in sidecar.places if place in taken]:
            aside.append(SetAside(file.name, f"It labels files that {twice[0]!r} labels already."))
        else:
            used.append(sidecar)
            taken |= dict.fromkeys(sidecar.places, file.name)
    aside += [SetAside(file.name, f"Only {_MOST} tables beside media are looked at.") for file in tables[_MOST:]]
    found = found._replace(set_aside=aside, notes=(*found.notes, *(note for each in used for note in each.notes)))
    if not used:
        return found
    rows = together([_with_split(each, used) for each in used])
    order: list[int | None] = [None] * len(found.files)
    for row, place in enumerate(place for each in used for place in each.places):
        order[place] = row
    return found._replace(labels=rows.take(pa.array(order, pa.int64())))


def _read(found: Listing, file: SourceFile, pool: Pool) -> _Sidecar | SetAside:
    """What a table says of the media in its folder or, where none lie there, of all."""
    try:
        texts = found.marker.texts if found.marker else ()
        table = ask_table(pool, file.path, readable=found.readable, text=[KEY, *texts])
        if found.marker is not None:
            table = found.marker.as_exported(table, KEY)
        if KEY not in table.column_names:
            return SetAside(file.name, f"A table beside media without a column {KEY!r}: name it in `labels`.")
        below = [i for i, each in enumerate(found.files) if each.path.is_relative_to(file.path.parent)]
        near = below or list(range(len(found.files)))
        labels = beside(table, KEY, [found.files[i] for i in near], file.path)
    except SpeciateError as error:
        if error.code in (Code.INVALID, Code.REFUSED, Code.UNAVAILABLE):
            return SetAside(file.name, f"A table beside media that is not used: {error.whole}")
        raise
    places = [i for i, named in zip(near, labels.named, strict=True) if named]
    if not places:
        return SetAside(file.name, f"A table beside media whose {KEY!r} names none of them.")
    named = labels.table.filter(pa.array(labels.named)).drop_columns([KEY])
    return _Sidecar(file, places, named, labels.notes)


def _with_split(sidecar: _Sidecar, all_: Sequence[_Sidecar]) -> pa.Table:
    """Where sidecars are called after splits (`instances_train2017.json`) and hold none, what they label lies there."""
    if "split" in sidecar.table.column_names or len({_split(each.file.path) for each in all_} - {None}) < 2:
        return sidecar.table
    return sidecar.table.append_column(
        "split", pa.array([_split(sidecar.file.path)] * sidecar.table.num_rows, pa.string())
    )


def _split(path: Path) -> str | None:
    return split_of_file(path.name.removesuffix(table_suffix(path.name)))
