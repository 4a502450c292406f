"""Features of random convolutions: what MiniRocket's definition says, whatever the length, and the same again."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks import random_convolutions
from speciate.tasks.random_convolutions import KERNELS, Convolutions
from speciate.tasks.task import UnsuitableRepresentation


def _examples(*series: object) -> list[Example]:
    return [Example(str(i), np.asarray(each, np.float32), None, str(i), "train", {}) for i, each in enumerate(series)]


def _noise(count: int, channels: int, steps: int, seed: int = 0) -> list[Example]:
    return _examples(*np.random.default_rng(seed).normal(size=(count, channels, steps)))


def test_a_result_is_that_of_the_kernel_written_out() -> None:
    examples = _noise(3, 1, 40)
    plan = Convolutions.fit(examples)._plan
    block = np.stack([each.media for each in examples])
    seen = set()
    for place, dilation in enumerate(plan.dilations.tolist()):
        for kernels, valid, results in random_convolutions._results(plan, place, block):
            for number, result in zip(kernels.tolist(), results, strict=True):
                weights = [2.0 if index in KERNELS[number] else -1.0 for index in range(9)]
                padded = np.pad(block[:, 0].astype(np.float64), ((0, 0), (4 * dilation, 4 * dilation)))
                wanted = sum(w * padded[:, index * dilation : index * dilation + 40] for index, w in enumerate(weights))
                np.testing.assert_allclose(result, wanted, atol=1e-4)
                assert np.arange(40)[valid].size > 0
                seen.add((dilation, number))
    assert len(seen) == len(plan.dilations) * len(KERNELS)


def test_there_are_as_many_features_as_the_authors_have_and_they_come_back_from_arrays() -> None:
    examples = _noise(12, 3, 60)
    made = Convolutions.fit(examples)
    again = Convolutions.rebuild(made.settings(), made.arrays())
    found = made.encode(examples)
    assert found.shape == (12, 9996)
    np.testing.assert_array_equal(again.encode(examples), found)
    np.testing.assert_array_equal(Convolutions.fit(examples).encode(examples), found)


def test_series_of_several_lengths_have_the_same_columns_and_no_order_matters() -> None:
    generator = np.random.default_rng(1)
    examples = _examples(*(generator.normal(size=(1, steps)) for steps in (30, 12, 30, 55, 3)))
    made = Convolutions.fit(examples)
    found = made.encode(examples)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(made.encode(examples[::-1])[::-1], found)
    np.testing.assert_allclose(made.encode(examples[:1]), found[:1])


def test_a_short_pattern_at_any_place_is_told_from_its_mirror_image() -> None:
    generator = np.random.default_rng(2)
    series, labels = generator.normal(0, 0.3, (80, 1, 60)), np.arange(80) % 2
    for each, label in zip(series, labels, strict=True):
        start = int(generator.integers(0, 50))
        each[0, start : start + 9] += np.linspace(0, 3, 9)[:: -1 if label else 1]
    made = Convolutions.fit(_examples(*series[:40]))
    inputs = made.encode(_examples(*series))
    penalty = 1000 * np.eye(40)
    dual = np.linalg.solve(inputs[:40] @ inputs[:40].T + penalty, 2.0 * labels[:40] - 1)
    answers = inputs[40:] @ inputs[:40].T @ dual > 0
    assert (answers == labels[40:].astype(bool)).mean() > 0.9


def test_series_that_cannot_be_compared_are_told() -> None:
    with pytest.raises(UnsuitableRepresentation, match="channels"):
        Convolutions.fit([*_noise(2, 1, 30), *_noise(2, 2, 30)])
    with pytest.raises(UnsuitableRepresentation, match="steps"):
        Convolutions.fit(_noise(3, 1, 5))
    made = Convolutions.fit(_noise(3, 1, 30))
    with pytest.raises(SpeciateError) as refused:
        made.encode(_noise(1, 2, 30))
    assert refused.value.code == Code.INVALID
