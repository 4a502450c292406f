"""Regions that somebody drew on a DICOM series, as labels of its voxels: RTSTRUCT outlines and SEG segmentations.

An outline fills the pixels of its slice whose centres are inside (segmentation_masks.py); an outline of the same region
within it cuts a hole. A segmentation is used if its pixels are those of the scan. If regions overlap, the smaller ones
lie on top. Sources: DICOM PS3.3, C.8.8.6 (ROI Contour) and C.8.20 (Segmentation).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.dicom_geometry import SAME_DIRECTION, Slice, Stack, axes, layout_of
from speciate.modalities.medical.dicom_instances import (
    check_streams,
    decode_errors,
    functional,
    number_value,
    number_values,
    pixel_spacing,
    text_value,
)
from speciate.modalities.segmentation_masks import MOST_LABELS, Labels, Mask, fill_polygon

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


MOST_POINTS = 20_000_000
_NEAR = 0.5  # of a gap, and of a pixel
_PER_SPACING = 0.01


class Region(NamedTuple):
    name: str
    planes: Callable[[], Iterator[tuple[int, Mask]]]
    """(place of the slice in the stack, its pixels); a place may come several times."""


class RegionMap(NamedTuple):
    labels: Labels
    """(D, H, W), as the volume of the scan lies."""
    names: list[str]


class Scan(NamedTuple):
    """The series that regions are drawn on."""

    slices: Sequence[Slice]
    """The slices in the order of the stack, with their positions."""
    stack: Stack

    @classmethod
    def of(cls, slices: Sequence[Slice], stack: Stack) -> Scan:
        if any(each.position is None or each.orientation is None for each in slices):
            raise DecodeError("error", "its scan has no place in the patient.")
        return cls([slices[place] for place in stack.order], stack)

    def place(self, position: Sequence[float]) -> int | None:
        """Place of the slice that a point lies in; None if it lies in none."""
        normal = axes(self.slices[0].orientation or ())[2]
        along = np.array([each.position for each in self.slices], np.float64) @ normal
        apart = np.abs(along - np.array(position, np.float64) @ normal)
        nearest = int(apart.argmin())
        return nearest if apart[nearest] <= _NEAR * self.stack.spacing[0] + SAME_DIRECTION else None


def regions(dataset: Dataset, scan: Scan) -> list[Region]:
    """The regions of a whole RTSTRUCT or SEG file. Raises DecodeError if it does not fit the scan."""
    kind = text_value(dataset, "Modality")
    with decode_errors(""):
        found = _outlined(dataset, scan) if kind == "RTSTRUCT" else _segmented(dataset, scan)
    if not found:
        raise DecodeError("error", "it shows nothing in its scan.")
    return found


def draw_regions(found: Sequence[Region], scan: Scan) -> RegionMap:
    """All regions on one map of labels; those with one name are one."""
    names = sorted({each.name for each in found})
    if len(names) > MOST_LABELS:
        raise DecodeError("refused", f"it has {len(names)} regions, more than {MOST_LABELS}.")
    sizes = dict.fromkeys(names, 0)
    for region in found:
        sizes[region.name] += sum(int(mask.sum()) for _, mask in region.planes())
    stacked = np.zeros((len(scan.slices), *scan.slices[0].size), np.uint8)
    for region in sorted(found, key=lambda each: -sizes[each.name]):
        for place, mask in region.planes():
            stacked[place][mask] = names.index(region.name) + 1
    return RegionMap(layout_of(scan.stack).array(stacked), names)


def _outlined(dataset: Dataset, scan: Scan) -> list[Region]:
    named = {each.ROINumber: text_value(each, "ROIName") for each in dataset.get("StructureSetROISequence") or ()}
    found: list[Region] = []
    points = 0
    for roi in dataset.get("ROIContourSequence") or ():
        rings: dict[int, list[npt.NDArray[np.float64]]] = {}
        for contour in roi.get("ContourSequence") or ():
            if text_value(contour, "ContourGeometricType") != "CLOSED_PLANAR":
                continue
            ring = np.array(contour.ContourData, np.float64).reshape(-1, 3)
            points += len(ring)
            if points > MOST_POINTS:
                raise DecodeError("refused", f"its outlines have more than {MOST_POINTS:,} points.")
            if len(ring) < 3 or not np.isfinite(ring).all():
                raise DecodeError("error", "one of its outlines has no three points.")
            place = scan.place(ring.mean(axis=0))
            if place is None or any(scan.place(corner) != place for corner in _extremes(ring, scan)):
                raise DecodeError("error", f"an outline of {named.get(roi.ReferencedROINumber)!r} lies in no slice.")
            rings.setdefault(place, []).append(ring)
        if rings:
            name = named.get(roi.ReferencedROINumber) or f"region {roi.ReferencedROINumber}"
            found.append(Region(name, lambda rings=rings: _filled(rings, scan)))  # type: ignore[misc]  # its default
    return found


def _extremes(ring: npt.NDArray[np.float64], scan: Scan) -> npt.NDArray[np.float64]:
    """The points that lie furthest from each other along the normal."""
    along = ring @ axes(scan.slices[0].orientation or ())[2]
    return ring[[int(along.argmin()), int(along.argmax())]]


def _filled(rings: dict[int, list[npt.NDArray[np.float64]]], scan: Scan) -> Iterator[tuple[int, Mask]]:
    for place, outlines in rings.items():
        on = scan.slices[place]
        columns, rows, _ = axes(on.orientation or ())
        rows_apart, columns_apart = on.spacing or (1.0, 1.0)
        mask = np.zeros(on.size, bool)
        for ring in outlines:
            away = ring - np.array(on.position)
            pixels = np.stack([away @ columns / columns_apart, away @ rows / rows_apart], axis=1)
            mask ^= fill_polygon(pixels + 0.5, on.size)  # positions are of the centres of pixels
        yield place, mask


def _segmented(dataset: Dataset, scan: Scan) -> list[Region]:
    named = {int(each.SegmentNumber): _segment_name(each) for each in dataset.get("SegmentSequence") or ()}
    kind = text_value(dataset, "SegmentationType")
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise DecodeError("error", f"its type is {kind or 'unknown'}.")
    count = int(dataset.get("NumberOfFrames") or 1)
    places = [_place_of_frame(dataset, frame, scan) for frame in range(count)]
    if kind == "LABELMAP":
        found = _of_labels(dataset, places, named)
    else:
        numbers_ = [_segment_of_frame(dataset, frame) for frame in range(count)]
        least = 0.5 if kind == "BINARY" else 0.5 * (number_value(dataset, "MaximumFractionalValue") or 255)
        found = _of_segments(dataset, places, numbers_, least)
    return [Region(name, partial(_full_masks, found[number])) for number, name in named.items() if number in found]


class _Patch(NamedTuple):
    """The pixels of a slice that a segment covers, within the least rectangle around them: saves memory with many
    segments."""

    place: int
    size: tuple[int, int]
    top: int
    left: int
    mask: Mask

    @classmethod
    def of(cls, place: int, mask: Mask) -> _Patch:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return cls(place, mask.shape, 0, 0, np.zeros((0, 0), bool))
        top, left = int(rows[0]), int(columns[0])
        return cls(place, mask.shape, top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


_Patches = dict[int, list[_Patch]]
"""Number of a segment -> its patches."""


def _full_masks(patches: Sequence[_Patch]) -> Iterator[tuple[int, Mask]]:
    for each in patches:
        mask = np.zeros(each.size, bool)
        mask[each.top : each.top + each.mask.shape[0], each.left : each.left + each.mask.shape[1]] = each.mask
        yield each.place, mask


def _segment_name(segment: Dataset) -> str:
    kinds: Sequence[Any] = segment.get("SegmentedPropertyTypeCodeSequence") or ()
    coded = text_value(kinds[0], "CodeMeaning") if kinds else ""
    return text_value(segment, "SegmentLabel") or coded or f"segment {segment.SegmentNumber}"


def _segment_of_frame(dataset: Dataset, frame: int) -> int:
    found = functional(dataset, frame, "SegmentIdentificationSequence")
    number = number_value(found, "ReferencedSegmentNumber") if found is not None else None
    if number is None:
        raise DecodeError("error", f"its frame {frame + 1} is of no segment.")
    return int(number)


def _place_of_frame(dataset: Dataset, frame: int, scan: Scan) -> int:
    """Raises DecodeError if its pixels are not those of a slice."""
    placed = functional(dataset, frame, "PlanePositionSequence")
    turned = functional(dataset, frame, "PlaneOrientationSequence")
    sized = functional(dataset, frame, "PixelMeasuresSequence")
    position = number_values(placed, "ImagePositionPatient", 3) if placed is not None else None
    orientation = number_values(turned, "ImageOrientationPatient", 6) if turned is not None else None
    place = scan.place(position) if position is not None else None
    if place is None or position is None or orientation is None or sized is None:
        raise DecodeError("error", f"its frame {frame + 1} lies in no slice.")
    on = scan.slices[place]
    apart = on.spacing or (1.0, 1.0)
    columns, rows, _ = axes(on.orientation or ())
    away = np.array(position) - np.array(on.position)
    same = (
        (int(dataset.Rows), int(dataset.Columns)) == on.size
        and np.allclose(orientation, on.orientation or (), atol=SAME_DIRECTION)
        and np.allclose(pixel_spacing(sized) or (0.0, 0.0), apart, rtol=_PER_SPACING)
        and abs(away @ columns) <= _NEAR * apart[1]
        and abs(away @ rows) <= _NEAR * apart[0]
    )
    if not same:
        raise DecodeError("error", f"the pixels of its frame {frame + 1} are not those of its scan.")
    return place


def _of_segments(dataset: Dataset, places: Sequence[int], numbers_: Sequence[int], least: float) -> _Patches:
    found: _Patches = {}
    for place, number, pixels in zip(places, numbers_, _frames(dataset), strict=True):
        found.setdefault(number, []).append(_Patch.of(place, pixels > least))
    return found


def _of_labels(dataset: Dataset, places: Sequence[int], named: Collection[int]) -> _Patches:
    found: _Patches = {number: [] for number in named if number}  # 0 is covered by no segment
    for place, pixels in zip(places, _frames(dataset), strict=True):
        for number in np.unique(pixels).tolist():
            if number in found:
                found[number].append(_Patch.of(place, pixels == number))
    return found


def _frames(dataset: Dataset) -> Iterator[npt.NDArray[Any]]:
    from pydicom.pixels.utils import iter_pixels

    with decode_errors(""):
        check_streams(dataset)
        yield from iter_pixels(dataset)
