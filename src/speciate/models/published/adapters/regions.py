"""Published models of things in images: masks of each thing, and boxes of what words name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from speciate.modalities.segmentation_masks import MOST_LABELS, to_runs
from speciate.models.published.adapters.images import LEAST_SCORE, MOST_BOXES, Pixels, alike, as_image, forward
from speciate.models.published.adapters.text import fill
from speciate.models.published.published_model import LabelPrompts, PublishedModel, RawAnswer, batches

_BATCH = 8
_SENTENCE_TOKENS = 16
"""Most tokens of a sentence for OWL-ViT, which was trained on sentences of that length."""


def segment_things(model: PublishedModel, images: Sequence[Pixels]) -> list[RawAnswer]:
    """`{labels, size, rle}`: a map of labels in which each segment has an entry of its own, so a label may stand there
    several times. By the publisher's own post-processing, in the image's own size."""
    found: dict[int, RawAnswer] = {}
    for places in alike(images):
        part = [images[place] for place in places]
        inputs = model.processor(images=[as_image(each) for each in part], return_tensors="pt")
        made = model.processor.post_process_panoptic_segmentation(
            forward(model, inputs), target_sizes=[each.shape[:2] for each in part]
        )
        found.update({
            place: RawAnswer(segment_map(model.labels, one["segmentation"], one["segments_info"]))
            for place, one in zip(places, made, strict=True)
        })  # fmt: skip
    return [found[place] for place in range(len(images))]


def segment_map(labels: Sequence[str], codes: Any, segments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`codes`: (H, W) of segments, by their ids. The best ones stand first; what has no pixel is left out."""
    pixels = codes.cpu().numpy().astype(np.int64)
    best_first = sorted(segments, key=lambda each: -float(each["score"]))
    shown = [each for each in best_first if (pixels == each["id"]).any() and each["label_id"] < len(labels)]
    made = np.zeros(pixels.shape, np.uint8)
    for place, each in enumerate(shown[:MOST_LABELS], 1):
        made[pixels == each["id"]] = place
    names = [labels[each["label_id"]] for each in shown[:MOST_LABELS]]
    return {"labels": names, "size": list(made.shape), "rle": to_runs(made)}


def detect_by_words(model: PublishedModel, images: Sequence[Pixels], prompts: LabelPrompts) -> list[RawAnswer]:
    """Boxes as of any detector: a box has the label whose sentence fits it best; of several templates the mean counts,
    as the boxes themselves depend on the image alone."""
    words = [
        model.tokenizer(
            [fill(template, label) for label in prompts.labels], padding="max_length", truncation=True,
            max_length=sentence_tokens(model), return_tensors="pt",
        )
        for template in prompts.templates
    ]  # fmt: skip
    for each in words:
        each.pop("token_type_ids", None)
    found: dict[int, RawAnswer] = {}
    for places in batches([1] * len(images), _BATCH):
        part = [images[place] for place in places]
        pixels = model.processor(images=[as_image(each) for each in part], return_tensors="pt")["pixel_values"]
        outputs = [forward(model, {**_repeated(each, len(part)), "pixel_values": pixels}) for each in words]
        mean = sum(each.logits for each in outputs) / len(outputs)
        outputs[0].logits = mean
        sizes = [each.shape[:2] for each in part]
        made = model.processor.post_process_object_detection(outputs[0], threshold=LEAST_SCORE, target_sizes=sizes)
        found.update({place: RawAnswer(_objects(prompts.labels, one)) for place, one in zip(places, made, strict=True)})
    return [found[place] for place in range(len(images))]


def sentence_tokens(model: PublishedModel) -> int:
    text = getattr(model.config, "text_config", model.config)
    return min(_SENTENCE_TOKENS, int(getattr(text, "max_position_embeddings", _SENTENCE_TOKENS)))


def _repeated(words: Any, count: int) -> dict[str, Any]:
    """(sentences, tokens) -> (count * sentences, tokens), image by image."""
    return {name: each.repeat(count, 1) for name, each in words.items()}


def _objects(labels: Sequence[str], found: Any) -> list[dict[str, Any]]:
    codes, scores, corners = (found[name].tolist() for name in ("labels", "scores", "boxes"))
    best = sorted(range(len(scores)), key=lambda place: -scores[place])[:MOST_BOXES]
    return [
        {
            "label": labels[codes[place]],
            "score": scores[place],
            "box": [
                corners[place][0], corners[place][1], corners[place][2] - corners[place][0],
                corners[place][3] - corners[place][1],
            ],
        }
        for place in best
    ]  # fmt: skip
