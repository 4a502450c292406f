"""Which base models stay: a table for the rules, and what holds whatever the scores are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.training.pruning import Scores, Standing, comparable, kept, places, prune

_SIZES = {"tiny": 1, "small": 10, "medium": 100, "large": 1000, "huge": 5000}


def _kept(standings: list[Standing]) -> list[str]:
    return [one.base_model for one in standings if one.kept]


def _scores(*best_first: str) -> dict[str, Scores]:
    return {name: Scores(-float(place), -float(place)) for place, name in enumerate(best_first)}


def test_the_best_the_smallest_and_the_largest_stay() -> None:
    found = prune(list(_SIZES), _scores("medium", "small", "large", "tiny", "huge"), _SIZES)
    assert [(one.base_model, one.place, one.kept, one.why) for one in found] == [
        ("medium", 1, True, "the best scores"), ("small", 2, False, "others promise more"),
        ("large", 3, False, "others promise more"), ("tiny", 4, True, "the smallest"), ("huge", 5, True, "the largest"),
    ]  # fmt: skip


def test_where_the_best_is_the_smallest_the_next_best_has_its_place() -> None:
    assert _kept(prune(list(_SIZES), _scores("tiny", "small", "large", "medium", "huge"), _SIZES)) == [
        "tiny", "small", "huge",
    ]  # fmt: skip


def test_of_models_of_one_size_the_best_stay() -> None:
    found = prune(list(_SIZES), _scores("large", "huge", "tiny", "small", "medium"), dict.fromkeys(_SIZES, 7))
    assert _kept(found) == ["large", "huge", "tiny"]


def test_what_could_not_be_measured_stays_beside_those_that_were() -> None:
    measured = _scores("medium", "small", "large", "huge")
    found = prune(["tiny", "medium", "small", "large", "huge"], measured, _SIZES)
    assert _kept(found) == ["medium", "small", "huge", "tiny"]
    assert found[-1] == Standing("tiny", None, True, "not measured")


def test_few_all_stay() -> None:
    found = prune(["tiny", "huge", "small"], _scores("small", "tiny", "huge"), _SIZES)
    assert _kept(found) == ["small", "tiny", "huge"]


def test_places_come_from_the_mean_rank_in_both_scores_and_the_smaller_model_is_first_of_equals() -> None:
    scores = [Scores(-1.0, 2.0), Scores(-2.0, 3.0), Scores(-3.0, 1.0)]
    assert places(scores, [50, 40, 1]) == [2, 1, 3]
    assert places(scores, [40, 50, 1]) == [1, 2, 3]
    assert places([Scores(1.0, 1.0)] * 3, [3, 1, 2]) == [3, 1, 2]


@given(st.data())
@settings(deadline=None)
def test_whatever_the_scores_both_ends_of_the_sizes_and_the_best_stay_and_no_more_than_asked(
    data: st.DataObject,
) -> None:
    names = [f"m{number}" for number in range(data.draw(st.integers(1, 9)))]
    value = st.floats(-5, 5) | st.sampled_from([0.0, 1.0])
    scores = {name: Scores(data.draw(value), data.draw(value)) for name in names if data.draw(st.integers(0, 4))}
    sizes = {name: data.draw(st.integers(1, 4)) for name in names}
    keep = data.draw(st.integers(1, 5))
    found = prune(names, scores, sizes, keep)
    stay = _kept(found)
    assert sorted(one.base_model for one in found) == names
    assert len([name for name in stay if name in scores]) == min(len(scores), max(keep, 3))
    assert set(names) - set(scores) <= set(stay)
    if scores:
        assert found[0].kept
        assert {min(sizes[name] for name in scores), max(sizes[name] for name in scores)} <= {
            sizes[name] for name in stay if name in scores
        }


@pytest.mark.parametrize(
    ("base_model", "is_it"),
    [("pkg:minilm", True), ("net@v2", True), ("path:/x", True), ("new:vit", False), ("timm:vit_tiny", False)],
)
def test_fresh_weights_are_not_compared(base_model: str, is_it: bool) -> None:
    assert comparable(base_model) is is_it


def test_a_report_tells_what_stays_best_first() -> None:
    assert kept({"candidates": [{"base_model": "b", "kept": True}, {"base_model": "a", "kept": False}]}) == ["b"]
