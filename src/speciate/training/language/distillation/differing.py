"""How far a student's chances are from those of a teacher with another vocabulary. Pure, over tensors.

Two things of the same text can be compared. What may come next at a common place: both distributions, added up over
outcomes that mean the same (alignment.py). And what was written until the next common place, where that took several
tokens: its chance, by the chain rule, beside the chance of anything else (the binarised divergence of Minixhofer et al.
2025, "Universal Cross-Tokenizer Distillation via Approximate Likelihood Matching", arXiv 2503.20083). Both are
divergences of true distributions: never below zero, and zero where the two agree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LEAST = 1e-12
"""Added to the chance of each outcome: one side may have no token for it."""
_SUREST = -1e-6
"""The highest logarithm of a chance beside which there is still another."""


def divergence(student: torch.Tensor, teacher: torch.Tensor, towards: float) -> torch.Tensor:
    """(N,), of logarithms of chances (N, K). `towards`: 0 the forward KL, 1 the reverse, between them the generalised
    Jensen-Shannon divergence (Agarwal et al. 2023, equation 1), as trl's beta."""
    import torch

    def kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one.exp() * (one - other)).sum(-1)

    if towards == 0:
        return kl(teacher, student)
    if towards == 1:
        return kl(student, teacher)
    mixed = torch.logaddexp(student + math.log1p(-towards), teacher + math.log(towards))
    return towards * kl(teacher, mixed) + (1 - towards) * kl(student, mixed)


def of_outcomes(logits: torch.Tensor, outcome: torch.Tensor, size: int) -> torch.Tensor:
    """Logarithms of the chances of `size` outcomes (N, size). `logits`: (N, V). `outcome`: (V,), of each token."""
    chances = logits.softmax(-1)
    return (chances.new_zeros(len(chances), size).index_add(1, outcome, chances) + _LEAST).log()


def of_written(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logarithms of the chances (N,) of the tokens (N,) that were written, of logits (N, V)."""
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def or_else(written: torch.Tensor) -> torch.Tensor:
    """Logarithms (N, 2) of the chance of what was written (N,) and of anything else."""
    import torch

    sure = written.clamp(max=_SUREST)
    return torch.stack([sure, torch.log(-torch.expm1(sure))], -1)
