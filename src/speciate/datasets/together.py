"""Which usable rows belong together, as a name for each: for rows whose sketches are about to go, as those of windows
do, so that what the sketches said of near-duplicates stays known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from speciate.datasets.split import components
from speciate.datasets.splitting import members_of


def belonging(rows: pa.Table, modality: str, names: Sequence[str]) -> pa.Array:
    """The group of each row; where it has none, the least group of its copies and near-duplicates, or else the least of
    their `names`."""
    component = components(members_of(rows, modality)).tolist()
    groups = rows["group_key"].to_pylist()
    grouped: dict[int, list[str]] = defaultdict(list)
    for code, group in zip(component, groups, strict=True):
        if group is not None:
            grouped[code].append(group)
    smallest: dict[int, str] = {}
    for code, name in zip(component, names, strict=True):
        smallest[code] = min(smallest.get(code, name), name)
    found = [
        group if group is not None else min(grouped[code], default=smallest[code])
        for code, group in zip(component, groups, strict=True)
    ]
    return pa.array(found, pa.string())
