"""A training of a text-to-image pipeline: its UNet to be trained, images drawn on the way, and what is kept of it.

Samples are drawn when held-out examples were judged and enough time went by, always for the same captions with the same
noise, and never from the training's own random numbers.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path

from speciate.datasets.loading.loader import Example
from speciate.models.diffusion.contact_sheet import draw_labelled_grid
from speciate.models.diffusion.pipeline import Pipeline, Sampling, load_pipeline
from speciate.tasks.diffusion_head import DenoisingNetwork, denoising_head
from speciate.tasks.families.image_generation import prompt_of
from speciate.tasks.image_generator import ImageGenerator, seed_of
from speciate.tasks.task import TaskHead
from speciate.training.hyperparameters import PipelineParameters
from speciate.training.training_context import TrainingContext

SAMPLES = "samples"
"""Folder of a run, with a sheet for each time that samples were drawn; and the name of the last one, as an output."""
_MOST_PROMPTS = 8
_SHARE_OF_TIME = 10.0
"""Samples take a tenth of the time at most."""


class KeptPipeline:
    """A training that keeps the pipeline of its base model, in the form of `KeptHead` (networks/kept_head.py)."""

    def __init__(self, context: TrainingContext, pipeline: Pipeline, base_model: str, folder: Path) -> None:
        assert isinstance(context.payload.parameters, PipelineParameters), "the plan sees to it"
        given = context.payload.parameters
        self._context, self._pipeline, self._base_model, self._folder = context, pipeline, base_model, folder
        self._sampling = Sampling(given.num_inference_steps, given.guidance_scale)
        self._prompts = tuple(given.sample_prompts) or _usual_prompts([*context.validation, *context.train])
        self._next_at = 0.0

    def network(self) -> DenoisingNetwork:
        """Anew; the same each time. Only the UNet is a copy."""
        unet = copy.deepcopy(self._pipeline.unet)
        return DenoisingNetwork(self._pipeline._replace(unet=unet), self._base_model)

    def predictor(self, network: DenoisingNetwork, task_head: TaskHead, held: Sequence[Example]) -> ImageGenerator:
        self.draw(network, None)
        return ImageGenerator(network.pipeline, self._folder, self._sampling)

    def draw(self, network: DenoisingNetwork, step: int | None) -> None:
        """Write a sheet of samples. `step`: of the training, which draws no more often than `_SHARE_OF_TIME` allows;
        None: it has ended."""
        began = time.monotonic()
        if step is not None and began < self._next_at:
            return
        was_training = network.module.training
        network.module.eval()
        seeds = [seed_of(prompt, str(place)) for place, prompt in enumerate(self._prompts)]
        images = network.pipeline.draw(self._prompts, seeds, self._sampling)
        network.module.train(was_training)
        png = draw_labelled_grid(images, self._prompts)
        run = self._context.run
        if step is not None:
            (run.folder.path / SAMPLES).mkdir(exist_ok=True)
            (run.folder.path / SAMPLES / f"step-{step:06d}.png").write_bytes(png)
        (run.outputs / f"{SAMPLES}.png").write_bytes(png)
        ended = time.monotonic()
        self._next_at = ended + _SHARE_OF_TIME * (ended - began)


def keep_pipeline(context: TrainingContext) -> KeptPipeline:
    """The context's task head becomes the pipeline's, by which its targets are latents. Raises INVALID for a pipeline
    that cannot be loaded."""
    payload = context.payload
    base_model, folder = str(payload.spec.base_model), Path(payload.base_folder or "")
    pipeline = load_pipeline(folder, base_model, payload.threads)
    context.task_head = denoising_head(pipeline)
    context.report["pipeline"] = {
        "side": pipeline.side,
        "latent": list(pipeline.latent_shape),
        "trained": "unet",
        "prompts": list(_usual_prompts([*context.validation, *context.train])),
    }
    return KeptPipeline(context, pipeline, base_model, folder)


def _usual_prompts(examples: Sequence[Example]) -> tuple[str, ...]:
    """Different captions, in turn if they are few."""
    captions = list(dict.fromkeys(prompt_of(example) for example in examples))
    times = -(-_MOST_PROMPTS // max(len(captions), 1))
    return tuple((captions * times)[:_MOST_PROMPTS])
