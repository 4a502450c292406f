"""Learner `tabm`: many perceptrons in one, for tables (models/perceptrons.py), by torch, one thread, in seconds.

Each member learns the targets by itself, which keeps their errors apart. The number of steps is settled beforehand and
the learning rate falls to nothing over them, so that no example has to be held out to say when to stop. Measured on
the tables of evals/LOG.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speciate.models.perceptrons import Perceptrons, with_ranks

if TYPE_CHECKING:
    import torch

Targets = npt.NDArray[Any]
NAME = "tabm"
_MEMBERS, _WIDTH, _DROPOUT = 16, 128, 0.1
_RATE, _DECAY, _LARGEST_GRADIENT = 3e-3, 3e-4, 1.0
_BATCH, _STEPS, _EPOCHS, _RISING = 128, 400, 12, 20
"""Steps at least; passes over the examples at least; steps over which the learning rate rises."""
_KNOTS, _FEWEST_VALUES = 65, 10
"""Values of a column below which its rank says nothing more."""
_FEWEST, _MOST_COLUMNS, _MOST_CELLS = 60, 500, 4_000_000


def too_large(rows: int, columns: int, classes: int) -> str | None:
    if rows < _FEWEST:
        return f"{rows} examples are fewer than {_FEWEST}"
    if columns > _MOST_COLUMNS or rows * columns > _MOST_CELLS:
        return f"{rows:,} examples of {columns:,} columns would take it too long"
    return None


def seconds(rows: int, columns: int) -> float:
    """About what a fit takes on one core: some 10 billion multiplications a second, six for each weight and row."""
    weights = 2 * columns * _WIDTH + _WIDTH * _WIDTH
    return 6e-10 * steps(rows) * _BATCH * _MEMBERS * weights / 4


def steps(rows: int) -> int:
    return max(_STEPS, math.ceil(_EPOCHS * rows / _BATCH))


def tabm_classifier(inputs: Any, targets: Targets, seed: int, weights: Targets | None = None) -> Perceptrons:
    """`targets`: indices of labels. `weights`: (N,), of the examples."""
    from torch.nn import functional

    def losses(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, wanted, reduction="none")

    labels = int(np.max(targets)) + 1
    return _learned(inputs, np.asarray(targets, np.int64), labels, losses, seed, weights, classes=True)


def tabm_regression(absolute: bool) -> Callable[..., Perceptrons]:
    """`absolute`: the absolute error is what counts, else the squared one."""

    def learn(inputs: Any, targets: Targets, seed: int, weights: Targets | None = None) -> Perceptrons:
        from torch.nn import functional

        loss = functional.l1_loss if absolute else functional.mse_loss

        def losses(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            return loss(outputs[:, 0], wanted, reduction="none")

        numbers = np.asarray(targets, np.float64)
        mean, spread = float(numbers.mean()), float(numbers.std()) or 1.0
        scaled = ((numbers - mean) / spread).astype(np.float32)
        made = _learned(inputs, scaled, 1, losses, seed, weights, classes=False)
        return made._replace(last=made.last * np.float32(spread), last_bias=made.last_bias * np.float32(spread) + mean)

    return learn


def _learned(
    inputs: Any,
    targets: Targets,
    outputs: int,
    losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    seed: int,
    weights: Targets | None,
    *,
    classes: bool,
) -> Perceptrons:
    import torch
    from torch.nn.utils import clip_grad_norm_

    matrix = np.asarray(inputs, np.float64)
    ranked, knots = _ranks_of(matrix)
    read = torch.from_numpy(with_ranks(matrix, ranked, knots))
    wanted = torch.from_numpy(targets)
    heavy = torch.ones(len(read)) if weights is None else torch.from_numpy(np.asarray(weights, np.float32))
    chance = torch.Generator().manual_seed(seed)
    parameters = _first_weights(read.shape[1], outputs, chance)
    optimizer = torch.optim.AdamW(parameters.values(), lr=_RATE, weight_decay=_DECAY)
    batches, last = _batches(len(read), seed), steps(len(read))
    for step in range(last):
        rate = _RATE * ((step + 1) / _RISING if step < _RISING else (1 + math.cos(math.pi * step / last)) / 2)
        optimizer.param_groups[0]["lr"] = rate
        rows = next(batches)
        answers = _forward(parameters, read[rows], chance).flatten(0, 1)
        own = losses(answers, wanted[rows].repeat_interleave(_MEMBERS))
        share = heavy[rows].repeat_interleave(_MEMBERS)
        optimizer.zero_grad()
        ((own * share).sum() / share.sum()).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        clip_grad_norm_(parameters.values(), _LARGEST_GRADIENT)
        optimizer.step()
    arrays = {name: tensor.detach().numpy().copy() for name, tensor in parameters.items()}
    return Perceptrons(ranked=ranked, knots=knots, classes=np.array(int(classes)), **arrays)


def _ranks_of(matrix: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Columns of many values, and quantiles of each."""
    ranked = [at for at in range(matrix.shape[1]) if len(np.unique(matrix[:, at])) >= _FEWEST_VALUES]
    knots = np.quantile(matrix[:, ranked], np.linspace(0, 1, _KNOTS), axis=0).T
    return np.array(ranked, np.int64), knots.reshape(len(ranked), _KNOTS)


def _batches(rows: int, seed: int) -> Any:
    chance = np.random.default_rng(seed)
    waiting = np.empty(0, np.int64)
    while True:
        while len(waiting) < _BATCH:
            waiting = np.concatenate([waiting, chance.permutation(rows)])
        batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
        yield batch


def _first_weights(width: int, outputs: int, chance: torch.Generator) -> dict[str, torch.Tensor]:
    """The members begin with other signs for what they read and another bias, and are else the same."""
    import torch

    def drawn(*shape: int, among: int) -> torch.Tensor:
        return (2 * torch.rand(*shape, generator=chance) - 1) / math.sqrt(among)

    ones = torch.ones(_MEMBERS, _WIDTH)
    signs = 2.0 * torch.randint(0, 2, (_MEMBERS, width), generator=chance) - 1
    made = {
        "into_first": signs, "first": drawn(_WIDTH, width, among=width), "out_of_first": ones.clone(),
        "first_bias": drawn(_MEMBERS, _WIDTH, among=width),
        "into_second": ones.clone(), "second": drawn(_WIDTH, _WIDTH, among=_WIDTH), "out_of_second": ones.clone(),
        "second_bias": drawn(_MEMBERS, _WIDTH, among=_WIDTH),
        "into_last": ones.clone(), "last": drawn(outputs, _WIDTH, among=_WIDTH),
        "last_bias": drawn(outputs, among=_WIDTH),
    }  # fmt: skip
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def _forward(weights: dict[str, torch.Tensor], read: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """(B, I) -> (B, M, K), as `Perceptrons` does, with a tenth of the units left out."""
    import torch

    def some(state: torch.Tensor) -> torch.Tensor:
        kept = torch.rand(state.shape, generator=chance) >= _DROPOUT
        return state.relu() * kept / (1 - _DROPOUT)

    state = (read[:, None] * weights["into_first"]) @ weights["first"].T
    state = some(state * weights["out_of_first"] + weights["first_bias"])
    state = (state * weights["into_second"]) @ weights["second"].T
    state = some(state * weights["out_of_second"] + weights["second_bias"])
    return (state * weights["into_last"]) @ weights["last"].T + weights["last_bias"]
