"""Tiny transformers folders with drawn weights, as `save_pretrained` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, EsmConfig, EsmTokenizer, PreTrainedTokenizerFast

from speciate.models.backbones.text import learn_tokenizer

TEXTS = (
    "The pump leaks oil since Monday.", "naïve  café — 日本語 😀", "Short", "one two three four five six seven " * 5,
    "A tab\tand a\nline break", "Der Motor läuft, aber zu heiß!",
)  # fmt: skip
PROTEINS = ("MKVLA", "ACDEFGHIKLMNPQRSTVWY", "MBZUXO", "GIGKFLHSAKKFGKAFVGEIMNS" * 2)
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip


def text_folder(folder: Path, config: Any) -> Path:
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=learn_tokenizer(TEXTS), **special).save_pretrained(folder)
    return folder


def protein_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO", ".", "-", "<null_1>", "<mask>"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(tokens))
    EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = EsmConfig(
        vocab_size=len(tokens), pad_token_id=1, mask_token_id=tokens.index("<mask>"), token_dropout=True,
        position_embedding_type="rotary", emb_layer_norm_before=False, **SMALL,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(folder)
    return folder
