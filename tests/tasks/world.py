"""A backbone of one layer over sequences of numbers, and a plain loop: enough to see a head learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from speciate.datasets.loading.loader import Example
from speciate.models.backbones.contract import States
from speciate.tasks.task import TaskHead


def examples(*media: Any) -> list[Example]:
    return [Example(str(i), medium, None, str(i), "train", {}) for i, medium in enumerate(media)]


def states(media: Sequence[Any], layer: torch.nn.Module) -> States:
    """`media`: (T, D) each; padded to the longest, and the padding is no zeros."""
    longest = max(len(medium) for medium in media)
    padded = np.full((len(media), longest, media[0].shape[1]), 9.0, np.float32)
    mask = torch.zeros(len(media), longest, dtype=torch.bool)
    for row, medium in enumerate(media):
        padded[row, : len(medium)] = medium
        mask[row, : len(medium)] = True
    sequence = torch.tanh(layer(torch.from_numpy(padded)))
    pooled = (sequence * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
    return States(sequence, mask, pooled)


def learned(readout: TaskHead, media: Sequence[Any], truths: Sequence[Any], steps: int = 150, width: int = 16) -> Any:
    """Trains the head and a layer below it; returns a function from media to scores, and the losses."""
    torch.manual_seed(0)
    layer, head = torch.nn.Linear(media[0].shape[1], width), readout.head(width)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)
    targets, random, losses = readout.targets(truths), np.random.default_rng(0), []
    for _ in range(steps):
        places = random.choice(len(media), min(16, len(media)), replace=False)
        chosen = targets[places] if isinstance(targets, np.ndarray) else [targets[place] for place in places]
        loss = readout.loss(head, states([media[place] for place in places], layer), chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    def scores(asked: Sequence[Any]) -> Any:
        with torch.inference_mode():
            return readout.scores(head, states(asked, layer))

    return scores, losses


def again(readout: Any) -> Any:
    """As it comes back from a model's folder."""
    return type(readout).model_validate_json(readout.model_dump_json())
