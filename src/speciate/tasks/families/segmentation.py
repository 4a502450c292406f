"""A label for each pixel or voxel: a linear layer on each state, stretched over the image (Segmenter's linear
decoder, Strudel et al. 2021) or volume. Inside, every image is a square of the same number of pixels, every volume a
cube.

A map of labels is `{labels, size: [height, width], rle}`: of `rle` each pair says a place in `labels`, from 1 on (0 is
background), and how many pixels have it, row by row. Of a volume the size is [slices, rows, columns], and a target has
`spacing`: how many millimetres its voxels are apart along each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NotRequired, Self, TypedDict

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.medical.volumes import Volume, is_volume, resample
from speciate.modalities.segmentation_masks import (
    MOST_LABELS,
    Labels,
    Mask,
    fill_polygon,
    from_runs,
    mask_of,
    resize_labels,
    to_runs,
)
from speciate.models.estimators import UnitRows
from speciate.tasks.task import Arrays, DirectSupervision, Prediction, RepresentationSettings, TaskExample, TaskTerms

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


_MOST_OF_TARGET, _MOST_PIXELS_A_SIDE, _LEAST = {2: 256, 3: 128}, {2: 128, 3: 64}, {2: 32, 3: 16}
"""By the number of axes: pixels of the longest side of a target, and of the square that is learned, at most and at
least."""
_UNKNOWN = 255  # label that training has not seen: does not count
_LEAST_SHARE = 1e-4
_MASK = "1"  # what is not background, where a cell names no labels


class Segmentation(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    whole_batch: ClassVar[Literal[True]] = True
    family: Literal["segmentation"] = "segmentation"
    labels: tuple[str, ...]
    """Labels without background."""
    side: int
    """Side of the squares or cubes that are learned and answered, in pixels."""
    axes: Literal[2, 3] = 2
    """2 for images, 3 for volumes."""
    shares: tuple[float, ...] = ()
    """Shares of what was learned that are background and each label: where a head begins. Where all were as likely,
    soft Dice would first teach it that everything is the rarest label, and many steps would go by until it had
    unlearned that."""

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Cell: `[{category, segmentation}]` as the COCO reader makes it, or one mask as COCO's run lengths in JSON; of
        a volume, a mask of modalities/segmentation_masks.py.

        Target: a map of labels in the image's own size, made smaller where that is large. Larger regions lie below
        smaller ones.
        """
        if cell is None or cell == "":
            return None
        if is_volume(example.media):
            return TaskExample(example, _volume_target(example.media["voxels"].shape, example.media["spacing"], cell))
        image_size: Size = example.media.shape[:2]
        shrunk = min(1.0, _MOST_OF_TARGET[2] / max(image_size))
        size = max(1, round(image_size[0] * shrunk)), max(1, round(image_size[1] * shrunk))
        regions = [(label, region_mask(outline, image_size, size)) for label, outline in outlines(cell)]
        names = sorted({label for label, mask in regions if mask.any()})
        if len(names) > MOST_LABELS:
            raise ValueError(f"{len(names)} labels in one image are more than {MOST_LABELS}")
        pixels = np.zeros(size, np.uint8)
        for label, mask in sorted(regions, key=lambda each: -int(each[1].sum())):
            if mask.any():
                pixels[mask] = names.index(label) + 1
        return TaskExample(example, _label_map(pixels, names))

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        labels = sorted({label for target in targets for label in target["labels"]})
        if not 0 < len(labels) <= MOST_LABELS:
            raise SpeciateError(
                Code.INVALID,
                f"The training examples show {len(labels)} labels; from 1 to {MOST_LABELS} can be learned.",
                "Name the column that has the outlines or masks with target, such as target='objects'.",
            )
        axes: Literal[2, 3] = 3 if len(targets[0]["size"]) == 3 else 2
        longest = max(max(target["size"]) for target in targets)
        side = int(np.clip(longest, _LEAST[axes], _MOST_PIXELS_A_SIDE[axes]))
        return cls(labels=tuple(labels), side=side, axes=axes, shares=_label_shares(targets, labels))

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """A baseline with, at each place, the label that is commonest there."""
        task_head = cls.fit(targets, {})
        counts = np.zeros((len(task_head.labels) + 1, *task_head.shape), np.int64)
        for target in targets:
            (pixels,) = task_head.encode_targets([target])
            counts += np.stack([pixels == code for code in range(len(counts))])
        prediction = task_head._prediction(counts.argmax(0).astype(np.uint8))
        return lambda example: prediction

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the masks that are learned and answered."""
        return (self.side,) * self.axes

    def encode_targets(self, targets: Sequence[Any]) -> npt.NDArray[np.uint8]:
        """(N, side, side) or (N, side, side, side): 0 for background, k for the k-th label."""
        place = {label: i for i, label in enumerate(self.labels, 1)}
        made = np.zeros((len(targets), *self.shape), np.uint8)
        for pixels, target in zip(made, targets, strict=True):
            codes = np.array([0, *(place.get(label, _UNKNOWN) for label in target["labels"])], np.uint8)
            pixels[:] = codes[resize_labels(from_runs(target["rle"], target["size"]), self.shape)]
        return made

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Sequence[npt.NDArray[Any]]) -> list[Prediction]:
        """`scores`: (K + 1, h, w) or (K + 1, d, h, w) each, or (places, K + 1) of a square or cube. Output: a map of
        labels with `side` pixels along each axis, stretched over the image."""
        maps = (self._as_maps(each) if each.ndim == 2 else each for each in scores)
        return [self._prediction(stretch(each, self.side).argmax(0).astype(np.uint8)) for each in maps]

    def _as_maps(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        side = round(len(rows) ** (1 / self.axes))
        return rows.T.reshape(-1, *(side,) * self.axes)

    def _prediction(self, pixels: Labels) -> Prediction:
        shown = [code for code in np.unique(pixels).tolist() if code]
        places = np.zeros(len(self.labels) + 1, np.uint8)
        places[shown] = np.arange(1, len(shown) + 1)
        return Prediction(_label_map(places[pixels], [self.labels[code - 1] for code in shown]), None, None)

    def head(self, width: int) -> torch.nn.Module:
        import torch
        from torch import nn

        made = (nn.Conv3d if self.axes == 3 else nn.Conv2d)(width, len(self.labels) + 1, 1)
        if self.shares:
            made.bias = nn.Parameter(torch.tensor(self.shares).clamp_min(_LEAST_SHARE).log())
        return made

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Cross-entropy, and soft Dice of the labels that the batch shows (Milletari et al. 2016)."""
        import torch
        from torch.nn.functional import cross_entropy, interpolate, one_hot

        maps = head(states.as_maps(self.axes))
        logits = interpolate(maps, size=self.shape, mode="bilinear" if self.axes == 2 else "trilinear")
        wanted = torch.as_tensor(np.asarray(targets), dtype=torch.long, device=logits.device)
        known = wanted != _UNKNOWN
        if not known.any():
            return logits.sum() * 0.0
        probabilities = torch.softmax(logits, 1) * known[:, None]
        true = one_hot(torch.where(known, wanted, 0), logits.shape[1]).movedim(-1, 1) * known[:, None]
        others = (0, *range(2, logits.ndim))
        both, sums = (probabilities * true).sum(others), (probabilities + true).sum(others)
        shown = true.sum(others) > 0
        dice = (2 * both[shown] / sums[shown]).mean()
        return cross_entropy(logits, wanted, ignore_index=_UNKNOWN) + 1 - dice

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        return list(head(states.as_maps(self.axes)).float().cpu().numpy())


def _label_shares(targets: Sequence[Any], labels: Sequence[str]) -> tuple[float, ...]:
    """Shares of background and each label, the mean over targets whatever their size."""
    found = np.zeros(len(labels) + 1)
    for target in targets:
        pixels = from_runs(target["rle"], target["size"])
        places = [0, *(labels.index(label) + 1 for label in target["labels"])]
        np.add.at(found, places, np.bincount(pixels.ravel(), minlength=len(places)) / max(pixels.size, 1))
    return tuple((found / max(found.sum(), 1e-9)).round(6).tolist())


def stretch(maps: npt.NDArray[Any], side: int) -> npt.NDArray[np.float64]:
    """(K, h, w) -> (K, side, side), or with three axes, linearly along each, as torch does it with pixels for areas."""
    large = maps.astype(np.float64)
    for axis in range(1, maps.ndim):
        if (length := maps.shape[axis]) != side:
            large = np.moveaxis(np.tensordot(_weights(side, length), large, ([1], [axis])), 0, axis)
    return large


def _weights(new: int, old: int) -> npt.NDArray[np.float64]:
    """(new, old): what of each old place is in each new one."""
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    weights: npt.NDArray[np.float64] = np.clip(1 - np.abs(places[:, None] - np.arange(old)), 0, None)
    return weights


def outlines(cell: Any) -> list[tuple[str, Any]]:
    if isinstance(cell, str):
        return [(_MASK, cell)]
    if not isinstance(cell, list):
        raise ValueError(f"{cell!r:.60} is no list of objects, each with category and segmentation")
    found = []
    for each in cell:
        if not isinstance(each, dict) or each.get("category") is None:
            raise ValueError(f"{each!r:.60} is no object with a category")
        if each.get("segmentation") is None:
            raise ValueError(f"an object of {each['category']!r:.40} has no segmentation")
        found.append((str(each["category"]), each["segmentation"]))
    return found


def _volume_target(size: Sequence[int], spacing: npt.NDArray[Any], cell: Any) -> LabelMap:
    """ValueError where the mask is of another size."""
    pixels, labels = mask_of(cell)
    if pixels.shape != tuple(size):
        raise ValueError(f"a mask of {pixels.shape} voxels is none of a volume of {tuple(size)}")
    shrunk = min(1.0, _MOST_OF_TARGET[3] / max(size))
    small = resize_labels(pixels, [max(1, round(side * shrunk)) for side in size])
    apart = np.asarray(spacing, np.float64) * size / small.shape
    found = _label_map(small, labels)
    found["spacing"] = [round(float(side), 6) for side in apart]
    return found


class LabelMap(TypedDict):
    """A mask as JSON."""

    labels: list[str]
    """Labels of the codes from 1 on."""
    size: list[int]
    rle: Any
    """Runs, as `to_runs` writes them."""
    spacing: NotRequired[list[float]]
    """Millimetres between voxels."""


def _label_map(pixels: Labels, labels: Sequence[str]) -> LabelMap:
    return {"labels": list(labels), "size": list(pixels.shape), "rle": to_runs(pixels)}


Size = tuple[int, int]  # height, width

_MOST_PIXELS = 50_000_000


def region_mask(outline: Any, image_size: Size, size: Size) -> Mask:
    """A COCO segmentation of an image of `image_size` pixels, as a mask of `size` pixels.

    A pixel belongs to a polygon if its centre lies inside.
    `outline`: polygons `[[x, y, x, y, ...], ...]`, or run lengths `{size, counts}`, plain or compressed; also as JSON.
    ValueError: neither.
    """
    if isinstance(outline, str):
        try:
            outline = json.loads(outline)
        except ValueError as error:
            raise ValueError(f"{outline!r:.60} is no JSON of polygons or run lengths") from error
    if isinstance(outline, dict):
        return resize_labels(_mask_from_runs(outline), size)
    if not isinstance(outline, list) or not outline:
        raise ValueError(f"{outline!r:.60} is neither polygons nor run lengths")
    mask = np.zeros(size, bool)
    for ring in outline:
        mask |= fill_polygon(_polygon(ring) * (size[1] / image_size[1], size[0] / image_size[0]), size)
    return mask


def _polygon(ring: Any) -> npt.NDArray[np.float64]:
    try:
        points = np.array(ring, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the polygon {ring!r:.60} is no list [x, y, x, y, ...]") from error
    if len(points) < 3 or not np.isfinite(points).all():
        raise ValueError(f"the polygon {ring!r:.60} has no three points")
    return points


def _mask_from_runs(outline: Mapping[str, Any]) -> Mask:
    """COCO's run lengths: column by column, outside first."""
    try:
        height, width = (int(side) for side in outline["size"])
        counts = outline["counts"]
        runs = np.array(_decompress_counts(counts) if isinstance(counts, str) else counts, np.int64)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{outline!r:.60} is not {{size: [height, width], counts: run lengths}}") from error
    if min(height, width) < 1 or height * width > _MOST_PIXELS or runs.ndim != 1 or (runs < 0).any():
        raise ValueError(f"run lengths of {height} x {width} pixels with counts {counts!r:.40} cannot be")
    if runs.sum() != height * width:
        raise ValueError(f"run lengths of {runs.sum():,} pixels do not fill {height} x {width}")
    mask: Mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    return mask


def _decompress_counts(text: str) -> list[int]:
    """Five bits a character, lowest first, the sixth says that more follow; from the third on, the difference to the
    count two before (pycocotools' maskApi).
    """
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[place]) - 48
            if not 0 <= bits < 64:
                raise ValueError(text[place])
            value |= (bits & 0x1F) << shift
            more, shift, place = bool(bits & 0x20), shift + 5, place + 1
            if not more and bits & 0x10:
                value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


_FARTHEST = 5.0
_COARSER = (2, 4)  # voxels that are one, along each axis


class VoxelFeatures:
    """A row of numbers for each voxel of a shrunk volume: its value, its surroundings at three scales, and its place.

    Nothing is learned. Values are scaled to median 0 and a spread (5th to 95th percentile) of 1 within their volume;
    the raw values follow in a bounded scale.
    """

    def __init__(self, side: int) -> None:
        """`side`: of the cube that a volume becomes."""
        self._side = side

    def encode(self, examples: Sequence[Example]) -> UnitRows:
        """A row for each voxel of each cube, slice by slice and row by row."""
        rows = np.concatenate([_voxel_rows(example.media, self._side) for example in examples])
        return UnitRows(rows, np.full(len(examples), self._side**3, np.int64))

    def settings(self) -> RepresentationSettings:
        return {"kind": "voxel features", "side": self._side}

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> VoxelFeatures:
        return cls(settings["side"])


def _voxel_rows(volume: Volume, side: int) -> npt.NDArray[np.float32]:
    """(side**3, 14)"""
    cube = resample(volume["voxels"], (side, side, side))
    low, middle, high = np.percentile(cube, (5, 50, 95))
    own = np.clip((cube - middle) / max(high - low, float(np.ptp(cube)) / 100, 1e-6), -_FARTHEST, _FARTHEST)
    own = own.astype(np.float32)
    around = [_coarsen(own, max(side // length, 1)) for length in _COARSER]
    steep = np.sqrt(np.square(np.asarray(np.gradient(own))).sum(axis=0))
    places = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    columns = [own, own**2, *around, *(own - each for each in around), steep, np.arcsinh(cube) / _FARTHEST]
    columns += [*places, *(place**2 for place in places)]
    return np.stack(columns, axis=-1).reshape(side**3, len(columns)).astype(np.float32)


def _coarsen(cube: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    return resample(resample(cube, (side, side, side)), (cube.shape[0], cube.shape[1], cube.shape[2]))
