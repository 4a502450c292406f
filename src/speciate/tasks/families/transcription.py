"""The text that is spoken: a character or nothing for each state, joined (CTC, Graves et al. 2006).

The vocabulary is what characters the training texts have. Decoding is greedy: no language model helps it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.tasks.families.classification import softmax
from speciate.tasks.task import DirectSupervision, Prediction, TaskExample, TaskTerms

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


_BLANK = 0
"""The code of "nothing new"; characters follow."""


class Transcription(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["transcription"] = "transcription"
    characters: str
    """Characters of the training texts, each once, sorted."""

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: the text, its white space single blanks."""
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            return None
        if not isinstance(cell, str):
            raise ValueError(f"{str(cell)[:40]!r} is no text")
        return TaskExample(example, " ".join(cell.split()))

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        return cls(characters="".join(sorted({character for target in targets for character in target})))

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The most frequent text, the first by name among equals."""
        counts = Counter(targets)
        prediction = Prediction(max(sorted(counts), key=lambda text: counts[text]), None, None)
        return lambda example: prediction

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def encode_targets(self, targets: Sequence[Any]) -> list[npt.NDArray[np.int64]]:
        """Codes of the characters, (length,) for each text. A character that training has not seen is left out."""
        code = {character: i for i, character in enumerate(self.characters, 1)}
        return [np.array([code[each] for each in target if each in code], np.int64) for target in targets]

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Sequence[npt.NDArray[Any]]) -> list[Prediction]:
        """`scores`: (states, characters + 1) for each example. Confidence: the mean of the states' best."""
        return [self._prediction(each) for each in scores]

    def head(self, width: int) -> torch.nn.Module:
        from torch import nn

        return nn.Linear(width, len(self.characters) + 1)

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Mean over the batch of each text's CTC loss per character. One that is longer than its states adds
        nothing; one without a character that is known does not count."""
        import torch

        probabilities = torch.log_softmax(head(states.sequence), dim=2)
        probabilities, lengths = _front(probabilities, states.mask)
        codes = torch.cat([torch.as_tensor(each) for each in targets])
        counts = torch.tensor([len(each) for each in targets])
        losses = torch.nn.functional.ctc_loss(
            probabilities.transpose(0, 1).cpu(),
            codes,
            lengths.cpu(),
            counts,
            _BLANK,
            reduction="none",
            zero_infinity=True,
        )
        counted = (counts > 0).float()
        return (losses * counted / counts.clamp(min=1)).sum() / counted.sum().clamp(min=1)

    def counted(self, states: States, targets: Any) -> int:
        return sum(len(codes) > 0 for codes in targets)

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        rows = head(states.sequence).double().cpu().numpy()
        return [row[there] for row, there in zip(rows, states.mask.cpu().numpy(), strict=True)]

    def _prediction(self, scores: npt.NDArray[Any]) -> Prediction:
        if not len(scores):
            return Prediction("", None, None)
        best = scores.argmax(axis=1)
        changes = np.concatenate([[True], best[1:] != best[:-1]])
        text = "".join(self.characters[code - 1] for code in best[changes & (best != _BLANK)])
        return Prediction(" ".join(text.split()), float(softmax(scores).max(axis=1).mean()), None)


def _front(probabilities: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The states that count first, in their order, and how many they are: what `ctc_loss` wants."""
    import torch

    order = torch.sort((~mask).long(), dim=1, stable=True).indices
    return probabilities.gather(1, order.unsqueeze(2).expand_as(probabilities)), mask.sum(1)
