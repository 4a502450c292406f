"""Vision-language models of a hundred thousand weights, each with a processor of its own, made in a second.

Three families, each with another way to tie images to text: patches in one row with their grid (Qwen2-VL), images of
one size (LLaVA), and several images padded with masks (Idefics3). Their weights are random; what they learn is real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import transformers.modeling_utils  # noqa: F401  # or the first network of the process hides torchvision from it

from speciate.models.language.vision_language import ImageArray

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
COLOURS = {"red": (220, 30, 20), "green": (20, 200, 40), "blue": (30, 40, 220)}
_TEXT: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
}  # fmt: skip


def coloured(colour: str, at: int = 0, shape: tuple[int, int] = (28, 28)) -> ImageArray:
    """An image of one colour; its noise is a function of `at`."""
    noise = np.random.default_rng(at).integers(-18, 18, (*shape, 3))
    return (np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)


def tiny_qwen(folder: Path, template: str | None = CHAT, *, dropout: float = 0.0) -> str:
    """Saved there; its ref. An image of 28 pixels a side has one token, one of 56 or more four."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    pad = "<|vision_start|><|image_pad|><|vision_end|>"
    tokenizer = _tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    make: Any = Qwen2VLImageProcessor
    processor = Qwen2VLProcessor(
        image_processor=make(min_pixels=28 * 28, max_pixels=56 * 56), tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(), chat_template=template and template.replace("IMAGE", pad),
    )  # fmt: skip
    ids = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}
    config = Qwen2VLConfig(
        text_config=_of_text(tokenizer) | {"rope_parameters": rope, "bos_token_id": None, "attention_dropout": dropout},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    return _saved(folder, Qwen2VLForConditionalGeneration, config, processor)


def tiny_llava(folder: Path, template: str | None = CHAT) -> str:
    """An image has four tokens."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _tokenizer("<image>")
    make: Any = CLIPImageProcessor
    processor = LlavaProcessor(
        image_processor=make(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), tokenizer=tokenizer,
        patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=template and template.replace("IMAGE", "<image>"),
    )  # fmt: skip
    config = LlavaConfig(
        text_config=_of_text(tokenizer) | {"model_type": "llama"},
        vision_config=_VISION | {"model_type": "clip_vision_model", "patch_size": 14},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    return _saved(folder, LlavaForConditionalGeneration, config, processor)


def tiny_idefics(folder: Path, template: str | None = CHAT) -> str:
    """An image has seven tokens, three of them around it."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    rows = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    tokenizer = _tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows)
    make: Any = Idefics3ImageProcessor
    image_processor = make(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}, do_image_splitting=False)
    processor = Idefics3Processor(
        image_processor=image_processor, tokenizer=tokenizer, image_seq_len=4,
        chat_template=template and template.replace("IMAGE", "<image>"),
    )  # fmt: skip
    config = Idefics3Config(
        text_config=_of_text(tokenizer) | {"model_type": "llama"}, vision_config=_VISION | {"patch_size": 7},
        scale_factor=2, image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return _saved(folder, Idefics3ForConditionalGeneration, config, processor)


FAMILIES: dict[str, Callable[[Path], str]] = {"qwen": tiny_qwen, "llava": tiny_llava, "idefics": tiny_idefics}


def _tokenizer(*special: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[*SPECIAL, *special], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    words = [*COLOURS, "which colour?", "how many pictures?", "user", "assistant", "system"]
    made.train_from_iterator(words, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|pad|>", model_max_length=256, padding_side="left"
    )


def _of_text(tokenizer: Any) -> dict[str, Any]:
    return _TEXT | {
        "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip


def _saved(folder: Path, kind: Any, config: Any, processor: Any) -> str:
    import torch

    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"path:{folder}"
