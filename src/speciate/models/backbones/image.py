"""Networks that read images: `new:resnet`, `new:vit`, any of timm's, and transformers' image models in a folder.

Every image becomes a square: none of it is cut off, at the price of its proportions. States are the grid of patches,
without class or register tokens. `new:vit` is pooled by the mean of its patches, which learns better from little than
a class token (Beyer et al. 2022); others are pooled as they were made to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate import foreign_files
from speciate.errors import Code, SpeciateError, unknown
from speciate.modalities.medical.volumes import is_volume, slice_images
from speciate.models.backbones import hf_transformers
from speciate.models.backbones.contract import (
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

Pixels = npt.NDArray[np.uint8]
_LARGEST = 224
_SMALLEST, _SMALLEST_RESNET, _SMALLEST_TIMM = 8, 32, 64  # pixels; timm's networks halve the sides five times
_FITTED_ON = 1000  # images
_LEAST_SPREAD = 0.01
_BILINEAR = 2  # in Pillow
_WIDTH, _LAYERS, _HEADS = 96, 4, 3  # of the vision transformer
_STAGES = (32, 64, 128, 256)
"""Channels of the residual network's stages; each after the first halves the sides, which are a quarter before it."""
_SMALL = 64
"""Side in pixels up to which three stages do."""
_LABELS = ("id2label", "label2id", "problem_type")  # of the task that a published model was trained for


class Preprocessing(NamedTuple):
    side: int
    """Side of the square that every image becomes, in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Standard deviation of each channel, where white is 1; `mean` likewise."""
    resample: int = _BILINEAR
    """Filter, by Pillow's number."""


class ImageBackbone:
    modality = "image"
    unit: str | None = None

    def __init__(
        self,
        base_model: str,
        config: ModelConfig,
        preprocessing: Preprocessing,
        module: torch.nn.Module,
        weights: str,
    ) -> None:
        """`config`: of transformers, with `model_type`; or `{"timm": NAME}`. `weights`: "fresh" or "published"."""
        self.base_model, self.module = base_model, module
        self._config, self._preprocessing, self._weights = config, preprocessing, weights
        self.width = self._probed()

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`media`: uint8 (H, W, 3) each -> `pixels`: uint8 (3, side, side)."""
        if per_unit:
            refuse_units(self)
        items: list[Item] = []
        for medium in media:
            if (image := _image_of(medium)) is None:
                refuse_medium(self, medium)
            items.append({"pixels": _square(image, self._preprocessing.side, self._preprocessing.resample)})
        return items

    def length(self, item: Item) -> int:
        return int(item["pixels"].shape[1])  # all alike

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`pixels`: float32 (B, 3, side, side)"""
        import torch

        pixels = torch.from_numpy(np.stack([item["pixels"] for item in items])).float() / 255
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (self._preprocessing.mean, self._preprocessing.std))
        return {"pixels": (pixels - mean) / std}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        import torch

        seen = (_of_timm if "timm" in self._config else _of_transformers)(self.module, batch["pixels"])
        mask = torch.ones(seen.sequence.shape[:2], dtype=torch.bool, device=seen.sequence.device)
        whole = seen.pooled
        if whole is None or self.base_model == "new:vit" or whole.shape[1] != seen.sequence.shape[2]:
            whole = seen.sequence.mean(1)
        return States(seen.sequence, mask, whole, seen.grid)

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model, "modality": self.modality, "config": self._config,
            "preprocessing": self._preprocessing._asdict(), "weights": self._weights,
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {}

    def _probed(self) -> int:
        """The width of its states, from trying it: no two libraries name it alike. Refuses what gives no grid."""
        import torch

        side = self._preprocessing.side
        self.module.eval()
        try:
            with torch.no_grad():
                return int(self.states({"pixels": torch.zeros(1, 3, side, side)}).sequence.shape[2])
        except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
            raise SpeciateError(
                Code.INVALID,
                f"{self.base_model!r} gives no grid of states for images of {side} x {side} pixels: {error}",
                "Use 'new:vit', another of timm's models, or another folder.",
            ) from error


def build(base_model: str, media: Sequence[Any], seed: int, folder: Path | None) -> ImageBackbone:
    """`new:NAME`, `timm:NAME`, or a transformers folder. Raises INVALID, NOT_FOUND or MISSING_EXTRA."""
    media = [image for medium in media if (image := _image_of(medium)) is not None]
    if folder is not None:
        return _from_folder(base_model, media, folder)
    if base_model.startswith("timm:"):
        return _from_timm(base_model, media, seed)
    side, config = (_resnet if base_model == "new:resnet" else _vit)(media)
    module = hf_transformers.build_fresh(config, seed)
    return ImageBackbone(base_model, hf_transformers.settings_of(config), _fitted(media, side), module, "fresh")


def _resnet(media: Sequence[Pixels]) -> tuple[int, Any]:
    """Side and config. Basic blocks, as in the network for CIFAR: the convolutions of a bottleneck are for width."""
    from transformers import ResNetConfig

    side = _fitting_side(media, _SMALLEST_RESNET)
    stages = list(_STAGES[: 3 if side <= _SMALL else 4])
    config = ResNetConfig(embedding_size=stages[0], hidden_sizes=stages, depths=[2] * len(stages), layer_type="basic")
    return math.ceil(side / 4) * 4, config


def _vit(media: Sequence[Pixels]) -> tuple[int, Any]:
    from transformers import ViTConfig

    side = _fitting_side(media, _SMALLEST)
    patch = 2 if side <= 16 else 4 if side <= 64 else 8 if side <= 112 else 16
    side = math.ceil(side / patch) * patch
    config = ViTConfig(
        image_size=side, patch_size=patch, hidden_size=_WIDTH, intermediate_size=2 * _WIDTH, num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
    )  # fmt: skip
    return side, config


def rebuild(settings: Mapping[str, Any], folder: Path) -> ImageBackbone:
    preprocessing = Preprocessing(**settings["preprocessing"])
    config = settings["config"]
    return ImageBackbone(settings["base_model"], config, preprocessing, _network(config), settings["weights"])


def _image_of(medium: Any) -> Pixels | None:
    """The medium itself, or the gray image that a volume of one slice is; None of all else."""
    if is_volume(medium):
        return slice_images(medium, 1)[0] if len(medium["voxels"]) == 1 else None
    if isinstance(medium, np.ndarray) and medium.dtype == np.uint8 and medium.shape[2:] == (3,):
        return medium
    return None


class _Seen(NamedTuple):
    sequence: torch.Tensor
    pooled: torch.Tensor | None
    grid: tuple[int, int]


def _of_transformers(module: Any, pixels: torch.Tensor) -> _Seen:
    """Convolutions give (B, W, h, w); transformers (B, T, W) with class and register tokens before the patches."""
    out = module(pixel_values=pixels)
    states, pooled = out.last_hidden_state, getattr(out, "pooler_output", None)
    if states.ndim == 4:
        return _Seen(states.flatten(2).mT, None if pooled is None else pooled.flatten(1), tuple(states.shape[2:]))
    patch = getattr(module.config, "patch_size", None)
    height, width = (side // patch if isinstance(patch, int) else 0 for side in pixels.shape[2:])
    special = states.shape[1] - height * width
    if not (patch and special >= 0):  # patches were merged on the way
        height = width = math.isqrt(states.shape[1])
        special = states.shape[1] - height * width
        if special:
            raise ValueError(f"{states.shape[1]} positions are no square.")
    before = min(special, 1 + getattr(module.config, "num_register_tokens", 0))  # the rest stands behind
    if before and pooled is None:
        pooled = states[:, 0]
    return _Seen(states[:, before : before + height * width], pooled, (height, width))


def _of_timm(module: Any, pixels: torch.Tensor) -> _Seen:
    states = module.forward_features(pixels)
    pooled = module.forward_head(states, pre_logits=True)
    if states.ndim == 4:
        if getattr(module, "output_fmt", "NCHW") == "NCHW":
            states = states.permute(0, 2, 3, 1)
        return _Seen(states.flatten(1, 2), pooled, tuple(states.shape[1:3]))
    patches = states[:, module.num_prefix_tokens :]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise ValueError(f"{patches.shape[1]} positions are no square.")
    return _Seen(patches, pooled, (side, side))


def _network(config: ModelConfig) -> Any:
    if "timm" in config:
        return _timm().create_model(config["timm"], pretrained=False, num_classes=0)
    return hf_transformers.build_empty(hf_transformers.config_of(config))


def _from_folder(base_model: str, media: Sequence[Any], folder: Path) -> ImageBackbone:
    if (name := timm_name(folder)) is not None:
        return _timm_backbone(base_model, name, media, 0, str(folder / "model.safetensors"))
    module: Any = hf_transformers.load_published(folder)
    config = {name: each for name, each in hf_transformers.settings_of(module.config).items() if name not in _LABELS}
    return ImageBackbone(base_model, config, _published(folder, media, config.get("image_size")), module, "published")


def _published(folder: Path, media: Sequence[Any], declared: Any) -> Preprocessing:
    """What preprocessor_config.json says; fitted on the media where it says nothing."""
    path = folder / "preprocessor_config.json"
    processor = foreign_files.read_json(path) if path.is_file() else {}
    crop = processor.get("crop_size") if processor.get("do_center_crop") else None
    side = _number(crop) or _number(processor.get("size")) or _number(declared) or _fitting_side(media, _SMALLEST_TIMM)
    if not processor.get("do_normalize", True):
        return Preprocessing(side, (0.0,) * 3, (1.0,) * 3, processor.get("resample", _BILINEAR))
    if "image_mean" in processor and "image_std" in processor:
        mean, std = (tuple(map(float, processor[name])) for name in ("image_mean", "image_std"))
        return Preprocessing(side, mean, std, processor.get("resample", _BILINEAR))
    return _fitted(media, side)


def _number(size: Any) -> int:
    """The number in `224`, `[224, 224]`, `{"height": 224, "width": 224}` or `{"shortest_edge": 224}`; 0 where there is
    none."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    if isinstance(size, Sequence) and size:
        size = size[0]
    return int(size or 0)


def _from_timm(base_model: str, media: Sequence[Any], seed: int) -> ImageBackbone:
    """Published weights where the hub's cache has them, with their preprocessing; else fresh ones, fitted."""
    timm, name = _timm(), base_model.removeprefix("timm:")
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models(), "Call again with a name that timm lists.")
    return _timm_backbone(
        base_model, name, media, seed, _cached(timm.get_pretrained_cfg(name, allow_unregistered=True))
    )


def timm_name(folder: Path) -> str | None:
    """The network in a folder as timm publishes it; None where it is no such folder."""
    try:
        stored = foreign_files.read_json(folder / "config.json")
        name = (
            f"{stored['architecture']}.{tag}"
            if (tag := stored["pretrained_cfg"].get("tag"))
            else stored["architecture"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return str(name) if "model_type" not in stored else None


def _timm_backbone(base_model: str, name: str, media: Sequence[Any], seed: int, file: str | None) -> ImageBackbone:
    """`file`: published weights; None: fresh ones."""
    timm = _timm()
    with seeded(seed):
        if file is None:
            module = timm.create_model(name, pretrained=False, num_classes=0)
        else:
            module = timm.create_model(
                name, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": file, "hf_hub_id": None}
            )
    data = timm.data.resolve_model_data_config(module)
    fixed = bool(module.pretrained_cfg.get("fixed_input_size")) or file is not None
    side = data["input_size"][1] if fixed else math.ceil(_fitting_side(media, _SMALLEST_TIMM) / 32) * 32
    preprocessing = Preprocessing(side, tuple(data["mean"]), tuple(data["std"])) if file else _fitted(media, side)
    return ImageBackbone(base_model, {"timm": name}, preprocessing, module, "published" if file else "fresh")


def _cached(published: Any) -> str | None:
    """The weights' file in the cache of the Hugging Face hub. Asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    if published is None or not published.hf_hub_id:
        return None
    found = try_to_load_from_cache(published.hf_hub_id, "model.safetensors")
    return found if isinstance(found, str) else None


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise SpeciateError(
            Code.MISSING_EXTRA, "The library timm is not installed.", "Run: pip install 'speciate[vision]'"
        ) from error
    return timm


def _fitting_side(media: Sequence[Pixels], smallest: int) -> int:
    """The median of the images' longer sides, within bounds."""
    longer = [max(medium.shape[:2]) for medium in media]
    return int(min(max(np.median(longer) if longer else _LARGEST, smallest), _LARGEST))


def _fitted(media: Sequence[Pixels], side: int) -> Preprocessing:
    step = max(len(media) // _FITTED_ON, 1)
    squares = [_square(medium, side, _BILINEAR).reshape(3, -1) / 255 for medium in media[::step]]
    if not squares:
        return Preprocessing(side, (0.5,) * 3, (0.5,) * 3)
    mean = np.mean([square.mean(1) for square in squares], axis=0)
    power = np.mean([np.square(square).mean(1) for square in squares], axis=0)
    std = np.sqrt(np.maximum(power - mean**2, _LEAST_SPREAD**2))
    return Preprocessing(side, tuple(mean.tolist()), tuple(std.tolist()))


def _square(medium: Pixels, side: int, resample: int) -> Pixels:
    """(H, W, 3) -> (3, side, side)"""
    from PIL import Image as Pillow

    resized = Pillow.fromarray(medium).resize((side, side), Pillow.Resampling(resample))
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
