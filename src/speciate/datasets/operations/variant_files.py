"""The part of `variants` that meets foreign files: in a caged process it decodes each, changes it, writes it anew and
judges the result as an ingest would. What it writes is what models see: pictures as PNG, sounds as FLAC in 16 bits."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from speciate.datasets.intake.judging import judge_bytes
from speciate.datasets.loading.decoding import kept_reader
from speciate.datasets.operations.transforms import Medium, changed
from speciate.modalities import find
from speciate.modalities.contract import DecodeError
from speciate.modalities.sound.mel import SAMPLE_RATE


def rewrite(payload: dict[str, Any]) -> dict[str, Any]:
    """The service (loading/rewriting.py): {packs, contents, modality, kinds, chance} -> {file, items}.

    Chance is of `chance` and a file's content alone: neither the order nor other files play a part.
    """
    name, path, items = str(payload["modality"]), Path.cwd() / "variants", list[dict[str, Any]]()
    modality, reader = find(name), kept_reader(tuple(payload["packs"]))
    with path.open("wb") as file:
        for content in payload["contents"]:
            seed = hashlib.sha256(f"{payload['chance']} {content}".encode()).digest()[:8]
            chance = np.random.default_rng(int.from_bytes(seed))
            try:
                medium = changed(name, payload["kinds"], modality.decode(reader.get(content)), chance)
            except DecodeError as error:
                items.append({"length": None, "reason": error.detail})
                continue
            written = _written(name, medium)
            file.write(written)
            items.append({"length": len(written), "verdict": list(judge_bytes(modality, written, as_is=True))})
    return {"file": path.name, "items": items}


def _written(modality: str, medium: Medium) -> bytes:
    out = io.BytesIO()
    if modality == "image":
        from PIL import Image

        Image.fromarray(medium).save(out, "PNG")
    else:
        import soundfile

        soundfile.write(out, medium, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return out.getvalue()
