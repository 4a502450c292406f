"""A tag for each unit of a medium: each word of a text between white space, each residue of a protein."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.modalities.biology.protein import sequence_of
from speciate.models.estimators import UnitRows
from speciate.tasks.families.classification import fit_temperature, softmax
from speciate.tasks.task import Arrays, DirectSupervision, Prediction, RepresentationSettings, TaskExample, TaskTerms

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


Targets = Sequence[npt.NDArray[np.int64]]


class Tokens(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["tokens"] = "tokens"
    labels: tuple[str, ...]
    modality: str = "text"
    commonest: str
    """The tag of units that a network does not see, beyond its length limit."""
    temperature: float = 1.0

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: the list of tags. ValueError where there are not as many as units."""
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            return None
        return TaskExample(example, tags_of(cell, units(example.media, terms.modality)))

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        counts = Counter(tag for target in targets for tag in target)
        labels = tuple(sorted(counts))
        commonest = max(labels, key=lambda tag: counts[tag])
        return cls(labels=labels, commonest=commonest, modality=settings.get("modality") or "text")

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The commonest tag for every unit."""
        commonest = cls.fit(targets, {}).commonest
        return lambda example: Prediction([commonest] * len(units(example.media, terms.modality)), None, None)

    def encode_targets(self, targets: Sequence[Any]) -> Targets:
        """Places of the tags in `labels`, (units,) for each example. A tag that training has not seen becomes -1."""
        place = {tag: i for i, tag in enumerate(self.labels)}
        return [np.array([place.get(tag, -1) for tag in target], np.int64) for target in targets]

    def calibrated(self, scores: Sequence[npt.NDArray[Any]], targets: Targets) -> Self:
        """Temperature scaling over all units. No tag changes by it."""
        seen = [wanted[: len(each)] for each, wanted in zip(scores, targets, strict=True)]
        found = fit_temperature(np.concatenate(list(scores)), np.concatenate(seen))
        return self.model_copy(update={"temperature": found or self.temperature})

    def predictions(self, scores: Sequence[npt.NDArray[Any]]) -> list[Prediction]:
        """`scores`: (units, K) for each example. Confidence: the mean of the tags' own."""
        return [self._prediction(each) for each in scores]

    def placed(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Prediction]:
        """Predictions with the commonest tag for units that a network has not seen."""
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

        wanted = _target_codes(states, targets)
        losses = torch.nn.functional.cross_entropy(
            head(states.sequence).transpose(1, 2), wanted, ignore_index=-1, reduction="sum"
        )
        return losses / (wanted >= 0).sum().clamp(min=1)

    def counted(self, states: States, targets: Any) -> int:
        return int((_target_codes(states, targets) >= 0).sum())

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        rows = head(states.sequence).double().cpu().numpy()
        return [row[there] for row, there in zip(rows, states.mask.cpu().numpy(), strict=True)]

    def _prediction(self, scores: npt.NDArray[Any]) -> Prediction:
        if not len(scores):
            return Prediction([], None, None)
        probabilities = softmax(scores, self.temperature)
        best = probabilities.argmax(axis=1)
        confidence = float(probabilities[np.arange(len(best)), best].mean())
        return Prediction([self.labels[place] for place in best], confidence, None)


def _target_codes(states: States, targets: Any) -> torch.Tensor:
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
        cell = _parse_tags(cell, tagged)
    if not isinstance(cell, list | tuple):
        raise ValueError(f"{str(cell)[:40]!r} is no list of tags")
    for tag in cell:
        if not isinstance(tag, str | int) or isinstance(tag, bool) or tag == "":
            raise ValueError(f"{str(tag)[:40]!r} in a list of tags is no tag")
    tags = [str(tag) for tag in cell]
    if len(tags) != len(tagged):
        raise ValueError(f"{len(tags)} tags for {len(tagged)} words or residues, {' '.join(tagged)[:40]!r}")
    return tags


def _parse_tags(text: str, tagged: Sequence[str]) -> Any:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"{text[:40]!r} begins like a JSON list and is none ({error})") from error
    tags = text.split()
    return list(tags[0]) if len(tags) == 1 and all(len(unit) == 1 for unit in tagged) else tags


_WIDTH = 2**16
_REACH = 2
_WINDOW = 15
_RESIDUES = "ACDEFGHIKLMNPQRSTVWYX"
_RUN = re.compile(r"(.)\1{2,}")


class UnitFeatures:
    """A row of numbers for each word or residue: its own features and those of its neighbours.

    Words: each with two on either side, its shape, beginnings and endings, hashed into a row of fixed width
    (Weinberger et al. 2009). Residues: the residue at each of 15 places around (Qian & Sejnowski 1988). Nothing is
    learned.
    """

    def __init__(self, modality: str) -> None:
        self._modality = modality

    def encode(self, examples: Sequence[Example]) -> Any:
        """UnitRows, its matrix sparse."""
        if self._modality == "protein":
            return _residues([sequence_of(example.media) for example in examples])
        return _words([example.media.split() for example in examples])

    def settings(self) -> RepresentationSettings:
        return {"kind": "unit features", "modality": self._modality}

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> UnitFeatures:
        return cls(settings["modality"])


def _words(texts: Sequence[Sequence[str]]) -> UnitRows:
    from sklearn.feature_extraction import FeatureHasher

    rows = (list(_word_features(words, place)) for words in texts for place in range(len(words)))
    matrix = FeatureHasher(_WIDTH, input_type="string").transform(rows)
    return UnitRows(matrix, np.array([len(words) for words in texts], np.int64))


def _word_features(words: Sequence[str], place: int) -> Iterator[str]:
    for step in range(-_REACH, _REACH + 1):
        there = 0 <= place + step < len(words)
        word = words[place + step] if there else ""
        yield f"{step} word {word.lower()}"
        if abs(step) <= 1:
            yield f"{step} shape {_shape(word)}"
            yield f"{step} end {word[-3:].lower()}"
    word = words[place].lower()
    for length in (1, 2, 3, 4):
        yield f"begins {word[:length]}"
        yield f"ends {word[-length:]}"


def _shape(word: str) -> str:
    """Xx9 and the like: where capitals, small letters and digits are; long runs are shortened."""
    kinds = ("X" if c.isupper() else "x" if c.isalpha() else "9" if c.isdigit() else c for c in word)
    return _RUN.sub(r"\1\1\1", "".join(kinds))


def _residues(sequences: Sequence[str]) -> UnitRows:
    """A column for each place and residue; beyond the ends there is none."""
    from scipy.sparse import csr_array

    code = {letter: place for place, letter in enumerate(_RESIDUES)}
    half, kinds = _WINDOW // 2, len(_RESIDUES)
    rows, columns, before = [], [], 0
    for sequence in sequences:
        residues = np.array([code.get(letter, code["X"]) for letter in sequence], np.int64)
        around = np.arange(len(residues))[:, None] + np.arange(-half, half + 1)[None, :]
        unit, place = np.nonzero((around >= 0) & (around < len(residues)))
        rows.append(before + unit)
        columns.append(place * kinds + residues[around[unit, place]])
        before += len(residues)
    row, column = (np.concatenate(each).astype(np.int32) for each in (rows, columns))
    matrix = csr_array((np.ones(len(row)), (row, column)), shape=(before, _WINDOW * kinds))
    return UnitRows(matrix, np.array([len(sequence) for sequence in sequences], np.int64))
