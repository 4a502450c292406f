"""How media look to a classical learner: what their modality describes them as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from speciate import modalities
from speciate.datasets.loading.loader import Example

Unit = Literal["word", "char", "char_wb"]


class Counting(NamedTuple):
    """What is counted in a document: runs of `low` to `high` units. `char_wb`: characters, not across words."""

    unit: Unit
    low: int
    high: int


def describe(modality: str, examples: Sequence[Example]) -> list[Any]:
    """A document (str) or a vector (D,) per example."""
    kind = modalities.find(modality)
    return [kind.describe(example.media) for example in examples]


def countings(modality: str) -> tuple[Counting, ...]:
    """The modality's own way of counting first; empty where it describes itself by vectors."""
    kind = modalities.find(modality)
    if kind.analyzer is None:
        return ()
    own = Counting(kind.analyzer, *kind.ngrams)
    # Parts of words carry endings, compounds and misspellings, which whole words do not.
    return (own, Counting("char_wb", 2, 5)) if kind.analyzer == "word" else (own,)
