"""Weights that come as Python packages (models/packaged.py)."""

from __future__ import annotations

from collections.abc import Iterator

from speciate.models.packaged import PACKAGED
from speciate.models.sources.contract import Entry


class Packages:
    name, what, package = "pkg", "weights that come as Python packages", None

    def installed(self) -> bool:
        return True

    def origin(self) -> str:
        return "speciate"

    def entries(self) -> Iterator[Entry]:
        for name, each in sorted(PACKAGED.items()):
            yield Entry(
                ref=f"pkg:{name}",
                what=f"{name} {each.what}",
                access="weights",
                tasks=(each.task,),
                modalities=(each.modality,),
                parameters=each.parameters,
                license=each.license,
                format="safetensors",
            )


SOURCE = Packages()
