"""What experts measure of a sequence: finite, of one length, and equal to what is known of well-studied peptides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities.biology.protein import ALPHABET
from speciate.modalities.biology.sequence_properties import RESIDUES, sequence_properties

_MELITTIN = "GIGAVLKVLTTGLPALISWIKRKRQQ"
_FIRST_SCALE = 2 + len(RESIDUES)
_EACH_SCALE = 12
_MOMENT = _FIRST_SCALE + 6 * _EACH_SCALE


@given(st.text(sorted(ALPHABET), min_size=1, max_size=60))
def test_every_sequence_has_as_many_finite_numbers(sequence: str) -> None:
    found = sequence_properties(sequence)
    assert found.shape == sequence_properties("A").shape
    assert np.isfinite(found).all()


def test_shares_and_scales_are_those_of_the_sequence() -> None:
    found = sequence_properties(_MELITTIN)
    shares = dict(zip(RESIDUES, found[2 : 2 + len(RESIDUES)], strict=True))
    assert found[0] == len(_MELITTIN)
    assert shares["K"] == pytest.approx(3 / 26)
    charge = found[_FIRST_SCALE + 3 * _EACH_SCALE]
    assert charge * len(_MELITTIN) == pytest.approx(5)  # K K R K R, and no acid


def test_a_helix_with_one_oily_side_has_a_greater_moment_than_the_same_residues_in_blocks() -> None:
    amphipathic = sequence_properties("LKKLLKKLLKKLLKKLLKKL")
    blocks = sequence_properties("L" * 10 + "K" * 10)
    assert amphipathic[_MOMENT] > 1.5 * blocks[_MOMENT + 2]
    assert amphipathic[_MOMENT + 2] > 5 * blocks[_MOMENT + 2]


def test_a_letter_that_is_no_standard_residue_counts_in_no_group() -> None:
    found = sequence_properties("XXXX")
    assert found[0] == 4
    assert not found[2:].any()
