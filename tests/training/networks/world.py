"""A tiny network, real in every part, and runs of it: in this process or as a worker that may be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.models.backbones.contract import Item, States
from speciate.training.networks import durable_training
from speciate.training.networks.batches import Items, PreparedItems
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.training_checkpoints import Checkpoints
from speciate.training.networks.training_loop import HeldOutData, Scores, Training

WIDTH, WORDS = 8, 12


class Words(torch.nn.Module):
    """With everything that has a state: dropout, a norm, running statistics, tied and frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS, WIDTH)
        self.frozen = torch.nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.mix, self.norm = torch.nn.Linear(WIDTH, WIDTH), torch.nn.LayerNorm(WIDTH)
        self.running: torch.nn.Module = torch.nn.BatchNorm1d(WIDTH)
        self.dropout = torch.nn.Dropout(0.2)
        self.again = torch.nn.Linear(WIDTH, WIDTH)
        self.again.weight = self.mix.weight
        self.unused = torch.nn.Parameter(torch.zeros(3))

    def forward(self, words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.norm(self.mix(self.dropout(self.embed(words))) + self.frozen(self.embed(words)))
        states = self.running(self.again(states).transpose(1, 2)).transpose(1, 2)
        return states * mask[..., None]


class TinyBackbone:
    base_model, modality, unit, width = "new:tiny", "text", None, WIDTH

    def __init__(self) -> None:
        self.module = Words()
        self.prepared = 0

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        self.prepared += len(media)
        return [{"words": np.asarray(medium, np.int64)} for medium in media]

    def length(self, item: Item) -> int:
        return len(item["words"])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        longest = max(len(item["words"]) for item in items)
        words = torch.zeros(len(items), longest, dtype=torch.long)
        mask = torch.zeros(len(items), longest, dtype=torch.bool)
        for place, item in enumerate(items):
            words[place, : len(item["words"])] = torch.from_numpy(item["words"])
            mask[place, : len(item["words"])] = True
        return {"words": words, "mask": mask}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        sequence = self.module(batch["words"], batch["mask"])
        pooled = sequence.sum(1) / batch["mask"].sum(1, keepdim=True)
        return States(sequence, batch["mask"], pooled)

    def settings(self) -> dict[str, Any]:
        return {}

    def files(self) -> dict[str, bytes]:
        return {}


class TwoLabels:
    def loss(self, head: Any, states: States, targets: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(head(states.pooled), torch.as_tensor(targets))

    def scores(self, head: Any, states: States) -> Sequence[npt.NDArray[Any]]:
        return list(head(states.pooled).numpy())


def media(count: int, seed: int = 0) -> tuple[list[list[int]], npt.NDArray[np.int64]]:
    """Words, and whether more of them are from the upper half: of very different lengths."""
    chance = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    lengths = chance.integers(2, 20, count)
    low = targets * WORDS // 2
    return [chance.integers(a, a + WORDS // 2, n).tolist() for a, n in zip(low, lengths, strict=True)], targets


def training(
    parameters: LoopParameters | None = None,
    count: int = 45,
    seed: int = 1,
    task_head: Any = None,
    around: Callable[[Items], Items] = lambda items: items,
    batch_norm: bool | None = None,
    **options: Any,
) -> Training:
    """`batch_norm`: by itself where the batch is not divided."""
    torch.set_num_threads(1)  # the bits are compared with those of processes that have one
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone, head = TinyBackbone(), torch.nn.Linear(WIDTH, 2)
    given, targets = media(count)
    items = around(PreparedItems(given, backbone.prepare, backbone.length))
    parameters = parameters or LoopParameters(
        num_train_epochs=4, batch_size=8, per_device_train_batch_size=3, learning_rate=0.01
    )
    if batch_norm is False or (batch_norm is None and parameters.per_device_train_batch_size):
        backbone.module.running = torch.nn.Identity()
    return Training(backbone, head, task_head or TwoLabels(), items, targets, parameters, seed, **options)


def held(count: int = 20) -> HeldOutData:
    given, targets = media(count, seed=9)
    backbone = TinyBackbone()

    def accuracy(scores: Scores) -> float:
        return float(np.mean(np.argmax(scores, axis=1) == targets))

    return HeldOutData(PreparedItems(given, backbone.prepare, backbone.length), targets, accuracy)


def new_run(folder: Path, attempt: int = 1, **spec: Any) -> Run:
    """Attempt number `attempt` of a job, which knows those before it."""
    made = RunFolder(folder / f"job.{attempt}")
    earlier = [str(folder / f"job.{number}") for number in range(attempt - 1, 0, -1)]
    made.create({"payload": {}, "job": "job", "workspace": str(folder), "resume_from": earlier, **spec})
    return Run(made)


def checkpoints(run: Run) -> Checkpoints:
    return durable_training.training_place(run).checkpoints


class Killer:
    """Items that end the process, as `kill -9` would, when they are taken for the `at`th time."""

    def __init__(self, items: Items, at: int) -> None:
        self._items, self._left, self.lengths = items, at, items.lengths

    def take(self, places: npt.NDArray[np.int64]) -> list[Item]:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._items.take(places)


def work(run: Run) -> Mapping[str, Any]:
    """The entry of a worker: {take, save} say at which of them it is killed; 0 never."""
    torch.set_num_threads(1)
    learning = training(around=lambda items: Killer(items, run.payload["take"]))
    resumed = checkpoints(run).newest()
    if at := run.payload["save"]:
        rename, saves = Path.rename, iter(range(1, 1_000_000))

        def die(path: Path, target: Path) -> Path:
            if next(saves) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(path, target)

        Path.rename = die  # type: ignore[method-assign]
    durable_training._SAVE_SHARE = 0  # before each step, however long it takes
    durable_training.train_durably(run, learning, held(), save_seconds=0.0)
    return {"digest": learning.digest(), "resumed_at": resumed.state.facts["step"] if resumed else 0}
