"""Splits a version's usable rows without leaks, and says of any split what crosses it and what it can prove."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, ORIGIN, SKETCH, with_column
from speciate.datasets.missing_labels import missing
from speciate.datasets.roles import groups
from speciate.datasets.similarity import near
from speciate.datasets.split import FRACTIONS, Members, components, crossing, split, strata
from speciate.modalities import find
from speciate.sample_size import highest_target, smallest_difference

_PAIRS_SHOWN = 5


class SplitRows(NamedTuple):
    """`splits`: one for each row, None where the row is not usable."""

    splits: list[str | None]
    audit: dict[str, Any]


def split_rows(
    rows: pa.Table,
    modality: str,
    *,
    fractions: Mapping[str, float] = FRACTIONS,
    group_by: str | None = None,
    stratify_by: str | None = None,
    seed: int = 0,
    keep: bool = True,
) -> SplitRows:
    """Deals the usable rows out anew; `keep`: those that lie in one of the wanted splits stay there.

    `group_by` as in create_dataset, in addition to `group_key`. `stratify_by`: a column in the place of the label.
    """
    usable = np.flatnonzero(np.asarray(pc.equal(rows["quality"], "ok")))
    chosen = rows.take(pa.array(usable))
    members = members_of(chosen, modality, group_by=group_by, stratify_by=stratify_by)
    kept = dict(zip(members.keys, chosen["split"].to_pylist(), strict=True)) if keep else {}
    names = split(members, fractions, seed, {key: name for key, name in kept.items() if name in fractions})
    splits: list[str | None] = [None] * rows.num_rows
    for place, name in zip(usable.tolist(), names, strict=True):
        splits[place] = name
    lacking = missing(with_column(chosen, "split", pa.array(names, pa.string())), members, made=True)
    return SplitRows(splits, audit(members, names, chosen["id"].to_pylist()) | {"missing_labels": lacking})


def members_of(
    rows: pa.Table, modality: str, *, group_by: str | None = None, stratify_by: str | None = None
) -> Members:
    """Usable rows as a split sees them."""
    label = rows[stratify_by or "label"]
    values = label.to_pylist() if pa.types.is_floating(label.type) else label.cast(pa.string()).to_pylist()
    group: Any = rows["group_key"]
    pairs = near_pairs(rows, modality)
    if group_by is not None:
        further = groups(group_by, rows, rows["source"].to_pylist())
        pairs = np.concatenate([pairs, _same(further)])
    if ORIGIN in rows.column_names:  # windows belong with one another and with the whole, whatever their groups
        pairs = np.concatenate([pairs, _same(pc.coalesce(rows[ORIGIN], rows[KEY]).to_pylist())])
    keys = rows[KEY if KEY in rows.column_names else CONTENT].to_pylist()
    return Members([str(key) for key in keys], group, rows[FINGERPRINT], strata(values), pairs)


def near_pairs(rows: pa.Table, modality: str) -> npt.NDArray[np.int64]:
    """(M, 2) places of near-duplicates by their sketches; none where the modality has no sketches."""
    sketching = find(modality).sketching
    if sketching is None or SKETCH not in rows.column_names:
        return np.zeros((0, 2), np.int64)
    return near.pairs(rows[SKETCH], sketching)


def audit(members: Members, splits: Sequence[str | None], ids: Sequence[str] = ()) -> dict[str, Any]:
    """What crosses a split, how its labels drift, and what its test part can show. `ids`: to name what is near."""
    found = crossing(members, splits)
    report: dict[str, Any] = {
        "groups_across": found.groups,
        "identical_after_normalising_across": found.contents,
        "near_duplicates_across": found.near_duplicates,
        "label_drift": _drift(members, splits),
        **_provable(members, splits),
    }
    if found.near_duplicates and len(ids):
        across = [(int(a), int(b)) for a, b in members.pairs if splits[a] and splits[b] and splits[a] != splits[b]]
        report["near_duplicate_examples"] = [[ids[a], ids[b]] for a, b in across[:_PAIRS_SHOWN]]
    return report


def empty_splits(splits: Iterable[str | None], fractions: Mapping[str, float]) -> tuple[str, ...]:
    """A warning, where no example lies in a split that is asked for."""
    lacking = fractions.keys() - set(splits)
    if not (names := [repr(name) for name, fraction in fractions.items() if fraction > 0 and name in lacking]):
        return ()
    said = f"No usable example lies in {' or '.join(names)}"
    return (f"{said}: groups and near-duplicates stay together, and there are too few of them.",)


def _drift(members: Members, splits: Sequence[str | None]) -> float:
    """The largest difference between the share of a label in a split and in all: 0.1 is ten points."""
    placed = [(stratum, name) for stratum, name in zip(members.strata.tolist(), splits, strict=True) if name]
    if not placed:
        return 0.0
    overall = Counter(stratum for stratum, _ in placed)
    sizes, both = Counter(name for _, name in placed), Counter(placed)
    worst = max(
        abs(both[stratum, name] / sizes[name] - count / len(placed))
        for name in sizes
        for stratum, count in overall.items()
    )
    return round(worst, 4)


def _provable(members: Members, splits: Sequence[str | None]) -> dict[str, Any]:
    """Of a test split: how many independent units it has, and what those can show by the planning formulas."""
    tested = np.array([name == "test" for name in splits], bool)
    if not tested.any():
        return {}
    units = len(np.unique(components(members)[tested]))
    return {
        "test_units": units,
        "highest_target": highest_target(units),
        "smallest_difference": smallest_difference(units),
    }


def _same(values: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Each place with the first one of the same value."""
    first: dict[str, int] = {}
    links = [(first.setdefault(value, place), place) for place, value in enumerate(values) if value is not None]
    return np.array([link for link in links if link[0] != link[1]], np.int64).reshape(-1, 2)
