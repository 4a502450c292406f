"""Series of any values and lengths can be compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from speciate.modalities.series_similarity import SERIES, sketch_series

_values = st.one_of(st.floats(width=32), st.sampled_from([0.0, 1.0, 3e38, -3e38, 1e-40]))
_series = st.tuples(st.integers(1, 3), st.integers(1, 60)).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=_values)
)


@given(st.lists(_series, max_size=8), st.integers(0, 3))
def test_any_series_can_be_compared(series: list[npt.NDArray[Any]], repeated: int) -> None:
    codes = [code for code in map(sketch_series, [*series, *series[:repeated]]) if code is not None]
    assert all(0 <= first < second < len(codes) for first, second in SERIES.pairs(codes).tolist())


def test_two_short_series_of_different_lengths_have_no_windows_in_common() -> None:
    codes = [sketch_series(np.array([[0.0, *([1.0] * rest)]])) for rest in (7, 8)]
    assert SERIES.pairs([code for code in codes if code]).tolist() == []


def test_without_channels_there_is_no_sketch_and_beyond_perfect_correlation_no_pair() -> None:
    assert sketch_series(np.zeros((0, 100), np.float32)) is None
    code = sketch_series(np.sin(np.arange(100, dtype=np.float32))[np.newaxis]) or b""
    assert SERIES.pairs([code, code], threshold=0.9).tolist() == [[0, 1]]
    assert SERIES.pairs([code, code], threshold=1.2).tolist() == []
