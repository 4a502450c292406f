"""Descriptions keep nothing but words that name nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities.scans.deidentification.descriptors import cleaned


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("T2 AX FLAIR 5mm JOHN SMITH 1948", "T2 AX FLAIR 5mm"),
        ("Chest PA/LAT for Dr. Who 03/12/70", "Chest PA LAT"),
        ("Müller, Anna", ""),
        ("", ""),
    ],
)
def test_known_words_stay_in_their_order(text: str, rest: str) -> None:
    assert cleaned(text) == rest


@given(st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert cleaned(cleaned(text)) == cleaned(text)
