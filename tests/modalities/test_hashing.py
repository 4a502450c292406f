"""Hashes of many runs at once are the hashes of each."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities.hashing import WIDTH, characters, hash_vector, mix, runs, words

WORD = st.text(st.characters(exclude_characters=" "), min_size=1, max_size=8)


@given(st.lists(WORD, min_size=1, max_size=12))
def test_a_word_has_one_hash_wherever_it_stands(found: list[str]) -> None:
    together = words(" ".join(found))
    assert together.tolist() == [int(words(word)[0]) for word in found]
    assert len(set(together.tolist())) == len(set(found))


@given(st.text(max_size=30), st.integers(1, 6))
def test_a_run_has_one_hash_wherever_it_stands(text: str, length: int) -> None:
    found = runs(characters(text), length)
    parts = [text[i : i + length] for i in range(len(text) - length + 1)]
    assert found.tolist() == [int(runs(characters(part), length)[0]) for part in parts]


def test_a_short_run_is_not_a_long_one_of_nothing() -> None:
    assert runs(characters("\0"), 1)[0] != runs(characters("\0\0"), 2)[0]


def test_mixing_loses_nothing_and_spreads() -> None:
    found = mix(np.arange(100_000, dtype=np.uint64))
    assert len(np.unique(found)) == 100_000
    bits = np.unpackbits(found.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 0.01


def test_products_of_vectors_are_those_of_their_counts() -> None:
    """Signed hashing keeps inner products on average: nothing shared, nothing in common."""
    chance = np.random.default_rng(0)
    texts = ["".join(chance.choice(list("abcdefghijklmnopqrstuvwxyz"), 60)) for _ in range(80)]
    vectors = np.stack([hash_vector(text, 3, 5) for text in texts])
    products = (vectors @ vectors.T)[np.triu_indices(len(texts), 1)]
    assert vectors.shape == (80, WIDTH)
    assert abs(products.mean()) < 0.01


def test_another_process_finds_the_same() -> None:
    program = "from speciate.modalities.text import TEXT; print(TEXT.sketch(' '.join(map(str, range(50)))).hex())"
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
