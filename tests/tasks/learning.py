"""The shortest loop in which a network learns a task, and small worlds to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from speciate.datasets.loading.loader import Example
from speciate.evaluation.metrics import contributions, corpus, judged
from speciate.models.backbones.contract import States
from speciate.tasks.network_predictor import NetworkPredictor
from speciate.tasks.task import TaskExample
from speciate.vocabulary import find_metric, find_task

_RATE = 5e-3
COLOURS = {"square": (230, 60, 40), "disc": (40, 90, 230)}


def example(name: str, media: Any, **columns: Any) -> Example:
    return Example(name, media, None, name, "train", columns)


class SmallBackbone:
    """As little as reads images (grid) and series: three convolutions."""

    base_model, width = "small", 48
    unit: str | None = None

    def __init__(self, modality: str, channels: int) -> None:
        from torch import nn

        self.modality = modality
        if modality == "image":
            layers: list[nn.Module] = [
                nn.Conv2d(3, 32, 5, 2, 2),
                nn.Conv2d(32, 48, 3, 2, 1),
                nn.Conv2d(48, 48, 3, 1, 1),
            ]
        else:
            layers = [nn.Conv1d(channels, 32, 5, 1, 2), nn.Conv1d(32, 48, 5, 2, 2), nn.Conv1d(48, 48, 5, 2, 2)]
        self.module: nn.Module = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.ReLU())

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Any]:
        if self.modality == "image":
            small = (Image.fromarray(medium).resize((32, 32)) for medium in media)
            return [{"x": np.asarray(one, np.float32).transpose(2, 0, 1) / 128 - 1} for one in small]
        return [{"x": _ending(medium)} for medium in media]

    def settings(self) -> dict[str, Any]:
        return {}

    def files(self) -> dict[str, bytes]:
        return {}

    def length(self, item: Any) -> int:
        return 1

    def collate(self, items: Sequence[Any]) -> Any:
        return {"x": torch.from_numpy(np.stack([item["x"] for item in items]))}

    def states(self, batch: Any) -> States:
        seen = self.module(batch["x"])
        sequence = seen.flatten(2).mT
        mask = torch.ones(sequence.shape[:2], dtype=torch.bool)
        return States(sequence, mask, sequence.mean(1), tuple(seen.shape[2:]) if seen.ndim == 4 else None)


def _ending(series: Any) -> npt.NDArray[np.float32]:
    """(C, 32): the last steps, relative to the last and to the spread."""
    end = np.pad(series, ((0, 0), (32, 0)), mode="edge")[:, -32:]
    relative: npt.NDArray[np.float32] = (end - end[:, -1:]) / series.std(axis=1, keepdims=True)
    return relative.astype(np.float32)


def train(task: str, form: Any, modality: str, posed: Sequence[TaskExample], steps: int) -> NetworkPredictor:
    """A small network that learned what was posed, 16 at a time."""
    torch.manual_seed(0)
    task_head = form.fit([one.target for one in posed], {})
    encoded = task_head.encode_targets([one.target for one in posed])
    backbone = SmallBackbone(modality, len(posed[0].example.media))
    head = task_head.head(backbone.width)
    items = backbone.prepare([one.example.media for one in posed])
    weights = [*backbone.module.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    generator = np.random.default_rng(0)
    for _ in range(steps):
        places = generator.choice(len(items), 16, replace=False)
        states = backbone.states(backbone.collate([items[place] for place in places]))
        loss = task_head.loss(head, states, [encoded[place] for place in places])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return NetworkPredictor(task, task_head, backbone, head)


def value(metric: str, predictor: Any, asked: Sequence[TaskExample]) -> float:
    """Of a predictor, or of the constant answer."""
    given = predictor.predict([one.example for one in asked])
    answers = judged(
        find_task(predictor.task).family,
        [one.target for one in asked],
        [one.output for one in given],
        [one.probabilities for one in given],
        predictor.labels,
    )
    found = find_metric(metric)
    if found.shape == "mean":
        return float(np.nanmean(contributions(found, answers)))
    count = len(asked)
    return float(corpus(found, answers, np.arange(count))(np.ones((1, count)))[0])


def waves(count: int, seed: int, steps: int = 60) -> list[npt.NDArray[np.float32]]:
    """Noisy sines of two channels, of periods and levels of their own."""
    generator = np.random.default_rng(seed)
    time = np.arange(steps)
    made = []
    for _ in range(count):
        length, shift = generator.uniform(9, 15), generator.uniform(0, 7, (2, 1))
        level, scale = generator.normal(0, 50, (2, 1)), generator.uniform(1, 20, (2, 1))
        shape = np.sin(2 * np.pi * time / length + shift) + generator.normal(0, 0.05, (2, steps))
        made.append((level + scale * shape).astype(np.float32))
    return made


def images(count: int, seed: int, size: tuple[int, int] = (32, 48)) -> list[tuple[npt.NDArray[np.uint8], list[Any]]]:
    """Images of one to three coloured squares and discs on noise, and their objects as the COCO reader gives them."""
    generator = np.random.default_rng(seed)
    return [_picture(generator, size) for _ in range(count)]


def _picture(generator: np.random.Generator, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], list[Any]]:
    height, width = size
    pixels = generator.integers(90, 130, (height, width, 3))
    rows, columns = np.mgrid[:height, :width] + 0.5
    objects: list[Any] = []
    taken = np.zeros(size, bool)
    for _ in range(generator.integers(1, 4)):
        kind, side = str(generator.choice(["square", "disc"])), int(generator.integers(8, 15))
        x, y = int(generator.integers(0, width - side + 1)), int(generator.integers(0, height - side + 1))
        inside = (rows > y) & (rows < y + side) & (columns > x) & (columns < x + side)
        if (inside & taken).any():
            continue
        taken |= inside
        corners: list[float] = [x, y, x + side, y, x + side, y + side, x, y + side]
        if kind == "disc":
            inside = np.hypot(columns - x - side / 2, rows - y - side / 2) < side / 2
            turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            corners = (
                np.stack([x + side / 2 * (1 + np.cos(turn)), y + side / 2 * (1 + np.sin(turn))], 1).ravel().tolist()
            )
        pixels[inside] = COLOURS[kind]
        objects.append({"category": kind, "bbox": [x, y, side, side], "segmentation": [corners], "iscrowd": False})
    return pixels.astype(np.uint8), objects
