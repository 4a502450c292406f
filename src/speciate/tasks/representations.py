"""Examples as rows of numbers for classical learners: tables, TF-IDF of texts, summary vectors, series, embeddings.

Fitted on training examples only, then saved with the model. A representation of one family's own (words, steps,
voxels) is in families/; mixed rows are in multimodal_representation.py.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from speciate import features, modalities
from speciate.datasets.loading.loader import Example, example_keys
from speciate.errors import Code, SpeciateError
from speciate.modalities.tabular import number
from speciate.models import model_folder
from speciate.models.encoders import OF_FRAMES, OF_LAYERS, VIDEO, Encoder, kept_encoder, load_encoder
from speciate.tasks.task import Arrays, RepresentationSettings, UnsuitableRepresentation
from speciate.tasks.term_counts import NGrams, TermCounter
from speciate.workspace.workspace import Folders


def describe(modality: str, examples: Sequence[Example]) -> list[Any]:
    """A document (str) or a vector (D,) per example."""
    kind = modalities.find(modality)
    return [kind.describe(example.media) for example in examples]


def ngram_choices(modality: str) -> tuple[NGrams, ...]:
    """The modality's own way of counting first; empty where it describes itself by vectors."""
    kind = modalities.find(modality)
    if kind.analyzer is None:
        return ()
    own = NGrams(kind.analyzer, *kind.ngrams)
    # Parts of words carry endings, compounds and misspellings, which whole words do not.
    return (own, NGrams("char_wb", 2, 5)) if kind.analyzer == "word" else (own,)


class Scaling(NamedTuple):
    """Columns of numbers brought to mean 0 and spread 1. A missing number becomes the column's median."""

    fill: npt.NDArray[Any]  # (D,)
    centre: npt.NDArray[Any]
    spread: npt.NDArray[Any]

    @classmethod
    def of(cls, rows: npt.NDArray[Any], *, one_unit: bool = False) -> Scaling:
        """Fitted to (N, D), which may hold NaN. A column that is constant or wholly missing becomes zeros.

        `one_unit`: all columns are divided by their common spread, which keeps those small that hardly vary.
        """
        rows = rows.astype(np.float64)  # a copy
        rows[np.isinf(rows)] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a wholly missing column has no median
            fill = np.nan_to_num(np.nanmedian(rows, axis=0))
        filled = np.where(np.isnan(rows), fill, rows)
        with np.errstate(over="ignore"):  # numbers whose square is none: their column becomes zeros
            spread = filled.std(axis=0)
        if one_unit:
            spread = np.full_like(spread, np.sqrt(np.square(spread).mean()))
        return cls(fill, filled.mean(axis=0), np.where(spread > 0, spread, 1.0))

    def apply(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        filled = np.where(np.isfinite(rows), rows, self.fill)
        scaled: npt.NDArray[np.float64] = (filled - self.centre) / self.spread
        return scaled

    def arrays(self) -> Arrays:
        return dict(self._asdict())


_MOST_CATEGORIES, _SURE_CATEGORIES, _OFTEN = 250, 50, 5
"""Categories of a column at most; so many of them whatever their number of rows, others only where they occur so
often."""


class Columns:
    """Table rows as numbers: numeric columns unchanged, others one-hot, and a flag where a number is missing.

    The 50 most frequent values of a column are categories, and up to 250 that occur five times or more. Dates are
    inputs only where a caller names them (datasets/roles.py); then each date is a category.
    """

    def __init__(
        self, numbers: tuple[str, ...], flagged: tuple[str, ...], categories: dict[str, list[str]], scaling: Scaling
    ) -> None:
        self._numbers, self._flagged, self._categories, self._scaling = numbers, flagged, categories, scaling

    @classmethod
    def fit(cls, examples: Sequence[Example], inputs: Sequence[str]) -> Columns:
        """`inputs`: the columns that a model may see."""
        numbers, flagged, categories = [], [], {}
        for name in inputs:
            values = [_column_value(example, name) for example in examples]
            present = [value for value in values if value is not None]
            if all(isinstance(value, int | float) for value in present):
                numbers.append(name)
                if len(present) < len(values):
                    flagged.append(name)
            else:
                common = Counter(str(value) for value in present).most_common(_MOST_CATEGORIES)
                kept = [value for place, (value, n) in enumerate(common) if place < _SURE_CATEGORIES or n >= _OFTEN]
                categories[name] = sorted(kept)
        made = cls(tuple(numbers), tuple(flagged), categories, Scaling(np.zeros(0), np.zeros(0), np.ones(0)))
        return cls(tuple(numbers), tuple(flagged), categories, Scaling.of(made._raw(examples)))

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D). INVALID for text where training saw numbers."""
        return self._scaling.apply(self._raw(examples))

    def _raw(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        numbers = {name: [number(name, _column_value(each, name)) for each in examples] for name in self._numbers}
        columns = list(numbers.values())
        columns += [[float(math.isnan(cell)) for cell in numbers[name]] for name in self._flagged]
        for name, values in self._categories.items():
            cells = [_column_value(example, name) for example in examples]
            columns += [[float(cell is not None and str(cell) == value) for cell in cells] for value in values]
        return np.array(columns, dtype=np.float64).reshape(len(columns), len(examples)).T

    def settings(self) -> RepresentationSettings:
        return {
            "kind": "columns", "numbers": list(self._numbers), "flagged": list(self._flagged),
            "categories": self._categories,
        }  # fmt: skip

    def arrays(self) -> Arrays:
        return self._scaling.arrays()

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Columns:
        return cls(tuple(settings["numbers"]), tuple(settings["flagged"]), settings["categories"], Scaling(**arrays))


def _column_value(example: Example, name: str) -> Any:
    """The value of a column; None where it is missing, NaN or not there."""
    value = example.media.get(name)
    return None if isinstance(value, float) and math.isnan(value) else value


_MOST_TERMS = 50_000


class _Learned:
    """What `fit` made of its examples, for the one `encode` of the same list that usually follows."""

    def __init__(self) -> None:
        self._learned: tuple[Sequence[Example], Any] | None = None

    def _of_learned(self, examples: Sequence[Example]) -> Any:
        """None where it is of others, or anything was encoded before: it is as large as the data."""
        learned, self._learned = self._learned, None
        return learned[1] if learned is not None and learned[0] is examples else None


class Documents(_Learned):
    """Texts and sequences as weighted counts of their words or characters (TF-IDF).

    A modality's `describe` turns a medium into text. A training counts by a `TermCounter`, a model that serves by
    scikit-learn, whose vocabulary and weights are stored as plain data and set again through its public interface.
    """

    def __init__(
        self, modality: str, counting: NGrams, terms: tuple[str, ...], weights: npt.NDArray[Any],
        counter: TermCounter | None = None,
    ) -> None:  # fmt: skip
        """`weights` (terms,): the inverse document frequencies. `counter`: has counted documents that will be asked
        for."""
        super().__init__()
        self._modality, self._counting, self._terms, self._weights = modality, counting, terms, weights
        self._counter = counter
        self._vectorizer: Any = _vectorizer(counting, terms, weights) if counter is None else None

    @classmethod
    def fit(
        cls, examples: Sequence[Example], modality: str, counting: NGrams, counter: TermCounter | None = None
    ) -> Documents:
        """Keeps the most frequent terms, at most 50,000; in larger sets only those of two documents or more.

        Raises UnsuitableRepresentation where no term is left: whole words of a script without spaces, or of texts of
        one letter.
        """
        documents = describe(modality, examples)
        rare = 2 if len(documents) >= 100 else 1
        found = (counter or TermCounter(counting)).keep(documents, rare, _MOST_TERMS)
        if found is None:
            raise UnsuitableRepresentation(
                f"nothing that is counted occurs in {rare} or more of {len(documents)} texts"
            )
        weighting = _weighting().fit(found.counts)
        made = cls(modality, counting, found.terms, weighting.idf_, counter)
        made._learned = examples, weighting.transform(found.counts, copy=False)
        return made

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, terms), sparse, rows of unit length."""
        learned = self._of_learned(examples)
        if learned is not None:
            return learned
        documents = describe(self._modality, examples)
        if self._counter is None:
            return self._vectorizer.transform(documents)
        weighting = _weighting()
        weighting.idf_ = self._weights
        return weighting.transform(self._counter.count(documents, self._terms), copy=False)

    def settings(self) -> RepresentationSettings:
        return {
            "kind": "documents",
            "modality": self._modality,
            "counting": self._counting._asdict(),
            "terms": list(self._terms),
        }

    def arrays(self) -> Arrays:
        return {"weights": np.asarray(self._weights, dtype=np.float64)}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Documents:
        counting = NGrams(**settings["counting"])
        return cls(settings["modality"], counting, tuple(settings["terms"]), arrays["weights"])


def _vectorizer(counting: NGrams, terms: Sequence[str], weights: npt.NDArray[Any]) -> Any:
    """Logarithmic counts: the tenth mention of a word says less than the first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vocabulary = {term: place for place, term in enumerate(terms)}
    made = TfidfVectorizer(**counting.analyzer(), sublinear_tf=True, vocabulary=vocabulary)
    made.idf_ = weights
    return made


def _weighting() -> Any:
    """What `_vectorizer` makes of counts."""
    from sklearn.feature_extraction.text import TfidfTransformer

    return TfidfTransformer(sublinear_tf=True)


Measure = Callable[[Example], npt.NDArray[Any]]
"""(D,) of an example, D the same for all."""
_MOST_MEASURED = 20_000_000
"""Numbers that are kept."""


class MeasuredOnce:
    """What is measured of an example, kept for a training that asks for it in each fold and for the model itself."""

    def __init__(self, measure: Measure) -> None:
        self._measure, self._kept, self._numbers = measure, dict[str, npt.NDArray[Any]](), 0

    def __call__(self, example: Example) -> npt.NDArray[Any]:
        found = self._kept.get(example.id)
        if found is None:
            found = self._measure(example)
            self._numbers += found.size
            if self._numbers <= _MOST_MEASURED:
                self._kept[example.id] = found
        return found


class Vectors(_Learned):
    """Media as the short vector of their modality's `describe`: grey pixels, summary features."""

    def __init__(self, modality: str, scaling: Scaling, measure: Measure | None = None) -> None:
        """`measure`: has measured examples that will be asked for."""
        super().__init__()
        self._modality, self._scaling = modality, scaling
        self._measure = measure or self.measure(modality)

    @classmethod
    def fit(
        cls, examples: Sequence[Example], modality: str, *, one_unit: bool = False, measure: Measure | None = None
    ) -> Self:
        """`one_unit`: the numbers of the description are of one kind, as pixels are."""
        rows = np.stack([*map(measure or cls.measure(modality), examples)])
        made = cls(modality, Scaling.of(rows, one_unit=one_unit), measure)
        made._learned = examples, rows
        return made

    @staticmethod
    def measure(modality: str) -> Measure:
        kind = modalities.find(modality)
        return lambda example: kind.describe(example.media)  # type: ignore[return-value]

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D)"""
        rows = self._of_learned(examples)
        return self._scaling.apply(np.stack([*map(self._measure, examples)]) if rows is None else rows)

    def settings(self) -> RepresentationSettings:
        return {"kind": "vectors", "modality": self._modality}

    def arrays(self) -> Arrays:
        return self._scaling.arrays()

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Vectors:
        return cls(settings["modality"], Scaling(**arrays))


class Properties(Vectors):
    """Media as the vector of their modality's `properties`: what experts measure of them."""

    @staticmethod
    def measure(modality: str) -> Measure:
        kind = modalities.find(modality)
        return lambda example: kind.properties(example.media)

    def settings(self) -> RepresentationSettings:
        return {"kind": "properties", "modality": self._modality}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Properties:
        return cls(settings["modality"], Scaling(**arrays))


class Features:
    """Media as the vector that their modality compares examples by. Nothing is learned."""

    def __init__(self, modality: str) -> None:
        self._modality = modality

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D), D the same for all media of a modality."""
        features = modalities.find(self._modality).features
        return np.stack([features(example.media) for example in examples])

    def settings(self) -> RepresentationSettings:
        return {"kind": "features", "modality": self._modality}

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Features:
        return cls(settings["modality"])


class Steps:
    """Series of one length as their own steps, for series that line up, such as spectra and heartbeats.

    A difference at one step is found there; summary features average over it.
    """

    def __init__(self, channels: int, steps: int, scaling: Scaling) -> None:
        self._channels, self._steps, self._scaling = channels, steps, scaling

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> Steps:
        """UnsuitableRepresentation where the training series differ in length or channels."""
        shapes = {example.media.shape for example in examples}
        if len(shapes) > 1:
            raise UnsuitableRepresentation("the series differ in their steps or channels, so that they do not line up")
        ((channels, steps),) = shapes
        rows = np.stack([example.media.ravel() for example in examples])
        return cls(channels, steps, Scaling.of(rows, one_unit=True))

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """(N, C * T), channel by channel. A series of another length is stretched or squeezed to that of training."""
        fitted = [stretch(example.media, self._channels, self._steps).ravel() for example in examples]
        return self._scaling.apply(np.stack(fitted))

    def settings(self) -> RepresentationSettings:
        return {"kind": "steps", "channels": self._channels, "steps": self._steps}

    def arrays(self) -> Arrays:
        return self._scaling.arrays()

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Steps:
        return cls(settings["channels"], settings["steps"], Scaling(**arrays))


def stretch(series: npt.NDArray[Any], channels: int, steps: int) -> npt.NDArray[Any]:
    """(C, T) -> (C, steps), between its values in proportion. INVALID for other channels."""
    check_channels(series, channels)
    if series.shape[1] == steps:
        return series
    places = np.linspace(0, series.shape[1] - 1, steps)
    return np.stack([np.interp(places, np.arange(series.shape[1]), channel) for channel in series])


def check_channels(series: npt.NDArray[Any], channels: int) -> None:
    """INVALID where it has others than the training series."""
    if len(series) != channels:
        raise SpeciateError(
            Code.INVALID,
            f"This series has {len(series)} channels; the model has learned from {channels}.",
            "Bring series with the channels of the training data, in their order.",
        )


def _no_progress(done: int, total: int) -> None:
    pass


class Embeddings:
    """Media as vectors of a frozen base model, read from the workspace's feature cache if there is one.

    The model's folder holds the base model, or names an installed package with the id of its encoder. Loading refuses
    a package whose encoder has another id.
    """

    def __init__(
        self,
        base_model: str,
        encoder: Encoder,
        folders: Folders | None = None,
        progress: Callable[[int, int], None] = _no_progress,
    ) -> None:
        """`folders` None: compute everything and keep nothing, as a served model does."""
        self.base_model, self.encoder, self._folders, self._progress = base_model, encoder, folders, progress

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, width)"""
        media = [example.media for example in examples]
        if self._folders is not None:
            ids = [example.id for example in examples]
            return features.embed(self._folders, self.encoder, ids, media, self._progress)
        vectors = np.zeros((len(media), self.encoder.width), np.float32)
        for places, batch in self.encoder.embed(media):
            vectors[places] = batch
        return vectors

    def has_cached(self, examples: Sequence[Example]) -> bool:
        """Whether the cache has a vector of any of them."""
        if self._folders is None:
            return False
        return bool(features.known(self._folders, self.encoder.cache, example_keys(examples)).any())

    def settings(self) -> RepresentationSettings:
        return {
            "kind": "embeddings",
            "base_model": self.base_model,
            "encoder": self.encoder.id,
            "precision": self.encoder.precision,
        }

    def arrays(self) -> Arrays:
        return {}

    def keep(self, folder: Path) -> None:
        """Write into a model folder what is not in `arrays`."""
        self.encoder.keep(folder)

    @classmethod
    def rebuild(
        cls, settings: RepresentationSettings, folder: Path, folders: Folders | None, threads: int = 1
    ) -> Embeddings:
        """`folder`: of the model, which keeps a base model that no package has."""
        if model_folder.has_backbone(folder):
            kept = kept_encoder(settings["base_model"], settings["encoder"], settings["precision"], folder, threads)
            return cls(settings["base_model"], kept, folders)
        media = VIDEO if settings["encoder"].endswith(OF_FRAMES) else None
        layers = settings["encoder"].endswith(OF_LAYERS)
        encoder = load_encoder(settings["base_model"], threads, settings["precision"], media=media, layers=layers)
        if encoder.id != settings["encoder"]:
            raise SpeciateError(
                Code.REFUSED,
                f"The installed {settings['base_model']} computes {encoder.id!r}; this model was trained on "
                f"{settings['encoder']!r}.",
                "Install the version of the weights that it was trained on, or call train_model again.",
            )
        return cls(settings["base_model"], encoder, folders)
