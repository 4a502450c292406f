"""Thumbnails of examples in one picture; runs in a service process."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.modalities.contract import THUMBNAIL, Modality, Pixels
from speciate.modalities.scans.label_maps import MASK, mask_of
from speciate.modalities.scans.volumes import drawn, is_volume
from speciate.workspace.workspace import Folders

_CAPTION, _GAP = 14, 6
_WIDEST = 1002
"""Pixels of a sheet."""


def draw_thumbnails(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {root, manifest, ids} -> {png: base64}, in the order of the ids."""
    manifest = Manifest.model_validate(payload["manifest"])
    loaded = load_examples(Folders(Path(payload["root"])), manifest, ids=payload["ids"], caged=True)
    examples = sorted(loaded, key=lambda example: payload["ids"].index(example.id))
    kind = find(manifest.modality)
    captions = [str(example.label or "") for example in examples]
    png = sheet([_picture(kind, example) for example in examples], captions, kind.thumbnail_side)
    return {"png": base64.b64encode(png).decode()}


def _picture(kind: Modality[Any], example: Example) -> Pixels:
    """Volumes with their mask, where they have one that fits."""
    if is_volume(example.media) and (cell := example.columns.get(MASK)):
        try:
            labels = mask_of(cell).pixels
        except ValueError:
            labels = None
        if labels is not None and labels.shape == example.media["voxels"].shape:
            return drawn(example.media, labels)
    return kind.thumbnail(example.media)


def sheet(pictures: Sequence[Pixels], captions: Sequence[str], side: int = THUMBNAIL) -> bytes:
    """PNG of a grid of pictures (H, W, 3), each at most `side` pixels a side, with a caption below."""
    from PIL import Image, ImageDraw

    width, height = side + _GAP, side + _GAP + _CAPTION
    columns = min(_WIDEST // width, math.ceil(math.sqrt(len(pictures) * 1.5)))
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "#d0d0d0")
    draw = ImageDraw.Draw(canvas)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = place % columns * width + _GAP, place // columns * height + _GAP
        canvas.paste(Image.fromarray(np.ascontiguousarray(picture)), (x, y))
        shown = "".join(c for c in caption if c.isprintable())[:26]
        draw.text((x + 2, y + side), shown.encode("latin-1", "replace").decode("latin-1"), fill="black")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
