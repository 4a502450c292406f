"""Series of one length as their own steps, for those that line up, as spectra and heartbeats do: what differs at one
place is found there, where summary features average over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks.contract import Arrays, Unsuited
from speciate.tasks.scaling import Scaling


class Steps:
    def __init__(self, channels: int, steps: int, scaling: Scaling) -> None:
        self._channels, self._steps, self._scaling = channels, steps, scaling

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> Steps:
        """Unsuited where the training series differ in length or channels."""
        shapes = {example.media.shape for example in examples}
        if len(shapes) > 1:
            raise Unsuited("the series differ in their steps or channels, so that they do not line up")
        ((channels, steps),) = shapes
        rows = np.stack([example.media.ravel() for example in examples])
        return cls(channels, steps, Scaling.of(rows, one_unit=True))

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """(N, C * T), channel by channel. A series of another length is stretched or squeezed to that of training."""
        return self._scaling.apply(np.stack([self._fitted(example.media).ravel() for example in examples]))

    def _fitted(self, media: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if len(media) != self._channels:
            raise SpeciateError(
                Code.INVALID,
                f"This series has {len(media)} channels; the model has learned from {self._channels}.",
                "Bring series with the channels of the training data, in their order.",
            )
        if media.shape[1] == self._steps:
            return media
        places = np.linspace(0, media.shape[1] - 1, self._steps)
        return np.stack([np.interp(places, np.arange(media.shape[1]), channel) for channel in media])

    def settings(self) -> dict[str, Any]:
        return {"kind": "steps", "channels": self._channels, "steps": self._steps}

    def arrays(self) -> Arrays:
        return self._scaling.arrays()

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> Steps:
        return cls(settings["channels"], settings["steps"], Scaling(**arrays))
