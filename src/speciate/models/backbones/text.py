"""Networks that read text: `new:bert`, fresh and small, and transformers' encoders in a folder.

Units are words between white space; the state of a word is that of its first piece, as Devlin et al. 2019 have it.
A text is cut after `max_tokens`. Left out: the dense layers that some sentence-transformers folders have after pooling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speciate import foreign_files
from speciate.models.backbones import sequences, transformer
from speciate.models.backbones.contract import Backbone, Item, States, refuse_medium
from speciate.models.backbones.sequences import Pooling

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

_TOKENIZER = "tokenizer.json"
_MAX_TOKENS = 256
_VOCABULARY = 8192
_SPECIAL = ("[PAD]", "[CLS]", "[SEP]")
_WORD = re.compile(r"\S+")


class TextBackbone:
    modality = "text"
    unit = "word"

    def __init__(
        self, base_model: str, config: Any, module: torch.nn.Module, tokenizer: Tokenizer, max_tokens: int,
        pooling: Pooling = "mean",
    ) -> None:  # fmt: skip
        self.base_model, self.module, self.max_tokens = base_model, module, max_tokens
        self._config, self._tokenizer, self._pooling = config, tokenizer, pooling
        self._filler: int = config.pad_token_id or 0
        self.width: int = config.hidden_size
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        for medium in media:
            if not isinstance(medium, str):
                refuse_medium(self, medium)
        pieces = self._tokenizer.encode_batch(list(media))
        return [
            sequences.item(
                each.ids, each.special_tokens_mask, _first_pieces(text, each) if per_unit else None, self._filler
            )
            for text, each in zip(media, pieces, strict=True)
        ]

    def length(self, item: Item) -> int:
        return len(item["ids"])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        return sequences.collate(items, self._filler)

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        return sequences.states(self.module, batch, self._pooling)

    def settings(self) -> dict[str, Any]:
        return {
            "base_model": self.base_model, "modality": self.modality, "config": transformer.settings_of(self._config),
            "max_tokens": self.max_tokens, "pooling": self._pooling,
        }  # fmt: skip

    def files(self) -> dict[str, bytes]:
        return {_TOKENIZER: self._tokenizer.to_str().encode()}


def build(
    base_model: str, media: Sequence[Any], seed: int, folder: Path | None, *,
    max_tokens: int = _MAX_TOKENS, cased: bool = False,
) -> Backbone:  # fmt: skip
    """`max_tokens`: special ones included; less where an architecture has fewer positions. `cased`: fresh ones tell
    capitals from small letters, as names of things need it; what has few examples is better off without."""
    if folder is not None:
        return _published(base_model, folder, max_tokens)
    tokenizer = learn_tokenizer(media, cased)
    config = small_config(tokenizer.get_vocab_size(), max_tokens)
    return TextBackbone(base_model, config, transformer.fresh(config, seed), tokenizer, max_tokens)


def rebuild(settings: Mapping[str, Any], folder: Path) -> Backbone:
    from tokenizers import Tokenizer

    config = transformer.config_of(settings["config"])
    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    return TextBackbone(
        settings["base_model"], config, transformer.empty(config), tokenizer, settings["max_tokens"],
        settings["pooling"],
    )  # fmt: skip


def learn_tokenizer(texts: Sequence[str], cased: bool = False) -> Tokenizer:
    """Pieces of bytes joined by frequency (Sennrich et al. 2016): no character of any script is unknown to them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *([] if cased else [normalizers.Lowercase()])])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, min_frequency=2, special_tokens=list(_SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    first, last = ((name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[first, last])
    return tokenizer


def small_config(vocabulary: int, max_tokens: int) -> Any:
    """ModernBERT (Warner et al. 2024), 2 million weights. Of 397 sentences of 6 kinds it knew 0.74 after 3 epochs over
    924, a BERT of the same size and cost 0.71 (one seed; 20 s on one core)."""
    from transformers import ModernBertConfig

    first, last = _SPECIAL.index("[CLS]"), _SPECIAL.index("[SEP]")
    return ModernBertConfig(
        vocab_size=vocabulary, hidden_size=192, num_hidden_layers=4, num_attention_heads=6, intermediate_size=384,
        max_position_embeddings=max_tokens, mlp_dropout=0.1, embedding_dropout=0.1, pad_token_id=0,
        cls_token_id=first, bos_token_id=first, sep_token_id=last, eos_token_id=last,
    )  # fmt: skip


def _published(base_model: str, folder: Path, max_tokens: int) -> Backbone:
    config = transformer.published_config(folder)
    tokenizer = _published_tokenizer(folder)
    limit = min(max_tokens, sequences.longest(config) or max_tokens)
    return TextBackbone(base_model, config, transformer.published(folder), tokenizer, limit, published_pooling(folder))


def _published_tokenizer(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_fast=True)
        return found.backend_tokenizer
    except Exception as error:
        raise transformer.unreadable(folder, f"its tokenizer: {type(error).__name__}", error) from error


def published_pooling(folder: Path) -> Pooling:
    """What a sentence-transformers folder says of itself, else the mean."""
    try:
        settings = foreign_files.read_json(folder / "1_Pooling" / "config.json")
    except (OSError, ValueError):
        return "mean"
    if settings.get("pooling_mode_cls_token"):
        return "first"
    return "max" if settings.get("pooling_mode_max_tokens") else "mean"


def _first_pieces(text: str, pieces: Any) -> list[int]:
    """Where each word's first piece stands: the first that ends after the word begins. Words that were cut off have
    none; one of which the tokenizer keeps nothing has the piece after it, or the last."""
    special = np.asarray(pieces.special_tokens_mask) == 1
    places = np.flatnonzero(~special)
    if not len(places):
        return []
    ends = np.asarray(pieces.offsets)[places, 1]
    begins = np.array([word.start() for word in _WORD.finditer(text)], np.int64)
    if pieces.overflowing:
        begins = begins[begins < ends[-1]]
    first: list[int] = places[np.minimum(np.searchsorted(ends, begins, side="right"), len(places) - 1)].tolist()
    return first
