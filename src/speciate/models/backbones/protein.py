"""Networks that read proteins: `new:esm`, fresh and small, and transformers' ESM models in a folder.

A token per residue, so units are residues; of a structure those of its chains, one after another, without their
places. What a vocabulary lacks (of new ones: all but the twenty) is read as X. A sequence is cut after `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from speciate.modalities.biology.protein import Media, sequence_of
from speciate.models.backbones import hf_transformers, text
from speciate.models.backbones.contract import Backbone, BackboneSettings, Item, States, refuse_medium

if TYPE_CHECKING:
    import torch

_MAX_TOKENS = 1024
_RESIDUES = "ACDEFGHIKLMNPQRSTVWYX"


class Vocabulary(NamedTuple):
    """Token numbers: of each residue's letter, and of what stands at the two ends and for padding."""

    residues: dict[str, int]
    first: int
    last: int
    filler: int


FRESH = Vocabulary({letter: place + 3 for place, letter in enumerate(_RESIDUES)}, first=1, last=2, filler=0)


class ProteinBackbone:
    modality = "protein"
    unit = "residue"

    def __init__(
        self, base_model: str, config: Any, module: torch.nn.Module, vocabulary: Vocabulary, max_tokens: int
    ) -> None:
        self.base_model, self.module, self.max_tokens = base_model, module, max_tokens
        self._config, self._vocabulary = config, vocabulary
        self.width: int = config.hidden_size

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        items = []
        known, unknown = self._vocabulary.residues, self._vocabulary.residues["X"]
        for medium in media:
            if not isinstance(medium, str) and not (isinstance(medium, dict) and "sequence" in medium):
                refuse_medium(self, medium)
            sequence = sequence_of(cast("Media", medium))
            residues = [known.get(letter, unknown) for letter in sequence[: self.max_tokens - 2]]
            ids = [self._vocabulary.first, *residues, self._vocabulary.last]
            special = [1, *(0 for _ in residues), 1]
            units = range(1, len(residues) + 1) if per_unit else None
            items.append(text.token_item(ids, special, units, self._vocabulary.filler))
        return items

    def length(self, item: Item) -> int:
        return len(item["ids"])

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        return text.collate_tokens(items, self._vocabulary.filler)

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        return text.token_states(self.module, batch, "mean")

    def settings(self) -> BackboneSettings:
        return {
            "base_model": self.base_model,
            "modality": self.modality,
            "config": hf_transformers.settings_of(self._config),
            "max_tokens": self.max_tokens,
            "vocabulary": self._vocabulary._asdict(),
        }

    def files(self) -> dict[str, bytes]:
        return {}


def build(
    base_model: str, media: Sequence[Any], seed: int, folder: Path | None, *, max_tokens: int = _MAX_TOKENS
) -> Backbone:
    """`max_tokens`: the two at the ends included; less where an architecture has fewer positions."""
    if folder is not None:
        config = hf_transformers.published_config(folder)
        limit = min(max_tokens, text.longest_input(config) or max_tokens)
        module, vocabulary = hf_transformers.load_published(folder), _published_vocabulary(folder)
        return ProteinBackbone(base_model, config, module, vocabulary, limit)
    config = small_config()
    return ProteinBackbone(base_model, config, hf_transformers.build_fresh(config, seed), FRESH, max_tokens)


def tokens_read(folder: Path) -> int:
    """Tokens of a sequence that the published network in this folder reads here."""
    return min(_MAX_TOKENS, text.longest_input(hf_transformers.published_config(folder)) or _MAX_TOKENS)


def rebuild(settings: Mapping[str, Any], folder: Path) -> Backbone:
    config = hf_transformers.config_of(settings["config"])
    vocabulary = Vocabulary(**settings["vocabulary"])
    return ProteinBackbone(
        settings["base_model"], config, hf_transformers.build_empty(config), vocabulary, settings["max_tokens"]
    )


def small_config() -> Any:
    """Positions by rotation (Su et al. 2021), as ESM-2 has them: no length is too long for them."""
    from transformers import EsmConfig

    return EsmConfig(
        vocab_size=3 + len(_RESIDUES), hidden_size=128, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=512, position_embedding_type="rotary", token_dropout=False, pad_token_id=FRESH.filler,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0, use_cache=False,
    )  # fmt: skip


def _published_vocabulary(folder: Path) -> Vocabulary:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        residues = {token: number for token, number in sorted(tokenizer.get_vocab().items()) if _is_residue(token)}
        missing = sorted(set(_RESIDUES) - set(residues))
        ends = [tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    except Exception as error:
        raise hf_transformers.unreadable(folder, f"its tokenizer: {type(error).__name__}", error) from error
    if missing or None in ends:
        raise hf_transformers.unreadable(folder, f"its tokenizer lacks {', '.join(missing) or 'a token for the ends'}.")
    return Vocabulary(residues, *ends)


def _is_residue(token: str) -> bool:
    return len(token) == 1 and token.isalpha() and token.isupper()
