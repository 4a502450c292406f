"""Scales, and charts that stay inside their frame whatever they are given."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.pages.formatting import (
    format_difference,
    format_interval,
    format_number,
    format_p_value,
    format_usd,
)
from speciate.evaluation.pages.page import environment
from speciate.evaluation.pages.svg_charts import Curve, Point, Scale, Svg, axis, bar, reliability, scatter
from tests.evaluation.pages.reading import Page

_numbers = st.floats(-1e9, 1e9, allow_nan=False)
_costs = st.just(0.0) | st.floats(1e-9, 1e9)  # in dollars per 1,000: less is nobody's price


def drawn(chart: Svg) -> Page:
    template = environment().from_string('{% from "macros.html" import svg %}{{ svg(chart) }}')
    return Page(template.render(chart=chart))


@given(st.lists(_numbers, min_size=1, max_size=20))
def test_every_value_lies_inside_its_scale_in_order(values: list[float]) -> None:
    scale = Scale.of(values)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)


@given(st.lists(_costs, min_size=1, max_size=20))
def test_ticks_of_costs_are_round_few_and_inside(values: list[float]) -> None:
    scale = Scale.of_costs(values)
    ticks = scale.ticks(4)
    assert len(ticks) <= 6
    room = 1e-9 * (scale.high - scale.low)
    assert all(scale.low - room <= tick <= scale.high + room for tick in ticks)


def test_costs_that_differ_by_decades_are_drawn_by_decades() -> None:
    assert Scale.of_costs([0.001, 10]).ticks(4) == pytest.approx([0.001, 0.1, 10])
    assert not Scale.of_costs([0.0, 10]).logarithmic


@given(st.lists(st.tuples(_costs, _numbers), min_size=1, max_size=20))
def test_points_are_inside_the_image(pairs: list[tuple[float, float]]) -> None:
    points = [Point(str(i), x, y, (y - 1, y + 1), "other") for i, (x, y) in enumerate(pairs)]
    found = drawn(scatter(points, "cost", "value"))
    circles = [one for tag, one in found.elements if tag == "circle"]
    assert len(circles) == len(points)
    for one in circles:
        assert 0 <= float(one["cx"]) <= 350
        assert 0 <= float(one["cy"]) <= 290


def test_points_in_one_place_share_their_names() -> None:
    same = [Point(name, 1.0, 0.5, None, "other") for name in ("1", "2")]
    assert "1, 2" in drawn(scatter([*same, Point("3", 2.0, 0.9, None, "other")], "cost", "value")).text


def test_a_value_without_an_interval_and_an_interval_without_a_value_are_drawn() -> None:
    scale = Scale.of([0, 1])
    assert drawn(bar(0.5, None, scale, "candidate")).tags["circle"] == 1
    assert drawn(bar(None, (0.1, 0.2), scale, "candidate")).tags["circle"] == 0
    assert drawn(axis(scale)).tags["text"] == len(scale.ticks(3))
    assert drawn(reliability([Curve("candidate", ())])).tags["polyline"] == 1


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (format_number(None), "–"),
        (format_number(math.nan), "–"),
        (format_number(0.0), "0"),
        (format_number(999.6), "1,000"),
        (format_number(1234567), "1,234,567"),
        (format_number(-0.25), "−0.25"),
        (format_number(0.0000123), "1.23e−05"),
        (format_difference(0.5), "+0.5"),
        (format_difference(-0.5), "−0.5"),
        (format_interval((0.1, 0.25)), "0.1 to 0.25"),
        (format_interval(None), "–"),
        (format_p_value(0.0001), "< 0.001"),
        (format_p_value(0.0456), "0.046"),
        (format_usd(0.00001), "< $0.0001"),
        (format_usd(0.0), "$0"),
        (format_usd(12.5), "$12.5"),
    ],
)
def test_numbers_are_written_as_a_reader_wants_them(shown: str, text: str) -> None:
    assert shown == text
