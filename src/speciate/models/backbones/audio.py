"""Networks that read audio: `new:ast` and `new:conformer` a log-mel spectrogram, `new:wav2vec2` the waveform.

`new:ast` is for whole files: patches of the spectrogram, one state per column of patches, as long as the training
audio. The other two give a state every 20 ms, for audio of any length, as connectionist temporal classification needs
it; the Conformer (Gulati et al. 2020) learns from far fewer examples, as it gets the spectrum. All are pooled by the
mean over frames. Folders hold networks of wav2vec 2.0's family.

Only the first `_LONGEST` seconds are read: attention costs the square.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.modalities.audio import BANDS, SAMPLE_RATE, log_mel
from speciate.models.backbones import hf_transformers
from speciate.models.backbones.contract import BackboneSettings, Item, ModelConfig, States, refuse_medium, refuse_units

if TYPE_CHECKING:
    import torch

_LONGEST = 30  # seconds
_MEL_RATE = 100  # frames per second
_MOST_MEL = 1024  # frames that AST reads, as Gong et al.
_FINE = 256  # up to so many its patches are small
_STACKED = 2  # mel frames in a position of the Conformer
_FITTED_ON = 500  # examples
_QUIETEST = 1e-4  # spread of a waveform that is not made louder
_SPECTRA = ("new:ast", "new:conformer")
_AST, _CONFORMER = "audio-spectrogram-transformer", "wav2vec2-bert"  # as transformers names them
_WIDTH = 96
_SMALL: ModelConfig = {
    "hidden_size": _WIDTH, "intermediate_size": 2 * _WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4,
}  # fmt: skip
_CERTAIN: ModelConfig = {
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}  # both draw from generators that no seed of ours reaches


class Preprocessing(NamedTuple):
    """`mean` and `std`: of the log-mel spectrogram; None if the waveform is read."""

    seconds: float
    """Only so much of the beginning is read."""
    mean: float | None = None
    std: float | None = None
    loudness: bool = True
    """Whether a waveform is scaled to mean 0 and spread 1."""


class AudioBackbone:
    modality = "audio"
    unit: str | None = None

    def __init__(self, base_model: str, preprocessing: Preprocessing, module: torch.nn.Module) -> None:
        self.base_model, self._preprocessing, self.module = base_model, preprocessing, module
        network: Any = module
        self._config = network.config
        self.width = int(self._config.hidden_size)

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """`media`: float32 (T,) each, 16 kHz -> `sound`: (T',), or (F, BANDS) of a spectrogram."""
        if per_unit:
            refuse_units(self)
        for medium in media:
            if not (isinstance(medium, np.ndarray) and medium.ndim == 1 and medium.size):
                refuse_medium(self, medium)
        read = _wave if self._preprocessing.mean is None else _spectrum
        return [
            {"sound": read(medium[: round(self._preprocessing.seconds * SAMPLE_RATE)], self._preprocessing)}
            for medium in media
        ]

    def length(self, item: Item) -> int:
        """Frames that have states."""
        return int(self._frames(len(item["sound"])))

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """`sound`: (B, T) or (B, F, BANDS), zeros at the end; `frames`: (B,)"""
        import torch

        longest = max(len(item["sound"]) for item in items)
        if self._config.model_type == _AST:
            longest = self._config.max_length
        sound = np.zeros((len(items), longest, *items[0]["sound"].shape[1:]), np.float32)
        for row, item in zip(sound, items, strict=True):
            row[: len(item["sound"])] = item["sound"]
        frames = np.array([self.length(item) for item in items])
        return {"sound": torch.from_numpy(sound), "frames": torch.from_numpy(frames)}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        import torch

        sound, frames = batch["sound"], batch["frames"]
        mask = torch.arange(self._frames(sound.shape[1]), device=sound.device) < frames[:, None]
        read: Any = _READERS.get(self._config.model_type, _of_waves)
        sequence = read(self.module, sound, mask)
        counted = mask[..., None].to(sequence.dtype)
        return States(sequence, mask, (sequence * counted).sum(1) / counted.sum(1))

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model, "modality": self.modality,
            "config": hf_transformers.settings_of(self._config), "preprocessing": self._preprocessing._asdict(),
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {}

    def _frames(self, length: int) -> int:
        """Number of states of so many samples, or frames of the spectrogram."""
        if self._config.model_type == _AST:
            patch: int = self._config.patch_size
            return math.ceil(length / patch)
        if self._config.model_type == _CONFORMER:
            return math.ceil(length / _STACKED)
        for size, stride in zip(self._config.conv_kernel, self._config.conv_stride, strict=True):
            length = (length - size) // stride + 1
        return int(length)


def build(base_model: str, media: Sequence[Any], seed: int, folder: Path | None) -> AudioBackbone:
    """Raises INVALID or NOT_FOUND if a folder's network cannot be read."""
    if folder is not None:
        return _from_folder(base_model, folder)
    config = _config(base_model, max((len(medium) for medium in media), default=0) / SAMPLE_RATE)
    seconds = config.max_length / _MEL_RATE if base_model == "new:ast" else float(_LONGEST)
    preprocessing = _fitted(media, seconds) if base_model in _SPECTRA else Preprocessing(seconds)
    return AudioBackbone(base_model, preprocessing, hf_transformers.build_fresh(config, seed))


def rebuild(settings: Mapping[str, Any], folder: Path) -> AudioBackbone:
    preprocessing = Preprocessing(**settings["preprocessing"])
    config = hf_transformers.config_of(settings["config"])
    return AudioBackbone(settings["base_model"], preprocessing, hf_transformers.build_empty(config))


def _config(base_model: str, seconds: float) -> Any:
    """`seconds`: of the longest training example."""
    from transformers import ASTConfig, Wav2Vec2BertConfig, Wav2Vec2Config

    match base_model:
        case "new:ast":
            frames = min(max(math.ceil(seconds * _MEL_RATE), 1), _MOST_MEL)
            patch = 8 if frames <= _FINE else 16
            return ASTConfig(
                max_length=math.ceil(frames / patch) * patch, num_mel_bins=BANDS, patch_size=patch, time_stride=patch,
                frequency_stride=patch, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **_SMALL,
            )  # fmt: skip
        case "new:conformer":
            return Wav2Vec2BertConfig(
                feature_projection_input_dim=_STACKED * BANDS, conv_depthwise_kernel_size=15,
                left_max_position_embeddings=64, right_max_position_embeddings=64, **_SMALL, **_CERTAIN,
            )  # fmt: skip
    return Wav2Vec2Config(
        conv_dim=(_WIDTH,) * 7, feat_extract_norm="layer", do_stable_layer_norm=True, num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4, mask_time_prob=0.0, **_SMALL, **_CERTAIN,
    )  # fmt: skip


def _from_folder(base_model: str, folder: Path) -> AudioBackbone:
    """A network in a folder, of wav2vec 2.0's family only: other folders' spectrograms are not ours."""
    config = hf_transformers.published_config(folder)
    if not hasattr(config, "conv_kernel") or getattr(config, "feat_extract_norm", None) != "layer":
        raise SpeciateError(
            Code.INVALID,
            f"{folder} holds a {config.model_type} network that is not normalised by layer over the waveform: its "
            "states would depend on the rest of the batch, or its spectrogram is not supported.",
            "Use a folder of wav2vec 2.0's family with feat_extract_norm 'layer', or 'new:conformer'.",
        )
    module = hf_transformers.load_published(folder)
    for name, value in _CERTAIN.items():
        setattr(module.config, name, value)
    path = folder / "preprocessor_config.json"
    config = foreign_files.read_json(path) if path.is_file() else {}
    return AudioBackbone(base_model, Preprocessing(float(_LONGEST), loudness=config.get("do_normalize", True)), module)


def _of_patches(module: Any, sound: torch.Tensor, mask: Any) -> torch.Tensor:
    """(B, F, BANDS), (B, T) -> (B, T, W): the mean of each column's patches, which follow one another by band."""
    import torch

    rows = module.config.num_mel_bins // module.config.patch_size
    special = torch.ones(len(mask), 2, dtype=torch.bool, device=mask.device)
    seen = module(input_values=sound, attention_mask=torch.cat([special, mask.repeat(1, rows)], dim=1))
    patches: Any = seen.last_hidden_state[:, 2:]
    states: torch.Tensor = patches.unflatten(1, (rows, -1)).mean(1)
    return states


def _of_frames(module: Any, sound: Any, mask: torch.Tensor) -> torch.Tensor:
    """(B, F, BANDS), (B, T) -> (B, T, W): as many frames side by side as make one position."""
    from torch.nn.functional import pad

    whole: Any = pad(sound, (0, 0, 0, mask.shape[1] * _STACKED - sound.shape[1]))
    states: torch.Tensor = module(
        input_features=whole.unflatten(1, (-1, _STACKED)).flatten(2), attention_mask=mask
    ).last_hidden_state
    return states


def _of_waves(module: Any, sound: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T'), (B, T) -> (B, T, W)"""
    features = module.feature_extractor(sound).mT
    hidden = module.feature_projection(features)
    states: torch.Tensor = module.encoder(hidden[0] if isinstance(hidden, tuple) else hidden, attention_mask=mask)[0]
    return states


_READERS = {_AST: _of_patches, _CONFORMER: _of_frames}


def _fitted(media: Sequence[Any], seconds: float) -> Preprocessing:
    """Mean and spread over all bands and frames."""
    step = max(len(media) // _FITTED_ON, 1)
    found = [log_mel(medium[: round(seconds * SAMPLE_RATE)]) for medium in media[::step]]
    mean = float(np.mean([bands.mean() for bands in found])) if found else 0.0
    power = float(np.mean([np.square(bands - mean).mean() for bands in found])) if found else 1.0
    return Preprocessing(seconds, mean, max(math.sqrt(power), 0.1))


def _spectrum(sound: Any, preprocessing: Preprocessing) -> Any:
    assert preprocessing.mean is not None
    assert preprocessing.std is not None
    most = round(preprocessing.seconds * _MEL_RATE)
    return np.ascontiguousarray((log_mel(sound).T[:most] - preprocessing.mean) / preprocessing.std, np.float32)


def _wave(sound: Any, preprocessing: Preprocessing) -> Any:
    """The waveform, at least as long as one frame looks."""
    longer = np.pad(sound, (0, max(400 - len(sound), 0))).astype(np.float32)
    return (longer - longer.mean()) / max(float(longer.std()), _QUIETEST) if preprocessing.loudness else longer
