"""Foreign text is harmless when it comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.server.untrusted import clean, clean_text

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=80), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "hidden", ["\x00", "\x1b", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041", "\ud800"]
)
def test_a_hidden_character_becomes_a_visible_mark(hidden: str) -> None:
    assert clean_text(f"a{hidden}b") == "a\ufffdb"


def test_tabs_newlines_and_joined_emoji_stay() -> None:
    text = "a\tb\nc 👩\u200d🔬"
    assert clean_text(text) == text


@given(DOCUMENTS)
def test_whatever_goes_in_json_comes_out(document: Any) -> None:
    shown = clean({"x": document, "untrusted": document}, 1000)
    text = json.dumps(shown, allow_nan=False, ensure_ascii=False)
    text.encode()
    assert clean(shown, 1000) == shown or "more characters]" in text


def test_foreign_text_is_cut_and_says_by_how_much() -> None:
    shown = clean({"untrusted": {"log": "x" * 5000}}, 1000)
    assert shown["untrusted"]["log"] == "x" * 1000 + "… [4,000 more characters]"


def test_our_own_text_is_not_cut() -> None:
    assert clean({"path": "x" * 5000}, 10)["path"] == "x" * 5000


def test_many_pieces_share_the_room() -> None:
    shown = clean({"untrusted": {"rows": [["y" * 900] for _ in range(40)]}}, 12_000)
    assert all(row[0].startswith("y" * 300) and len(row[0]) < 340 for row in shown["untrusted"]["rows"])


def test_cells_that_are_null_keep_their_place() -> None:
    assert clean({"untrusted": {"rows": [[1, None, float("nan")]]}}, 100)["untrusted"]["rows"] == [[1, None, None]]


def test_long_labels_are_short_and_still_different() -> None:
    first, second = "a" * 70 + "1", "a" * 70 + "2"
    labels = clean({first: 1, second: 2}, 100)
    assert sorted(labels.values()) == [1, 2]
    assert all(len(label) <= 64 for label in labels)


def test_reasons_are_sentences_and_stay_whole_where_names_of_columns_are_cut() -> None:
    reason = "1 of 2 instances cannot be used. 'IMcut' (instance 1): The file ends within its pixels."
    report = {"untrusted": {"reasons": {reason: 3}, "labels": {reason: 3}}, "audit": {"to_look_at": {reason: 1}}}
    shown = clean(report, 1000)
    assert shown["untrusted"]["reasons"] == shown["audit"]["to_look_at"] | {reason: 3} == {reason: 3}
    assert [len(label) for label in shown["untrusted"]["labels"]] == [64]
    (longest,) = clean({"reasons": {"x" * 5000: 1}}, 1000)["reasons"]
    assert len(longest) == 300
