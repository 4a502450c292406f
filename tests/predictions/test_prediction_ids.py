"""Ids of answers: what they say, their order, and the sample that follows from them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speciate.predictions import prediction_ids

_AT = st.floats(min_value=0, max_value=4e9, allow_nan=False)
_CHANCE = st.integers(0, 2**50 - 1)


@given(st.text(min_size=1), _AT, _CHANCE)
def test_an_id_says_when_it_was_given_and_for_which_use_case(use_case: str, at: float, chance: int) -> None:
    made = prediction_ids.new_prediction_id(use_case, at, chance)
    parsed = prediction_ids.parse(made)
    assert parsed is not None
    assert parsed.at == int(at * 1000) / 1000
    assert parsed.tag == prediction_ids.tag(use_case)
    assert prediction_ids.parse(f"chatcmpl-{made}") == parsed
    assert prediction_ids.strip_chat_prefix(f"chatcmpl-{made}") == made


@given(_AT, _AT, _CHANCE, _CHANCE)
def test_ids_sort_by_time(one: float, other: float, a: int, b: int) -> None:
    first, second = prediction_ids.new_prediction_id("x", one, a), prediction_ids.new_prediction_id("x", other, b)
    if int(one * 1000) != int(other * 1000):
        assert (first < second) == (one < other)
    assert prediction_ids.first_after(one) <= first


def test_what_is_no_id_is_none() -> None:
    made = prediction_ids.new_prediction_id("x", 1.8e9)
    for text in ("", "pred-", made[:-1], made + "2", made.replace("pred-", "job-"), "pred-" + "z" * 23, "0"):
        assert prediction_ids.parse(text) is None


def test_the_sample_follows_from_the_id_alone_and_grows_with_the_share() -> None:
    ids = [prediction_ids.new_prediction_id("x", 1.8e9 + number) for number in range(4000)]
    tenth = {each for each in ids if prediction_ids.is_sampled(each, 0.1)}
    half = {each for each in ids if prediction_ids.is_sampled(each, 0.5)}
    assert tenth < half
    assert 300 < len(tenth) < 500
    assert 1850 < len(half) < 2150
    assert all(prediction_ids.is_sampled(each, 1.0) for each in ids)
    assert not any(prediction_ids.is_sampled(each, 0.0) for each in ids)
    assert tenth == {each for each in ids if prediction_ids.is_sampled(each, 0.1)}
