"""A tag for each unit of a medium: each word of a text between white space, each residue of a protein."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.modalities.biology.protein import sequence_of
from speciate.tasks.contract import AsksWhatItTeaches, Posed, Prediction, Terms
from speciate.tasks.probabilities import softmax, temperature

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States

Targets = Sequence[npt.NDArray[np.int64]]


class Tokens(AsksWhatItTeaches, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["tokens"] = "tokens"
    labels: tuple[str, ...]
    modality: str = "text"
    commonest: str
    """The tag of units that a network does not see, beyond its length limit."""
    temperature: float = 1.0

    @classmethod
    def pose(cls, example: Example, cell: Any, terms: Terms) -> Posed | None:
        """Truth: the list of tags. ValueError where there are not as many as units."""
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            return None
        return Posed(example, tags_of(cell, units(example.media, terms.modality)))

    @classmethod
    def of(cls, truths: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        counts = Counter(tag for truth in truths for tag in truth)
        labels = tuple(sorted(counts))
        commonest = max(labels, key=lambda tag: counts[tag])
        return cls(labels=labels, commonest=commonest, modality=settings.get("modality") or "text")

    @classmethod
    def baseline(cls, truths: Sequence[Any], terms: Terms) -> Callable[[Example], Prediction]:
        """The commonest tag for every unit."""
        commonest = cls.of(truths, {}).commonest
        return lambda example: Prediction([commonest] * len(units(example.media, terms.modality)), None, None)

    def targets(self, truths: Sequence[Any]) -> Targets:
        """Places of the tags in `labels`, (units,) for each example. A tag that training has not seen becomes -1."""
        place = {tag: i for i, tag in enumerate(self.labels)}
        return [np.array([place.get(tag, -1) for tag in truth], np.int64) for truth in truths]

    def calibrated(self, scores: Sequence[npt.NDArray[Any]], targets: Targets) -> Self:
        """Temperature scaling over all units. No tag changes by it."""
        seen = [wanted[: len(each)] for each, wanted in zip(scores, targets, strict=True)]
        found = temperature(np.concatenate(list(scores)), np.concatenate(seen))
        return self.model_copy(update={"temperature": found or self.temperature})

    def predictions(self, scores: Sequence[npt.NDArray[Any]]) -> list[Prediction]:
        """`scores`: (units, K) for each example. Confidence: the mean of the tags' own."""
        return [self._prediction(each) for each in scores]

    def placed(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Prediction]:
        """With the commonest tag for units that a network has not seen."""
        made = []
        for prediction, example in zip(predictions, examples, strict=True):
            given = prediction.output
            missing = len(units(example.media, self.modality)) - len(given)
            made.append(prediction._replace(output=[*given, *[self.commonest] * missing]))
        return made

    def head(self, width: int) -> torch.nn.Module:
        from torch import nn

        return nn.Linear(width, len(self.labels))

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Cross-entropy, the mean over the units that are seen and whose tag is known."""
        import torch

        wanted = _wanted(states, targets)
        losses = torch.nn.functional.cross_entropy(
            head(states.sequence).transpose(1, 2), wanted, ignore_index=-1, reduction="sum"
        )
        return losses / (wanted >= 0).sum().clamp(min=1)

    def counted(self, states: States, targets: Any) -> int:
        return int((_wanted(states, targets) >= 0).sum())

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        rows = head(states.sequence).double().cpu().numpy()
        return [row[there] for row, there in zip(rows, states.mask.cpu().numpy(), strict=True)]

    def _prediction(self, scores: npt.NDArray[Any]) -> Prediction:
        if not len(scores):
            return Prediction([], None, None)
        chances = softmax(scores, self.temperature)
        best = chances.argmax(axis=1)
        confidence = float(chances[np.arange(len(best)), best].mean())
        return Prediction([self.labels[place] for place in best], confidence, None)


def _wanted(states: States, targets: Any) -> torch.Tensor:
    """(B, T) places of the tags; -1 where a unit is not seen or its tag not known."""
    import torch

    wanted = torch.full(states.mask.shape, -1, dtype=torch.long)
    for row, tags in enumerate(targets):
        seen = torch.as_tensor(tags[: wanted.shape[1]])
        wanted[row, : len(seen)] = seen
    return wanted.to(states.mask.device).masked_fill(~states.mask, -1)


def units(medium: Any, modality: str | None) -> list[str]:
    """What is tagged: a protein's residues, those of a structure chain after chain; else words."""
    return list(sequence_of(medium)) if modality == "protein" else medium.split()


def tags_of(cell: Any, tagged: Sequence[str]) -> list[str]:
    """A list, a JSON list, tags divided by blanks, or one letter for each residue. `tagged`: the units."""
    if isinstance(cell, str):
        cell = _parsed(cell, tagged)
    if not isinstance(cell, list | tuple):
        raise ValueError(f"{str(cell)[:40]!r} is no list of tags")
    for tag in cell:
        if not isinstance(tag, str | int) or isinstance(tag, bool) or tag == "":
            raise ValueError(f"{str(tag)[:40]!r} in a list of tags is no tag")
    tags = [str(tag) for tag in cell]
    if len(tags) != len(tagged):
        raise ValueError(f"{len(tags)} tags for {len(tagged)} words or residues, {' '.join(tagged)[:40]!r}")
    return tags


def _parsed(text: str, tagged: Sequence[str]) -> Any:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"{text[:40]!r} begins like a JSON list and is none ({error})") from error
    tags = text.split()
    return list(tags[0]) if len(tags) == 1 and all(len(unit) == 1 for unit in tagged) else tags
