"""Text becomes markup only in the templates."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from speciate.evaluation.pages.page import environment
from tests.evaluation.pages.reading import Page

_TABLE = """{% from "macros.html" import head, number, row_head, table %}
{% call table("Counts") %}
<thead><tr>{{ head("What") }}{{ head("How many", true) }}</tr></thead>
<tbody>{% for name, n in rows %}<tr>{{ row_head(name) }}{{ number(n) }}</tr>{% endfor %}</tbody>
{% endcall %}"""


def rendered(source: str, **values: object) -> str:
    return environment().from_string(source).render(values)


@given(st.text())
def test_any_text_stays_text_in_an_element_and_in_an_attribute(text: str) -> None:
    seen: list[tuple[str, list[tuple[str, str | None]]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, attrs))

    Reader().feed(rendered('<p title="{{ text }}">{{ text }}</p>', text=text))
    assert [tag for tag, _ in seen] == ["p"]
    assert [name for name, _ in seen[0][1]] == ["title"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ value }}", "abc&lt;d"),
        ('{% from "macros.html" import badge %}{{ badge(value) }}',
         '<span class="verdict abc&lt;d">abc&lt;d</span>'),
        ('{% from "macros.html" import fact %}{{ fact("Id", value) }}', "<div><dt>Id</dt><dd>abc&lt;d</dd></div>"),
        ('{% from "macros.html" import fact %}{{ fact("Id", none) }}', ""),
        ('{% from "macros.html" import cell %}{{ cell(value ~ "<") }}',
         '<td><div class="words">abc&lt;d&lt;</div></td>'),
    ],
)  # fmt: skip
def test_text_is_escaped_once_and_has_no_characters_of_control_or_direction(source: str, text: str) -> None:
    assert rendered(source, value="a\u202eb\x00c\u200b<d") == text


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        rendered("{{ nothing }}")


def test_a_table_names_its_columns_and_rows() -> None:
    found = Page(rendered(_TABLE, rows=[("a", 1), ("b", 2)]))
    assert found.table("Counts").rows == [2, 2]
    assert [one["scope"] for tag, one in found.elements if tag == "th"] == ["col", "col", "row", "row"]
