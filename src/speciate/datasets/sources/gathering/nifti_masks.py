"""Masks of scans, NIfTI themselves, as cells of a column `mask` (see `label_maps`), read in caged processes.

A mask is used where it has the size and the spacing of its scan and holds whole numbers. What they stand for is said by
`dataset.json` beside the folders (Medical Segmentation Decathlon, nnU-Net); where nothing says it, they are the names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from speciate.datasets.sources.listing import Listing, SourceFile
from speciate.datasets.sources.unpacking import Desk
from speciate.datasets.sources.walk import SetAside
from speciate.errors import SpeciateError
from speciate.modalities.bundles import bundle
from speciate.modalities.contract import DecodeError
from speciate.modalities.scans.label_maps import MASK, MOST_LABELS, Labels, mask_cell
from speciate.modalities.scans.nifti import NIFTI
from speciate.modalities.scans.volumes import Volume

_CARD = "dataset.json"
_SERVICE = "speciate.datasets.sources.gathering.nifti_masks:read_mask"
_SECONDS = 120.0
_LONGEST_CARD, _LONGEST_FILE, _HEAD = 4 << 20, 1 << 30, 1 << 16  # bytes
_GREATEST = 65_535  # value of a mask
_TOLERANCE = 0.01  # of the spacing


class _Read(NamedTuple):
    """One of them is None."""

    cell: str | None
    reason: str | None


def with_masks(found: Listing, masks: Mapping[str, SourceFile], desk: Desk) -> Listing:
    """The listing with the column, where there are masks; those that do not fit their scan are set aside."""
    if not masks:
        return found
    scans = [file for file in found.files if file.name in masks]
    with ThreadPoolExecutor(desk.pool.size) as threads:
        read = threads.map(lambda scan: _ask(found, scan, masks[scan.name], desk), scans)
        by_name = dict(zip((scan.name for scan in scans), read, strict=True))
    aside = [SetAside(masks[name].name, each.reason) for name, each in by_name.items() if each.reason is not None]
    cells = [by_name[file.name].cell if file.name in by_name else None for file in found.files]
    column = pa.table({MASK: pa.array(cells, pa.string())})
    note = f"{len(scans) - len(aside):,} masks were read into the column {MASK!r}."
    return found._replace(labels=column, set_aside=[*found.set_aside, *aside], notes=(*found.notes, note))


def _ask(found: Listing, scan: SourceFile, mask: SourceFile, desk: Desk) -> _Read:
    payload = {"scan": _named(scan), "mask": _named(mask), "card": _card(found, mask)}
    try:
        return _Read(**desk.pool.ask(_SERVICE, payload, _SECONDS, readable=found.readable))
    except SpeciateError as error:
        return _Read(None, f"A mask that cannot be read: {error.message}")


def _named(file: SourceFile) -> list[tuple[str, str]]:
    return [(name, str(path)) for name, path in file.parts or ((file.path.name, file.path),)]


def _card(found: Listing, mask: SourceFile) -> str | None:
    """Beside the folder of the masks."""
    path = mask.path.parent.parent / _CARD
    return str(path) if any(path.is_relative_to(root) for root in found.readable) and path.is_file() else None


# In the caged process


def read_mask(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {scan, mask: [[name, path]], card} -> {cell, reason}."""
    try:
        header = NIFTI.inspect(_bytes(payload["scan"], _HEAD))
        volume = NIFTI.decode(_bytes(payload["mask"], _LONGEST_FILE))
        spacing = [header.fields[f"spacing_{axis}_mm"] for axis in "zyx"]
        size = [header.fields[name] for name in ("slices", "rows", "columns")]
        if list(volume["voxels"].shape) != size or not np.allclose(volume["spacing"], spacing, rtol=_TOLERANCE):
            raise DecodeError("error", f"it has {_shape(volume)}, and its scan {_sizes(size, spacing)}")
        labels, names = coded(volume, _names(payload["card"]))
        return {"cell": mask_cell(labels, names), "reason": None}
    except DecodeError as error:
        return {"cell": None, "reason": f"A mask that is not used: {str(error).rstrip('.')}."}


def coded(volume: Volume, names: Mapping[int, str]) -> tuple[Labels, list[str]]:
    """Values as places of labels. DecodeError where they are no whole numbers, are negative or too many."""
    voxels = volume["voxels"]
    if voxels.min() < 0 or voxels.max() > _GREATEST or ((values := voxels.astype(np.uint16)) != voxels).any():
        raise DecodeError("error", f"its values are not whole numbers from 0 to {_GREATEST:,}")
    shown = sorted({value for plane in values for value in np.unique(plane).tolist() if value})
    if len(shown) > MOST_LABELS:
        raise DecodeError("error", f"it has {len(shown):,} labels, more than {MOST_LABELS}")
    codes = np.zeros(_GREATEST + 1, np.uint8)
    codes[shown] = np.arange(1, len(shown) + 1)
    return codes[values], [names.get(value, str(value)) for value in shown]


def label_names(card: Any) -> dict[int, str]:
    """Of what dataset.json says: `{"1": "liver"}` (MSD), `{"liver": 1}` (nnU-Net); nothing where it says neither."""
    labels = card.get("labels") if isinstance(card, dict) else None
    return dict(_pairs(labels)) if isinstance(labels, dict) else {}


def _pairs(labels: dict[str, Any]) -> Iterator[tuple[int, str]]:
    for key, value in labels.items():
        number, name = (value, key) if isinstance(value, int) else (key, value)
        if isinstance(name, str) and name.strip() and str(number).isdecimal():
            yield int(number), name.strip()[:64]


def _names(card: str | None) -> dict[int, str]:
    if card is None:
        return {}
    try:
        with Path(card).open("rb") as file:
            return label_names(json.loads(file.read(_LONGEST_CARD)))
    except (OSError, ValueError, RecursionError):
        return {}


def _bytes(files: list[tuple[str, str]], most: int) -> bytes:
    """Of one file, or the bundle of a pair; the first `most` of each."""
    read = {name: _first(Path(path), most) for name, path in files}
    return bundle(read) if len(read) > 1 else next(iter(read.values()))


def _first(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise DecodeError("error", f"{path.name!r} cannot be read: {error.strerror}") from error


def _shape(volume: Volume) -> str:
    return _sizes(volume["voxels"].shape, volume["spacing"].tolist())


def _sizes(size: Any, spacing: Any) -> str:
    lengths = " x ".join(f"{float(side):.4g}" for side in spacing)
    return f"{' x '.join(map(str, size))} voxels of {lengths} mm"
