"""A published model with its own head, as a network that the training loop steps.

Preprocessing is the publisher's. Where a head's loss is a function of its outputs, `states` are those outputs, so that
the head of a task that is put on them has no weights at all (`Outputs`). Where the loss needs the targets in the
forward pass (detectors, segmenters, speech), tasks/published_heads.py asks the module itself.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speciate.errors import Code, SpeciateError
from speciate.modalities.biology.protein import sequence_of
from speciate.models.backbones.contract import Item, States
from speciate.models.published import label_rows, voice_folder
from speciate.models.published.adapters.audio import audio_features
from speciate.models.published.adapters.by_words import sentence_tokens
from speciate.models.published.adapters.images import as_image, read_frames
from speciate.models.published.adapters.speech import speech_tokens
from speciate.models.published.adapters.text import (
    bare_passage,
    fill_input,
    longest,
    question_tokens,
    text_tokens,
    token_limit,
    word_tokens,
)
from speciate.models.published.architectures import Adapter, PublishedHead
from speciate.models.published.label_rows import RowSources
from speciate.models.published.published_model import LabelPrompts, PublishedModel, load_model
from speciate.models.sealed import CARD, MANIFEST, PREDICTOR, PUBLISHER, README

if TYPE_CHECKING:
    import torch

TRAINABLE: tuple[Adapter, ...] = (
    "text-classification", "token-classification", "image-classification", "audio-classification",
    "video-classification", "object-detection", "image-segmentation", "ctc", "speech", "zero-shot-image",
    "zero-shot-audio", "seq2seq", "question-answering", "forecast", "image-to-text", "depth", "panoptic", "policy",
    "text-to-spectrogram",
)  # fmt: skip
_FIRST = "first"
"""Entry of an item: the position of each word's first piece."""
MASK = "pixel_mask"
SERIES = "past_values"
SERIES_MASK = "past_observed_mask"
"""Whether a step of a series was seen; a short one begins with its first step over again."""
QUESTION_MASK, OFFSETS, PASSAGE = "passage_mask", "offset_mapping", "passage"
"""Names in a batch: which of a question's tokens stand in the passage, where there, and the passage's characters."""
_NUMBERS = ("pixel_values", "pixel_values_videos", "input_values", "input_features")
"""Entries of an item, beside `MASK`, that a network of images, videos or audio reads."""
_MARKS: Mapping[str, type] = {MASK: np.int64, "is_longer": np.bool_}
"""Entries beside them, with their types."""
_NOT_COPIED = (MANIFEST, CARD, PREDICTOR, README, PUBLISHER, "config.json", "generation_config.json")
_LARGEST_PADDING = 1 << 28
_BY_WORDS: tuple[Adapter, ...] = ("zero-shot-image", "zero-shot-audio")


def is_trainable(head: PublishedHead, task: str, modality: str) -> bool:
    """Whether `full` and `lora` can train this head further for a task and the media of a dataset."""
    return head.adapter in TRAINABLE and head.engine == "torch" and head.task == task and head.reads(modality)


def load_network(
    folder: Path,
    head: PublishedHead,
    base_model: str,
    sources: RowSources | None,
    threads: int = 1,
    prompts: LabelPrompts | None = None,
) -> PublishedNetwork:
    """Strictly: INVALID for weights that are missing, left over or of another shape. `sources`: the labels it is to
    have, in order, and the published rows that stand for each; None of a head without labels. `prompts`: what a
    zero-shot model is asked, or what is put around each text of one that writes."""
    model = load_model(folder, head, threads)
    tensors: tuple[str, ...] = ()
    if sources is not None:
        made = label_rows.relabel(model.module, sources)
        model = model._replace(module=made.module, head=head._replace(labels=tuple(sources)))
        tensors = made.tensors
    return PublishedNetwork(model, base_model, folder, tensors, prompts)


class PublishedNetwork:
    """A `Network` of models/backbones/contract.py."""

    def __init__(
        self,
        model: PublishedModel,
        base_model: str,
        folder: Path,
        label_tensors: tuple[str, ...] = (),
        prompts: LabelPrompts | None = None,
    ) -> None:
        self.model, self.base_model, self._folder, self.prompts = model, base_model, folder, prompts
        self.label_tensors = label_tensors
        """Names of the parameters that depend on the labels; adapters leave them alone, and they are trained whole."""
        self.modality = model.head.modality
        network: Any = model.module
        if getattr(network.config, "use_cache", None):
            network.config.use_cache = False
        if model.head.adapter == "text-classification":
            self._settle_padding()

    @property
    def module(self) -> torch.nn.Module:
        return self.model.module

    @property
    def width(self) -> int:
        """Width of its outputs."""
        if self.model.head.adapter == "policy":
            return int(self.model.config.actions)
        by_words = self.model.head.adapter in _BY_WORDS and self.prompts is not None
        return len(self.prompts.labels) if by_words and self.prompts else len(self.model.labels)

    @property
    def unit(self) -> str | None:
        return "word" if self.model.head.adapter == "token-classification" else None

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        try:
            return [self._item(medium) for medium in media]
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID,
                f"{self.base_model!r} cannot read an example: {error}.",
                "Exclude such examples with curate_dataset, or use another base model.",
            ) from error

    def length(self, item: Item) -> int:
        """Number of an item's tokens or samples; images of more pixels count as longer, so that like ones meet."""
        if "input_ids" in item:
            return len(item["input_ids"])
        if SERIES in item:
            return len(item[SERIES])
        if self.model.head.adapter == "policy":
            return len(next(iter(item.values())))
        name = next(name for name in _NUMBERS if name in item)
        array = item[name]
        return int(array.shape[-1] * array.shape[-2]) if array.ndim > 1 else len(array)

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Texts padded by the tokenizer's rule. Waves and images of other sizes are padded with zeros beside a mask of
        what is theirs: `alike` gives them back without their padding."""
        import torch

        if "input_ids" in items[0]:
            return self._pad_tokens(items)
        batch: dict[str, torch.Tensor] = {}
        for name in items[0]:
            arrays = [item[name] for item in items]
            sizes = np.array([array.shape for array in arrays])
            shape = (len(arrays), *sizes.max(0).tolist())
            if math.prod(shape) > _LARGEST_PADDING:
                raise SpeciateError(
                    Code.INVALID,
                    f"A batch of examples of {self.base_model!r} has {math.prod(shape):,} numbers.",
                    "Call train_model again with a smaller hyperparameters={'batch_size': ...}.",
                )
            padded = np.zeros(shape, arrays[0].dtype)
            for row, array in zip(padded, arrays, strict=True):
                row[tuple(slice(0, length) for length in array.shape)] = array
            batch[name] = torch.from_numpy(padded)
            batch[f"{name} sizes"] = torch.from_numpy(sizes)
        return batch

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        """The head's outputs: of classifiers `pooled` (B, K), of taggers and CTC `sequence` (B, T, K)."""
        import torch

        match self.model.head.adapter:
            case "token-classification":
                first = batch[_FIRST]
                logits = self._call({name: each for name, each in batch.items() if name != _FIRST}).logits
                places = first.clamp(min=0).unsqueeze(2).expand(-1, -1, logits.shape[2])
                return States(logits.gather(1, places), first >= 0, logits[:, 0])
            case "text-classification":
                logits = self._call(batch).logits
            case _:
                ask = self._ask_by_words if self.model.head.adapter in _BY_WORDS else self._logits
                parts: dict[int, torch.Tensor] = {}
                for rows, part in self.alike(batch):
                    parts.update(zip(rows, ask(part), strict=True))
                logits = torch.stack([parts[row] for row in range(len(parts))])
        mask = torch.ones(len(logits), 1, dtype=torch.bool, device=logits.device)
        return States(logits.unsqueeze(1), mask, logits)

    def _logits(self, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self._call(part).logits
        return found

    def _ask_by_words(self, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, labels): how well each sentence fits, as a logit; of several templates the mean of the probabilities
        counts, as when it is asked."""
        import torch

        assert self.prompts is not None, "kept_head.py sees to it"
        images = self.model.head.adapter == "zero-shot-image"
        shares: list[torch.Tensor] = []
        for words in sentence_tokens(self.model, self.prompts):
            device = next(iter(part.values())).device
            made = self._call({**{name: each.to(device) for name, each in words.items()}, **part})
            shares.append((made.logits_per_image if images else made.logits_per_audio).float())
        if len(shares) == 1:
            return shares[0]
        return torch.stack([each.softmax(-1) for each in shares]).mean(0).clamp(min=1e-12).log()

    def alike(self, batch: Mapping[str, torch.Tensor]) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Rows of one size together, without padding: no answer depends on its neighbours."""
        names = [name for name in batch if f"{name} sizes" in batch]
        keys = [tuple(batch[f"{name} sizes"][row].tolist() for name in names) for row in range(len(batch[names[0]]))]
        by_size: dict[Any, list[int]] = {}
        for row, key in enumerate(map(repr, keys)):
            by_size.setdefault(key, []).append(row)
        for rows in by_size.values():
            part = {}
            for name in names:
                some = batch[name][rows]
                for axis, length in enumerate(batch[f"{name} sizes"][rows[0]].tolist(), 1):
                    some = some.narrow(axis, 0, length)
                part[name] = some
            yield rows, part

    def save_files(self, folder: Path) -> None:
        """Write the model as `save_pretrained` does, beside the publisher's own files of the preprocessing."""
        network: Any = self.model.processor if self.model.head.adapter == "policy" else self.module
        network.save_pretrained(folder)
        for path in sorted(self._folder.iterdir()):
            copied = path.is_file() and path.name not in _NOT_COPIED and not path.name.endswith(".safetensors")
            if copied and not path.name.endswith(".index.json") and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)
        voice_folder.keep_files(self._folder, folder)

    def _call(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        return self.module(**inputs)

    def _item(self, medium: Any) -> Item:
        processor = self.model.processor
        match self.model.head.adapter:
            case "text-classification" if self.model.head.reads_boxes:
                return self._placed(_text_of(medium, self.modality).split())
            case "text-classification":
                return self._tokens(_text_of(medium, self.modality))
            case "token-classification":
                return self._words(list(sequence_of(medium)) if self.modality == "protein" else medium.split())
            case "seq2seq":
                return self._tokens(fill_input(self.prompts, _text_of(medium, self.modality)), types=False)
            case "question-answering":
                return self._question(_text_of(medium, self.modality))
            case "text-to-spectrogram":
                made = speech_tokens(self.model, _text_of(medium, self.modality))
                return {name: np.asarray(each[0], np.int64) for name, each in made.items()}
            case "forecast":
                return self._series(np.asarray(medium, np.float32))
            case "policy":
                seen: Item = processor.look(medium)
                return seen
            case "image-to-text":
                made = processor(images=[as_image(image_of(medium))], return_tensors="pt")
            case (
                "image-classification"
                | "object-detection"
                | "image-segmentation"
                | "zero-shot-image"
                | "depth"
                | "panoptic"
            ):
                made = processor(images=[as_image(medium)], return_tensors="pt")
            case "video-classification":
                made = processor(read_frames(self.model, medium), return_tensors="pt")
            case _:
                made = audio_features(self.model, [np.asarray(medium, np.float32)])
        item = {name: np.asarray(each[0], np.float32) for name, each in made.items() if name in _NUMBERS}
        kept: Item = {name: np.asarray(made[name][0], kind) for name, kind in _MARKS.items() if name in made}
        return item | kept

    def _tokens(self, text: str, *, types: bool = True) -> Item:
        made = text_tokens(self.model, [text])
        kept = {name: each[0] for name, each in made.items() if types or name != "token_type_ids"}
        return {name: np.asarray(each, np.int64) for name, each in kept.items()}

    def _placed(self, words: list[str]) -> Item:
        made, _ = word_tokens(self.model, [words], truncation=True, max_length=longest(self.model))
        return {name: np.asarray(each[0], np.int64) for name, each in made.items()}

    def _question(self, text: str) -> Item:
        """The first window of a passage that is longer than the model reads."""
        pair = question_tokens(self.model, text)
        item = {name: np.asarray(each, np.int64) for name, each in pair.made.items()}
        passage = np.array([ord(each) for each in bare_passage(self.model, text)], np.int64)
        return item | {QUESTION_MASK: pair.inside, OFFSETS: pair.offsets, PASSAGE: passage}

    def _series(self, series: Any) -> Item:
        """(T, C), of the length that the model reads."""
        context = int(self.model.config.context_length)
        seen = series[:, -context:]
        any_length = "timesfm" in self.model.head.model_type.lower()
        lacking = 0 if any_length else context - seen.shape[1]
        padded = np.concatenate([np.repeat(seen[:, :1], lacking, 1), seen], 1)
        mask = np.ones_like(padded)
        mask[:, :lacking] = 0
        return {SERIES: np.ascontiguousarray(padded.T), SERIES_MASK: np.ascontiguousarray(mask.T)}

    def _words(self, words: list[str]) -> Item:
        made, _ = word_tokens(self.model, [words], truncation=True, max_length=longest(self.model))
        first: dict[int, int] = {}
        for position, word in enumerate(made.word_ids(0)):
            if word is not None:
                first.setdefault(word, position)
        seen = max(first, default=-1) + 1  # words beyond the limit have no position
        item = {name: np.asarray(each[0], np.int64) for name, each in made.items()}
        return item | {_FIRST: np.array([first.get(word, 0) for word in range(seen)], np.int64)}

    def _pad_tokens(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        import torch

        tokenizer: Any = self.model.tokenizer or self.model.processor
        left = tokenizer.padding_side == "left" and _FIRST not in items[0]
        fillers = {"input_ids": tokenizer.pad_token_id or 0, _FIRST: -1}
        batch = {}
        for name in items[0]:
            longest_one = max(len(item[name]) for item in items)
            wide = items[0][name].shape[1:]
            rows = np.full((len(items), longest_one, *wide), fillers.get(name, 0), np.int64)
            for row, item in zip(rows, items, strict=True):
                count = len(item[name])
                row[longest_one - count if left else 0 : longest_one if left else count] = item[name]
            batch[name] = torch.from_numpy(rows)
        return batch

    def _settle_padding(self) -> None:
        """Decoders find a text's last token by the padding that they know."""
        network: Any = self.module
        padding = self.model.processor.pad_token_id
        if padding is None:
            raise SpeciateError(
                Code.INVALID,
                f"The tokenizer of {self.base_model!r} has no token for padding, so texts cannot be learned together.",
                "Call train_model again with hyperparameters={'head': 'new'}.",
            )
        if getattr(network.config, "pad_token_id", padding) is None:
            network.config.pad_token_id = padding


def generate(network: PublishedNetwork, inputs: Mapping[str, Any]) -> list[str]:
    """What a model that writes answers, greedily."""
    module: Any = network.module
    made = module.generate(**inputs, do_sample=False, **token_limit(network.model))
    texts = (network.model.tokenizer or network.model.processor).batch_decode(made, skip_special_tokens=True)
    return [" ".join(text.split()) for text in texts]


def decode_symbols(network: PublishedNetwork, symbols: Any) -> list[str]:
    """The best symbol of each state of CTC (B, T) -> texts."""
    return [" ".join(text.split()) for text in network.model.tokenizer.batch_decode(symbols)]


def image_of(medium: Any) -> Any:
    """The image of an example that is one, or of a mixed row's first part that is one. Raises ValueError without."""
    if isinstance(medium, Mapping):
        named = sorted(name for name, part in medium.items() if name.endswith(".image") and part is not None)
        if not named:
            raise ValueError("the example has no image")
        return medium[named[0]]
    return medium


def _text_of(medium: Any, modality: str) -> str:
    if modality == "protein":
        return sequence_of(medium)
    if not isinstance(medium, str):
        raise ValueError("the example is no text")
    return medium
