"""Media as the vector that their modality makes of them to tell what is alike: no training, nothing learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from speciate import modalities
from speciate.datasets.loading.loader import Example
from speciate.tasks.contract import Arrays


class Features:
    def __init__(self, modality: str) -> None:
        self._modality = modality

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D), D the same for all media of a modality."""
        features = modalities.find(self._modality).features
        return np.stack([features(example.media) for example in examples])

    def settings(self) -> dict[str, Any]:
        return {"kind": "features", "modality": self._modality}

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> Features:
        return cls(settings["modality"])
