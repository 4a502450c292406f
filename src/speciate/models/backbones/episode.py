"""Networks that read episodes, a state for each step: `new:bc-mlp` the measurements, `new:bc-cnn` these and the
cameras.

Behaviour cloning in its usual form (Mandlekar et al. 2021, "What Matters in Learning from Offline Human
Demonstrations"): a perceptron on scaled measurements, beside which the cameras locate things: each of 32 maps of
three convolutions becomes one place in the image, the mean under its softmax (Levine et al. 2016, "End-to-End
Training of Deep Visuomotor Policies"). The mean training image is subtracted first. No step sees
another: a model that acts knows the present alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.contract import Pixels
from speciate.modalities.robotics.episode import Episode, frames_of_steps
from speciate.models.backbones.contract import (
    Backbone,
    BackboneSettings,
    Item,
    States,
    refuse_medium,
    refuse_units,
    seeded,
)

if TYPE_CHECKING:
    import torch

_WIDTH = 256
_SIDE = 64
"""Pixels of a side of what the convolutions see, of every camera."""
_PLACES = 32
_CONTRAST = 64.0
"""Divisor of a pixel's distance from the mean image, 0 to 255."""
_FARTHEST = 10.0


class Scale(NamedTuple):
    """Mean and spread of the measurements, from the training episodes."""

    mean: list[float]
    std: list[float]


class EpisodeBackbone:
    modality = "episode"
    unit = None
    width = _WIDTH

    def __init__(self, base_model: str, architecture: str, scale: Scale, cameras: Sequence[str], module: Any) -> None:
        self.base_model, self._architecture, self._scale = base_model, architecture, scale
        self._cameras = tuple(cameras)
        self.module: torch.nn.Module = module

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`state`: (T, S) scaled; with cameras `frames`: uint8 (T, 3 C, 64, 64), what each step saw. INVALID where
        there are other measurements than in training, or a camera is missing."""
        if per_unit:
            refuse_units(self)
        return [self._item(medium) for medium in media]

    def length(self, item: Item) -> int:
        return len(item["state"])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`state`: (B, T, S), `mask`: (B, T), and `frames`: (B, T, 3 C, 64, 64)."""
        import torch

        steps = max(len(item["state"]) for item in items)
        state = np.zeros((len(items), steps, len(self._scale.mean)), np.float32)
        mask = np.zeros((len(items), steps), np.bool_)
        for row, item in enumerate(items):
            state[row, : len(item["state"])] = item["state"]
            mask[row, : len(item["state"])] = True
        batch = {"state": torch.from_numpy(state), "mask": torch.from_numpy(mask)}
        if self._cameras:
            frames = np.zeros((len(items), steps, 3 * len(self._cameras), _SIDE, _SIDE), np.uint8)
            for row, item in enumerate(items):
                frames[row, : len(item["frames"])] = item["frames"]
            batch["frames"] = torch.from_numpy(frames)
        return batch

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        import torch

        parts, mask = [batch["state"]], batch["mask"]
        layers: Any = self.module
        if self._cameras:
            frames = batch["frames"]
            parts.append(layers["sight"](frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))
        sequence = layers["thought"](torch.cat(parts, -1))
        weight = mask.unsqueeze(-1).float()
        pooled = (sequence * weight).sum(1) / weight.sum(1).clamp(min=1)
        return States(sequence, mask, pooled)

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model, "architecture": self._architecture, "modality": self.modality,
            "scale": self._scale._asdict(), "cameras": list(self._cameras),
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {}

    def _item(self, medium: Any) -> Item:
        if not isinstance(medium, dict) or "state" not in medium:
            refuse_medium(self, medium)
        episode: Episode = medium  # type: ignore[assignment]  # checked above
        state = episode["state"]
        if state.shape[1] != len(self._scale.mean):
            raise _other_robot(f"measures {state.shape[1]} numbers; {len(self._scale.mean)}")
        scaled = (state.astype(np.float64) - self._scale.mean) / self._scale.std
        item: Item = {"state": np.clip(scaled, -_FARTHEST, _FARTHEST).astype(np.float32)}
        if not self._cameras:
            return item
        if missing := [name for name in self._cameras if name not in episode["cameras"]]:
            raise _other_robot(f"has no camera {missing[0]!r}; {', '.join(self._cameras)}")
        images = [_seen(episode, name) for name in self._cameras]
        return item | {"frames": np.concatenate(images, axis=1)}


def build(base_model: str, media: Sequence[Any], seed: int, folder: Any) -> EpisodeBackbone:
    """INVALID where the training episodes are of different robots, or no camera is in all of them."""
    if folder is not None:
        raise SpeciateError(
            Code.INVALID, f"{base_model!r} reads no published weights.", "Use base_model='new:bc-mlp' or 'new:bc-cnn'."
        )
    scale = _fitted(media)
    cameras = sorted(set.intersection(*(set(episode["cameras"]) for episode in media)))
    if base_model == "new:bc-cnn" and not cameras:
        raise SpeciateError(
            Code.INVALID, "No camera is in all training episodes.", "Train base_model='new:bc-mlp', which needs none."
        )
    chosen = cameras if base_model == "new:bc-cnn" else []
    with seeded(seed):
        module = _network(len(scale.mean), len(chosen))
    backbone = EpisodeBackbone(base_model, base_model, scale, chosen, module)
    if chosen:
        module["sight"].mean.copy_(_mean_image(backbone, media))
    return backbone


def rebuild(settings: Mapping[str, Any], folder: Any) -> Backbone:
    scale, cameras = Scale(**settings["scale"]), settings["cameras"]
    module = _network(len(scale.mean), len(cameras))
    return EpisodeBackbone(settings["base_model"], settings["architecture"], scale, cameras, module)


def _network(numbers: int, cameras: int) -> Any:
    from torch import nn

    parts: dict[str, nn.Module] = {}
    if cameras:
        parts["sight"] = _sight(3 * cameras)
    width = numbers + (2 * _PLACES if cameras else 0)
    parts["thought"] = nn.Sequential(nn.Linear(width, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU())
    return nn.ModuleDict(parts)


def _sight(channels: int) -> torch.nn.Module:
    import torch
    from torch import nn

    class Sight(nn.Module):
        """uint8 (N, C, 64, 64) -> (N, 64): x and y of 32 places, -1 to 1."""

        mean: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(channels, _SIDE, _SIDE))
            self.maps = nn.Sequential(
                nn.Conv2d(channels, _PLACES, 5, 2), nn.ReLU(), nn.Conv2d(_PLACES, _PLACES, 3), nn.ReLU(),
                nn.Conv2d(_PLACES, _PLACES, 3),
            )  # fmt: skip

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.maps((images.float() - self.mean) / _CONTRAST)
            share = maps.flatten(2).softmax(-1).unflatten(2, maps.shape[2:])
            axis = torch.linspace(-1, 1, maps.shape[-1], device=maps.device)
            return torch.cat([(share.sum(2) * axis).sum(-1), (share.sum(3) * axis).sum(-1)], 1)

    return Sight()


_MOST_AVERAGED = 1000


def _mean_image(backbone: EpisodeBackbone, media: Sequence[Episode]) -> torch.Tensor:
    """(3 C, 64, 64), of some training episodes."""
    import torch

    some = media[:: max(1, len(media) // _MOST_AVERAGED)]
    frames = np.concatenate([item["frames"] for item in backbone.prepare(some)])
    return torch.from_numpy(frames.mean(axis=0, dtype=np.float64).astype(np.float32))


def _fitted(media: Sequence[Episode]) -> Scale:
    widths = sorted({episode["state"].shape[1] for episode in media})
    if len(widths) > 1:
        raise SpeciateError(
            Code.INVALID,
            f"The training episodes measure from {widths[0]} to {widths[-1]} numbers: not those of one robot.",
            "Keep those of one: curate_dataset(steps=[{'op': 'filter', 'where': 'state_width = ...'}]).",
        )
    rows = np.concatenate([episode["state"] for episode in media]).astype(np.float64)
    std = rows.std(axis=0)
    return Scale(rows.mean(axis=0).tolist(), np.where(std > 1e-9, std, 1.0).tolist())


def _seen(episode: Episode, camera: str) -> npt.NDArray[np.uint8]:
    """(T, 3, 64, 64): what the camera saw at each step."""
    from PIL import Image

    frames: Pixels = episode["cameras"][camera]["frames"]
    small = [
        np.asarray(Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        for frame in frames
    ]
    return np.stack(small)[frames_of_steps(episode, camera)]


def _other_robot(what: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"This episode {what} are what the network was trained on.", "Bring episodes of the same robot."
    )
