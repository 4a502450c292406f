"""Mixed rows as numbers: each part as a model of its own modality would see it, side by side (late fusion of features).

Every part is brought to the same total spread, so that an image of 304 numbers does not drown a report of 20 (as in
multiple factor analysis, Escofier & Pages 1994). A part that is missing is zeros, which is its mean, and a flag: a
model can learn what its absence means, and answers without it (as networks learn to by modality dropout, Neverova et
al. 2016).

Dense, a part of text is its counted words on the 128 directions that hold most of them (latent semantic analysis,
Deerwester et al. 1990), so that learners of interactions can take it; sparse, it is all its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.modalities import find
from speciate.modalities.multimodal import PartName, present_parts
from speciate.tasks.nested_encoders import NESTED, Rebuild
from speciate.tasks.representations import Columns, Documents, Embeddings, Vectors, ngram_choices
from speciate.tasks.task import Arrays, Representation, RepresentationSettings, UnsuitableRepresentation

_MOST_DIRECTIONS = 128
_REBUILD: Mapping[str, type[Any]] = {"documents": Documents, "vectors": Vectors, "columns": Columns}
_DIRECTIONS = "directions"


class _Part(NamedTuple):
    name: str
    """NAME.MODALITY."""
    representation: Representation
    weight: float
    width: int
    directions: npt.NDArray[np.float32] | None = None
    """(D, width): what its numbers are projected on."""

    def rows(self, examples: Sequence[Example]) -> Any:
        """(N, width), dense or sparse, of examples that have it."""
        found = self.representation.encode(examples)
        return found if self.directions is None else np.asarray(found @ self.directions)


class Parts:
    def __init__(self, parts: Sequence[_Part], *, dense: bool) -> None:
        self._parts, self._dense = tuple(parts), dense

    @classmethod
    def fit(
        cls,
        examples: Sequence[Example],
        parts: Sequence[str],
        *,
        dense: bool,
        one_unit: Sequence[str] = (),
        encoders: Mapping[str, Sequence[Embeddings]] = MappingProxyType({}),
        described: bool = True,
    ) -> Parts:
        """`parts`: NAME.MODALITY each. `one_unit`: modalities whose descriptions are numbers of one kind. `encoders`:
        of parts, those that read them; `described`: such parts are described by their modality, too. Dense alone.

        Raises UnsuitableRepresentation where none of the examples has one of the parts.
        """
        fitted = []
        for name in parts:
            of_it = with_part(examples, name)
            if not of_it:
                continue
            reading = encoders.get(name, ())
            fitted += [_read_part(name, of_it, each) for each in reading]
            if described or not reading:
                fitted.append(_fit_part(name, of_it, dense=dense, one_unit=name.rpartition(".")[2] in one_unit))
        if not fitted:
            raise UnsuitableRepresentation(f"none of {len(examples)} examples has {' or '.join(parts)}")
        return cls(fitted, dense=dense)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(part.name for part in self._parts))

    def encoders(self) -> list[Embeddings]:
        """Encoders of the parts that a base model reads."""
        return [part.representation for part in self._parts if isinstance(part.representation, Embeddings)]

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D): the numbers of each part, and whether it is missing."""
        blocks: list[Any] = []
        for part in self._parts:
            places = [place for place, example in enumerate(examples) if example.media.get(part.name) is not None]
            missing = np.ones((len(examples), 1))
            missing[places] = 0
            blocks += [self._block(part, examples, places), missing]
        if self._dense:
            return np.concatenate(blocks, axis=1)
        from scipy import sparse

        return sparse.hstack(blocks, format="csr")

    def _block(self, part: _Part, examples: Sequence[Example], places: Sequence[int]) -> Any:
        """(N, width): zeros where it is missing."""
        rows = part.rows(with_part(examples, part.name)) * part.weight if places else np.zeros((0, part.width))
        if self._dense:
            block = np.zeros((len(examples), part.width))
            block[places] = rows if isinstance(rows, np.ndarray) else rows.toarray()
            return block
        from scipy import sparse

        spread = sparse.csr_matrix(
            (np.ones(len(places)), (np.asarray(places, int), np.arange(len(places)))), (len(examples), len(places))
        )
        return spread @ sparse.csr_matrix(rows)

    def settings(self) -> RepresentationSettings:
        parts = [
            {
                "name": part.name,
                "weight": part.weight,
                "width": part.width,
                "representation": part.representation.settings(),
            }
            for part in self._parts
        ]
        return {"kind": "parts", "dense": self._dense, "parts": parts}

    def arrays(self) -> Arrays:
        found: Arrays = {}
        for number, part in enumerate(self._parts):
            found |= {f"{number}.{name}": array for name, array in part.representation.arrays().items()}
            if part.directions is not None:
                found[f"{number}.{_DIRECTIONS}"] = part.directions
        return found

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays, nested: Rebuild | None = None) -> Parts:
        """`nested` rebuilds base models."""
        parts = []
        for number, said in enumerate(settings["parts"]):
            own = {
                name.partition(".")[2]: array for name, array in arrays.items() if name.partition(".")[0] == str(number)
            }
            directions = own.pop(_DIRECTIONS, None)
            inner = said["representation"]
            reads = nested is not None and inner["kind"] == NESTED
            parts.append(
                _Part(
                    said["name"],
                    nested(inner) if reads and nested else _REBUILD[inner["kind"]].rebuild(inner, own),
                    said["weight"],
                    said["width"],
                    directions,
                )
            )
        return cls(parts, dense=settings["dense"])


def with_part(examples: Sequence[Example], part: str) -> list[Example]:
    """Examples that have the part, with it alone as their medium."""
    return [example._replace(media=example.media[part]) for example in examples if example.media.get(part) is not None]


def names_of(examples: Sequence[Example]) -> list[PartName]:
    """The parts that any of them has."""
    return sorted({part for example in examples for part, _ in present_parts(example.media)})


def is_counted(part: PartName) -> bool:
    """Whether its modality describes itself by a document."""
    return find(part.modality).analyzer is not None


def _read_part(name: str, examples: Sequence[Example], encoder: Embeddings) -> _Part:
    """A part that a base model reads. `examples`: with the part as their medium."""
    rows = encoder.encode(examples)
    return _Part(name, encoder, _weight(rows), rows.shape[1])


def _fit_part(name: str, examples: Sequence[Example], *, dense: bool, one_unit: bool) -> _Part:
    """`examples`: with the part as their medium."""
    modality = name.rpartition(".")[2]
    representation: Representation
    if counted := ngram_choices(modality):
        representation = Documents.fit(examples, modality, counted[0])
        rows = representation.encode(examples)
        if not dense:
            return _Part(name, representation, 1.0, rows.shape[1])
        if rows.shape[1] > _MOST_DIRECTIONS:
            directions = _principal(rows)
            return _Part(name, representation, _weight(rows @ directions), directions.shape[1], directions)
        return _Part(name, representation, _weight(rows.toarray()), rows.shape[1])
    if modality == "tabular":
        columns = list(dict.fromkeys(column for example in examples for column in example.media))
        representation = Columns.fit(examples, columns)
    else:
        representation = Vectors.fit(examples, modality, one_unit=one_unit)
    rows = representation.encode(examples)
    return _Part(name, representation, _weight(rows), rows.shape[1])


def _weight(rows: npt.NDArray[Any]) -> float:
    """Factor by which a part comes to the spread of ten columns of spread 1."""
    total = float(np.var(rows, axis=0).sum())
    return float(np.sqrt(10 / total)) if total > 0 else 1.0


def _principal(rows: Any) -> npt.NDArray[np.float32]:
    """(terms, at most 128)."""
    from sklearn.decomposition import TruncatedSVD

    most = max(1, min(_MOST_DIRECTIONS, rows.shape[0] - 1, rows.shape[1] - 1))
    return np.asarray(TruncatedSVD(most, random_state=0).fit(rows).components_.T, np.float32)


_MOST_PAIRED = 5
"""Parts; of more, pairs are too many to try."""


def part_combinations(parts: Sequence[PartName]) -> Iterator[list[PartName]]:
    """Every part alone, then each pair, then all together, where there are several."""
    if len(parts) > 1:
        yield from ([part] for part in parts)
    if 2 < len(parts) <= _MOST_PAIRED:
        yield from map(list, combinations(parts, 2))
    yield list(parts)
