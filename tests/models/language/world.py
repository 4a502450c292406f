"""A language model of fifty thousand weights with a tokenizer of its own, made in a second, and sums to learn.

Its weights are random; what it learns from a few hundred sums with one digit is real.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speciate.models.language.chat_templates import CHATML

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")


def sums(count: int = 100) -> list[tuple[str, str]]:
    """Questions with their answers, all different."""
    pairs = [(a, b) for a in range(10) for b in range(10)][:count]
    return [(f"what is {a} plus {b}?", str(a + b)) for a, b in pairs]


def tiny_tokenizer(template: str | None = CHATML, texts: Sequence[str] = ()) -> Any:
    """`texts`: further texts whose words become tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024 if texts else 384, special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    known = [*(question for question, _ in sums()), "user", "assistant", "system", *texts]
    made.train_from_iterator(known, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|pad|>", model_max_length=256, padding_side="left"
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(
    folder: Path, template: str | None = CHATML, *, hidden: int = 48, dropout: float = 0.0, texts: Sequence[str] = (),
    tokenizer: Any = None,
) -> str:  # fmt: skip
    """Saved there; its ref. `texts`: as `tiny_tokenizer` takes them. `tokenizer`: another in its place."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = tokenizer or tiny_tokenizer(template, texts)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=hidden // 4, max_position_embeddings=256,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
            attention_dropout=dropout,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"path:{folder}"


def messages(*turns: str) -> str:
    """A conversation of user and assistant in turn, as a dataset stores it."""
    roles = ("user", "assistant")
    return json.dumps([{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)])
