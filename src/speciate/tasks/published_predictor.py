"""A published model that answers as it is: with its own head, under its own labels or, by a table, under the user's.

A folder of the first kind is a model of others, with nothing of ours in it. A version that was registered with `labels`
also holds `predictor.json`, with the table and the sentences that it is asked with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.modalities.biology.protein import sequence_of
from speciate.modalities.messages import IMAGE_MARK
from speciate.modalities.segmentation_masks import from_runs, to_runs
from speciate.models.published import label_map
from speciate.models.published.adapters.documents import ImageQuestion
from speciate.models.published.adapters.speech import SpokenText
from speciate.models.published.architectures import SPEAKING, PublishedHead, check_head, find_head
from speciate.models.published.asking import ask
from speciate.models.published.label_map import LabelMap
from speciate.models.published.manifest import PublishedManifest
from speciate.models.published.published_model import LabelPrompts, PublishedModel, RawAnswer, load_model
from speciate.tasks.families.generation import look
from speciate.tasks.families.speech_synthesis import text_of
from speciate.tasks.families.tokens import units
from speciate.tasks.image_generator import seed_of
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.task import Prediction
from speciate.vocabulary import Family, find_task

OUTSIDE = "O"
"""The tag of units that are no entity."""


class MappedAnswer(NamedTuple):
    prediction: Prediction
    elsewhere: float
    """Share of the answer that went to labels outside the table: of its probability, or of its parts."""


class PublishedPredictor:
    def __init__(
        self,
        model: PublishedModel,
        prompts: LabelPrompts | None = None,
        table: LabelMap | None = None,
        thresholds: dict[str, float] | None = None,
        tags: tuple[str, ...] = (),
        horizon: int | None = None,
    ) -> None:
        """`tags`: of a tagger with a table, the user's, with their prefixes if they have some."""
        self.model, self.prompts, self.table = model, prompts, table
        self.thresholds, self.tags, self.horizon = thresholds, tags, horizon
        self.task = model.head.task

    @property
    def labels(self) -> tuple[str, ...]:
        if self.table is not None:
            return self.tags or self.table.wanted
        return self.published_labels

    @property
    def published_labels(self) -> tuple[str, ...]:
        """Labels of the head, or those that a zero-shot model is asked about."""
        if self.prompts is not None and self.prompts.labels:
            return self.prompts.labels
        return self.model.labels if self.model.head.labels != () else ()

    @property
    def parameters(self) -> int:
        return self.model.parameters

    @property
    def first_shown(self) -> Callable[[int], int] | None:
        """The first step of an episode that a policy has to be shown to act at a step; None of other models."""
        if self.model.head.adapter != "policy":
            return None
        found: Callable[[int], int] = self.model.config.first_shown
        return found

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Raises ValueError for an example that the model cannot read."""
        if not examples:
            return []
        found = ask(self.model, [_medium(self.model.head, example) for example in examples], self.prompts)
        predictions = [_prediction(_above(_cut(each, self.horizon), self.thresholds)) for each in found]
        if self.table is None:
            return predictions
        family = find_task(self.task).family
        prefixed = any(label_map.has_prefix(tag) for tag in self.tags)
        return [map_prediction(each, self.table, family, prefixed=prefixed).prediction for each in predictions]


def load_published(
    folder: Path,
    threads: int = 1,
    prompts: LabelPrompts | None = None,
    table: LabelMap | None = None,
    task: str | None = None,
) -> PublishedPredictor:
    """From a folder whose hashes were checked. `task`: of a head that does several. Raises INVALID for one that cannot
    be asked as it is."""
    head = check_head(folder, folder.name, task)
    if (folder / MANIFEST).is_file():
        saved = PublishedManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
        loaded = load_model(folder, head, threads)
        return PublishedPredictor(loaded, saved.prompts, saved.table, saved.thresholds, saved.tags, saved.horizon)
    return PublishedPredictor(load_model(folder, head, threads), prompts, table)


def is_published(folder: Path) -> bool:
    """Whether a folder holds a model of others with a head that can be asked as it is."""
    return not (folder / MANIFEST).is_file() and find_head(folder) is not None


def map_prediction(raw: Prediction, table: LabelMap, family: Family, *, prefixed: bool = False) -> MappedAnswer:
    """An answer under published labels -> under the user's. Raises ValueError if all of it lies elsewhere and the task
    needs an answer. `prefixed`: whether tags of the references have prefixes (`B-person`)."""
    match family:
        case "classification" | "ordinal" | "anomaly":
            found = label_map.map_class(table, raw.probabilities or {str(raw.output): 1.0})
            if found.label is None:
                raise ValueError(f"it answered {str(raw.output)[:60]!r}, which is none of these labels")
            confidence = found.probabilities[found.label]
            return MappedAnswer(Prediction(found.label, confidence, found.probabilities), found.elsewhere)
        case "multi-label":
            labels, others = label_map.map_labels(table, raw.output)
            shares = _largest(table, raw.probabilities or {})
            return MappedAnswer(Prediction(labels, None, shares), _share(others, len(raw.output)))
        case "tokens":
            tags, others = label_map.map_tags(table, raw.output, OUTSIDE, prefixed=prefixed)
            return MappedAnswer(Prediction(tags, None, None), _share(others, len(tags)))
        case "detection":
            kept = [each | {"label": table.pairs[each["label"]]} for each in raw.output if each["label"] in table.pairs]
            return MappedAnswer(Prediction(kept, None, None), _share(len(raw.output) - len(kept), len(raw.output)))
        case "segmentation":
            return _map_regions(raw.output, table)
        case "panoptic":
            return _map_segments(raw.output, table)
        case _:
            return MappedAnswer(raw, 0.0)


def _largest(table: LabelMap, probabilities: Mapping[str, float]) -> dict[str, float]:
    """Probability of each label where several may be given: the largest of those that mean the same."""
    shares = dict.fromkeys(table.wanted, 0.0)
    for name, share in probabilities.items():
        if name in table.pairs:
            shares[table.pairs[name]] = max(shares[table.pairs[name]], share)
    return shares


def _map_regions(output: Any, table: LabelMap) -> MappedAnswer:
    """Pixels of labels outside the table become background."""
    shown = sorted({table.pairs[name] for name in output["labels"] if name in table.pairs})
    place = {label: number for number, label in enumerate(shown, 1)}
    codes = [0, *(place.get(table.pairs.get(name, ""), 0) for name in output["labels"])]
    runs: list[int] = []
    others, pixels = 0, 0
    for code, count in zip(output["rle"][::2], output["rle"][1::2], strict=True):
        pixels += count
        others += count if code and not codes[code] else 0
        if runs and runs[-2] == codes[code]:
            runs[-1] += count
        else:
            runs += [codes[code], count]
    mapped = {"labels": shown, "size": output["size"], "rle": runs}
    return MappedAnswer(Prediction(mapped, None, None), _share(others, pixels))


def _map_segments(output: Any, table: LabelMap) -> MappedAnswer:
    """Each segment by itself; those of labels outside the table become background."""
    kept = [name in table.pairs for name in output["labels"]]
    codes = [0, *(sum(kept[: place + 1]) if each else 0 for place, each in enumerate(kept))]
    counts = np.array(output["rle"], np.int64).reshape(-1, 2)
    others = int(counts[[bool(code) and not codes[code] for code in counts[:, 0].tolist()], 1].sum())
    pixels = from_runs(output["rle"], output["size"])
    labels = [table.pairs[name] for name in output["labels"] if name in table.pairs]
    mapped = {"labels": labels, "size": output["size"], "rle": to_runs(np.array(codes, np.uint8)[pixels])}
    return MappedAnswer(Prediction(mapped, None, None), _share(others, pixels.size))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _above(raw: RawAnswer, thresholds: Mapping[str, float] | None) -> RawAnswer:
    """Where several labels may be given, answer those above their own threshold."""
    if thresholds is None or raw.probabilities is None:
        return raw
    return raw._replace(output=sorted(each for each, share in raw.probabilities.items() if share > thresholds[each]))


def _cut(raw: RawAnswer, horizon: int | None) -> RawAnswer:
    """A forecast of the steps that were learned."""
    return raw if horizon is None else raw._replace(output=[channel[:horizon] for channel in raw.output])


def _prediction(raw: RawAnswer) -> Prediction:
    confidence = None
    if raw.probabilities is not None and isinstance(raw.output, str):
        confidence = raw.probabilities[raw.output]
    return Prediction(raw.output, confidence, raw.probabilities)


def _medium(head: PublishedHead, example: Example) -> Any:
    """As the adapter of this head takes it. Raises ValueError for another kind of medium."""
    medium = example.media
    if head.adapter == "token-classification":
        return units(medium, head.modality)
    if head.adapter in ("image-to-text", "visual-questions"):
        return _image_question(medium)
    if head.adapter in SPEAKING:
        text = text_of(medium)
        return SpokenText(text, seed_of(text, example.id))
    if head.modality == "protein":
        return sequence_of(medium)
    if head.modality == "text" and not isinstance(medium, str):
        raise ValueError("the example is no text")
    return medium


def _image_question(medium: Any) -> ImageQuestion:
    """The first image of an example and what is asked about it."""
    prompt = look(medium)
    return ImageQuestion(prompt.images[0], prompt.conversation[-1].content.replace(IMAGE_MARK, "").strip())
