"""The voice of a model of spectrograms: a vector for who speaks, and how a spectrogram becomes sound.

With a vocoder beside the model (SpeechT5HifiGan) that makes the sound. Without one the phases are found by Griffin and
Lim's iteration (1984): it is understood, and sounds like a machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.modalities.audio_answers import Samples
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


class Voice(NamedTuple):
    speaker: torch.Tensor
    """(1, D); zeros where nobody named a voice."""
    vocoder: torch.nn.Module | None


def load_voice(folder: Path, config: Any, refuse: Any) -> Voice:
    """`config`: of the model. `refuse`: checks the loading info of a vocoder. INVALID for a vocoder or a vector that
    does not fit."""
    import torch
    from safetensors.torch import load_file

    speaker = torch.zeros(1, int(config.speaker_embedding_dim))
    if (folder / voice_folder.SPEAKER).is_file():
        found = list(load_file(folder / voice_folder.SPEAKER).values())
        if len(found) != 1 or found[0].numel() != speaker.numel():
            raise SpeciateError(
                Code.INVALID,
                f"{voice_folder.SPEAKER} holds no single vector of {speaker.numel()} numbers, as the model wants one.",
                "Write the vector of one speaker into it, by the speaker encoder that the model's card names.",
            )
        speaker = found[0].detach().float().reshape(1, -1)
    return Voice(speaker, _load_vocoder(folder, config, refuse))


def _load_vocoder(folder: Path, config: Any, refuse: Any) -> torch.nn.Module | None:
    from safetensors.torch import load_file
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    files = voice_folder.vocoder_files(folder)
    if files is None:
        return None
    settings, weights = files
    said = foreign_files.read_json(settings)
    kind = said.get("model_type") if isinstance(said, dict) else None
    if kind not in _VOCODERS or len(said) > _LONGEST_SETTINGS:
        raise _unfit(f"its type is {str(kind)[:40]!r}, and {_VOCODERS[0]!r} is loaded")
    try:
        module: Any = SpeechT5HifiGan(
            SpeechT5HifiGanConfig(**{name: each for name, each in said.items() if name != "model_type"})
        )
        missing, left = module.load_state_dict(_joined_norms(load_file(weights)), strict=False)
    except (ValueError, TypeError, RuntimeError, KeyError, IndexError) as error:
        raise _unfit(f"{type(error).__name__} in its settings or weights", str(error)) from error
    refuse(folder, {"missing_keys": missing, "unexpected_keys": left})
    if int(said.get("model_in_dim", 80)) != int(config.num_mel_bins):
        raise _unfit(f"it reads {said.get('model_in_dim')} bands, and the model makes {config.num_mel_bins}")
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
