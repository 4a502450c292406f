"""Thumbnails of examples, each an image of its own or all on one contact sheet. Runs in a service process.

Media are foreign bytes: they are decoded here, in the sandbox, and leave it as small PNGs.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from pydantic import BaseModel, ConfigDict

from speciate.datasets.inspect.contact_sheet import draw_grid, draw_thumbnail
from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import Manifest
from speciate.jobs.pool import ImageAnswer
from speciate.modalities import find
from speciate.modalities.contract import Pixels
from speciate.workspace.workspace import Folders

_CELL, _DECODED = 240, 6
"""Pixels of a square at most: the room that a page has for it, on a fine screen."""
_QUICK = 2
"""Level of compression: a third of the time of the usual one, for a tenth more bytes."""


class ThumbnailRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    root: Path
    """Root folder of the workspace."""
    manifest: Manifest
    ids: tuple[str, ...]
    captions: tuple[str, ...] = ()
    """Captions on a sheet, one per id."""


class CellsRequest(ThumbnailRequest):
    columns: int
    """Squares in a row."""


class Thumbnails(TypedDict):
    pictures: dict[str, str]
    """Id -> a PNG in base64."""


def draw_each(payload: Mapping[str, object]) -> Thumbnails:
    """The service, of the examples that still exist. `payload`: a ThumbnailRequest."""
    request = ThumbnailRequest.model_validate(payload)
    return {"pictures": {example.id: _encoded(_png(_draw(request, example))) for example in _load(request)}}


def draw_sheet(payload: Mapping[str, object]) -> ImageAnswer:
    """The service: a sheet in the order of the ids, each with its caption. `payload`: a ThumbnailRequest."""
    request = ThumbnailRequest.model_validate(payload)
    captions = dict(zip(request.ids, request.captions, strict=True))
    ordered = sorted(_load(request), key=lambda example: request.ids.index(example.id))
    images = [_draw(request, example) for example in ordered]
    side = find(request.manifest.modality).thumbnail_side
    return {"png": _encoded(draw_grid(images, [captions[example.id] for example in ordered], side))}


def draw_cells(payload: Mapping[str, object]) -> ImageAnswer:
    """The service: each thumbnail in the middle of a square, in the order of the ids; what it does not fill, and the
    square of an example that is gone, is transparent. `payload`: a CellsRequest."""
    from PIL import Image

    request = CellsRequest.model_validate(payload)
    kind, columns = find(request.manifest.modality), request.columns
    side = min(kind.thumbnail_side, _CELL)
    sheet = Image.new("RGBA", (columns * side, -(-len(request.ids) // columns) * side))
    for example in _few_by_few(request):
        place = request.ids.index(example.id)
        drawn = Image.fromarray(draw_thumbnail(kind, example))
        drawn.thumbnail((side, side))
        left, top = (side - drawn.width) // 2, (side - drawn.height) // 2
        sheet.paste(drawn, (place % columns * side + left, place // columns * side + top))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=_QUICK)
    return {"png": _encoded(buffer.getvalue())}


def _few_by_few(request: CellsRequest) -> Iterator[Example]:
    """Examples of a sheet, of which few are decoded at once: a medium may have 64 megapixels."""
    for start in range(0, len(request.ids), _DECODED):
        yield from _load(request.model_copy(update={"ids": request.ids[start : start + _DECODED]}))


def _load(request: ThumbnailRequest) -> list[Example]:
    return load_examples(Folders(request.root), request.manifest, ids=request.ids, in_sandbox=True)


def _draw(request: ThumbnailRequest, example: Example) -> Pixels:
    return find(request.manifest.modality).thumbnail(example.media)


def _png(image: Pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
