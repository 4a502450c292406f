"""Networks that read text: `new:bert`, fresh and small, and transformers' encoders in a folder.

Units are words between white space; the state of a word is that of its first piece, as Devlin et al. 2019 have it. A
text is truncated after `max_tokens`. The functions over tokens are shared with protein.py. A folder of
sentence-transformers keeps its pooling and the layers after it, through which the states of words go, too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speciate.models.backbones import hf_transformers, sentence_folder
from speciate.models.backbones.contract import Backbone, BackboneSettings, Item, States, refuse_medium
from speciate.models.backbones.sentence_folder import DenseSettings, SentenceModules

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


_TOKENIZER = "tokenizer.json"
_MAX_TOKENS = 256
_VOCABULARY = 8192
_SPECIAL = ("[PAD]", "[CLS]", "[SEP]")
_WORD = re.compile(r"\S+")
Pooling = str
"""`mean`, `max`, `mean-root` (the sum by the root of their number) or `weighted` (by place, Muennighoff 2022) of all
attended tokens, special ones included, as Sentence-BERT does (Reimers & Gurevych 2019); the `first`'s or the `last`'s;
several joined by `+`, one after the other."""


class TextBackbone:
    modality = "text"
    unit = "word"

    def __init__(
        self, base_model: str, config: Any, module: torch.nn.Module, tokenizer: Tokenizer, max_tokens: int,
        pooling: Pooling = "mean", dense: Sequence[DenseSettings] = (),
    ) -> None:  # fmt: skip
        self.base_model, self.module, self.max_tokens = base_model, module, max_tokens
        self._config, self._tokenizer, self._pooling = config, tokenizer, pooling
        self._filler: int = config.pad_token_id or 0
        self._dense = tuple(dense)
        self.width: int = SentenceModules(pooling, self._dense).width(config.hidden_size)
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        for medium in media:
            if not isinstance(medium, str):
                refuse_medium(self, medium)
        pieces = self._tokenizer.encode_batch(list(media))
        return [
            token_item(
                each.ids, each.special_tokens_mask, _first_pieces(text, each) if per_unit else None, self._filler
            )
            for text, each in zip(media, pieces, strict=True)
        ]

    def length(self, item: Item) -> int:
        return len(item["ids"])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        return collate_tokens(items, self._filler)

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        states = token_states(self.module, batch, self._pooling)
        if not self._dense:
            return states
        layers: Any = self.module.get_submodule("dense")
        kind = next(layers.parameters()).dtype  # an encoder may keep its weights in fewer bits
        pooled = layers(states.pooled.to(kind)).float()
        # of several poolings in a row the layers fit no single state
        sequence = states.sequence if "+" in self._pooling else layers(states.sequence.to(kind)).float()
        return States(sequence, states.mask, pooled)

    def states_at_two_depths(self, batch: Mapping[str, torch.Tensor]) -> States:
        """`pooled` is (B, 2 W): as usual of the last layer, and the mean of the middle one, each of unit length."""
        import torch

        attended = batch["attended"]
        found = self.module(input_ids=batch["ids"], attention_mask=attended.long(), output_hidden_states=True)
        layers = getattr(found, "hidden_states", None) or (found.last_hidden_state,)
        mask = attended.unsqueeze(-1)
        last = _pooled(found.last_hidden_state.float(), mask, self._pooling)
        middle = _pooled(layers[len(layers) // 2].float(), mask, "mean")
        both = torch.cat([torch.nn.functional.normalize(each, dim=1) for each in (last, middle)], dim=1)
        return States(found.last_hidden_state.float(), batch["counted"], both)

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model,
            "modality": self.modality,
            "config": hf_transformers.settings_of(self._config),
            "max_tokens": self.max_tokens,
            "pooling": self._pooling,
            **({"dense": [list(each) for each in self._dense]} if self._dense else {}),
        }

    def files(self) -> dict[str, bytes]:
        return {_TOKENIZER: self._tokenizer.to_str().encode()}


def build(
    base_model: str, media: Sequence[Any], seed: int, folder: Path | None, *,
    max_tokens: int = _MAX_TOKENS, cased: bool = False,
) -> Backbone:  # fmt: skip
    """`max_tokens`: special ones included; less if an architecture has fewer positions. `cased`: a fresh tokenizer
    keeps capitals, which names need; with few examples it is better to fold them."""
    if folder is not None:
        return _published(base_model, folder, max_tokens)
    tokenizer = learn_tokenizer(media, cased)
    config = small_config(tokenizer.get_vocab_size(), max_tokens)
    return TextBackbone(base_model, config, hf_transformers.build_fresh(config, seed), tokenizer, max_tokens)


def rebuild(settings: Mapping[str, Any], folder: Path) -> Backbone:
    from tokenizers import Tokenizer

    config = hf_transformers.config_of(settings["config"])
    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    dense = [DenseSettings(*each) for each in settings.get("dense", ())]
    module = _with_dense(hf_transformers.build_empty(config), dense)
    return TextBackbone(
        settings["base_model"], config, module, tokenizer, settings["max_tokens"], settings["pooling"], dense
    )


def learn_tokenizer(texts: Sequence[str], cased: bool = False) -> Tokenizer:
    """Pieces of bytes joined by frequency (Sennrich et al. 2016): they know every character of every script."""
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
    config = hf_transformers.published_config(folder)
    tokenizer = _published_tokenizer(folder)
    told = sentence_folder.read_modules(folder)
    limit = _tokens_read(config, told, max_tokens)
    if told.lower:
        _fold(tokenizer)
    module = _with_dense(hf_transformers.load_published(folder), told.dense)
    for place, each in enumerate(told.dense):
        _load_dense(folder, each, module.get_submodule(f"dense.{2 * place}"))
    return TextBackbone(base_model, config, module, tokenizer, limit, told.pooling, told.dense)


def tokens_read(folder: Path) -> int:
    """Tokens of a text that the published network in this folder reads here."""
    return _tokens_read(hf_transformers.published_config(folder), sentence_folder.read_modules(folder), _MAX_TOKENS)


def _tokens_read(config: Any, told: SentenceModules, most: int) -> int:
    return min(most, longest_input(config) or most, told.longest or most)


def _with_dense(module: torch.nn.Module, dense: Sequence[DenseSettings]) -> torch.nn.Module:
    """The network with the layers as its submodule `dense`: they are saved and trained with it."""
    from torch import nn

    activations = {"tanh": nn.Tanh, "identity": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}
    if dense:
        layers: list[nn.Module] = []
        for each in dense:
            layers += [nn.Linear(each.inputs, each.outputs, bias=each.bias), activations[each.activation]()]
        module.add_module("dense", nn.Sequential(*layers))
    return module


def _load_dense(folder: Path, settings: DenseSettings, layer: torch.nn.Module) -> None:
    from safetensors.torch import load_file

    try:
        found = load_file(sentence_folder.dense_weights(folder, settings.part))
        layer.load_state_dict({name.removeprefix("linear."): each.float() for name, each in found.items()}, strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        why = f"the weights of its layer {settings.part!r}: {type(error).__name__}"
        raise hf_transformers.unreadable(folder, why, error) from error


def _fold(tokenizer: Tokenizer) -> None:
    from tokenizers import normalizers

    own = tokenizer.normalizer
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([own] if own else [])])


def _published_tokenizer(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_fast=True)
        return found.backend_tokenizer
    except Exception as error:
        raise hf_transformers.unreadable(folder, f"its tokenizer: {type(error).__name__}", error) from error


def _first_pieces(text: str, pieces: Any) -> list[int]:
    """The place of each word's first piece: the first that ends after the word begins. Truncated words have none; a
    word that the tokenizer drops has the piece after it, or the last."""
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


def token_item(ids: Sequence[int], special: Sequence[int], units: Sequence[int] | None, filler: int) -> Item:
    """`special` marks tokens that stand for no part of the medium; `units`: the position of each unit's token."""
    if not ids:  # a text without a known token: attention needs at least one
        ids, special = [filler], [1]
    made: Item = {"ids": np.asarray(ids, np.int32), "counted": np.asarray(special) == 0}
    return made if units is None else made | {"units": np.asarray(units, np.int32)}


def collate_tokens(items: Sequence[Item], filler: int) -> dict[str, torch.Tensor]:
    """`ids` `attended` `counted` (B, T), and with units `units` `there` (B, U); `filler` is the padding token."""
    import torch

    ids = [item["ids"] for item in items]
    batch = {
        "ids": _padded(ids, filler, np.int64),
        "attended": _padded([np.ones(len(each), bool) for each in ids], False, np.bool_),
        "counted": _padded([item["counted"] for item in items], False, np.bool_),
    }
    if "units" in items[0]:
        units = [item["units"] for item in items]
        batch["units"] = _padded(units, 0, np.int64)
        batch["there"] = _padded([np.ones(len(each), bool) for each in units], False, np.bool_)
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def token_states(module: Any, batch: dict[str, torch.Tensor], pooling: Pooling) -> States:
    attended = batch["attended"]
    hidden = module(input_ids=batch["ids"], attention_mask=attended.long()).last_hidden_state.float()  # (B, T, W)
    pooled = _pooled(hidden, attended.unsqueeze(-1), pooling)
    if "units" not in batch:
        return States(hidden, batch["counted"], pooled)
    places = batch["units"].unsqueeze(-1).expand(-1, -1, hidden.shape[-1])  # (B, U, W)
    return States(hidden.gather(1, places), batch["there"], pooled)


def longest_input(config: Any) -> int | None:
    """Tokens that an architecture has positions for; None if its positions are relative."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    # RoBERTa's and its heirs' positions begin after the padding token's number.
    return int(positions) - (config.pad_token_id + 1 if config.model_type in _OFFSET else 0)


_OFFSET = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "esm"}


def _pooled(hidden: torch.Tensor, attended: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(B, T, W), (B, T, 1) -> (B, W)"""
    import torch

    counted = attended.to(hidden.dtype)
    match pooling:
        case "first":
            return hidden[:, 0]
        case "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), attended[:, :, 0].sum(1).clamp(min=1) - 1]
        case "mean-root":
            return (hidden * counted).sum(1) / counted.sum(1).clamp(min=1).sqrt()
        case "weighted":
            weights = counted * torch.arange(1, hidden.shape[1] + 1, device=hidden.device).view(1, -1, 1)
            return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        case "max":
            return hidden.masked_fill(~attended, float("-inf")).amax(1)
        case "mean":
            return (hidden * counted).sum(1) / counted.sum(1).clamp(min=1)
    return torch.cat([_pooled(hidden, attended, each) for each in pooling.split("+")], 1)


def _padded(rows: Sequence[npt.NDArray[Any]], value: int, kind: Any) -> npt.NDArray[Any]:
    padded = np.full((len(rows), max(1, *(len(row) for row in rows), 1)), value, kind)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded
