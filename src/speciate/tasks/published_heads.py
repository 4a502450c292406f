"""Tasks whose published heads compute their loss in the forward pass: detectors and segmenters here, those that write
in published_text_heads.py, those that answer with numbers in published_number_heads.py.

The loss and the post-processing are the publisher's. Targets and answers have the forms of the task's own files, so
that metrics and reports do not tell such a head from ours. Heads of classes and tags need nothing of this: their
outputs are what the task's own loss takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.segmentation_masks import from_runs, resize_labels, to_runs
from speciate.models.published.adapters.images import BACKGROUND
from speciate.models.published.adapters.regions import segment_map
from speciate.models.published.architectures import Adapter, PublishedHead
from speciate.models.published.network import MASK, PublishedNetwork
from speciate.tasks.families.detection import Detection
from speciate.tasks.families.panoptic import Panoptic
from speciate.tasks.families.segmentation import Segmentation
from speciate.tasks.published_number_heads import PublishedDepth, PublishedForecast, PublishedRegression
from speciate.tasks.published_policy import PublishedPolicy
from speciate.tasks.published_text_heads import (
    PublishedAnswer,
    PublishedCaption,
    PublishedCtc,
    PublishedSpeech,
    PublishedTextToText,
)
from speciate.tasks.task import Prediction, TaskHead

if TYPE_CHECKING:
    import torch

Batch = Mapping[str, "torch.Tensor"]
Rows = Sequence[npt.NDArray[Any]]
_LEAST_SCORE, _MOST_BOXES = 0.05, 100
_UNKNOWN = 255
"""Code of a pixel that does not count."""
_SIDE = 64
"""Pixels of the square that segments are judged at while they are trained."""
_WRITING: tuple[Adapter, ...] = ("ctc", "speech", "seq2seq", "image-to-text", "question-answering")
WITHOUT_LABELS: tuple[Adapter, ...] = (
    *_WRITING, "forecast", "depth", "zero-shot-image", "zero-shot-audio", "policy",
    "text-to-spectrogram",
)  # fmt: skip
"""Adapters whose heads have no rows of labels."""


def published_task_head(head: PublishedHead, task_head: TaskHead) -> TaskHead:
    """The task head of a training that keeps a published head. `task_head`: fitted on the training targets."""
    own: Any = task_head
    match head.adapter:
        case "object-detection":
            return PublishedDetection(labels=own.labels)
        case "image-segmentation":
            return PublishedSegmentation(labels=own.labels, side=own.side, axes=own.axes, shares=own.shares)
        case "ctc":
            return PublishedCtc(characters=own.characters)
        case "speech":
            return PublishedSpeech(characters=own.characters)
        case "panoptic":
            return PublishedPanoptic(labels=own.labels, side=_SIDE)
        case "seq2seq":
            return PublishedTextToText()
        case "image-to-text":
            return PublishedCaption()
        case "question-answering":
            return PublishedAnswer()
        case "forecast":
            return PublishedForecast(channels=own.channels, horizon=own.horizon)
        case "depth":
            return PublishedDepth(relative=head.relative)
        case "policy":
            return PublishedPolicy(centre=own.centre, spread=own.spread)
    if task_head.family == "regression":
        return PublishedRegression(mean=own.mean, spread=own.spread)
    return task_head


def labels_of_head(head: PublishedHead, task_head: TaskHead) -> tuple[str, ...] | None:
    """The labels that the published head is to have, in order; None of one without labels. INVALID for a dataset that
    labels background as a thing of its own."""
    if head.adapter in WITHOUT_LABELS or task_head.family == "regression":
        return None
    if head.adapter != "image-segmentation":
        return task_head.labels
    if BACKGROUND in map(str.lower, task_head.labels):
        raise SpeciateError(
            Code.INVALID,
            f"One of the labels is {BACKGROUND!r}, which a published head has for pixels of no label.",
            "Rename it in the dataset, or call train_model again with hyperparameters={'head': 'new'}.",
        )
    return BACKGROUND, *task_head.labels


class PublishedDetection(Detection):
    whole_batch: ClassVar[Literal[True]] = True
    """Boxes are matched and weighted over the batch, and some families draw noise beside them."""

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        import torch

        losses = []
        for rows, part in network.alike(batch):
            device = next(iter(part.values())).device
            wanted = [torch.as_tensor(np.asarray(targets[row], np.float32), device=device) for row in rows]
            labels = [{"class_labels": each[:, 0].long(), "boxes": each[:, 1:]} for each in wanted]
            losses.append(network.module(**part, labels=labels).loss * len(rows))
        return torch.stack(losses).sum() / len(targets), len(targets)

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        """(boxes, 6) each: code of the label, score, left, top, width and height as shares of the image."""
        found: dict[int, npt.NDArray[Any]] = {}
        for rows, part in network.alike(batch):
            made = network.model.processor.post_process_object_detection(
                network.module(**part), threshold=_LEAST_SCORE, target_sizes=None
            )
            found.update(zip(rows, (_boxes(each, len(self.labels)) for each in made), strict=True))
        return [found[row] for row in range(len(found))]

    def predictions(self, scores: Rows) -> list[Prediction]:
        return [Prediction([self._object(row) for row in rows.tolist()], None, None) for rows in scores]

    def _object(self, row: Sequence[float]) -> dict[str, Any]:
        return {"label": self.labels[int(row[0])], "score": row[1], "box": list(row[2:])}


class PublishedSegmentation(Segmentation):
    def encode_targets(self, targets: Sequence[Any]) -> Any:
        """(h, w) codes of each target's own size: 0 for background, k for the k-th label, 255 does not count."""
        place = {label: i for i, label in enumerate(self.labels, 1)}
        made = []
        for target in targets:
            codes = np.array([0, *(place.get(label, _UNKNOWN) for label in target["labels"])], np.uint8)
            made.append(codes[from_runs(target["rle"], target["size"])])
        return made

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        import torch

        losses = []
        for rows, part in network.alike(batch):
            maps = np.stack([_placed(targets[row], part, place) for place, row in enumerate(rows)])
            wanted = torch.from_numpy(maps.astype(np.int64)).to(part["pixel_values"].device)
            labels: dict[str, Any] = {"labels": wanted}
            if hasattr(network.module, "class_predictor"):  # of masks, each with a class
                shown = [each.unique()[each.unique() != _UNKNOWN] for each in wanted]
                masks = [(each == codes[:, None, None]).float() for each, codes in zip(wanted, shown, strict=True)]
                labels = {"class_labels": shown, "mask_labels": masks}
            losses.append(network.module(**part, **labels).loss.sum() * len(rows))
        return torch.stack(losses).sum() / len(targets), len(targets)

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        """(side, side) codes each."""
        found: dict[int, npt.NDArray[Any]] = {}
        for rows, part in network.alike(batch):
            made = network.model.processor.post_process_semantic_segmentation(
                network.module(**part), target_sizes=[(self.side, self.side)] * len(rows)
            )
            found.update(zip(rows, (each.cpu().numpy().clip(0, len(self.labels)) for each in made), strict=True))
        return [found[row] for row in range(len(found))]

    def predictions(self, scores: Rows) -> list[Prediction]:
        return [self._prediction(np.asarray(codes).astype(np.uint8)) for codes in scores]


class PublishedPanoptic(Panoptic):
    side: int
    """In pixels, of the square that an answer is judged at while it is trained."""

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        import torch

        losses = []
        for rows, part in network.alike(batch):
            device = part["pixel_values"].device
            found = [self._segments(targets[row], part, place) for place, row in enumerate(rows)]
            masks = [torch.from_numpy(each.masks).to(device) for each in found]
            codes = [torch.tensor(each.codes, dtype=torch.long, device=device) for each in found]
            if hasattr(network.module, "class_predictor"):  # of masks, each with a class
                made = network.module(**part, class_labels=codes, mask_labels=masks)
            else:
                boxes = [torch.from_numpy(_boxes_around(each.masks)).to(device) for each in found]
                labels = [
                    {"class_labels": code, "boxes": box, "masks": mask}
                    for code, box, mask in zip(codes, boxes, masks, strict=True)
                ]
                made = network.module(**part, labels=labels)
            losses.append(made.loss.sum() * len(rows))
        return torch.stack(losses).sum() / len(targets), len(targets)

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        """(2, side, side) each: the segment of each pixel, 0 for none, and the code of its label."""
        found: dict[int, npt.NDArray[Any]] = {}
        for rows, part in network.alike(batch):
            made = network.model.processor.post_process_panoptic_segmentation(
                network.module(**part), target_sizes=[(self.side, self.side)] * len(rows)
            )
            maps = [segment_map(self.labels, each["segmentation"], each["segments_info"]) for each in made]
            found.update(zip(rows, (self._codes(each) for each in maps), strict=True))
        return [found[row] for row in range(len(found))]

    def predictions(self, scores: Rows) -> list[Prediction]:
        made = []
        for segments, labels in scores:
            shown = range(1, int(segments.max(initial=0)) + 1)
            names = [self.labels[int(labels[segments == place][0])] for place in shown]
            pixels = segments.astype(np.uint8)
            made.append(Prediction({"labels": names, "size": list(pixels.shape), "rle": to_runs(pixels)}, None, None))
        return made

    def _codes(self, found: Mapping[str, Any]) -> npt.NDArray[np.int64]:
        segments = from_runs(found["rle"], found["size"]).astype(np.int64)
        places = np.array([0, *(self.labels.index(label) for label in found["labels"])], np.int64)
        return np.stack([segments, places[segments]])

    def _segments(self, target: Mapping[str, Any], part: Batch, row: int) -> _Segments:
        """Segments of a target, placed as in its row of the batch; labels that training has not seen have none."""
        pixels = _placed(from_runs(target["rle"], target["size"]), part, row)
        known = [(place, label) for place, label in enumerate(target["labels"], 1) if label in self.labels]
        shown = [(place, label) for place, label in known if (pixels == place).any()]
        masks = np.stack([pixels == place for place, _ in shown]) if shown else np.zeros((0, *pixels.shape), bool)
        return _Segments([self.labels.index(label) for _, label in shown], masks.astype(np.float32))


class _Segments(NamedTuple):
    codes: list[int]
    masks: npt.NDArray[np.float32]
    """(S, H, W)"""


def _boxes_around(masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(S, 4) as shares of the image: centre across and down, width, height."""
    made = np.zeros((len(masks), 4), np.float32)
    for row, mask in zip(made, masks, strict=True):
        down, across = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, bottom, left, right = down[0], down[-1] + 1, across[0], across[-1] + 1
        row[:] = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    height, width = masks.shape[1:]
    return (made / np.array([width, height, width, height], np.float32)).astype(np.float32)


def _boxes(found: Mapping[str, Any], labels: int) -> npt.NDArray[np.float64]:
    codes, scores = found["labels"].cpu().numpy(), found["scores"].float().cpu().numpy()
    corners = found["boxes"].float().cpu().numpy().astype(np.float64).reshape(-1, 4)
    best = [place for place in np.argsort(-scores, kind="stable") if codes[place] < labels][:_MOST_BOXES]
    left_top, right_bottom = corners[best, :2], corners[best, 2:]
    return np.column_stack([codes[best], scores[best], left_top, right_bottom - left_top])


def _placed(codes: npt.NDArray[Any], part: Batch, row: int) -> npt.NDArray[np.uint8]:
    """The map of an image in the size of its pixels as the network reads them; what was padded does not count."""
    height, width = part["pixel_values"].shape[-2:]
    made = np.full((height, width), _UNKNOWN, np.uint8)
    if MASK in part:
        mask = part[MASK][row].cpu().numpy() > 0
        height, width = int(mask.any(1).sum()), int(mask.any(0).sum())
    made[:height, :width] = resize_labels(codes, (height, width))
    return made
