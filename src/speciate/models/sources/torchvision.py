"""Weights of torchvision, with the figures that it publishes beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from speciate.models.sources.contract import Entry, Figure, Packaged

_TASKS = {
    "classification": ("image-classification", "image"),
    "detection": ("object-detection", "image"),
    "segmentation": ("image-segmentation", "image"),
    "video": ("video-classification", "video"),
}
"""By the package below torchvision.models."""


class Torchvision(Packaged):
    name, what, package = "torchvision", "weights of torchvision with their published metrics", "torchvision"

    def entries(self) -> Iterator[Entry]:
        from torchvision.models import get_model_weights, list_models

        for name in sorted(list_models()):
            for weights in get_model_weights(name):
                yield _entry(name, weights)


def _entry(name: str, weights: Any) -> Entry:
    meta = weights.meta
    family = type(weights).__module__.removeprefix("torchvision.models.").partition(".")[0]
    task, modality = _TASKS.get(
        family, _TASKS["classification"] if family not in ("optical_flow",) else (None, "video")
    )
    figures = [
        Figure(benchmark=benchmark, metric=metric, value=value)
        for benchmark, values in sorted(meta.get("_metrics", {}).items())
        for metric, value in sorted(values.items())
        if math.isfinite(value)
    ]
    return Entry(
        ref=f"torchvision:{name}.{weights.name}",
        what=f"{name} {weights.name} {meta.get('recipe', '')} {' '.join(str(meta.get('_docs', '')).split())}".strip(),
        access="weights",
        tasks=(task,) if task else (),
        modalities=(modality,),
        parameters=meta.get("num_params"),
        published=tuple(figures),
        format="pickle",
        bytes=round(meta["_file_size"] * 2**20) if "_file_size" in meta else None,
        gflops=meta.get("_ops"),
    )


SOURCE = Torchvision()
