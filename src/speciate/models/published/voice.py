"""The voice of a model of spectrograms: a vector for who speaks, and how a spectrogram becomes sound.

With a vocoder beside the model (SpeechT5HifiGan) that makes the sound. Without one the phases are found by Griffin and
Lim's iteration (1984): it is understood, and sounds like a machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.modalities.audio_answers import RATES, Samples
from speciate.models.published import voice_folder

if TYPE_CHECKING:
    import torch

_TURNS = 32
"""Turns of Griffin and Lim's iteration."""
_MOMENTUM = 0.99
"""Perraudin et al. 2013."""
_VOCODERS = ("speecht5_hifigan", "hifigan")
"""Types of SpeechT5HifiGan, now and in what was published with it."""
_LONGEST_SETTINGS = 64
_EXTRACTOR = {
    "sampling_rate": RATES, "num_mel_bins": (1, 1024), "hop_length": (1, 200), "win_length": (1, 400),
}  # fmt: skip
_BOUNDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "config.json": {
        "max_speech_positions": (1, 20_000), "max_text_positions": (1, 20_000), "reduction_factor": (1, 16),
        "sampling_rate": RATES, "speaking_rate": (0.1, 10), "upsample_rates": (1, 64),
    },
    "preprocessor_config.json": _EXTRACTOR,
    "processor_config.json": _EXTRACTOR,
}  # fmt: skip
"""File -> setting -> the least and the most of it, or of each of its numbers. Tables are computed from these
when a model is loaded, and no weight bounds them: a file of a kilobyte could ask for gigabytes."""


class Voice(NamedTuple):
    speaker: torch.Tensor
    """(1, D); zeros where nobody named a voice."""
    vocoder: torch.nn.Module | None


def check_settings(folder: Path) -> None:
    """INVALID for settings of a model that speaks which are beyond `_BOUNDS`. Before anything is loaded."""
    for file, bounds in _BOUNDS.items():
        try:
            said = foreign_files.read_json(folder / file)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            said = None
        if isinstance(said, dict) and file == "processor_config.json":
            said = said.get("feature_extractor", said)
        if not isinstance(said, dict):
            raise SpeciateError(
                Code.INVALID, f"{file} of {folder.name!r} is no JSON object.", "Save the model with save_pretrained."
            )
        for name, (least, most) in bounds.items():
            value = said.get(name, least)
            values = value if isinstance(value, list) else [value]
            if any(type(each) not in (int, float) or not least <= each <= most for each in values):
                raise SpeciateError(
                    Code.INVALID,
                    f"{name} in {file} is {repr(value)[:40]}; a model that speaks has {least:,} to {most:,}.",
                    "Use another model, or save this one again with save_pretrained.",
                )


def load_voice(folder: Path, config: Any, extractor: Any, refuse: Any) -> Voice:
    """`config`, `extractor`: of the model. `refuse`: checks the loading info of a vocoder. INVALID for a vocoder or a
    vector that does not fit."""
    import torch

    wanted = int(config.speaker_embedding_dim)
    speaker = torch.zeros(1, wanted)
    if (folder / voice_folder.SPEAKER).is_file():
        found = _read_speaker(folder / voice_folder.SPEAKER, wanted)
        if found is None:
            raise SpeciateError(
                Code.INVALID,
                f"{voice_folder.SPEAKER} holds no single vector of {wanted} finite numbers, as the model wants one.",
                "Write the vector of one speaker into it, by the speaker encoder that the model's card names.",
            )
        speaker = found
    return Voice(speaker, _load_vocoder(folder, config, extractor, refuse))


def _read_speaker(path: Path, wanted: int) -> torch.Tensor | None:
    """(1, wanted). Nothing of another shape is read into memory."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) != 1 or math.prod(file.get_slice(names[0]).get_shape()) != wanted:
                return None
            found: torch.Tensor = file.get_tensor(names[0]).float().reshape(1, -1)
    except (SafetensorError, OSError):
        return None
    return found if found.isfinite().all() else None


def _load_vocoder(folder: Path, config: Any, extractor: Any, refuse: Any) -> torch.nn.Module | None:
    """Its layers are made without memory and get those of the file, so what it takes is what the file has."""
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    files = voice_folder.vocoder_files(folder)
    if files is None:
        return None
    settings, weights = files
    try:
        said = foreign_files.read_json(settings)
    except (OSError, ValueError) as error:
        raise _unfit("its config.json cannot be read", str(error)) from error
    kind = said.get("model_type") if isinstance(said, dict) else None
    if kind not in _VOCODERS or len(said) > _LONGEST_SETTINGS:
        raise _unfit(f"its type is {str(kind)[:40]!r}, and {_VOCODERS[0]!r} is loaded")
    try:
        state = {name: each.float() for name, each in _joined_norms(load_file(weights)).items()}
        made = SpeechT5HifiGanConfig(**{name: each for name, each in said.items() if name != "model_type"})
        layers = len(made.upsample_rates) * (1 + 2 * sum(map(len, made.resblock_dilation_sizes)))
        if layers > len(state):
            raise _unfit(f"its config has {layers:,} layers, and its weights are {len(state):,}")
        with torch.device("meta"):
            module: Any = SpeechT5HifiGan(made)
        missing, left = module.load_state_dict(state, strict=False, assign=True)
        step = math.prod(max(each, 0) for each in made.upsample_rates)
    except (
        ValueError, TypeError, RuntimeError, KeyError, IndexError, AttributeError, ZeroDivisionError, SafetensorError,
        StrictDataclassError,
    ) as error:  # fmt: skip
        raise _unfit(f"{type(error).__name__} in its settings or weights", str(error)) from error
    refuse(folder, {"missing_keys": missing, "unexpected_keys": left})
    if made.model_in_dim != int(config.num_mel_bins):
        raise _unfit(f"it reads {made.model_in_dim} bands, and the model makes {config.num_mel_bins}")
    if (made.sampling_rate, step) != (extractor.sampling_rate, extractor.sample_stride):
        raise _unfit(
            f"it makes {step} samples of each frame at {made.sampling_rate} Hz, and the model's frames are "
            f"{extractor.sample_stride} at {extractor.sampling_rate} Hz"
        )
    if not all(each.isfinite().all() for each in state.values()):
        raise _unfit("not all of its weights are finite numbers")
    found: torch.nn.Module = module.eval().requires_grad_(False)
    return found


def _joined_norms(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights whose length and direction are kept apart, as they are trained, multiplied: that is what is computed
    with."""
    pairs = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
    for length, direction in pairs:
        for name in [each for each in state if each.endswith(f".{length}")]:
            stem = name.removesuffix(length)
            size, way = state.pop(name), state.pop(stem + direction)
            norm = way.norm(dim=tuple(range(1, way.dim())), keepdim=True)
            state[f"{stem}weight"] = size * way / norm
    return state


def sound_of(voice: Voice, extractor: Any, spectrogram: torch.Tensor) -> Samples:
    """(F, bands) of a SpeechT5 -> (T,)."""
    import torch

    with torch.inference_mode():
        made = voice.vocoder(spectrogram) if voice.vocoder is not None else griffin_lim(extractor, spectrogram)
    return np.asarray(made.float().cpu().numpy(), np.float32).reshape(-1)


def griffin_lim(extractor: Any, spectrogram: torch.Tensor) -> torch.Tensor:
    """(F, bands), log10 of amplitudes in mel bands, -> (T,). Phases begin at zero, so the same spectrogram makes the
    same sound."""
    import torch

    filters = torch.from_numpy(np.linalg.pinv(np.asarray(extractor.mel_filters, np.float64).T))  # (bins, bands)
    bands = 10.0 ** spectrogram.double().clamp(-10, 3).T
    sizes = (filters @ bands).clamp(min=0)
    window = torch.from_numpy(np.asarray(extractor.window, np.float64))
    how = {"n_fft": extractor.n_fft, "hop_length": extractor.sample_stride, "win_length": extractor.sample_size}
    length = (sizes.shape[1] - 1) * extractor.sample_stride
    if length < extractor.n_fft:  # shorter than a window
        return torch.zeros(max(length, 1))
    angles = torch.polar(torch.ones_like(sizes), torch.zeros_like(sizes))
    before = torch.zeros_like(angles)
    for _ in range(_TURNS):
        sound = torch.istft(sizes * angles, window=window, length=length, **how)
        rebuilt = torch.stft(sound, window=window, return_complex=True, **how)
        ahead = rebuilt - before * (_MOMENTUM / (1 + _MOMENTUM))
        angles, before = ahead / ahead.abs().clamp(min=1e-16), rebuilt
    made: torch.Tensor = torch.istft(sizes * angles, window=window, length=length, **how)
    return made


def _unfit(why: str, foreign: str = "") -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The vocoder beside the model cannot be used: {why}.",
        "Put a SpeechT5HifiGan's config.json and model.safetensors into the folder 'vocoder', or leave it out.",
        foreign[:300],
    )
