"""Media as the vectors of a frozen base model, read from the workspace's feature cache where it may be used.

The model's folder keeps the base model, or names one that a package has, with the id of what it computes; loading
refuses one that would compute something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speciate import features
from speciate.datasets.loading.keys import keys
from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models.backbones import saved
from speciate.models.encoders import OF_FRAMES, VIDEO, Encoder, kept_encoder, load_encoder
from speciate.tasks.contract import Arrays
from speciate.workspace.workspace import Folders


def _silent(done: int, total: int) -> None:
    pass


class Embeddings:
    def __init__(
        self,
        base_model: str,
        encoder: Encoder,
        folders: Folders | None = None,
        progress: Callable[[int, int], None] = _silent,
    ) -> None:
        """`folders` None: compute everything and keep nothing, as a served model does."""
        self._base_model, self.encoder, self._folders, self._progress = base_model, encoder, folders, progress

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, width)"""
        media = [example.media for example in examples]
        if self._folders is not None:
            return features.embed(self._folders, self.encoder, keys(examples), media, self._progress)
        vectors = np.zeros((len(media), self.encoder.width), np.float32)
        for places, batch in self.encoder.embed(media):
            vectors[places] = batch
        return vectors

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "embeddings",
            "base_model": self._base_model,
            "encoder": self.encoder.id,
            "precision": self.encoder.precision,
        }

    def arrays(self) -> Arrays:
        return {}

    def keep(self, folder: Path) -> None:
        """Write into a model folder what is not in `arrays`."""
        self.encoder.keep(folder)

    @classmethod
    def rebuild(cls, settings: dict[str, Any], folder: Path, folders: Folders | None, threads: int = 1) -> Embeddings:
        """`folder`: of the model, which keeps a base model that no package has."""
        if saved.holds(folder):
            kept = kept_encoder(settings["base_model"], settings["encoder"], settings["precision"], folder, threads)
            return cls(settings["base_model"], kept, folders)
        media = VIDEO if settings["encoder"].endswith(OF_FRAMES) else None
        encoder = load_encoder(settings["base_model"], threads, settings["precision"], media=media)
        if encoder.id != settings["encoder"]:
            raise SpeciateError(
                Code.REFUSED,
                f"The installed {settings['base_model']} computes {encoder.id!r}; this model was trained on "
                f"{settings['encoder']!r}.",
                "Install the version of the weights that it was trained on, or call train_model again.",
            )
        return cls(settings["base_model"], encoder, folders)
