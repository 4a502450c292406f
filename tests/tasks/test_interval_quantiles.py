"""Series as sorted values of their parts, and categories as mean targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.tasks import interval_quantiles
from speciate.tasks.encoded_columns import EncodedColumns
from speciate.tasks.interval_quantiles import IntervalQuantiles, intervals
from speciate.tasks.task import UnsuitableRepresentation
from tests.tasks.world import examples


def _series(count: int, steps: int, channels: int = 1) -> list[Example]:
    chance = np.random.default_rng(steps)
    return examples(*(chance.normal(size=(channels, steps)).astype(np.float32) for _ in range(count)))


@given(steps=st.integers(1, 600))
def test_parts_of_each_depth_cover_the_series_and_lie_inside(steps: int) -> None:
    found = intervals(steps)
    assert found[0] == (0, steps)
    assert all(0 <= start < end <= steps for start, end in found)
    covered = {place for start, end in found[1:3] for place in range(start, end)}
    assert steps < 2 or covered == set(range(steps))


def test_the_median_of_the_whole_and_its_extremes_are_features() -> None:
    (one,) = _series(1, 32)
    row = IntervalQuantiles.fit([one]).encode([one])[0]
    series = one.media[0]
    assert row[0] == pytest.approx(series.min(), abs=1e-6)
    assert series.max() - series.mean() == pytest.approx(row[7], abs=1e-5)


@pytest.mark.parametrize(("steps", "channels"), [(8, 1), (40, 3), (300, 2), (1500, 12)])
def test_features_are_bounded_and_the_same_after_saving(steps: int, channels: int) -> None:
    given_ = _series(3, steps, channels)
    made = IntervalQuantiles.fit(given_)
    again = IntervalQuantiles.rebuild(made.settings(), made.arrays())
    found = made.encode(given_)
    assert found.shape[1] <= 16_000
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(again.encode(given_), found)


def test_series_of_other_lengths_are_brought_to_the_usual_one() -> None:
    made = IntervalQuantiles.fit(_series(5, 50))
    assert made.encode([*_series(1, 20), *_series(1, 90)]).shape == (2, made.encode(_series(1, 50)).shape[1])
    with pytest.raises(SpeciateError, match="2 channels"):
        made.encode(_series(1, 50, 2))
    with pytest.raises(UnsuitableRepresentation):
        IntervalQuantiles.fit(_series(5, 4))
    with pytest.raises(UnsuitableRepresentation):
        IntervalQuantiles.fit([*_series(1, 50), *_series(1, 50, 2)])


def _shops(count: int) -> tuple[list[Example], np.ndarray[Any, Any]]:
    chance = np.random.default_rng(0)
    shops = chance.integers(0, 40, count)
    rows = [{"shop": f"shop {shop}", "x": float(chance.normal())} for shop in shops]
    return examples(*rows), (shops % 2 ^ (chance.random(count) < 0.1)).astype(np.int64)


def test_rows_that_were_fitted_on_are_encoded_without_their_own_target() -> None:
    rows, targets = _shops(800)
    made = EncodedColumns.fit(rows, ("shop", "x"), targets)
    flipped = targets.copy()
    flipped[0] = 1 - flipped[0]
    again = EncodedColumns.fit(rows, ("shop", "x"), flipped)
    assert made.encode(rows[:1])[0, -1] == again.encode(rows[:1])[0, -1]
    saved = EncodedColumns.rebuild(made.settings(), made.arrays())
    same_shop = saved.encode(rows)[:, -1]
    assert ((same_shop > 0.5) == targets).mean() > 0.85, "what serves has the means of all"
    assert not np.array_equal(made.encode(rows)[:, -1], same_shop)


def test_an_unknown_or_missing_category_is_the_mean_of_all() -> None:
    rows, targets = _shops(400)
    made = EncodedColumns.fit(rows, ("shop", "x"), targets)
    unknown, missing = examples({"shop": "new", "x": 0.0}, {"shop": None, "x": 0.0})
    found = made.encode([unknown._replace(id="u"), missing._replace(id="m")])[:, -1]
    np.testing.assert_allclose(found, targets.mean())


def test_numbers_and_few_categories_are_no_reason_to_encode() -> None:
    rows = examples({"colour": "red", "x": 1.0}, {"colour": "blue", "x": 2.0})
    with pytest.raises(UnsuitableRepresentation):
        EncodedColumns.fit(rows, ("colour", "x"), np.array([0, 1]))


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 1000))
def test_quantiles_of_a_part_are_numpys(width: int, count: int, seed: int) -> None:
    part = np.random.default_rng(seed).normal(size=(3, 2, width)).round(seed % 3).astype(np.float32)
    shares = np.linspace(0, 1, count)
    found = interval_quantiles._at(np.sort(part, axis=2), shares)
    np.testing.assert_array_equal(found, np.quantile(part, shares, axis=2).astype(np.float32))
