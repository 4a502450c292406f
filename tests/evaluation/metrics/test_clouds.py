"""Chamfer distance and F-score are what all pairs written out say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.evaluation.metrics.clouds import chamfer, f_score
from tests.drawn import drawn


@settings(max_examples=drawn(40), deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 2))
def test_they_are_what_all_pairs_say(seed: int, n: int, m: int, threshold: float) -> None:
    chance = np.random.default_rng(seed)
    a, b = chance.normal(size=(n, 3)), chance.normal(size=(m, 3)).round(1)
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    there, back = apart.min(axis=1), apart.min(axis=0)
    assert chamfer(a, b) == pytest.approx((there.mean() + back.mean()) / 2, rel=1e-9)
    assert chamfer(a, b) == pytest.approx(chamfer(b, a))
    p, r = (there <= threshold).mean(), (back <= threshold).mean()
    assert f_score(a, b, threshold) == pytest.approx(2 * p * r / (p + r) if p + r else 0.0)
    assert (chamfer(a, a), f_score(a, a, 0.0)) == (0.0, 1.0)


def test_an_empty_cloud_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        chamfer(np.zeros((0, 3)), np.ones((2, 3)))
