"""A text-to-image pipeline in memory: captions to states, images to latents and back, and images drawn by DDIM.

Latent diffusion (Rombach et al. 2022), sampled by DDIM without noise on the way (Song et al. 2021) and led away from
the empty caption (classifier-free guidance, Ho & Salimans 2022). Each image has a seed of its own, so what is drawn
beside it does not matter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.models.diffusion.pipeline_folder import PARTS, check_pipeline, is_part_file, nested_name
from speciate.models.published.published_model import refuse_unmatched

if TYPE_CHECKING:
    import torch

Image = npt.NDArray[np.uint8]
"""(H, W, 3)"""
_TOGETHER = 8
"""Images that are drawn or encoded at once."""


class Sampling(NamedTuple):
    """How images are drawn."""

    steps: int = 25
    guidance: float = 5.0
    """1: the caption alone; more leads further away from the empty caption."""


class Pipeline(NamedTuple):
    """A pipeline in eval mode, on the CPU, in float32."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    noise: Any
    """A DDIM scheduler with the pipeline's own noise levels."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side

    @property
    def side(self) -> int:
        """Pixels of an image."""
        return int(self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def parameters(self) -> int:
        return sum(each.numel() for part in (self.unet, self.vae, self.text_encoder) for each in part.parameters())

    def states(self, captions: Sequence[str]) -> torch.Tensor:
        """(N, T, W) of each caption; what is beyond the tokenizer's limit is cut."""
        import torch

        ids = self.tokenizer(
            list(captions), padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        ).input_ids  # fmt: skip
        with torch.no_grad():
            found: torch.Tensor = self.text_encoder(ids)[0]
        return found

    def latents(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """(N, C, h, w): the mean of what the autoencoder says, scaled."""
        import torch

        found = [np.zeros((0, *self.latent_shape), np.float32)]
        for start in range(0, len(images), _TOGETHER):
            fitted = [fit_to_square(each, self.side) for each in images[start : start + _TOGETHER]]
            pixels = torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.no_grad():
                made = self.vae.encode(pixels).latent_dist.mean * self.vae.config.scaling_factor
            found.append(made.numpy())
        return np.concatenate(found)

    def draw(self, captions: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> list[Image]:
        """One image for each caption, by its seed."""
        images: list[Image] = []
        for start in range(0, len(captions), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            images += self._draw(captions[part], seeds[part], sampling)
        return images

    def _draw(self, captions: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> list[Image]:
        import torch

        self.noise.set_timesteps(sampling.steps)
        device = next(self.unet.parameters()).device
        began = [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        latents = torch.stack(began).to(device) * self.noise.init_noise_sigma
        guided = sampling.guidance != 1.0
        states = self.states([*captions, *([""] * len(captions) if guided else [])]).to(device)
        with torch.inference_mode():
            for when in self.noise.timesteps:
                given = torch.cat([latents, latents]) if guided else latents
                found = self.unet(self.noise.scale_model_input(given, when), when, states).sample
                if guided:
                    with_caption, without = found.chunk(2)
                    found = without + sampling.guidance * (with_caption - without)
                latents = self.noise.step(found, when, latents).prev_sample
            pixels = self.vae.decode(latents.cpu() / self.vae.config.scaling_factor).sample
        scaled = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return list(scaled.permute(0, 2, 3, 1).numpy())


def load_pipeline(folder: Path, ref: str, threads: int = 1) -> Pipeline:
    """Loads a pipeline from the folder of a version or a checked copy, strictly: INVALID for weights that are missing,
    left over or of another shape. Raises as `check_pipeline` does."""
    check_pipeline(folder, ref)
    import torch
    import transformers
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from diffusers.utils import logging

    torch.set_num_threads(threads)
    log: Any = logging  # has no types for all of its functions
    log.set_verbosity_error()
    log.disable_progress_bar()
    scheduler: Any = DDIMScheduler
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with nested_view(folder) as place:
        try:
            unet = _load_part(UNet2DConditionModel, place, "unet", torch_dtype=torch.float32)
            vae = _load_part(AutoencoderKL, place, "vae", torch_dtype=torch.float32)
            text_encoder = _load_part(transformers.CLIPTextModel, place, "text_encoder", dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                place / "tokenizer", local_files_only=True, trust_remote_code=False
            )
            noise = scheduler.from_pretrained(place / "scheduler", local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise SpeciateError(
                Code.INVALID,
                f"The pipeline {ref!r} cannot be loaded: {type(error).__name__} in its weights or settings.",
                "Save it anew with save_pretrained, or use another one.",
                str(error)[:300],
            ) from error
    # Other samplers' settings lack these, and DDIM's own defaults are for images, not for latents.
    noise.register_to_config(clip_sample=False, thresholding=False)
    found = Pipeline(unet, vae, text_encoder, tokenizer, noise)
    for part in (unet, vae, text_encoder):
        part.eval().requires_grad_(False)
    return found


def _load_part(kind: Any, place: Path, name: str, **options: Any) -> Any:
    part, info = kind.from_pretrained(
        place / name, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
    )
    refuse_unmatched(place / name, _without_known_leftovers(info))
    return part


def _without_known_leftovers(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Older text encoders have a buffer of positions in their file, which is computed now."""
    left = [each for each in info.get("unexpected_keys") or () if not str(each).endswith("position_ids")]
    return {**info, "unexpected_keys": left}


@contextmanager
def nested_view(folder: Path) -> Iterator[Path]:
    """The files of a flat folder as diffusers wants them: a folder for each part, of links, for as long as it lasts."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        for name in PARTS:
            (place / name).mkdir()
        for path in sorted(folder.iterdir()):
            nested = nested_name(path.name)
            if is_part_file(nested):
                (place / nested).symlink_to(path.resolve())
        yield place


def fit_to_square(image: Image, side: int) -> Image:
    """The middle square of an image, at `side` pixels."""
    from PIL import Image as Pillow

    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    edge = min(height, width)
    left, top = (width - edge) // 2, (height - edge) // 2
    cut = Pillow.fromarray(image[top : top + edge, left : left + edge])
    how = Pillow.Resampling.LANCZOS if edge > side else Pillow.Resampling.BICUBIC
    return np.asarray(cut.resize((side, side), how))
