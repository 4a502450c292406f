"""Several representations of the same examples, for estimators that read one each (models/blend.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.tasks.competing_convolutions import CompetingConvolutions
from speciate.tasks.encoded_columns import EncodedColumns
from speciate.tasks.interval_quantiles import IntervalQuantiles
from speciate.tasks.joined_representations import Joined, arrays_of, numbered_arrays
from speciate.tasks.multimodal_representation import Parts
from speciate.tasks.nested_encoders import Rebuild, encoders_of
from speciate.tasks.random_convolutions import Convolutions
from speciate.tasks.representations import Columns, Documents, Embeddings, Properties, Steps, Vectors
from speciate.tasks.task import Arrays, Representation, RepresentationSettings
from speciate.tasks.text_columns import TextColumns

_REBUILD: Mapping[str, type[Any]] = {
    "documents": Documents, "vectors": Vectors, "columns": Columns, "properties": Properties, "steps": Steps,
    "convolutions": Convolutions, "joined": Joined,
    "competing convolutions": CompetingConvolutions,
    "quantiles": IntervalQuantiles, "encoded columns": EncodedColumns, "parts": Parts,
    "text columns": TextColumns,
}  # fmt: skip


class Several:
    def __init__(self, representations: Sequence[Representation]) -> None:
        self._representations = tuple(representations)

    @property
    def names(self) -> list[str]:
        """Parts of mixed rows that any of the representations reads."""
        return sorted({name for each in self._representations for name in getattr(each, "names", ())})

    def encoders(self) -> list[Embeddings]:
        """Base models that read parts."""
        return [one for each in self._representations for one in encoders_of(each)]

    def encode(self, examples: Sequence[Example]) -> Any:
        """A matrix (N, D) of each."""
        return [each.encode(examples) for each in self._representations]

    def settings(self) -> RepresentationSettings:
        return {"kind": "several", "representations": [each.settings() for each in self._representations]}

    def arrays(self) -> Arrays:
        return numbered_arrays(self._representations)

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays, nested: Rebuild | None = None) -> Several:
        made = []
        for number, said in enumerate(settings["representations"]):
            more = (nested,) if nested is not None and said["kind"] == "parts" else ()
            made.append(_REBUILD[said["kind"]].rebuild(said, arrays_of(arrays, number), *more))
        return cls(made)


def can_be_kept(representation: Representation) -> bool:
    """Whether a model of several representations can have this one."""
    return representation.settings()["kind"] in _REBUILD
