"""Networks that read volumes: `new:cnn3d`, residual convolutions of three axes (He et al. 2016; Hara et al. 2018), and
`new:unet3d`, which has a state for each voxel (Çiçek et al. 2016).

Every volume becomes a cube, resampled along each axis: all of it is seen, at the price of its proportions. It is seen
twice: in units of the training volumes' spread, so that absolute scales such as Hounsfield units mean something, and in
units of its own, so that scanners without such a scale do no harm. Norms are of groups of channels within a volume,
not of the batch, whose few volumes would say little, and strides take the place of pooling: both departures keep what
is computed the same however a batch is divided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.medical.volumes import Volume, is_volume, resample
from speciate.models.backbones.contract import BackboneSettings, Item, States, refuse_medium, refuse_units, seeded

if TYPE_CHECKING:
    import torch
    from torch import nn

_SIDES = {"new:cnn3d": (24, 48), "new:unet3d": (24, 64)}
"""Voxels along each axis of the cube, at least and at most. Halved three times, 16 would end at 2, where torch 2.13
on a processor gives gradients in bfloat16 that are no numbers; at 3 it does not."""
_HALVINGS = {"new:cnn3d": 3, "new:unet3d": 3}
_WIDTHS = {"new:cnn3d": (16, 32, 64), "new:unet3d": (12, 24, 48, 96)}
_STATES = {"new:cnn3d": 64, "new:unet3d": 12}
_GROUPS = 4
_FITTED_ON = 200  # volumes
_FARTHEST = 5.0  # spreads: implants and noise are no brighter
_BODY = 5, 95  # percentiles between which a volume's spread is measured


class Preprocessing(NamedTuple):
    side: int
    mean: float
    std: float
    """Standard deviation of the voxels of the training volumes; `mean` likewise."""


class VolumeBackbone:
    modality = "volume"
    unit: str | None = None

    def __init__(self, base_model: str, architecture: str, preprocessing: Preprocessing, module: nn.Module) -> None:
        self.base_model, self.module = base_model, module
        self._architecture, self._preprocessing = architecture, preprocessing
        self.width = _STATES[architecture]

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`media`: volumes -> `voxels`: float32 (2, side, side, side)."""
        if per_unit:
            refuse_units(self)
        return [{"voxels": self._seen(medium)} for medium in media]

    def length(self, item: Item) -> int:
        return int(item["voxels"].shape[1])  # all alike

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`voxels`: float32 (B, 2, side, side, side)"""
        import torch

        return {"voxels": torch.from_numpy(np.stack([item["voxels"] for item in items]))}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        """States at the coarsest grid of `new:cnn3d`, or at all voxels of the cube of `new:unet3d`. Pooled by the mean,
        and half of the channels by the most that they are anywhere, which finds what is small."""
        import torch

        maps: torch.Tensor = self.module(batch["voxels"])
        sequence = maps.flatten(2).mT
        mask = torch.ones(sequence.shape[:2], dtype=torch.bool, device=sequence.device)
        depth, height, width = maps.shape[2:]
        half = self.width // 2
        pooled = torch.cat([sequence[..., :half].mean(1), sequence[..., half:].amax(1)], 1)
        return States(sequence, mask, pooled, (depth, height, width))

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model, "architecture": self._architecture, "modality": self.modality,
            "preprocessing": self._preprocessing._asdict(),
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {}

    def _seen(self, medium: Any) -> npt.NDArray[np.float32]:
        if not is_volume(medium):
            refuse_medium(self, medium)
        side = self._preprocessing.side
        cube = resample(medium["voxels"], (side, side, side)).astype(np.float64)
        low, middle, high = np.percentile(cube, (_BODY[0], 50, _BODY[1]))
        own = (cube - middle) / max(high - low, np.ptp(cube) / 100, 1e-6)
        scaled = (cube - self._preprocessing.mean) / self._preprocessing.std
        return np.asarray(np.clip(np.stack([scaled, own]), -_FARTHEST, _FARTHEST), np.float32)


def build(base_model: str, media: Sequence[Any], seed: int, folder: Path | None) -> VolumeBackbone:
    if folder is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{base_model!r} is a folder of transformers, of which none that reads volumes is known here.",
            "Use 'new:cnn3d' or 'new:unet3d', or a model that was trained on volumes here.",
        )
    preprocessing = _fitted(base_model, media)
    with seeded(seed):
        module = _network(base_model)
    return VolumeBackbone(base_model, base_model, preprocessing, module)


def rebuild(settings: Mapping[str, Any], folder: Path) -> VolumeBackbone:
    architecture = settings["architecture"]
    preprocessing = Preprocessing(**settings["preprocessing"])
    return VolumeBackbone(settings["base_model"], architecture, preprocessing, _network(architecture))


def _fitted(architecture: str, media: Sequence[Volume]) -> Preprocessing:
    """The side is that of the longest axis in training, so far as it may be."""
    least, most = _SIDES[architecture]
    longest = max((side for medium in media for side in medium["voxels"].shape), default=least)
    step = 2 ** _HALVINGS[architecture]
    side = math.ceil(min(max(longest, least), most) / step) * step
    means, squares = [], []
    for medium in media[:: max(1, len(media) // _FITTED_ON)]:
        means.append(float(medium["voxels"].mean(dtype=np.float64)))
        squares.append(float(np.square(medium["voxels"], dtype=np.float64).mean()))
    mean = float(np.mean(means)) if means else 0.0
    std = math.sqrt(max(float(np.mean(squares)) - mean**2, 0.0)) if squares else 1.0
    return Preprocessing(side, mean, std or 1.0)


def _network(architecture: str) -> nn.Module:
    widths = _WIDTHS[architecture]
    return _residual(widths) if architecture == "new:cnn3d" else _u_shaped(widths)


def _residual(widths: Sequence[int]) -> nn.Module:
    """A convolution, then a block of each width; the convolution, and all blocks but the first, halve the sides."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv3d(before, after, 3, stride, 1, bias=False)
            self.second = nn.Conv3d(after, after, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.GroupNorm(_GROUPS, after) for _ in range(2)])
            self.around = nn.Conv3d(before, after, 1, stride, bias=False)

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            inner = self.norms[0](self.first(maps)).relu()
            whole: torch.Tensor = (self.norms[1](self.second(inner)) + self.around(maps)).relu()
            return whole

    stem = nn.Sequential(nn.Conv3d(2, widths[0], 3, 2, 1, bias=False), nn.GroupNorm(_GROUPS, widths[0]), nn.ReLU())
    blocks = [Block(widths[0], widths[0], 1), *(Block(before, after, 2) for before, after in pairwise(widths))]
    return nn.Sequential(stem, *blocks)


def _u_shaped(widths: Sequence[int]) -> nn.Module:
    """Down by strides, up by transposed convolutions, with what was there at each level beside what comes up."""
    import torch
    from torch import nn

    def twice(before: int, after: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(
            nn.Conv3d(before, after, 3, stride, 1, bias=False), nn.GroupNorm(_GROUPS, after), nn.ReLU(),
            nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.GroupNorm(_GROUPS, after), nn.ReLU(),
        )  # fmt: skip

    class U(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = list(pairwise(widths))
            self.first = twice(2, widths[0])
            self.down = nn.ModuleList([twice(upper, lower, 2) for upper, lower in pairs])
            self.up = nn.ModuleList([nn.ConvTranspose3d(lower, upper, 2, 2) for upper, lower in pairs])
            self.joined = nn.ModuleList([twice(2 * upper, upper) for upper, _ in pairs])

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            levels = [self.first(maps)]
            for down in self.down:
                levels.append(down(levels[-1]))
            low: torch.Tensor = levels.pop()
            for up, joined in zip(reversed(self.up), reversed(self.joined), strict=True):
                low = joined(torch.cat([levels.pop(), up(low)], 1))
            return low

    return U()
