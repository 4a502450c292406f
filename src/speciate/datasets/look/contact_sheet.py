"""Thumbnails of examples in one picture; runs in a service process.

Rows that were set aside come too where they are asked for: what decodes is drawn in a frame that says so, for what does
not a card says why.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example, load_examples, load_set_aside
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.modalities.contract import THUMBNAIL, Modality, Pixels
from speciate.modalities.drawing import text_card
from speciate.modalities.scans.label_maps import MASK, mask_of
from speciate.modalities.scans.volumes import drawn, is_volume
from speciate.workspace.workspace import Folders

_CAPTION, _GAP = 14, 6
_FRAME, _ASIDE = 3, (200, 60, 40)
"""Pixels and colour of the frame around what was set aside."""
_WIDEST = 1002
"""Pixels of a sheet."""


def draw_thumbnails(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {root, manifest, ids, aside: {id: why it was set aside}} -> {png: base64}, in the order of the
    ids; `aside` only where there are some."""
    manifest, aside = Manifest.model_validate(payload["manifest"]), payload.get("aside", {})
    kind, folders = find(manifest.modality), Folders(Path(payload["root"]))
    usable = [name for name in payload["ids"] if name not in aside]
    tiles = {
        example.id: (_picture(kind, example), str(example.label or ""))
        for example in load_examples(folders, manifest, ids=usable, caged=True)
    }
    for example, why in load_set_aside(folders, manifest, [*aside]):
        picture = (
            text_card(f"Cannot be shown. {aside[example.id] or why}")
            if why is not None
            else _framed(_picture(kind, example))
        )
        tiles[example.id] = picture, " ".join(filter(None, ("(set aside)", str(example.label or ""))))
    pictures, captions = zip(*(tiles[name] for name in payload["ids"]), strict=True)
    return {"png": base64.b64encode(sheet(pictures, captions, kind.thumbnail_side)).decode()}


def _framed(picture: Pixels) -> Pixels:
    framed = picture.copy()
    framed[:_FRAME] = framed[-_FRAME:] = _ASIDE
    framed[:, :_FRAME] = framed[:, -_FRAME:] = _ASIDE
    return framed


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
