"""Names of classes."""

from __future__ import annotations

from speciate.datasets.columns import alike_class_warnings


def test_classes_that_differ_in_case_alone_are_told_with_the_step_that_joins_them() -> None:
    [warning] = alike_class_warnings({"Good": 10, "good": 3, "GOOD": 1, "bad": 20})
    assert "'Good' (10) and 'good' (3) and 'GOOD' (1)" in warning
    assert "{'op': 'relabel', 'mapping': {'good': 'Good', 'GOOD': 'Good'}}" in warning
    assert alike_class_warnings({"good": 1, "bad": 2, "goods": 3}) == []


def test_of_many_such_classes_three_are_named() -> None:
    [warning] = alike_class_warnings({f"{letter}{case}": 1 for letter in "abcde" for case in ("x", "X")})
    assert "and 2 more" in warning
