"""Rows that come to a grouped dataset without a group. They may belong with examples of any split, and nothing tells: a
patient whose answers lie in train and in test makes the test easier than the world is.

A dataset is grouped where somebody said a group. What the medium itself tells (a header's patient, a molecule's
scaffold) is there for newcomers too, or is not to be had; and what curation grouped by ids (windows and variants of
one example) says nothing of others.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.ids import ALPHABET, LENGTH
from speciate.modalities import find

_EXAMPLE_ID = f"^ex-[{re.escape(ALPHABET)}]{{{LENGTH}}}$"

Mask = npt.NDArray[np.bool_]  # (N,)


def is_grouped(rows: pa.Table, modality: str) -> bool:
    """Whether somebody said a group of a usable row. `rows`: quality and group_key, and the medium's own group."""
    group = rows.filter(pc.equal(rows["quality"], "ok"))
    keys, own = group["group_key"].cast(pa.string()), find(modality).default_group
    named = pc.and_(pc.is_valid(keys), pc.invert(pc.match_substring_regex(keys, _EXAMPLE_ID)))
    if own in group.column_names:
        named = pc.and_(named, pc.fill_null(pc.not_equal(keys, group[own].cast(pa.string())), True))
    return bool(pc.any(named).as_py())


def needed(modality: str) -> tuple[str, ...]:
    """The columns that `is_grouped` looks at, where they are there."""
    own = find(modality).default_group
    return ("quality", "group_key", *((own,) if own else ()))


def lacking(rows: pa.Table) -> Mask:
    """Rows without a group that are usable, or would be once they are labelled."""
    whole = pc.is_in(rows["quality"], pa.array(["ok", "partial"]))
    return np.asarray(pc.and_(pc.is_null(rows["group_key"]), whole), bool)
