"""A text-to-image pipeline with random weights, small enough to be built in half a second, as diffusers saves it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

WORDS = ("<pad>", "<unk>", "<start>", "<end>", "a", "red", "green", "blue", "square", "circle")
SIDE, LATENT, LENGTH = 16, 8, 6


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>",
        model_max_length=LENGTH,
    )  # fmt: skip


def pipeline(prediction_type: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    from diffusers import (  # slow to import, and every worker imports this file
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )  # fmt: skip

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vae = AutoencoderKL(
            block_out_channels=(8, 8), in_channels=3, out_channels=3, latent_channels=4, norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=SIDE,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=LATENT, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            norm_num_groups=4, cross_attention_dim=16, attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=LENGTH, bos_token_id=2, eos_token_id=3, pad_token_id=0, projection_dim=16,
            )
        )  # fmt: skip
        scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type,
        )  # fmt: skip
        return StableDiffusionPipeline(
            vae=vae, unet=unet, text_encoder=text, tokenizer=tokenizer(), scheduler=scheduler, safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip


def save(folder: Path, prediction_type: str = "epsilon") -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline(prediction_type).save_pretrained(folder)
    return folder
