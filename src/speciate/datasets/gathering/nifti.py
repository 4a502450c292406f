"""NIfTI scans as they lie in folders: a .hdr and its .img are one example, and a mask becomes a column of its scan.

Names alone decide, by the layouts of common datasets: `imagesTr/liver_1.nii.gz` with `labelsTr/liver_1.nii.gz` (Medical
Segmentation Decathlon), `imagesTr/liver_1_0000.nii.gz` for the first channel of a case (nnU-Net), `images` and `masks`,
or `scan_seg.nii.gz` beside `scan.nii.gz`. Only the first channel is read.

Masks become cells of a column `mask` (`label_maps`), read in sandboxed processes. A mask is used if it has the size and
the spacing of its scan and holds whole numbers. `dataset.json` beside the folders names its values (Medical
Segmentation Decathlon, nnU-Net); without it the values are the names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa

from speciate.datasets.sources.listing import ExcludedFile, Listing, SourceFile
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.errors import SpeciateError
from speciate.modalities.bundles import bundle
from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.nifti import NIFTI
from speciate.modalities.medical.volumes import Volume
from speciate.modalities.segmentation_masks import MASK, MOST_LABELS, Labels, mask_cell

_SUFFIX = re.compile(r"\.(nii|hdr|img)(\.gz)?$", re.IGNORECASE)
_IMAGES = re.compile(r"(?:images?)(tr|ts|val)?", re.IGNORECASE)
_MASKS = re.compile(r"(?:labels?|masks?|segmentations?|segs?)(tr|ts|val)?", re.IGNORECASE)
_OF_MASK = re.compile(r"[_\-.](?:seg|segmentation|mask|label|labels|gt)$", re.IGNORECASE)
_CHANNEL = re.compile(r"_(\d{4})$")
_CARD = "dataset.json"
_SERVICE = "speciate.datasets.gathering.nifti:read_mask"
_SECONDS = 120.0
_LONGEST_CARD, _LONGEST_FILE, _HEAD = 4 << 20, 1 << 30, 1 << 16  # bytes
_GREATEST = 65_535  # value of a mask
_TOLERANCE = 0.01  # of the spacing


def gather(found: Listing, context: SourceContext) -> Listing:
    """The listing with pairs as one file each, and a column `mask` where masks lie beside the scans."""
    files, excluded = pair_files(found.files)
    sorted_out = separate_masks(files)
    found = found._replace(files=sorted_out.scans, excluded=[*found.excluded, *excluded, *sorted_out.excluded])
    return with_masks(found, sorted_out.masks, context)


def pair_files(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[ExcludedFile]]:
    """A .hdr with its .img as one file, in the place of the .hdr."""
    images = {_stem(file): file for file in files if _kind(file) == "img"}
    headers = {_stem(file) for file in files if _kind(file) == "hdr"}
    kept = []
    for file in files:
        if _kind(file) == "hdr" and (image := images.get(_stem(file))) is not None:
            parts = tuple((each.path.name, each.path) for each in (file, image))
            kept.append(file._replace(parts=parts, also=(*file.also, image.name, image.path.name)))
        elif _kind(file) != "img":
            kept.append(file)
    alone = [file for stem, file in images.items() if stem not in headers]
    return kept, [ExcludedFile(file.name, "Voxels without a header: its .hdr is missing.") for file in alone]


class ScansAndMasks(NamedTuple):
    scans: list[SourceFile]
    masks: dict[str, SourceFile]
    """Name of a scan -> its mask."""
    excluded: list[ExcludedFile]


def separate_masks(files: Sequence[SourceFile]) -> ScansAndMasks:
    """Which files are scans, which mask each has, and which files are neither."""
    stems = {_stem(file) for file in files}
    images = {key for stem in stems if (key := _key_of_stem(stem, _IMAGES)) is not None}
    masks: dict[str, SourceFile] = {}
    scans, excluded = [], []
    for file in files:
        case = _case_of_mask(_stem(file), stems, images)
        if case is None:
            scans.append(file)
        elif case in masks:
            excluded.append(ExcludedFile(file.name, f"Another mask of the scan of {masks[case].name!r}."))
        else:
            masks[case] = file
    cases = {scan.name: _case(_stem(scan), masks) for scan in scans}
    by_channel = any(case.by_channel for case in cases.values())
    first: list[SourceFile] = []
    further: list[SourceFile] = []
    for scan in scans:
        channel = _CHANNEL.search(_stem(scan))
        is_first = not by_channel or channel is None or channel[1] == "0000"
        (first if is_first else further).append(scan)
    excluded += [
        ExcludedFile(scan.name, "A further channel of a case, of which the first is read.") for scan in further
    ]
    of_scans = {scan.name: masks[case] for scan in first if (case := cases[scan.name].key) in masks}
    used = set(of_scans.values())
    excluded += [ExcludedFile(mask.name, "A mask without its scan.") for mask in masks.values() if mask not in used]
    return ScansAndMasks(first, of_scans, excluded)


class _Case(NamedTuple):
    key: str
    by_channel: bool
    """Whether the scan is called as its mask is, and four digits more."""


def _case(stem: str, masks: dict[str, SourceFile]) -> _Case:
    key = _key_of_stem(stem, _IMAGES) or stem
    whole = _CHANNEL.sub("", key)
    by_channel = key not in masks and whole != key and whole in masks
    return _Case(whole if by_channel else key, by_channel)


def _case_of_mask(stem: str, stems: set[str], images: set[str]) -> str | None:
    """The scan of a mask: by its folder, if another folder has images; by its name, if the scan lies beside it.

    None if the file is no mask.
    """
    key, bare = _key_of_stem(stem, _MASKS), _OF_MASK.sub("", stem)
    if key is not None and _folder(key) in {_folder(image) for image in images}:
        return key if key in images else _OF_MASK.sub("", key)
    return bare if bare != stem and bare in stems else None


def _key_of_stem(stem: str, folder: re.Pattern[str]) -> str | None:
    """The stem with the last folder that matches replaced by its ending, so that both folders of a pair are alike."""
    *folders, name = stem.split("/")
    for place in reversed(range(len(folders))):
        if match := folder.fullmatch(folders[place]):
            return "/".join([*folders[:place], f"*{(match[1] or '').lower()}", *folders[place + 1 :], name])
    return None


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _stem(file: SourceFile) -> str:
    return _SUFFIX.sub("", file.name)


def _kind(file: SourceFile) -> str | None:
    found = _SUFFIX.search(file.name)
    return found[1].lower() if found else None


class MaskRequest(TypedDict):
    scan: list[tuple[str, str]]
    """Names and paths of its files."""
    mask: list[tuple[str, str]]
    card: str | None
    """The path of dataset.json."""


class MaskAnswer(TypedDict):
    """A _MaskCell."""

    cell: str | None
    reason: str | None


class _MaskCell(NamedTuple):
    """A mask's cell, or the reason why there is none: one of them is None."""

    cell: str | None
    reason: str | None


def with_masks(found: Listing, masks: Mapping[str, SourceFile], context: SourceContext) -> Listing:
    """The listing with the column, if there are masks; those that do not fit their scan are excluded."""
    if not masks:
        return found
    scans = [file for file in found.files if file.name in masks]
    with ThreadPoolExecutor(context.pool.size) as threads:
        read = threads.map(lambda scan: _ask_for_mask(found, scan, masks[scan.name], context), scans)
        by_name = dict(zip((scan.name for scan in scans), read, strict=True))
    excluded = [
        ExcludedFile(masks[name].name, each.reason) for name, each in by_name.items() if each.reason is not None
    ]
    cells = [by_name[file.name].cell if file.name in by_name else None for file in found.files]
    column = pa.table({MASK: pa.array(cells, pa.string())})
    note = f"{len(scans) - len(excluded):,} masks were read into the column {MASK!r}."
    return found._replace(labels=column, excluded=[*found.excluded, *excluded], notes=(*found.notes, note))


def _ask_for_mask(found: Listing, scan: SourceFile, mask: SourceFile, context: SourceContext) -> _MaskCell:
    payload = MaskRequest(scan=_names_and_paths(scan), mask=_names_and_paths(mask), card=_card(found, mask))
    try:
        return _MaskCell(**context.pool.ask(_SERVICE, payload, _SECONDS, readable=found.readable))
    except SpeciateError as error:
        return _MaskCell(None, f"A mask that cannot be read: {error.message}")


def _names_and_paths(file: SourceFile) -> list[tuple[str, str]]:
    return [(name, str(path)) for name, path in file.parts or ((file.path.name, file.path),)]


def _card(found: Listing, mask: SourceFile) -> str | None:
    """Path of the file `dataset.json` beside the folder of the masks; None where it may not be read or is not there."""
    path = mask.path.parent.parent / _CARD
    return str(path) if any(path.is_relative_to(root) for root in found.readable) and path.is_file() else None


def read_mask(payload: MaskRequest) -> MaskAnswer:
    """The service."""
    try:
        header = NIFTI.inspect(_bytes(payload["scan"], _HEAD))
        volume = NIFTI.decode(_bytes(payload["mask"], _LONGEST_FILE))
        spacing = [header.fields[f"spacing_{axis}_mm"] for axis in "zyx"]
        size = [header.fields[name] for name in ("slices", "rows", "columns")]
        if list(volume["voxels"].shape) != size or not np.allclose(volume["spacing"], spacing, rtol=_TOLERANCE):
            raise DecodeError("error", f"it has {_shape(volume)}, and its scan {_sizes(size, spacing)}")
        labels, names = encode_labels(volume, _names(payload["card"]))
        return {"cell": mask_cell(labels, names), "reason": None}
    except DecodeError as error:
        return {"cell": None, "reason": f"A mask that is not used: {str(error).rstrip('.')}."}


def encode_labels(volume: Volume, names: Mapping[int, str]) -> tuple[Labels, list[str]]:
    """Values as positions of labels. DecodeError if they are not whole numbers, are negative or too many."""
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
    """The names in dataset.json: `{"1": "liver"}` (MSD) or `{"liver": 1}` (nnU-Net); empty if it has neither."""
    labels = card.get("labels") if isinstance(card, dict) else None
    return dict(_pairs(labels)) if isinstance(labels, dict) else {}


def _pairs(labels: Mapping[str, object]) -> Iterator[tuple[int, str]]:
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
    """The first `most` bytes of one file, or a bundle of those of a pair."""
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
