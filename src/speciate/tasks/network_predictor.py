"""A trained network that answers: a backbone with the head of its task.

A folder holds `predictor.json` (task and its head), `head.safetensors`, and what models/model_folder.py writes of the
backbone; nothing else is needed to serve it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models import model_folder, sealed
from speciate.models.backbones.architectures import rebuild
from speciate.models.backbones.contract import Backbone, Item
from speciate.tasks.task import Prediction, TaskHead, predict_examples
from speciate.tasks.task_heads import PER_UNIT, TASK_HEADS, AnyTaskHead

if TYPE_CHECKING:
    import torch


MANIFEST, HEAD = "predictor.json", "head.safetensors"
_NO_OUTPUT = {"temperature", "thresholds", "known"}
"""Fields of a task head that say nothing of what a head gives: calibration, and the labels that vectors were learned
from."""
_BATCH = 32


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str
    backbone: Literal[True] = True
    """What tells this kind of folder from the other."""
    task_head: AnyTaskHead = Field(alias="readout")
    """Under the name that it has in every stored model."""


class NetworkPredictor:
    def __init__(self, task: str, task_head: TaskHead, backbone: Backbone, head: torch.nn.Module) -> None:
        self.task, self.task_head, self.backbone, self.head = task, task_head, backbone, head

    @property
    def labels(self) -> tuple[str, ...]:
        return self.task_head.labels

    @property
    def parameters(self) -> int:
        return sum(each.numel() for module in (self.backbone.module, self.head) for each in module.parameters())

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        if not examples:
            return []
        media = [example.media for example in examples]
        items = self.backbone.prepare(media, per_unit=self.task_head.family in PER_UNIT)
        return predict_examples(
            self.task_head, as_scores(scores(self.backbone, self.head, self.task_head, items)), examples
        )

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True)
        manifest = _Manifest.model_validate({"task": self.task, "readout": self.task_head})
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1, by_alias=True))
        state = self.head.state_dict()
        save_file({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}, folder / HEAD)
        model_folder.save(self.backbone, folder)
        return sealed.seal(folder)


def scores(
    backbone: Backbone, head: torch.nn.Module, task_head: TaskHead, items: Sequence[Item], batch: int = _BATCH
) -> list[npt.NDArray[Any]]:
    """An array for each item, in their order; those of like length are computed together."""
    import torch

    found: list[npt.NDArray[Any] | None] = [None] * len(items)
    backbone.module.eval()
    head.eval()
    with torch.inference_mode():
        for places in _batches(backbone, items, batch):
            states = backbone.states(backbone.collate([items[place] for place in places]))
            for place, score in zip(places, task_head.scores(head, states), strict=True):
                found[place] = score
    return [score for score in found if score is not None]


def as_scores(found: Sequence[npt.NDArray[Any]]) -> Any:
    """(N, K) where every example has as many, else the list as it is."""
    shapes = {score.shape for score in found}
    return np.stack(found) if len(shapes) == 1 and len(next(iter(shapes))) == 1 else list(found)


def load_network(folder: Path, threads: int = 1) -> NetworkPredictor:
    """From a folder whose hashes were checked. INVALID where the weights are not those of the architecture."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    manifest = _Manifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    backbone = model_folder.load(folder, rebuild)
    head = manifest.task_head.head(backbone.width)
    try:
        head.load_state_dict(load_file(folder / HEAD), strict=True)
    except RuntimeError as error:
        raise SpeciateError(
            Code.INVALID,
            f"The head in {folder} is not that of {manifest.task!r}: {error}",
            "Train the model again with train_model.",
        ) from error
    head.eval()
    return NetworkPredictor(manifest.task, manifest.task_head, backbone, head)


def has_head(folder: Path) -> bool:
    """Whether a model folder has a network with the head of its task."""
    return (folder / HEAD).is_file()


def warm_start(head: torch.nn.Module, task_head: TaskHead, folder: Path) -> bool:
    """Give the head the weights of a trained model's, where that has the same task and outputs; whether it has."""
    from safetensors.torch import load_file

    try:
        before = _Manifest.model_validate(json.loads((folder / MANIFEST).read_text())).task_head
        known = load_file(folder / HEAD)
    except (OSError, ValueError):
        return False  # weights that no task was trained on yet
    own = head.state_dict()
    if _outputs(before) != _outputs(task_head) or {name: each.shape for name, each in known.items()} != {
        name: own[name].shape for name in own
    }:
        return False
    head.load_state_dict(known, strict=True)
    return True


def _outputs(task_head: TaskHead) -> tuple[Any, ...]:
    """What the numbers of a head stand for: labels, or else characters, units, steps."""
    if task_head.labels or not isinstance(task_head, BaseModel):
        return task_head.family, task_head.labels
    return task_head.family, task_head.model_dump(exclude=_NO_OUTPUT)


def _batches(backbone: Backbone, items: Sequence[Item], size: int) -> Iterator[list[int]]:
    """The longest first: a batch that is too big fails at once."""
    order = sorted(range(len(items)), key=lambda place: -backbone.length(items[place]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def saved_task_head(folder: Path) -> TaskHead:
    """Task head of a model that was trained here, whatever learned it."""
    said = json.loads((folder / MANIFEST).read_text())["readout"]
    found: TaskHead = TASK_HEADS[said["family"]].model_validate(said)
    return found


def merge_task_heads(old: TaskHead, new: TaskHead) -> TaskHead:
    """A task head with the labels of both. INVALID for other tasks, or for ranks that the old one lacks."""
    if old.family != new.family:
        raise SpeciateError(
            Code.INVALID,
            f"The model that is gone on from does {old.family}, and this training {new.family}.",
            "Name a model of the same task with continue_from, or train with method='full'.",
        )
    more = sorted(set(new.labels) - set(old.labels))
    own: Any = old
    match old.family:
        case "classification":
            return own.model_copy(update={"labels": tuple(sorted({*old.labels, *new.labels}))})  # type: ignore[no-any-return]
        case "multi-label":
            known = dict(zip(old.labels, own.thresholds, strict=True))
            labels = tuple(sorted({*old.labels, *new.labels}))
            thresholds = tuple(known.get(label, 0.5) for label in labels)
            return own.model_copy(update={"labels": labels, "thresholds": thresholds})  # type: ignore[no-any-return]
        case "ordinal" if more:
            raise SpeciateError(
                Code.INVALID,
                f"The ranks {', '.join(more)} are new, and between which of the old ones they lie changes all of them.",
                "Train with method='full' on both versions together: curate_dataset(steps=[{'op': 'merge', ...}]).",
            )
    return old


def grow_head(head: torch.nn.Module, task_head: TaskHead, folder: Path) -> None:
    """Give a fresh head of `task_head` the weights of the one in a model's folder, label by label."""
    import torch
    from safetensors.torch import load_file

    old, known, own = saved_task_head(folder), load_file(folder / HEAD), head.state_dict()
    if old.labels == task_head.labels or task_head.family not in ("classification", "multi-label"):
        head.load_state_dict(known, strict=True)
        return
    places = torch.tensor([task_head.labels.index(label) for label in old.labels])
    for name, each in own.items():  # a linear head: a row of each for every label
        each[places] = known[name]
    head.load_state_dict(own, strict=True)
