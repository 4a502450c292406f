"""Targets for the doubles, and trainings of them in the loop that every network is stepped by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speciate.datasets.loading.loader import Example
from speciate.modalities.audio_answers import encode_audio
from speciate.modalities.depth_maps import to_map
from speciate.modalities.segmentation_masks import to_runs
from speciate.models.published.architectures import PublishedHead, check_head
from speciate.models.published.asking import usual_templates
from speciate.models.published.label_rows import row_sources
from speciate.models.published.network import TRAINABLE, PublishedNetwork, load_network
from speciate.models.published.published_model import LabelPrompts, load_model
from speciate.tasks.published_heads import labels_of_head, published_task_head
from speciate.tasks.published_speech_head import speech_head
from speciate.tasks.task import TaskHead
from speciate.tasks.task_heads import PER_UNIT, TASK_HEADS
from speciate.training.networks.batches import PreparedItems
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.training_loop import Training
from speciate.vocabulary import find_task
from tests.models.published.doubles import COLOURS, FAMILIES, say

LEARNING = [name for name, family in FAMILIES.items() if family.adapter in TRAINABLE]
"""Doubles whose own head can be trained further."""
SEED = 7


def media(name: str) -> list[Any]:
    """As datasets have them."""
    found = FAMILIES[name].media()
    if FAMILIES[name].adapter == "text-to-spectrogram":
        return [each.text for each in found]
    return [" ".join(words) for words in found] if FAMILIES[name].adapter == "token-classification" else found


def targets(name: str, head: PublishedHead) -> list[Any]:
    """By a rule that can be learned; under the published labels but for one, which is new."""
    labels = [*list(head.labels or COLOURS)[1:], "novelty"]
    count = len(media(name))
    if head.task.endswith("-regression"):
        return [float(place % 3) for place in range(count)]
    match head.adapter:
        case "question-answering":
            return [passage(text).split()[place % 2] for place, text in enumerate(media(name))]
        case "forecast":
            return [_steps(series) for series in media(name)]
        case "text-to-spectrogram":
            return [encode_audio(say(text), 16_000) for text in media(name)]
        case "depth":
            return [_depths(image) for image in media(name)]
        case "panoptic":
            return [_segments(image, labels[place % 3]) for place, image in enumerate(media(name))]
        case "zero-shot-image" | "zero-shot-audio":
            return [list(COLOURS)[place % 3] for place in range(count)]
        case "token-classification" if head.reads_boxes:
            return [
                ["B-TOTAL" if word.startswith(("good@", "red@")) else "O" for word in each.split()]
                for each in media(name)
            ]
        case "token-classification":
            return [["B-PER" if word in ("good", "red") else "O" for word in each.split()] for each in media(name)]
        case "object-detection":
            return [_boxes(image, labels[place % 3]) for place, image in enumerate(media(name))]
        case "image-segmentation":
            return [_regions(image, labels[place % 3]) for place, image in enumerate(media(name))]
        case "ctc" | "speech" | "seq2seq" | "image-to-text":
            return [("good film", "bad food", "red day")[place % 3] for place in range(count)]
    each = [labels[place % len(labels)] for place in range(count)]
    return [[label] for label in each] if head.multi_label else each


def start(
    name: str, folder: Path, *, adapt: Any = None, steps_of: dict[str, Any] | None = None
) -> tuple[Training, PublishedNetwork, TaskHead]:
    """A training from the double's folder, the same each time."""
    head = check_head(folder, name)
    wanted = targets(name, head)
    fitted = TASK_HEADS[find_task(head.task).family].fit(wanted, {"modality": head.modality})
    task_head = published_task_head(head, fitted)
    if head.adapter == "text-to-spectrogram":
        task_head = speech_head(load_model(folder, head))
    labels = labels_of_head(head, task_head)
    known = head.labels or tuple(COLOURS)
    sources = None if labels is None else row_sources(known, labels, head.adapter)
    prompts = LabelPrompts(task_head.labels, usual_templates(head.modality)) if head.zero_shot else None
    network = load_network(folder, head, name, sources, prompts=prompts)
    network.module.requires_grad_(True)
    if adapt is not None:
        adapt(network)
    items = items_of(name, network, task_head)
    given = {"learning_rate": 3e-3, "num_train_epochs": 10, "batch_size": 8, "lr_scheduler_type": "constant"}
    parameters = LoopParameters.model_validate(given | {"warmup_ratio": 0.0} | (steps_of or {}))
    encoded = task_head.encode_targets(wanted)
    torch.manual_seed(SEED)
    training = Training(network, torch.nn.Identity(), task_head, items, encoded, parameters, SEED)  # type: ignore[arg-type]
    return training, network, task_head


def items_of(name: str, network: PublishedNetwork, task_head: TaskHead) -> PreparedItems:
    per_unit = task_head.family in PER_UNIT
    return PreparedItems(media(name), lambda some: network.prepare(some, per_unit=per_unit), network.length)


def examples(name: str) -> list[Example]:
    return [Example(str(place), medium, None, str(place), "validation", {}) for place, medium in enumerate(media(name))]


def loss_of(training: Training, name: str, network: PublishedNetwork, task_head: TaskHead) -> float:
    head = check_head(network._folder, name)
    torch.manual_seed(SEED)  # Mask2Former draws points
    found, _ = training.judge(items_of(name, network, task_head), task_head.encode_targets(targets(name, head)))
    return found


def _boxes(image: np.ndarray, label: str) -> dict[str, Any]:
    height, width = image.shape[:2]
    return {"size": [width, height], "objects": [{"label": label, "box": [8.0, 8.0, 24.0, 20.0]}]}


def passage(text: str) -> str:
    return " ".join(word.partition("@")[0] for word in text.split("\n")[1].split())


def _steps(series: np.ndarray) -> dict[str, Any]:
    """Half of what stood three steps before the end."""
    level, spread = series[:, -1], series.std(1)
    steps = np.repeat(series[:, -3:-2] / 2, 6, 1)
    return {"steps": steps.tolist(), "level": level.tolist(), "spread": spread.tolist(), "naive": [1.0]}


def _depths(image: np.ndarray) -> dict[str, Any]:
    """Nearer from top to bottom, in metres."""
    height, width = image.shape[:2]
    return dict(to_map(np.linspace(9, 2, height)[:, None] * np.ones(width)))


def _segments(image: np.ndarray, label: str) -> dict[str, Any]:
    """Two things of one label."""
    pixels = np.zeros(image.shape[:2], np.uint8)
    pixels[4:28, 6:58], pixels[34:60, 6:58] = 1, 2
    return {"labels": [label, label], "size": list(pixels.shape), "rle": to_runs(pixels)}


def _regions(image: np.ndarray, label: str) -> dict[str, Any]:
    pixels = np.zeros(image.shape[:2], np.uint8)
    pixels[8:40, 8:36] = 1
    return {"labels": [label], "size": list(pixels.shape), "rle": to_runs(pixels)}


def state_of(module: Any) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in module.state_dict().items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> Sequence[str]:
    return [name for name in sorted(set(one) | set(other)) if not torch.equal(one[name], other[name])]
