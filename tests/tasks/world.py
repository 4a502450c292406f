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


def learned(
    task_head: TaskHead, media: Sequence[Any], targets: Sequence[Any], steps: int = 150, width: int = 16
) -> Any:
    """Trains the head and a layer below it; returns a function from media to scores, and the losses."""
    torch.manual_seed(0)
    layer, head = torch.nn.Linear(media[0].shape[1], width), task_head.head(width)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)
    encoded, random, losses = task_head.encode_targets(targets), np.random.default_rng(0), []
    for _ in range(steps):
        places = random.choice(len(media), min(16, len(media)), replace=False)
        chosen = encoded[places] if isinstance(encoded, np.ndarray) else [encoded[place] for place in places]
        loss = task_head.loss(head, states([media[place] for place in places], layer), chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    def scores(asked: Sequence[Any]) -> Any:
        with torch.inference_mode():
            return task_head.scores(head, states(asked, layer))

    return scores, losses


def again(task_head: Any) -> Any:
    """As it comes back from a model's folder."""
    return type(task_head).model_validate_json(task_head.model_dump_json())
