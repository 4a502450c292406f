"""Labels of parts of media: a table of labels may name a file in several rows, where each says which part it is about,
by the columns `window_start` and `window_stop` in the modality's unit, or by the number of a `frame`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import WINDOW_START, WINDOW_STOP
from speciate.datasets.sources.labels import beside
from speciate.datasets.sources.listing import SourceFile
from speciate.datasets.sources.readers.rows import REASON
from speciate.modalities import find

FRAME, _FRAMES = "frame", "frames"


class Excerpts(NamedTuple):
    table: pa.Table
    """A row per part, in the order of the files; one without a label for a file that no row names."""
    about: tuple[int, ...]
    """Which file each row is about."""
    notes: tuple[str, ...]


def are_excerpts(table: pa.Table, modality: str) -> bool:
    """Whether rows of labels are about parts of media."""
    kind, columns = find(modality), set(table.column_names)
    by_frame = FRAME in columns and _FRAMES in kind.mark_units
    return kind.window_unit is not None and (by_frame or {WINDOW_START, WINDOW_STOP} <= columns)


def excerpts(table: pa.Table, key: str, files: Sequence[SourceFile], labels: Path) -> Excerpts:
    """The rows of a labels file by the files that they name. INVALID where a row may be about several files."""
    bad = table.filter(pc.is_valid(table[REASON])) if REASON in table.column_names else table.slice(0, 0)
    sound = table.filter(pc.is_null(table[REASON])) if REASON in table.column_names else table
    rows: dict[str, list[int]] = defaultdict(list)
    for place, cell in enumerate(sound[key].to_pylist() if key in sound.column_names else ()):
        if cell is not None:
            rows[os.path.normpath(str(cell))].append(place)
    once = sound.take(pa.array([places[0] for places in rows.values()], pa.int64()))
    found = beside(pa.concat_tables([once, bad]), key, files, labels)
    order: list[int | None] = []
    about: list[int] = []
    for file, cell in enumerate(found.table[key].to_pylist()):
        places: list[int | None] = [None] if cell is None else [*rows[os.path.normpath(str(cell))]]
        order += places
        about += [file] * len(places)
    kept = sound.drop_columns([REASON]) if REASON in sound.column_names else sound
    return Excerpts(kept.take(pa.array(order, pa.int64())), tuple(about), found.notes)
