"""What examples look like, each in a picture of its own or all on one numbered sheet. Runs in a service process.

Media are foreign bytes: they are decoded here, in the cage, and leave it as small PNGs.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from speciate.datasets.inspect.contact_sheet import draw_grid
from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.modalities.contract import Pixels
from speciate.workspace.workspace import Folders


def draw_each(payload: dict[str, Any]) -> dict[str, Any]:
    """`{root, manifest, ids}` -> `{pictures: {id: base64 of a PNG}}`, of those that are there."""
    manifest, examples = _load(payload)
    return {"pictures": {example.id: _encoded(_png(_draw(manifest, example))) for example in examples}}


def draw_sheet(payload: dict[str, Any]) -> dict[str, Any]:
    """`{root, manifest, ids, captions}` -> `{png}`: base64, a sheet in the order of the ids, each with its caption."""
    manifest, examples = _load(payload)
    captions = dict(zip(payload["ids"], payload["captions"], strict=True))
    ordered = sorted(examples, key=lambda example: payload["ids"].index(example.id))
    drawn = [_draw(manifest, example) for example in ordered]
    side = find(manifest.modality).thumbnail_side
    return {"png": _encoded(draw_grid(drawn, [captions[example.id] for example in ordered], side))}


def _load(payload: dict[str, Any]) -> tuple[Manifest, list[Example]]:
    manifest = Manifest.model_validate(payload["manifest"])
    return manifest, load_examples(Folders(Path(payload["root"])), manifest, ids=payload["ids"], in_sandbox=True)


def _draw(manifest: Manifest, example: Example) -> Pixels:
    return find(manifest.modality).thumbnail(example.media)


def _png(picture: Pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
