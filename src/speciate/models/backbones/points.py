"""The network that reads clouds and surfaces: `new:pointnet` (Qi et al. 2017, "PointNet").

Every point goes through the same layers, and the largest value of each channel over all points is the state of the
whole: their order does not matter. Of a surface, points are drawn evenly; of a cloud, some of its own; the same ones
each time.

Departures from the publication: each cloud is turned to its own axes, the spread along them deciding their order and
the skewness their direction, in the place of learned transforms and of random turns while it learns, as what is
prepared is kept from epoch to epoch; norms are of a point's own channels, so that what is computed does not depend on
how a batch is divided; and how large a cloud is, which scaling to 1 removes, is an input beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.geometry import mesh
from speciate.models.backbones.contract import BackboneSettings, Item, States, refuse_medium, refuse_units, seeded

if TYPE_CHECKING:
    import torch
    from torch import nn

_POINTS = 512
_WIDTHS = (64, 64, 128, 256)
_LEAST_SPREAD = 0.05  # of the logarithms of sizes: clouds that are all of one size
_FARTHEST = 5.0  # spreads

Points = npt.NDArray[np.float32]  # (N, 3)


class Sizes(NamedTuple):
    """Natural logarithms of how far the points of the training clouds lie from their middles, root mean square."""

    mean: float
    std: float


class PointsBackbone:
    modality = "point-cloud"
    unit: str | None = None

    def __init__(self, base_model: str, sizes: Sizes, module: nn.Module) -> None:
        self.base_model, self._sizes, self.module = base_model, sizes, module
        self.width = _WIDTHS[-1] + 1

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`media`: clouds or meshes -> `points`: float32 (512, 3); `size`: float32 (1,)."""
        if per_unit:
            refuse_units(self)
        return [self._item(medium) for medium in media]

    def length(self, item: Item) -> int:
        return len(item["points"])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`points`: (B, 512, 3); `size`: (B, 1)"""
        import torch

        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in ("points", "size")}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        """A state for each point, with the size of the whole as its last number."""
        import torch

        seen = self.module(batch["points"])
        size = batch["size"][:, None].expand(-1, seen.shape[1], -1)
        sequence = torch.cat([seen, size], dim=2)
        mask = torch.ones(sequence.shape[:2], dtype=torch.bool, device=sequence.device)
        return States(sequence, mask, sequence.amax(dim=1))

    def settings(self) -> BackboneSettings:
        return {"base_model": self.base_model, "modality": self.modality, "sizes": self._sizes._asdict()}

    def files(self) -> dict[str, bytes]:
        return {}

    def _item(self, medium: Any) -> Item:
        if not isinstance(medium, Mapping) or not (
            {"points"} <= medium.keys() or {"vertices", "faces"} <= medium.keys()
        ):
            refuse_medium(self, medium)
        points, size = _posed(_drawn(medium))
        relative = np.clip((size - self._sizes.mean) / self._sizes.std, -_FARTHEST, _FARTHEST)
        return {"points": points, "size": np.array([relative], np.float32)}


def build(base_model: str, media: Sequence[Any], seed: int, folder: Path | None) -> PointsBackbone:
    if folder is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{base_model!r} is a folder of transformers, and none of its networks reads clouds.",
            "Call again with base_model='new:pointnet' or a model that was trained here.",
        )
    sizes = np.array([_posed(_drawn(medium))[1] for medium in media]) if len(media) else np.zeros(1)
    with seeded(seed):
        module = _network()
    return PointsBackbone(base_model, Sizes(float(sizes.mean()), max(float(sizes.std()), _LEAST_SPREAD)), module)


def rebuild(settings: Mapping[str, Any], folder: Path) -> PointsBackbone:
    return PointsBackbone(settings["base_model"], Sizes(**settings["sizes"]), _network())


def _network() -> nn.Module:
    from torch import nn

    layers: list[nn.Module] = []
    for before, after in zip((3, *_WIDTHS), _WIDTHS, strict=False):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers)


def _drawn(medium: Mapping[str, Any]) -> Points:
    """(512, 3); of fewer points some come several times."""
    if "faces" in medium:
        return mesh.sampled(mesh.MeshMedia(vertices=medium["vertices"], faces=medium["faces"]), _POINTS).points
    points = medium["points"]
    chance = np.random.default_rng(0)
    whole, more = divmod(_POINTS, len(points)) if len(points) < _POINTS else (0, _POINTS)
    chosen = np.concatenate([np.tile(np.arange(len(points)), whole), chance.permutation(len(points))[:more]])
    return np.asarray(points[chosen], np.float32)


def _posed(points: Points) -> tuple[Points, float]:
    """Around their middle, at a root mean square distance of 1, along their own axes; and the logarithm of what that
    distance was. A turn of the whole, not its mirror image."""
    centred = points.astype(np.float64) - points.mean(axis=0)
    radius = max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12)
    centred /= radius
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    skewed = ((centred @ axes) ** 3).sum(axis=0)
    axes = axes * np.where(skewed < 0, -1, 1)
    if np.linalg.det(axes) < 0:
        axes[:, np.abs(skewed).argmin()] *= -1
    return (centred @ axes).astype(np.float32), float(np.log(radius))
