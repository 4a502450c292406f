"""Which of student and teachers another one beats: what was measured of a few answers is no sure difference."""

from __future__ import annotations

from speciate.training.recipes.teachers import FrontierRow, compare_models
from speciate.vocabulary import find_metric


def _dominated(*rows: FrontierRow) -> list[bool]:
    return [row["dominated"] for row in compare_models(rows, find_metric("exact_match"))["frontier"]]


def test_latencies_near_one_another_beat_nobody() -> None:
    student = FrontierRow("small", "student", 1.0, 50_352, 25.7)
    control = FrontierRow("small by labels alone", "control", 1.0, 50_352, 17.9)
    teacher = FrontierRow("large", "teacher", 1.0, 96_624, 35.8)
    assert _dominated(student, control, teacher) == [False, False, True]


def test_a_clear_difference_does() -> None:
    student = FrontierRow("small", "student", 0.5, 100, 30.0)
    assert _dominated(student, FrontierRow("large", "teacher", 0.5, 100, 10.0)) == [True, False]
    assert _dominated(student, FrontierRow("large", "teacher", 0.9, 100, 29.0)) == [True, False]
    assert _dominated(student, FrontierRow("large", "teacher", 0.9, 200, 10.0)) == [False, False]
