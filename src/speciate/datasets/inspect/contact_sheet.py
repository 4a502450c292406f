"""Contact sheet: thumbnails of some examples of a version in one image.

`draw_thumbnails` runs in a service process, all else in the daemon. Excluded examples come on request: one that decodes
is drawn in a coloured frame; for another a card gives the reason.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from speciate.datasets.inspect.query import Page, query
from speciate.datasets.loading.loader import Example, load_examples, load_excluded
from speciate.datasets.readers.coco import OBJECTS
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.pool import CALL_SECONDS, Busy, ImageAnswer, Pool, ServiceAnswer
from speciate.modalities import find
from speciate.modalities.contract import THUMBNAIL, Modality, Pixels
from speciate.modalities.drawing import draw_boxes, text_card
from speciate.modalities.medical.volumes import draw_planes, is_volume
from speciate.modalities.segmentation_masks import MASK, mask_of
from speciate.workspace.workspace import Folders

_SHOWN, _QUALITY = ("id", "label", "split", "group_key", "source"), ("quality", "reason")
_ASKS_FOR_QUALITY = re.compile(r"\b(quality|reason)\b", re.IGNORECASE)
_SERVICE = "speciate.datasets.inspect.contact_sheet:draw_thumbnails"
_LONGEST_ANSWER = 300
"""Characters of a cell of `answers`: 36 examples with two each still make one result; query_dataset shows more."""
_CAPTION, _GAP = 14, 6
_FRAME, _EXCLUDED = 3, (200, 60, 40)
"""Pixels and colour of the frame around an excluded example."""
_WIDEST = 1002
"""Pixels of a sheet."""


class SheetRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path
    manifest: Manifest
    ids: tuple[str, ...]
    excluded: dict[str, str] = {}
    """Id of an excluded example -> the reason; empty if unknown."""


class ContactSheet(NamedTuple):
    """`png`: at most 1,024 pixels wide; `rows` in reading order, foreign text."""

    png: bytes
    columns: list[str]
    rows: list[list[Any]]


def ask_for_contact_sheet(
    pool: Pool,
    folders: Folders,
    manifest: Manifest,
    *,
    where: str | None = None,
    ids: Sequence[str] | None = None,
    split: str | None = None,
    count: int = 12,
    answers: Sequence[str] = (),
) -> ContactSheet:
    """The first `count` usable examples that fulfil a condition, or all named ones, in that order.

    `answers`: columns of the version that the rows also show. Excluded examples are shown if they are named, if the
    condition uses `quality` or `reason`, or if nothing usable fits; the rows then give the quality and the reason.
    INVALID if nothing fits, NOT_FOUND if a named example is not among them.
    """
    condition = f"({where}\n)" if where else "true"
    if ids is not None:
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in ids)
        condition += f" AND id IN ({listed})"
    limit = count if ids is None else len(set(ids))

    quoted = ('"' + name.replace('"', '""') + '"' for name in answers)
    chosen = ", ".join((*_SHOWN, *quoted, *_QUALITY))

    def ask(condition: str) -> Page:
        sql = f"SELECT {chosen} FROM examples WHERE {condition} ORDER BY id"
        return query(pool, folders, manifest, sql=sql, split=split, limit=limit, whole=True)

    any_quality = ids is not None or _ASKS_FOR_QUALITY.search(where or "")
    page = ask(condition if any_quality else f"quality = 'ok' AND {condition}")
    if not page.rows:
        page = ask(condition)
    if not page.rows:
        raise SpeciateError(
            Code.INVALID,
            f"No example of {manifest.ref} fits, so there is nothing to show.",
            next=[Call("query_dataset", {"dataset": manifest.ref}, "to see what there is")],
        )
    rows = page.rows if ids is None else _in_requested_order(page.rows, ids, manifest)
    excluded = {row[0]: row[-1] or "" for row in rows if row[-2] != "ok"}
    request = SheetRequest(root=folders.root, manifest=manifest, ids=tuple(row[0] for row in rows), excluded=excluded)
    answer = _ask_to_draw(pool, request, named=ids is not None)
    first, known = len(_SHOWN), len(_SHOWN) + len(answers)
    width = len(page.columns) if excluded else known
    cells = [[*row[:first], *map(_shorten_cell, row[first:known]), *row[known:width]] for row in rows]
    return ContactSheet(base64.b64decode(answer["png"]), page.columns[:width], cells)


def _shorten_cell(cell: Any) -> Any:
    """A text, or a conversation as JSON; a long one is cut and ends with an ellipsis."""
    text = json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
    return text[:_LONGEST_ANSWER] + "…" if isinstance(text, str) and len(text) > _LONGEST_ANSWER else text


def _ask_to_draw(pool: Pool, request: SheetRequest, *, named: bool) -> ServiceAnswer:
    """The service's answer. If it takes too long, raises the call with a third of the examples."""
    try:
        return pool.ask(_SERVICE, request.model_dump(mode="json"), patience=CALL_SECONDS)
    except SpeciateError as error:
        if error.code is not Code.UNAVAILABLE or isinstance(error, Busy):
            raise
        chosen, dataset = list(request.ids), request.manifest.ref
        fewer = len(chosen) // 3 or len(chosen) // 2
        less = f"ids={chosen[:fewer]!r}" if named else f"count={fewer}"
        recovery = (
            f"Call preview_dataset(dataset={dataset!r}, {less}), else as before."
            if fewer
            else f"Call query_dataset(dataset={dataset!r}) for its row without an image."
        )
        raise SpeciateError(
            error.code,
            f"{len(chosen)} examples are too many for one image. {error.message}" if fewer else error.message,
            recovery,
            error.foreign,
        ) from error


def _in_requested_order(rows: list[list[Any]], ids: Sequence[str], manifest: Manifest) -> list[list[Any]]:
    by_id = {row[0]: row for row in rows}
    missing = [name for name in dict.fromkeys(ids) if name not in by_id]
    if missing:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{len(missing)} of the ids are not in {manifest.ref}, such as {missing[0][:64]!r}.",
            next=[Call("query_dataset", {"dataset": manifest.ref}, "for ids")],
        )
    return [by_id[name] for name in dict.fromkeys(ids)]


def draw_thumbnails(payload: Mapping[str, object]) -> ImageAnswer:
    """The service, in the order of the ids. `payload`: a SheetRequest."""
    request = SheetRequest.model_validate(payload)
    manifest, excluded = request.manifest, request.excluded
    kind, folders = find(manifest.modality), Folders(request.root)
    usable = [name for name in request.ids if name not in excluded]
    tiles = {
        example.id: (draw_thumbnail(kind, example), _caption(example))
        for example in load_examples(folders, manifest, ids=usable, in_sandbox=True)
    }
    for example, why in load_excluded(folders, manifest, [*excluded]):
        image = (
            text_card(f"Cannot be shown. {excluded[example.id] or why}")
            if why is not None
            else _frame(draw_thumbnail(kind, example))
        )
        tiles[example.id] = image, " ".join(filter(None, ("(excluded)", _caption(example))))
    images, captions = zip(*(tiles[name] for name in request.ids), strict=True)
    return {"png": base64.b64encode(draw_grid(images, captions, kind.thumbnail_side)).decode()}


def _frame(image: Pixels) -> Pixels:
    framed = image.copy()
    framed[:_FRAME] = framed[-_FRAME:] = _EXCLUDED
    framed[:, :_FRAME] = framed[:, -_FRAME:] = _EXCLUDED
    return framed


def draw_thumbnail(kind: Modality[Any], example: Example) -> Pixels:
    """Volumes are drawn with their mask, if they have one that fits, and images with their boxes."""
    if is_volume(example.media) and (cell := example.columns.get(MASK)):
        try:
            labels = mask_of(cell).pixels
        except ValueError:
            labels = None
        if labels is not None and labels.shape == example.media["voxels"].shape:
            return draw_planes(example.media, labels)
    image = kind.thumbnail(example.media)
    if kind.name == "image" and (objects := _objects(example)):
        size = example.media.shape[1], example.media.shape[0]
        return draw_boxes(image, size, [(str(each.get("category", "")), each["bbox"]) for each in objects])
    return image


def _objects(example: Example) -> list[Mapping[str, Any]]:
    """The objects with a box of an image, as the COCO reader makes them."""
    cell = example.columns.get(OBJECTS)
    found = [each for each in cell if isinstance(each, dict)] if isinstance(cell, list) else []
    return [each for each in found if _is_box(each.get("bbox"))]


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(side, int | float) for side in value)


def _caption(example: Example) -> str:
    """The label; without one, how many objects of each category there are."""
    if example.label is not None:
        return str(example.label)
    counts = Counter(str(each.get("category", "")) for each in _objects(example))
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def draw_grid(images: Sequence[Pixels], captions: Sequence[str], side: int = THUMBNAIL) -> bytes:
    """PNG of a grid of images (H, W, 3), each at most `side` pixels a side, with a caption below."""
    from PIL import Image, ImageDraw

    width, height = side + _GAP, side + _GAP + _CAPTION
    columns = min(_WIDEST // width, math.ceil(math.sqrt(len(images) * 1.5)))
    rows = math.ceil(len(images) / columns)
    canvas = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "#d0d0d0")
    draw = ImageDraw.Draw(canvas)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = place % columns * width + _GAP, place // columns * height + _GAP
        canvas.paste(Image.fromarray(np.ascontiguousarray(image)), (x, y))
        shown = "".join(c for c in caption if c.isprintable())[:26]
        draw.text((x + 2, y + side), shown.encode("latin-1", "replace").decode("latin-1"), fill="black")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()
