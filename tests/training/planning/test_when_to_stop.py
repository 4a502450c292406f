"""The rules by which a search for a model ends: as tables, and against draws of what they predict."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.training.planning.when_to_stop import Measured, is_out_of_reach, probability_of_pass


def _share(value: float, examples: int) -> Measured:
    return Measured(value, math.sqrt(value * (1 - value) / examples), examples)


@pytest.mark.parametrize("value", [0.72, 0.76, 0.8])
@pytest.mark.parametrize("test_examples", [200, 1000])
def test_the_probability_is_that_of_drawn_splits(value: float, test_examples: int) -> None:
    """True accuracies around the measured one, test splits around those: the share of them that pass 0.70."""
    chance, count = np.random.default_rng(0), 20_000
    measured = _share(value, 400)
    true = np.clip(chance.normal(value, measured.standard_error, count), 0, 1)
    found = chance.binomial(test_examples, true) / test_examples
    low = found - 1.96 * np.sqrt(found * (1 - found) / test_examples)
    assert probability_of_pass(measured, 0.70, test_examples) == pytest.approx((low >= 0.70).mean(), abs=0.03)


def test_the_same_validation_value_is_less_sure_on_a_smaller_test_split() -> None:
    measured = _share(0.76, 1000)
    assert probability_of_pass(measured, 0.70, 2000) > 0.9
    assert probability_of_pass(measured, 0.70, 150) < 0.5


@given(
    value=st.floats(0.01, 0.99), examples=st.integers(2, 10**6), target=st.floats(0, 1),
    test=st.one_of(st.none(), st.integers(1, 10**6)),
)  # fmt: skip
def test_it_is_a_probability_and_falls_with_the_target(
    value: float, examples: int, target: float, test: int | None
) -> None:
    measured = _share(value, examples)
    found = probability_of_pass(measured, target, test)
    assert 0 <= found <= 1
    assert probability_of_pass(measured, min(1.0, target + 0.1), test) <= found + 1e-12


def test_what_is_not_known_is_not_sure() -> None:
    assert probability_of_pass(Measured(0.9, math.nan, 10), 0.5, 10) == 0
    assert probability_of_pass(Measured(math.nan, 0.1, 10), 0.5, 10) == 0


def test_a_target_near_perfection_is_out_of_reach_of_a_poor_start() -> None:
    assert is_out_of_reach(_share(0.55, 4000), 0.99, 1.0, ["probe", "lora"])
    assert not is_out_of_reach(_share(0.55, 4000), 0.85, 1.0, ["probe", "lora"])
    assert not is_out_of_reach(_share(0.55, 4000), 0.99, None, ["probe"]), "a metric without a bound"
    assert not is_out_of_reach(_share(0.55, 4000), 0.99, 1.0, ["classical"]), "nothing is known of it"
