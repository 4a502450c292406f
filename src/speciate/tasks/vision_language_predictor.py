"""A vision-language model that answers with a text, prompted as in its training.

A folder holds `predictor.json` (task, image settings, sampling) and what `save_pretrained` of transformers writes of
model and processor: config, safetensors, tokenizer, chat template, image processing. A folder without the first is a
model of others: it is asked by its own chat template, greedily.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models import sealed
from speciate.models.language import vision_language
from speciate.models.language.text_generation import Sampling
from speciate.models.language.vision_language import RenderedPrompt, generate
from speciate.tasks.families.generation import look
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.task import Prediction

IMAGE_TEXT_TO_TEXT = "image-text-to-text"


class ImageSettings(BaseModel):
    """How examples become prompts of a model; saved with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    system: str | None = Field(None, description="Instructions where a conversation brings none.")
    side: int | None = Field(None, description="Longest side of an image, in pixels.")
    parts: tuple[str, ...] = Field((), description="Parts of mixed rows to show.")


class _VisionManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str
    seeing: Literal[True] = True
    """Tells this kind of folder from the others."""
    sight: ImageSettings
    sampling: Sampling


class VisionLanguagePredictor:
    task = IMAGE_TEXT_TO_TEXT
    labels: tuple[str, ...] = ()

    def __init__(self, model: Any, processor: Any, sight: ImageSettings, sampling: Sampling) -> None:
        self.model, self.processor, self.sight, self.sampling = model, processor, sight, sampling

    @property
    def names(self) -> tuple[str, ...]:
        """Parts of mixed rows that it reads."""
        return self.sight.parts

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    @property
    def how(self) -> str:
        """How it answers, for the record: template, instructions, size of images, and sampling."""
        template = hashlib.sha256((self.processor.chat_template or "").encode()).hexdigest()[:12]
        drawn, sight = self.sampling, self.sight
        decoding = "greedily" if drawn.greedy else f"at temperature {drawn.temperature:g}, seed {drawn.seed}"
        system = ", with its own instructions" if sight.system else ""
        size = f", images of at most {sight.side} pixels a side" if sight.side else ""
        answers = f"answers {decoding}, at most {drawn.max_new_tokens} tokens"
        return f"asked by its chat template {template}{system}{size}; {answers}"

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """INVALID for an example that has no image, or leaves no room for an answer."""
        if not examples:
            return []
        try:
            prompts = [self._render(each) for each in examples]
            found = generate(
                self.model, self.processor, prompts, self.sampling, longest=vision_language.longest(self.model)
            )  # fmt: skip
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID, "The model cannot answer this; untrusted says why.",
                "Ask again with an image and a question that it can see together.", str(error),
            ) from error  # fmt: skip
        return [Prediction(one.text, None, None) for one in found]

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id. The same model gives the same bytes."""
        folder.mkdir(parents=True)
        manifest = _VisionManifest(task=self.task, sight=self.sight, sampling=self.sampling)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        return sealed.seal(folder)

    def _render(self, example: Example) -> RenderedPrompt:
        prompt = look(example.media, self.sight.parts, self.sight.side)
        return RenderedPrompt(vision_language.render_prompt(self.processor, prompt, self.sight.system), prompt.images)


def load_vision_model(folder: Path, threads: int = 1) -> VisionLanguagePredictor:
    """From a folder whose hashes were checked, our own or a model of others."""
    import torch

    torch.set_num_threads(threads)
    processor, model = vision_language.load_processor(folder), vision_language.load_model(folder)
    if not (folder / MANIFEST).is_file():
        vision_language.check_template(processor, str(folder))
        return VisionLanguagePredictor(model, processor, ImageSettings(), Sampling())
    saved = _VisionManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    return VisionLanguagePredictor(model, processor, saved.sight, saved.sampling)


def saved_image_settings(folder: Path) -> ImageSettings | None:
    """The image settings of a model of ours in this folder; None for a model of others."""
    try:
        return _VisionManifest.model_validate(json.loads((folder / MANIFEST).read_text())).sight
    except (OSError, ValueError):
        return None
