"""Panoptic quality, errors of depth and ANLS, against their definitions written out."""

from __future__ import annotations

from typing import Any

import jiwer
import numpy as np
import pytest

from speciate.evaluation.metrics import contributions, corpus
from speciate.evaluation.metrics.metric import Answers, object_answers
from speciate.evaluation.spoken_words import edit_distance
from speciate.modalities.depth_maps import depth_cell, depth_of, from_map, to_map
from speciate.modalities.segmentation_masks import to_runs
from speciate.vocabulary import METRICS


def value(name: str, answers: Answers) -> float:
    metric = METRICS[name]
    if metric.shape == "mean":
        return float(np.nanmean(contributions(metric, answers)))
    count = len(answers.references)
    return float(corpus(metric, answers, np.arange(count))(np.ones((1, count)))[0])


def segments(pixels: Any, *labels: str) -> dict[str, Any]:
    pixels = np.asarray(pixels, np.uint8)
    return {"labels": list(labels), "size": list(pixels.shape), "rle": to_runs(pixels)}


def test_panoptic_quality_counts_overlaps_misses_and_false_alarms_of_each_label() -> None:
    true = segments([[1, 1, 1, 2, 2, 2, 3, 3, 0, 0]], "cat", "cat", "dog")
    said = segments([[1, 1, 0, 2, 0, 0, 3, 3, 4, 4]], "cat", "cat", "dog", "sky")
    # cat: 2/3 found; the other overlaps by 1/3: missed, and a false alarm. dog: found. sky: a false alarm
    cat = (2 / 3) / (1 + 1 / 2 + 1 / 2)
    assert value("pq", object_answers([true], [said])) == pytest.approx((cat + 1 + 0) / 3)
    assert value("pq", object_answers([true, true], [true, None])) == pytest.approx(1 / (1 + 1 / 2))
    assert value("pq", object_answers([true], [{"labels": ["cat"], "size": [1, 2], "rle": [7, 2]}])) == 0
    nothing = segments(np.zeros((2, 2)))
    assert value("pq", object_answers([nothing], [nothing])) == 1


def test_a_thing_of_the_right_place_and_another_label_is_missed_and_a_false_alarm() -> None:
    true, said = segments([[1, 1]], "cat"), segments([[1, 1]], "dog")
    assert value("pq", object_answers([true], [said])) == 0


def test_depth_is_compared_where_the_reference_knows_it() -> None:
    true = np.array([[2.0, 4.0], [np.nan, 8.0]])
    said = np.array([[2.2, 3.0], [99.0, 8.0]])
    answers = object_answers([to_map(true)], [to_map(said)])
    assert value("abs_rel", answers) == pytest.approx((0.1 + 0.25 + 0) / 3, abs=1e-3)
    assert value("delta_1", answers) == pytest.approx(2 / 3)
    assert value("abs_rel", object_answers([to_map(true)], [None])) == 1
    assert value("delta_1", object_answers([to_map(true)], [{"size": [1]}])) == 0


def test_a_relative_answer_gets_the_scale_and_shift_of_the_reference() -> None:
    draw = np.random.default_rng(0)
    true = draw.uniform(1, 9, (6, 8))
    nearness = to_map(3 / true - 7)
    answers = object_answers([to_map(true)], [{**nearness, "relative": True}])
    assert value("abs_rel", answers) < 1e-3
    assert value("delta_1", answers) == 1
    assert value("abs_rel", object_answers([to_map(true)], [dict(nearness)])) > 1


def test_a_depth_map_comes_back_from_its_cell_to_a_part_of_its_range() -> None:
    draw = np.random.default_rng(1)
    true = draw.uniform(0.5, 80, (7, 5))
    true[0, 0] = np.nan
    back = depth_of(depth_cell(true))
    assert np.isnan(back[0, 0])
    assert np.nanmax(np.abs(back - true)) <= (80 - 0.5) / 131_068 + 1e-9
    assert np.array_equal(from_map(to_map(np.full((2, 3), 4.0))), np.full((2, 3), 4.0))
    for cell in ("{}", "no", '{"size": [2, 2], "low": 0, "high": 1, "values": "eJw="}', "[1]"):
        with pytest.raises(ValueError, match="depth map"):
            depth_of(cell)


def test_anls_is_one_less_the_share_of_edits_of_the_longer_text() -> None:
    draw = np.random.default_rng(2)
    pairs = [
        ("".join(draw.choice(list("abc"), 9)), "".join(draw.choice(list("abc"), int(n))))
        for n in draw.integers(1, 12, 40)
    ]
    for one, other in pairs:
        assert edit_distance(one, other) == round(jiwer.cer(one, other) * len(one))
    answers = object_answers(["Total 42", "42", "x"], ["total 43", "no idea", None])
    assert contributions(METRICS["anls"], answers).tolist() == pytest.approx([1 - 1 / 8, 0, 0])
