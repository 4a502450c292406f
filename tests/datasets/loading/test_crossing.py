"""Media out of a cage and back."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from speciate.datasets.loading.crossing import Reader, write
from speciate.datasets.loading.keys import digest

ARRAYS = st.one_of(
    arrays.arrays(kind, arrays.array_shapes(min_side=0, max_dims=3, max_side=4))
    for kind in ("uint8", "int32", "float32")
)
PLAIN = st.one_of(st.text(max_size=5), st.integers(-9, 9), st.lists(st.integers(0, 9), max_size=3))
MEDIA = st.recursive(
    ARRAYS | PLAIN, lambda parts: st.dictionaries(st.text("abc", min_size=1), parts, max_size=3), max_leaves=6
)


def crossed(*media: Any) -> list[Any]:
    file = io.BytesIO()
    descriptions = json.loads(json.dumps([write(medium, file) for medium in media]))
    reader = Reader(np.frombuffer(file.getvalue(), np.uint8))
    return [reader.read(description) for description in descriptions]


@given(st.lists(MEDIA, max_size=3))
def test_media_come_back_as_they_were(media: list[Any]) -> None:
    for before, after in zip(media, crossed(*media), strict=True):
        assert digest(after) == digest(before)


def test_another_value_type_or_name_is_another_digest() -> None:
    media = [{"a": np.zeros(2, np.float32)}, {"b": np.zeros(2, np.float32)}, {"a": np.zeros(2, np.int32)},
             {"a": np.ones(2, np.float32)}, {"a": {"a": np.zeros(2, np.float32)}}]  # fmt: skip
    assert len({digest(medium) for medium in media}) == len(media)


@pytest.mark.parametrize("description", [["float64", [1]], ["uint8", [-1]], ["uint8", [99]], ["object", [1]], 7,
                                         [None, ["x"]], {"a": ["uint8", [99]]}])  # fmt: skip
def test_what_was_not_written_is_refused(description: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Reader(np.zeros(8, np.uint8)).read(description)


def test_parts_within_parts_end() -> None:
    deep: Any = ["uint8", [1]]
    for _ in range(50):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="parts"):
        Reader(np.zeros(8, np.uint8)).read(deep)
