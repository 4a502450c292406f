"""Families of nearly identical models: quantised, fine-tuned, merged or adapted from one base, or weights of one
network from several trainings. A search shows a family as one row.

The criteria, in this order:
- the relation that the hub states (`quantized`, `adapter`, `merge`, `finetune`): a quantised model or an adapter goes
  with its base whatever its tasks; a fine-tune or a merge only if its tasks are the same. An adapted encoder has
  another similarity, so feature extraction alone does not count as the same.
- a name that differs only in the number format or file format of the weights (`-GGUF`, `-AWQ`, `-4bit`, `-FP8`)
- timm's tags of one architecture

A base model without a stated relation (as in mteb) makes no family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciate.models.search.sources import RELATIONS

_SAME_WEIGHTS = ("quantized", "adapter")
_ENCODES = frozenset({"feature-extraction"})
_KEPT_AS = re.compile(
    r"[-_.](?:(?:i1-)?gguf|ggml|awq|gptq|exl[23]|mlx|onnx|openvino|bnb|hqq|aqlm|quantized|[248]-?bits?|bf16|fp16|fp8|fp4|"
    r"mxfp[48]|nvfp4|int[48]|i?q[2-8](?:_[0-9kmslx_]+)?|w[48]a(?:8|16))(?:[-_.](?:dynamic|block|fast|g\d+))?$",
    re.IGNORECASE,
)
"""The last part of a name that states its number format."""
_DEEPEST = 8
"""Longest chain of base models."""


class Families(NamedTuple):
    """`of` (N,): the number of each row's family. `base` (N,): whether it is the one that the others are made from."""

    of: npt.NDArray[np.int64]
    base: npt.NDArray[np.bool_]


def families(table: pa.Table) -> Families:
    """The families of the rows of a table of models (index.SCHEMA)."""
    rows = [
        dict(zip(_READ, values, strict=True))
        for values in zip(*(table[name].to_pylist() for name in _READ), strict=True)
    ]
    by_name = _names(rows)
    parents = [_parent(row, place, rows, by_name) for place, row in enumerate(rows)]
    roots = [_root(place, parents) for place in range(len(rows))]
    _, of = np.unique(np.array([str(root) for root in roots], dtype=str), return_inverse=True)
    base = np.array([root == place for place, root in enumerate(roots)], bool)
    return Families(of.reshape(-1).astype(np.int64), base)


_READ = ("ref", "hub", "base_model", "relation", "tasks")
_Row = Mapping[str, Any]


def _names(rows: Sequence[_Row]) -> dict[str, int]:
    """Each row's place by its ref and by its repository."""
    found: dict[str, int] = {}
    for place, row in enumerate(rows):
        found.setdefault(row["ref"].lower(), place)
        if row["hub"]:
            found.setdefault(f"hf:{row['hub']}".lower(), place)
    return found


def _parent(row: _Row, place: int, rows: Sequence[_Row], by_name: Mapping[str, int]) -> int | str | None:
    """The row that it is nearly the same as; a name if that one is not in the table; None: it stands alone."""
    base, relation = row["base_model"], row["relation"]
    if base is not None and relation in RELATIONS:
        named = str(base).lower()
        at = by_name.get(named)
        if relation in _SAME_WEIGHTS:
            return named if at is None else at
        if at is not None and at != place and _does_the_same(row, rows[at]):
            return at
        if at is None and _tasks_of(row) - _ENCODES:  # its siblings with the same tasks
            return f"{named} {' '.join(sorted(_tasks_of(row)))}"
    ref = str(row["ref"])
    if ref.startswith("timm:"):
        return ref.partition(".")[0]
    stem = without_quantization(ref)
    if stem != ref:
        return by_name.get(stem.lower(), stem.lower())
    return None


def without_quantization(ref: str) -> str:
    """The name without its number format: `hf:org/x-7b-AWQ-4bit` -> `hf:org/x-7b`."""
    while (shorter := _KEPT_AS.sub("", ref)) != ref and shorter.rpartition("/")[2]:
        ref = shorter
    return ref


def _tasks_of(row: _Row) -> frozenset[str]:
    return frozenset(row["tasks"] or ())


def _does_the_same(one: _Row, other: _Row) -> bool:
    return _tasks_of(one) == _tasks_of(other) and bool(_tasks_of(one) - _ENCODES)


def _root(place: int, parents: Sequence[int | str | None]) -> int | str:
    """The end of the chain; in a circle, the least place on it."""
    seen = [place]
    while len(seen) <= _DEEPEST:
        parent = parents[seen[-1]]
        if parent is None:
            return seen[-1]
        if isinstance(parent, str):
            return parent
        if parent in seen:
            return min(seen[seen.index(parent) :])
        seen.append(parent)
    return seen[-1]
