"""Published models that write about an image: readers of lines and pages, captioners, and answers to questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.models.published.adapters.images import Pixels, as_image
from speciate.models.published.adapters.text import token_limit
from speciate.models.published.onnx_model import CardModule
from speciate.models.published.published_model import PublishedModel, RawAnswer, batches

_BATCH = 16
_TAG = re.compile(r"<[^<>]*>")


class ImageQuestion(NamedTuple):
    image: Pixels
    question: str = ""


def write(model: PublishedModel, media: Sequence[Any], templates: Sequence[str] = ()) -> list[RawAnswer]:
    """The text of an image: a line that is read, a page, or a caption. Greedily or by beams, as its generation config
    says. `templates`: the first is what the decoder begins with, `{input}` being the question, as Donut is asked:
    `<s_docvqa><s_question>{input}</s_question><s_answer>`. It is no part of the answer, and neither are tags."""
    asked = [_question_of(each) for each in media]
    found: dict[int, RawAnswer] = {}
    for places in batches([1] * len(asked), 1 if templates or model.head.engine == "onnx" else _BATCH):
        part = [asked[place] for place in places]
        inputs = model.processor(images=[as_image(each.image) for each in part], return_tensors="pt")
        if isinstance(model.module, CardModule):
            symbols = model.module(**inputs).logits.argmax(-1)
            texts = [" ".join(model.module.text_of(row).split()) for row in symbols.tolist()]
            found.update({place: RawAnswer(text) for place, text in zip(places, texts, strict=True)})
            continue
        start = _start(model, templates[0].replace("{input}", part[0].question)) if templates else None
        texts = _generate(model, {"pixel_values": inputs["pixel_values"]}, start)
        found.update({place: RawAnswer(text) for place, text in zip(places, texts, strict=True)})
    return [found[place] for place in range(len(asked))]


def answer(model: PublishedModel, media: Sequence[Any], templates: Sequence[str] = ()) -> list[RawAnswer]:
    """What is answered to a question about an image: a text that is written, or the best of the answers that it knows.
    Raises ValueError where there is no question."""
    return [RawAnswer(_answer(model, _question_of(each), templates)) for each in media]


def _answer(model: PublishedModel, asked: ImageQuestion, templates: Sequence[str]) -> str:
    import torch

    question = templates[0].replace("{input}", asked.question) if templates else asked.question
    if not question.strip():
        raise ValueError("there is no question beside the image")
    words = model.tokenizer(question, truncation=True, max_length=question_tokens(model), return_tensors="pt")
    pixels = model.processor(images=as_image(asked.image), return_tensors="pt")
    if model.head.model_type != "vilt":
        words.pop("token_type_ids", None)
        (text,) = _generate(model, {**words, "pixel_values": pixels["pixel_values"]}, None)
        return text
    network: Any = model.module
    with torch.inference_mode():
        logits = network(**words, **pixels).logits[0]
    return str(network.config.id2label[int(logits.argmax())])


def question_tokens(model: PublishedModel) -> int:
    text = getattr(model.config, "text_config", model.config)
    positions = int(getattr(text, "max_position_embeddings", 512))
    return int(min(positions, model.tokenizer.model_max_length))


def _generate(model: PublishedModel, inputs: dict[str, Any], start: Any) -> list[str]:
    import torch

    network: Any = model.module
    options = token_limit(model) | ({"decoder_input_ids": start} if start is not None else {})
    with torch.inference_mode():
        made = network.generate(**inputs, do_sample=False, **options)
    if start is not None:
        made = made[:, start.shape[1] :]
    texts = model.tokenizer.batch_decode(made, skip_special_tokens=True)
    return [" ".join((_TAG.sub(" ", text) if start is not None else text).split()) for text in texts]


def _start(model: PublishedModel, prompt: str) -> Any:
    """(1, T) of what a decoder begins with."""
    return model.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]


def _question_of(medium: Any) -> ImageQuestion:
    if isinstance(medium, ImageQuestion):
        return medium
    if isinstance(medium, np.ndarray):
        return ImageQuestion(medium)
    raise ValueError("the example has no image")
