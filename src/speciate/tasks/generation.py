"""A text in answer to an example. Models for it are evaluated (an endpoint's, a column's answers); none is trained yet:
whatever asks for a training is refused by `training/options.py` before there is a job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks.contract import AsksWhatItTeaches, Posed, Prediction, Terms


class Generation(AsksWhatItTeaches):
    """There is no instance: what a readout learns from training truths has no counterpart here."""

    @classmethod
    def pose(cls, example: Example, cell: Any, terms: Terms) -> Posed | None:
        """Truth: the text as it stands in the cell; a number or a truth value as Python writes it."""
        if isinstance(cell, bytes | list | dict):
            raise ValueError(f"{str(cell)[:40]!r} is no text")
        text = "" if cell is None else str(cell)
        return Posed(example, text) if text.strip() else None

    @classmethod
    def of(cls, truths: Sequence[Any], settings: Mapping[str, Any]) -> NoReturn:
        """Always INVALID."""
        raise SpeciateError(
            Code.INVALID,
            "Models that write texts are only evaluated for now: there is no training for the family 'generation'.",
            "Call evaluate_models with one that is there, or with 'column:NAME' for answers that a column holds.",
        )

    @classmethod
    def baseline(cls, truths: Sequence[Any], terms: Terms) -> Callable[[Example], Prediction]:
        """The most frequent text, the first by name among equals."""
        counts = Counter(truths)
        prediction = Prediction(max(sorted(counts), key=lambda text: counts[text]), None, None)
        return lambda example: prediction
