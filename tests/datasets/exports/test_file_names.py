"""Foreign names as file names."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.exports.file_names import UniqueNames, file_name, safe_name


@given(st.text(max_size=400))
def test_any_text_becomes_one_safe_component(text: str) -> None:
    name = safe_name(text)
    assert name not in ("", ".", "..")
    assert len(name.encode()) <= 181
    assert name[0] not in ".=+-@ ~"
    assert not name.startswith("__")
    assert not re.search(r'[/\\:*?"<>|\x00-\x1f\u202e]', name)
    assert safe_name(name) == name


@given(st.lists(st.sampled_from(["cat.png", "CAT.png", "cat-2.png", "cat.PNG", "straße", "STRASSE", "größe.png"])))
def test_names_differ_also_where_case_is_folded(wanted: list[str]) -> None:
    names = UniqueNames()
    found = [names.claim("", name) for name in wanted]
    assert len({name.casefold() for name in found}) == len(found)


def test_a_name_is_kept_where_it_can_be() -> None:
    def head() -> bytes:
        raise AssertionError("the suffix tells enough")

    assert file_name("photos/größe ☃.png", (".png",), head) == "größe ☃.png"
    assert file_name("../../etc/passwd.png", (".png",), head) == "passwd.png"
    assert file_name("a/=1+1.png", (".png",), head) == "_1+1.png"
    assert file_name("CON.png", (".png",), head) == "_CON.png"
    assert file_name("metadata.csv", (".csv",), head) == "_metadata.csv"


def test_a_row_of_a_table_gets_the_suffix_that_its_bytes_tell() -> None:
    assert file_name("train.parquet#12", (".png",), lambda: b"\xff\xd8\xff\xe0") == "train-12.jpg"
    assert file_name("x.parquet#1", (".wav", ".flac"), lambda: b"RIFF\0\0\0\0WAVE") == "x-1.wav"
    assert file_name("x.parquet#1", (".wav",), lambda: b"????") == "x-1.wav"
