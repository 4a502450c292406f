"""Terms are those of scikit-learn's CountVectorizer on the same documents, whatever was counted before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from speciate.datasets.loading.loader import Example
from speciate.tasks import term_counts
from speciate.tasks.representations import Documents
from speciate.tasks.term_counts import NGrams, TermCounter

COUNTINGS = [NGrams("word", 1, 2), NGrams("char", 1, 3), NGrams("char_wb", 2, 5)]
_WORDS = st.sampled_from(
    ["a", "ab", "Ab", "abc", "bc", "ΑΣ", "ΑΣΒ", "é", "e\u0301", "x-y", "\u200b", "12", "日本語", "İz"]
)
_DOCUMENTS = st.lists(
    st.one_of(
        st.text(max_size=20), st.builds(lambda words, gap: gap.join(words), st.lists(_WORDS), st.sampled_from(" \t\n"))
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("counting", COUNTINGS, ids=str)
@given(first=_DOCUMENTS, then=_DOCUMENTS, fewest=st.integers(1, 3), most=st.integers(1, 40))
def test_terms_and_counts_are_those_of_scikit_learn(
    counting: NGrams, first: list[str], then: list[str], fewest: int, most: int
) -> None:
    counter = TermCounter(counting)
    for documents in (first, then, [*first, *then]):
        theirs = CountVectorizer(**counting.analyzer(), min_df=fewest, max_features=most, dtype=np.float64)
        ours = counter.keep(documents, fewest, most)
        try:
            counts = theirs.fit_transform(documents)
        except ValueError:  # no term is left
            assert ours is None
            continue
        counts.sort_indices()
        assert ours is not None
        assert list(ours.terms) == theirs.get_feature_names_out().tolist()
        for mine, expected in ((ours.counts, counts), (counter.count(then, ours.terms), theirs.transform(then))):
            np.testing.assert_array_equal(mine.toarray(), expected.toarray())
            np.testing.assert_array_equal(mine.indices, expected.indices)
            assert mine.indices.dtype == mine.indptr.dtype == np.int32


@pytest.mark.parametrize("counting", COUNTINGS, ids=str)
def test_weighted_counts_have_the_same_bits_with_and_without_a_counter(counting: NGrams) -> None:
    chance = np.random.default_rng(0)
    texts = [" ".join(chance.choice(["good", "bad", "film", "plot", "endless"], 12)) for _ in range(150)]
    examples = [Example(str(place), text, None, str(place), "train", {}) for place, text in enumerate(texts)]
    learn, asked = examples[:120], examples[100:]
    made = Documents.fit(learn, "text", counting, TermCounter(counting))
    plain = TfidfVectorizer(**counting.analyzer(), sublinear_tf=True, min_df=2)
    plain.fit(texts[:120])
    rebuilt = Documents.rebuild(made.settings(), made.arrays())
    for each in (plain.transform(texts[100:]), rebuilt.encode(asked)):
        np.testing.assert_array_equal(made.encode(asked).toarray(), each.toarray())


def test_counts_of_earlier_documents_go_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_counts, "_MOST_KEPT", 3)
    counter = TermCounter(NGrams("word", 1, 1))
    assert counter.keep(["red green blue black"], 1, 9) is not None
    assert counter.keep(["red"], 1, 9) is not None
    assert len(counter._places) == 1
    assert counter.count(["red red", "red green blue black"], ["green", "red"]).toarray().tolist() == [[0, 2], [1, 1]]


def test_a_document_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = TermCounter(NGrams("word", 1, 1))
    seen = list[str]()
    take_apart = counter._take_apart
    monkeypatch.setattr(counter, "_take_apart", lambda document: seen.append(document) or take_apart(document))
    counter.keep(["red green", "red"], 1, 9)
    counter.keep(["red", "red green", "blue"], 1, 9)
    assert seen == ["red green", "red", "blue"]
