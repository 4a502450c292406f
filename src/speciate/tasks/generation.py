"""A text in answer to an example: the example is a question, or a conversation that the answer goes on.

What is asked and answered is in modalities/messages.py: a conversation that ends in a turn of the assistant asks for
that turn, where no column has the answer. Of a mixed row its text does (shown.py). A model for it is a language model
(writing.py), or one that sees (seeing.py), with no head of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.modalities.messages import answered, conversation, written
from speciate.tasks.contract import AsksWhatItTeaches, Posed, Prediction, Terms
from speciate.tasks.shown import with_its_answer


class Generation(AsksWhatItTeaches, BaseModel):
    """Knows nothing of the training truths."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["generation"] = "generation"

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def pose(cls, example: Example, cell: Any, terms: Terms) -> Posed | None:
        """Truth: the text as it stands in the cell, a number or a truth value as Python writes it; of a cell without
        one the last turn of the conversation, where that is the assistant's."""
        if isinstance(cell, bytes | list | dict):
            raise ValueError(f"{str(cell)[:40]!r} is no text")
        text = "" if cell is None else str(cell)
        if text.strip():
            return Posed(example, text)
        if isinstance(example.media, dict):  # a mixed row
            told = with_its_answer(example.media)
            return None if told is None else Posed(example._replace(media=told[0]), told[1])
        if not isinstance(example.media, str):
            return None
        turns = answered(conversation(example.media))
        if turns is None or not turns[1].strip():
            return None
        return Posed(example._replace(media=written(turns[0])), turns[1])

    @classmethod
    def of(cls, truths: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        return cls()

    @classmethod
    def baseline(cls, truths: Sequence[Any], terms: Terms) -> Callable[[Example], Prediction]:
        """The most frequent text, the first by name among equals."""
        counts = Counter(truths)
        prediction = Prediction(max(sorted(counts), key=lambda text: counts[text]), None, None)
        return lambda example: prediction

    def targets(self, truths: Sequence[Any]) -> list[Any]:
        return list(truths)

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Any) -> list[Prediction]:
        """`scores`: the texts themselves."""
        return [Prediction(text, None, None) for text in scores]

    def head(self, width: int) -> NoReturn:
        raise TypeError("a language model has its own head")

    def loss(self, head: Any, states: Any, targets: Any) -> NoReturn:
        raise TypeError("a language model has its own loss")

    def scores(self, head: Any, states: Any) -> NoReturn:
        raise TypeError("a language model has its own scores")
