"""Counts of competing kernels: what Hydra's definition says, whatever the length, and the same again."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks import competing_convolutions
from speciate.tasks.competing_convolutions import CompetingConvolutions
from speciate.tasks.task import UnsuitableRepresentation


def _examples(*series: object) -> list[Example]:
    return [Example(str(i), np.asarray(each, np.float32), None, str(i), "train", {}) for i, each in enumerate(series)]


def _noise(count: int, channels: int, steps: int, seed: int = 0) -> list[Example]:
    return _examples(*np.random.default_rng(seed).normal(size=(count, channels, steps)))


@pytest.mark.parametrize("channels", [1, 3])
def test_counts_are_those_of_the_definition_written_out(channels: int) -> None:
    examples = _noise(3, channels, 40)
    kernels = CompetingConvolutions.fit(examples)._kernels
    found = competing_convolutions._counts(kernels, [each.media for each in examples])
    depth, _, groups = kernels.weights.shape[:3]
    found = found.reshape(3, depth, 2, 2, groups, 8)  # of each dilation and form: sums, then how often
    for place, form, group in [(0, 0, 0), (1, 0, 5), (1, 1, 31), (depth - 1, 1, 7)]:
        weights, dilation = kernels.weights[place, form, group].astype(np.float64), 2**place
        for example, series in enumerate(examples):
            values = np.diff(series.media, axis=1) if form else series.media
            own = values[kernels.channels[place, form, group]].sum(axis=0).astype(np.float64)
            padded = np.pad(own, 4 * dilation)
            results = np.stack(
                [
                    sum(weight * padded[at * dilation : at * dilation + len(own)] for at, weight in enumerate(kernel))
                    for kernel in weights
                ]
            )
            sums = [results.max(axis=0)[results.argmax(axis=0) == kernel].sum() for kernel in range(8)]
            often = [(results.argmin(axis=0) == kernel).sum() for kernel in range(8)]
            np.testing.assert_allclose(found[example, place, form, 0, group], sums, atol=1e-3)
            np.testing.assert_allclose(found[example, place, form, 1, group], often)


def test_kernels_have_no_mean_and_one_size_and_come_back_from_arrays() -> None:
    examples = _noise(6, 2, 50)
    made = CompetingConvolutions.fit(examples)
    np.testing.assert_allclose(made._kernels.weights.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(made._kernels.weights).sum(axis=-1), 1, atol=1e-5)
    again = CompetingConvolutions.rebuild(made.settings(), made.arrays())
    np.testing.assert_array_equal(again.encode(examples), made.encode(examples))


def test_zeros_stay_zeros_and_the_rest_is_brought_to_one_spread() -> None:
    counts = np.array([[0.0, 4.0], [0.0, 16.0], [9.0, 36.0]], np.float32)
    scaled = competing_convolutions._SparseScaling.of(counts).apply(counts)
    assert (scaled[:2, 0] == 0).all()
    assert scaled[2, 0] > 0
    np.testing.assert_allclose(scaled[:, 1], (np.array([2, 4, 6]) - 4) / np.std([2, 4, 6]), atol=1e-4)


def test_series_of_several_lengths_have_the_same_columns_and_no_order_matters() -> None:
    generator = np.random.default_rng(1)
    examples = _examples(*(generator.normal(size=(1, steps)) for steps in (30, 12, 30, 55, 1)))
    made = CompetingConvolutions.fit(examples)
    found = made.encode(examples)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(made.encode(examples[::-1])[::-1], found, atol=1e-4)


def test_other_channels_and_very_short_series_are_refused_in_words() -> None:
    made = CompetingConvolutions.fit(_noise(4, 3, 20))
    with pytest.raises(SpeciateError, match="channels") as refusal:
        made.encode(_noise(1, 1, 20))
    assert refusal.value.code is Code.INVALID
    with pytest.raises(UnsuitableRepresentation, match="steps"):
        CompetingConvolutions.fit(_noise(4, 1, 6))
    for given in (1, 3, 5):  # more would be read in part, and nobody would know
        with pytest.raises(SpeciateError, match=f"{given} channels"):
            CompetingConvolutions.fit(_noise(4, 2, 40)).encode(_noise(1, given, 40))
    with pytest.raises(UnsuitableRepresentation, match="channels"):
        CompetingConvolutions.fit([*_noise(2, 1, 20), *_noise(2, 2, 20)])
