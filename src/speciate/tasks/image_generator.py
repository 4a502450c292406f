"""A pipeline that answers: an image for each text, drawn by a seed that follows from the text and the example's id.

The same call gives the same image; the same text under another id gives another one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.modalities.image_answers import encode_image
from speciate.models import sealed
from speciate.models.diffusion.pipeline import Pipeline, Sampling, load_pipeline
from speciate.models.diffusion.pipeline_folder import (
    INDEX,
    TEXT_TO_IMAGE,
    flat_name,
    is_part_file,
    nested_name,
    weight_files,
)
from speciate.tasks.families.image_generation import prompt_of
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.task import Prediction

_NOTICES = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
"""Files that are kept of a base model: its licence goes with weights that were made from it."""


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    draws: Literal[True] = True
    """Tells this kind of folder from the others."""
    task: Literal["text-to-image"] = "text-to-image"
    sampling: Sampling


class ImageGenerator:
    """`folder`: of the base model, whose files beside the weights a saved version has, too."""

    task = TEXT_TO_IMAGE
    labels: tuple[str, ...] = ()

    def __init__(self, pipeline: Pipeline, folder: Path, sampling: Sampling) -> None:
        self.pipeline, self.sampling, self._folder = pipeline, sampling, folder

    @property
    def parameters(self) -> int:
        return self.pipeline.parameters

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Raises ValueError for an example that is no text."""
        prompts = [prompt_of(example) for example in examples]
        seeds = [seed_of(prompt, example.id) for prompt, example in zip(prompts, examples, strict=True)]
        return [
            Prediction(encode_image(image), None, None) for image in self.pipeline.draw(prompts, seeds, self.sampling)
        ]

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder, whose parts diffusers reads; returns its id."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True)
        for path in sorted(self._folder.iterdir()):
            nested = nested_name(path.name)
            kept = is_part_file(nested) and not path.name.endswith(".safetensors")
            if path.is_file() and (kept or path.name in (INDEX, *_NOTICES)):
                shutil.copyfile(path, folder / path.name)
        for path in weight_files(self._folder):
            if not path.name.startswith("unet"):  # which alone is trained
                shutil.copyfile(path, folder / path.name)
        state = self.pipeline.unet.state_dict()
        weights = folder / flat_name("unet/diffusion_pytorch_model.safetensors")
        save_file({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}, weights)
        (folder / MANIFEST).write_text(_Manifest(sampling=self.sampling).model_dump_json(indent=1))
        return sealed.seal(folder)


def load_generator(folder: Path, threads: int = 1) -> ImageGenerator:
    """Load a generator from a folder whose hashes were checked."""
    return ImageGenerator(load_pipeline(folder, folder.name, threads), folder, load_sampling(folder))


def load_sampling(folder: Path) -> Sampling:
    """How the version in a folder draws: as it was trained to, or of a published one as usual."""
    if not (folder / MANIFEST).is_file():
        return Sampling()
    return _Manifest.model_validate(json.loads((folder / MANIFEST).read_text())).sampling


def seed_of(prompt: str, identity: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{identity}\0{prompt}".encode()).digest()[:6], "big")
