"""Tables that Hypothesis draws: columns of several types, nulls, slices and chunks."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

Kind = tuple[pa.DataType, st.SearchStrategy[Any]]


@st.composite
def tables(draw: st.DrawFn, *, kinds: list[Kind], names: st.SearchStrategy[str], most: int) -> pa.Table:
    """With 1 to `most` rows."""
    count = draw(st.integers(1, most))
    columns = {}
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        kind, cells = draw(st.sampled_from(kinds))
        columns[name] = pa.array(draw(st.lists(st.none() | cells, min_size=count, max_size=count)), kind)
    table = pa.table(columns)
    start = draw(st.integers(0, count - 1))
    return pa.concat_tables([table.slice(start), table]) if draw(st.booleans()) else table.slice(start)
