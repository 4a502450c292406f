"""A model that sees pictures and answers with a text, as it was trained to be asked.

A folder holds `predictor.json` (task, form, sampling, parts) and what `save_pretrained` of transformers writes of model
and processor: config, safetensors, tokenizer, chat template, what becomes of pictures. A folder without the first is
one that others made: it is asked by its own chat template, greedily.
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
    """How a model is shown an example; kept with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    system: str | None = Field(None, description="Instructions where a conversation brings none.")
    side: int | None = Field(None, description="Longest side of a picture, in pixels.")
    parts: tuple[str, ...] = Field((), description="Of mixed rows, those that are shown.")


class _VisionManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str
    seeing: Literal[True] = True
    """What tells this kind of folder from the others."""
    sight: ImageSettings
    sampling: Sampling


class VisionLanguagePredictor:
    task = IMAGE_TEXT_TO_TEXT
    labels: tuple[str, ...] = ()

    def __init__(self, model: Any, processor: Any, sight: ImageSettings, sampling: Sampling) -> None:
        self.model, self.processor, self.sight, self.sampling = model, processor, sight, sampling

    @property
    def names(self) -> tuple[str, ...]:
        """Of mixed rows, the parts that it reads."""
        return self.sight.parts

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    @property
    def how(self) -> str:
        """How it answers, for the record: template, instructions, size of pictures, and sampling."""
        template = hashlib.sha256((self.processor.chat_template or "").encode()).hexdigest()[:12]
        drawn, sight = self.sampling, self.sight
        chance = "greedily" if drawn.greedy else f"at temperature {drawn.temperature:g}, seed {drawn.seed}"
        system = ", with its own instructions" if sight.system else ""
        size = f", pictures of at most {sight.side} pixels a side" if sight.side else ""
        answers = f"answers {chance}, at most {drawn.max_new_tokens} tokens"
        return f"asked by its chat template {template}{system}{size}; {answers}"

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """INVALID for an example that has no picture, or leaves no room for an answer."""
        if not examples:
            return []
        try:
            asked = [self._shown(each) for each in examples]
            found = generate(
                self.model, self.processor, asked, self.sampling, longest=vision_language.longest(self.model)
            )  # fmt: skip
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID, "The model cannot answer this; untrusted says why.",
                "Ask again with a picture and a question that it can see together.", str(error),
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

    def _shown(self, example: Example) -> RenderedPrompt:
        found = look(example.media, self.sight.parts, self.sight.side)
        return RenderedPrompt(vision_language.render_prompt(self.processor, found, self.sight.system), found.images)


def load_vision_model(folder: Path, threads: int = 1) -> VisionLanguagePredictor:
    """From a folder whose hashes were checked, ours or one that others made."""
    import torch

    torch.set_num_threads(threads)
    processor, model = vision_language.load_processor(folder), vision_language.load_model(folder)
    if not (folder / MANIFEST).is_file():
        vision_language.check_template(processor, str(folder))
        return VisionLanguagePredictor(model, processor, ImageSettings(), Sampling())
    said = _VisionManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    return VisionLanguagePredictor(model, processor, said.sight, said.sampling)


def saved_image_settings(folder: Path) -> ImageSettings | None:
    """How a model of ours in this folder is shown examples; None of one that others made."""
    try:
        return _VisionManifest.model_validate(json.loads((folder / MANIFEST).read_text())).sight
    except (OSError, ValueError):
        return None
