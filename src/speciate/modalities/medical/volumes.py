"""Volumes of voxels, the decoded medium of `dicom` and `nifti`.

Axes lie as in the patient, whatever the file's own order was: the first goes from the feet to the head, the second from
the front to the back, the third from the patient's right to the left (DICOM's own directions, LPS). So a slice
`voxels[z]` is what a radiologist sees, and the same scan is the same array from either format. Values are on the
scale that the file declares (Hounsfield units of a CT), finite.

A volume of one slice is an image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, NotRequired, TypedDict, TypeGuard

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import LARGEST_THUMBNAIL, DecodeError, Modality, Pixels, Sketches, Vector
from speciate.modalities.hashing import GRID, IMAGE_SKETCHES, ImageSketches, mix
from speciate.modalities.segmentation_masks import Labels

Voxels = npt.NDArray[np.float32]  # (D, H, W)
Shape = tuple[int, int, int]

MOST_VOXELS = 160_000_000
"""512 x 512 x 610; 640 MB once decoded."""
LONGEST_AXIS = 32_767
"""The most that NIfTI-1 can declare."""
_MOST_SAMPLES = 1_000_000
"""Values of which quantiles are taken: every n-th of a large volume."""
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
_SEEN = (1.0, 99.5)
"""Percentiles that are black and white if a volume brings no window of its own."""
_SIDES = (32, 16, 8)
_CUBE = 6
_BINS = 16
_GAP = 2  # pixels between two planes
_COLOURS = (
    (46, 134, 222), (238, 82, 83), (29, 209, 161), (255, 159, 67), (155, 89, 182), (241, 196, 15), (72, 219, 251),
    (255, 107, 188),
)  # fmt: skip
"""Colours (red, green, blue) of labels, in their order; from the ninth on, they come again."""


class Volume(TypedDict):
    voxels: Voxels
    spacing: Vector
    """(3,): millimetres from one voxel to the next along each axis of `voxels`; positive."""
    window: NotRequired[list[float]]
    """[centre, width] of the values that are to be seen (DICOM's VOI window), in the unit of the voxels."""


class _Plane(ImageSketches):
    tolerance = 0.4
    """Twice that of images: a copy with other slices cuts its planes elsewhere, and all three must agree."""


class Planes:
    """An image's sketch of each of three slabs through the middle: two volumes are near if all three are.

    Small images of one plane are much alike across patients, so one alone would take too many for copies. A volume of
    one slice has its image as the first plane, and streaks for the others.

    Measured on 60 ellipsoids with a spot in noise, 28 x 36 x 32 voxels: of each, three copies resampled to as little as
    two thirds along each axis differ nowhere by more than 0.35; no two of different ones by less than 0.67 everywhere.
    """

    width = 3 * IMAGE_SKETCHES.width

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, B): those of each plane, under the plane's own number."""
        planes = _planes_of(sketches)
        keys = [PLANE.keys(np.ascontiguousarray(planes[:, axis])) for axis in range(3)]
        return np.concatenate([mix(each + np.uint64(axis)) for axis, each in enumerate(keys)], axis=1)

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        pairs = zip(_planes_of(a).swapaxes(0, 1), _planes_of(b).swapaxes(0, 1), strict=True)
        return np.asarray(np.stack([_near(one, other, threshold) for one, other in pairs]).all(axis=0))


def planes(voxels: npt.NDArray[Any], places: Sequence[int]) -> tuple[npt.NDArray[Any], ...]:
    """Through a place along each axis, head up: axial (H, W), coronal (D, W), sagittal (D, H)."""
    z, y, x = places
    return voxels[z], voxels[::-1, y], voxels[::-1, :, x]


def _planes_of(sketches: Sketches) -> npt.NDArray[np.uint8]:
    """(N, width) -> (N, 3, width of one)."""
    return sketches.reshape(len(sketches), 3, IMAGE_SKETCHES.width)


def _near(a: Sketches, b: Sketches, threshold: float | None) -> npt.NDArray[np.bool_]:
    """(M,) for one plane: two blank ones are alike, a blank one and another are not."""
    seen, other = a.any(axis=1), b.any(axis=1)
    near = np.asarray(~(seen | other))
    both = np.flatnonzero(seen & other)
    near[both] = PLANE.near(a[both], b[both], threshold)
    return near


PLANE, PLANES = _Plane(), Planes()


class VolumeModality(Modality[Volume]):
    """Everything of a modality that does not depend on its files (`inspect`, `decode`)."""

    sketching = PLANES
    window_unit = "steps"
    thumbnail_side = LARGEST_THUMBNAIL

    def admit(self, value: Any) -> Volume:
        """`value`: the bytes of a file."""
        if not isinstance(value, bytes):
            raise DecodeError("error", "A volume must be the bytes of a file.")
        return self.decode(value)

    def fingerprint(self, media: Volume) -> str:
        """Shape, spacing to five digits and a hash of the voxels; the window and the file format do not count."""
        voxels = np.ascontiguousarray(media["voxels"]) + np.float32(0)  # makes one of the two zeros
        spacing = " ".join(f"{side:.5g}" for side in media["spacing"])
        return f"{voxels.shape} {spacing} {hashlib.sha256(voxels.data).hexdigest()}"

    def measure(self, media: Volume) -> dict[str, int | float]:
        """`steps`, the unit of windows, are slices. Extents in millimetres, edges included."""
        voxels = media["voxels"]
        depth, height, width = (round(float(side), 3) for side in extents(media))
        return {
            "steps": len(voxels),
            "depth_mm": depth,
            "height_mm": height,
            "width_mm": width,
            "least": float(voxels.min()),
            "greatest": float(voxels.max()),
            "mean": round(float(voxels.mean(dtype=np.float64)), 6),
        }

    def describe(self, media: Volume) -> Vector:
        """(273,): levels, histogram, edges and spots at three coarse scales, extents, and a cube of 6 x 6 x 6.

        Levels are made smaller by the inverse hyperbolic sine, for they know no bounds; the rest is of the values
        with median 0 and a spread (from the 5th to the 95th percentile) of 1, so that a scanner's scale is no part of
        it.
        """
        voxels = media["voxels"]
        sample = _sampled(voxels)
        levels = np.quantile(sample, _QUANTILES)
        widest = float(voxels.max()) - float(voxels.min())
        median, spread = levels[3], max(levels[5] - levels[1], widest / 100, 1e-6)
        standard = np.clip((sample - median) / spread, -8, 8)
        sides = (*_SIDES, _SIDES[-1] // 2)
        cubes = [np.clip((resample(voxels, (side, side, side)) - median) / spread, -8, 8) for side in sides]
        raw = [*levels, voxels.min(), voxels.max(), sample.mean(), sample.std()]
        shape = [(standard**3).mean(), (standard**4).mean()]
        bars = np.histogram(np.clip(standard, -1.5, 1.5), _BINS, (-1.5, 1.5))[0] / len(standard)
        parts = [
            np.arcsinh(raw),
            np.cbrt(shape),
            bars,
            *(_edges_and_spots(fine, coarse) for fine, coarse in pairwise(cubes)),
            np.log(extents(media)),
            np.log(np.asarray(media["spacing"], np.float64)),
            resample(cubes[0].astype(np.float32), (_CUBE, _CUBE, _CUBE)).ravel(),
        ]
        return np.concatenate(parts).astype(np.float32)

    def features(self, media: Volume) -> Vector:
        """The vector of `describe`, which has one length for all volumes."""
        return self.describe(media)

    def thumbnail(self, media: Volume) -> Pixels:
        return draw_planes(media)

    def sketch(self, media: Volume) -> bytes | None:
        """None if all planes are blank."""
        voxels = media["voxels"]
        low, high = shown_range(media | {"window": []})  # another window is no other volume
        codes = []
        for axis in range(3):
            slab = _middle(voxels, axis)
            codes.append(IMAGE_SKETCHES.sketch(_gray(resample(slab[np.newaxis], (1, GRID, GRID))[0], low, high)))
        if not any(codes):
            return None
        return b"".join(code or bytes(IMAGE_SKETCHES.width) for code in codes)

    def window(self, media: Volume, start: float, stop: float) -> Volume:
        """Slices of the first axis."""
        cut: Volume = {**media, "voxels": media["voxels"][round(start) : round(stop)]}
        return cut


def is_volume(medium: object) -> TypeGuard[Volume]:
    return isinstance(medium, dict) and isinstance(medium.get("voxels"), np.ndarray)


def extents(media: Volume) -> npt.NDArray[np.float64]:
    """(3,): millimetres from edge to edge, along the axes of the voxels."""
    found: npt.NDArray[np.float64] = np.asarray(media["spacing"], np.float64) * media["voxels"].shape
    return found


def resample(voxels: Voxels, shape: Shape) -> Voxels:
    """(D, H, W) -> `shape`: along each axis the mean over a new voxel, linear between old ones if it is smaller
    than they are (so trilinear if all axes grow). Places are those of edges, not of centres."""
    down, along, across = (_weights(new, old) for new, old in zip(shape, voxels.shape, strict=True))
    found: Voxels = np.tensordot(down, along @ (voxels @ across.T), 1)
    return found


def shown_range(media: Volume) -> tuple[float, float]:
    """Which values are black and white: its window's bounds, or else percentiles."""
    match media.get("window"):
        case [float() | int() as centre, float() | int() as width] if width > 0 and math.isfinite(centre + width):
            return centre - width / 2, centre + width / 2
    low, high = np.percentile(_sampled(media["voxels"]), _SEEN)
    return float(low), float(high)


def draw_planes(media: Volume, labels: Labels | None = None, side: int = LARGEST_THUMBNAIL) -> Pixels:
    """(h, w, 3), at most `side` pixels: the three planes in their true proportions, with `labels` (D, H, W) in colour.

    They go through the middle, or, with labels, through the slices that have most of the last one. The
    axial one is above, the coronal one below it under the same columns, the sagittal one right of that; head up, the
    patient's right on the left. One slice is drawn alone.
    """
    from PIL import Image

    low, high = shown_range(media)
    layout, places = layout_of(media, side), _places(media["voxels"].shape, labels)
    canvas = Image.new("RGB", layout.size)
    marks = planes(labels, places) if labels is not None else (None,) * 3
    for box, plane, mark in zip(layout.boxes, planes(media["voxels"], places), marks, strict=False):
        image = Image.fromarray(_gray(plane, low, high)).resize(box.size, Image.Resampling.BILINEAR).convert("RGB")
        if mark is not None:
            shown = np.asarray(Image.fromarray(mark).resize(box.size, Image.Resampling.NEAREST))
            image = Image.fromarray(_coloured(np.asarray(image), shown))
        canvas.paste(image, (box.left, box.top))
    return np.asarray(canvas)


def slice_images(media: Volume, count: int) -> list[Pixels]:
    """(H, W, 3) each: at most `count` slices of the first axis, evenly apart, in gray, all of one range of values."""
    low, high = shown_range(media)
    voxels = media["voxels"]
    shown = min(count, len(voxels))
    places = ((np.arange(shown) + 0.5) * len(voxels) / shown).astype(np.int64)
    return [np.repeat(_gray(voxels[place], low, high)[..., np.newaxis], 3, axis=2) for place in places]


class Box(NamedTuple):
    """A box in pixels of a drawing."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


class Layout(NamedTuple):
    """Places of the planes: axial, coronal and sagittal, or one slice alone."""

    size: tuple[int, int]
    """Width and height."""
    boxes: tuple[Box, ...]


def layout_of(media: Volume, side: int) -> Layout:
    depth, height, width = extents(media)
    if len(media["voxels"]) == 1:
        scale = side / max(height, width)
        across, down = _pixels(width, scale), _pixels(height, scale)
        return Layout((across, down), (Box(0, 0, across, down),))
    scale = (side - _GAP) / max(width + height, height + depth)
    w, h, d = (min(_pixels(length, scale), side - _GAP - 1) for length in (width, height, depth))
    boxes = Box(0, 0, w, h), Box(0, h + _GAP, w, d), Box(w + _GAP, h + _GAP, h, d)
    return Layout((min(w + _GAP + h, side), min(h + _GAP + d, side)), boxes)


def _places(shape: Sequence[int], labels: Labels | None) -> list[int]:
    if labels is None or not labels.any():
        return [length // 2 for length in shape]
    last = labels == labels.max()
    return [int(last.sum(tuple(other for other in range(3) if other != axis)).argmax()) for axis in range(3)]


def _coloured(image: Pixels, mark: Labels) -> Pixels:
    """(h, w, 3), (h, w): half of it the colour of its label, if it has one."""
    colours = np.array(_COLOURS, np.uint8)[(mark.astype(np.int64) - 1) % len(_COLOURS)]
    return np.where(mark[..., np.newaxis] > 0, image // 2 + colours // 2, image).astype(np.uint8)


def _pixels(millimetres: float, scale: float) -> int:
    return max(1, round(millimetres * scale))


def _gray(plane: npt.NDArray[Any], low: float, high: float) -> Pixels:
    """Values -> 0 to 255; all the same are gray, also where a mean of them is off in its last bits."""
    if high <= low:
        same = 16 * float(np.finfo(np.float32).eps) * abs(low)
        off = plane.astype(np.float64) - low
        return np.where(off > same, 255, np.where(off < -same, 0, 128)).astype(np.uint8)
    share = (plane.astype(np.float64) - low) / (high - low)
    return np.asarray((share.clip(0, 1) * 255).round().astype(np.uint8))


def _middle(voxels: Voxels, axis: int) -> Voxels:
    """The mean of the middle eighth across an axis, parts of slices too: hardly another where slices lie elsewhere."""
    length = voxels.shape[axis]
    start, stop = length * 7 / 16, length * 9 / 16
    cells = np.arange(math.floor(start), math.ceil(stop))
    shares = np.minimum(cells + 1, stop) - np.maximum(cells, start)
    slices = voxels[(slice(None),) * axis + (slice(cells[0], cells[-1] + 1),)]
    return np.asarray(np.tensordot(shares / shares.sum(), slices, ([0], [axis])), np.float32)


def _sampled(voxels: Voxels) -> npt.NDArray[np.float64]:
    """Values from all over, at most a million and odd steps apart, so that they are not of one column."""
    step = voxels.size // _MOST_SAMPLES + 1
    return voxels.reshape(-1)[:: step | 1].astype(np.float64)


def _edges_and_spots(fine: Voxels, coarse: Voxels) -> npt.NDArray[np.float64]:
    """(7,): how steep a cube is (three quantiles and the most), and what of it is too small for the coarser one: the
    darkest and the brightest spot, and how much there is of it."""
    steep = np.sqrt(np.square(np.asarray(np.gradient(fine), np.float64)).sum(axis=0))
    spots = fine - resample(coarse.astype(np.float32), fine.shape)
    steepest = np.quantile(steep, (0.5, 0.9, 0.99, 1.0))
    return np.concatenate([steepest, [spots.min(), spots.max(), spots.std(dtype=np.float64)]])


def _weights(new: int, old: int) -> npt.NDArray[np.float32]:
    """(new, old): what of each old place is in each new one; every row sums to 1."""
    if new >= old:
        centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        return np.asarray(np.clip(1 - np.abs(centres[:, None] - np.arange(old)), 0, None), np.float32)
    edges, cells = np.arange(new + 1) * old / new, np.arange(old)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.clip(covered, 0, None) * new / old, np.float32)
