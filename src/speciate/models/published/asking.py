"""Ask a published model: the adapter of its head. A new kind of head is a line here and a function beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from speciate.models.published.adapters import audio, depth, documents, images, policies, regions, series, speech, text
from speciate.models.published.architectures import Adapter
from speciate.models.published.published_model import LabelPrompts, PublishedModel, RawAnswer

_NUMBER = 1
"""Raised when an adapter comes to answer otherwise from the same files."""
_TEMPLATES = {
    "image": "a photo of a {label}", "audio": "This is a sound of {label}.", "text": "This example is {label}.",
}  # fmt: skip
"""What a zero-shot model is asked where the caller says nothing."""


def ask(model: PublishedModel, media: Sequence[Any], prompts: LabelPrompts | None = None) -> list[RawAnswer]:
    """One answer per medium, in their order, under the published labels; of zero-shot models under those of `prompts`.

    Raises ValueError for a medium that the model cannot read.
    """
    match model.head.adapter:
        case "text-classification":
            return text.classify_by_entailment(model, media, prompts) if prompts else text.classify(model, media)
        case "token-classification":
            return text.tag(model, media)
        case "question-answering":
            return text.answer(model, media)
        case "seq2seq":
            return text.write(model, media, prompts.templates if prompts else ())
        case "image-classification":
            return images.classify(model, media)
        case "object-detection":
            return images.detect(model, media)
        case "image-segmentation":
            return images.segment(model, media)
        case "panoptic":
            return regions.segment_things(model, media)
        case "depth":
            return depth.estimate(model, media)
        case "zero-shot-image" | "zero-shot-audio" | "zero-shot-detection":
            if prompts is None:
                raise ValueError("a zero-shot model answers with the labels that it is asked about")
            if model.head.adapter == "zero-shot-detection":
                return regions.detect_by_words(model, media, prompts)
            if model.head.adapter == "zero-shot-audio":
                return audio.classify_by_words(model, media, prompts)
            return images.classify_by_words(model, media, prompts)
        case "image-to-text":
            return documents.write(model, media, prompts.templates if prompts else ())
        case "visual-questions":
            return documents.answer(model, media, prompts.templates if prompts else ())
        case "video-classification":
            return images.classify_clips(model, media)
        case "audio-classification":
            return audio.classify(model, media)
        case "speech":
            return audio.transcribe(model, media)
        case "ctc":
            return audio.transcribe_by_ctc(model, media)
        case "text-to-spectrogram" | "text-to-waveform":
            return speech.speak(model, media)
        case "forecast-quantiles":
            return series.forecast_medians(model, media)
        case "forecast":
            return series.forecast(model, media)
        case "policy":
            return policies.act(model, media)


def usual_templates(modality: str) -> tuple[str, ...]:
    return (_TEMPLATES.get(modality, _TEMPLATES["text"]),)


def answer_identity(model_id: str, prompts: LabelPrompts | None, adapter: Adapter | None = None) -> str:
    """What decides a raw answer: the files, the adapter, and the sentences. A table of labels is not in it, so another
    table asks nothing again. `adapter`: of a head that does several tasks, where it is not its usual one."""
    asked = hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16] if prompts else "as published"
    return f"{model_id} published {_NUMBER} {asked}" + (" of segments" if adapter == "panoptic" else "")
