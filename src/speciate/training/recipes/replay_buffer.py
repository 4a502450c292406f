"""Replay buffer: earlier training examples, drawn from the versions that a model's line learned from.

The buffer is a dataset version of its own, whose parents are the versions it comes from: a purge finds its rows as it
finds any copy, and a column says of each row where it is from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, with_column
from speciate.datasets.identity import known_rows
from speciate.datasets.next_version import SealedVersion, seal_first
from speciate.datasets.versions import Manifest
from speciate.tasks.example_targets import is_label
from speciate.workspace.workspace import Folders

REPLAYED_FROM = "replayed_from"
"""The column that says of which version a row is."""
BUFFER_SUFFIX = "-replay"
_MOST_NAME = 64

Policy = Literal["balanced", "reservoir"]


class ReplayBuffer(NamedTuple):
    sealed: SealedVersion
    of: dict[str, int]
    """Rows by the version that they come from."""
    labels: dict[str, int]
    available: int


def buffer_name(model: str) -> str:
    """Name of the dataset that holds what a model's versions replayed."""
    return model[: _MOST_NAME - len(BUFFER_SUFFIX)] + BUFFER_SUFFIX


def draw_buffer(
    folders: Folders,
    name: str,
    now: Manifest,
    earlier: Sequence[Manifest],
    target: str | None,
    size: int,
    policy: Policy,
    seed: int,
) -> ReplayBuffer | None:
    """`size` training examples of the versions `earlier` that `now` does not hold. None where there are none."""
    tables = list(_earlier_rows(folders, now, earlier))
    rows = [(place, at) for place, (table, _) in enumerate(tables) for at in range(table.num_rows)]
    labels = [label for table, version in tables for label in _row_labels(table, version, target)]
    keys = [key for table, _ in tables for key in _row_keys(table)]
    chosen = choose_places(keys, labels if policy == "balanced" else [""] * len(keys), size, seed)
    if not chosen:
        return None
    parts, of, kept = [], dict[str, int](), defaultdict[str, int](int)
    for place, (table, version) in enumerate(tables):
        mine = [rows[at][1] for at in chosen if rows[at][0] == place]
        if mine:
            part = table.take(pa.array(mine))
            parts.append(with_column(part, REPLAYED_FROM, pa.array([version.ref] * len(mine), pa.string())))
            of[version.ref] = len(mine)
    for at in chosen:
        kept[labels[at]] += 1
    together = _with_unique_ids(pa.concat_tables(parts, promote_options="permissive"))
    manifest = now.model_copy(
        update={
            "name": name,
            "version": 0,
            "packs": tuple(dict.fromkeys(pack for _, version in tables for pack in version.packs)),
            "label": next((version.label for _, version in tables if version.label), now.label),
        }
    )
    return ReplayBuffer(seal_first(folders, together, manifest), of, dict(sorted(kept.items())), len(rows))


def choose_places(keys: Sequence[str], labels: Sequence[str], size: int, seed: int) -> list[int]:
    """Places, ascending: of each label its share of `size`, and among the same label the first by hash."""
    order = sorted(range(len(keys)), key=lambda at: hashlib.sha256(f"{seed}:{keys[at]}".encode()).digest())
    queues: dict[str, list[int]] = defaultdict(list)
    for at in order:
        queues[labels[at]].append(at)
    quotas = shares({label: len(queue) for label, queue in queues.items()}, size)
    return sorted(at for label, queue in queues.items() for at in queue[: quotas[label]])


def shares(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """As many of each as there can be: what rare labels lack goes to the others.

    >>> shares({"a": 2, "b": 50, "c": 50}, 20)
    {'a': 2, 'b': 9, 'c': 9}
    """
    left, given = size, dict[str, int]()
    waiting = sorted(counts, key=lambda label: (counts[label], label))
    for place, label in enumerate(waiting):
        given[label] = min(counts[label], left // (len(waiting) - place))
        left -= given[label]
    return {label: given[label] for label in counts}


def _earlier_rows(folders: Folders, now: Manifest, earlier: Sequence[Manifest]) -> Iterator[tuple[pa.Table, Manifest]]:
    """The training rows of each version without those that the new one or an earlier one of these holds; what was
    itself replayed comes last, since its rows are named by the version that they come from."""
    held = [(version_rows.read(folders, now, usable=True), now)]
    for version in sorted(earlier, key=lambda each: REPLAYED_FROM in each.columns):
        table = version_rows.read(folders, version, splits=("train",), usable=True)
        fresh = pa.array(np.ones(table.num_rows, bool))
        for other, of in held:
            fresh = pc.and_(fresh, pc.invert(known_rows(table, version, other, of)))
        table = table.filter(fresh)
        if version.label is not None:
            table = table.filter(pc.is_valid(table["label"]))
        if table.num_rows:
            held.append((table, version))
            yield table, version


def _row_labels(table: pa.Table, version: Manifest, target: str | None) -> list[str]:
    """A label for each row; all the same where the target is a number or no single label."""
    name = "label" if is_label(version, target) else target or ""
    if name not in table.column_names or not pa.types.is_string(table[name].type):
        return [""] * table.num_rows
    return [str(value) for value in table[name].to_pylist()]


def _row_keys(table: pa.Table) -> list[str]:
    """What a row is drawn by: its content, so that the same example has the same chance in every version."""
    name = CONTENT if CONTENT in table.column_names else "id"
    ids = table["id"].to_pylist()
    return [content or own for content, own in zip(table[name].to_pylist(), ids, strict=True)]


def _with_unique_ids(rows: pa.Table) -> pa.Table:
    """Another id where two versions call two examples the same."""
    taken: set[str] = set()
    ids = [_unique_name(one, taken) for one in rows["id"].to_pylist()]
    return with_column(rows, "id", pa.array(ids, pa.string()))


def _unique_name(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}:{number}"
    taken.add(free)
    return free


def buffer_operation(drawn: ReplayBuffer, base: str, policy: str, seed: int) -> dict[str, object]:
    """The operation of the version, as the catalog keeps it."""
    return {"op": "replay", "model": base, "policy": policy, "seed": seed, "from": drawn.of}


def is_buffer(operation: Collection[str] | Mapping[str, Any]) -> bool:
    """Whether a version of that name was drawn, and is no user's dataset."""
    return isinstance(operation, Mapping) and operation.get("op") == "replay"
