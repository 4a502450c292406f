"""Text becomes markup only by `Markup`."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.pages.markup import Column, Markup, element, join_markup, table
from tests.evaluation.pages.reading import Page


@given(st.text())
def test_any_text_stays_text_in_an_element_and_in_an_attribute(text: str) -> None:
    seen: list[tuple[str, list[tuple[str, str | None]]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, attrs))

    Reader().feed(element("p", text, title=text))
    assert [tag for tag, _ in seen] == ["p"]
    assert [name for name, _ in seen[0][1]] == ["title"]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (element("p", "a < b", class_="note"), '<p class="note">a &lt; b</p>'),
        (element("p", element("b", "x"), None, 3), "<p><b>x</b>3</p>"),
        (element("img", alt="", src=None), '<img alt="">'),
        (element("text", text_anchor="end", x=1.23456789), '<text text-anchor="end" x="1.23457"></text>'),
        (join_markup("a\u202eb\x00c\u200b", Markup("<br>")), "abc<br>"),
    ],
)
def test_elements_are_written_as_html_is(made: str, text: str) -> None:
    assert made == text


def test_a_table_names_its_columns_and_rows() -> None:
    found = Page(table("Counts", [Column("What"), Column("How many", True)], [["a", 1], ["b", 2]], ["x", None]))
    assert found.table("Counts").rows == [2, 2]
    assert [one["scope"] for tag, one in found.elements if tag == "th"] == ["col", "col", "row", "row"]
