"""Which rows an operation touches, as arrays of truth values (N,)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from speciate.datasets.columns import FINGERPRINT

Mask = npt.NDArray[np.bool_]
Splits = tuple[str, ...]

LEARNED = ("train",)
"""What is cleaned where nothing else is asked for: to thin out a test split changes the question that it asks."""
SPLITS = Field(LEARNED, min_length=1, description="Only rows of these; one without a split is taken for one of train.")


def usable(rows: pa.Table) -> Mask:
    return np.asarray(pc.equal(rows["quality"], "ok"), bool)


def whole(rows: pa.Table) -> Mask:
    """Usable, or set aside only because the label is missing: the medium decoded."""
    decoded = pc.and_(pc.equal(rows["quality"], "partial"), pc.is_null(rows["label"]))
    return np.asarray(usable(rows) | np.asarray(pc.and_(decoded, pc.is_valid(rows[FINGERPRINT]))), bool)


def within(rows: pa.Table, splits: Sequence[str]) -> Mask:
    """Usable and in one of the splits."""
    there = pc.is_in(pc.fill_null(rows["split"], "train"), pa.array(list(splits), pa.string()))
    return np.asarray(usable(rows) & np.asarray(there), bool)


def keep(rows: pa.Table, kept: Mask) -> pa.Table:
    return rows.filter(pa.array(kept))
