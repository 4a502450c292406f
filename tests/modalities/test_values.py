"""Texts, proteins, rows and series: what they admit, what they take for the same, and what is near what."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.modalities.biology.protein import PROTEIN, is_sequence
from speciate.modalities.contract import DecodeError, Vector
from speciate.modalities.tabular import TABULAR
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


def test_semicolons_separate_channels_whose_numbers_have_a_comma() -> None:
    series = b"left;right\n0,5;1\n1,5;-2,25\n"
    assert TIME_SERIES.decode(series).tolist() == [[0.5, 1.5], [1.0, -2.25]]
    assert TIME_SERIES.inspect(series).fields["channels"] == 2
    assert TIME_SERIES.sniff(b"a;b\n" + b"0,5;1\n" * 12, "a.csv")


def test_the_sign_of_zero_makes_no_other_series() -> None:
    zeros = [TIME_SERIES.fingerprint(TIME_SERIES.admit([zero, 1.0])) for zero in (0.0, -0.0, -1e-9)]
    assert len(set(zeros)) == 1


def test_channels_of_unequal_length_are_refused() -> None:
    with pytest.raises(DecodeError):
        TIME_SERIES.admit([[1.0, 2.0], [1.0]])


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 500])
def test_series_of_any_length_have_vectors_of_one_length(steps: int) -> None:
    series = TIME_SERIES.admit(np.sin(np.arange(2 * steps)).reshape(2, steps))
    assert TIME_SERIES.describe(series).shape == (102,)


def apart(a: Vector, b: Vector) -> float:
    return float(np.linalg.norm(a - b))


def test_texts_with_the_same_words_are_nearer_than_others() -> None:
    film, again, other = (
        TEXT.features(text)
        for text in ("A joyful film, well played.", "The film was joyful and well-played", "Invoice 4711 is overdue")
    )
    assert np.linalg.norm(film) == pytest.approx(1, abs=1e-6)
    assert apart(film, again) < apart(film, other) - 0.2


def test_sequences_with_one_changed_residue_are_nearer_than_others() -> None:
    chance = np.random.default_rng(0)
    one, other = ("".join(chance.choice(list("ACDEFGHIKLMNPQRSTVWY"), 80)) for _ in range(2))
    changed = one[:40] + "W" + one[41:]
    near, far = apart(PROTEIN.features(one), PROTEIN.features(changed)), apart(*map(PROTEIN.features, (one, other)))
    assert near < far / 2


def test_rows_are_compared_by_their_columns_whatever_their_order() -> None:
    row = {"age": 61, "sex": "f", "pressure": 128.5, "smoker": False, "note": None}
    features = TABULAR.features(row)
    assert (features == TABULAR.features(dict(reversed(row.items())))).all()
    assert apart(features, TABULAR.features(row | {"age": 62})) < apart(features, TABULAR.features(row | {"sex": "m"}))
    assert np.isfinite(TABULAR.features({"large": 1e300, "whole": 10**300})).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 8, 9, 64])
def test_series_of_any_number_of_channels_have_features_of_one_length(channels: int) -> None:
    """Up to eight, no channel is lost: to change one changes the features."""
    series = TIME_SERIES.admit(np.random.default_rng(0).normal(size=(channels, 50)))
    features = TIME_SERIES.features(series)
    assert features.shape == (408,)
    for channel in {*range(min(channels, 9)), channels - 1}:
        changed = series.copy()
        changed[channel] += 1
        assert apart(features, TIME_SERIES.features(changed)) > 0.1


def test_a_table_divided_by_tabs_declares_its_channels() -> None:
    assert TIME_SERIES.inspect(b"a\tb\n1\t2\n").fields == {"steps": 3, "channels": 2}


@pytest.mark.parametrize(
    ("file", "quality"),
    [
        (b"x,y\n1,2\n3,4\n5", "partial"),
        (b"x,y\n1,2\n3\n5,6\n", "error"),
        (b"x,y\n1,2,3\n4,5\n", "partial"),
        (b"x,y\n1,two\n", "error"),
        (b"x,y\n", "error"),
        (b"1,inf\n2,3\n", "error"),
        (b"1,?\n2,?\n", "error"),
    ],
)
def test_ragged_and_empty_tables_are_no_series(file: bytes, quality: str) -> None:
    with pytest.raises(DecodeError) as refused:
        TIME_SERIES.decode(file)
    assert refused.value.quality == quality


def test_names_and_gaps_in_a_table_are_read() -> None:
    assert TIME_SERIES.decode(b"\xef\xbb\xbfleft ear,right\n1,2\n?,4\n3,\n5,6\n").tolist() == [
        [1, 2, 3, 5],
        [2, 4, 5, 6],
    ]
