"""Logits of a classification head as answers, by the function that its config asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from speciate.models.published.published_model import PublishedModel, RawAnswer

if TYPE_CHECKING:
    import torch

_THRESHOLD = 0.5
"""Probability above which a label is given, where any number may be."""


def label_answers(model: PublishedModel, logits: torch.Tensor) -> list[RawAnswer]:
    """(B, K) -> the number itself of a regression; labels above one half of a multi-label head; else the best label.
    Probabilities of outputs with one name are added."""
    head, rows = model.head, logits.float()
    if head.task.endswith("-regression"):
        return [RawAnswer(float(row[0])) for row in rows]
    if head.multi_label:
        return [_labels_given(model.labels, row) for row in rows.sigmoid().tolist()]
    return [_best_label(model.labels, row) for row in rows.softmax(-1).tolist()]


def _best_label(labels: Sequence[str], row: Sequence[float]) -> RawAnswer:
    probabilities = dict.fromkeys(labels, 0.0)
    for label, share in zip(labels, row, strict=True):
        probabilities[label] += share
    return RawAnswer(max(probabilities, key=lambda label: probabilities[label]), probabilities)


def _labels_given(labels: Sequence[str], row: Sequence[float]) -> RawAnswer:
    probabilities = dict.fromkeys(labels, 0.0)
    for label, share in zip(labels, row, strict=True):
        probabilities[label] = max(probabilities[label], share)
    given = sorted(label for label, share in probabilities.items() if share > _THRESHOLD)
    return RawAnswer(given, probabilities)
