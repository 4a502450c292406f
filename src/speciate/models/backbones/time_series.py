"""Networks that read series: `new:patchtst`, and `new:inceptiontime` (Ismail Fawaz et al. 2020), strong on short ones.

Each channel of each series is brought to mean 0 and spread 1, as both networks need it. The lost level and scale,
relative to those of the training series, are added to every state, so that classes may differ by them alone.
A series longer than `_LONGEST` steps, or for PatchTST than any in training, is interpolated down to that length; with
`ending`, for forecasts, only its last steps are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.models.backbones.contract import (
    Backbone,
    BackboneSettings,
    Item,
    ModelConfig,
    States,
    refuse_medium,
    refuse_units,
    seeded,
)

if TYPE_CHECKING:
    import torch


Series = npt.NDArray[np.float32]  # (C, T)
_LONGEST = 1024
_SHORTEST = 8  # steps; shorter ones are padded
_PATCHES = 32
_FLAT = 1e-6  # of the training values' spread: a channel with less is constant
_FARTHEST = 10.0  # spreads, of levels; natural logarithms, of scales
_LOUD = 10.0  # so much does the level weigh: less, and noise is learned by heart before it (measured)
_WIDTH, _LAYERS, _HEADS = 64, 3, 4
_FILTERS, _BLOCKS, _KERNELS = 16, 6, (39, 19, 9)  # published: 32, 6, (40, 20, 10); odd ones keep the steps in place


class Scale(NamedTuple):
    """Statistics of the training series: one number per channel, and their steps."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    steps: int
    """The most that a network sees."""


class SeriesBackbone:
    modality = "time-series"
    unit: str | None = None

    def __init__(
        self, base_model: str, scale: Scale, config: ModelConfig, module: torch.nn.Module, *, ending: bool = False
    ) -> None:
        """`config`: of transformers' PatchTST; empty for InceptionTime."""
        self.base_model, self._scale, self._config, self.module = base_model, scale, config, module
        self._ending = ending
        self.width: int = config["d_model"] if config else _FILTERS * (len(_KERNELS) + 1)

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`media`: float32 (C, T) each -> `values`: (C, T'), `level`: (2 C,). INVALID for other channels."""
        if per_unit:
            refuse_units(self)
        return [self._item(medium) for medium in media]

    def length(self, item: Item) -> int:
        return int(item["values"].shape[1])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`values`: (B, C, T), `steps`: (B,), `level`: (B, 2 C). Padding is last, or before what ends together."""
        import torch

        steps = [self.length(item) for item in items]
        width = self._scale.steps if self._config else max(_SHORTEST, *steps)
        values = np.zeros((len(items), len(self._scale.mean), width), np.float32)
        for row, item, length in zip(values, items, steps, strict=True):
            begin = width - length if self._ends_together else 0
            row[:, begin : begin + length] = item["values"]
        level = np.stack([item["level"] for item in items])
        return {name: torch.from_numpy(each) for name, each in
                (("values", values), ("steps", np.array(steps)), ("level", level))}  # fmt: skip

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        parts: Any = self.module
        if self._config:
            sequence, mask = _patchtst(parts, batch["values"], batch["steps"], ends_together=self._ends_together)
        else:
            sequence, mask = _inception(parts, batch["values"], batch["steps"])
        sequence = sequence + parts["level"](_LOUD * batch["level"])[:, None]
        counted = mask[..., None].to(sequence.dtype)
        return States(sequence, mask, (sequence * counted).sum(1) / counted.sum(1))

    @property
    def _ends_together(self) -> bool:
        """Whether the last step has the same place in every series: positions of PatchTST are learned (measured: a
        sixth of the error of forecasts from windows of several lengths)."""
        return bool(self._config) and self._ending

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model, "modality": self.modality, "config": self._config,
            "scale": self._scale._asdict(), "ending": self._ending,
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {}

    def _item(self, medium: Any) -> Item:
        mean, std, steps = (np.array(each, np.float64) for each in self._scale)
        series = checked(self, medium, len(mean))
        values = (series[:, -int(steps) :] if self._ending else series).astype(np.float64)
        level, scale = values.mean(1), values.std(1)
        varies = scale > _FLAT * std
        shape = (values - level[:, None]) / np.where(varies, scale, 1.0)[:, None] * varies[:, None]
        lost = [(level - mean) / std, np.log(np.maximum(scale / std, _FLAT))]
        return {
            "values": at_most(shape.astype(np.float32), int(steps)),
            "level": np.clip(np.concatenate(lost), -_FARTHEST, _FARTHEST).astype(np.float32),
        }


def build(
    base_model: str, media: Sequence[Any], seed: int, folder: Path | None, *, ending: bool = False
) -> SeriesBackbone:
    """`new:patchtst` or `new:inceptiontime`. INVALID where the training series differ in their channels."""
    if folder is not None:
        refuse_folder(base_model)
    scale = fitted(media)
    config: ModelConfig = {}
    if base_model == "new:patchtst":
        stride = math.ceil(scale.steps / _PATCHES)
        scale = scale._replace(steps=max(math.ceil(scale.steps / stride), 3) * stride)
        config = {
            "num_input_channels": len(scale.mean), "context_length": scale.steps, "patch_length": 2 * stride,
            "patch_stride": stride, "d_model": _WIDTH, "ffn_dim": 2 * _WIDTH, "num_hidden_layers": _LAYERS,
            "num_attention_heads": _HEADS, "norm_type": "layernorm", "scaling": None,
        }  # fmt: skip
    with seeded(seed):
        return SeriesBackbone(base_model, scale, config, _network(config, len(scale.mean)), ending=ending)


def rebuild(settings: Mapping[str, Any], folder: Path) -> SeriesBackbone:
    scale, config = Scale(**settings["scale"]), settings["config"]
    module = _network(config, len(scale.mean))
    return SeriesBackbone(settings["base_model"], scale, config, module, ending=settings["ending"])


def refuse_folder(base_model: str) -> NoReturn:
    raise SpeciateError(
        Code.INVALID, f"{base_model!r}: folders of networks for series are not read.", "Use 'new:inceptiontime'."
    )


def checked(backbone: Backbone, medium: Any, channels: int) -> Series:
    """Raises INVALID for another medium, or other channels."""
    if not (isinstance(medium, np.ndarray) and medium.ndim == 2 and medium.size):
        refuse_medium(backbone, medium)
    if len(medium) != channels:
        raise SpeciateError(
            Code.INVALID,
            f"The series has {len(medium)} channels; {backbone.base_model!r} was made for {channels}.",
            "Give series with the same channels as the training examples.",
        )
    return medium


def fitted(media: Sequence[Series]) -> Scale:
    """INVALID where the series differ in their channels."""
    channels = sorted({len(medium) for medium in media})
    if len(channels) != 1:
        raise SpeciateError(
            Code.INVALID,
            f"The training series have {', '.join(map(str, channels)) or 'no'} channels; a network reads one number.",
            "Filter the dataset by the column channels with curate_dataset.",
        )
    count = sum(medium.shape[1] for medium in media)
    mean = sum(medium.sum(1, dtype=np.float64) for medium in media) / count
    power = sum(np.square(medium - mean[:, None]).sum(1) for medium in media) / count
    std = np.where(power > 0, np.sqrt(power), 1.0)
    steps = max(medium.shape[1] for medium in media)
    return Scale(tuple(mean.tolist()), tuple(std.tolist()), min(max(steps, _SHORTEST), _LONGEST))


def at_most(shape: Series, steps: int) -> Series:
    length = shape.shape[1]
    if length <= steps:
        return shape
    places = np.linspace(0, length - 1, steps)
    return np.stack([np.interp(places, np.arange(length), channel) for channel in shape]).astype(np.float32)


def _network(config: ModelConfig, channels: int) -> Any:
    from torch import nn

    if not config:
        width = _FILTERS * (len(_KERNELS) + 1)
        blocks = [_inception_block(channels if at == 0 else width) for at in range(_BLOCKS)]
        ways = [_shortcut(channels if at == 0 else width, width) for at in range(_BLOCKS // 3)]
        return nn.ModuleDict(
            {"blocks": nn.ModuleList(blocks), "ways": nn.ModuleList(ways), "level": nn.Linear(2 * channels, width)}
        )
    from transformers import PatchTSTConfig, PatchTSTModel

    return nn.ModuleDict(
        {
            "patchtst": PatchTSTModel(PatchTSTConfig(**config)),
            "mix": nn.Linear(channels * config["d_model"], config["d_model"]),
            "level": nn.Linear(2 * channels, config["d_model"]),
        }
    )


def _patchtst(
    parts: Any, values: torch.Tensor, steps: torch.Tensor, *, ends_together: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, C, T), (B,) -> (B, P, W), (B, P). Each channel is read alone; the channels of a patch are mixed at the end.

    Attention sees padding, as the library masks none; every series is padded to the same length, so that its states do
    not depend on others.
    """
    import torch

    read = parts["patchtst"](past_values=values.mT).last_hidden_state  # (B, C, P, W)
    sequence = parts["mix"](read.transpose(1, 2).flatten(2))
    config = parts["patchtst"].config
    starts = torch.arange(sequence.shape[1], device=values.device) * config.patch_stride
    if ends_together:
        return sequence, starts + config.patch_length > values.shape[2] - steps[:, None]
    return sequence, starts < steps[:, None]


def _inception_block(channels: int) -> Any:
    from torch import nn

    narrow = _FILTERS if channels > 1 else 1
    return nn.ModuleDict(
        {
            "bottleneck": nn.Conv1d(channels, narrow, 1, bias=False) if channels > 1 else nn.Identity(),
            "convolutions": nn.ModuleList(
                [nn.Conv1d(narrow, _FILTERS, size, padding="same", bias=False) for size in _KERNELS]
            ),
            "pooled": nn.Conv1d(channels, _FILTERS, 1, bias=False),
            "norm": nn.BatchNorm1d(_FILTERS * (len(_KERNELS) + 1)),
        }
    )


def _shortcut(channels: int, width: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv1d(channels, width, 1, bias=False), nn.BatchNorm1d(width))


def _normed(norm: Any, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, W, T) -> the same. In training mean and spread are those of the steps that are there, not of padding."""
    import torch
    from torch.nn import functional

    if not norm.training:
        there: torch.Tensor = norm(values)
        return there
    known = values.mT[mask]
    if len(known) < 2:  # a single step has no spread
        return functional.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    made = torch.zeros_like(values.mT)
    made[mask] = norm(known)
    return made.mT


def _inception(parts: Any, values: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, C, T), (B,) -> (B, T, W), (B, T). Padding is silenced before each convolution: it never reaches a state."""
    import torch
    from torch.nn import functional

    mask = torch.arange(values.shape[2], device=values.device) < steps[:, None]
    seen = mask[:, None]
    state = kept = values
    for at, block in enumerate(parts["blocks"]):
        narrow = block["bottleneck"](state)
        highest = functional.max_pool1d(state.masked_fill(~seen, -torch.inf), 3, stride=1, padding=1)
        pooled = block["pooled"](torch.where(seen, highest, 0.0))
        joined = torch.cat([*(convolve(narrow) for convolve in block["convolutions"]), pooled], dim=1)
        state = functional.relu(_normed(block["norm"], joined, mask)) * seen
        if at % 3 == 2:
            narrowed, norm = parts["ways"][at // 3]
            state = functional.relu(state + _normed(norm, narrowed(kept), mask)) * seen
            kept = state
    return state.mT, mask
