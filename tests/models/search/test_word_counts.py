"""BM25 over parts is BM25 over the whole, and that of the field's library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.models.search import index, word_counts
from speciate.models.search.word_counts import WordCounts, word_scores, words

TEXTS = st.lists(st.lists(st.sampled_from(("cat", "dog", "vit_b16", "Cat", "!", "7b")), max_size=6).map(" ".join))


def test_scores_over_the_shipped_table_are_those_of_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s")
    table = index.read()
    texts = [f"{ref} {what}" for ref, what in zip(table["ref"].to_pylist(), table["what"].to_pylist(), strict=True)]
    peer = bm25s.BM25()
    peer.index([words(text) for text in texts], show_progress=False)
    ours = [WordCounts(texts[:2_000]), WordCounts(texts[2_000:])]
    for query in ("small image classifier", "qwen 7b instruct", "vit_base_patch16 vit", "e5 e5 large"):
        known = [word for word in words(query) if word in peer.vocab_dict]
        found = word_scores(ours, query)
        assert found is not None
        np.testing.assert_allclose(found, peer.get_scores(known), rtol=1e-4, atol=1e-5)
        assert 0 < np.count_nonzero(found) < len(texts)


@given(TEXTS, TEXTS, st.sampled_from(("cat dog", "7b", "vit_b16 dog", "!")))
def test_parts_score_as_one_whole(first: list[str], second: list[str], query: str) -> None:
    whole = word_scores([WordCounts(first + second)], query)
    parts = word_scores([WordCounts(first), WordCounts(second)], query)
    later = word_scores([WordCounts(first + second, WordCounts([*second, "of nothing"]))], query)
    if whole is None:
        assert parts is None
        assert later is None
    else:
        assert parts is not None
        assert later is not None
        np.testing.assert_array_equal(parts, whole)
        np.testing.assert_array_equal(later, whole)


def test_a_text_is_taken_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = WordCounts(["a cat", "a dog"])
    taken: list[str] = []
    monkeypatch.setattr(word_counts, "words", lambda text: taken.append(text) or text.split())
    found = WordCounts(["a bird", "a cat"], before)
    assert taken == ["a bird"]
    assert [places.tolist() for places, _ in map(found.of, ("a", "bird", "cat", "dog", "fish"))] == [
        [0, 1], [0], [1], [], [],
    ]  # fmt: skip
