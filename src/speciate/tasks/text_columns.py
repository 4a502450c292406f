"""Table rows with columns of free text: the words of each such column beside the other columns.

A row is read as a mixed row would be (multimodal_representation.py): the other columns are one part, each column of
text another. Sparse, a text is all its words, for lines; dense, it is 128 directions of them, for trees and kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.tasks.multimodal_representation import Parts
from speciate.tasks.task import Arrays, RepresentationSettings

_FEWEST_TEXTS, _DISTINCT_SHARE, _FEWEST_WORDS = 20, 0.5, 3.0
"""A column of free text has so many different values, which are so large a share of its cells, of so many words on
average. Names and codes are categories."""
_OTHERS = "columns.tabular"


def text_columns(examples: Sequence[Example], inputs: Sequence[str]) -> tuple[str, ...]:
    """Columns of free text among the inputs."""
    return tuple(name for name in inputs if _is_text([example.media.get(name) for example in examples]))


def _is_text(cells: Sequence[Any]) -> bool:
    present = [cell for cell in cells if isinstance(cell, str)]
    if not present or any(isinstance(cell, int | float) and not math.isnan(cell) for cell in cells):
        return False
    distinct = len(set(present))
    words = sum(len(cell.split()) for cell in present) / len(present)
    return distinct >= max(_FEWEST_TEXTS, _DISTINCT_SHARE * len(present)) and words >= _FEWEST_WORDS


class TextColumns:
    def __init__(self, parts: Parts, inputs: Sequence[str], texts: Sequence[str]) -> None:
        """`inputs`: the other columns."""
        self._parts, self._inputs, self._texts = parts, tuple(inputs), tuple(texts)

    @classmethod
    def fit(
        cls, examples: Sequence[Example], inputs: Sequence[str], texts: Sequence[str], *, dense: bool
    ) -> TextColumns:
        """Raises UnsuitableRepresentation where nothing can be counted in a text."""
        others = tuple(name for name in inputs if name not in texts)
        rows = _as_mixed(examples, others, texts)
        names = [*([_OTHERS] if others else []), *map(_part_name, texts)]
        return cls(Parts.fit(rows, names, dense=dense), others, texts)

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D)"""
        return self._parts.encode(_as_mixed(examples, self._inputs, self._texts))

    def settings(self) -> RepresentationSettings:
        return {
            "kind": "text columns", "inputs": list(self._inputs), "texts": list(self._texts),
            "parts": self._parts.settings(),
        }  # fmt: skip

    def arrays(self) -> Arrays:
        return self._parts.arrays()

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> TextColumns:
        return cls(Parts.rebuild(settings["parts"], arrays), settings["inputs"], settings["texts"])


def _part_name(text: str) -> str:
    return f"{text}.text"


def _as_mixed(examples: Sequence[Example], inputs: Sequence[str], texts: Sequence[str]) -> list[Example]:
    """Rows as mixed rows."""
    return [
        each._replace(
            media={
                _OTHERS: {name: each.media.get(name) for name in inputs},
                **{_part_name(name): _text(each.media.get(name)) for name in texts},
            }
        )
        for each in examples
    ]


def _text(cell: Any) -> str | None:
    """None where it is missing, NaN or empty."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return str(cell) if str(cell).strip() else None
