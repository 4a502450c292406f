"""Networks that read videos: `new:videomae`, fresh and small, and transformers' VideoMAE models in a folder.

A network sees a fixed number of frames, evenly spaced over the clip; of a shorter clip some are seen twice. Every frame
becomes a square: none of it is cut off, at the price of its proportions. States are tubes of patches over two frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate import foreign_files
from speciate.models.backbones import hf_transformers
from speciate.models.backbones.contract import BackboneSettings, Item, ModelConfig, States, refuse_medium, refuse_units

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]
_FRAMES, _TUBE = 16, 2
_SIDES, _PATCHES = (32, 64, 112), 4
"""Sides of a fresh network's images, and patches along each."""
_WIDTH, _LAYERS, _HEADS = 96, 4, 3
_FITTED_ON = 200  # clips
_LEAST_SPREAD = 0.01
_BILINEAR = 2  # in Pillow
_LABELS = ("id2label", "label2id", "problem_type")  # of the task that a published model was trained for


class Preprocessing(NamedTuple):
    frames: int
    side: int
    """Side of the square that every frame becomes, in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Standard deviation of each channel, where white is 1; `mean` likewise."""
    resample: int = _BILINEAR
    """Filter, by Pillow's number."""


class VideoBackbone:
    modality = "video"
    unit: str | None = None

    def __init__(
        self, base_model: str, config: ModelConfig, preprocessing: Preprocessing, module: torch.nn.Module
    ) -> None:
        """`config`: of transformers' VideoMAE."""
        self.base_model, self.module = base_model, module
        self._config, self._preprocessing = config, preprocessing
        self.width = int(config["hidden_size"])

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`media`: clips of modalities/video/video.py -> `pixels`: uint8 (F, 3, side, side)."""
        if per_unit:
            refuse_units(self)
        for medium in media:
            if not _is_clip(medium):
                refuse_medium(self, medium)
        return [{"pixels": _squares(medium["frames"], self._preprocessing)} for medium in media]

    def length(self, item: Item) -> int:
        return int(item["pixels"].shape[0])  # all alike

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`pixels`: float32 (B, F, 3, side, side)"""
        import torch

        pixels = torch.from_numpy(np.stack([item["pixels"] for item in items])).float() / 255
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (self._preprocessing.mean, self._preprocessing.std))
        return {"pixels": (pixels - mean) / std}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        import torch

        module: Any = self.module
        sequence: torch.Tensor = module(pixel_values=batch["pixels"]).last_hidden_state
        mask = torch.ones(sequence.shape[:2], dtype=torch.bool, device=sequence.device)
        return States(sequence, mask, sequence.mean(1))

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model, "modality": self.modality, "config": self._config,
            "preprocessing": self._preprocessing._asdict(),
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {}


def build(base_model: str, media: Sequence[Any], seed: int, folder: Path | None) -> VideoBackbone:
    """`new:videomae` or a transformers folder. Raises INVALID or NOT_FOUND."""
    clips = [medium["frames"] for medium in media if _is_clip(medium)]
    if folder is not None:
        return _from_folder(base_model, clips, folder)
    shorter = np.median([min(clip.shape[1:3]) for clip in clips]) if clips else _SIDES[-1]
    side = next((side for side in _SIDES if side >= shorter), _SIDES[-1])
    from transformers import VideoMAEConfig

    config = VideoMAEConfig(
        image_size=side, patch_size=side // _PATCHES, num_frames=_FRAMES, tubelet_size=_TUBE, hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH, num_hidden_layers=_LAYERS, num_attention_heads=_HEADS,
    )  # fmt: skip
    module = hf_transformers.build_fresh(config, seed)
    return VideoBackbone(base_model, hf_transformers.settings_of(config), _fitted(clips, _FRAMES, side), module)


def rebuild(settings: Mapping[str, Any], folder: Path) -> VideoBackbone:
    config = settings["config"]
    preprocessing = Preprocessing(**settings["preprocessing"])
    return VideoBackbone(
        settings["base_model"], config, preprocessing, hf_transformers.build_empty(hf_transformers.config_of(config))
    )


def _from_folder(base_model: str, clips: Sequence[Pixels], folder: Path) -> VideoBackbone:
    module: Any = hf_transformers.load_published(folder)
    config = {name: each for name, each in hf_transformers.settings_of(module.config).items() if name not in _LABELS}
    path = folder / "preprocessor_config.json"
    config_file = foreign_files.read_json(path) if path.is_file() else {}
    preprocessing = _fitted(clips, int(config["num_frames"]), int(config["image_size"]))
    if not config_file.get("do_normalize", True):
        preprocessing = preprocessing._replace(mean=(0.0,) * 3, std=(1.0,) * 3)
    elif "image_mean" in config_file and "image_std" in config_file:
        mean, std = (tuple(map(float, config_file[name])) for name in ("image_mean", "image_std"))
        preprocessing = preprocessing._replace(mean=mean, std=std)
    return VideoBackbone(
        base_model, config, preprocessing._replace(resample=config_file.get("resample", _BILINEAR)), module
    )


def _fitted(clips: Sequence[Pixels], frames: int, side: int) -> Preprocessing:
    preprocessing = Preprocessing(frames, side, (0.5,) * 3, (0.5,) * 3)
    step = max(len(clips) // _FITTED_ON, 1)
    seen = [_squares(clip, preprocessing).astype(np.float32) / 255 for clip in clips[::step]]
    if not seen:
        return preprocessing
    mean = np.mean([clip.mean(axis=(0, 2, 3)) for clip in seen], axis=0)
    power = np.mean([np.square(clip).mean(axis=(0, 2, 3)) for clip in seen], axis=0)
    std = np.sqrt(np.maximum(power - mean**2, _LEAST_SPREAD**2))
    return preprocessing._replace(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _squares(frames: Pixels, preprocessing: Preprocessing) -> Pixels:
    """(T, H, W, 3) -> (F, 3, side, side)"""
    from PIL import Image

    places = np.linspace(0, len(frames) - 1, preprocessing.frames).round().astype(int)
    size, resample = (preprocessing.side, preprocessing.side), Image.Resampling(preprocessing.resample)
    squares = {at: np.asarray(Image.fromarray(frames[at]).resize(size, resample)) for at in set(places.tolist())}
    return np.ascontiguousarray(np.stack([squares[at] for at in places.tolist()]).transpose(0, 3, 1, 2))


def _is_clip(medium: Any) -> bool:
    frames = medium.get("frames") if isinstance(medium, dict) else None
    return isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.ndim == 4
