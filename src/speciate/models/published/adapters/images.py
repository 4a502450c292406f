"""Published models that read images or clips: classifiers, detectors, maps of labels, and zero-shot classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.segmentation_masks import MOST_LABELS, to_runs
from speciate.models.published.adapters.by_words import sentence_tokens
from speciate.models.published.adapters.class_probabilities import label_answers
from speciate.models.published.published_model import LabelPrompts, PublishedModel, RawAnswer, batches

Pixels = npt.NDArray[np.uint8]
_BATCH, _CLIPS = 16, 4
MOST_BOXES, LEAST_SCORE = 100, 0.05
"""Boxes of an image, as COCO counts them, and their score, as Detectron cuts them."""
BACKGROUND = "background"


def classify(model: PublishedModel, images: Sequence[Pixels]) -> list[RawAnswer]:
    found: dict[int, RawAnswer] = {}
    for places in batches([1] * len(images), _BATCH):
        inputs = model.processor(images=[as_image(images[place]) for place in places], return_tensors="pt")
        found.update(zip(places, label_answers(model, forward(model, inputs).logits), strict=True))
    return [found[place] for place in range(len(images))]


def classify_clips(model: PublishedModel, clips: Sequence[Mapping[str, Any]]) -> list[RawAnswer]:
    """The class of each clip. The model sees as many frames as it reads, evenly spaced; of a shorter clip some are seen
    twice."""
    found: dict[int, RawAnswer] = {}
    for places in batches([1] * len(clips), _CLIPS):
        frames = [read_frames(model, clips[place]) for place in places]
        inputs = model.processor(frames, return_tensors="pt")
        found.update(zip(places, label_answers(model, forward(model, inputs).logits), strict=True))
    return [found[place] for place in range(len(clips))]


def detect(model: PublishedModel, images: Sequence[Pixels]) -> list[RawAnswer]:
    """`[{label, score, box: [x, y, width, height]}]` in pixels, best first. Images of one size are asked together, as
    padding changes what a detector sees."""
    found: dict[int, RawAnswer] = {}
    for places in alike(images):
        part = [images[place] for place in places]
        inputs = model.processor(images=[as_image(each) for each in part], return_tensors="pt")
        sizes = [each.shape[:2] for each in part]
        boxes = model.processor.post_process_object_detection(
            forward(model, inputs), threshold=LEAST_SCORE, target_sizes=sizes
        )
        found.update({place: RawAnswer(_objects(model, one)) for place, one in zip(places, boxes, strict=True)})
    return [found[place] for place in range(len(images))]


def segment(model: PublishedModel, images: Sequence[Pixels]) -> list[RawAnswer]:
    """`{labels, size, rle}` of the image's own size; a label called background is none."""
    found: dict[int, RawAnswer] = {}
    for places in alike(images):
        part = [images[place] for place in places]
        inputs = model.processor(images=[as_image(each) for each in part], return_tensors="pt")
        maps = model.processor.post_process_semantic_segmentation(
            forward(model, inputs), target_sizes=[each.shape[:2] for each in part]
        )
        found.update({place: RawAnswer(_label_map(model, one)) for place, one in zip(places, maps, strict=True)})
    return [found[place] for place in range(len(images))]


def classify_by_words(model: PublishedModel, images: Sequence[Pixels], prompts: LabelPrompts) -> list[RawAnswer]:
    """The probability of a label: softmax over how well the image fits each sentence; the mean over templates. SigLIP,
    which scores each sentence by itself, is read in the same way, for one label per image is asked for."""
    import torch

    words = sentence_tokens(model, prompts)
    found: dict[int, RawAnswer] = {}
    for places in batches([1] * len(images), _BATCH):
        pixels = model.processor(images=[as_image(images[place]) for place in places], return_tensors="pt")
        shares = torch.stack([
            forward(model, {**each, **pixels}).logits_per_image.float().softmax(-1) for each in words
        ]).mean(0)  # fmt: skip
        for place, row in zip(places, shares.tolist(), strict=True):
            probabilities = dict(zip(prompts.labels, row, strict=True))
            found[place] = RawAnswer(max(probabilities, key=lambda label: probabilities[label]), probabilities)
    return [found[place] for place in range(len(images))]


def forward(model: PublishedModel, inputs: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.module(**inputs)


def as_image(pixels: Any) -> Any:
    """(H, W) or (H, W, 3) uint8 -> an RGB image of Pillow: of small arrays the axes could be mistaken."""
    from PIL import Image

    if not (isinstance(pixels, np.ndarray) and pixels.ndim in (2, 3)):
        raise ValueError("the example is no image")
    return Image.fromarray(pixels).convert("RGB")


def read_frames(model: PublishedModel, clip: Mapping[str, Any]) -> list[Any]:
    """As many frames of the clip as the model reads, evenly spaced."""
    count = int(getattr(model.config, "num_frames", None) or getattr(model.config, "frames_per_clip", None) or 16)
    if not isinstance(clip, Mapping) or "frames" not in clip:
        raise ValueError("the example is no video")
    frames = clip["frames"]
    places = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return [as_image(frames[place]) for place in places]


def alike(images: Sequence[Pixels]) -> Iterator[list[int]]:
    """Places of images of one size, at most a batch each."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        by_size.setdefault(image.shape[:2], []).append(place)
    for places in by_size.values():
        for start in range(0, len(places), _BATCH):
            yield places[start : start + _BATCH]


def _objects(model: PublishedModel, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    labels = model.labels
    codes, scores = found["labels"].tolist(), found["scores"].tolist()
    best = sorted(range(len(scores)), key=lambda place: -scores[place])
    kept = [place for place in best if codes[place] < len(labels)][:MOST_BOXES]
    corners = found["boxes"].tolist()
    return [
        {"label": labels[codes[place]], "score": scores[place], "box": _corner_and_size(corners[place])}
        for place in kept
    ]


def _corner_and_size(corners: Sequence[float]) -> list[float]:
    left, top, right, bottom = corners
    return [left, top, right - left, bottom - top]


def _label_map(model: PublishedModel, found: Any) -> dict[str, Any]:
    codes = found.cpu().numpy().astype(np.int64)
    names = [model.labels[code] if 0 <= code < len(model.labels) else BACKGROUND for code in np.unique(codes)]
    shown = sorted({name for name in names if name.lower() != BACKGROUND})
    if len(shown) > MOST_LABELS:
        raise ValueError(f"{len(shown)} labels in one image are more than {MOST_LABELS}")
    place = {name: number for number, name in enumerate(shown, 1)}
    pixels = np.zeros(codes.shape, np.uint8)
    for code, name in zip(np.unique(codes), names, strict=True):
        pixels[codes == code] = place.get(name, 0)
    return {"labels": shown, "size": list(pixels.shape), "rle": to_runs(pixels)}
