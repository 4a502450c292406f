"""Two tokenizations of one text are brought together where both end a token, whatever the text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.training.language.distillation.alignment import END, NOWHERE, REST, Groups, aligned, before, outcomes
from speciate.training.language.distillation.pieces import Spelling, begun, ends, spelled
from tests.language.world import tiny_tokenizer
from tests.training.language.distillation.world import STRANGERS

TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="what is plus? 0123456789 привет 😀👍🏽é\n", max_size=40),
    st.lists(st.sampled_from(["10", "18", "what is", " привет", "😀", "👍🏽", "▁", "<0x0A>", "Ġ", "é"])).map("".join),
)


@cache
def _known(kind: str) -> tuple[Any, Spelling]:
    tokenizer = tiny_tokenizer() if kind == "tiny" else STRANGERS[kind]()
    return tokenizer, spelled(tokenizer)


def _pieces(kind: str, text: str) -> list[bytes]:
    tokenizer, spelling = _known(kind)
    return [spelling[each] for each in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _grouped(pieces: Sequence[bytes], groups: Sequence[int]) -> list[bytes]:
    pairs = zip(pieces, groups, strict=True)
    return [b"".join(piece for piece, _ in some) for _, some in itertools.groupby(pairs, lambda pair: pair[1])]


@pytest.mark.parametrize("kind", ["tiny", *STRANGERS])
@given(text=TEXTS)
def test_tokens_spell_the_text_that_they_are_made_of(kind: str, text: str) -> None:
    if kind == "sentence pieces":
        text = text.replace("▁", "")  # SentencePiece reads it as a space
    assert b"".join(_pieces(kind, text)) == text.encode()


@pytest.mark.parametrize("kind", STRANGERS)
@given(text=TEXTS)
def test_groups_hold_all_tokens_of_both_and_write_the_same(kind: str, text: str) -> None:
    text = text.replace("▁", "")
    mine, its = _pieces("tiny", text), _pieces(kind, text)
    found = aligned(mine, its, more=True, ended=True)
    assert NOWHERE not in found.student + found.teacher
    assert found.student[-1] == found.teacher[-1] == max(found.student[:-1], default=-1) + 1 == found.same - 1
    written = _grouped(mine, found.student[:-1])
    assert written == _grouped(its, found.teacher[:-1])
    assert "".join(each.decode() for each in written) == text  # each group is whole characters


@given(mine=st.lists(st.binary(max_size=3), max_size=8), its=st.lists(st.binary(max_size=3), max_size=8))
def test_what_is_grouped_is_the_same_text_where_texts_differ_too(mine: list[bytes], its: list[bytes]) -> None:
    found = aligned(mine, its, more=False, ended=False)
    assert (len(found.student), len(found.teacher)) == (len(mine), len(its) + 1)
    for group in range(found.same):
        sides = [
            b"".join(piece for piece, each in zip(pieces, groups, strict=False) if each == group)
            for pieces, groups in ((mine, found.student), (its, found.teacher))
        ]
        assert sides[0] == sides[1] != b""
    goes_on = [side.count(found.same) for side in (found.student, found.teacher)]
    assert goes_on in ([0, 0], [1, 1])
    assert goes_on == [1, 1] or NOWHERE not in found.student


def test_a_place_within_a_character_is_none() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert aligned([first, second, b"!"], [first, second + b"!"], True, True) == Groups([0, 0, 0, 1], [0, 0, 1], 2)
    assert aligned([first, second], [first, second], False, False) == Groups([0, 0], [0, 0, NOWHERE], 1)


def test_where_texts_part_what_comes_next_is_compared_once_more() -> None:
    """The end after the same text; a broken character, which only the student wrote; a mark in place of an end."""
    assert aligned([b"7"], [b"7"], True, True) == Groups([0, 1], [0, 1], 2)
    broken = aligned([b"7", b"\xf0", b"8"], [b"7", b"\xef\xbf\xbd8"], True, True)
    assert broken == Groups([0, 1, NOWHERE, NOWHERE], [0, 1, NOWHERE], 1)
    assert aligned([b"7"], [b"7"], True, False) == Groups([0, 1], [0, 1], 1)
    assert aligned([], [], True, True) == Groups([0], [0], 1)
    assert aligned([], [], False, False) == Groups([], [NOWHERE], 0)


def test_groups_behind_what_the_teacher_sees_are_dropped() -> None:
    assert before(Groups([0, 1, 1, 2], [0, 0, 1, 2], 3), 1) == Groups([0, -1, -1, -1], [0, 0, -1, -1], 1)


def test_a_token_of_one_side_counts_as_the_one_with_which_the_other_begins() -> None:
    mine = {1: b"hel", 2: b"he", 3: b"no", 4: b"hello", 5: b"help", 6: "😀".encode()}
    its = {2: b"hel", 3: b"he", 4: b"no", 5: b"none", 6: b"x"}
    found = outcomes(mine, its, ({0}, {0, 1}), (8, 7), {b"help": b"he", b"hello": b"unknown"})
    he, hel, no = 2, 3, 4
    assert found.student == [END, hel, he, no, hel, he, REST, REST]
    assert found.teacher == [END, END, hel, he, no, no, REST]
    assert (found.size, found.shared) == (5, 3)


def test_vocabularies_without_a_common_token_have_the_end_and_the_rest() -> None:
    found = outcomes({1: b"a"}, {0: b"b"}, ({0}, {1}), (2, 2), {})
    assert (found.student, found.teacher, found.size, found.shared) == ([END, REST], [REST, END], 2, 0)


def test_how_the_other_begins_is_asked_of_its_tokenizer() -> None:
    tokenizer, spelling = _known("tiny")
    assert begun(tokenizer, spelling, [b"10", "п".encode()[:1], "п".encode(), b""]) == {
        b"10": b"1", "п".encode(): "п".encode()[:1],
    }  # fmt: skip


def test_all_that_ends_an_answer_is_its_end() -> None:
    from types import SimpleNamespace

    tokenizer, _ = _known("tiny")
    end = tokenizer.eos_token_id
    for named, found in ((None, {end}), (0, {0, end}), ([0, 1], {0, 1, end})):
        assert ends(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named)), tokenizer) == found
    assert ends(object(), tokenizer) == {end}
