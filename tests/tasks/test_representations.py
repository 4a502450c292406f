"""Each representation is the same after it was saved and rebuilt, and copes with what training has not seen."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from speciate import modalities
from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.tasks.joined_representations import Joined, Remembered
from speciate.tasks.representations import (
    Columns,
    Documents,
    NGrams,
    Properties,
    Scaling,
    Steps,
    Vectors,
    ngram_choices,
)
from speciate.tasks.task import UnsuitableRepresentation


def _examples(*media: Any) -> list[Example]:
    return [Example(str(i), medium, None, str(i), "train", {}) for i, medium in enumerate(media)]


def _again(made: Any) -> Any:
    return type(made).rebuild(json.loads(json.dumps(made.settings())), made.arrays())


@pytest.mark.parametrize("counting", [NGrams("word", 1, 2), NGrams("char", 1, 3), NGrams("char_wb", 2, 5)])
def test_documents_are_counted_alike_after_rebuilding(counting: NGrams) -> None:
    texts = _examples("a good film", "a bad film", "good")
    made = Documents.fit(texts, "text", counting)
    np.testing.assert_array_equal(_again(made).encode(texts).toarray(), made.encode(texts).toarray())


@pytest.mark.parametrize("kind", [Documents, Vectors, Properties])
def test_what_was_made_to_fit_is_not_made_again(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = ["".join(np.random.default_rng(at).choice(list("ACDEFGHIKL"), 20)) for at in range(30)]
    images = [np.random.default_rng(at).integers(0, 255, (8, 8, 3)).astype(np.uint8) for at in range(30)]
    examples, modality = (_examples(*images), "image") if kind is Vectors else (_examples(*sequences), "protein")
    modality_kind, named = modalities.find(modality), "properties" if kind is Properties else "describe"
    seen, make = [], getattr(modality_kind, named)

    def counted(medium: Any) -> Any:
        seen.append(medium)
        return make(medium)

    monkeypatch.setattr(modality_kind, named, counted)
    made = kind.fit(examples, modality, *([NGrams("char", 1, 2)] if kind is Documents else []))
    first = made.encode(examples)
    assert len(seen) == len(examples)
    again, copied = made.encode(examples), made.encode(list(examples))
    assert len(seen) == 3 * len(examples), "nothing is kept longer"
    first, again, copied = (each.toarray() if kind is Documents else each for each in (first, again, copied))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(again, copied)
    others = kind.fit(examples, modality, *([NGrams("char", 1, 2)] if kind is Documents else []))
    others.encode(list(examples))
    seen.clear()
    others.encode(examples)
    assert len(seen) == len(examples), "what nobody asks for goes, too: a model lives long"


def test_a_document_without_a_known_word_is_a_row_of_zeros() -> None:
    made = Documents.fit(_examples("red green", "red blue"), "text", NGrams("word", 1, 1))
    assert made.encode(_examples("yellow")).toarray().sum() == 0


def test_words_are_also_counted_in_parts_and_sequences_only_by_residue() -> None:
    assert [counting.unit for counting in ngram_choices("text")] == ["word", "char_wb"]
    assert [counting.unit for counting in ngram_choices("protein")] == ["char"]
    assert ngram_choices("image") == ()


def test_pixels_are_scaled_alike_after_rebuilding() -> None:
    rng = np.random.default_rng(0)
    images = _examples(*rng.integers(0, 255, (4, 9, 9, 3), dtype=np.uint8))
    made = Vectors.fit(images, "image", one_unit=True)
    np.testing.assert_array_equal(_again(made).encode(images), made.encode(images))


def test_steps_are_those_of_the_training_series_whatever_the_length() -> None:
    slow = np.linspace(0, 1, 21, dtype=np.float32)
    series = _examples(np.stack([slow, -slow]), np.stack([2 * slow, slow]), np.stack([slow**2, 3 * slow]))
    made = Steps.fit(series)
    np.testing.assert_array_equal(_again(made).encode(series), made.encode(series))
    assert made.encode(series).shape == (3, 42)
    longer = np.linspace(0, 1, 81, dtype=np.float32)
    np.testing.assert_allclose(made.encode(_examples(np.stack([longer, -longer])))[0], made.encode(series)[0])
    with pytest.raises(SpeciateError, match="1 channels"):
        made.encode(_examples(slow[None]))
    with pytest.raises(UnsuitableRepresentation, match="line up"):
        Steps.fit([*series, *_examples(np.zeros((2, 20), np.float32))])


def test_rows_with_gaps_new_words_and_missing_columns_are_encoded() -> None:
    rows = _examples({"size": 1.0, "colour": "red"}, {"size": None, "colour": "blue"}, {"size": 3.0, "colour": "red"})
    made = Columns.fit(rows, ["size", "colour"])
    encoded = made.encode(_examples({"size": "2", "colour": "green"}, {}))
    assert encoded.shape == (2, 4)  # the number, its flag, two colours
    assert np.isfinite(encoded).all()
    np.testing.assert_array_equal(_again(made).encode(rows), made.encode(rows))


@pytest.mark.parametrize("cell", ["many", "inf", 10**400])
def test_what_is_no_number_is_refused_where_training_saw_numbers(cell: object) -> None:
    made = Columns.fit(_examples({"size": 1.0}, {"size": 3.0}), ["size"])
    with pytest.raises(SpeciateError, match="'size' must be a number"):
        made.encode(_examples({"size": cell}))


@pytest.mark.parametrize("cell", ["", " ", "NA", "nan", None])
def test_a_cell_that_says_nothing_is_a_missing_number(cell: object) -> None:
    made = Columns.fit(_examples({"size": 1.0}, {"size": None}, {"size": 3.0}), ["size"])
    np.testing.assert_array_equal(made.encode(_examples({"size": cell})), made.encode(_examples({})))


def test_frequent_values_of_a_column_are_categories_however_many_and_rare_ones_only_among_the_first() -> None:
    frequent = [f"f{place}" for place in range(120)]
    rare = [f"r{place}" for place in range(300)]
    rows = _examples(*({"c": name} for name in [*frequent * 5, *rare]))
    assert Columns.fit(rows, ["c"]).encode(rows).shape[1] == 120
    few = _examples(*({"c": name} for name in rare))
    assert Columns.fit(few, ["c"]).encode(few).shape[1] == 50


def test_columns_outside_the_inputs_are_not_looked_at() -> None:
    rows = _examples({"x": 1.0, "answer": "a"}, {"x": 2.0, "answer": "b"})
    assert Columns.fit(rows, ["x"]).encode(rows).shape == (2, 1)


def test_a_missing_number_becomes_the_median_and_a_constant_column_zero() -> None:
    rows = np.array([[1.0, 5.0], [2.0, 5.0], [math.nan, 5.0], [9.0, 5.0]])
    scaled = Scaling.of(rows).apply(rows)
    assert scaled[2, 0] == scaled[1, 0]  # the median is 2
    assert (scaled[:, 1] == 0).all()


def test_columns_of_one_unit_keep_their_proportions() -> None:
    rows = np.array([[0.0, 0.0], [10.0, 0.1]])
    scaled = Scaling.of(rows, one_unit=True).apply(rows)
    assert np.ptp(scaled[:, 0]) == pytest.approx(100 * np.ptp(scaled[:, 1]))


def test_words_and_their_parts_are_counted_side_by_side_and_alike_after_rebuilding() -> None:
    read = [Example(str(i), text, None, str(i), "train", {}) for i, text in enumerate(["one ship", "two ships", "no"])]
    both = Joined([Documents.fit(read, "text", counting) for counting in ngram_choices("text")])
    found = both.encode(read)
    widths = [Documents.fit(read, "text", counting).encode(read).shape[1] for counting in ngram_choices("text")]
    assert found.shape == (3, sum(widths))
    again = Joined.rebuild(json.loads(json.dumps(both.settings())), both.arrays())
    assert (again.encode(read) != found).nnz == 0


def test_what_several_learners_read_is_encoded_once() -> None:
    read = [Example(str(i), text, None, str(i), "train", {}) for i, text in enumerate(["one ship", "two ships", "no"])]
    inner = Documents.fit(read, "text", ngram_choices("text")[1])
    once = Remembered(inner)
    assert once.encode(read) is once.encode(list(read))
    assert (once.encode(read[:2]) != inner.encode(read[:2])).nnz == 0
    assert once.settings() == inner.settings()


def test_parts_of_examples_that_are_known_are_taken_from_all_of_them() -> None:
    read = [Example(str(i), text, None, str(i), "train", {}) for i, text in enumerate(["one ship", "two ships", "no"])]
    asked = list[int]()

    class Counted(Documents):
        def encode(self, examples: Sequence[Example]) -> Any:
            asked.append(len(examples))
            return super().encode(examples)

    inner = Counted.fit(read, "text", ngram_choices("text")[1])
    once = Remembered(inner, read)
    for part in (read[2:], read[:2], read[::-1]):
        assert (once.encode(part) != Documents.encode(inner, part)).nnz == 0
    assert asked == [3]
    fresh = [read[0], Example("new", "two ships", None, "new", "test", {})]
    assert (once.encode(fresh) != Documents.encode(inner, fresh)).nnz == 0
    assert asked == [3, 2]
