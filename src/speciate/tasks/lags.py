"""Series as their last steps, and as their last period over again, which no sum of lags finds by itself where series
have periods of their own. Both relative to the level and spread at the end (forecasting.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks.contract import Arrays
from speciate.tasks.forecasting import Standing, repeated


class Lags:
    def __init__(self, channels: int, steps: int, horizon: int) -> None:
        self._channels, self._steps, self._horizon = channels, steps, horizon

    @classmethod
    def fit(cls, examples: Sequence[Example], steps: int, horizon: int) -> Lags:
        return cls(len(examples[0].media), steps, horizon)

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """(N, C * (steps + horizon)), channel by channel; of each the last steps, then the repetition.

        Of a shorter series, the first step stands for those before it.
        """
        return np.stack([self._encoded(example.media) for example in examples])

    def _encoded(self, media: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        if len(media) != self._channels:
            raise SpeciateError(
                Code.INVALID,
                f"This series has {len(media)} channels; the model has learned from {self._channels}.",
                "Bring series with the channels of the training data, in their order.",
            )
        standing, last = Standing.of(media), media[:, -self._steps :].astype(np.float64)
        last = np.pad(last, ((0, 0), (self._steps - last.shape[1], 0)), mode="edge")
        both = np.hstack([last, repeated(media, self._horizon)])
        flat: npt.NDArray[np.float64] = ((both - standing.level[:, None]) / standing.spread[:, None]).ravel()
        return flat

    def settings(self) -> dict[str, Any]:
        return {"kind": "lags", "channels": self._channels, "steps": self._steps, "horizon": self._horizon}

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> Lags:
        return cls(settings["channels"], settings["steps"], settings["horizon"])
