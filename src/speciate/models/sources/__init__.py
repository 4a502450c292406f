"""The places where models are published: a visible table. Third parties come by entry point."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from speciate.errors import unknown
from speciate.models.sources.contract import Source

SOURCES = {
    "pkg": "speciate.models.sources.packaged:SOURCE",
    "timm": "speciate.models.sources.timm:SOURCE",
    "torchvision": "speciate.models.sources.torchvision:SOURCE",
    "mteb": "speciate.models.sources.mteb:SOURCE",
    "open_clip": "speciate.models.sources.open_clip:SOURCE",
    "segmentation_models": "speciate.models.sources.segmentation_models:SOURCE",
    "transformers": "speciate.models.sources.transformers:SOURCE",
    "prices": "speciate.models.sources.prices:SOURCE",
    "hub": "speciate.models.sources.hub:SOURCE",
}
"""Name -> "module:object". Where several tell the same of a model, the first stands."""
GROUP = "speciate.sources"
"""Entry point group of third parties: name = "module:object"."""


def find(name: str) -> Source:
    """The source of this name, or NOT_FOUND with near names."""
    known = table()
    if name not in known:
        raise unknown("source", name, known, f"Sources are: {', '.join(known)}.")
    module, _, attribute = known[name].partition(":")
    found: Source = getattr(importlib.import_module(module), attribute)
    return found


@cache
def table() -> dict[str, str]:
    """Ours first, which a third party cannot replace."""
    return {**SOURCES, **{p.name: p.value for p in entry_points(group=GROUP) if p.name not in SOURCES}}
