"""Tasks whose published heads compute their loss in the forward pass: detectors, segmenters, and models of speech.

The loss and the post-processing are the publisher's. Targets and answers have the forms of the task's own files, so
that metrics and reports do not tell such a head from ours. Heads of classes and tags need nothing of this: their
outputs are what the task's own loss takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.segmentation_masks import from_runs, resize_labels
from speciate.models.published.adapters.images import BACKGROUND
from speciate.models.published.architectures import PublishedHead
from speciate.models.published.network import MASK, PublishedNetwork, decode_symbols, generate
from speciate.tasks.families.detection import Detection
from speciate.tasks.families.segmentation import Segmentation
from speciate.tasks.families.transcription import Transcription
from speciate.tasks.task import Prediction, TaskHead

if TYPE_CHECKING:
    import torch

Batch = Mapping[str, "torch.Tensor"]
Rows = Sequence[npt.NDArray[Any]]
_LEAST_SCORE, _MOST_BOXES = 0.05, 100
_UNKNOWN = 255
"""Code of a pixel that does not count."""
_MOST_UNKNOWN = 0.2
"""Share of the characters or tokens of the training texts that a tokenizer may lack."""


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
    return task_head


def labels_of_head(head: PublishedHead, task_head: TaskHead) -> tuple[str, ...] | None:
    """The labels that the published head is to have, in order; None of one without labels. INVALID for a dataset that
    labels background as a thing of its own."""
    if head.adapter in ("ctc", "speech"):
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


class _Texts(Transcription):
    """Targets are the texts themselves; scores are the characters of what was written."""

    def encode_targets(self, targets: Sequence[Any]) -> Any:
        return list(targets)

    def predictions(self, scores: Rows) -> list[Prediction]:
        return [Prediction("".join(map(chr, row)), None, None) for row in scores]


class PublishedCtc(_Texts):
    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """Each text's CTC loss per symbol, the mean over texts: so a batch may be learned in parts. One that is longer
        than its states adds nothing."""
        import torch

        module: Any = network.module
        total, counted = torch.zeros(()), 0
        for rows, part in network.alike(batch):
            logits = module(**part).logits.float()
            codes = [torch.tensor(symbols_of(network, targets[row])) for row in rows]
            counts = torch.tensor([len(each) for each in codes])
            losses = torch.nn.functional.ctc_loss(
                torch.log_softmax(logits, 2).transpose(0, 1).cpu(), torch.cat(codes).long(),
                torch.full((len(rows),), logits.shape[1]), counts, int(module.config.pad_token_id), reduction="none",
                zero_infinity=True,
            )  # fmt: skip
            total = total + (losses * (counts > 0) / counts.clamp(min=1)).sum()
            counted += int((counts > 0).sum())
        return total / max(counted, 1), counted

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        found: dict[int, npt.NDArray[Any]] = {}
        for rows, part in network.alike(batch):
            made: Any = network.module(**part)
            found.update(zip(rows, map(_characters, decode_symbols(network, made.logits.argmax(-1))), strict=True))
        return [found[row] for row in range(len(found))]


class PublishedSpeech(_Texts):
    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """The mean over tokens."""
        import torch

        losses, counted = [], 0
        for rows, part in network.alike(batch):
            wanted = spoken_tokens(network, [targets[row] for row in rows])
            count = int((wanted != -100).sum())
            device = next(iter(part.values())).device
            losses.append(network.module(**part, labels=wanted.to(device)).loss * count)
            counted += count
        return torch.stack(losses).sum() / max(counted, 1), counted

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Rows:
        found: dict[int, npt.NDArray[Any]] = {}
        for rows, part in network.alike(batch):
            found.update(zip(rows, map(_characters, generate(network, part)), strict=True))
        return [found[row] for row in range(len(found))]


def check_texts(network: PublishedNetwork, texts: Sequence[str]) -> None:
    """Raise INVALID if the published tokenizer lacks much of what the training texts are made of."""
    unknown, tokens = network.model.tokenizer.unk_token_id, 0
    missing = 0
    for text in texts:
        found = symbols_of(network, text)
        tokens, missing = tokens + len(found), missing + sum(each == unknown for each in found)
    if unknown is not None and missing > _MOST_UNKNOWN * max(tokens, 1):
        raise SpeciateError(
            Code.INVALID,
            f"The tokenizer of {network.base_model!r} lacks {missing / tokens:.0%} of what the training texts are made "
            "of, and its head writes nothing else.",
            "Call train_model again with hyperparameters={'head': 'new'}, or with a model of this language.",
        )


def symbols_of(network: PublishedNetwork, text: str) -> list[int]:
    """Codes of a text; in capitals where the published vocabulary has no other letters."""
    tokenizer = network.model.tokenizer
    if network.model.head.adapter == "ctc":
        letters = [each for each in tokenizer.get_vocab() if len(each) == 1 and each.isalpha()]
        if letters and all(each.isupper() for each in letters):
            text = text.upper()
    codes: list[int] = tokenizer(text, add_special_tokens=network.model.head.adapter != "ctc")["input_ids"]
    return codes


def spoken_tokens(network: PublishedNetwork, texts: Sequence[str]) -> torch.Tensor:
    """(B, T) of what is to be written; -100 after its end. The token that a decoder begins with is not written."""
    import torch

    config: Any = network.module.config
    most = int(getattr(config, "max_target_positions", None) or 448)
    codes = [symbols_of(network, text) for text in texts]
    start = getattr(config, "decoder_start_token_id", None)
    codes = [each[1:] if each[:1] == [start] else each for each in codes]
    rows = torch.full((len(codes), max(1, *(min(len(each), most) for each in codes))), -100)
    for row, each in enumerate(codes):
        rows[row, : min(len(each), most)] = torch.tensor(each[:most])
    return rows


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


def _characters(text: str) -> npt.NDArray[np.uint32]:
    return np.array([ord(each) for each in text], np.uint32)
