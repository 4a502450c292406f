"""Encoders that segmentation_models_pytorch has weights for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from speciate.models.sources.contract import Entry, Packaged
from speciate.models.sources.literals import files

_REPOSITORY = re.compile(r"""["']repo_id["']: ["'](smp-hub/([\w.\-]+?)\.([\w.\-]+))["']""")


class SegmentationModels(Packaged):
    name, package = "segmentation_models", "segmentation_models_pytorch"
    what = "encoders for the segmentation of pictures"

    def entries(self) -> Iterator[Entry]:
        folder = "segmentation_models_pytorch/encoders/"
        text = "\n".join(path.read_text("utf-8") for path in files(self.package, folder))
        for repository, architecture, data in sorted(set(_REPOSITORY.findall(text))):
            yield Entry(
                ref=f"hf:{repository}",
                what=f"{architecture} {data} encoder for segmentation",
                access="weights",
                tasks=("feature-extraction",),
                modalities=("image",),
                hub=repository,
            )


SOURCE = SegmentationModels()
