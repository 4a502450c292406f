"""The leaderboard as an image of bounded size."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from speciate.evaluation.reports.leaderboard_chart import draw_leaderboard
from tests.evaluation.handmade import report, row


@pytest.mark.parametrize("count", [1, 2, 19, 20, 60])
def test_any_number_of_models_fits(count: int) -> None:
    rows = [row(f"model-{i}-{'x' * 60}@v1", 0.9 - i / 100, dominated=bool(i % 2)) for i in range(count)]
    image = Image.open(io.BytesIO(draw_leaderboard(report(rows), rows[0].model, rows[-1].model)))
    assert image.width <= 1024
    assert image.height <= 1024


def test_the_candidate_is_drawn_even_where_not_all_fit() -> None:
    rows = [row(f"m{i}", 0.9 - i / 100) for i in range(60)]
    colours = Image.open(io.BytesIO(draw_leaderboard(report(rows), "m0", "m59"))).convert("RGB").getcolors(1 << 16)
    assert colours is not None
    assert {(21, 89, 183), (168, 80, 10)} <= {colour for _, colour in colours}


def test_values_that_are_not_there_leave_a_line_without_a_dot() -> None:
    rows = [row("a", None, interval=None), row("\u4e2d\u6587", None, interval=None, p95_ms=None)]
    assert draw_leaderboard(report(rows), "a", "\u4e2d\u6587").startswith(b"\x89PNG")
