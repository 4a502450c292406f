"""From the files at a source to its examples, if one file is not one example: a series of slices, a mesh with its
materials, a recording of a robot over several files.

A gatherer is a function `gather(found, context) -> Listing`, one file each. It looks into foreign files in sandboxed
processes only. It names files that are one example together as `parts` of one SourceFile, or has them written anew
below `context.work`. It excludes files that belong to no example, with the reason, and leaves other files as they are.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from speciate.datasets.gathering import lerobot, meshes
from speciate.datasets.sources.listing import Listing, SourceFile
from speciate.datasets.sources.sandbox_calls import SourceContext

GATHERERS: dict[str, str] = {
    "dicom": "speciate.datasets.gathering.dicom:gather",
    "episode": "speciate.datasets.gathering.lerobot:gather",
    "mesh": "speciate.datasets.gathering.meshes:gather",
    "nifti": "speciate.datasets.gathering.nifti:gather",
}
"""Modality -> "module:function"."""

RECOGNISED: dict[str, Callable[[Sequence[SourceFile]], bool]] = {
    "episode": lerobot.is_lerobot,
    "mesh": meshes.is_meshes,
}
"""Modality -> whether files, by their names alone, are laid out as only sources of that modality are."""


def recognise_modality(files: Sequence[SourceFile]) -> str | None:
    """The modality of a source whose files are not examples one by one; None if names do not tell."""
    return next((modality for modality, is_so in RECOGNISED.items() if is_so(files)), None)


def gather_examples(found: Listing, context: SourceContext) -> Listing:
    """The listing of media with an entry for each example."""
    if found.modality not in GATHERERS:
        return found
    module, _, function = GATHERERS[found.modality].partition(":")
    gathered: Listing = getattr(importlib.import_module(module), function)(found, context)
    return gathered
