"""What a text-to-image pipeline learns: to tell the noise that was added to the latents of an image, by its caption.

The loss is the publisher's: the mean squared error of the noise, or of the velocity where the pipeline predicts that
(Ho et al. 2020; Salimans & Ho 2022). Held-out examples are judged at fixed noise levels with fixed noise, so that two
judgements differ by the weights alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, PrivateAttr

from speciate.errors import Code, SpeciateError
from speciate.modalities.image_answers import decode_image
from speciate.models.backbones.contract import Item, States
from speciate.models.diffusion.pipeline import Pipeline
from speciate.tasks.families.image_generation import ImageGeneration

if TYPE_CHECKING:
    import torch

_STATES, _EMPTY = "states", "empty"
_JUDGED_LEVELS = 8
"""Noise levels, evenly apart, at which a held-out example is judged."""
_WITHOUT_CAPTION = 0.1
"""Share of captions that are dropped in training, so that guidance keeps working (Ho & Salimans 2022)."""


class DenoisingNetwork:
    """A `Network` of models/backbones/contract.py: its UNet is trained, the other parts are as published. A medium is a
    caption, and its item the states of the text encoder."""

    label_tensors: tuple[str, ...] = ()
    modality = "text"
    unit = None

    def __init__(self, pipeline: Pipeline, base_model: str) -> None:
        self.pipeline, self.base_model = pipeline, base_model
        self._known: dict[str, npt.NDArray[np.float32]] = {}

    @property
    def module(self) -> torch.nn.Module:
        found: torch.nn.Module = self.pipeline.unet
        return found

    @property
    def width(self) -> int:
        return int(self.pipeline.unet.config.in_channels)

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        for medium in media:
            if not isinstance(medium, str):
                raise SpeciateError(
                    Code.INVALID, f"{self.base_model!r} draws images from captions, and an example has none.",
                    "Name the column with the captions as target.",
                )  # fmt: skip
        empty = self._states("")
        return [{_STATES: self._states(caption), _EMPTY: empty} for caption in media]

    def length(self, item: Item) -> int:
        return len(item[_STATES])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        import torch

        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in (_STATES, _EMPTY)}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        raise TypeError("a pipeline has its own loss")

    def _states(self, caption: str) -> npt.NDArray[np.float32]:
        """(T, W); each caption once."""
        if caption not in self._known:
            self._known[caption] = self.pipeline.states([caption])[0].numpy()
        return self._known[caption]


class DenoisingHead(ImageGeneration):
    """Task head of one pipeline; it is not stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    _pipeline: Pipeline = PrivateAttr()

    def encode_targets(self, targets: Sequence[Any]) -> Any:
        """(N, C, h, w) float32 latents."""
        return self._pipeline.latents([decode_image(target) for target in targets])

    def forward_loss(
        self, network: DenoisingNetwork, batch: Mapping[str, torch.Tensor], targets: Any
    ) -> tuple[torch.Tensor, int]:
        """At random noise levels, by torch's own generator, which the training has for itself."""
        import torch

        latents = torch.as_tensor(targets, device=batch[_STATES].device)
        count = len(latents)
        when = torch.randint(self._pipeline.noise.config.num_train_timesteps, (count,)).to(latents.device)
        noise = torch.randn(latents.shape).to(latents.device)
        dropped = (torch.rand(count) < _WITHOUT_CAPTION).to(latents.device)
        states = torch.where(dropped[:, None, None], batch[_EMPTY], batch[_STATES])
        return self._errors(network, latents, noise, when, states).mean(), count

    def held_out_errors(
        self, network: DenoisingNetwork, batch: Mapping[str, torch.Tensor], targets: Any
    ) -> Sequence[npt.NDArray[Any]]:
        """(1,) of each example: its mean squared error over all judged noise levels."""
        import torch

        device = batch[_STATES].device
        latents = torch.as_tensor(targets, device=device)
        steps = self._pipeline.noise.config.num_train_timesteps
        total = torch.zeros(len(latents), device=device)
        for level in range(_JUDGED_LEVELS):
            when = torch.full((len(latents),), int((level + 0.5) * steps / _JUDGED_LEVELS), device=device)
            noise = torch.stack([_noise_of(each, level) for each in latents.cpu()]).to(device)
            total += self._errors(network, latents, noise, when, batch[_STATES])
        return [np.array([each]) for each in (total / _JUDGED_LEVELS).tolist()]

    def forward_scores(self, network: DenoisingNetwork, batch: Mapping[str, torch.Tensor]) -> Any:
        raise TypeError("a pipeline is judged by held_out_errors")

    def _errors(
        self, network: DenoisingNetwork, latents: torch.Tensor, noise: torch.Tensor, when: torch.Tensor, states: Any
    ) -> torch.Tensor:
        """(B,)"""
        scheduler = self._pipeline.noise
        made = network.module(scheduler.add_noise(latents, noise, when), when, states).sample
        match scheduler.config.prediction_type:
            case "epsilon":
                wanted = noise
            case "v_prediction":
                wanted = scheduler.get_velocity(latents, noise, when)
            case _:
                wanted = latents
        found: torch.Tensor = (made.float() - wanted).pow(2).mean(dim=(1, 2, 3))
        return found


def denoising_head(pipeline: Pipeline) -> DenoisingHead:
    head = DenoisingHead()
    head._pipeline = pipeline
    return head


def _noise_of(latents: torch.Tensor, level: int) -> torch.Tensor:
    """Noise that is the same for the same image and level, whatever else is in the batch."""
    import torch

    seed = zlib.crc32(latents.numpy().tobytes()) * _JUDGED_LEVELS + level
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
