"""Which parts the mixed rows of a version have, as their column `parts` says, and what their sketches say of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import SKETCH
from speciate.errors import Code, SpeciateError, closest
from speciate.modalities.mixed.multimodal import MULTIMODAL, PartName, named
from speciate.modalities.mixed.part_sketches import unpacked

PARTS = "parts"


def check_named(part: str | None, modality: str) -> None:
    """INVALID where a part is named of examples that have none."""
    if part is not None and modality != MULTIMODAL.name:
        raise SpeciateError(
            Code.INVALID,
            f"part={part!r} names a part, and examples of {modality} have none.",
            "Call again without part.",
        )


def parts_of(rows: pa.Table) -> list[PartName]:
    """The parts that any row has, by name."""
    if PARTS not in rows.column_names:
        return []
    return sorted({part for cell in pc.unique(rows[PARTS]).to_pylist() if cell for part in named(cell)})


def find_part(rows: pa.Table, name: str) -> PartName:
    """The part of this name, INVALID where no row has it."""
    known = {part.own: part for part in parts_of(rows)}
    if name not in known:
        raise SpeciateError(
            Code.INVALID,
            f"No usable example has a part {name!r}; {closest(name, known)}",
            f"Call again with part as one of {', '.join(known)}." if known else "Call again without part.",
        )
    return known[name]


def having(rows: pa.Table, part: PartName) -> npt.NDArray[np.bool_]:
    """(N,) which rows have the part."""
    cells = rows[PARTS].combine_chunks().dictionary_encode()
    has = np.array([part in named(cell) for cell in cells.dictionary.to_pylist()] + [False], bool)
    found: npt.NDArray[np.bool_] = has[np.asarray(pc.fill_null(cells.indices.cast(pa.int64()), len(has) - 1))]
    return found


def digests(rows: pa.Table, part: PartName) -> list[bytes | None]:
    """(N,) the same for parts that differ in nothing that matters; None where it is missing or was cut."""
    sketches: Sequence[bytes | None] = rows[SKETCH].to_pylist()
    found = [None if sketch is None else unpacked(sketch).get(str(part)) for sketch in sketches]
    return [None if each is None else each.digest for each in found]
