"""Chances of two vocabularies: the same texts are the same, and a student comes to write what its teacher does."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.training.language.distillation import differing
from speciate.training.language.distillation.alignment import outcomes

SURE = 12.0
STUDENT = {1: b"hel", 2: b"lo", 3: b"no", 4: b"hello"}
TEACHER = {1: b"hel", 2: b"lo", 3: b"no"}


def _logits(rows: list[dict[int, float]], size: int) -> Any:
    """Logarithms of chances; what is not named has next to none."""
    import torch

    found = torch.full((len(rows), size), -SURE)
    for row, chances in zip(found, rows, strict=True):
        for token, chance in chances.items():
            row[token] = torch.tensor(chance).log()
    return found


def _loss(student: Any, teacher: Any, towards: float) -> Any:
    """Of the answer `hello`: one token of the student, `hel` and `lo` of the teacher. (2, V) each; the student's second
    row is not in the answer."""
    import torch

    known = outcomes(STUDENT, TEACHER, ({0}, {0}), (5, 4), {b"hello": b"hel"})
    mine = differing.of_outcomes(student[:1], torch.tensor(known.student), known.size)
    its = differing.of_outcomes(teacher[:1], torch.tensor(known.teacher), known.size)
    written = differing.of_written(student[:1], torch.tensor([4]))
    other = differing.of_written(teacher, torch.tensor([1, 2])).sum()[None]
    whole = differing.divergence(differing.or_else(written), differing.or_else(other), towards)
    return (differing.divergence(mine, its, towards) + whole).sum()


@pytest.mark.parametrize("towards", [0.0, 0.5, 1.0])
def test_a_student_that_writes_as_its_teacher_in_other_tokens_is_right(towards: float) -> None:
    """Both write hello or no, half each. (trl's ULDLoss is 1.5 here, and falls as the student learns to say lo.)"""
    teacher = _logits([{1: 0.5, 3: 0.5}, {2: 1.0}], 4)
    right = _logits([{4: 0.5, 3: 0.5}], 5)
    assert float(_loss(right, teacher, towards)) == pytest.approx(0, abs=1e-3)
    assert float(_loss(_logits([{4: 0.9, 3: 0.1}], 5), teacher, towards)) > 0.1
    assert float(_loss(_logits([{2: 0.5, 3: 0.5}], 5), teacher, towards)) > 0.1


@pytest.mark.parametrize("towards", [0.0, 0.5, 1.0])
def test_a_student_that_learns_comes_to_write_as_its_teacher(towards: float) -> None:
    import torch

    teacher = _logits([{1: 0.5, 3: 0.5}, {2: 1.0}], 4)
    student = torch.zeros(1, 5, requires_grad=True)
    learns = torch.optim.Adam([student], lr=0.1)
    for _ in range(400):
        learns.zero_grad()
        _loss(student, teacher, towards).backward()
        learns.step()
    chances = student.detach().softmax(-1)[0]
    assert chances[[4, 3]].tolist() == pytest.approx([0.5, 0.5], abs=0.03)


@pytest.mark.parametrize("towards", [0.0, 0.3, 1.0])
def test_a_divergence_is_that_of_trl_where_the_vocabulary_is_one(towards: float) -> None:
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    torch.manual_seed(0)
    states, others, head, other = torch.randn(1, 6, 8), torch.randn(1, 6, 8), torch.randn(11, 8), torch.randn(11, 8)
    theirs = _chunked_divergence_loss(states, others, head, other, torch.ones(1, 6), towards)[0]
    ours = differing.divergence(
        (states[0] @ head.T).log_softmax(-1), (others[0] @ other.T).log_softmax(-1), towards
    ).mean()
    assert float(ours) == pytest.approx(float(theirs), rel=1e-4)


def test_what_is_sure_or_never_there_is_still_a_number() -> None:
    import torch

    written = torch.tensor([0.0, -1e-9, -200.0], requires_grad=True)
    for towards in (0.0, 0.5, 1.0):
        lost = differing.divergence(
            differing.or_else(written), differing.or_else(torch.tensor([-50.0, 0.0, 0.0])), towards
        )
        assert lost.isfinite().all()
        assert torch.autograd.grad(lost.sum(), written)[0].isfinite().all()
    none = differing.of_outcomes(torch.zeros(2, 3), torch.tensor([0, 0, 0]), 4)
    other = differing.of_outcomes(torch.zeros(2, 3), torch.tensor([1, 2, 3]), 4)
    assert all(differing.divergence(none, other, towards).isfinite().all() for towards in (0.0, 0.5, 1.0))
