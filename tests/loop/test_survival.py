"""The product-limit estimator against SciPy's, and what holds of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from speciate.loop.survival import Span, curve, quantile

_spans = st.lists(st.builds(Span, st.integers(1, 20).map(float), st.booleans()), min_size=1, max_size=30)


@given(_spans.filter(lambda spans: any(span.finished for span in spans)))
def test_it_is_scipys(spans: list[Span]) -> None:
    data = stats.CensoredData(
        uncensored=[span.seconds for span in spans if span.finished],
        right=[span.seconds for span in spans if not span.finished],
    )
    ours = {step.seconds: step.longer for step in curve(spans)}
    for seconds, longer in ours.items():
        assert stats.ecdf(data).sf.evaluate(seconds) == pytest.approx(longer)
    assert set(ours) == {span.seconds for span in spans if span.finished}


def test_of_what_is_all_over_it_is_the_usual_median() -> None:
    steps = curve(Span(float(seconds), True) for seconds in (5, 1, 3, 2, 4))
    assert quantile(steps, 0.5) == 3.0
    assert quantile(steps, 0.9) == 5.0


def test_what_is_unfinished_makes_it_longer_and_never_shorter() -> None:
    over = [Span(float(seconds), True) for seconds in (1, 2, 3, 4)]
    assert quantile(curve(over), 0.5) == 2.0
    assert quantile(curve([*over, Span(3.5, False)]), 0.5) == 3.0


def test_where_too_few_are_over_nobody_knows_the_median() -> None:
    assert quantile(curve([Span(1.0, True), Span(2.0, False), Span(9.0, False)]), 0.5) is None
    assert quantile(curve([]), 0.5) is None
