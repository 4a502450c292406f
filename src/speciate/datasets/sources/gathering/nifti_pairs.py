"""NIfTI scans as they lie in folders: a .hdr and its .img are one example, and a mask is no example but a column.

Names alone decide, by the layouts that datasets have: `imagesTr/liver_1.nii.gz` with `labelsTr/liver_1.nii.gz` (Medical
Segmentation Decathlon), `imagesTr/liver_1_0000.nii.gz` for the first channel of a case (nnU-Net), `images` and
`masks`, or `scan_seg.nii.gz` beside `scan.nii.gz`. Only the first channel is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from speciate.datasets.sources.gathering.nifti_masks import with_masks
from speciate.datasets.sources.listing import Listing, SourceFile
from speciate.datasets.sources.unpacking import Desk
from speciate.datasets.sources.walk import SetAside

_SUFFIX = re.compile(r"\.(nii|hdr|img)(\.gz)?$", re.IGNORECASE)
_IMAGES = re.compile(r"(?:images?)(tr|ts|val)?", re.IGNORECASE)
_MASKS = re.compile(r"(?:labels?|masks?|segmentations?|segs?)(tr|ts|val)?", re.IGNORECASE)
_OF_MASK = re.compile(r"[_\-.](?:seg|segmentation|mask|label|labels|gt)$", re.IGNORECASE)
_CHANNEL = re.compile(r"_(\d{4})$")


def gather(found: Listing, desk: Desk) -> Listing:
    """The listing with pairs as one file each, and a column `mask` where masks lie beside the scans."""
    files, aside = paired(found.files)
    sorted_out = without_masks(files)
    found = found._replace(files=sorted_out.scans, set_aside=[*found.set_aside, *aside, *sorted_out.set_aside])
    return with_masks(found, sorted_out.masks, desk)


def paired(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[SetAside]]:
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
    return kept, [SetAside(file.name, "Voxels without a header: its .hdr is missing.") for file in alone]


class SortedOut(NamedTuple):
    scans: list[SourceFile]
    masks: dict[str, SourceFile]
    """Name of a scan -> its mask."""
    set_aside: list[SetAside]


def without_masks(files: Sequence[SourceFile]) -> SortedOut:
    """What of the files are scans, which mask each has, and what is neither."""
    stems = {_stem(file) for file in files}
    images = {key for stem in stems if (key := _keyed(stem, _IMAGES)) is not None}
    masks: dict[str, SourceFile] = {}
    scans, aside = [], []
    for file in files:
        case = _case_of_mask(_stem(file), stems, images)
        if case is None:
            scans.append(file)
        elif case in masks:
            aside.append(SetAside(file.name, f"Another mask of the scan of {masks[case].name!r}."))
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
    aside += [SetAside(scan.name, "A further channel of a case, of which the first is read.") for scan in further]
    of_scans = {scan.name: masks[case] for scan in first if (case := cases[scan.name].key) in masks}
    used = set(of_scans.values())
    aside += [SetAside(mask.name, "A mask without its scan.") for mask in masks.values() if mask not in used]
    return SortedOut(first, of_scans, aside)


class _Case(NamedTuple):
    key: str
    by_channel: bool
    """Whether the scan is called as its mask is, and four digits more."""


def _case(stem: str, masks: dict[str, SourceFile]) -> _Case:
    key = _keyed(stem, _IMAGES) or stem
    whole = _CHANNEL.sub("", key)
    by_channel = key not in masks and whole != key and whole in masks
    return _Case(whole if by_channel else key, by_channel)


def _case_of_mask(stem: str, stems: set[str], images: set[str]) -> str | None:
    """What it is the mask of: by its folder, where another one has images; by its name, where the scan lies beside it;
    None where it is none."""
    key, bare = _keyed(stem, _MASKS), _OF_MASK.sub("", stem)
    if key is not None and _folder(key) in {_folder(image) for image in images}:
        return key if key in images else _OF_MASK.sub("", key)
    return bare if bare != stem and bare in stems else None


def _keyed(stem: str, folder: re.Pattern[str]) -> str | None:
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
