"""Text, proteins and series: what they admit, and what they take for the same."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.modalities.contract import DecodeError
from speciate.modalities.protein import PROTEIN, is_sequence
from speciate.modalities.text import TEXT
from speciate.modalities.time_series import TIME_SERIES


def test_case_and_punctuation_make_no_other_text() -> None:
    assert TEXT.fingerprint("Hello,  World!") == TEXT.fingerprint("hello world")
    assert TEXT.fingerprint("hello world") != TEXT.fingerprint("hello words")


def test_a_text_cut_inside_a_character_is_partial() -> None:
    with pytest.raises(DecodeError) as refused:
        TEXT.decode("Zürich ☃".encode()[:-1])
    assert refused.value.quality == "partial"


def test_a_byte_order_mark_is_no_text() -> None:
    assert TEXT.decode(b"\xef\xbb\xbfword") == "word"


def test_a_sequence_is_cleaned_of_case_spaces_and_stop() -> None:
    assert PROTEIN.admit(" mkl lv* ") == "MKLLV"


def test_words_are_no_sequence() -> None:
    assert not is_sequence("Hello there")
    assert is_sequence("ACDEFGHIK")
    with pytest.raises(DecodeError, match="amino"):
        PROTEIN.admit("HELLO-WORLD1")


def test_missing_values_are_filled_between_their_neighbours() -> None:
    assert TIME_SERIES.admit([0.0, float("nan"), 2.0]).tolist() == [[0.0, 1.0, 2.0]]
    with pytest.raises(DecodeError, match="no value"):
        TIME_SERIES.admit([[1.0, 2.0], [float("nan")] * 2])


def test_channels_of_unequal_length_are_refused() -> None:
    with pytest.raises(DecodeError):
        TIME_SERIES.admit([[1.0, 2.0], [1.0]])


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 500])
def test_series_of_any_length_have_vectors_of_one_length(steps: int) -> None:
    series = TIME_SERIES.admit(np.sin(np.arange(2 * steps)).reshape(2, steps))
    assert TIME_SERIES.describe(series).shape == (102,)
