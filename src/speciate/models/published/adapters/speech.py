"""Published models that speak: SpeechT5, whose spectrograms become sound by a vocoder, and VITS, which makes the sound
itself (with it MMS-TTS).

Both draw by chance. The draw follows from the text and the example's id, and each text is spoken by itself: the same
call makes the same sound, whatever is asked beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.modalities.audio_answers import AudioAnswer, encode_audio
from speciate.models.published.published_model import PublishedModel, RawAnswer
from speciate.models.published.voice import sound_of

_LONGEST_RATIO = 20.0
"""Frames per token at most, as transformers has it."""
_LONGEST_SECONDS, _MOST_FRAMES = 120, 20_000


class SpokenText(NamedTuple):
    text: str
    seed: int


def speak(model: PublishedModel, media: Sequence[SpokenText]) -> list[RawAnswer]:
    """Audio for each text. Raises ValueError for a text or speech that is too long, for a text of which the model knows
    no character, and for samples that are no numbers."""
    return [RawAnswer(_spoken(model, each)) for each in media]


def speech_tokens(model: PublishedModel, text: str) -> dict[str, Any]:
    """(1, T) each. Raises ValueError."""
    tokenizer: Any = model.tokenizer
    made = dict(tokenizer(text, return_tensors="pt"))
    codes = made["input_ids"][0].tolist()
    special = {*tokenizer.all_special_ids, tokenizer.pad_token_id, 0 if model.head.model_type == "vits" else None}
    if not any(code not in special for code in codes):
        raise ValueError("the model knows no character of the text")
    most = getattr(model.config, "max_text_positions", None)
    if isinstance(most, int) and len(codes) > most:
        raise ValueError(f"the text has {len(codes)} tokens, and the model reads {most}")
    return {name: each for name, each in made.items() if name in ("input_ids", "attention_mask")}


def _spoken(model: PublishedModel, given: SpokenText) -> Any:
    import torch

    tokens = speech_tokens(model, given.text)
    network: Any = model.module
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(given.seed % (1 << 63))
        if model.head.adapter == "text-to-waveform":
            more = {"speaker_id": 0} if network.config.num_speakers > 1 else {}
            check = network.duration_predictor.register_forward_hook(
                lambda _module, _given, durations: _check_durations(model, durations)
            )
            try:
                return _audio(model, network(**tokens, **more).waveform[0].float().numpy())
            finally:
                check.remove()
        assert model.voice is not None, "loaded with it"
        count = int(tokens["input_ids"].shape[1])
        most = int(network.config.max_speech_positions) * int(network.config.reduction_factor)
        longest = _LONGEST_SECONDS * rate_of(model) / model.processor.sample_stride
        ratio = min(_LONGEST_RATIO, min(most, longest) / count)
        frames = network.generate_speech(
            tokens["input_ids"], model.voice.speaker.to(tokens["input_ids"].device), maxlenratio=ratio
        )
    return _audio(model, sound_of(model.voice, model.processor, frames))


def _audio(model: PublishedModel, samples: Any) -> AudioAnswer:
    if not np.isfinite(samples).all():
        raise ValueError("the model made sound that is no numbers")
    return encode_audio(samples, rate_of(model))


def _check_durations(model: PublishedModel, log_durations: Any) -> None:
    """Before VITS makes sound of them: weights can ask for hours, which are allocated at once."""
    network: Any = model.module
    frames = float((log_durations.double().exp() / network.speaking_rate).ceil().sum())
    most = _LONGEST_SECONDS * rate_of(model) / math.prod(network.config.upsample_rates)
    if not frames <= min(most, _MOST_FRAMES):  # nor NaN
        raise ValueError(f"the speech would be longer than {_LONGEST_SECONDS} s")


def rate_of(model: PublishedModel) -> int:
    """Hertz of what it makes."""
    return int(model.config.sampling_rate if model.processor is None else model.processor.sampling_rate)


def spectrogram_of(extractor: Any, samples: Any) -> Any:
    """(F, bands) float32, as the publisher prepares a target; of a recording at the extractor's rate."""
    made = extractor(audio_target=np.asarray(samples, np.float32), sampling_rate=extractor.sampling_rate)
    return np.asarray(made["input_values"][0], np.float32)
