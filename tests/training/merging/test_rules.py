"""What every rule must hold, whatever the numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.training.merging.rules import Rule, agreed, largest, slerp, thinned
from speciate.training.merging.specs import METHODS, MergeMethod, usual_weights

torch = pytest.importorskip("torch")
SEEDS = st.integers(0, 10_000)


def drawn(seed: int, count: int = 1, size: int = 40) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for _ in range(count)]


def rule(method: MergeMethod, count: int, **settings: Any) -> Rule:
    weights = settings.pop("weights", None) or usual_weights(method, ["m"] * count, None)
    return Rule(method, tuple(weights), **settings)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_soup_of_one_is_itself_and_of_equals_is_that_one_to_the_bit(seed: int) -> None:
    (one,) = drawn(seed)
    assert torch.equal(rule("soup", 1)("w", [one], None), one)
    assert torch.equal(rule("soup", 3)("w", [one, one.clone(), one.clone()], None), one)


@given(SEEDS, st.lists(st.floats(0.1, 5), min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_soup_is_the_weighted_mean(seed: int, weights: list[float]) -> None:
    many = drawn(seed, len(weights))
    expected = sum(w * t.double() for w, t in zip(weights, many, strict=True)) / sum(weights)
    found = rule("soup", len(weights), weights=weights)("w", many, None)
    assert torch.allclose(found.double(), expected, atol=1e-5)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_slerp_ends_in_its_two_models_and_keeps_the_length_between(seed: int) -> None:
    first, second = drawn(seed, 2)
    second = second * first.norm() / second.norm()
    assert torch.equal(slerp(first, second, 0), first)
    assert torch.equal(slerp(first, second, 1), second)
    for t in (0.2, 0.5, 0.9):
        assert math.isclose(float(slerp(first, second, t).norm()), float(first.norm()), rel_tol=1e-4)


def test_slerp_of_what_points_the_same_way_or_nowhere_is_a_straight_line() -> None:
    (one,) = drawn(1)
    assert torch.allclose(slerp(one, 3 * one, 0.5), 2 * one)
    assert torch.allclose(slerp(torch.zeros(4), torch.ones(4), 0.25), torch.full((4,), 0.25))


def test_slerp_by_hand() -> None:
    found = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 1 / 3)
    assert torch.allclose(found, torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_task_arithmetic_of_nothing_is_the_base_and_of_one_whole_change_the_model(seed: int) -> None:
    base, one, two = drawn(seed, 3)
    assert torch.equal(rule("task_arithmetic", 2, weights=(0.0, 0.0))("w", [one, two], base), base)
    assert torch.allclose(rule("task_arithmetic", 1, weights=(1.0,))("w", [one], base), one, atol=1e-6)
    away = rule("task_arithmetic", 1, weights=(-1.0,))("w", [one], base)
    assert torch.allclose(away, 2 * base - one, atol=1e-5)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_ties_of_equal_models_untrimmed_is_that_model(seed: int) -> None:
    base, one = drawn(seed, 2)
    found = rule("ties", 2, density=1.0)("w", [one, one.clone()], base)
    assert torch.allclose(found, one, atol=1e-6)


def test_ties_keeps_the_large_and_what_agrees_in_sign() -> None:
    """Figure 1 of Yadav et al. in numbers: a small change is trimmed, a sign is elected, the outvoted are left out."""
    changes = [torch.tensor([4.0, 0.1, -1.0]), torch.tensor([2.0, 3.0, 3.0])]
    trimmed = [largest(each, 2 / 3) for each in changes]
    assert trimmed[0].tolist() == [4.0, 0.0, -1.0]
    assert trimmed[1].tolist() == [0.0, 3.0, 3.0]
    assert agreed(trimmed, (0.5, 0.5)).tolist() == [4.0, 3.0, 3.0]


def test_where_signs_cancel_nothing_changes() -> None:
    assert agreed([torch.tensor([1.0]), torch.tensor([-1.0])], (0.5, 0.5)).tolist() == [0.0]


def test_dare_leaves_out_its_share_and_is_the_same_on_average() -> None:
    change = torch.ones(200_000)
    left = thinned(change, 0.25, "0 a w")
    assert set(left.unique().tolist()) == {0.0, 4.0}
    assert float((left != 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(left.mean()) == pytest.approx(1, abs=0.03)


def test_the_chance_of_dare_is_the_seeds_the_models_and_the_tensors_and_no_one_elses() -> None:
    change = torch.ones(500)
    assert torch.equal(thinned(change, 0.5, "0 a w"), thinned(change, 0.5, "0 a w"))
    for other in ("1 a w", "0 b w", "0 a v"):
        assert not torch.equal(thinned(change, 0.5, "0 a w"), thinned(change, 0.5, other))


@pytest.mark.parametrize("method", METHODS)
def test_what_the_base_lacks_is_averaged(method: MergeMethod) -> None:
    one, two = drawn(3, 2)
    found = rule(method, 2, weights=(1.0, 1.0))("head/weight", [one, two], None)
    expected = slerp(one, two, 0.5) if method == "slerp" else (one + two) / 2
    assert torch.allclose(found, expected, atol=1e-6)
