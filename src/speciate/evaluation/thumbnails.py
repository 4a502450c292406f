"""What examples look like, each in a picture of its own or all on one numbered sheet. Runs in a service process.

Media are foreign bytes: they are decoded here, in the cage, and leave it as small PNGs.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.look.contact_sheet import sheet
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.modalities.contract import Pixels
from speciate.workspace.workspace import Folders


def one_by_one(payload: dict[str, Any]) -> dict[str, Any]:
    """`{root, manifest, ids}` -> `{pictures: {id: base64 of a PNG}}`, of those that are there."""
    manifest, examples = _loaded(payload)
    return {"pictures": {example.id: _encoded(_png(_drawn(manifest, example))) for example in examples}}


def numbered(payload: dict[str, Any]) -> dict[str, Any]:
    """`{root, manifest, ids, captions}` -> `{png}`: base64, a sheet in the order of the ids, each with its caption."""
    manifest, examples = _loaded(payload)
    captions = dict(zip(payload["ids"], payload["captions"], strict=True))
    ordered = sorted(examples, key=lambda example: payload["ids"].index(example.id))
    drawn = [_drawn(manifest, example) for example in ordered]
    side = find(manifest.modality).thumbnail_side
    return {"png": _encoded(sheet(drawn, [captions[example.id] for example in ordered], side))}


def _loaded(payload: dict[str, Any]) -> tuple[Manifest, list[Example]]:
    manifest = Manifest.model_validate(payload["manifest"])
    return manifest, load_examples(Folders(Path(payload["root"])), manifest, ids=payload["ids"], caged=True)


def _drawn(manifest: Manifest, example: Example) -> Pixels:
    return find(manifest.modality).thumbnail(example.media)


def _png(picture: Pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
