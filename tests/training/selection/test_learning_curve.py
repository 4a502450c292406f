from __future__ import annotations

import math

import pytest

from speciate.training.selection.learning_curve import CurvePoint, examples_for


def test_a_curve_says_how_many_labels_its_own_law_needs() -> None:
    """error = 2 / sqrt(n)"""
    curve = [CurvePoint(n, 1 - 2 / math.sqrt(n)) for n in (100, 200, 400)]
    assert examples_for(curve, 0.95, 1.0) == pytest.approx(1600, abs=2)
    assert examples_for(curve, 0.999, 1.0) is None, "more than a thousand times"
    assert examples_for(curve, 1.0, 1.0) is None
    assert examples_for([CurvePoint(n, 0.7) for n in (100, 200)], 0.8, 1.0) is None, "a flat curve"
    assert examples_for([CurvePoint(100, 0.8), CurvePoint(200, 0.7)], 0.9, 1.0) is None, "a rising error"
    assert examples_for(curve, 0.95, None) is None
