"""Published models that tell how far away each pixel is: a distance, or nearness up to an unknown scale and shift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speciate.modalities.depth_maps import to_map
from speciate.modalities.segmentation_masks import resize_labels
from speciate.models.published.adapters.images import Pixels, alike, as_image, forward
from speciate.models.published.published_model import PublishedModel, RawAnswer

LONGEST_SIDE = 256
"""Pixels of an answer's longest side; of a larger map places are taken evenly."""


def estimate(model: PublishedModel, images: Sequence[Pixels]) -> list[RawAnswer]:
    """A depth map for each image (modalities/depth_maps.py), in the proportions of the image."""
    found: dict[int, RawAnswer] = {}
    relative = model.head.relative
    for places in alike(images):
        part = [images[place] for place in places]
        inputs = model.processor(images=[as_image(each) for each in part], return_tensors="pt")
        maps = depths_of(model, forward(model, inputs), [each.shape[:2] for each in part])
        for place, one in zip(places, maps, strict=True):
            values = one.float().cpu().numpy()
            shrunk = min(1.0, LONGEST_SIDE / max(values.shape))
            size = [max(1, round(side * shrunk)) for side in values.shape]
            found[place] = RawAnswer({**to_map(resize_labels(values, size)), "relative": relative})
    return [found[place] for place in range(len(images))]


def depths_of(model: PublishedModel, outputs: Any, sizes: Sequence[tuple[int, ...]]) -> list[Any]:
    """(H, W) of each, in the size that is asked for, by the publisher's own post-processing."""
    options: dict[str, Any] = {"target_sizes": [tuple(size) for size in sizes]}
    if model.head.model_type == "zoedepth":
        options = {"source_sizes": options["target_sizes"]}
    made = model.processor.post_process_depth_estimation(outputs, **options)
    return [each["predicted_depth"].squeeze() for each in made]
