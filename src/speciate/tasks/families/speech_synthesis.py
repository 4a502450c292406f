"""Speech in answer to a text. Examples are recordings with what is spoken in them: the text is what a model sees, the
recording its target. Published models do it (models/published/adapters/speech.py); no head of ours does.

Audio is that of modalities/audio_answers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.modalities.audio import SAMPLE_RATE
from speciate.modalities.audio_answers import Samples, decode_audio, encode_audio
from speciate.tasks.task import DirectSupervision, Prediction, TaskExample, TaskTerms

_LONGEST = 60
"""Seconds of a target: a longer recording has to be cut with its text."""
_LONGEST_TEXT = 1000
"""Characters."""


class SpeechSynthesis(DirectSupervision, BaseModel):
    """Knows nothing of the training targets."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["speech-synthesis"] = "speech-synthesis"
    labels: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Cell: what is spoken. ValueError for a recording that is longer than a minute."""
        if isinstance(cell, bytes | list | dict | float):
            raise ValueError(f"{str(cell)[:40]!r} is no text")
        spoken = " ".join(str("" if cell is None else cell).split())
        if not spoken or not isinstance(example.media, np.ndarray):
            return None
        if len(example.media) > _LONGEST * SAMPLE_RATE:
            raise ValueError(f"a recording has {len(example.media) / SAMPLE_RATE:,.0f} s, more than {_LONGEST}")
        return TaskExample(example._replace(media=spoken), encode_audio(example.media, SAMPLE_RATE))

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        return cls()

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The training recording of median length, the same for every text."""
        by_length = sorted(targets, key=lambda target: (target["seconds"], target["data"]))
        prediction = Prediction(dict(by_length[len(by_length) // 2]), None, None)
        return lambda example: prediction

    def encode_targets(self, targets: Sequence[Any]) -> list[Samples]:
        """(T,) at 16 kHz each."""
        return [decode_audio(target).samples for target in targets]

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Any) -> list[Prediction]:
        """`scores`: (N, 1), the loss of each held-out example: the output is that number, by which a training
        chooses."""
        return [Prediction(float(row[0]), None, None) for row in scores]

    def head(self, width: int) -> NoReturn:
        raise TypeError("speech is made by a published model")

    def loss(self, head: Any, states: Any, targets: Any) -> NoReturn:
        raise TypeError("speech is made by a published model")

    def scores(self, head: Any, states: Any) -> NoReturn:
        raise TypeError("speech is made by a published model")


def text_of(medium: Any) -> str:
    """What is to be spoken. Raises ValueError for no text, or one that is too long."""
    if not isinstance(medium, str) or not medium.strip():
        raise ValueError("speech is made from a text, and the example has none")
    if len(medium) > _LONGEST_TEXT:
        raise ValueError(f"the text has {len(medium):,} characters, more than {_LONGEST_TEXT:,}")
    return " ".join(medium.split())
