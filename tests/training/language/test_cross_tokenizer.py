"""Two tokenizations of one text are brought together where both end a token, whatever the text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.training.language import cross_tokenizer
from speciate.training.language.cross_tokenizer import (
    END,
    NOWHERE,
    REST,
    TokenBytes,
    TokenGroups,
    align_tokens,
    end_tokens,
    first_pieces,
    groups_before,
    shared_outcomes,
    token_bytes,
)
from tests.models.language.world import tiny_tokenizer
from tests.training.language.tokenizers_world import STRANGERS

TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="what is plus? 0123456789 привет 😀👍🏽é\n", max_size=40),
    st.lists(st.sampled_from(["10", "18", "what is", " привет", "😀", "👍🏽", "▁", "<0x0A>", "Ġ", "é"])).map("".join),
)


@cache
def _known(kind: str) -> tuple[Any, TokenBytes]:
    tokenizer = tiny_tokenizer() if kind == "tiny" else STRANGERS[kind]()
    return tokenizer, token_bytes(tokenizer)


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
    found = align_tokens(mine, its, more=True, ended=True)
    assert NOWHERE not in found.student + found.teacher
    assert found.student[-1] == found.teacher[-1] == max(found.student[:-1], default=-1) + 1 == found.same - 1
    written = _grouped(mine, found.student[:-1])
    assert written == _grouped(its, found.teacher[:-1])
    assert "".join(each.decode() for each in written) == text  # each group is whole characters


@given(mine=st.lists(st.binary(max_size=3), max_size=8), its=st.lists(st.binary(max_size=3), max_size=8))
def test_what_is_grouped_is_the_same_text_where_texts_differ_too(mine: list[bytes], its: list[bytes]) -> None:
    found = align_tokens(mine, its, more=False, ended=False)
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
    assert align_tokens([first, second, b"!"], [first, second + b"!"], True, True) == TokenGroups(
        [0, 0, 0, 1], [0, 0, 1], 2
    )
    assert align_tokens([first, second], [first, second], False, False) == TokenGroups([0, 0], [0, 0, NOWHERE], 1)


def test_where_texts_part_what_comes_next_is_compared_once_more() -> None:
    """The end after the same text; a broken character, which only the student wrote; a mark in place of an end."""
    assert align_tokens([b"7"], [b"7"], True, True) == TokenGroups([0, 1], [0, 1], 2)
    broken = align_tokens([b"7", b"\xf0", b"8"], [b"7", b"\xef\xbf\xbd8"], True, True)
    assert broken == TokenGroups([0, 1, NOWHERE, NOWHERE], [0, 1, NOWHERE], 1)
    assert align_tokens([b"7"], [b"7"], True, False) == TokenGroups([0, 1], [0, 1], 1)
    assert align_tokens([], [], True, True) == TokenGroups([0], [0], 1)
    assert align_tokens([], [], False, False) == TokenGroups([], [NOWHERE], 0)


def test_groups_behind_what_the_teacher_sees_are_dropped() -> None:
    assert groups_before(TokenGroups([0, 1, 1, 2], [0, 0, 1, 2], 3), 1) == TokenGroups(
        [0, -1, -1, -1], [0, 0, -1, -1], 1
    )


def test_a_token_of_one_side_counts_as_the_one_with_which_the_other_begins() -> None:
    mine = {1: b"hel", 2: b"he", 3: b"no", 4: b"hello", 5: b"help", 6: "😀".encode()}
    its = {2: b"hel", 3: b"he", 4: b"no", 5: b"none", 6: b"x"}
    found = shared_outcomes(mine, its, ({0}, {0, 1}), (8, 7), {b"help": b"he", b"hello": b"unknown"})
    he, hel, no = 2, 3, 4
    assert found.student == [END, hel, he, no, hel, he, REST, REST]
    assert found.teacher == [END, END, hel, he, no, no, REST]
    assert (found.size, found.shared) == (5, 3)


def test_vocabularies_without_a_common_token_have_the_end_and_the_rest() -> None:
    found = shared_outcomes({1: b"a"}, {0: b"b"}, ({0}, {1}), (2, 2), {})
    assert (found.student, found.teacher, found.size, found.shared) == ([END, REST], [REST, END], 2, 0)


def test_how_the_other_begins_is_asked_of_its_tokenizer() -> None:
    tokenizer, spelling = _known("tiny")
    assert first_pieces(tokenizer, spelling, [b"10", "п".encode()[:1], "п".encode(), b""]) == {
        b"10": b"1", "п".encode(): "п".encode()[:1],
    }  # fmt: skip


def test_all_that_ends_an_answer_is_its_end() -> None:
    from types import SimpleNamespace

    tokenizer, _ = _known("tiny")
    end = tokenizer.eos_token_id
    for named, found in ((None, {end}), (0, {0, end}), ([0, 1], {0, 1, end})):
        assert end_tokens(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named)), tokenizer) == found
    assert end_tokens(object(), tokenizer) == {end}


# Chances of two vocabularies: the same texts are the same, and a student comes to write what its teacher does.


SURE = 12.0
STUDENT = {1: b"hel", 2: b"lo", 3: b"no", 4: b"hello"}
TEACHER = {1: b"hel", 2: b"lo", 3: b"no"}


def _logits(rows: list[dict[int, float]], size: int) -> Any:
    """Logarithms of chances; what is not named has next to none."""
    import torch

    found = torch.full((len(rows), size), -SURE)
    for row, probabilities in zip(found, rows, strict=True):
        for token, chance in probabilities.items():
            row[token] = torch.tensor(chance).log()
    return found


def _loss(student: Any, teacher: Any, towards: float) -> Any:
    """Of the answer `hello`: one token of the student, `hel` and `lo` of the teacher. (2, V) each; the student's second
    row is not in the answer."""
    import torch

    known = shared_outcomes(STUDENT, TEACHER, ({0}, {0}), (5, 4), {b"hello": b"hel"})
    mine = cross_tokenizer.log_outcome_probabilities(student[:1], torch.tensor(known.student), known.size)
    its = cross_tokenizer.log_outcome_probabilities(teacher[:1], torch.tensor(known.teacher), known.size)
    written = cross_tokenizer.log_token_probabilities(student[:1], torch.tensor([4]))
    other = cross_tokenizer.log_token_probabilities(teacher, torch.tensor([1, 2])).sum()[None]
    whole = cross_tokenizer.divergence(
        cross_tokenizer.log_written_or_else(written), cross_tokenizer.log_written_or_else(other), towards
    )
    return (cross_tokenizer.divergence(mine, its, towards) + whole).sum()


@pytest.mark.parametrize("towards", [0.0, 0.5, 1.0])
def test_a_student_that_writes_as_its_teacher_in_other_tokens_is_right(towards: float) -> None:
    """Both write hello or no, half each. (trl's ULDLoss is 1.5 here, and falls as the student learns to say lo.)"""
    teacher = _logits([{1: 0.5, 3: 0.5}, {2: 1.0}], 4)
    right = _logits([{4: 0.5, 3: 0.5}], 5)
    assert float(_loss(right, teacher, towards)) == pytest.approx(0, abs=1e-3)
    assert float(_loss(_logits([{4: 0.9, 3: 0.1}], 5), teacher, towards)) > 0.1
    assert float(_loss(_logits([{2: 0.5, 3: 0.5}], 5), teacher, towards)) > 0.1


@pytest.mark.parametrize("towards", [0.0, pytest.param(0.5, marks=pytest.mark.slow), 1.0])
def test_a_student_that_learns_comes_to_write_as_its_teacher(towards: float) -> None:
    import torch

    teacher = _logits([{1: 0.5, 3: 0.5}, {2: 1.0}], 4)
    student = torch.zeros(1, 5, requires_grad=True)
    learns = torch.optim.Adam([student], lr=0.1)
    for _ in range(400):
        learns.zero_grad()
        _loss(student, teacher, towards).backward()
        learns.step()
    probabilities = student.detach().softmax(-1)[0]
    assert probabilities[[4, 3]].tolist() == pytest.approx([0.5, 0.5], abs=0.03)


@pytest.mark.parametrize("towards", [0.0, 0.3, 1.0])
def test_a_divergence_is_that_of_trl_where_the_vocabulary_is_one(towards: float) -> None:
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    torch.manual_seed(0)
    states, others, head, other = torch.randn(1, 6, 8), torch.randn(1, 6, 8), torch.randn(11, 8), torch.randn(11, 8)
    theirs = _chunked_divergence_loss(states, others, head, other, torch.ones(1, 6), towards)[0]
    ours = cross_tokenizer.divergence(
        (states[0] @ head.T).log_softmax(-1), (others[0] @ other.T).log_softmax(-1), towards
    ).mean()
    assert float(ours) == pytest.approx(float(theirs), rel=1e-4)


def test_what_is_sure_or_never_there_is_still_a_number() -> None:
    import torch

    written = torch.tensor([0.0, -1e-9, -200.0], requires_grad=True)
    for towards in (0.0, 0.5, 1.0):
        lost = cross_tokenizer.divergence(
            cross_tokenizer.log_written_or_else(written),
            cross_tokenizer.log_written_or_else(torch.tensor([-50.0, 0.0, 0.0])),
            towards,
        )
        assert lost.isfinite().all()
        assert torch.autograd.grad(lost.sum(), written)[0].isfinite().all()
    none = cross_tokenizer.log_outcome_probabilities(torch.zeros(2, 3), torch.tensor([0, 0, 0]), 4)
    other = cross_tokenizer.log_outcome_probabilities(torch.zeros(2, 3), torch.tensor([1, 2, 3]), 4)
    assert all(cross_tokenizer.divergence(none, other, towards).isfinite().all() for towards in (0.0, 0.5, 1.0))
