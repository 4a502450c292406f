"""Published models that read audio: classifiers, and those that write what is spoken (Whisper's family, CTC).

Recordings of one length are asked together: nothing is padded, so no answer depends on its neighbours. Whisper pads to
30 seconds by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.audio import SAMPLE_RATE
from speciate.modalities.audio_answers import resample
from speciate.models.published.adapters.by_words import sentence_tokens
from speciate.models.published.adapters.class_probabilities import label_answers
from speciate.models.published.adapters.text import token_limit
from speciate.models.published.published_model import LabelPrompts, PublishedModel, RawAnswer, batches

Samples = npt.NDArray[np.float32]  # (T,), 16 kHz
_BATCH = 8


def classify(model: PublishedModel, sounds: Sequence[Samples]) -> list[RawAnswer]:
    found: dict[int, RawAnswer] = {}
    for places in batches([len(each) for each in sounds], _BATCH, alike=True):
        logits = _forward(model, audio_features(model, [sounds[place] for place in places])).logits
        found.update(zip(places, label_answers(model, logits), strict=True))
    return [found[place] for place in range(len(sounds))]


def classify_by_words(model: PublishedModel, sounds: Sequence[Samples], prompts: LabelPrompts) -> list[RawAnswer]:
    """The probability of a label: softmax over how well the sound fits each sentence; the mean over templates.

    CLAP's extractor draws a part of a long sound, and marks one sound of a batch, by chance. So the middle of a long
    one is asked about, and each sound by itself: an answer is a function of the sound alone.
    """
    import torch

    words = sentence_tokens(model, prompts)
    answers = []
    for sound in sounds:
        inputs = audio_features(model, [sound])
        shares = torch.stack([
            _forward(model, {**inputs, **each}).logits_per_audio[0].float().softmax(-1) for each in words
        ]).mean(0)  # fmt: skip
        probabilities = dict(zip(prompts.labels, shares.tolist(), strict=True))
        answers.append(RawAnswer(max(probabilities, key=lambda label: probabilities[label]), probabilities))
    return answers


def transcribe_by_ctc(model: PublishedModel, sounds: Sequence[Samples]) -> list[RawAnswer]:
    """The best symbol of each state; repeats are one, blanks are none."""
    found: dict[int, RawAnswer] = {}
    for places in batches([len(each) for each in sounds], _BATCH, alike=True):
        logits = _forward(model, audio_features(model, [sounds[place] for place in places])).logits
        texts = model.tokenizer.batch_decode(logits.argmax(-1))
        found.update({place: RawAnswer(_one_line(text)) for place, text in zip(places, texts, strict=True)})
    return [found[place] for place in range(len(sounds))]


def transcribe(model: PublishedModel, sounds: Sequence[Samples]) -> list[RawAnswer]:
    """Transcribes by generation. A recording that is longer than the model's window is read window after window, as
    Whisper's own long-form decoding does."""
    import torch

    window = getattr(model.processor, "n_samples", None)
    network: Any = model.module
    found: dict[int, RawAnswer] = {}
    lengths = [len(each) for each in sounds]
    for places in batches(lengths, _BATCH, alike=True):
        part = [sounds[place] for place in places]
        long = window is not None and lengths[places[0]] > window
        options: dict[str, Any] = {"return_timestamps": True} if long else token_limit(model)
        inputs = _long_features(model, part) if long else audio_features(model, part)
        with torch.inference_mode():
            made = network.generate(**inputs, do_sample=False, **options)
        texts = model.tokenizer.batch_decode(made, skip_special_tokens=True)
        found.update({place: RawAnswer(_one_line(text)) for place, text in zip(places, texts, strict=True)})
    return [found[place] for place in range(len(sounds))]


def audio_features(model: PublishedModel, sounds: Sequence[Samples]) -> dict[str, Any]:
    """Features as the publisher prepares them. A model that reads one part of a longer sound gets the middle."""
    longest = int(getattr(model.processor, "nb_max_samples", 0) * SAMPLE_RATE / rate_of(model)) or None
    if longest:
        starts = [max(0, len(sound) - longest) // 2 for sound in sounds]
        sounds = [sound[start : start + longest] for sound, start in zip(sounds, starts, strict=True)]
    rate = rate_of(model)
    return dict(model.processor([at_rate(each, rate) for each in sounds], sampling_rate=rate, return_tensors="pt"))


def rate_of(model: PublishedModel) -> int:
    return int(getattr(model.processor, "sampling_rate", SAMPLE_RATE))


def at_rate(sound: Samples, rate: int) -> Samples:
    """For a model of another rate than audio is decoded at here. What lay above 8 kHz is gone by then."""
    return resample(sound, SAMPLE_RATE, rate)


def _long_features(model: PublishedModel, sounds: Sequence[Samples]) -> dict[str, Any]:
    return dict(
        model.processor(
            [np.asarray(each, np.float32) for each in sounds], sampling_rate=SAMPLE_RATE, return_tensors="pt",
            truncation=False, padding="longest", return_attention_mask=True,
        )
    )  # fmt: skip


def _forward(model: PublishedModel, inputs: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.module(**inputs)


def _one_line(text: str) -> str:
    return " ".join(text.split())
