"""Embedding models that the benchmark MTEB knows: sizes, licences, dates, languages, what they were adapted from.

Its package tells no scores; those are published elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from speciate.models.licenses import spdx
from speciate.models.sources.contract import Entry, Packaged
from speciate.models.sources.literals import calls, files

_HUB = re.compile(r"[\w.\-]+/[\w.\-]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Mteb(Packaged):
    name, what, package = "mteb", "embedding models for text, images, sound and video", "mteb"

    def entries(self) -> Iterator[Entry]:
        for path in files(self.package, "mteb/models/model_implementations/"):
            for said in calls(path, "ModelMeta"):
                try:
                    entry = _entry(said)
                except ValidationError:
                    continue
                if entry is not None:
                    yield entry


def _entry(said: dict[str, Any]) -> Entry | None:
    name = said.get("name")
    if not isinstance(name, str) or not _HUB.fullmatch(name):
        return None
    served = said.get("open_weights") is False
    frameworks = [str(each) for each in said.get("framework", ())]
    kinds = " ".join(str(each) for each in said.get("model_type", ()))
    released = str(said.get("release_date") or "")
    adapted = said.get("adapted_from")
    tokens = said.get("max_tokens")
    return Entry(
        ref=f"api:{name}" if served else f"hf:{name}",
        what=f"{name} {kinds} embedding {' '.join(frameworks)}",
        access="api" if served else "weights",
        tasks=("feature-extraction",),
        modalities=tuple(str(each) for each in said.get("modalities", ("text",))),
        parameters=said.get("n_parameters") or None,  # 0 is said of baselines that are no network
        license=spdx(said.get("license")),
        context_tokens=int(tokens) if tokens is not None and math.isfinite(tokens) else None,
        released=released if _DATE.fullmatch(released) else None,
        base_model=f"hf:{adapted}" if isinstance(adapted, str) and _HUB.fullmatch(adapted) else None,
        hub=None if served else name,
        revision=said.get("revision"),
        format="safetensors" if "safetensors" in frameworks else None,
        languages=tuple(str(each) for each in said.get("languages", ())),
    )


SOURCE = Mteb()
