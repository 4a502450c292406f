"""The plain networks of Greydanus & Kobak 2024 ("Scaling down deep learning with MNIST-1D"), layer by layer: `new:mlp`,
`new:cnn` and `new:gru`, for series that line up.

Steps are taken as they are, in units of the training series' spread. All that the last layer says, step by step, is the
one state of a series: no place is forgotten, as it is by a mean over the steps. So all series get the length of the
longest in training: shorter ones are filled with the training series' mean, at the end or, with `ending`, before it;
longer ones are interpolated or, with `ending`, cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speciate.models.backbones.contract import BackboneSettings, Item, States, refuse_units, seeded
from speciate.models.backbones.time_series import Scale, at_most, checked, fitted, refuse_folder

if TYPE_CHECKING:
    import torch

_FARTHEST = 100.0  # spreads: what lies farther is a fault of the sensor, and no number for a network
_HIDDEN = 100  # of the MLP
_CHANNELS, _KERNELS = 25, (5, 3, 3)  # of the CNN; every convolution has a stride of 2 and 1 step of padding
_UNITS = 6  # of the GRU, in each direction


class FixedLengthBackbone:
    modality = "time-series"
    unit: str | None = None

    def __init__(
        self, base_model: str, architecture: str, scale: Scale, module: torch.nn.Module, *, ending: bool
    ) -> None:
        self.base_model, self._architecture, self._scale = base_model, architecture, scale
        self.module, self._ending = module, ending
        self.width = _width(architecture, scale.steps)

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`media`: float32 (C, T) each -> `values`: (C, T'), T' the same for all. INVALID for other channels."""
        if per_unit:
            refuse_units(self)
        return [self._item(medium) for medium in media]

    def length(self, item: Item) -> int:
        return int(item["values"].shape[1])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`values`: (B, C, T')"""
        import torch

        return {"values": torch.from_numpy(np.stack([item["values"] for item in items]))}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        import torch

        pooled = _READ[self._architecture](self.module, batch["values"])
        mask = torch.ones(len(pooled), 1, dtype=torch.bool, device=pooled.device)
        return States(pooled[:, None], mask, pooled)

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model, "architecture": self._architecture, "modality": self.modality,
            "scale": self._scale._asdict(), "ending": self._ending,
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {}

    def _item(self, medium: Any) -> Item:
        series, steps = checked(self, medium, len(self._scale.mean)), self._scale.steps
        mean, std = (np.array(each, np.float64)[:, None] for each in (self._scale.mean, self._scale.std))
        shown = series[:, -steps:] if self._ending else at_most(series, steps)
        scaled = np.clip((shown - mean) / std, -_FARTHEST, _FARTHEST).astype(np.float32)
        missing = steps - scaled.shape[1]
        return {"values": np.pad(scaled, ((0, 0), (missing, 0) if self._ending else (0, missing)))}


def build(
    base_model: str, media: Sequence[Any], seed: int, folder: Path | None, *, ending: bool = False
) -> FixedLengthBackbone:
    """INVALID where the training series differ in their channels."""
    if folder is not None:
        refuse_folder(base_model)
    scale = fitted(media)
    with seeded(seed):
        module = _network(base_model, scale)
    return FixedLengthBackbone(base_model, base_model, scale, module, ending=ending)


def rebuild(settings: Mapping[str, Any], folder: Path) -> FixedLengthBackbone:
    scale, architecture = Scale(**settings["scale"]), settings["architecture"]
    module = _network(architecture, scale)
    return FixedLengthBackbone(settings["base_model"], architecture, scale, module, ending=settings["ending"])


def _width(architecture: str, steps: int) -> int:
    if architecture == "new:mlp":
        return _HIDDEN
    if architecture == "new:gru":
        return 2 * _UNITS * steps
    for kernel in _KERNELS:
        steps = (steps + 2 - kernel) // 2 + 1
    return _CHANNELS * steps


def _network(architecture: str, scale: Scale) -> Any:
    from torch import nn

    channels = len(scale.mean)
    if architecture == "new:mlp":
        return nn.ModuleList([nn.Linear(channels * scale.steps, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN)])
    if architecture == "new:gru":
        return nn.GRU(channels, _UNITS, batch_first=True, bidirectional=True)
    widths = (channels, _CHANNELS, _CHANNELS)
    return nn.ModuleList(
        [
            nn.Conv1d(width, _CHANNELS, kernel, stride=2, padding=1)
            for width, kernel in zip(widths, _KERNELS, strict=True)
        ]
    )


# (B, C, T) -> (B, W)


def _mlp(layers: Any, values: torch.Tensor) -> torch.Tensor:
    first, second = layers
    hidden = first(values.flatten(1)).relu()
    read: torch.Tensor = hidden + second(hidden).relu()
    return read


def _cnn(layers: Any, values: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        values = layer(values).relu()
    return values.flatten(1)


def _gru(network: Any, values: torch.Tensor) -> torch.Tensor:
    read: torch.Tensor = network(values.mT)[0]
    return read.flatten(1)


_READ = {"new:mlp": _mlp, "new:cnn": _cnn, "new:gru": _gru}
